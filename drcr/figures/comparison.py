"""Methods side by side: the options that figures.py and report.py share, their scenes, and the numbers drawn."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import cast

import numpy as np

from drcr.cube import Cube, check_cube, check_same_size, same_bands
from drcr.figures.colour import ILLUMINANTS, true_colour, white_level
from drcr.formats.maps import MAPS, check_maps
from drcr.formats.results import RESULT_SUFFIXES, read_result
from drcr.images import IMAGE_SUFFIXES, read_rgb
from drcr.scoring.scoring import pair_cubes, read_reconstruction, read_truth
from drcr.utils import cli
from drcr.utils.files import DataError, list_files

KINDS = ("colour", "bands", "errors", "spectra", "mrae", "confidence")
"""The figures of a scene; `confidence` only of cubes that test.py --confidence wrote."""
UNSCORED_KINDS = ("colour", "bands", "spectra", "confidence")
"""Those of a scene without ground truth."""
UNSCORED = "Without ground truth: no scores and no errors."
MAX_STEM = 160
"""Bytes; names of files have up to 255, and a temporary one is longer."""
BANDS = {"column": (450.0, 550.0, 650.0), "page": (450.0, 500.0, 550.0, 600.0, 650.0)}


def point(text: str) -> tuple[int, int]:
    """Read an option ROW,COLUMN."""
    try:
        row, column = map(int, text.split(","))
    except ValueError:
        row = column = -1
    if min(row, column) < 0:
        raise argparse.ArgumentTypeError(f"must be ROW,COLUMN, two whole numbers from 0, not {text}")
    return row, column


def ground_truth(text: str) -> Path | None:
    """Read an option that is a folder, or `none`."""
    return None if text == "none" else Path(text)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for what is compared, and how a scene is drawn."""
    add = parser.add_argument
    cli.add_path_rec(parser)
    add(
        "--path_gt",
        type=ground_truth,
        default="../Dataset/Valid_spectral",
        metavar="FOLDER",
        help="folder of ground truth cubes; none: without ground truth, as for photographs: no errors, no scores",
    )
    add("--RGB_dir", type=Path, help="folder of the RGB images (default: true colours instead)")
    add("--scenes", nargs="+", metavar="NAME ...", help="only these scenes, named without suffix")
    add(
        "--bands",
        type=cli.positive,
        nargs="+",
        metavar="NM ...",
        help="draw the bands nearest to these wavelengths as images (default: 450 500 550 600 650; in a column, 450 "
        "550 650)",
    )
    add(
        "--points",
        type=point,
        nargs="+",
        metavar="ROW,COLUMN ...",
        help="pixels whose spectra are drawn, in each scene (default: four with different spectra, chosen per scene)",
    )
    add_view_options(parser)
    cli.add_num_workers(parser, "scenes drawn at the same time, each in its own process; 0: one after another")


def add_view_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for how a scene is read and shown, which abstract.py has, too."""
    parser.add_argument(
        "--illuminant",
        choices=ILLUMINANTS,
        default="D65",
        help="light in which true colours are shown: D65 and others take cubes for reflectances, E for radiances",
    )
    cli.add_non_positive(
        parser,
        skip="scenes whose ground truth has any value <= 0 are skipped, and their names printed",
        floor="values of the ground truth below VALUE are raised to it",
    )


@dataclass(frozen=True)
class SceneFiles:
    """A scene's files, `recs` by method, and how to read and show them; `truth` is None without ground truth."""

    name: str
    truth: Path | None
    recs: dict[str, Path]
    rgb: Path | None
    floor: float | None
    points: Sequence[tuple[int, int]] | None
    illuminant: str


def file_stem(name: str) -> str:
    """Return a scene's name as the names of its files begin: cut, with a digest, where it is too long for a file."""
    data = name.encode(errors="surrogateescape")
    if len(data) <= MAX_STEM:
        return name
    return f"{data[: MAX_STEM - 9].decode(errors='ignore')}-{sha256(data).hexdigest()[:8]}"


def find_jobs(args: argparse.Namespace) -> list[SceneFiles]:
    """Return the scenes that the options select. Raises DataError if a file is missing."""
    methods: dict[str, Path] = args.path_rec or {"test_results": Path("./test_results")}
    recs, truths = _find_cubes(methods, args.path_gt, args.scenes or ())
    images = list_files(args.RGB_dir, IMAGE_SUFFIXES, "RGB images") if args.RGB_dir else None
    jobs = []
    for name, cubes in recs.items():
        if images is not None and name not in images:
            cube = truths.get(name) or next(iter(cubes.values()))
            raise DataError(
                f"{args.RGB_dir}: contains no image {name} for the cube {cube}; add it, or omit --RGB_dir"
            )
        rgb = images[name] if images else None
        jobs.append(SceneFiles(name, truths.get(name), cubes, rgb, args.floor, args.points, args.illuminant))
    return jobs


def _find_cubes(
    methods: dict[str, Path], path_gt: Path | None, scenes: Sequence[str]
) -> tuple[dict[str, dict[str, Path]], dict[str, Path]]:
    """Return the reconstructions by scene and method, and the ground truths by scene, if there are any."""
    if path_gt is not None:
        pairs = {method: pair_cubes(folder, path_gt, scenes) for method, folder in methods.items()}
        first = next(iter(pairs.values()))
        recs = {name: {method: found[name][0] for method, found in pairs.items()} for name in first}
        return recs, {name: truth for name, (_, truth) in first.items()}
    found = {method: list_files(folder, RESULT_SUFFIXES, "reconstructed cubes") for method, folder in methods.items()}
    names = scenes or list(dict.fromkeys(name for files in found.values() for name in files))
    for method, files in found.items():
        for name in names:
            if name not in files:
                missing = f"{name}{' or '.join(RESULT_SUFFIXES)}"
                raise DataError(f"{methods[method]}: contains no {missing}; add it, or choose others by --scenes")
    return {name: {method: files[name] for method, files in found.items()} for name in names}, {}


@dataclass(frozen=True)
class ComparedScene:
    """A scene's cubes (H, W, bands) at `wavelengths` (nm): `truth` > 0 or None, `recs` by method, in [0, 1]."""

    job: SceneFiles
    truth: np.ndarray | None
    recs: dict[str, np.ndarray]
    wavelengths: np.ndarray
    raised: int
    points: list[tuple[int, int]]
    origins: dict[str, str]
    """What the files of the reconstructions say of where they come from, by method."""
    maps: Mapping[str, Mapping[str, np.ndarray]]
    """By method MAPS (H, W), of those that have all of them."""

    @property
    def cubes(self) -> dict[str, np.ndarray]:
        """The ground truth, if there is one, and the reconstructions; the first sets the scale of pictures."""
        return ({} if self.truth is None else {"ground truth": self.truth}) | self.recs

    @cached_property
    def colours(self) -> dict[str, np.ndarray]:
        """The input image, and `cubes` in true colour on the scale of the first: (H, W, 3) in [0, 1]."""
        light, first = self.job.illuminant, next(iter(self.cubes.values()))
        white = white_level(first, self.wavelengths, light)
        images = {name: true_colour(cube, self.wavelengths, light, white) for name, cube in self.cubes.items()}
        if self.job.rgb is None:
            return images
        rgb = read_rgb(self.job.rgb)
        check_same_size(rgb.shape, self.job.rgb, first.shape, self.job.truth or next(iter(self.job.recs.values())))
        return {"RGB input": np.float32(rgb) / np.iinfo(rgb.dtype).max, **images}


def read_scene(job: SceneFiles) -> ComparedScene | None:
    """Read a scene's files, each once. None if the ground truth has values <= 0 and there is no floor.

    Raises DataError if files cannot be read or do not belong together, or if a point lies outside the image.
    """
    truth, raised = None, 0
    if job.truth is None:
        cubes = _read_unscored(job)
    elif (true := read_truth(job.truth, job.floor)) is None:
        return None
    else:
        truth, raised = true
        cubes = {method: read_reconstruction(path, truth) for method, path in job.recs.items()}
    shown = next(iter(cubes.values())) if truth is None else truth
    _check_points(job, shown)
    return ComparedScene(
        job,
        None if truth is None else truth.values,
        {method: cube.values.clip(0, 1) for method, cube in cubes.items()},
        shown.require_wavelengths(),
        raised,
        list(job.points or pick_points(shown.values)),
        {method: cube.origin or "" for method, cube in cubes.items()},
        _maps(cubes),
    )


def _read_unscored(job: SceneFiles) -> dict[str, Cube]:
    """Return the reconstructions of a scene by method. Raises DataError if they do not belong together."""
    cubes = {method: read_result(path) for method, path in job.recs.items()}
    first = next(iter(cubes.values()))
    for method, cube in cubes.items():
        check_cube(cube.values, job.recs[method])
        check_same_size(cube.values.shape, job.recs[method], first.values.shape, first.path)
        if not same_bands(cube.require_wavelengths(), first.require_wavelengths()):
            raise DataError(f"{job.recs[method]}: has other wavelengths than {first.path}")
    return cubes


def _maps(cubes: dict[str, Cube]) -> dict[str, Mapping[str, np.ndarray]]:
    """Return MAPS of each method whose cube has them. Raises DataError if they are damaged."""
    for cube in cubes.values():
        check_maps(cube.maps, cast(Path, cube.path))
    return {method: cube.maps for method, cube in cubes.items() if len(cube.maps) == len(MAPS)}


def _check_points(job: SceneFiles, cube: Cube) -> None:
    height, width = cube.values.shape[:2]
    for row, column in job.points or ():
        if row >= height or column >= width:
            raise DataError(
                f"{cube.path}: no pixel {row},{column} in {height} rows and {width} columns; choose other --points"
            )


@dataclass(frozen=True)
class Result:
    """What is kept of a scene: by method SCORES, the MRAE of each band at `wavelengths` (nm), origins; its figures.

    Without ground truth, scores and MRAE are empty.
    """

    scores: dict[str, list[float]]
    curves: dict[str, np.ndarray]
    wavelengths: np.ndarray
    origins: dict[str, str]
    raised: int
    n_values: int
    figures: tuple[str, ...]


def pick_points(cube: np.ndarray, count: int = 4, seed: int = 0) -> list[tuple[int, int]]:
    """Choose pixels (row, column) with different spectra, spread over a cube, by farthest-point sampling.

    `seed` is that of the 400 random candidates. Fewer than `count` if the image is too small or of one colour.
    """
    height, width = cube.shape[:2]
    rng = np.random.default_rng(seed)
    margin = min(max(2, min(height, width) // 16), (min(height, width) - 1) // 2)
    rows = rng.integers(margin, height - margin, 400)
    columns = rng.integers(margin, width - margin, 400)
    spectra = cube[rows, columns]
    # the distance is between the spectra's shapes; dark pixels make no readable spectrum
    shapes = spectra / np.linalg.norm(spectra, axis=1, keepdims=True).clip(1e-12)
    places = np.stack([rows, columns], 1)
    bright = spectra.mean(1) > np.median(spectra.mean(1))
    chosen = [int(spectra.mean(1).argmax())]
    while len(chosen) < count:
        distance = np.linalg.norm(shapes[:, None] - shapes[chosen], axis=2).min(1)
        apart = np.linalg.norm(places[:, None] - places[chosen], axis=2).min(1) > min(height, width) / 5
        if not (distance * bright * apart).any():
            break
        chosen.append(int(np.argmax(distance * bright * apart)))
    return [(int(rows[i]), int(columns[i])) for i in chosen]


def nearest_bands(wavelengths: np.ndarray, wanted: Sequence[float]) -> list[int]:
    """Return the indices of the bands at `wavelengths` (nm) that are nearest to those wanted, each once."""
    return list(dict.fromkeys(int(np.abs(wavelengths - nm).argmin()) for nm in wanted))


def mrae_of_bands(rec: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the MRAE of each band, float64 (bands,); their mean is the cube's MRAE."""
    return (np.abs(rec - truth) / truth).mean((0, 1), dtype=np.float64)
