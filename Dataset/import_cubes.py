"""Import hyperspectral cubes from other data sets or your own, and make RGB images for them.

Reads every cube of SOURCE: MATLAB .mat (v5, v7, v7.3; variable `cube`, `rad`, `ref` or --variable), NumPy .npy and
.npz, ENVI (.hdr beside its data file), TIFF (a page for each band). Writes Train_spectral/NAME.mat and
Train_RGB/NAME.jpg under OUT (or Valid_..., by --part or --split), the layout that everything else reads.

Wavelengths: from --wavelengths, else from the file (`bands`, `wavelengths` ..., an ENVI header), else from
--dataset, else 31 bands are taken for 400, 410, ... 700 nm. Bands are resampled to those 31, or kept as they are
(--bands keep): their wavelengths then travel through preparation, training and checkpoint to the reconstruction.
Bands of 5 nm and finer are averaged over 10 nm, others interpolated linearly. A range that ends up to 20 nm short of
400-700 nm is filled up with the nearest band, which is reported.

Values must be radiance from 0 to 1: --scale divides them. The divisor is kept as `norm_factor`, as in ARAD_1K.

Data sets known by name (--dataset), with what is taken for them unless an option says otherwise:
  icvl      Arad and Ben-Shahar 2016: `rad`, 400-700 nm, or ENVI, 519 bands; 12 bits (--scale 4095); turned upright
  harvard   Chakrabarti and Zickler 2011: `ref`, 420-720 nm; each divided by its largest value; calib.txt, where it
            is in SOURCE, is the camera's sensitivity and divided out; `lbl`, pixels that moved, is not looked at
  ntire2018 `rad`, 400-700 nm, 12 bits (--scale 4095), as the challenge's images lie
  ntire2020 `cube`, 400-700 nm, values from 0 to 1; ntire2022 (ARAD_1K) needs no import, but may be
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from drcr.cube import WAVELENGTHS, check_cube, describe_bands, same_bands, wavelengths_in_nm
from drcr.preparation.bands import PARTS, add_size_option, read_split, resample, shrink
from drcr.preparation.formats import CUBE_SUFFIXES, read_cube_file
from drcr.preparation.render import DataFolder, add_folder_options, add_image_options, image_options, scene_rng
from drcr.utils import cli
from drcr.utils.files import DataError, list_files

FILL_UP_TO = 20  # nm outside the measured range that the nearest band may stand for


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a data set: the cube's variable, its bands (nm), its scale, quarter turns to upright."""

    variable: str
    wavelengths: np.ndarray
    scale: float | str
    turns: int = 0


CHALLENGE = DatasetFacts("cube", WAVELENGTHS, 1.0)
DATASETS = {
    "icvl": DatasetFacts("rad", WAVELENGTHS, 4095.0, turns=1),
    "harvard": DatasetFacts("ref", np.arange(420.0, 721.0, 10.0), "max"),
    "ntire2018": DatasetFacts("rad", WAVELENGTHS, 4095.0),
    "ntire2020": CHALLENGE,
    "ntire2022": CHALLENGE,
}


def scale(text: str) -> float | str:
    """Read the option --scale: a number above 0, or max."""
    return text if text == "max" else cli.positive(text)


def read_numbers(path: Path) -> np.ndarray:
    """Return the numbers of a text file, separated by white space, commas or lines; # for comments."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        return np.array([float(word) for line in lines for word in line.split("#")[0].replace(",", " ").split()])
    except PermissionError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no text file of numbers") from error


def read_wavelength_option(words: list[str] | None) -> np.ndarray | tuple[float, float] | None:
    """Return the option --wavelengths: the wavelengths of a file, or (start, step), in nm."""
    if words is None:
        return None
    if len(words) == 1:
        if not Path(words[0]).is_file():
            raise DataError(f"{words[0]}: no such text file; --wavelengths takes one, or start and step in nm")
        wavelengths = wavelengths_in_nm(read_numbers(Path(words[0])))
        if wavelengths is None:
            raise DataError(f"{words[0]}: wavelengths in nm are needed, rising or falling, one a band")
        return wavelengths
    try:
        start, step = map(float, words)
        first = wavelengths_in_nm(np.array([start, start + step]))
        if first is None:
            raise ValueError
    except ValueError as error:
        raise DataError(f"--wavelengths {' '.join(words)}: give a text file, or start and step in nm") from error
    return float(first[0]), float(first[1] - first[0])


def bands_last(
    path: Path, cube: np.ndarray, wavelengths: np.ndarray | None, first: bool, axis: str | None
) -> np.ndarray:
    """Return a view of the cube as (H, W, bands).

    The bands are where there are as many as `wavelengths`; without these on the shorter of the two axes; where
    neither tells, `first` if the format has them so. `axis`, first or last, is the user's word for it.
    """
    one, other = cube.shape[0], cube.shape[2]
    if axis is not None:
        first = axis == "first"
    elif wavelengths is None and one != other:
        first = one < other
    elif wavelengths is not None and (one == len(wavelengths)) != (other == len(wavelengths)):
        first = one == len(wavelengths)
    cube = cube.transpose(1, 2, 0) if first else cube
    if wavelengths is not None and len(wavelengths) != cube.shape[2]:
        raise DataError(
            f"{path}: {' x '.join(map(str, cube.shape))} values, but {len(wavelengths)} wavelengths; give "
            "--wavelengths, or --band_axis"
        )
    return cube


@dataclass(frozen=True)
class Imported:
    """A cube (H, W, bands), float32 in [0, 1], as the options want it, and what was done to it.

    `divisor` of its values; `filled` up: wavelengths that were not measured; `assumed`: its wavelengths are a guess.
    """

    cube: np.ndarray
    wavelengths: np.ndarray
    divisor: float
    filled: list[float]
    assumed: bool


def import_cube(
    path: Path, args: argparse.Namespace, given: np.ndarray | tuple | None, calib: np.ndarray | None
) -> Imported:
    """Read a file's cube and bring it to what the options say. `given` as --wavelengths, `calib` as Harvard's."""
    facts = DATASETS.get(args.dataset)
    is_named = path.suffix.lower() in (".mat", ".npz")
    variable = args.variable or (facts.variable if facts and is_named else None)
    stored, first = read_cube_file(path, variable, need_wavelengths=given is None)
    array, wavelengths = stored.values, stored.wavelengths
    if given is not None:
        wavelengths = None if isinstance(given, tuple) else given
    elif wavelengths is None and facts:
        wavelengths = facts.wavelengths
    array = bands_last(path, array, wavelengths, first, args.band_axis)
    assumed = False
    if isinstance(given, tuple):
        wavelengths = given[0] + given[1] * np.arange(array.shape[2])
    elif wavelengths is None:
        if array.shape[2] != len(WAVELENGTHS):
            raise DataError(
                f"{path}: {array.shape[2]} bands, and no wavelengths in it; give --wavelengths, e.g. 430 10"
            )
        wavelengths, assumed = WAVELENGTHS, True
    if calib is not None:
        if len(calib) != array.shape[2] or not (calib > 0).all():
            raise DataError(f"{args.source / 'calib.txt'}: {array.shape[2]} numbers above 0 are needed, one a band")
        array = array / calib
    if wavelengths[0] > wavelengths[-1]:
        array, wavelengths = array[..., ::-1], wavelengths[::-1]

    filled: list[float] = []
    if args.bands == "resample":
        low, high = wavelengths[[0, -1]]
        filled = [float(nm) for nm in WAVELENGTHS if nm < low - 0.5 or nm > high + 0.5]
        if max(low - WAVELENGTHS[0], WAVELENGTHS[-1] - high) > FILL_UP_TO:
            raise DataError(
                f"{path}: {describe_bands(wavelengths)}; that is too little for 400-700 nm. --bands keep leaves the "
                "bands as they are"
            )
        array, wavelengths = resample(array, wavelengths, WAVELENGTHS), WAVELENGTHS
    cube = np.float32(array)
    check_cube(cube, path)
    divisor = args.scale or (facts.scale if facts else 1.0)
    divisor = float(cube.max()) if divisor == "max" else divisor
    with np.errstate(over="ignore"):
        cube = cube / np.float32(max(divisor, 1e-30))
    if not cube.max() >= 1e-3:
        raise DataError(
            f"{path}: its largest value is {cube.max():g}, divided by {divisor:g}; another --scale is needed"
        )
    if cube.max() > 1:
        raise DataError(
            f"{path}: values up to {cube.max():g}, but radiance from 0 to 1 is needed; give --scale VALUE (4095 for "
            "12 bits, 65535 for 16, 255 for 8, 100 for per cent), or --scale max"
        )
    cube = shrink(np.rot90(cube, facts.turns if facts else 0), args.size)
    return Imported(cube, wavelengths, divisor, filled, assumed)


def main(argv: Sequence[str] | None = None) -> None:
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
        metavar="FILE | START STEP",
        help="of the bands, in nm: a text file with a number a band, or the first and the step",
    )
    add("--bands", choices=("resample", "keep"), default="resample", help="31 bands of 400-700 nm, or as they are")
    add(
        "--band_axis",
        choices=("first", "last"),
        help="where the bands are, as MATLAB or NumPy shows the cube (default: where there are as many as "
        "wavelengths; else on the shorter axis)",
    )
    add("--scale", type=scale, metavar="VALUE|max", help="divide values by this, or each cube by its largest value")
    add_size_option(parser)
    add_folder_options(parser)
    add("--no_rgb", action="store_true", help="write cubes only; put their images into OUT/..._RGB yourself")
    add_image_options(parser)
    args = parser.parse_args(argv)
    folder = DataFolder(args.out, *image_options(parser, args), rgb=not args.no_rgb)
    given = read_wavelength_option(args.wavelengths)

    paths = list_files(args.source, CUBE_SUFFIXES, "cubes")
    parts = read_split(args.split) if args.split else dict.fromkeys(paths, args.part)
    scenes = folder.choose(paths, parts, args.keep, args.split)
    calib_path = args.source / "calib.txt"
    calib = read_numbers(calib_path) if args.dataset == "harvard" and calib_path.is_file() else None

    filled: set[float] = set()
    assumed, wavelengths = 0, None
    for name, part in tqdm(scenes.items(), desc="importing", unit="scene", dynamic_ncols=True):
        done = import_cube(paths[name], args, given, calib)
        if wavelengths is not None and not same_bands(done.wavelengths, wavelengths):
            raise DataError(
                f"{paths[name]}: {describe_bands(done.wavelengths)}, but the cubes before it have "
                f"{describe_bands(wavelengths)}; one data set needs the same throughout"
            )
        wavelengths = done.wavelengths
        folder.write(part, name, done.cube, wavelengths, scene_rng(args.seed, name), norm_factor=done.divisor)
        filled.update(done.filled)
        assumed += done.assumed

    for part in PARTS:
        count = sum(scenes[name] == part for name in scenes)
        if count:
            print(f"{args.out / part}_spectral: {count} cubes, {describe_bands(wavelengths)}")
    if not (args.out / "Valid_spectral").is_dir():
        print("training needs validation scenes too: --split FILE, or a second run with --part Valid")
    if assumed:
        print(f"{assumed} cubes tell no wavelengths: taken for 400, 410, ... 700 nm; --wavelengths says otherwise")
    if filled:
        print(f"not measured, the nearest band repeated: {', '.join(f'{nm:g}' for nm in sorted(filled))} nm")
    if calib is not None:
        print(f"divided by the camera's sensitivity: {calib_path}")


if __name__ == "__main__":
    cli.run(main)
