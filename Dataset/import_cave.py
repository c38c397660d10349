"""Import the CAVE multispectral image data base as it is distributed: cubes as .mat, and RGB images for them.

Looks for scenes anywhere below SOURCE: 31 PNG files NAME_ms_01.png (400 nm) ... NAME_ms_31.png (700 nm) in a
folder, 16-bit grey, or 8-bit with equal channels as one scene has them (watercolors); other files are passed over.
Values are divided by the largest that the PNG can hold, 65535 or 255, and otherwise kept as they are.

Writes Train_spectral, Train_RGB, Valid_spectral and Valid_RGB under OUT, the layout that everything else reads. The
RGB images are made of the cubes (the BMP of a scene is not used). Which scene goes where is fixed by
cave_split.txt beside this script, or by --split FILE. Nothing that is there already is overwritten.

Every scene of CAVE holds zeros. Prepare and score it with --non_positive floor VALUE (0.01 in the README's table).

Data: Yasuma, Mitsunaga, Iso and Nayar, Columbia University, 2008; for research, to be cited.
https://www.cs.columbia.edu/CAVE/databases/multispectral/
"""

import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from drcr.cube import WAVELENGTHS
from drcr.preparation.bands import PARTS, add_size_option, read_split, shrink
from drcr.preparation.render import DataFolder, add_folder_options, add_image_options, image_options, scene_rng
from drcr.utils import cli
from drcr.utils.files import DataError


def find_scenes(sources: list[Path]) -> dict[str, list[Path]]:
    """Return each scene's 31 band files below the folders, by the scene's name, both sorted.

    Raises DataError if there is no scene, a scene twice, or one with a band missing.
    """
    scenes: dict[str, dict[int, Path]] = {}
    for source in sources:
        if not source.is_dir():
            raise DataError(f"{source}: no such folder; the unpacked CAVE data base is needed (complete_ms_data)")
        for path in sorted(source.rglob("*_ms_*")):
            match = re.fullmatch(r"([^.].*)_ms_(\d\d)\.png", path.name, re.IGNORECASE)
            if not match:
                continue
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


def read_band(path: Path) -> np.ndarray:
    """Return a band (H, W) as float32 in [0, 1]."""
    data = np.fromfile(path, np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except cv2.error:
        image = None
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path}: does not decode as a PNG of 8 or 16 bits; copy or download it again")
    band = np.float32(image) / np.iinfo(image.dtype).max
    return band if band.ndim == 2 else band[..., :3].mean(2)  # without alpha


def read_scene(paths: list[Path]) -> np.ndarray:
    """Return the cube (H, W, 31), float32 in [0, 1], of a scene's band files."""
    cube: np.ndarray | None = None
    for i, path in enumerate(paths):
        band = read_band(path)
        if cube is None:
            cube = np.empty((*band.shape, len(paths)), np.float32)
        if band.shape != cube.shape[:2]:
            size, before = (" x ".join(map(str, shape)) for shape in (band.shape, cube.shape[:2]))
            raise DataError(f"{path}: {size} pixels, but the bands before it have {before}; unpack it again")
        cube[..., i] = band
    return cube


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options and import."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--source", type=Path, nargs="+", required=True, help="folder of the data base, complete_ms_data, or several")
    add("--out", type=Path, default=".", help="folder to write")
    add("--split", type=Path, metavar="FILE", help='lines "Train NAME" and "Valid NAME" (default: cave_split.txt)')
    add_size_option(parser)
    add_folder_options(parser)
    add_image_options(parser)
    args = parser.parse_args(argv)
    folder = DataFolder(args.out, *image_options(parser, args))

    found = find_scenes(args.source)
    split = args.split or Path(__file__).parent / "cave_split.txt"
    scenes = folder.choose(found, read_split(split), args.keep, split)
    for name, part in tqdm(scenes.items(), desc="importing", unit="scene", dynamic_ncols=True):
        cube = shrink(read_scene(found[name]), args.size)
        folder.write(part, name, cube, WAVELENGTHS, scene_rng(args.seed, name))

    for part in PARTS:
        names = [name for name in scenes if scenes[name] == part]
        print(f"{part}: {len(names)} scenes{': ' * bool(names)}{', '.join(names)}")
    print(f"written to {args.out.resolve()}, images {folder.imaging.suffix} ({args.preset}, {args.camera})")
    print("CAVE holds zeros: prepare and score it with --non_positive floor VALUE, 0.01 for example")


if __name__ == "__main__":
    cli.run(main)
