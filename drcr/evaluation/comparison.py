"""Methods side by side: what figures.py and report.py share, their options and the scenes as they show them."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from drcr.cube import check_same_size
from drcr.evaluation import figures as plots
from drcr.evaluation.colour import ILLUMINANTS, true_colour, white_level
from drcr.evaluation.scoring import pair_cubes, read_reconstruction, read_truth, scores
from drcr.images import IMAGE_SUFFIXES, read_rgb
from drcr.utils import cli
from drcr.utils.files import DataError, list_files
from drcr.utils.parallel import in_order

KINDS = ("colour", "bands", "errors", "spectra", "mrae")
"""The figures of a scene."""
BANDS = {"column": (450.0, 550.0, 650.0), "page": (450.0, 500.0, 550.0, 600.0, 650.0)}


class _AddMethod(argparse.Action):
    """Read `name=folder`, or a folder, which is then the name, into a dict of folders by name."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        text = str(values)
        name, equals, folder = text.partition("=")
        if not equals or Path(text).exists():
            name, folder = Path(text).resolve().name, text
        methods = getattr(namespace, self.dest) or {}
        if not name.strip() or name in ("truth", "RGB input", *methods):
            parser.error(f"argument {option_string}: {text}: give each method a name of its own, name=folder")
        if len(methods) == len(plots.METHODS):
            parser.error(f"argument {option_string}: {len(plots.METHODS)} at most; more curves are not told apart")
        setattr(namespace, self.dest, {**methods, name: Path(folder)})


def point(text: str) -> tuple[int, int]:
    """Read an option ROW,COLUMN."""
    try:
        row, column = map(int, text.split(","))
    except ValueError:
        row = column = -1
    if min(row, column) < 0:
        raise argparse.ArgumentTypeError(f"ROW,COLUMN is needed, two whole numbers from 0 up, not {text}")
    return row, column


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is compared, and how a scene is shown."""
    add = parser.add_argument
    add(
        "--path_rec",
        action=_AddMethod,
        metavar="[NAME=]FOLDER",
        help="folder of reconstructed cubes, and the name of the method (else the folder's); again for each method, "
        f"{len(plots.METHODS)} at most (default: ./test_results)",
    )
    add("--path_gt", type=Path, default="../Dataset/Valid_spectral", help="folder of true cubes")
    add("--RGB_dir", type=Path, help="folder of the RGB images; without it the truth in true colour stands for them")
    add("--scenes", nargs="+", metavar="NAME ...", help="these scenes only, named without suffix")
    add(
        "--bands",
        type=cli.positive,
        nargs="+",
        metavar="NM ...",
        help="the bands next to these wavelengths are shown as images (default: 450 500 550 600 650; in a column, "
        "450 550 650)",
    )
    add(
        "--points",
        type=point,
        nargs="+",
        metavar="ROW,COLUMN ...",
        help="pixels whose spectra are drawn, in each scene (default: four that are unlike, picked in each scene)",
    )
    add(
        "--patch",
        type=cli.at_least(1),
        default=1,
        metavar="N",
        help="average the spectra over N x N pixels around a point",
    )
    add(
        "--illuminant",
        choices=ILLUMINANTS,
        default="D65",
        help="light for the true colours, where an even spectrum means white; E: the cubes hold the light itself",
    )
    cli.add_non_positive(
        parser,
        skip="scenes whose truth has any value <= 0 are passed over, and named",
        floor="values of the truth below VALUE are raised to it",
    )
    cli.add_num_workers(parser, "scenes drawn side by side, each in a process of its own; 0: one after the other")


@dataclass(frozen=True)
class Job:
    """A scene's files, `recs` by method, and what is to be done with them."""

    name: str
    truth: Path
    recs: dict[str, Path]
    rgb: Path | None
    floor: float | None
    points: Sequence[tuple[int, int]] | None
    illuminant: str


def find_jobs(args: argparse.Namespace) -> list[Job]:
    """Return the scenes that the options name. Raises DataError if a file is missing."""
    methods: dict[str, Path] = args.path_rec or {"test_results": Path("./test_results")}
    pairs = {method: pair_cubes(folder, args.path_gt, args.scenes or ()) for method, folder in methods.items()}
    images = list_files(args.RGB_dir, IMAGE_SUFFIXES, "RGB images") if args.RGB_dir else None
    jobs = []
    for name, (_, truth) in next(iter(pairs.values())).items():
        if images is not None and name not in images:
            raise DataError(
                f"{args.RGB_dir}: no image {name} beside the cube {truth}; add it, or leave --RGB_dir out"
            )
        recs = {method: scenes[name][0] for method, scenes in pairs.items()}
        rgb = images[name] if images else None
        jobs.append(Job(name, truth, recs, rgb, args.floor, args.points, args.illuminant))
    return jobs


@dataclass(frozen=True)
class Scene:
    """A scene to show: `truth` > 0 and each of `recs`, clipped to [0, 1], (H, W, bands) at `wavelengths` (nm)."""

    job: Job
    truth: np.ndarray
    recs: dict[str, np.ndarray]
    wavelengths: np.ndarray
    raised: int
    points: list[tuple[int, int]]
    origins: dict[str, str]
    """What the files of the reconstructions say of where they come from, by method."""

    @cached_property
    def colours(self) -> dict[str, np.ndarray]:
        """The image, truth and reconstructions as the eye would see them, as bright as the truth: (H, W, 3)."""
        light = self.job.illuminant
        white = white_level(self.truth, self.wavelengths, light)
        cubes = {"truth": self.truth, **self.recs}
        images = {name: true_colour(cube, self.wavelengths, light, white) for name, cube in cubes.items()}
        if self.job.rgb is None:
            return images
        rgb = read_rgb(self.job.rgb)
        check_same_size(rgb.shape, self.job.rgb, self.truth.shape, self.job.truth)
        return {"RGB input": np.float32(rgb) / np.iinfo(rgb.dtype).max, **images}


def read_scene(job: Job) -> Scene | None:
    """Read a scene's files, each once. None if the ground truth has values <= 0 and there is no floor.

    Raises DataError if files cannot be read or do not belong together, or if a point lies outside the image.
    """
    true = read_truth(job.truth, job.floor)
    if true is None:
        return None
    truth, raised = true
    wavelengths = truth.require_wavelengths()
    cubes = {method: read_reconstruction(path, truth) for method, path in job.recs.items()}
    height, width = truth.values.shape[:2]
    for row, column in job.points or ():
        if row >= height or column >= width:
            raise DataError(
                f"{job.truth}: no pixel {row},{column} in {height} rows and {width} columns; choose other --points"
            )
    return Scene(
        job,
        truth.values,
        {method: cube.values for method, cube in cubes.items()},
        wavelengths,
        raised,
        list(job.points or plots.pick_points(truth.values)),
        {method: cube.origin or "" for method, cube in cubes.items()},
    )


@dataclass(frozen=True)
class Result:
    """What is kept of a drawn scene: by method, SCORES, MRAE of the bands at `wavelengths` (nm), and origins."""

    scores: dict[str, list[float]]
    curves: dict[str, np.ndarray]
    wavelengths: np.ndarray
    origins: dict[str, str]
    raised: int
    n_values: int


Save = Callable[[plots.Sheet, str], None]
"""Writes a figure under a name without suffix."""


def draw_scene(job: Job, bands: Sequence[float], patch: int, width: float, save: Save) -> Result | None:
    """Draw a scene's figures, NAME_ and one of KINDS; None if the scene is passed over."""
    scene = read_scene(job)
    if scene is None:
        return None
    shown = plots.nearest_bands(scene.wavelengths, bands)
    title, image = next(iter(scene.colours.items()))
    curves = {method: plots.mrae_of_bands(rec, scene.truth) for method, rec in scene.recs.items()}
    cubes = (scene.truth, scene.recs, scene.wavelengths)
    sheets = (
        plots.plot_colour(scene.colours, width),
        plots.plot_bands(*cubes, shown, width),
        plots.plot_errors(*cubes, shown, width),
        plots.plot_spectra(image, title, *cubes, scene.points, patch, width),
        plots.plot_mrae(curves, scene.wavelengths, width),
    )
    for kind, sheet in zip(KINDS, sheets, strict=True):
        save(sheet, f"{job.name}_{kind}")
    table = {method: scores(rec, scene.truth) for method, rec in scene.recs.items()}
    return Result(table, curves, scene.wavelengths, scene.origins, scene.raised, scene.truth.size)


def draw_all(
    args: argparse.Namespace, jobs: list[Job], width: str, save: Save
) -> tuple[dict[str, Result], list[str]]:
    """Draw all scenes, and `scores` and `mrae` over them; return the results by scene, and who was passed over.

    `mrae`, the mean over the scenes, is drawn only if they have the same bands. Raises DataError if no scene is left.
    """
    inches = plots.WIDTHS[width]
    draw = partial(draw_scene, bands=args.bands or BANDS[width], patch=args.patch, width=inches, save=save)
    drawn = in_order(draw, jobs, min(args.num_workers, len(jobs) // 2))
    progress = tqdm(zip(jobs, drawn, strict=True), "drawing", len(jobs), unit="scene", dynamic_ncols=True)
    results = {}
    with cli.Stop() as stop:  # an interrupt within matplotlib's weak references would be lost
        for job, result in progress:
            results[job.name] = result
            if stop.asked == signal.SIGINT:
                raise KeyboardInterrupt
            if stop.asked:
                sys.exit(128 + stop.asked)
    passed_over = [name for name, result in results.items() if result is None]
    shown = {name: result for name, result in results.items() if result is not None}
    if not shown:
        raise DataError(
            f"{args.path_gt}: every cube has values <= 0, nothing to show; --non_positive floor VALUE, as the data "
            "were prepared with, keeps them"
        )
    first = next(iter(shown.values()))
    tables = {method: {name: result.scores[method] for name, result in shown.items()} for method in first.scores}
    save(plots.plot_scores(tables, inches), "scores")
    if all(np.array_equal(result.wavelengths, first.wavelengths) for result in shown.values()):
        curves = {method: np.mean([result.curves[method] for result in shown.values()], 0) for method in first.curves}
        save(plots.plot_mrae(curves, first.wavelengths, inches), "mrae")
    return shown, passed_over
