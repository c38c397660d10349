"""Figures: reconstructions beside their ground truth, scores, and the curves of a training run.

Cubes are arrays (H, W, bands): a ground truth has values above 0, or is None; reconstructions are clipped to [0, 1]
and come in a dict by method, up to six. Each plot_* function draws one figure, `width` inches wide, and returns it as
a `Sheet` that saves it in any format; `draw_scene` and `draw_all` draw all figures of figures.py and report.py.
"""

import csv
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from drcr.cube import WAVELENGTHS
from drcr.figures.comparison import (
    BANDS,
    Result,
    SceneFiles,
    file_stem,
    mrae_of_bands,
    nearest_bands,
    pick_points,
    read_scene,
)
from drcr.figures.layout import (
    EDGE,
    GAP,
    LINE,
    MAX_HEIGHT,
    METHODS,
    SMALL,
    TRUTH,
    WIDTHS,
    ImageBlock,
    Sheet,
    by_rows,
    draw_image,
    draw_image_rows,
    draw_legend,
    fit_text,
    styled,
    text_width,
)
from drcr.formats.maps import LEVEL_COLOURS, LEVELS, level_image
from drcr.metrics import SCORES, correlation, sam_map
from drcr.scoring.scoring import scores
from drcr.utils import cli
from drcr.utils.extras import needs
from drcr.utils.files import DataError
from drcr.utils.parallel import in_order

with needs("figures", "a figure"):
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator

Cubes = dict[str, np.ndarray]
"""Reconstructions (H, W, bands) by method."""
Save = Callable[[Sheet, str], None]
"""Writes a figure under a name without suffix."""


def _band_titles(wavelengths: np.ndarray, bands: list[int]) -> list[str]:
    return [f"{wavelengths[band]:.0f} nm" for band in bands]


def _bands(truth: np.ndarray | None, recs: Cubes, bands: list[int]) -> ImageBlock:
    cubes = ({} if truth is None else {"ground truth": truth}) | recs
    rows = {name: [cube[..., band] for band in bands] for name, cube in cubes.items()}
    # scaled to the brightest pixel, one highlight would leave the rest dark
    return ImageBlock(rows, [max(float(np.percentile(image, 99.5)), 1e-6) for image in next(iter(rows.values()))])


def _errors(truth: np.ndarray, recs: Cubes, bands: list[int], relative: bool, mean: bool) -> ImageBlock:
    """Return the error maps of bands, after the mean over all bands if `mean`, on one scale.

    It ends where 98% of the values of the best method lie below: in larger errors that method would be black.
    """
    rows, peaks = {}, []
    for name, rec in recs.items():
        error = np.abs(rec - truth)
        if relative:
            error = error / truth
        rows[name] = [error.mean(2)] * mean + [error[..., band] for band in bands]
        peaks.append(np.percentile(rows[name], 98))
    peak = _round_up(max(min(peaks), 1e-3))
    label, below = (
        f"{'relative' if relative else 'absolute'} error",
        f" (98%{' of best' * (len(peaks) > 1)} < {peak:g})",
    )
    if relative and peak > 1:
        peak, below = 1.0, ""  # a larger one is wrong altogether
    return ImageBlock(rows, [peak] * (len(bands) + mean), label + below)


def _round_up(peak: float) -> float:
    """Return the next larger round number, for the end of a scale."""
    step = 10 ** np.floor(np.log10(peak))
    return float(next(n for n in (1, 2, 3, 5, 10) if n * step >= peak * 0.999) * step)


def _mark_points(axes: Axes, points: Sequence[tuple[int, int]], width: int) -> None:
    """Mark points by letters on an image of `width` pixels."""
    for letter, (row, column) in zip(_letters(points), points, strict=True):
        outline = [withStroke(linewidth=2.2, foreground="black")]
        axes.plot(column, row, "o", ms=4.5, mfc="none", mec="white", mew=1, path_effects=outline)
        right = column < 0.85 * width
        axes.annotate(
            letter, (column + (0.5 if right else -0.5), row), (4 if right else -4, 0),
            textcoords="offset points", color="white", weight="bold", size=8, va="center",
            ha="left" if right else "right", path_effects=outline,
        )  # fmt: skip


def _letters(points: Sequence) -> list[str]:
    return [chr(ord("a") + i) if i < 26 else str(i) for i in range(len(points))]


def _curves(axes: Axes, wavelengths: np.ndarray, curves: Sequence[np.ndarray]) -> None:
    """Draw one curve per method, with the markers at different wavelengths so that none hides another."""
    every = max(len(wavelengths) // 6, 1)
    for i, (curve, style) in enumerate(zip(curves, METHODS, strict=False)):
        axes.plot(wavelengths, curve, **style, markevery=(i * every // len(curves) % every, every))
    axes.margins(x=0.02)


def _is_narrow(width: float) -> bool:
    return width < 5


def _marked_image(
    sheet: Sheet, image: np.ndarray, title: str, names: list[str], truth: bool, points: Sequence[tuple[int, int]]
) -> float:
    """Draw an image with the points marked, the legend beside it (in a page: below it); return its width."""
    narrow = _is_narrow(sheet.width)
    height, width = image.shape[:2]
    h = min((1.65 if narrow else 0.29 * sheet.width) * height / width, 2.6)
    w = h * width / height
    top = sheet.y + LINE + EDGE
    axes = sheet.axes(EDGE, top, w, h)
    draw_image(axes, image, title)
    _mark_points(axes, points, width)
    if narrow:
        sheet.y = top
        draw_legend(sheet, EDGE + w + 0.15, sheet.width - w - 0.2, names, truth, columns=1)
        sheet.y = top + h + 0.1
    else:
        sheet.y = top + h + 0.12
        draw_legend(sheet, EDGE, w, names, truth, columns=1)
    return w


def _spectra(
    sheet: Sheet,
    image: np.ndarray,
    title: str,
    truth: np.ndarray | None,
    recs: Cubes,
    wavelengths: np.ndarray,
    points: Sequence[tuple[int, int]],
) -> None:
    """Draw an image with the points marked, and the spectra there beside it (in a column: below it)."""
    narrow, top = _is_narrow(sheet.width), sheet.y
    image_width = _marked_image(sheet, image, title, list(recs), truth is not None, points)
    bottom = sheet.y
    left = 0.0 if narrow else EDGE + image_width
    sheet.y = bottom if narrow else top
    n_columns = min(2 if narrow or len(points) < 7 else 3, len(points))
    n_rows = -(-len(points) // n_columns)
    before, after = 0.5, 0.1
    w = (sheet.width - left) / n_columns - before - after

    trues = [None if truth is None else truth[point] for point in points]
    spectra = [[rec[point] for rec in recs.values()] for point in points]
    numbers = [_correlations(at_point, true) for at_point, true in zip(spectra, trues, strict=True)]
    widest = max((text_width(number, SMALL) for at_point in numbers for number in at_point), default=0)
    per_line = max(1, min(len(recs), int((w - 0.22) / (widest + 0.21))))
    head = LINE * -(-len(recs) // per_line) + 0.05
    h = max(0.85, 0.5 * w) if narrow else max(0.95, (bottom - sheet.y - 0.22) / n_rows - head - 0.1)
    for i, letter in enumerate(_letters(points)):
        column, lowest = i % n_columns, i + n_columns >= len(points)
        axes = sheet.axes(left + before + column * (w + before + after), sheet.y + head, w, h)
        _spectrum(axes, wavelengths, trues[i], spectra[i], coarse=narrow)
        _panel_title(axes, letter, numbers[i], per_line)
        if column == 0:
            axes.set_ylabel("radiance")
            axes.yaxis.set_label_coords((0.12 - before) / w, 0.5)
        if lowest:
            axes.set_xlabel("wavelength (nm)")
        axes.tick_params(labelbottom=lowest)
        if column == n_columns - 1 or i == len(points) - 1:
            sheet.y += head + h + (0.32 if lowest else 0.1)
    sheet.y = max(sheet.y, bottom)


def _correlations(spectra: list[np.ndarray], true: np.ndarray | None) -> list[str]:
    """Return Pearson's correlation of each spectrum with the true one as text; nothing without a true one."""
    if true is None:
        return []
    return [f"{correlation(spectrum, true):.3f}".replace("nan", "–").replace("-", "−") for spectrum in spectra]


def _spectrum(
    axes: Axes, wavelengths: np.ndarray, true: np.ndarray | None, spectra: list[np.ndarray], coarse: bool
) -> None:
    """Draw the true spectrum, if there is one, and those of the methods; `coarse`: with three ticks."""
    if true is not None:
        axes.plot(wavelengths, true, **TRUTH)
    _curves(axes, wavelengths, spectra)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if coarse:
        axes.set_xticks(np.round(np.quantile(wavelengths, (0, 0.5, 1))))
    drawn = [*spectra] if true is None else [true, *spectra]
    axes.set(ylim=(0, 1.08 * max(1e-6, *(curve.max() for curve in drawn))))


def _panel_title(axes: Axes, letter: str, numbers: list[str], per_line: int) -> None:
    """Write a point's letter and each method's correlation, if any, above its spectra."""
    axes.set_title(letter, loc="left", weight="bold", x=-0.02)
    if not numbers:
        return
    axes.annotate("r =", (0, 1), (9, 3), xycoords="axes fraction", textcoords="offset points", size=SMALL)
    handles = [Line2D([], [], **style) for style in METHODS[: len(numbers)]]
    axes.legend(
        by_rows(handles, per_line), by_rows(numbers, per_line), loc="lower right",
        bbox_to_anchor=(1.02, 1.0), ncols=per_line, borderpad=0, borderaxespad=0.2, handlelength=1.3,
        handletextpad=0.25, columnspacing=0.5, labelspacing=0.25,
    )  # fmt: skip


@styled
def plot_colour(images: dict[str, np.ndarray], width: float) -> Sheet:
    """Draw colour images (H, W, 3) in [0, 1] side by side under their names: input, ground truth, reconstructions."""
    sheet = Sheet(width)
    n_rows = -(-len(images) // (3 if _is_narrow(width) else 5))
    n_columns = -(-len(images) // n_rows)
    w = (width - 2 * EDGE - (n_columns - 1) * GAP) / n_columns
    titles = [fit_text(name, w, 8) for name in images]
    lines = max(title.count("\n") + 1 for title, _ in titles)
    height, image_width = next(iter(images.values())).shape[:2]
    h = min(w * height / image_width, (MAX_HEIGHT / n_rows) - lines * LINE - GAP)
    w = h * image_width / height
    for i, ((title, size), image) in enumerate(zip(titles, images.values(), strict=True)):
        row, column = divmod(i, n_columns)
        top = EDGE + row * (h + GAP + lines * LINE) + lines * LINE
        axes = sheet.axes(EDGE + column * (w + GAP), top, w, h)
        draw_image(axes, image)
        axes.set_title(title, size=size)
        sheet.y = top + h
    return sheet


@styled
def plot_bands(
    truth: np.ndarray | None, recs: Cubes, wavelengths: np.ndarray, bands: list[int], width: float
) -> Sheet:
    """Draw the images of some bands, the ground truth (if any) above the reconstructions; `width` in inches.

    In each band white is the value that 99.5% of the pixels stay below, of the ground truth or else of the first
    reconstruction.
    """
    sheet = Sheet(width)
    draw_image_rows(sheet, _band_titles(wavelengths, bands), [_bands(truth, recs, bands)])
    return sheet


@styled
def plot_errors(truth: np.ndarray, recs: Cubes, wavelengths: np.ndarray, bands: list[int], width: float) -> Sheet:
    """Draw maps of |rec - truth| and, below, |rec - truth| / truth: the mean over all bands, and some bands.

    All absolute errors have one scale, set by the best method, and all relative errors. Parameters as of
    `plot_bands`.
    """
    sheet = Sheet(width)
    blocks = [_errors(truth, recs, bands, relative, mean=True) for relative in (False, True)]
    draw_image_rows(sheet, ["all bands", *_band_titles(wavelengths, bands)], blocks)
    return sheet


@styled
def plot_confidence(
    colours: dict[str, np.ndarray],
    maps: Mapping[str, Mapping[str, np.ndarray]],
    true: dict[str, np.ndarray],
    width: float,
) -> Sheet:
    """Draw where not to trust reconstructions: colours, levels, the expected spectral angle beside the true one.

    By method: the reconstruction in true colour (H, W, 3) in [0, 1], MAPS (H, W), and the true angles (H, W) in
    degrees, empty without ground truth.
    """
    sheet = Sheet(width)
    rows, peak = {}, 1.0
    for name, found in maps.items():
        angles = [found["expected_sam"], *([true[name]] if true else [])]
        rows[name] = [colours[name], level_image(found["confidence"], colours[name]), *angles]
        peak = max(peak, *(float(np.percentile(angle, 98)) for angle in angles))
    titles = ["true colour", "confidence", "expected angle", *(["true angle"] if true else [])]
    draw_image_rows(sheet, titles, [ImageBlock(rows, [_round_up(peak)] * len(titles), "degrees")])
    sheet.y += 0.08
    axes = sheet.axes(EDGE, sheet.y, width - 2 * EDGE, LINE)
    axes.axis("off")
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in LEVEL_COLOURS[::-1]]
    axes.legend(handles, LEVELS[::-1], loc="upper center", ncols=3, borderpad=0, borderaxespad=0, handlelength=1)
    sheet.y += LINE
    return sheet


@styled
def plot_spectra(
    image: np.ndarray,
    title: str,
    truth: np.ndarray | None,
    recs: Cubes,
    wavelengths: np.ndarray,
    points: Sequence[tuple[int, int]],
    width: float,
) -> Sheet:
    """Draw spectra at points, with Pearson's correlation r of each reconstruction with the ground truth.

    The points (row, column) are marked on `image`, colours (H, W, 3) in [0, 1]. The rest is as of `plot_bands`.
    """
    sheet = Sheet(width)
    _spectra(sheet, image, title, truth, recs, wavelengths, points)
    return sheet


@styled
def plot_mrae(curves: dict[str, np.ndarray], wavelengths: np.ndarray, width: float) -> Sheet:
    """Draw the MRAE of each band, a curve (bands,) per method, over the wavelengths (nm)."""
    sheet = Sheet(width)
    names = [f"{name} (mean {curve.mean():.3f})" for name, curve in curves.items()]
    draw_legend(sheet, 0.45, width - 0.5, names, truth=False)
    height = 0.55 * width if _is_narrow(width) else 2.3
    axes = sheet.axes(0.45, sheet.y + 0.06, width - 0.53, height)
    _curves(axes, wavelengths, list(curves.values()))
    highest = max(curve.max() for curve in curves.values())
    axes.set(xlabel="wavelength (nm)", ylabel="MRAE", ylim=(0, 1.05 * max(highest, 1e-3)))
    sheet.y += height + 0.06 + 0.32
    return sheet


@styled
def plot_scores(tables: dict[str, dict[str, Sequence[float]]], width: float) -> Sheet:
    """Draw each scene's SCORES, by method and scene, and their mean below; arrows show which direction is better.

    The scene with the highest MRAE of the first method comes first.
    """
    sheet = Sheet(width)
    first = next(iter(tables.values()))
    scenes = sorted(first, key=lambda name: -first[name][0])
    labels = [*(name if len(name) < 25 else f"{name[:24]}…" for name in scenes), "mean"]
    draw_legend(sheet, EDGE, width - 2 * EDGE, list(tables), truth=False)
    n_columns = 2 if _is_narrow(width) else len(SCORES)
    n_rows = -(-len(SCORES) // n_columns)
    title = LINE + 0.06
    row = min(0.17, ((MAX_HEIGHT - sheet.y) / n_rows - title - 0.2) / len(labels))
    size = min(SMALL, 65 * row)
    left = max(text_width(label, size) for label in labels) + 0.12
    between = 0.3  # room for the numbers below, half of each
    w = (width - left - 0.1 - (n_columns - 1) * between) / n_columns
    h = row * len(labels)
    for i, score in enumerate(SCORES):
        line, column = divmod(i, n_columns)
        top = sheet.y + title + line * (title + h + 0.24)
        axes = sheet.axes(left + column * (w + between), top, w, h)
        _score_panel(axes, score, [[table[scene][i] for scene in scenes] for table in tables.values()])
        axes.set(ylim=(len(labels) - 0.4, -0.6), yticks=range(len(labels)), yticklabels=labels if column == 0 else [])
        axes.tick_params(axis="y", labelsize=size, length=0)
    sheet.y = top + h + 0.2
    return sheet


def _score_panel(axes: Axes, score: str, methods: list[list[float]]) -> None:
    """Draw one of SCORES: a row per scene and one for the mean, a marker per method."""
    for values, style in zip(methods, METHODS, strict=False):
        axes.plot(
            [*values, float(np.mean(values))], range(len(values) + 1), **style | {"ls": "none", "mew": 0.9, "ms": 3.5}
        )
    drawn = [value for values in methods for value in values if np.isfinite(value)]
    heading, digits, higher_is_better = SCORES[score]
    ends = {f"{value:.{digits}f}": value for value in (min(drawn), max(drawn))} if drawn else {}
    axes.set_xticks([*ends.values()], [*ends])
    axes.axhline(len(methods[0]) - 0.5, color="0.4", lw=0.6)
    axes.set_title(f"{heading} {'↑' if higher_is_better else '↓'}")
    axes.margins(x=0.1)
    axes.grid(axis="y", color="0.88", lw=0.5)
    axes.spines["left"].set_visible(False)
    axes.set_axisbelow(True)


@styled
def plot_reconstruction(
    path: str | Path,
    rgb: np.ndarray,
    truth: np.ndarray,
    recs: Cubes,
    wavelengths: np.ndarray = WAVELENGTHS,
    shown: tuple[float, ...] = BANDS["page"],
) -> None:
    """Draw a scene in one figure: bands, ground truth above reconstruction, relative error, spectra at points.

    `rgb`: the input (H, W, 3) in [0, 1]; `truth` (H, W, bands) above 0; `recs` by method, the images are of the
    first; `shown`: wavelengths in nm, of which the nearest bands are drawn.
    """
    bands = nearest_bands(wavelengths, shown)
    name, rec = next(iter(recs.items()))
    sheet = Sheet(WIDTHS["page"])
    first = {name: rec}
    errors = _errors(truth, first, bands, relative=True, mean=False)
    errors = ImageBlock({"relative error": errors.rows[name]}, errors.peaks, "|error| / truth")
    draw_image_rows(sheet, _band_titles(wavelengths, bands), [_bands(truth, first, bands), errors])
    sheet.y += 0.15
    _spectra(sheet, rgb, "RGB input", truth, recs, wavelengths, pick_points(truth))
    sheet.save(path)


@styled
def plot_curves(path: str | Path, loss_csv: str | Path) -> None:
    """Draw a training run's losses and learning rate over the iterations, from the loss.csv that main.py wrote."""
    with open(loss_csv, newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    iterations = [row["iteration"] for row in rows]
    sheet = Sheet(5.0)
    axes = sheet.axes(0.5, EDGE + 0.1, 3.9, 2.3)
    sheet.y = 2.78
    axes.plot(iterations, [row["train_loss"] for row in rows], label="training loss", **METHODS[1])
    axes.plot(iterations, [row["valid_loss"] for row in rows], label="validation MRAE", **METHODS[0])
    axes.set(xlabel="iteration", ylabel="loss", ylim=(0, None), xlim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    rate = axes.twinx()
    rate.plot(iterations, [row["learning_rate"] for row in rows], ":", color="0.5", label="learning rate")
    rate.set_ylabel("learning rate", color="0.4")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    rate.tick_params(colors="0.4")
    rate.set_ylim(0, None)
    axes.legend(handles=[*axes.get_lines(), *rate.get_lines()])
    sheet.save(path)


def draw_scene(job: SceneFiles, bands: Sequence[float], width: float, save: Save) -> Result | None:
    """Score a scene and draw its figures, NAME_ and one of KINDS; None if the scene is skipped."""
    scene = read_scene(job)
    if scene is None:
        return None
    shown = nearest_bands(scene.wavelengths, bands)
    title, image = next(iter(scene.colours.items()))
    cubes = (scene.truth, scene.recs, scene.wavelengths)
    sheets = {
        "colour": lambda: plot_colour(scene.colours, width),
        "bands": lambda: plot_bands(*cubes, shown, width),
        "spectra": lambda: plot_spectra(image, title, *cubes, scene.points, width),
    }
    curves, table, n_values = {}, {}, 0
    if (truth := scene.truth) is not None:
        curves = {method: mrae_of_bands(rec, truth) for method, rec in scene.recs.items()}
        table = {method: scores(rec, truth) for method, rec in scene.recs.items()}
        n_values = truth.size
        sheets |= {
            "errors": lambda: plot_errors(truth, scene.recs, scene.wavelengths, shown, width),
            "mrae": lambda: plot_mrae(curves, scene.wavelengths, width),
        }
    if scene.maps:
        true = {} if truth is None else {method: sam_map(scene.recs[method], truth) for method in scene.maps}
        sheets["confidence"] = lambda: plot_confidence(scene.colours, scene.maps, true, width)
    for kind, draw in sheets.items():
        save(draw(), f"{file_stem(job.name)}_{kind}")
    return Result(table, curves, scene.wavelengths, scene.origins, scene.raised, n_values, tuple(sheets))


def draw_all(args: Namespace, jobs: list[SceneFiles], width: str, save: Save) -> tuple[dict[str, Result], list[str]]:
    """Draw all scenes, then `scores` and `mrae` over them; return the results by scene, and which were skipped.

    `args` are what `comparison.add_options` read, `width` is one of WIDTHS, and `save` is called with each figure and
    its name. `mrae`, the mean over the scenes, is drawn only if they have the same bands; neither is without ground
    truth. Raises DataError if all scenes were skipped, or a file cannot be used.
    """
    inches = WIDTHS[width]
    draw = partial(draw_scene, bands=args.bands or BANDS[width], width=inches, save=save)
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
    skipped = [name for name, result in results.items() if result is None]
    shown = {name: result for name, result in results.items() if result is not None}
    if not shown:
        raise DataError(
            f"{args.path_gt}: every ground truth has values <= 0, so nothing can be drawn; use --non_positive floor "
            "VALUE with the value that the data were prepared with"
        )
    first = next(iter(shown.values()))
    if args.path_gt is None:
        return shown, []
    tables = {method: {name: result.scores[method] for name, result in shown.items()} for method in first.scores}
    save(plot_scores(tables, inches), "scores")
    if all(np.array_equal(result.wavelengths, first.wavelengths) for result in shown.values()):
        curves = {method: np.mean([result.curves[method] for result in shown.values()], 0) for method in first.curves}
        save(plot_mrae(curves, first.wavelengths, inches), "mrae")
    return shown, skipped
