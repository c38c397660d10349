"""Figures in one look: reconstructions beside their truth, scores, and the curves of a training run.

Cubes are (H, W, bands): truths above 0, reconstructions clipped to [0, 1], by name of the method, six at most. Each
function draws one figure and returns it as a `Sheet`, to be saved in any format.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath

from drcr.matfile import WAVELENGTHS
from drcr.metrics import HEADINGS, SCORES
from drcr.utils.files import write_atomically

WIDTHS = {"column": 3.35, "page": 6.9}
"""Inches, of a paper with two columns."""
MAX_HEIGHT = 9.0
MARK = "drcr.plots"
"""Stands in each figure's file, so that a later run knows it for one of its own."""

# Okabe & Ito's colours: told apart by colour-blind eyes, and in grey by the lines and markers beside them
TRUTH = {"color": "#000000", "lw": 1.8, "alpha": 0.85}
METHODS = [
    {"color": colour, "ls": line, "marker": marker, "lw": 1.1, "ms": 3, "mew": 0.6, "mfc": "white"}
    for colour, line, marker in zip(
        ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
        ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2))),
        "os^Dvp",
        strict=True,
    )
]
ERROR_MAP = "magma"
SMALL = 7
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlepad": 3,
    "axes.labelsize": SMALL,
    "axes.labelpad": 2,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "pdf.fonttype": 42,  # publishers refuse matplotlib's own, Type 3
    "svg.hashsalt": MARK,  # the same names in each run
    "text.parse_math": False,  # a $ in a name is a $
}
styled = matplotlib.rc_context(STYLE)
_PAD, _GAP, _LINE = 0.04, 0.05, 0.14  # inches: a figure's edge, between images, a line of text


class Sheet:
    """A figure of a given width, filled from the top down; all lengths are inches."""

    def __init__(self, width: float) -> None:
        """Empty: `y` is where the next thing goes."""
        self.figure, self.width, self.y = Figure(), width, _PAD
        self._places: list[tuple[Axes, float, float, float, float]] = []

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Return new axes; x, y: their upper left corner, from that of the figure."""
        self._places.append((self.figure.add_axes((0, 0, 1, 1)), x, y, width, height))
        return self._places[-1][0]

    @styled
    def save(self, path: str | Path, dpi: int = 200, **options: object) -> None:
        """Write the figure, whole or not at all, in the format of the path's suffix; the same bytes each time.

        `dpi` goes for the images in a vector format, too.
        """
        path = Path(path)
        form, height = path.suffix[1:], self.y + _PAD
        self.figure.set_size_inches(self.width, height)
        for axes, x, y, w, h in self._places:
            axes.set_position((x / self.width, 1 - (y + h) / height, w / self.width, h / height))
        metadata = {
            "pdf": {"Creator": MARK, "CreationDate": None},
            "svg": {"Creator": MARK, "Date": None},
            "png": {"Software": MARK},
        }.get(form)
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format=form, dpi=dpi, facecolor="white", metadata=metadata, **options)
        write_atomically(path, lambda file: file.write(buffer.getbuffer()))


def pick_points(cube: np.ndarray, count: int = 4, seed: int = 0) -> list[tuple[int, int]]:
    """Return `count` pixels (row, column) of a cube (H, W, bands), spread over the image and unlike in spectrum.

    Fewer, if the image is too small or all of one colour.
    """
    height, width = cube.shape[:2]
    rng = np.random.default_rng(seed)
    margin = min(max(2, min(height, width) // 16), (min(height, width) - 1) // 2)
    rows = rng.integers(margin, height - margin, 400)
    columns = rng.integers(margin, width - margin, 400)
    spectra = cube[rows, columns]
    # farthest-point sampling over the spectra's shapes, from the brightest; dark pixels make no readable spectrum
    shapes = spectra / np.linalg.norm(spectra, axis=1, keepdims=True)
    places = np.stack([rows, columns], 1)
    bright = spectra.mean(1) > np.median(spectra.mean(1))
    chosen = [int(spectra.mean(1).argmax())]
    while len(chosen) < count:
        unlike = np.linalg.norm(shapes[:, None] - shapes[chosen], axis=2).min(1)
        apart = np.linalg.norm(places[:, None] - places[chosen], axis=2).min(1) > min(height, width) / 5
        if not (unlike * bright * apart).any():  # too small an image for as many
            break
        chosen.append(int(np.argmax(unlike * bright * apart)))
    return [(int(rows[i]), int(columns[i])) for i in chosen]


def nearest_bands(wavelengths: np.ndarray, wanted: Sequence[float]) -> list[int]:
    """Return the bands at `wavelengths` (nm) that are next to those wanted, each once."""
    return list(dict.fromkeys(int(np.abs(wavelengths - nm).argmin()) for nm in wanted))


def patch_mean(cube: np.ndarray, point: tuple[int, int], patch: int) -> np.ndarray:
    """Return the mean spectrum (bands,) of the patch x patch pixels around a point, less what lies outside."""
    (row, column), before = point, (patch - 1) // 2
    rows, columns = (slice(max(at - before, 0), at - before + patch) for at in (row, column))
    return cube[rows, columns].mean((0, 1), dtype=np.float64)


def correlation(rec: np.ndarray, truth: np.ndarray) -> float:
    """Return Pearson's correlation of two spectra (bands,); NaN if one is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(rec, truth)[0, 1]) if len(truth) > 1 else float("nan")


def mrae_of_bands(rec: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the MRAE of each band, float64 (bands,); their mean is the cube's MRAE."""
    return (np.abs(rec - truth) / truth).mean((0, 1), dtype=np.float64)


@lru_cache
def _text_width(text: str, size: float) -> float:
    """Return how wide a line of text is."""
    return TextPath((0, 0), text, size=size).get_extents().width / 72 if text.strip() else 0.0


def _broken(text: str, width: float, size: float) -> list[str]:
    """Return a text's lines, broken after spaces and hyphens so that each is within `width`, where that can be."""
    lines = [""]
    for word in re.split(r"(?<=[ -])", text):
        if lines[-1] and _text_width((lines[-1] + word).rstrip(), size) > width:
            lines.append("")
        lines[-1] += word
    return [line.rstrip() for line in lines]


def _fit(text: str, width: float, size: float) -> tuple[str, float]:
    """Break a text into two even lines at most, not wider than `width`; else three, smaller. Return the size, too."""
    for smaller, most in ((0, 2), (1, 2), (2, 3)):
        lines = _broken(text, width, size - smaller)
        if len(lines) <= most and max(_text_width(line, size - smaller) for line in lines) <= width:
            narrower = (_broken(text, part / 10 * width, size - smaller) for part in range(3, 11))
            return "\n".join(next(even for even in narrower if len(even) == len(lines))), size - smaller
    lines[most - 1 :] = [" ".join(lines[most - 1 :])]
    for i, line in enumerate(lines):
        while len(line) > 1 and _text_width(line, size - smaller) > width:
            line = f"{line.rstrip('…')[:-1]}…"
        lines[i] = line
    return "\n".join(lines), size - smaller


def _image(axes: Axes, image: np.ndarray, title: str = "", **style: object) -> AxesImage:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    # values are interpolated, not their colours: a PDF then holds a byte a pixel, and no colour that is off the scale
    stage = "rgba" if image.ndim == 3 else "data"
    return axes.imshow(image, aspect="auto", interpolation="antialiased", interpolation_stage=stage, **style)


def _legend(sheet: Sheet, x: float, width: float, names: Sequence[str], truth: bool, columns: int = 0) -> None:
    """Draw the key of truth and methods at sheet.y, in as many columns as there is room for, or so many."""
    fitted = [("truth", SMALL)] * truth + [_fit(name, width - 0.45, SMALL) for name in names]
    labels, sizes = [label for label, _ in fitted], [size for _, size in fitted]
    handles = [Line2D([], [], **style) for style in [TRUTH] * truth + METHODS[: len(names)]]
    widths = [max(_text_width(line, SMALL) for line in label.split("\n")) + 0.55 for label in labels]
    if not columns:
        counts = range(len(labels), 1, -1)
        columns = next((n for n in counts if sum(max(widths[i::n]) for i in range(n)) <= width), 1)
    rows = [labels[i : i + columns] for i in range(0, len(labels), columns)]
    height = _LINE * sum(max(label.count("\n") + 1 for label in row) for row in rows) + 0.04
    axes = sheet.axes(x, sheet.y, width, height)
    axes.axis("off")
    legend = axes.legend(
        _by_rows(handles, columns), _by_rows(labels, columns), loc="upper left", ncols=columns, borderpad=0,
        borderaxespad=0, handlelength=2.4, labelspacing=0.35, columnspacing=1.5,
    )  # fmt: skip
    for text, size in zip(legend.get_texts(), _by_rows(sizes, columns), strict=True):
        text.set_size(size)
    sheet.y += height


def _by_rows(items: list, columns: int) -> list:
    """Return a legend's items in the order that makes rows of them; matplotlib fills columns."""
    return [item for column in range(columns) for item in items[column::columns]]


@dataclass(frozen=True)
class _Block:
    """Rows of images, a label each, and what white stands for in each column; `bar` labels the errors' colour bar."""

    rows: dict[str, list[np.ndarray]]
    peaks: list[float]
    bar: str = ""


def _image_rows(sheet: Sheet, titles: list[str], blocks: list[_Block]) -> None:
    """Draw blocks of images below one another, in columns under `titles`."""
    height, width = next(iter(blocks[0].rows.values()))[0].shape[:2]
    n_rows, n = sum(len(block.rows) for block in blocks), len(titles)
    bar = 0.66 if any(block.bar for block in blocks) else 0.0
    label = 2 * _LINE + 0.02
    room = sheet.width - 2 * _PAD - label - bar - (n - 1) * _GAP
    w = min(room / n, (MAX_HEIGHT - 0.4 - n_rows * _GAP) / n_rows * width / height)
    h = w * height / width
    left = _PAD + label + (room - n * w) / 2
    size = min(8, 8 * 0.95 * w / max(_text_width(title, 8) for title in titles))
    sheet.y += _LINE + _PAD
    for i, block in enumerate(blocks):
        top = sheet.y
        for name, images in block.rows.items():
            for column, (image, peak) in enumerate(zip(images, block.peaks, strict=True)):
                axes = sheet.axes(left + column * (w + _GAP), sheet.y, w, h)
                scale = {"cmap": ERROR_MAP, "vmin": 0, "vmax": peak}
                if not block.bar:
                    # as bright as it was: a screen, and a printer after it, take sRGB's curve for granted
                    scale = {"cmap": "gray", "norm": PowerNorm(1 / 2.2, 0, peak, clip=True)}
                drawn = _image(axes, image, **scale)
                if sheet.y == top and i == 0:
                    axes.set_title(titles[column], size=size)
                if column == 0:
                    text, points = _fit(name, h, 8)
                    axes.set_ylabel(text, size=points, linespacing=1.05)
            sheet.y += h + _GAP
        if block.bar:
            axes = sheet.axes(left + n * (w + _GAP), top, 0.09, sheet.y - _GAP - top)
            peak = block.peaks[0]
            # halves of 1 and 2, thirds of 3, fifths of 5: few digits
            parts = {"3": 3, "5": 5}.get(f"{peak:e}"[0], 2)
            ticks = [peak * i / parts for i in range(parts + 1)]
            colours = sheet.figure.colorbar(drawn, cax=axes, extend="max", ticks=ticks, format="%g")
            colours.outline.set_linewidth(0.4)
            colours.set_label(block.bar, size=min(8, 8 * (sheet.y - top) / _text_width(block.bar, 8)))
            axes.yaxis.set_label_coords((bar - 0.16) / 0.09, 0.5)
        sheet.y += _GAP * (i < len(blocks) - 1)
    sheet.y -= 0 if bar else _GAP  # half of the 0 beside the bar hangs below


def _band_titles(wavelengths: np.ndarray, bands: list[int]) -> list[str]:
    return [f"{wavelengths[band]:.0f} nm" for band in bands]


def _bands(truth: np.ndarray, recs: dict[str, np.ndarray], bands: list[int]) -> _Block:
    rows = {name: [cube[..., band] for band in bands] for name, cube in {"truth": truth, **recs}.items()}
    # a single highlight would leave the rest dark
    return _Block(rows, [float(np.percentile(image, 99.5)) for image in rows["truth"]])


def _errors(truth: np.ndarray, recs: dict[str, np.ndarray], bands: list[int], relative: bool, mean: bool) -> _Block:
    """Return the maps of the errors in bands, with their mean over all bands before them, on one scale."""
    rows, peaks = {}, []
    for name, rec in recs.items():
        error = np.abs(rec - truth)
        if relative:
            error = error / truth
        rows[name] = [error.mean(2)] * mean + [error[..., band] for band in bands]
        peaks.append(np.percentile(rows[name], 98))
    # a round number
    peak = max(*peaks, 1e-3)
    step = 10 ** np.floor(np.log10(peak))
    peak = float(next(n for n in (1, 2, 3, 5, 10) if n * step >= peak * 0.999) * step)
    if relative:
        peak = min(peak, 1.0)  # more than that is wrong all over
    return _Block(rows, [peak] * (len(bands) + mean), "relative error" if relative else "absolute error")


def _mark_points(axes: Axes, points: list[tuple[int, int]], patch: int, width: int) -> None:
    """Mark points on an image of so many columns, by letters."""
    for letter, (row, column) in zip(_letters(points), points, strict=True):
        outline = [withStroke(linewidth=2.2, foreground="black")]
        if patch > 1:
            corner = (column - (patch - 1) // 2 - 0.5, row - (patch - 1) // 2 - 0.5)
            axes.add_patch(Rectangle(corner, patch, patch, fill=False, ec="white", lw=1, path_effects=outline))
        else:
            axes.plot(column, row, "o", ms=4.5, mfc="none", mec="white", mew=1, path_effects=outline)
        right = column < 0.85 * width
        axes.annotate(
            letter, (column + (patch / 2 if right else -patch / 2), row), (4 if right else -4, 0),
            textcoords="offset points", color="white", weight="bold", size=8, va="center",
            ha="left" if right else "right", path_effects=outline,
        )  # fmt: skip


def _letters(points: Sequence) -> list[str]:
    return [chr(ord("a") + i) if i < 26 else str(i) for i in range(len(points))]


def _curves(axes: Axes, wavelengths: np.ndarray, curves: Sequence[np.ndarray]) -> None:
    """Draw a curve for each method, markers in turn so that none hides another."""
    every = max(len(wavelengths) // 6, 1)
    for i, (curve, style) in enumerate(zip(curves, METHODS, strict=False)):
        axes.plot(wavelengths, curve, **style, markevery=(i * every // len(curves) % every, every))
    axes.margins(x=0.02)


def _spectra(
    sheet: Sheet,
    image: np.ndarray,
    title: str,
    truth: np.ndarray,
    recs: dict[str, np.ndarray],
    wavelengths: np.ndarray,
    points: list[tuple[int, int]],
    patch: int,
) -> None:
    """Draw an image with the points marked, beside it (in a column: below) the spectra there."""
    narrow = sheet.width < 5
    height, width = image.shape[:2]
    w = 1.65 if narrow else 0.29 * sheet.width
    h = min(w * height / width, 2.6)
    w = h * width / height
    top = sheet.y + _LINE + _PAD
    axes = sheet.axes(_PAD, top, w, h)
    _image(axes, image, title)
    _mark_points(axes, points, patch, width)
    if narrow:
        sheet.y = top
        _legend(sheet, _PAD + w + 0.15, sheet.width - w - 0.2, list(recs), truth=True, columns=1)
        sheet.y = top + h + 0.1
        left, n_columns = 0.0, min(2, len(points))
    else:
        sheet.y = top + h + 0.12
        _legend(sheet, _PAD, w, list(recs), truth=True, columns=1)
        left, n_columns = _PAD + w, (2 if len(points) < 7 else 3)
        n_columns = min(n_columns, len(points))
    bottom, sheet.y = sheet.y, sheet.y if narrow else top - _LINE - _PAD

    before, after = 0.5, 0.1
    w = (sheet.width - left) / n_columns - before - after
    trues = [patch_mean(truth, point, patch) for point in points]
    spectra = [[patch_mean(rec, point, patch) for rec in recs.values()] for point in points]
    numbers = [
        [f"{correlation(spectrum, true):.3f}".replace("nan", "–").replace("-", "−") for spectrum in at_point]
        for at_point, true in zip(spectra, trues, strict=True)
    ]
    widest = max(_text_width(number, SMALL) for at_point in numbers for number in at_point)
    per_line = max(1, min(len(recs), int((w - 0.22) / (widest + 0.21))))
    head = _LINE * -(-len(recs) // per_line) + 0.05
    n_rows = -(-len(points) // n_columns)
    h = max(0.85, 0.5 * w) if narrow else max(0.95, (bottom - sheet.y - 0.22) / n_rows - head - 0.1)
    for i, letter in enumerate(_letters(points)):
        column = i % n_columns
        axes = sheet.axes(left + before + column * (w + before + after), sheet.y + head, w, h)
        axes.plot(wavelengths, trues[i], **TRUTH)
        _curves(axes, wavelengths, spectra[i])
        axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
        if narrow:
            axes.set_xticks(np.round(np.quantile(wavelengths, (0, 0.5, 1))))
        axes.set(ylim=(0, 1.08 * max(curve.max() for curve in (trues[i], *spectra[i]))))
        axes.set_title(letter, loc="left", weight="bold", x=-0.02)
        axes.annotate("r =", (0, 1), (9, 3), xycoords="axes fraction", textcoords="offset points", size=SMALL)
        handles = [Line2D([], [], **style) for style in METHODS[: len(recs)]]
        axes.legend(
            _by_rows(handles, per_line), _by_rows(numbers[i], per_line), loc="lower right",
            bbox_to_anchor=(1.02, 1.0), ncols=per_line, borderpad=0, borderaxespad=0.2, handlelength=1.3,
            handletextpad=0.25, columnspacing=0.5, labelspacing=0.25,
        )  # fmt: skip
        if column == 0:
            axes.set_ylabel("radiance")
            axes.yaxis.set_label_coords((0.12 - before) / w, 0.5)
        if i + n_columns >= len(points):
            axes.set_xlabel("wavelength (nm)")
        else:
            axes.tick_params(labelbottom=False)
        if column == n_columns - 1 or i == len(points) - 1:
            below = 0.32 if i + n_columns >= len(points) else 0.1
            sheet.y += head + h + below
    sheet.y = max(sheet.y, bottom)


@styled
def plot_colour(images: dict[str, np.ndarray], width: float) -> Sheet:
    """Draw colour images (H, W, 3) in [0, 1] side by side, with their names: input, truth, reconstructions."""
    sheet = Sheet(width)
    n_rows = -(-len(images) // (3 if width < 5 else 5))
    n_columns = -(-len(images) // n_rows)
    w = (width - 2 * _PAD - (n_columns - 1) * _GAP) / n_columns
    titles = [_fit(name, w, 8) for name in images]
    lines = max(title.count("\n") + 1 for title, _ in titles)
    height, image_width = next(iter(images.values())).shape[:2]
    h = min(w * height / image_width, (MAX_HEIGHT / n_rows) - lines * _LINE - _GAP)
    w = h * image_width / height
    for i, ((title, size), image) in enumerate(zip(titles, images.values(), strict=True)):
        row, column = divmod(i, n_columns)
        top = _PAD + row * (h + _GAP + lines * _LINE) + lines * _LINE
        axes = sheet.axes(_PAD + column * (w + _GAP), top, w, h)
        _image(axes, image)
        axes.set_title(title, size=size)
        sheet.y = top + h
    return sheet


@styled
def plot_bands(
    truth: np.ndarray, recs: dict[str, np.ndarray], wavelengths: np.ndarray, bands: list[int], width: float
) -> Sheet:
    """Draw some bands, truth above reconstructions, each as bright as in the truth its brightest 0.5% of pixels."""
    sheet = Sheet(width)
    _image_rows(sheet, _band_titles(wavelengths, bands), [_bands(truth, recs, bands)])
    return sheet


@styled
def plot_errors(
    truth: np.ndarray, recs: dict[str, np.ndarray], wavelengths: np.ndarray, bands: list[int], width: float
) -> Sheet:
    """Draw maps of the absolute and, below, the relative error: mean over all bands, and some bands."""
    sheet = Sheet(width)
    blocks = [_errors(truth, recs, bands, relative, mean=True) for relative in (False, True)]
    _image_rows(sheet, ["all bands", *_band_titles(wavelengths, bands)], blocks)
    return sheet


@styled
def plot_spectra(
    image: np.ndarray,
    title: str,
    truth: np.ndarray,
    recs: dict[str, np.ndarray],
    wavelengths: np.ndarray,
    points: list[tuple[int, int]],
    patch: int,
    width: float,
) -> Sheet:
    """Draw spectra at points (row, column), or means over patches of so many pixels, and their correlation r.

    `image` (H, W, 3) in [0, 1] shows where they are.
    """
    sheet = Sheet(width)
    _spectra(sheet, image, title, truth, recs, wavelengths, points, patch)
    return sheet


@styled
def plot_mrae(curves: dict[str, np.ndarray], wavelengths: np.ndarray, width: float) -> Sheet:
    """Draw the MRAE by wavelength (nm): a curve (bands,) for each method."""
    sheet = Sheet(width)
    names = [f"{name} (mean {curve.mean():.3f})" for name, curve in curves.items()]
    _legend(sheet, 0.45, width - 0.5, names, truth=False)
    height = 0.55 * width if width < 5 else 2.3
    axes = sheet.axes(0.45, sheet.y + 0.06, width - 0.53, height)
    _curves(axes, wavelengths, list(curves.values()))
    highest = max(curve.max() for curve in curves.values())
    axes.set(xlabel="wavelength (nm)", ylabel="MRAE", ylim=(0, 1.05 * highest))
    sheet.y += height + 0.06 + 0.32
    return sheet


@styled
def plot_scores(tables: dict[str, dict[str, Sequence[float]]], width: float) -> Sheet:
    """Draw the SCORES of each scene for each method, from tables by method and scene.

    First comes the scene with the worst MRAE of the first method, last the mean. Arrows say which way is better.
    """
    sheet = Sheet(width)
    first = next(iter(tables.values()))
    scenes = sorted(first, key=lambda name: -first[name][0])
    labels = [*(name if len(name) < 25 else f"{name[:24]}…" for name in scenes), "mean"]
    _legend(sheet, _PAD, width - 2 * _PAD, list(tables), truth=False)
    n_columns = 2 if width < 5 else len(SCORES)
    n_rows = -(-len(SCORES) // n_columns)
    title = _LINE + 0.06
    row = min(0.17, ((MAX_HEIGHT - sheet.y) / n_rows - title - 0.2) / len(labels))
    size = min(SMALL, 65 * row)
    left = max(_text_width(label, size) for label in labels) + 0.12
    between = 0.3  # room for the numbers below, half of each
    w = (width - left - 0.1 - (n_columns - 1) * between) / n_columns
    h = row * len(labels)
    for i, score in enumerate(SCORES):
        line, column = divmod(i, n_columns)
        top = sheet.y + title + line * (title + h + 0.24)
        axes = sheet.axes(left + column * (w + between), top, w, h)
        for table, style in zip(tables.values(), METHODS, strict=False):
            values = [table[scene][i] for scene in scenes]
            axes.plot([*values, np.mean(values)], range(len(labels)), **style | {"ls": "none", "mew": 0.9, "ms": 3.5})
        drawn = [table[scene][i] for table in tables.values() for scene in scenes if np.isfinite(table[scene][i])]
        heading, digits = HEADINGS[score]
        ends = {f"{value:.{digits}f}": value for value in (min(drawn), max(drawn))} if drawn else {}
        axes.set_xticks([*ends.values()], [*ends])
        axes.axhline(len(scenes) - 0.5, color="0.4", lw=0.6)
        better = "↑" if score in ("psnr", "ssim") else "↓"
        axes.set_title(f"{heading} {better}")
        axes.set(ylim=(len(labels) - 0.4, -0.6), yticks=range(len(labels)), yticklabels=labels if column == 0 else [])
        axes.margins(x=0.1)
        axes.grid(axis="y", color="0.88", lw=0.5)
        axes.tick_params(axis="y", labelsize=size, length=0)
        axes.spines["left"].set_visible(False)
        axes.set_axisbelow(True)
        bottom = top + h + 0.2
    sheet.y = bottom
    return sheet


@styled
def plot_reconstruction(
    path: str | Path,
    rgb: np.ndarray,
    truth: np.ndarray,
    recs: dict[str, np.ndarray],
    wavelengths: np.ndarray = WAVELENGTHS,
    shown: tuple[int, ...] = (450, 500, 550, 600, 650),
) -> None:
    """Draw a scene in one picture: bands, truth above reconstruction, error, spectra at points.

    `rgb` (H, W, 3) in [0, 1]; `truth` > 0 and each of `recs` (by method; the first is shown in bands) (H, W, bands)
    at `wavelengths` (nm), of which those next to `shown` are drawn as images.
    """
    bands = nearest_bands(wavelengths, shown)
    name, rec = next(iter(recs.items()))
    sheet = Sheet(WIDTHS["page"])
    first = {name: rec}
    errors = _errors(truth, first, bands, relative=True, mean=False)
    errors = _Block({"relative error": errors.rows[name]}, errors.peaks, "|error| / truth")
    _image_rows(sheet, _band_titles(wavelengths, bands), [_bands(truth, first, bands), errors])
    sheet.y += 0.15
    _spectra(sheet, rgb, "RGB input", truth, recs, wavelengths, pick_points(truth), 1)
    sheet.save(path)


@styled
def plot_curves(path: str | Path, loss_csv: str | Path) -> None:
    """Draw a run's losses and learning rate over the iterations, from the `loss.csv` that main.py wrote."""
    with open(loss_csv, newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    iterations = [row["iteration"] for row in rows]
    sheet = Sheet(5.0)
    axes = sheet.axes(0.5, _PAD + 0.1, 3.9, 2.3)
    sheet.y = 2.78
    axes.plot(iterations, [row["train_loss"] for row in rows], label="training loss", **METHODS[1])
    axes.plot(iterations, [row["valid_loss"] for row in rows], label="validation, MRAE", **METHODS[0])
    axes.set(xlabel="iteration", ylabel="loss", ylim=(0, None), xlim=(0, None))
    rate = axes.twinx()
    rate.plot(iterations, [row["learning_rate"] for row in rows], ":", color="0.5")
    rate.set_ylabel("learning rate", color="0.4")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    rate.tick_params(colors="0.4")
    rate.set_ylim(0, None)
    axes.legend()
    sheet.save(path)
