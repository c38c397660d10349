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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from drcr import cli, metrics
from drcr.files import DataError, list_files, write_atomically
from drcr.matfile import check_cube, describe_bands, find_wavelengths, read_cube, same_bands
from drcr.prepare import describe_floor, raise_to_floor

SCORES = ("mrae", "rmse", "psnr", "sam", "ssim")


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
    truth = read_cube(gt_path)
    check_cube(truth, gt_path)
    bands = [find_wavelengths(path, truth.shape[2]) for path in (rec_path, gt_path)]
    raised = 0
    if floor is not None:
        truth, raised = raise_to_floor(truth, floor)
    elif (truth <= 0).any():
        return None
    rec = read_cube(rec_path)
    check_cube(rec, rec_path)
    if rec.shape != truth.shape:
        raise DataError(f"{rec_path}: {rec.shape} H x W x bands, but the truth {gt_path} is {truth.shape}")
    if all(nm is not None for nm in bands) and not same_bands(*bands):
        raise DataError(f"{rec_path}: {describe_bands(bands[0])}, but the truth {gt_path} has other wavelengths")
    rec = rec.clip(0, 1)
    scores, left_out = [getattr(metrics, name)(rec, truth) for name in SCORES], 0.0
    if min_radiance is not None:
        bright = metrics.bright_pixels(truth, min_radiance)
        scores.append(metrics.mrae(rec[bright], truth[bright]) if bright.any() else float("nan"))
        left_out = 1 - bright.mean()
    return Scored(scores, raised, truth.size, left_out)


def main() -> None:
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
    args = parser.parse_args()
    if args.min_radiance and args.min_radiance >= 1:
        parser.error("--min_radiance below 1 is needed: radiance is from 0 to 1")

    # The last printed digit depends on the order of summing, and so on the threads; the released lines are for one.
    torch.set_num_threads(1)
    if args.path_rec.exists() and args.path_gt.exists() and args.path_rec.samefile(args.path_gt):
        raise DataError(f"{args.path_rec}: is both --path_rec and --path_gt")
    recs = list_files(args.path_rec, (".mat",), "reconstructed cubes")
    truths = list_files(args.path_gt, (".mat",), "true cubes")
    for name, path in recs.items():
        if name not in truths:
            raise DataError(f"{path}: no true cube of the same name; from another run? use a --result_dir for each")
    for name, path in truths.items():
        if name not in recs:
            raise DataError(f"{path}: no reconstruction of the same name; run test.py on all of their images")

    if args.csv:
        if args.csv.exists() and not args.csv.read_bytes().startswith(b"name,mrae,"):
            raise DataError(f"{args.csv}: is there already, and no table of scores; choose another --csv")
        args.csv.parent.mkdir(parents=True, exist_ok=True)
    without = f"mrae without pixels below {args.min_radiance:g}" if args.min_radiance else ""
    images: dict[str, Scored] = {}
    passed_over = []
    progress = tqdm(recs, desc="scoring", unit="image", dynamic_ncols=True, leave=False)
    for name in progress:
        image = score(recs[name], truths[name], args.floor, args.min_radiance)
        if image is None:
            passed_over.append(name)
            continue
        images[name] = image
        with progress.external_write_mode():
            line = f"{recs[name].name} mrae: {image.scores[0]!s},  rmse: {image.scores[1]!s}"
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
        print(f"passed over {len(passed_over)} scenes whose truth has values <= 0: {', '.join(passed_over)}")
    if args.csv:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", *SCORES] + ["bright_mrae"] * bool(without))
        writer.writerows([[name, *image.scores] for name, image in images.items()])
        writer.writerow(["average", *average])
        write_atomically(args.csv, lambda file: file.write(text.getvalue().encode()))


if __name__ == "__main__":
    cli.run(main)
