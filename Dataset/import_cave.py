"""Import the CAVE multispectral image data base as it is distributed: cubes as .mat, and RGB images for them.

Looks for scenes anywhere below SOURCE: 31 PNG files NAME_ms_01.png (400 nm) ... NAME_ms_31.png (700 nm) in a
folder, 16-bit grey, or 8-bit with equal channels as in one scene (watercolors); other files are ignored.
Values are divided by the largest that the PNG can store, 65535 or 255, and otherwise unchanged.

Writes Train_spectral, Train_RGB, Valid_spectral and Valid_RGB under DATA_PATH, the layout that everything else reads.
The RGB images are made from the cubes (the BMP of a scene is not used). cave_split.txt beside this script fixes which
scene goes where, or --split FILE. Files that exist are never overwritten.

Every scene of CAVE holds zeros. Prepare and score it with --non_positive floor VALUE (0.01 in the README's table).

Data: Yasuma, Mitsunaga, Iso and Nayar, Columbia University, 2008; for research, to be cited.
https://www.cs.columbia.edu/CAVE/databases/multispectral/
"""

import drcr.utils.start  # isort: skip # noqa: F401
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from drcr.cube import WAVELENGTHS
from drcr.formats.band_files import read_band_files
from drcr.preparation.bands import PARTS, add_size_option, read_split, shrink
from drcr.preparation.render import DataFolder, add_folder_options, add_image_options, image_options, scene_rng
from drcr.utils import cli
from drcr.utils.files import DataError, check_name, plural


def find_scenes(sources: list[Path]) -> dict[str, list[Path]]:
    """Return the 31 band files of each scene below the folders, by the scene's name, both sorted.

    Raises DataError if there is no scene, a scene twice, or one with a band missing.
    """
    scenes: dict[str, dict[int, Path]] = {}
    for source in sources:
        if not source.is_dir():
            raise DataError(f"{source}: no such folder; give the unpacked CAVE data base (complete_ms_data)")
        for path in sorted(source.rglob("*_ms_*")):
            match = re.fullmatch(r"([^.].*)_ms_(\d\d)\.png", path.name, re.IGNORECASE)
            if not match or not path.is_file():
                continue
            check_name(path)
            bands, band = scenes.setdefault(match[1], {}), int(match[2])
            if band in bands:
                raise DataError(f"{path}: the same scene and band as {bands[band]}; give one of the two folders")
            bands[band] = path
    if not scenes:
        raise DataError(f"{sources[0]}: no scene of CAVE below it (NAME_ms_01.png ... NAME_ms_31.png)")
    for name, bands in scenes.items():
        missing = sorted(set(range(1, 32)) - bands.keys())
        if missing:
            where = next(iter(bands.values())).parent
            raise DataError(f"{where}: {name} has no band {', '.join(f'{i:02}' for i in missing)}; unpack it again")
    return {name: [bands[i] for i in range(1, 32)] for name, bands in sorted(scenes.items())}


def read_scene(paths: list[Path]) -> np.ndarray:
    """Return the cube (H, W, 31), float32 in [0, 1], of a scene's band files."""
    values = read_band_files(tuple(paths)).values
    if values.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{paths[0]}: contains {values.dtype}; a PNG of 8 or 16 bits is needed")
    return np.float32(values) / np.float32(np.iinfo(values.dtype).max)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options and import."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add(
        "--source",
        type=Path,
        nargs="+",
        required=True,
        help="folder of the data base, complete_ms_data, or several folders",
    )
    add("--data_path", type=Path, default=".", help="folder to write")
    add("--split", type=Path, metavar="FILE", help='lines "Train NAME" and "Valid NAME" (default: cave_split.txt)')
    add_size_option(parser)
    add_folder_options(parser)
    add_image_options(parser)
    args = parser.parse_args(argv)
    cli.hold(args.data_path)
    folder = DataFolder(args.data_path, *image_options(parser, args))

    found = find_scenes(args.source)
    split = args.split or Path(__file__).parent / "cave_split.txt"
    scenes = folder.choose(found, read_split(split), args.keep, split)
    for name, part in tqdm(scenes.items(), desc="importing", unit="scene", dynamic_ncols=True):
        cube = shrink(read_scene(found[name]), args.size)
        folder.write(part, name, cube, WAVELENGTHS, scene_rng(args.seed, name))

    for part in PARTS:
        names = [name for name in scenes if scenes[name] == part]
        print(f"{part}: {plural(len(names), 'scene')}{': ' * bool(names)}{', '.join(names)}")
    print(f"written to {args.data_path.resolve()}, images {folder.imaging.suffix} ({args.preset}, {args.camera})")
    print("CAVE contains zeros: prepare and score it with --non_positive floor VALUE, 0.01 for example")


if __name__ == "__main__":
    cli.run(main)
