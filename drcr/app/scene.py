"""What app.py's page shows of an image: pictures, spectra and scores, as HTML, SVG and files."""

import csv
import html
import io
import json
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from drcr import metrics
from drcr.app.guard import check_claim
from drcr.cube import Cube, describe_bands, raise_to_floor, same_bands
from drcr.figures.colour import true_colour, white_level
from drcr.figures.comparison import file_stem
from drcr.formats.maps import LEVEL_COLOURS, LEVELS, level_image
from drcr.images import RGBImage, decode_srgb, read_image
from drcr.metrics import SCORES
from drcr.scoring.scoring import read_truth
from drcr.utils.files import DataError, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOUR, BAND, RGB, CONFIDENCE, ERROR = "True colour", "Band", "RGB input", "Confidence", "Error"
"""The views; app.js knows the names of BAND and ERROR."""
POINT_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#CC79A7")
"""Colours of the points, as in the figures but without the yellow, which does not show on white."""
PLOT_SIZE = 4.2, 2.7
"""Inches, of the plot of spectra."""
NO_POINTS = "Click in the picture to plot the spectra of pixels here."
PHOTOGRAPH, LINEAR = "a photograph", "linear"
"""What an image can be: encoded, as by the sRGB curve, or linear light."""
LOWEST = 1e-7
"""Ground truths are kept with values from here up; any floor is higher."""


@dataclass(frozen=True)
class Comparison:
    """A ground truth, and what it says about a reconstruction when its values are raised to `floor`."""

    name: str
    """Of the ground truth's file."""
    truth: Cube
    """As the file has it, but for values below LOWEST."""
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
        self.name, self.status, self.cube, self.wavelengths = file_stem(name), status, cube, wavelengths
        self._home = tempfile.TemporaryDirectory(dir=folder)
        self.folder = Path(self._home.name)
        self.points: list[tuple[int, int]] = []
        self.comparison: Comparison | None = None
        self.source, self.encoding = Path(), PHOTOGRAPH
        self.colours = true_colour(cube, wavelengths, "E", white_level(cube, wavelengths, "E"))
        colour = self._write_png("colour", self.colours)
        # addresses and captions of each view; all bands are files, so that sliding needs no answer from the server
        self.views: dict[str, list[tuple[str, str]]] = {
            COLOUR: [(colour, "The reconstruction in true colour, under equal-energy light")],
            RGB: [(self._write_png("rgb", rgb), "The image as the network gets it")],
            BAND: [],
        }
        for band, nm in enumerate(wavelengths):
            # scaled to the brightest pixel, one highlight would leave the rest dark
            grey = max(np.percentile(cube[..., band], 99.5), 1e-6)
            caption = f"<b>{nm:g} nm</b> band {band + 1} of {len(wavelengths)}, white: radiance {grey:.2g}"
            self.views[BAND].append((self._write_png(f"band{band}", cube[..., band] / grey), caption))

    def add_maps(self, maps: dict[str, np.ndarray], statement: str) -> None:
        """Add the view of where not to trust the reconstruction: `Confidence.maps`, and what its bound means."""
        levels, expected = maps["confidence"], maps["expected_sam"]
        legend = [
            f"<span class='level' style='background: rgb({', '.join(f'{part:.0%}' for part in colour)})'></span>"
            f"{words} {(levels == level).mean():.0%}"
            for level, (words, colour) in enumerate(zip(LEVELS, LEVEL_COLOURS, strict=True))
        ]
        low, middle, high = np.percentile(expected, (10, 50, 90))
        caption = (
            f"{' '.join(legend[::-1])}<br>Spectral angle to expect between this and the true spectrum: {middle:.0f}° "
            f"in the median pixel, {low:.0f}° to {high:.0f}° in most. Bound: {html.escape(statement)}"
        )
        self.views[CONFIDENCE] = [(self._write_png("confidence", level_image(levels, self.colours)), caption)]

    @property
    def choices(self) -> list[str]:
        """The views that there are, in the order in which the page offers them."""
        return [view for view in (COLOUR, BAND, RGB, CONFIDENCE, ERROR) if view in self.views]

    def _write_png(self, name: str, image: np.ndarray) -> str:
        """Write an image (H, W) or (H, W, 3), clipped to [0, 1], as a file; return its address in the page."""
        image = (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
        # not cv2.imwrite: on a full disk it says nothing
        data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
        (self.folder / f"{name}.png").write_bytes(data.tobytes())
        return f"gradio_api/file={self.folder}/{name}.png"

    def keep(self, path: Path, encoding: str) -> None:
        """Keep a copy of the image's file, to read it again, and what it was read as: PHOTOGRAPH or LINEAR."""
        self.source, self.encoding = self.folder / "image" / path.name, encoding
        self.source.parent.mkdir()
        shutil.copyfile(path, self.source)

    def compare(self, path: Path, floor: float) -> None:
        """Read a ground truth and score the reconstruction.

        Raises DataError if the file is not a cube, or has another size or other wavelengths.
        """
        check_claim(path, self.cube.shape)
        true = read_truth(path, LOWEST)
        assert true is not None  # there is a floor
        truth, _ = true
        if truth.values.shape != self.cube.shape:
            theirs, ours = (
                "{} x {} pixels, {} bands".format(*shape) for shape in (truth.values.shape, self.cube.shape)
            )
            raise DataError(f"{path}: {theirs}, but the reconstruction is {ours}")
        wavelengths = truth.known_wavelengths
        if wavelengths is not None and not same_bands(wavelengths, self.wavelengths):
            theirs, ours = describe_bands(wavelengths), describe_bands(self.wavelengths)
            raise DataError(f"{path}: {theirs}, but the reconstruction has {ours}")
        self.score(truth, floor)

    def score(self, true: Cube, floor: float) -> None:
        """Score the reconstruction as compute_mrae.py does, with the values of the ground truth raised to `floor`."""
        truth, raised = raise_to_floor(true.values, floor)
        rec = self.cube.clip(0, 1)
        total = np.zeros(truth.shape[:2])
        maps = []
        for band, nm in enumerate(self.wavelengths):
            error = np.abs(rec[..., band] - truth[..., band]) / truth[..., band]
            total += error
            address = self._write_png(f"error{floor:g}-{band}", heat(error))
            maps.append((address, f"<b>{nm:g} nm</b> relative error {scale()}"))
        self.views[ERROR] = maps
        mean_error = self._write_png(f"error{floor:g}", heat(total / len(self.wavelengths)))
        scores = [getattr(metrics, name)(rec, truth) for name in SCORES]
        self.comparison = Comparison(Path(true.path or "").name, true, floor, raised, scores, mean_error)

    def _true_spectrum(self, point: tuple[int, int]) -> np.ndarray:
        """Return the spectrum of the ground truth as it is scored."""
        assert self.comparison is not None
        return raise_to_floor(self.comparison.truth.values[point], self.comparison.floor)[0]

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

        from drcr.figures.layout import STYLE

        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=PLOT_SIZE, dpi=72, layout="constrained")
        axes = figure.subplots()
        for point, colour in zip(self.points, POINT_COLOURS, strict=False):
            axes.plot(self.wavelengths, self.cube[point], color=colour, lw=1.5)
            if self.comparison:
                axes.plot(self.wavelengths, self._true_spectrum(point), "--", color=colour, lw=1.1)
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
            f"<tr><td>{score.heading}</td><td>{value:.{score.digits}f}</td></tr>"
            for score, value in zip(SCORES.values(), self.comparison.scores, strict=True)
        )
        raised = f"{self.comparison.raised / self.cube.size:.1%} of its values raised to"
        notes = "".join(f"<br>{html.escape(note)}" for note in self.comparison.truth.notes)
        return (
            f"<div class='scores'>{self._drawing(self.comparison.mean_error)}<table>{rows}</table><div class='note'>"
            f"Relative error, mean over the bands: {scale()}<br>Ground truth: "
            f"{html.escape(self.comparison.name)}, {raised} {self.comparison.floor:g}{notes}</div></div>"
        )

    def write_spectra(self) -> Path | None:
        """Write the points' spectra as CSV, one column per point; return its path, None without points."""
        if not self.points:
            return None
        columns = {f"{row},{column}": self.cube[row, column] for row, column in self.points}
        if self.comparison:
            columns |= {f"truth {row},{column}": self._true_spectrum((row, column)) for row, column in self.points}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["wavelength_nm", *columns])
        writer.writerows(zip(self.wavelengths, *columns.values(), strict=True))
        path = self.folder / f"{self.name}_spectra.csv"
        write_atomically(path, lambda file: file.write(text.getvalue().encode()))
        return path


def read_decoded(path: Path, choice: str | None) -> tuple[RGBImage, str, str]:
    """Read an image as a photograph or as linear.

    Parameters
    ----------
    path
        The image.
    choice
        PHOTOGRAPH or LINEAR, whatever the tags of the file say; None: as they say, PHOTOGRAPH without any.

    Returns
    -------
    The image, a line on how it was read, and the choice.
    """
    image = read_image(path, "srgb")
    is_linear = image.stored.dtype.kind == "u"  # else it would have been decoded
    chosen = choice or (LINEAR if is_linear else PHOTOGRAPH)
    if chosen == LINEAR and not is_linear:
        image = read_image(path, "linear")
    elif chosen == PHOTOGRAPH and is_linear:
        how = "decoded from sRGB although the file says that it is linear"
        image = replace(image, stored=decode_srgb(image.values).astype(np.float32), how=how)
    if not image.tagged and choice is None:
        return image, "No tags say how it is encoded: taken as a photograph, decoded from sRGB", chosen
    told = re.sub(r" \(--encoding \w+\)", "", image.how)
    return image, told[0].upper() + told[1:], chosen


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
