"""Draw reconstructions beside their truth as papers of this field do, one or several methods.

Of each scene, OUT/NAME_*:
  colour   RGB input, truth and reconstructions in true colour (sRGB, by the CIE 1931 observer)
  bands    some bands, the truth above the reconstructions
  errors   absolute and relative error, on one scale each
  spectra  the spectra at some points, and r, Pearson's correlation with the truth
  mrae     MRAE by wavelength
Over all scenes, OUT/mrae, the mean of the last one, and OUT/scores: each scene's MRAE, RMSE, PSNR, SAM and SSIM.

Pairs cubes by name, and clips reconstructions to [0, 1], as compute_mrae.py does. The same input gives the same
files. Figures of an earlier run are replaced, other files never.

  python figures.py --path_rec "DRCR Net=test_results" --path_rec linear=test_results_baseline --scenes ARAD_1K_0912
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from drcr.evaluation import figures as plots
from drcr.evaluation.comparison import KINDS, add_options, draw_all, find_jobs
from drcr.evaluation.scoring import describe_skipped
from drcr.utils import cli
from drcr.utils.files import DataError


def save(sheet: plots.Sheet, name: str, args: argparse.Namespace) -> None:
    """Write a figure in the formats asked for."""
    for form in args.format:
        sheet.save(args.out / f"{name}.{form}", args.dpi)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options and draw."""
    parser = cli.parser(__doc__)
    add_options(parser)
    add = parser.add_argument
    add("--out", type=Path, default="./figures", help="folder for the figures")
    add("--format", nargs="+", choices=("pdf", "png", "svg"), default=("pdf", "png"), help="one or more")
    add("--dpi", type=cli.at_least(50), default=200, help="dots an inch: of a PNG, and of the images in the others")
    add("--width", choices=tuple(plots.WIDTHS), default="page", help="a column is 3.35 inches wide, a page 6.9")
    args = parser.parse_args(argv)

    jobs = find_jobs(args)
    names = [f"{job.name}_{kind}" for job in jobs for kind in KINDS] + ["scores", "mrae"]
    for path in (args.out / f"{name}.{form}" for name in names for form in args.format):
        if path.exists() and plots.MARK.encode() not in path.read_bytes():
            raise DataError(f"{path}: is there already, and no figure of this script; choose another --out")
    args.out.mkdir(parents=True, exist_ok=True)
    shown, passed_over = draw_all(args, jobs, args.width, partial(save, args=args))
    print(
        f"figures of {len(shown)} {'scene' if len(shown) == 1 else 'scenes'} in {args.out}: {', '.join(args.format)}"
    )
    if passed_over:
        print(describe_skipped(passed_over))


if __name__ == "__main__":
    cli.run(main)
