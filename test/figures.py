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
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from drcr import cli, plots
from drcr.comparison import BANDS, Job, add_options, describe_passed_over, find_jobs, nothing_left, read_scene
from drcr.files import DataError
from drcr.parallel import in_order
from drcr.scoring import scores

KINDS = ("colour", "bands", "errors", "spectra", "mrae")


def draw_scene(job: Job, args: argparse.Namespace) -> dict[str, tuple[list[float], np.ndarray, np.ndarray]] | None:
    """Draw a scene's figures; return each method's scores, its MRAE of the bands, and their wavelengths.

    None if the scene is passed over.
    """
    scene = read_scene(job)
    if scene is None:
        return None
    width, nm = plots.WIDTHS[args.width], scene.wavelengths
    bands = plots.nearest_bands(nm, args.bands or BANDS[args.width])
    shown, image = next(iter(scene.colours.items()))
    curves = {method: plots.mrae_of_bands(rec, scene.truth) for method, rec in scene.recs.items()}
    cubes = (scene.truth, scene.recs, nm)
    sheets = (
        plots.plot_colour(scene.colours, width),
        plots.plot_bands(*cubes, bands, width),
        plots.plot_errors(*cubes, bands, width),
        plots.plot_spectra(image, shown, *cubes, scene.points, args.patch, width),
        plots.plot_mrae(curves, nm, width),
    )
    for kind, sheet in zip(KINDS, sheets, strict=True):
        save(sheet, f"{job.name}_{kind}", args)
    return {method: (scores(rec, scene.truth), curves[method], nm) for method, rec in scene.recs.items()}


def save(sheet: plots.Sheet, name: str, args: argparse.Namespace) -> None:
    """Write a figure in the formats asked for."""
    for form in args.format:
        sheet.save(args.out / f"{name}.{form}", args.dpi)


def main() -> None:
    """Read the options and draw."""
    parser = cli.parser(__doc__)
    add_options(parser)
    add = parser.add_argument
    add("--out", type=Path, default="./figures", help="folder for the figures")
    add("--format", nargs="+", choices=("pdf", "png", "svg"), default=("pdf", "png"), help="one or more")
    add("--width", choices=tuple(plots.WIDTHS), default="page", help="a column is 3.35 inches wide, a page 6.9")
    add("--dpi", type=cli.at_least(50), default=200, help="dots an inch: of a PNG, and of the images in the others")
    args = parser.parse_args()

    jobs = find_jobs(args)
    names = [f"{job.name}_{kind}" for job in jobs for kind in KINDS] + ["scores", "mrae"]
    for path in (args.out / f"{name}.{form}" for name in names for form in args.format):
        if path.exists() and plots.MARK.encode() not in path.read_bytes():
            raise DataError(f"{path}: is there already, and no figure of this script; choose another --out")
    args.out.mkdir(parents=True, exist_ok=True)
    results = in_order(partial(draw_scene, args=args), jobs, min(args.num_workers, len(jobs) // 2))
    progress = tqdm(zip(jobs, results, strict=True), "drawing", len(jobs), unit="scene", dynamic_ncols=True)
    drawn = {job.name: result for job, result in progress}
    passed_over = [name for name, result in drawn.items() if result is None]
    shown = {name: result for name, result in drawn.items() if result is not None}
    if not shown:
        raise nothing_left(args.path_gt)

    width, methods = plots.WIDTHS[args.width], list(next(iter(shown.values())))
    tables = {method: {name: result[method][0] for name, result in shown.items()} for method in methods}
    save(plots.plot_scores(tables, width), "scores", args)
    lists = [result[methods[0]][2] for result in shown.values()]
    n_figures = len(KINDS) * len(shown) + 1
    if all(np.array_equal(nm, lists[0]) for nm in lists):  # else there is no mean
        curves = {method: np.mean([result[method][1] for result in shown.values()], 0) for method in methods}
        save(plots.plot_mrae(curves, lists[0], width), "mrae", args)
        n_figures += 1
    print(f"{n_figures} figures of {len(shown)} scenes in {args.out}: {', '.join(args.format)}")
    if passed_over:
        print(describe_passed_over(passed_over))


if __name__ == "__main__":
    cli.run(main)
