"""Write a report on reconstructions, one or several methods, as a folder to look at in a browser: OUT/index.html.

It opens from the disk, without a server or a network, and can be passed on or printed. It has the scores (MRAE, RMSE,
PSNR, SAM, SSIM) of each scene and their means, to be sorted by any, the worst scene first; of each scene the image,
truth and reconstructions in true colour, bands, error maps, spectra and MRAE by wavelength; and where it all comes
from: this command, and what the reconstructions' files say of theirs.

Scores are those that compute_mrae.py prints. An earlier report in OUT is replaced when the new one is done; a folder
with other things in it is left alone.

  python report.py --path_rec "DRCR Net=test_results" --path_rec linear=test_results_baseline --out report
"""

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from drcr.cube import describe_floor
from drcr.evaluation import figures as plots
from drcr.evaluation.comparison import add_options, draw_all, find_jobs
from drcr.evaluation.report import SUFFIX, check_folder, staging, write_report
from drcr.evaluation.scoring import describe_skipped
from drcr.utils import cli


def save(sheet: plots.Sheet, name: str, folder: Path) -> None:
    """Write a picture of the report."""
    sheet.save(folder / f"{name}.{SUFFIX}", pil_kwargs={"quality": 80})


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, draw, and write the page."""
    parser = cli.parser(__doc__)
    add_options(parser)
    parser.add_argument("--out", type=Path, default="./report", help="folder for the report")
    args = parser.parse_args(argv)

    check_folder(args.out)
    jobs = find_jobs(args)
    with staging(args.out) as folder:
        results, passed_over = draw_all(args, jobs, "page", partial(save, folder=folder))
        notes = [
            "Reconstructions are clipped to [0, 1] before they are scored and drawn; truth: " + str(args.path_gt)
        ]
        if args.floor is not None:
            raised = [result.raised for result in results.values()]
            notes.append(describe_floor(args.floor, raised, sum(result.n_values for result in results.values())))
        if passed_over:
            notes.append(describe_skipped(passed_over))
        command = f"python report.py {shlex.join(sys.argv[1:])}"
        methods = {name: path.parent for name, path in jobs[0].recs.items()}
        write_report(args.out, folder, results, notes, command, methods)
    print(f"{len(results)} {'scene' if len(results) == 1 else 'scenes'}: open {args.out / 'index.html'} in a browser")
    if passed_over:
        print(describe_skipped(passed_over))


if __name__ == "__main__":
    cli.run(main)
