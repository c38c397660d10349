"""Score reconstructed cubes against the truth: MRAE and RMSE as the released code prints them, PSNR, SAM, SSIM.

Pairs PATH_REC/NAME.mat with PATH_GT/NAME.mat. The reconstruction is clipped to [0, 1] first. Scenes whose truth
has any value <= 0 are passed over, and named: a relative error has no meaning there. Each score is taken over
all pixels and bands of an image, then averaged over the images. PSNR is for a peak of 1, SAM in degrees, SSIM
the mean over bands (nan below 11 x 11 pixels).
"""

import csv
import io
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from drcr import cli, metrics
from drcr.files import DataError, list_files, write_atomically
from drcr.matfile import check_cube, read_cube

SCORES = ("mrae", "rmse", "psnr", "sam", "ssim")


def score(rec_path: Path, gt_path: Path) -> list[float] | None:
    """Return the five scores of an image, or None if its truth has values <= 0."""
    truth = read_cube(gt_path)
    check_cube(truth, gt_path)
    if (truth <= 0).any():
        return None
    rec = read_cube(rec_path)
    check_cube(rec, rec_path)
    if rec.shape != truth.shape:
        raise DataError(f"{rec_path}: {rec.shape} H x W x bands, but the truth {gt_path} is {truth.shape}")
    rec = rec.clip(0, 1)
    return [getattr(metrics, name)(rec, truth) for name in SCORES]


def main() -> None:
    """Read the options, score each pair, print and write the table."""
    parser = cli.parser(__doc__)
    parser.add_argument("--path_rec", type=Path, default="./test_results", help="folder of reconstructed cubes")
    parser.add_argument("--path_gt", type=Path, default="../Dataset/Valid_spectral", help="folder of true cubes")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the scores, a line an image, to FILE")
    args = parser.parse_args()

    # The last printed digit depends on the order of summing, and so on the threads; the released lines are for one.
    torch.set_num_threads(1)
    if args.path_rec.exists() and args.path_gt.exists() and args.path_rec.samefile(args.path_gt):
        raise DataError(f"{args.path_rec}: is both --path_rec and --path_gt")
    recs = list_files(args.path_rec, (".mat",), "reconstructed cubes")
    truths = list_files(args.path_gt, (".mat",), "true cubes")
    for files, others, what in ((recs, truths, "true cube"), (truths, recs, "reconstruction")):
        for name, path in files.items():
            if name not in others:
                raise DataError(f"{path}: no {what} of the same name; add it, or take this file away")

    if args.csv:
        args.csv.parent.mkdir(parents=True, exist_ok=True)
    rows, passed_over = {}, []
    progress = tqdm(recs, desc="scoring", unit="image", dynamic_ncols=True, leave=False)
    for name in progress:
        scores = score(recs[name], truths[name])
        if scores is None:
            passed_over.append(name)
            continue
        rows[name] = scores
        with progress.external_write_mode():
            print(f"{recs[name].name} mrae: {scores[0]!s},  rmse: {scores[1]!s}")
    if not rows:
        raise DataError(f"{args.path_gt}: every cube has values <= 0; there is nothing to score")

    average = np.mean(np.array(list(rows.values()), np.float64), axis=0)
    print(f"The average mrae is: {average[0]}")
    print(f"The average rmse is: {average[1]}")
    print(f"The average psnr is: {average[2]:.4f} dB")
    print(f"The average sam is: {average[3]:.4f} degrees")
    print(f"The average ssim is: {average[4]:.6f}")
    if passed_over:
        print(f"passed over {len(passed_over)} scenes whose truth has values <= 0: {', '.join(passed_over)}")
    if args.csv:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["name", *SCORES])
        table.writerows([[name, *scores] for name, scores in rows.items()])
        table.writerow(["average", *average])
        write_atomically(args.csv, lambda file: file.write(text.getvalue().encode()))


if __name__ == "__main__":
    cli.run(main)
