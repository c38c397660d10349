"""Score reconstructed cubes against the truth: MRAE and RMSE as the released code prints them, PSNR, SAM, SSIM.

Pairs PATH_REC/NAME.mat with PATH_GT/NAME.mat. The reconstruction is clipped to [0, 1] first. Scenes whose truth
has any value <= 0 are passed over, and named: a relative error has no meaning there. With --non_positive floor
VALUE none is: lower values of the truth are raised to VALUE, as in preparing the data, and counted. Each score is
taken over all pixels and bands of an image, then averaged over the images. PSNR is for a peak of 1, SAM in degrees,
SSIM the mean over bands (nan below 11 x 11 pixels).

Relative errors over near-black pixels dwarf all others. --min_radiance VALUE prints the MRAE a second time, beside
the full one, without the pixels whose true radiance (after --non_positive), averaged over the bands, is below VALUE.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from drcr import metrics
from drcr.cube import describe_floor
from drcr.evaluation.scoring import describe_skipped, pair_cubes, read_reconstruction, read_truth, scores
from drcr.metrics import SCORES
from drcr.utils import cli
from drcr.utils.files import DataError, write_atomically


@dataclass(frozen=True)
class Scored:
    """An image's scores, with `bright_mrae` last where it is asked for, and what was done about its dark values."""

    scores: list[float]
    raised: int
    n_values: int
    left_out: float
    """Part of the pixels that `bright_mrae` leaves out."""


def score(rec_path: Path, gt_path: Path, floor: float | None, min_radiance: float | None) -> Scored | None:
    """Return the scores of an image, or None if its truth has values <= 0 and there is no floor."""
    true = read_truth(gt_path, floor)
    if true is None:
        return None
    cube, raised = true
    truth = cube.values
    rec = read_reconstruction(rec_path, cube).values
    image, left_out = scores(rec, truth), 0.0
    if min_radiance is not None:
        bright = metrics.bright_pixels(truth, min_radiance)
        image.append(metrics.mrae(rec[bright], truth[bright]) if bright.any() else float("nan"))
        left_out = 1 - bright.mean()
    return Scored(image, raised, truth.size, left_out)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, score each pair, print and write the table."""
    parser = cli.parser(__doc__)
    parser.add_argument("--path_rec", type=Path, default="./test_results", help="folder of reconstructed cubes")
    parser.add_argument("--path_gt", type=Path, default="../Dataset/Valid_spectral", help="folder of true cubes")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the scores, a line an image, to FILE")
    cli.add_non_positive(
        parser,
        skip="scenes whose truth has any value <= 0 are passed over",
        floor="values of the truth below VALUE are raised to it, and counted",
    )
    parser.add_argument(
        "--min_radiance",
        type=cli.positive,
        metavar="VALUE",
        help="print the MRAE also without the pixels whose mean radiance is below VALUE",
    )
    args = parser.parse_args(argv)
    if args.min_radiance and args.min_radiance >= 1:
        parser.error("--min_radiance below 1 is needed: radiance is from 0 to 1")

    pairs = pair_cubes(args.path_rec, args.path_gt)
    if args.csv:
        if args.csv.exists() and not args.csv.read_bytes().startswith(b"name,mrae,"):
            raise DataError(f"{args.csv}: is there already, and no table of scores; choose another --csv")
        args.csv.parent.mkdir(parents=True, exist_ok=True)
    without = f"mrae without pixels below {args.min_radiance:g}" if args.min_radiance else ""
    images: dict[str, Scored] = {}
    passed_over = []
    progress = tqdm(pairs, desc="scoring", unit="image", dynamic_ncols=True, leave=False)
    for name in progress:
        image = score(*pairs[name], args.floor, args.min_radiance)
        if image is None:
            passed_over.append(name)
            continue
        images[name] = image
        with progress.external_write_mode():
            # colour-science, once imported, makes NumPy print fewer digits than the released lines have
            with np.printoptions(legacy=False):
                line = f"{pairs[name][0].name} mrae: {image.scores[0]!s},  rmse: {image.scores[1]!s}"
                print(line + (f",  {without}: {image.scores[-1]!s}" if without else ""))
    if not images:
        raise DataError(
            f"{args.path_gt}: every cube has values <= 0, there is nothing to score; --non_positive floor VALUE, as "
            "the data were prepared with, scores them"
        )

    table = np.array([image.scores for image in images.values()], np.float64)
    average = table.mean(0)
    if without:
        bright = np.isfinite(table[:, 5])
        if not bright.any():
            raise DataError(
                f"{args.path_gt}: every pixel is below --min_radiance {args.min_radiance:g}; choose a lower one"
            )
        average[5] = table[bright, 5].mean()
    print(f"The average mrae is: {average[0]}")
    print(f"The average rmse is: {average[1]}")
    print(f"The average psnr is: {average[2]:.4f} dB")
    print(f"The average sam is: {average[3]:.4f} degrees")
    print(f"The average ssim is: {average[4]:.6f}")
    if without:
        left_out = np.mean([image.left_out for image in images.values()])
        print(f"The average {without} is: {average[5]} ({left_out:.2%} of the pixels left out)")
        if not bright.all():
            print(f"dark all over, not in that average: {', '.join(np.array(list(images))[~bright])}")
    if args.floor is not None:
        raised = [image.raised for image in images.values()]
        print(describe_floor(args.floor, raised, sum(image.n_values for image in images.values())))
    if passed_over:
        print(describe_skipped(passed_over))
    if args.csv:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", *SCORES] + ["bright_mrae"] * bool(without))
        writer.writerows([[name, *image.scores] for name, image in images.items()])
        writer.writerow(["average", *average])
        write_atomically(args.csv, lambda file: file.write(text.getvalue().encode()))


if __name__ == "__main__":
    cli.run(main)
