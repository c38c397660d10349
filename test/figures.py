"""Draw reconstructions beside their ground truth, of one or several methods, as papers of this field do.

For each scene, RESULT_DIR/NAME_*:
  colour   RGB input, ground truth and reconstructions in true colour (sRGB, CIE 1931 observer)
  bands    some bands, ground truth above reconstructions
  errors   absolute and relative error, each on one scale
  spectra  spectra at some points, and r, Pearson's correlation with the ground truth
  mrae     MRAE by wavelength
  confidence  where not to trust a reconstruction that test.py --confidence wrote: the levels, and the spectral angle
           that is expected beside the true one
Over all scenes, RESULT_DIR/mrae, the mean of the above, and RESULT_DIR/scores, each scene's MRAE, RMSE, PSNR, SAM
and SSIM.

Cubes are paired by name and reconstructions clipped to [0, 1], as in compute_mrae.py. Without ground truth, as for
photographs, --path_gt none draws colour, bands, spectra and confidence of each scene. The same input gives the same
files. Figures of an earlier run are replaced; no other file is overwritten.

  python figures.py --path_rec "DRCR Net=test_results" --path_rec linear=test_results_baseline --scenes ARAD_1K_0912
  python figures.py --path_gt none --RGB_dir photographs
"""

import drcr.utils.start  # isort: skip # noqa: F401
import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from drcr.figures.comparison import (
    BANDS,
    KINDS,
    UNSCORED,
    UNSCORED_KINDS,
    SceneFiles,
    add_options,
    file_stem,
    find_jobs,
)
from drcr.scoring.scoring import describe_skipped
from drcr.utils import cli
from drcr.utils.files import refuse_foreign

if TYPE_CHECKING:
    from drcr.figures.layout import Sheet


def save(sheet: "Sheet", name: str, args: argparse.Namespace) -> None:
    """Write a figure in the formats asked for."""
    for form in args.format:
        sheet.save(args.result_dir / f"{name}.{form}", args.dpi)


def check_targets(args: argparse.Namespace, jobs: list[SceneFiles]) -> None:
    """Raise DataError if a figure would overwrite a file that is not one of our figures."""
    from drcr.figures.layout import is_figure

    kinds = KINDS if args.path_gt else UNSCORED_KINDS
    names = [f"{file_stem(job.name)}_{kind}" for job in jobs for kind in kinds]
    names += ["scores", "mrae"] if args.path_gt else []
    for path in (args.result_dir / f"{name}.{form}" for name in names for form in args.format):
        refuse_foreign(path, is_figure, "a figure of this script", "choose another --result_dir")


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options and draw."""
    parser = cli.parser(__doc__)
    add_options(parser)
    add = parser.add_argument
    add("--result_dir", type=Path, default="./figures", help="folder for the figures")
    add("--format", nargs="+", choices=("pdf", "png", "svg"), default=("pdf", "png"), help="one or more formats")
    add("--dpi", type=cli.at_least(50), default=200, help="dots per inch, in PDF and SVG of the images in them")
    add("--width", choices=tuple(BANDS), default="page", help="a column is 3.35 inches wide, a page 6.9")
    args = parser.parse_args(argv)
    cli.hold(args.result_dir)

    jobs = find_jobs(args)
    check_targets(args, jobs)
    from drcr.figures.scenes import draw_all  # matplotlib takes a second to import

    args.result_dir.mkdir(parents=True, exist_ok=True)
    shown, skipped = draw_all(args, jobs, args.width, partial(save, args=args))
    print(f"figures of {len(shown)} scene{'s' * (len(shown) != 1)} in {args.result_dir}: {', '.join(args.format)}")
    if args.path_gt is None:
        print(UNSCORED)
    if skipped:
        print(describe_skipped(skipped))


if __name__ == "__main__":
    cli.run(main)
