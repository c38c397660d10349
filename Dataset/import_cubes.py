"""Import hyperspectral cubes from other data sets or your own, and make RGB images for them.

Reads every cube of SOURCE: MATLAB .mat (v5, v7, v7.3; variable `cube`, `rad`, `ref` or --variable), NumPy .npy and
.npz, ENVI (.hdr beside its data file), TIFF (a page for each band). Writes Train_spectral/NAME.mat and
Train_RGB/NAME.jpg under OUT (or Valid_..., by --part or --split), the layout that everything else reads.

Wavelengths: from --wavelengths, else from the file (`bands`, `wavelengths` ..., an ENVI header), else from
--dataset, else 31 bands are taken for 400, 410, ... 700 nm. Bands are resampled to those 31, or kept as they are
(--bands keep): their wavelengths then travel through preparation, training and checkpoint to the reconstruction.
Finer bands are averaged over 10 nm, others interpolated linearly. A range that ends up to 20 nm short
of 400-700 nm is filled up with the nearest band, which is reported.

Values must be radiance from 0 to 1: --scale divides them. The divisor is kept as `norm_factor`, as in ARAD_1K.

Data sets known by name (--dataset), with what is taken for them unless an option says otherwise:
  icvl      Arad and Ben-Shahar 2016: `rad`, 400-700 nm, or ENVI, 519 bands; 12 bits (--scale 4095); turned upright
  harvard   Chakrabarti and Zickler 2011: `ref`, 420-720 nm; each divided by its largest value; calib.txt, where it
            is in SOURCE, is the camera's sensitivity and divided out; `lbl`, pixels that moved, is not looked at
  ntire2018 `rad`, 400-700 nm, 12 bits (--scale 4095), as the challenge's images lie
  ntire2020 `cube`, 400-700 nm, values from 0 to 1; ntire2022 (ARAD_1K) needs no import, but may be
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from drcr import cli
from drcr.files import DataError, list_files
from drcr.formats import CUBE_SUFFIXES, read_any
from drcr.matfile import WAVELENGTHS, check_cube, describe_bands, wavelengths_in_nm
from drcr.render import DataFolder, add_image_options, image_options, noise_of
from drcr.spectra import PARTS, average_pixels, read_split, resample

FILL_UP_TO = 20  # nm outside the measured range that the nearest band may stand for


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a data set: the cube's variable, its bands (nm), its scale, quarter turns to upright."""

    variable: str
    wavelengths: np.ndarray
    scale: float | str
    turns: int = 0


DATASETS = {
    "icvl": DatasetFacts("rad", WAVELENGTHS, 4095.0, turns=1),
    "harvard": DatasetFacts("ref", np.arange(420.0, 721.0, 10.0), "max"),
    "ntire2018": DatasetFacts("rad", WAVELENGTHS, 4095.0),
    "ntire2020": DatasetFacts("cube", WAVELENGTHS, 1.0),
    "ntire2022": DatasetFacts("cube", WAVELENGTHS, 1.0),
}


def scale(text: str) -> float | str:
    """Read the option --scale: a number above 0, or max."""
    return text if text == "max" else cli.positive(text)


def read_numbers(path: Path) -> np.ndarray:
    """Return the numbers of a text file, separated by white space, commas or lines; # for comments."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        return np.array([float(word) for line in lines for word in line.split("#")[0].replace(",", " ").split()])
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no text file of numbers") from error


def read_wavelength_option(words: list[str] | None) -> np.ndarray | tuple[float, float] | None:
    """Return the option --wavelengths: the wavelengths of a file, or (start, step), in nm."""
    if words is None:
        return None
    try:
        start, step = map(cli.positive, words)
        return start, step
    except (ValueError, argparse.ArgumentTypeError):
        if len(words) != 1:
            raise DataError(f"--wavelengths {' '.join(words)}: give a text file, or start and step in nm") from None
    wavelengths = wavelengths_in_nm(read_numbers(Path(words[0])))
    if wavelengths is None:
        raise DataError(f"{words[0]}: wavelengths in nm are needed, rising or falling, one a band")
    return wavelengths


def bands_last(
    path: Path, cube: np.ndarray, given: np.ndarray | tuple | None, first: bool, axis: str | None
) -> np.ndarray:
    """Return a view of the cube as (H, W, bands).

    `given`: the wavelengths, of which there are as many as bands. `first`: the format has the bands first.
    `axis`: first or last, as the user says.
    """
    if axis is None and isinstance(given, np.ndarray) and len(given) in cube.shape[::2]:
        # a cube with as many rows as bands is read as its format has it
        first = first if cube.shape[0] == cube.shape[2] else cube.shape[0] == len(given)
    elif axis is not None:
        first = axis == "first"
    cube = cube.transpose(1, 2, 0) if first else cube
    if isinstance(given, np.ndarray) and len(given) != cube.shape[2]:
        raise DataError(
            f"{path}: {cube.shape} H x W x bands, but {len(given)} wavelengths; give --wavelengths, or --band_axis"
        )
    return cube


def import_cube(
    path: Path, args: argparse.Namespace, given: np.ndarray | tuple | None, calib: np.ndarray | None
) -> tuple:
    """Return a file's cube (H, W, bands) as the options want it, its wavelengths, divisor, and bands filled up."""
    facts = DATASETS.get(args.dataset)
    is_named = path.suffix.lower() in (".mat", ".npz")
    array, wavelengths, first = read_any(path, args.variable or (facts.variable if facts and is_named else None))
    if given is not None:
        wavelengths = given
    elif wavelengths is None and facts:
        wavelengths = facts.wavelengths
    elif wavelengths is None and len(WAVELENGTHS) in array.shape[::2]:
        wavelengths = WAVELENGTHS
    if wavelengths is None:
        raise DataError(f"{path}: shape {array.shape}, and no wavelengths in it; give --wavelengths")
    array = bands_last(path, array, wavelengths, first, args.band_axis)
    if isinstance(wavelengths, tuple):
        wavelengths = wavelengths[0] + wavelengths[1] * np.arange(array.shape[2])
    if calib is not None:
        if len(calib) != array.shape[2] or not (calib > 0).all():
            raise DataError(f"{args.source / 'calib.txt'}: {array.shape[2]} numbers above 0 are needed, one a band")
        array = array / calib
    if wavelengths[0] > wavelengths[-1]:
        array, wavelengths = array[..., ::-1], wavelengths[::-1]

    filled = np.array([])
    if args.bands == "resample":
        low, high = wavelengths[[0, -1]]
        filled = np.array([nm for nm in WAVELENGTHS if nm < low - 0.5 or nm > high + 0.5])
        if max(low - WAVELENGTHS[0], WAVELENGTHS[-1] - high) > FILL_UP_TO:
            raise DataError(
                f"{path}: {describe_bands(wavelengths)}; that is too little for 400-700 nm. --bands keep leaves "
                "the bands as they are"
            )
        array, wavelengths = resample(array, wavelengths, WAVELENGTHS), WAVELENGTHS
    cube = np.float32(array)
    check_cube(cube, path)
    divisor = args.scale or (facts.scale if facts else 1.0)
    divisor = float(cube.max()) if divisor == "max" else divisor
    if not divisor > 0 or not cube.max() > 0:
        raise DataError(f"{path}: its largest value is {cube.max():g}; there is nothing in it")
    cube /= np.float32(divisor)
    if cube.max() > 1:
        raise DataError(
            f"{path}: values up to {cube.max():g}, but radiance from 0 to 1 is needed; give --scale VALUE (4095 for "
            "12 bits, 65535 for 16), or --scale max"
        )
    if facts and facts.turns:
        cube = np.rot90(cube, facts.turns)
    if args.size:
        cube = average_pixels(cube, -(-max(cube.shape[:2]) // args.size))
    return cube, wavelengths, divisor, filled


def main() -> None:
    """Read the options and import."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder of cubes")
    add("--out", type=Path, default=".", help="folder to write")
    add("--dataset", choices=sorted(DATASETS), help="data set known by name, see above")
    add("--part", choices=PARTS, default="Train", help="part that the cubes belong to, where --split says nothing")
    add("--split", type=Path, metavar="FILE", help='lines "Train NAME" and "Valid NAME"; others are left out')
    add("--variable", metavar="NAME", help="the cube's name in a .mat or .npz")
    add(
        "--wavelengths",
        nargs="+",
        metavar=("FILE|START", "STEP"),
        help="of the bands, in nm: a text file with a number a band, or the first and the step",
    )
    add("--bands", choices=("resample", "keep"), default="resample", help="31 bands of 400-700 nm, or as they are")
    add(
        "--band_axis",
        choices=("first", "last"),
        help="where the bands are, as MATLAB or NumPy shows the cube (default: where there are as many as "
        "wavelengths; else last, in TIFF first)",
    )
    add("--scale", type=scale, metavar="VALUE|max", help="divide values by this, or each cube by its largest value")
    add(
        "--size",
        type=cli.at_least(1),
        metavar="N",
        help="average n x n pixels so that no scene is wider or higher than N; n is the smallest whole number",
    )
    add("--no_rgb", action="store_true", help="write cubes only; put their images into OUT/..._RGB yourself")
    add("--keep", action="store_true", help="keep the scenes that are there already, and go on with the others")
    add("--seed", type=cli.at_least(0), default=0, help="seed of the images' noise")
    add_image_options(parser)
    args = parser.parse_args()
    folder = DataFolder(args.out, *image_options(parser, args), rgb=not args.no_rgb)
    given = read_wavelength_option(args.wavelengths)

    paths = list_files(args.source, CUBE_SUFFIXES, "cubes")
    parts = read_split(args.split) if args.split else dict.fromkeys(paths, args.part)
    scenes = {name: parts[name] for name in paths if name in parts}
    if not scenes:
        raise DataError(f"{args.split}: names none of the cubes in {args.source}")
    if args.keep:
        scenes = {name: part for name, part in scenes.items() if not folder.is_whole(part, name)}
    else:
        folder.check_free(scenes)
    calib_path = args.source / "calib.txt"
    calib = read_numbers(calib_path) if args.dataset == "harvard" and calib_path.is_file() else None

    filled_up: set[float] = set()
    for name, part in tqdm(scenes.items(), desc="importing", unit="scene", dynamic_ncols=True):
        cube, wavelengths, divisor, filled = import_cube(paths[name], args, given, calib)
        folder.write(part, name, cube, wavelengths, noise_of(args.seed, name), norm_factor=divisor)
        filled_up.update(filled.tolist())

    for part in PARTS:
        count = sum(scenes[name] == part for name in scenes)
        if count:
            print(f"{args.out / part}_spectral: {count} cubes, {describe_bands(wavelengths)}")
    if args.keep:
        print(f"{len(paths) - len(scenes)} were there already, or are not in the split")
    for what, names in (
        ("in the split, but not found", parts.keys() - paths),
        ("left out, not in the split", paths.keys() - parts),
    ):
        if names:
            print(f"{what}: {', '.join(sorted(names))}")
    if filled_up:
        print(f"not measured, the nearest band repeated: {', '.join(f'{nm:g}' for nm in sorted(filled_up))} nm")
    if calib is not None:
        print(f"divided by the camera's sensitivity: {calib_path}")


if __name__ == "__main__":
    cli.run(main)
