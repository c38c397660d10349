"""Write a report on reconstructions of one or several methods: one HTML file to open in a browser.

It needs no server, no network and no other file, and can be sent or printed. It shows each scene's scores (MRAE,
RMSE, PSNR, SAM, SSIM) and their means, sortable by any score, the worst scene first; each scene's input, ground
truth and reconstructions in true colour, bands, error maps, spectra and MRAE by wavelength; where not to trust
reconstructions that test.py --confidence wrote; and how it was made: this command, and the origin that the files
state.

The scores are those of compute_mrae.py. Without ground truth, as for photographs, --path_gt none shows the scenes
without scores and errors. An earlier report of that name is replaced when the new one is complete.

  python report.py --path_rec "DRCR Net=test_results" --path_rec linear=test_results_baseline --out report.html
  python report.py --path_gt none --RGB_dir photographs
"""

import drcr.utils.start  # isort: skip # noqa: F401
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from drcr.cube import describe_floor
from drcr.figures.comparison import UNSCORED, add_options, find_jobs
from drcr.scoring.scoring import describe_skipped
from drcr.utils import cli
from drcr.utils.files import DataError

if TYPE_CHECKING:
    from drcr.figures.layout import Sheet


def save(sheet: "Sheet", name: str, folder: Path) -> None:
    """Write a picture of the report."""
    from drcr.figures.report import SUFFIX

    sheet.save(folder / f"{name}.{SUFFIX}", pil_kwargs={"quality": 80})


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, draw, and write the page."""
    parser = cli.parser(__doc__)
    add_options(parser)
    parser.add_argument("--out", type=Path, default="./report.html", metavar="FILE", help="the report")
    args = parser.parse_args(argv)
    if args.out.suffix != ".html":
        parser.error("--out must end in .html")
    # Matplotlib takes a second to import, and --help needs neither
    from drcr.figures.report import MAX_SCENES, check_report, write_report
    from drcr.figures.scenes import draw_all

    args.out.parent.mkdir(parents=True, exist_ok=True)
    check_report(args.out)
    jobs = find_jobs(args)
    if len(jobs) > MAX_SCENES:
        raise DataError(
            f"{len(jobs)} scenes, but a report has {MAX_SCENES} at most; choose some with --scenes, or draw with "
            "figures.py"
        )

    with TemporaryDirectory() as folder:
        results, skipped = draw_all(args, jobs, "page", partial(save, folder=Path(folder)))
        notes = [f"Reconstructions are clipped to [0, 1] before scoring and drawing. Ground truth: {args.path_gt}"]
        if args.path_gt is None:
            notes = [f"{UNSCORED} Reconstructions are clipped to [0, 1] before drawing."]
        elif args.floor is not None:
            raised = [result.raised for result in results.values()]
            notes.append(describe_floor(args.floor, raised, sum(result.n_values for result in results.values())))
        if skipped:
            notes.append(describe_skipped(skipped))
        command = f"python report.py {shlex.join(sys.argv[1:] if argv is None else argv)}"
        methods = {name: path.parent for name, path in jobs[0].recs.items()}
        write_report(args.out, Path(folder), results, notes, command, methods)
    print(f"{len(results)} scene{'s' * (len(results) != 1)}: open {args.out} in a browser")
    if skipped:
        print(describe_skipped(skipped))


if __name__ == "__main__":
    cli.run(main)
