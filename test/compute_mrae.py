"""Score reconstructed cubes: MRAE and RMSE as the released code prints them, PSNR, SAM and SSIM.

With several --path_rec, prints one table of all methods: each scene's scores, and the means. --table writes it.

Compares PATH_REC/NAME.mat with PATH_GT/NAME.mat. The reconstruction is clipped to [0, 1] first. Scenes with any
ground truth value <= 0 are skipped, and their names printed, because a relative error is not defined there. With
--non_positive floor VALUE they are scored: values of the ground truth below VALUE are raised to VALUE, as in data
preparation, and counted. Each score is taken over all pixels and bands of an image, then averaged over the images.
PSNR is for a peak of 1, SAM is in degrees, SSIM is the mean over bands (nan below 11 x 11 pixels).

Near-black pixels have far larger relative errors than all others. --min_radiance VALUE also prints the MRAE without
the pixels whose ground truth (after --non_positive), averaged over the bands, is below VALUE.

Published scores differ by the part of an image that they count. The released DRCR code scores whole images, which is
the default here. The NTIRE 2022 challenge scores the central 226 x 256 pixels of 482 x 512. The MST++ toolbox cuts
128 pixels at each side, which leaves the same part. Compare only scores of the same part.
"""

import drcr.utils.start  # isort: skip # noqa: F401
import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from drcr import metrics
from drcr.cube import DIM, describe_floor, warn_of_dim
from drcr.metrics import SCORES
from drcr.scoring.scoring import describe_skipped, pair_cubes, read_reconstruction, read_truth, scores
from drcr.scoring.tables import BRIGHT_MRAE, Scores, check_table, text_table, write_table
from drcr.utils import cli
from drcr.utils.extras import missing
from drcr.utils.files import DataError, print_other_files

CROPS = {"none": 0, "ntire2022": 128, "mst": 128}
"""Pixels that --crop cuts at each side."""


@dataclass(frozen=True)
class Scored:
    """The scores of an image, and what was done about its dark values."""

    scores: list[float]
    """SCORES, and `bright_mrae` last with --min_radiance."""
    raised: int
    n_dim: int
    """How many values of the ground truth are below DIM."""
    n_values: int
    dark_part: float
    """Fraction of the pixels that `bright_mrae` does not count."""
    part: tuple[int, int, int, int]
    """Height and width of the part that is scored, and of the image."""
    notes: tuple[str, ...]
    """What the user should know about the files."""


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    cli.add_path_rec(parser)
    add("--path_gt", type=Path, default="../Dataset/Valid_spectral", help="folder of ground truth cubes")
    add(
        "--table",
        type=Path,
        metavar="FILE",
        help="also write each scene's scores and the means: LaTeX if FILE ends in .tex, else CSV",
    )
    add(
        "--rec_suffix",
        default="",
        metavar="TEXT",
        help="compare NAMETEXT.mat in PATH_REC with NAME.mat in PATH_GT, such as _clean; other files are ignored",
    )
    cli.add_non_positive(
        parser,
        skip="scenes whose ground truth has any value <= 0 are skipped",
        floor="values of the ground truth below VALUE are raised to it, and counted",
    )
    add(
        "--min_radiance",
        type=cli.positive,
        metavar="VALUE",
        help="also print the MRAE without the pixels whose mean radiance is below VALUE",
    )
    add(
        "--crop",
        choices=tuple(CROPS),
        default="none",
        help="part of each image that is scored. ntire2022, mst: without 128 pixels at each side, also of images of "
        "other sizes. Whether a scene is skipped depends on the whole image",
    )
    args = parser.parse_args(argv)
    if args.min_radiance and args.min_radiance >= 1:
        parser.error("--min_radiance must be below 1: radiance is from 0 to 1")
    return args


def score_image(
    rec_path: Path, gt_path: Path, floor: float | None, min_radiance: float | None, crop: str = "none"
) -> Scored | None:
    """Return the scores of an image, None if its ground truth has values <= 0 and there is no floor."""
    true = read_truth(gt_path, floor)
    if true is None:
        return None
    (truth_cube, raised), rec_cube = true, read_reconstruction(rec_path, true[0])
    height, width, _ = truth_cube.values.shape
    rows, columns = (slice(CROPS[crop], max(n - CROPS[crop], 0)) for n in (height, width))
    truth, rec = truth_cube.values[rows, columns], rec_cube.values[rows, columns]
    if not truth.size:
        raise DataError(f"{gt_path}: of {height} x {width} pixels, --crop {crop} leaves none; use --crop none")
    image: list[Any] = scores(rec, truth)
    dark_part = 0.0
    if min_radiance is not None:
        bright = metrics.bright_pixels(truth, min_radiance)
        image.append(metrics.mrae(rec[bright], truth[bright]) if bright.any() else float("nan"))
        dark_part = 1 - bright.mean()
    notes = [f"{path}: {note}" for path, cube in ((rec_path, rec_cube), (gt_path, truth_cube)) for note in cube.notes]
    part = (*truth.shape[:2], height, width)
    n_dim = int(np.count_nonzero(truth_cube.values < DIM))
    return Scored(image, raised, n_dim, truth_cube.values.size, dark_part, part, tuple(notes))


def score_all(
    args: argparse.Namespace, method: str, pairs: dict[str, tuple[Path, Path]], printing: bool
) -> tuple[dict[str, Scored], list[str]]:
    """Score each pair, and print its line if asked for; return scores by name, and the names of those skipped."""
    images: dict[str, Scored] = {}
    skipped = []
    progress = tqdm(pairs, desc=f"scoring {method}", unit="image", dynamic_ncols=True, leave=False)
    for name in progress:
        image = score_image(*pairs[name], args.floor, args.min_radiance, args.crop)
        if image is None:
            skipped.append(name)
            continue
        images[name] = image
        if not printing:
            continue
        line = f"{pairs[name][0].name} mrae: {image.scores[0]!s},  rmse: {image.scores[1]!s}"
        with progress.external_write_mode():
            print(line + (f",  {without_dark(args)}: {image.scores[-1]!s}" if args.min_radiance else ""))
    if not images:
        raise DataError(
            f"{args.path_gt}: every ground truth has values <= 0, so nothing can be scored; use --non_positive floor "
            "VALUE with the value that the data were prepared with"
        )
    return images, skipped


def without_dark(args: argparse.Namespace) -> str:
    """Return what the MRAE of --min_radiance is called."""
    return f"mrae without pixels below {args.min_radiance:g}"


def average_of(args: argparse.Namespace, images: dict[str, Scored]) -> np.ndarray:
    """Return the averages in the order of the scores."""
    table = np.array([image.scores for image in images.values()], np.float64)
    average = table.mean(0)
    bright = np.isfinite(table[:, -1])
    if args.min_radiance:
        if not bright.any():
            raise DataError(
                f"{args.path_gt}: every pixel is below --min_radiance {args.min_radiance:g}; choose a lower value"
            )
        average[-1] = table[bright, -1].mean()
    return average


def print_averages(args: argparse.Namespace, images: dict[str, Scored], average: np.ndarray) -> None:
    """Print the averages of one method, the first two as the released code does."""
    print(f"The average mrae is: {average[0]}")
    print(f"The average rmse is: {average[1]}")
    print(f"The average psnr is: {average[2]:.4f} dB")
    print(f"The average sam is: {average[3]:.4f} degrees")
    print(f"The average ssim is: {average[4]:.6f}")
    if line := missing("skimage", "figures", "SSIM"):
        print(f"note: {line}")
    if args.min_radiance:
        dark_part = np.mean([image.dark_part for image in images.values()])
        print(f"The average {without_dark(args)} is: {average[-1]} ({dark_part:.2%} of the pixels skipped)")
        dark = [name for name, image in images.items() if not np.isfinite(image.scores[-1])]
        if dark:
            print(f"not in that average, entirely dark: {', '.join(dark)}")


def print_notes(args: argparse.Namespace, images: dict[str, Scored], skipped: list[str]) -> None:
    """Print which part was scored, what was done about dark values, and what the files say."""
    if args.crop != "none":
        sizes = sorted({image.part for image in images.values()})
        words = ", ".join(
            f"{rows} x {columns} pixels of {height} x {width}" for rows, columns, height, width in sizes
        )
        print(f"--crop {args.crop}: scored {words}")
    if args.floor is not None:
        raised = [image.raised for image in images.values()]
        print(describe_floor(args.floor, raised, sum(image.n_values for image in images.values())))
    for note in (note for image in images.values() for note in image.notes):
        print(f"note: {note}")
    if args.floor is None:
        warning = warn_of_dim(*(sum(getattr(image, n) for image in images.values()) for n in ("n_dim", "n_values")))
        if warning is not None:
            print(f"note: {warning}")
    if skipped:
        print(describe_skipped(skipped))


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, score each pair of each method, print and write the table."""
    args = read_options(argv)
    folders: dict[str, Path] = args.path_rec or {"test_results": Path("./test_results")}
    pairs = {method: pair_cubes(path, args.path_gt, suffix=args.rec_suffix) for method, path in folders.items()}
    if args.table:
        check_table(args.table)
        args.table.parent.mkdir(parents=True, exist_ok=True)
    columns = [*SCORES, BRIGHT_MRAE][: len(SCORES) + bool(args.min_radiance)]
    tables: dict[str, Scores] = {}
    # colour-science, where a process has imported it, makes NumPy print fewer digits
    with np.printoptions(legacy=False):
        for method in folders:
            images, skipped = score_all(args, method, pairs[method], printing=len(folders) == 1)
            average = average_of(args, images)
            rows = {name: image.scores for name, image in images.items()} | {"average": list(average)}
            tables[method] = {name: dict(zip(columns, row, strict=True)) for name, row in rows.items()}
        if len(folders) == 1:
            print_averages(args, images, average)
        else:
            print(text_table(tables, [*images, "average"]))
        print_notes(args, images, skipped)
        if args.table:
            write_table(args.table, tables)
    for found in pairs.values():
        print_other_files(*zip(*found.values(), strict=True))


if __name__ == "__main__":
    cli.run(main)
