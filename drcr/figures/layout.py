"""The look of all figures, and the sheet that they are laid out on: images, legends and texts that fit."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from drcr.figures.beside import MARK
from drcr.utils.extras import needs
from drcr.utils.files import write_atomically

with needs("figures", "a figure"):
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D
    from matplotlib.textpath import TextPath

WIDTHS = {"column": 3.35, "page": 6.9}
"""Widths of a figure in inches, in a paper with two columns."""
MAX_HEIGHT = 9.0

# the colours of Okabe and Ito, which colour-blind readers distinguish; lines and markers serve prints in grey
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
STYLE: Any = {
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
    "pdf.fonttype": 42,  # publishers refuse Type 3 fonts, matplotlib's default
    "svg.hashsalt": MARK,  # the same names in each run
    "text.parse_math": False,  # a $ in a name is a $
}
styled = matplotlib.rc_context(STYLE)
EDGE, GAP, LINE = 0.04, 0.05, 0.14
"""Inches: around a figure, between two images, a line of text."""

Item = TypeVar("Item")


class Sheet:
    """A figure of a given width, filled from the top down; all lengths are inches.

    Its height follows from what is drawn: `y` is where the next thing goes.
    """

    def __init__(self, width: float) -> None:  # noqa: D107
        self.figure, self.width, self.y = Figure(), width, EDGE
        self._places: list[tuple[Axes, float, float, float, float]] = []

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Return new axes whose upper left corner is at (x, y), from the figure's upper left corner."""
        self._places.append((self.figure.add_axes((0, 0, 1, 1)), x, y, width, height))
        return self._places[-1][0]

    def lay_out(self) -> Figure:
        """Give the figure its height and the axes their places; return the figure."""
        height = self.y + EDGE
        self.figure.set_size_inches(self.width, height)
        for axes, x, y, w, h in self._places:
            axes.set_position((x / self.width, 1 - (y + h) / height, w / self.width, h / height))
        return self.figure

    @styled
    def save(self, path: str | Path, dpi: int = 200, **options: Any) -> None:
        """Write the figure, whole or not at all, in the format of the suffix; the same input gives the same bytes.

        `dpi`: in a vector format of the images in it. `options`: more of matplotlib's `savefig`.
        """
        path = Path(path)
        form = path.suffix[1:]
        metadata = {
            "pdf": {"Creator": MARK, "CreationDate": None},
            "svg": {"Creator": MARK, "Date": None},
            "png": {"Software": MARK},
        }.get(form)
        buffer = io.BytesIO()
        self.lay_out().savefig(buffer, format=form, dpi=dpi, facecolor="white", metadata=metadata, **options)
        write_atomically(path, lambda file: file.write(buffer.getbuffer()))


def is_figure(path: Path) -> bool:
    """Return whether a file is a figure that `Sheet.save` wrote (PDF, SVG or PNG)."""
    return path.is_file() and MARK.encode() in path.read_bytes()


@lru_cache
def text_width(text: str, size: float) -> float:
    """Return the width in inches of a line of text, set in `size` points."""
    return TextPath((0, 0), text, size=size).get_extents().width / 72 if text.strip() else 0.0


def _broken(text: str, width: float, size: float) -> list[str]:
    """Break a text after spaces and hyphens into lines within `width`, where that is possible."""
    lines = [""]
    for word in re.split(r"(?<=[ -])", text):
        if lines[-1] and text_width((lines[-1] + word).rstrip(), size) > width:
            lines.append("")
        lines[-1] += word
    return [line.rstrip() for line in lines]


def _shorten(line: str, width: float, size: float) -> str:
    while len(line) > 1 and text_width(line, size) > width:
        line = f"{line.rstrip('…')[:-1]}…"
    return line


def fit_text(text: str, width: float, size: float) -> tuple[str, float]:
    """Return a text with line breaks that fits into a width (inches), and its size in points, up to 2 below `size`.

    Up to two even lines, else three smaller ones, else shortened.
    """
    for smaller, most in ((0, 2), (1, 2), (2, 3)):
        lines = _broken(text, width, size - smaller)
        if len(lines) <= most and max(text_width(line, size - smaller) for line in lines) <= width:
            narrower = (_broken(text, part / 10 * width, size - smaller) for part in range(3, 11))
            return "\n".join(next(even for even in narrower if len(even) == len(lines))), size - smaller
    lines[most - 1 :] = [" ".join(lines[most - 1 :])]
    return "\n".join(_shorten(line, width, size - smaller) for line in lines), size - smaller


def draw_image(axes: Axes, image: np.ndarray, title: str = "", **style: Any) -> AxesImage:
    """Fill axes of an image's proportions with it: colours (H, W, 3) in [0, 1], or values (H, W).

    Values need a `cmap` and a scale in `style`, options of matplotlib's `imshow`.
    """
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    # values are interpolated, not their colours: a PDF then holds one byte per pixel, and only colours of the scale
    stage = "rgba" if image.ndim == 3 else "data"
    return axes.imshow(image, aspect="auto", interpolation="antialiased", interpolation_stage=stage, **style)


@dataclass(frozen=True)
class ImageBlock:
    """Rows of images by label, the value drawn white in each column, and the label of the errors' colour bar."""

    rows: dict[str, list[np.ndarray]]
    peaks: list[float]
    bar: str = ""


def draw_image_rows(sheet: Sheet, titles: list[str], blocks: list[ImageBlock]) -> None:
    """Draw blocks of images below one another, in columns under `titles`, and move `sheet.y` below them."""
    height, width = next(iter(blocks[0].rows.values()))[0].shape[:2]
    n_rows, n = sum(len(block.rows) for block in blocks), len(titles)
    bar = 0.66 if any(block.bar for block in blocks) else 0.0
    label = 2 * LINE + 0.02
    room = sheet.width - 2 * EDGE - label - bar - (n - 1) * GAP
    w = min(room / n, (MAX_HEIGHT - 0.4 - n_rows * GAP) / n_rows * width / height)
    h = w * height / width
    left = EDGE + label + (room - n * w) / 2
    size = min(8, 8 * 0.95 * w / max(text_width(title, 8) for title in titles))
    sheet.y += LINE + EDGE
    for i, block in enumerate(blocks):
        top = sheet.y
        for name, images in block.rows.items():
            for column, (image, peak) in enumerate(zip(images, block.peaks, strict=True)):
                axes = sheet.axes(left + column * (w + GAP), sheet.y, w, h)
                scale = {"cmap": ERROR_MAP, "vmin": 0, "vmax": peak}
                if not block.bar:
                    # values are linear: screens and printers expect the curve of sRGB
                    scale = {"cmap": "gray", "norm": PowerNorm(1 / 2.2, 0, peak, clip=True)}
                drawn = draw_image(axes, image, **scale)
                if sheet.y == top and i == 0:
                    axes.set_title(titles[column], size=size)
                if column == 0:
                    text, points = fit_text(name, h, 8)
                    axes.set_ylabel(text, size=points, linespacing=1.05)
            sheet.y += h + GAP
        if block.bar:
            axes = sheet.axes(left + n * (w + GAP), top, 0.09, sheet.y - GAP - top)
            _colour_bar(sheet, axes, drawn, block, sheet.y - top, bar)
        sheet.y += GAP * (i < len(blocks) - 1)
    sheet.y -= 0 if bar else GAP  # the lower half of the 0 beside the bar needs this gap


def _colour_bar(sheet: Sheet, axes: Axes, drawn: AxesImage, block: ImageBlock, height: float, width: float) -> None:
    """Draw the colour bar of a block of error maps, in `axes` within a strip of `width`."""
    peak = block.peaks[0]
    # halves of 1 and 2, thirds of 3, fifths of 5: few digits
    parts = {"3": 3, "5": 5}.get(f"{peak:e}"[0], 2)
    ticks = [peak * i / parts for i in range(parts + 1)]
    colours = sheet.figure.colorbar(drawn, cax=axes, extend="max", ticks=ticks, format="%g")
    colours.outline.set_linewidth(0.4)
    colours.set_label(block.bar, size=min(8, 0.9 * 8 * height / text_width(block.bar, 8)))
    axes.yaxis.set_label_coords((width - 0.16) / 0.09, 0.5)


def draw_legend(sheet: Sheet, x: float, width: float, names: Sequence[str], truth: bool, columns: int = 0) -> None:
    """Draw a legend at (x, `sheet.y`), and move `sheet.y` below it.

    It has the ground truth, with `truth`, and METHODS by `names`, in so many `columns`; 0: as many as there is room
    for in `width` inches.
    """
    fitted = [("ground truth", SMALL)] * truth + [_fit_line(name, width - 0.45) for name in names]
    labels, sizes = [label for label, _ in fitted], [size for _, size in fitted]
    handles = [Line2D([], [], **style) for style in [TRUTH] * truth + METHODS[: len(names)]]
    widths = [max(text_width(line, SMALL) for line in label.split("\n")) + 0.55 for label in labels]
    if not columns:
        counts = range(len(labels), 1, -1)
        columns = next((n for n in counts if sum(max(widths[i::n]) for i in range(n)) <= width), 1)
    rows = [labels[i : i + columns] for i in range(0, len(labels), columns)]
    height = LINE * sum(max(label.count("\n") + 1 for label in row) for row in rows) + 0.04
    axes = sheet.axes(x, sheet.y, width, height)
    axes.axis("off")
    legend = axes.legend(
        by_rows(handles, columns), by_rows(labels, columns), loc="upper left", ncols=columns, borderpad=0,
        borderaxespad=0, handlelength=2.4, labelspacing=0.35, columnspacing=1.5,
    )  # fmt: skip
    for text, size in zip(legend.get_texts(), by_rows(sizes, columns), strict=True):
        text.set_fontsize(size)
    sheet.y += height


def _fit_line(name: str, width: float) -> tuple[str, float]:
    """Fit a legend's name into a width: smaller before it is broken into lines."""
    sizes = (SMALL, SMALL - 0.5, SMALL - 1, SMALL - 1.5)
    return next(((name, size) for size in sizes if text_width(name, size) <= width), fit_text(name, width, SMALL))


def by_rows(items: Sequence[Item], columns: int) -> list[Item]:
    """Return a legend's items in the order that makes rows of them; matplotlib fills columns."""
    return [item for column in range(columns) for item in items[column::columns]]
