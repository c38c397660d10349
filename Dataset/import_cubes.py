"""Import hyperspectral cubes from other data sets or your own, and make RGB images for them.

Reads every cube of SOURCE: MATLAB .mat (v5, v7, v7.3) and HDF5 .h5 (variable `cube`, `rad`, `ref`, the only one with
three dimensions, or --variable), NumPy .npy and .npz, ENVI (.hdr beside its data file), TIFF (one page per band). If
SOURCE contains no such file, each of its folders is a scene: one cube, one image per band, or a capture of a Specim
IQ. Writes Train_spectral/NAME.mat and Train_RGB/NAME.jpg under DATA_PATH (or Valid_..., by --part or --split), the
layout that all other commands read. Dataset/README.md has a table of what is read, applied and refused.

Wavelengths: from --wavelengths, else from the file (`bands`, `wavelengths` ..., an ENVI header), else from
--dataset, else 31 bands are taken as 400, 410, ... 700 nm. Bands are resampled to those 31, or kept as they are
(--bands keep): their wavelengths then go with the data through training to the reconstruction. Bands of 5 nm and
finer are averaged over 10 nm, others interpolated linearly. A range that ends up to 20 nm short of 400-700 nm is
extended with the nearest band, which is reported; a gap between the bands is an error.

Values must be radiance from 0 to 1: --scale divides them. The divisor is stored as `norm_factor`, as in ARAD_1K.

Data sets known by name (--dataset), with what is assumed unless an option says otherwise:
  cave      Yasuma, Mitsunaga, Iso and Nayar 2008, for research, to be cited: scenes anywhere below SOURCE, 31 PNG
            files NAME_ms_01.png (400 nm) ... NAME_ms_31.png (700 nm) each; other files are ignored. Divided by the
            largest value that the PNG can store; --split cave_split.txt. Every scene contains zeros: prepare and
            score it with --non_positive floor VALUE, 0.01 for example
  icvl      Arad and Ben-Shahar 2016: `rad`, 400-700 nm, or ENVI, 519 bands; 12 bits (--scale 4095); rotated upright
  harvard   Chakrabarti and Zickler 2011: `ref`, 420-720 nm; each divided by its largest value, and by calib.txt, the
            camera's sensitivity, if that is in SOURCE; `lbl`, pixels that moved, is ignored
  ntire2018 `rad`, 400-700 nm, 12 bits (--scale 4095), upright
  ntire2020 `cube`, 400-700 nm, values from 0 to 1; ntire2022 (ARAD_1K) needs no import, but can be imported
"""

import drcr.utils.start  # isort: skip # noqa: F401
import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from drcr.cube import WAVELENGTHS, check_cube, describe_bands, same_bands, wavelengths_in_nm
from drcr.formats.cubes import AXES, HDF5_SUFFIXES, CubeSource, find_cubes, read_cube_file
from drcr.preparation.bands import PARTS, read_split, resample, shrink, unmeasured
from drcr.preparation.render import DataFolder, add_folder_options, add_image_options, image_options, scene_rng
from drcr.utils import cli
from drcr.utils.files import DataError, check_name, plural, read_text

FILL_UP_TO = 20
"""Distance in nm outside the measured range up to which the nearest band is repeated."""
STRAY = 1000
"""A largest value so many times the 99.9th percentile is not a highlight, but marks missing or dead pixels."""


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a data set: variable and bands (nm) of its cubes, their scale, quarter turns to upright."""

    variable: str
    wavelengths: np.ndarray
    scale: float | str
    turns: int = 0


CAVE_SPLIT = Path(__file__).parent / "cave_split.txt"
CHALLENGE = DatasetFacts("cube", WAVELENGTHS, 1.0)
DATASETS = {
    "cave": DatasetFacts("", WAVELENGTHS, "depth"),
    "icvl": DatasetFacts("rad", WAVELENGTHS, 4095.0, turns=1),
    "harvard": DatasetFacts("ref", np.arange(420.0, 721.0, 10.0), "max"),
    "ntire2018": DatasetFacts("rad", WAVELENGTHS, 4095.0),
    "ntire2020": CHALLENGE,
    "ntire2022": CHALLENGE,
}


def scale(text: str) -> float | str:
    """Parse the option --scale: a number above 0, or max."""
    return text if text == "max" else cli.positive(text)


def read_numbers(path: Path) -> np.ndarray:
    """Return the numbers of a text file, separated by white space, commas or lines; # for comments."""
    lines = read_text(path, "a text file of numbers").splitlines()
    try:
        return np.array([float(word) for line in lines for word in line.split("#")[0].replace(",", " ").split()])
    except ValueError as error:
        raise DataError(f"{path}: contains words that are not numbers ({error}); fix it") from error


def read_wavelength_option(words: list[str] | None) -> np.ndarray | tuple[float, float] | None:
    """Return the option --wavelengths in nm: the numbers of a file, or (start, step)."""
    if words is None:
        return None
    try:
        if len(words) == 1:
            if not Path(words[0]).is_file():
                raise DataError(f"{words[0]}: no such text file; --wavelengths takes one, or START STEP in nm")
            numbers = read_numbers(Path(words[0]))
            micrometres = numbers.size and 0.1 < numbers.min() < 3 and numbers.max() < 30
            wavelengths = wavelengths_in_nm(numbers, "um" if micrometres else "nm")
            assert wavelengths is not None
            return wavelengths
        start, step = map(float, words)
        if not (100 <= start <= 1e5 and np.isfinite(step) and step):
            raise ValueError("START must be a wavelength in nm, and STEP not 0")
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"--wavelengths {' '.join(words)}: {error}; give a text file, or START STEP in nm") from error
    return start, step


@dataclass(frozen=True)
class Imported:
    """A cube as the options want it, and what was done to it."""

    values: np.ndarray
    """(H, W, bands), float32, up to 1."""
    wavelengths: np.ndarray
    """In nm."""
    divisor: float
    filled: list[float]
    """Wavelengths that were not measured, so that the nearest band is repeated."""
    is_assumed: bool
    """Whether its 31 bands are taken as 400-700 nm because nothing states their wavelengths."""
    notes: tuple[str, ...]
    """What was done on reading."""


def find_cave(source: Path) -> dict[str, CubeSource]:
    """Return the 31 band files of each scene of CAVE below a folder, by the scene's name, both sorted.

    Raises DataError if there is no scene, a scene twice, or one with a band missing.
    """
    scenes: dict[str, dict[int, Path]] = {}
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; give the unpacked CAVE data base (complete_ms_data)")
    for path in sorted(source.rglob("*_ms_*")):
        match = re.fullmatch(r"([^.].*)_ms_(\d\d)\.png", path.name, re.IGNORECASE)
        if not match or not path.is_file():
            continue
        check_name(path)
        bands, band = scenes.setdefault(match[1], {}), int(match[2])
        if band in bands:
            raise DataError(f"{path}: the same scene and band as {bands[band]}; remove one of the two")
        bands[band] = path
    if not scenes:
        raise DataError(f"{source}: no scene of CAVE below it (NAME_ms_01.png ... NAME_ms_31.png)")
    for name, bands in scenes.items():
        if missing := sorted(set(range(1, 32)) - bands.keys()):
            where = next(iter(bands.values())).parent
            raise DataError(f"{where}: {name} has no band {', '.join(f'{i:02}' for i in missing)}; unpack it again")
    return {name: tuple(bands[i] for i in range(1, 32)) for name, bands in sorted(scenes.items())}


def import_cube(
    source: CubeSource, args: argparse.Namespace, given: np.ndarray | tuple | None, calib: np.ndarray | None
) -> Imported:
    """Read a cube and bring it to what the options say. `given` as --wavelengths, `calib` as Harvard's."""
    facts = DATASETS.get(args.dataset)
    path = source if isinstance(source, Path) else source[0].parent
    is_named = path.suffix.lower() in (*HDF5_SUFFIXES, ".npz")
    cube = read_cube_file(
        source,
        args.variable or (facts.variable if facts and is_named else None),
        AXES.get(args.band_axis),
        given if isinstance(given, np.ndarray) else None,
        given if isinstance(given, tuple) else None,
        facts.wavelengths if facts else None,
        is_matlab=facts is not None,
    )
    values, wavelengths = cube.values, cube.known_wavelengths
    if wavelengths is None:
        raise DataError(f"{path}: {values.shape[2]} bands, and no wavelengths in it; give --wavelengths, e.g. 430 10")
    if not 100 <= wavelengths.min() <= wavelengths.max() <= 1e5:
        raise DataError(f"{path}: {describe_bands(wavelengths)}, which are not wavelengths; change --wavelengths")
    if calib is not None:
        if len(calib) != values.shape[2] or not (calib > 0).all():
            raise DataError(f"{args.source / 'calib.txt'}: must have {values.shape[2]} numbers above 0, one per band")
        values = values / calib

    filled: list[float] = []
    if args.bands == "resample":
        filled = check_range(wavelengths, path)
        values, wavelengths = resample(values, wavelengths, WAVELENGTHS), WAVELENGTHS
    wanted, notes = args.scale or (facts.scale if facts else 1.0), cube.notes
    if wanted == "depth":
        wanted = float(np.iinfo(cube.values.dtype).max)
    values, divisor = to_radiance(values.astype(np.float32, copy=False), path, wanted)
    if divisor == 1 and wanted not in (1, "max"):
        notes += (f"values are from 0 to 1 already, and not divided by {wanted:g}",)
    values = shrink(np.rot90(values, facts.turns if facts else 0), args.size)
    return Imported(values, wavelengths, divisor, filled, cube.wavelengths is None, notes)


def check_range(wavelengths: np.ndarray, path: Path) -> list[float]:
    """Return the WAVELENGTHS outside the measured range. Raises DataError if that, or a gap in it, is too wide."""
    low, high = wavelengths[[0, -1]]
    if max(low - WAVELENGTHS[0], WAVELENGTHS[-1] - high) > FILL_UP_TO:
        raise DataError(
            f"{path}: {describe_bands(wavelengths)}; that is too little for 400-700 nm. --bands keep leaves "
            "the bands as they are"
        )
    missing = unmeasured(wavelengths, WAVELENGTHS)
    if missing:
        raise DataError(
            f"{path}: {', '.join(f'{nm:g}' for nm in missing)} nm were not measured: they lie in a gap between the "
            "bands. --bands keep leaves the bands as they are"
        )
    return [float(nm) for nm in WAVELENGTHS if nm < low - 0.5 or nm > high + 0.5]


def to_radiance(values: np.ndarray, path: Path, scale: float | str) -> tuple[np.ndarray, float]:
    """Return a cube divided by `scale`, a number or max, and the divisor. Raises DataError if that is not radiance.

    Values from 0 to 1 are not divided by a number that would leave nothing of them.
    """
    check_cube(values, path)
    highest = float(values.max())
    sample = values[:: max(values.shape[0] // 64, 1)]
    if scale == "max" and highest > STRAY * np.percentile(sample, 99.9):
        raise DataError(
            f"{path}: its largest value, {highest:g}, is far above all others and may mark missing data; give "
            "--scale VALUE, or remove it"
        )
    divisor = highest if scale == "max" else float(scale)
    if 1e-3 <= highest <= 1 and highest / divisor < 1e-3:
        return values, 1.0  # --scale is for the counts of other files in the folder
    with np.errstate(over="ignore"):
        values = values / np.float32(max(divisor, 1e-30))
    highest = float(values.max())
    if not highest >= 1e-3:
        raise DataError(
            f"{path}: its largest value is {highest:g} after division by {divisor:g}; give another --scale"
        )
    if highest > 1:
        raise DataError(
            f"{path}: values up to {highest:g}, but radiance must be from 0 to 1; give --scale VALUE (4095 for "
            "12 bits, 65535 for 16, 255 for 8, 100 for per cent), or --scale max"
        )
    return values, divisor


@dataclass
class Summary:
    """What the importer reports at the end."""

    n_scenes: int = 0
    n_assumed: int = 0
    n_values: int = 0
    n_negative: int = 0
    lowest: float = 0.0
    wavelengths: np.ndarray | None = None
    filled: set[float] = field(default_factory=set)
    notes: dict[str, list[str]] = field(default_factory=dict)
    negative_scenes: list[str] = field(default_factory=list)

    def add(self, name: str, path: Path, done: Imported) -> None:
        """Count a scene. Raises DataError if its bands are not those of the scenes before it."""
        if self.wavelengths is not None and not same_bands(done.wavelengths, self.wavelengths):
            raise DataError(
                f"{path}: {describe_bands(done.wavelengths)}, but the cubes before it have "
                f"{describe_bands(self.wavelengths)}; all cubes of a data set need the same"
            )
        self.wavelengths = done.wavelengths
        self.n_scenes += 1
        self.n_assumed += done.is_assumed
        self.filled.update(done.filled)
        for note in done.notes:
            self.notes.setdefault(note, []).append(name)
        n_negative = int(np.count_nonzero(done.values < 0))
        self.n_values += done.values.size
        self.n_negative += n_negative
        self.lowest = min(self.lowest, float(done.values.min()))
        self.negative_scenes += [name] * bool(n_negative)

    def report(self) -> None:
        """Print what was done on reading, assumed and not measured, and values that cannot be radiance."""
        for note, names in self.notes.items():
            print(f"{note} ({plural(len(names), 'scene')}: {', '.join(names[:3])}{' ...' * (len(names) > 3)})")
        if self.n_assumed:
            cubes = f"{plural(self.n_assumed, 'cube')} without wavelengths"
            print(f"{cubes}: taken as 400, 410, ... 700 nm; --wavelengths says otherwise")
        if self.filled:
            print(f"not measured, the nearest band repeated: {', '.join(f'{nm:g}' for nm in sorted(self.filled))} nm")
        if self.n_negative:
            print(
                f"negative values: {self.n_negative:,} of {self.n_values:,}, the lowest {self.lowest:.4g}, in "
                f"{', '.join(self.negative_scenes[:3])}{' ...' * (len(self.negative_scenes) > 3)}; no radiance is "
                "negative, and preparation skips these scenes or raises the values (--non_positive)"
            )


def read_options(argv: Sequence[str] | None) -> tuple[argparse.Namespace, DataFolder]:
    """Return the options, and the folder to write."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder of cubes")
    add("--data_path", type=Path, default=".", help="folder to write")
    add("--dataset", choices=sorted(DATASETS), help="data set known by name, see above")
    add("--part", choices=PARTS, default="Train", help="part that the cubes belong to, without --split")
    add("--split", type=Path, metavar="FILE", help='lines "Train NAME" and "Valid NAME"; other scenes are skipped')
    add("--variable", metavar="NAME", help="the cube's name in a .mat, .h5 or .npz; hsi.Data is a field of a struct")
    add(
        "--wavelengths",
        nargs="+",
        metavar="FILE | START STEP",
        help="of the bands, in nm: a text file with one number per band, or the first and the step",
    )
    add("--bands", choices=("resample", "keep"), default="resample", help="31 bands of 400-700 nm, or as they are")
    add(
        "--band_axis",
        choices=AXES,
        help="where the bands are, as MATLAB or NumPy shows the cube (default: what the format states; else where "
        "there are as many as wavelengths)",
    )
    add("--scale", type=scale, metavar="VALUE|max", help="divide values by this, or each cube by its largest value")
    text = "average n x n pixels, with the smallest n for which no scene is wider or higher than N"
    add("--size", type=cli.at_least(1), metavar="N", help=text)
    add_folder_options(parser)
    add("--no_rgb", action="store_true", help="write cubes only; put their images into DATA_PATH/..._RGB yourself")
    add_image_options(parser)
    args = parser.parse_args(argv)
    args.split = args.split or (CAVE_SPLIT if args.dataset == "cave" else None)
    cli.hold(args.data_path)
    if args.wavelengths is not None and len(args.wavelengths) > 2:
        parser.error("argument --wavelengths: must be a text file, or START STEP")
    return args, DataFolder(args.data_path, *image_options(parser, args), rgb=not args.no_rgb)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options and import."""
    args, folder = read_options(argv)
    given = read_wavelength_option(args.wavelengths)
    sources, skipped = (find_cave(args.source), []) if args.dataset == "cave" else find_cubes(args.source)
    calib_path = args.source / "calib.txt"
    calib = read_numbers(calib_path) if args.dataset == "harvard" and calib_path.is_file() else None
    parts = read_split(args.split) if args.split else dict.fromkeys(sources, str(args.part))
    scenes = folder.choose(sources, parts, args.keep, args.split)
    for line in skipped:
        print(line)

    summary = Summary()
    for name, part in tqdm(scenes.items(), desc="importing", unit="scene", dynamic_ncols=True):
        source = sources[name]
        done = import_cube(source, args, given, calib)
        summary.add(name, source if isinstance(source, Path) else source[0].parent, done)
        folder.write(part, name, done.values, done.wavelengths, scene_rng(args.seed, name), norm_factor=done.divisor)

    print(f"{args.source}: {plural(len(sources), 'cube')} found, {len(scenes)} imported")
    for part in PARTS:
        count = sum(scenes[name] == part for name in scenes)
        if count and summary.wavelengths is not None:
            print(f"{args.data_path / part}_spectral: {plural(count, 'cube')}, {describe_bands(summary.wavelengths)}")
    if not (args.data_path / "Valid_spectral").is_dir():
        print("training needs validation scenes too: use --split FILE, or a second run with --part Valid")
    summary.report()
    if calib is not None:
        print(f"divided by the camera's sensitivity: {calib_path}")


if __name__ == "__main__":
    cli.run(main)
