"""What app.py's page shows of an image: pictures, spectra and scores, as HTML, SVG and files."""

import csv
import html
import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from drcr import metrics
from drcr.cube import describe_bands, same_bands
from drcr.evaluation.colour import true_colour, white_level
from drcr.evaluation.scoring import read_truth
from drcr.metrics import HEADINGS, SCORES
from drcr.utils.files import DataError, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOUR, BAND, RGB, ERROR = "True colour", "Band", "RGB input", "Error"
"""The views; app.js knows the names of BAND and ERROR."""
POINT_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#CC79A7")
"""Colours of the points, as in the figures but without the yellow, which does not show on white."""
PLOT_SIZE = 4.2, 2.7
"""Inches, of the plot of spectra."""
NO_POINTS = "Click in the picture to plot the spectra of pixels here."


@dataclass(frozen=True)
class Comparison:
    """A ground truth with its values raised to `floor`, and what it says about a reconstruction."""

    path: Path
    truth: np.ndarray
    floor: float
    raised: int
    scores: list[float]
    """SCORES."""
    mean_error: str
    """Address of the map of relative errors, averaged over the bands."""


class PageScene:
    """An image, its reconstruction, the points that were clicked, and the comparison with a ground truth, if any.

    Parameters
    ----------
    name
        Name of the image, without suffix.
    status
        Line of text on the image.
    rgb
        The image as the network gets it, (H, W, 3) in [0, 1].
    cube
        Its reconstruction (H, W, bands).
    wavelengths
        Wavelengths in nm (bands,).
    folder
        Folder for a temporary folder of the scene, which is removed with it.
    """

    def __init__(  # noqa: D107
        self, name: str, status: str, rgb: np.ndarray, cube: np.ndarray, wavelengths: np.ndarray, folder: Path
    ) -> None:
        self.name, self.status, self.cube, self.wavelengths = name, status, cube, wavelengths
        self._home = tempfile.TemporaryDirectory(dir=folder)
        self.folder = Path(self._home.name)
        self.points: list[tuple[int, int]] = []
        self.comparison: Comparison | None = None
        white = white_level(cube, wavelengths, "E")
        colour = self._write_png("colour", true_colour(cube, wavelengths, "E", white))
        # addresses and captions of each view; all bands are files, so that sliding needs no answer from the server
        self.views = {
            COLOUR: [(colour, "The reconstruction in true colour, under equal-energy light")],
            RGB: [(self._write_png("rgb", rgb), "The image as the network gets it")],
            BAND: [],
        }
        for band, nm in enumerate(wavelengths):
            # scaled to the brightest pixel, one highlight would leave the rest dark
            grey = max(np.percentile(cube[..., band], 99.5), 1e-6)
            caption = f"<b>{nm:g} nm</b> band {band + 1} of {len(wavelengths)}, white: radiance {grey:.2g}"
            self.views[BAND].append((self._write_png(f"band{band}", cube[..., band] / grey), caption))

    def _write_png(self, name: str, image: np.ndarray) -> str:
        """Write an image (H, W) or (H, W, 3), clipped to [0, 1], as a file; return its address in the page."""
        image = (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
        cv2.imwrite(str(self.folder / f"{name}.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        return f"gradio_api/file={self.folder}/{name}.png"

    def compare(self, path: Path, floor: float) -> None:
        """Read a ground truth, raise its values to `floor`, and score the reconstruction as compute_mrae.py does.

        Raises DataError if the file is not a cube, or has another size or other wavelengths.
        """
        true = read_truth(path, floor)
        assert true is not None  # there is a floor
        cube, raised = true
        truth = cube.values
        bands = len(self.wavelengths)
        if truth.shape != self.cube.shape:
            theirs, ours = ("{} x {} pixels, {} bands".format(*shape) for shape in (truth.shape, self.cube.shape))
            raise DataError(f"{path}: {theirs}, but the reconstruction is {ours}")
        wavelengths = cube.known_wavelengths
        if wavelengths is not None and not same_bands(wavelengths, self.wavelengths):
            theirs, ours = describe_bands(wavelengths), describe_bands(self.wavelengths)
            raise DataError(f"{path}: {theirs}, but the reconstruction has {ours}")
        rec = self.cube.clip(0, 1)
        total = np.zeros(truth.shape[:2])
        maps = []
        for band, nm in enumerate(self.wavelengths):
            error = np.abs(rec[..., band] - truth[..., band]) / truth[..., band]
            total += error
            address = self._write_png(f"error{floor:g}-{band}", heat(error))
            maps.append((address, f"<b>{nm:g} nm</b> relative error {scale()}"))
        self.views[ERROR] = maps
        mean_error = self._write_png(f"error{floor:g}", heat(total / bands))
        scores = [getattr(metrics, name)(rec, truth) for name in SCORES]
        self.comparison = Comparison(path, truth, floor, raised, scores, mean_error)

    def picture(self, view: str, band: int) -> str:
        """Return the HTML of a view at a band, with the points, the caption, and what app.js needs for all others."""
        pictures = self.views[view]
        address, caption = pictures[min(band, len(pictures) - 1)]
        data = f"data-wavelengths='{self.wavelengths.tolist()}' data-views='{html.escape(json.dumps(self.views))}'"
        return f"{self._drawing(address, data)}<div class='caption'>{caption}</div>"

    def _drawing(self, address: str, data: str = "") -> str:
        """Return a picture with the points on it as SVG."""
        height, width = self.cube.shape[:2]
        size = max(height, width) / 40
        marks = ""
        for number, (row, column) in enumerate(self.points):
            y, x = row + 0.5, column + 0.5
            # beside its pixel, on the side where there is room
            aside = x + 1.6 * size * (1 if x < width - 3 * size else -1)
            marks += (
                f"<g stroke='white' stroke-width='{size / 8}'><title>row {row}, column {column}</title>"
                f"<circle cx='{x}' cy='{y}' r='{size / 2.5}' fill='none' stroke='black' stroke-width='{size / 4}'/>"
                f"<circle cx='{x}' cy='{y}' r='{size / 2.5}' fill='none'/>"
                f"<circle cx='{aside}' cy='{y}' r='{size}' fill='{POINT_COLOURS[number]}'/>"
                f"<text x='{aside}' y='{y + size / 2}' font-size='{1.4 * size}' "
                f"fill='{'white' if number < 3 else 'black'}'>{number + 1}</text></g>"
            )
        return (
            f"<svg viewBox='0 0 {width} {height}' {data}>"
            f"<image width='{width}' height='{height}' href='{address}'/>{marks}</svg>"
        )

    def spectra(self, band: int) -> str:
        """Return a plot of the points' spectra as SVG, the ground truth dashed, with a line at a band."""
        if not self.points:
            return hint(NO_POINTS)
        import matplotlib  # takes a second, so only where it is needed
        from matplotlib.figure import Figure

        from drcr.evaluation.sheet import STYLE

        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=PLOT_SIZE, dpi=72, layout="constrained")
        axes = figure.subplots()
        for point, colour in zip(self.points, POINT_COLOURS, strict=False):
            axes.plot(self.wavelengths, self.cube[point], color=colour, lw=1.5)
            if self.comparison:
                axes.plot(self.wavelengths, self.comparison.truth[point], "--", color=colour, lw=1.1)
        axes.set(xlabel="wavelength (nm)", ylabel="radiance", xlim=self.wavelengths[[0, -1]])
        axes.set_ylim(min([0, *(self.cube[point].min() for point in self.points)]))
        self._number_curves(axes)
        if self.comparison:
            for style, label in (("-", "reconstruction"), ("--", "ground truth")):
                axes.plot([], [], style, color="0.3", lw=1.3, label=label)
            figure.legend(loc="outside upper center", ncols=2)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg")
        svg = buffer.getvalue()
        (left, bottom), (right, top) = axes.transAxes.transform([(0, 0), (1, 1)])
        parts = (self.wavelengths - self.wavelengths[0]) / (self.wavelengths[-1] - self.wavelengths[0])
        places = (left + parts * (right - left)).round(1).tolist()
        height = 72 * PLOT_SIZE[1]
        line = (
            f"<line x1='{places[band]}' x2='{places[band]}' y1='{height - top}' y2='{height - bottom}' "
            f"stroke='#999' stroke-width='.7' data-places='{places}'/>"
        )
        return svg[svg.index("<svg") :].replace("</svg>", f"{line}</svg>")

    def _number_curves(self, axes: "Axes") -> None:
        """Write each point's number at the end of its curve, one above the other where curves end close together."""
        bottom, top = axes.get_ylim()
        ends = [self.cube[point][-1] for point in self.points]
        place = -1.0
        for number in np.argsort(ends):
            place = max((ends[number] - bottom) / (top - bottom), place + 0.06)
            axes.text(
                1.01,
                place,
                str(number + 1),
                transform=axes.transAxes,
                va="center",
                weight="bold",
                color=POINT_COLOURS[number],
            )

    def table(self) -> str:
        """Return the HTML of the scores beside the map of errors; nothing without a ground truth."""
        if self.comparison is None:
            return ""
        rows = "".join(
            f"<tr><td>{heading}</td><td>{score:.{digits}f}</td></tr>"
            for (heading, digits), score in zip(HEADINGS.values(), self.comparison.scores, strict=True)
        )
        raised = f"{self.comparison.raised / self.comparison.truth.size:.1%} of its values raised to"
        return (
            f"<div class='scores'>{self._drawing(self.comparison.mean_error)}<table>{rows}</table><div class='note'>"
            f"Relative error, mean over the bands: {scale()}<br>Ground truth: "
            f"{html.escape(self.comparison.path.name)}, {raised} {self.comparison.floor:g}</div></div>"
        )

    def write_spectra(self) -> Path | None:
        """Write the points' spectra as CSV, one column per point; return its path, None without points."""
        if not self.points:
            return None
        cubes = {"": self.cube} | ({"truth ": self.comparison.truth} if self.comparison else {})
        columns = {f"{what}{r},{c}": cube[r, c] for what, cube in cubes.items() for r, c in self.points}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["wavelength_nm", *columns])
        writer.writerows(zip(self.wavelengths, *columns.values(), strict=True))
        path = self.folder / f"{self.name}_spectra.csv"
        write_atomically(path, lambda file: file.write(text.getvalue().encode()))
        return path


def heat(error: np.ndarray) -> np.ndarray:
    """Return relative errors (H, W) as colours (H, W, 3) in [0, 1]; errors above 1 have the colour of 1."""
    return cv2.applyColorMap((error.clip(0, 1) * 255 + 0.5).astype(np.uint8), cv2.COLORMAP_MAGMA)[
        ..., ::-1
    ] / np.float32(255)


def scale() -> str:
    """Return the HTML of the colour bar of `heat`."""
    stops = ", ".join("rgb({:.0%} {:.0%} {:.0%})".format(*colour) for colour in heat(np.linspace(0, 1, 9)[None])[0])
    return f"<span class='scale'>0<span style='background: linear-gradient(90deg, {stops})'></span>1 or more</span>"


def hint(text: str) -> str:
    """Return the HTML of a text where there is nothing to see yet."""
    return f"<div class='hint'>{text}</div>"
