"""Make RGB images for cubes that have none: a measured camera, and the challenges' two kinds of image.

Reads SPECTRAL_DIR/NAME.mat (variable `cube` or `rad`, H x W x bands; the wavelengths from `bands`, 400-700 nm for 31
bands without it) and writes RGB_DIR/NAME.jpg, or .png for --preset clean. Each image depends on the options,
--seed and the scene's name alone. Nothing that is there already is overwritten.

The challenge's own published camera: --camera RGB_Camera_QE.csv --gains 2.2933984 1 1.62308182
"""

import drcr.utils.start  # isort: skip # noqa: F401
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from drcr.cube import check_cube
from drcr.formats.mat import load_cube
from drcr.images import IMAGE_SUFFIXES
from drcr.preparation.render import add_folder_options, add_image_options, image_options, render_rgb, scene_rng
from drcr.utils import cli
from drcr.utils.files import DataError, list_files, write_atomically


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options and render."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--path_gt", type=Path, default="./Valid_spectral", help="folder of cubes")
    add("--RGB_dir", type=Path, default="./Valid_RGB", help="folder for the images")
    add_folder_options(parser)
    add_image_options(parser)
    args = parser.parse_args(argv)
    cli.hold(args.RGB_dir)
    camera, imaging = image_options(parser, args)

    cubes = list_files(args.path_gt, (".mat",), "spectral cubes")
    there = {path.stem: path for path in args.RGB_dir.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES}
    if args.keep:
        cubes = {name: path for name, path in cubes.items() if name not in there}
    for name in cubes.keys() & there.keys():
        raise DataError(
            f"{there[name]}: is there already; --keep goes on with the others, --RGB_dir is another folder"
        )
    args.RGB_dir.mkdir(parents=True, exist_ok=True)
    for name, path in tqdm(cubes.items(), desc="rendering", unit="image", dynamic_ncols=True):
        cube = load_cube(path)
        check_cube(cube.values, path)
        wavelengths = cube.require_wavelengths()
        image = render_rgb(cube.values, wavelengths, camera, imaging, scene_rng(args.seed, name), str(path))
        write_atomically(args.RGB_dir / f"{name}{imaging.suffix}", lambda file, image=image: file.write(image))
    print(f"{len(cubes)} images in {args.RGB_dir} ({args.preset}, {args.camera})")


if __name__ == "__main__":
    cli.run(main)
