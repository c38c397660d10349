"""Figures: a reconstruction beside its truth, and the curves of a training run."""

import csv
import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from drcr.files import write_atomically
from drcr.matfile import WAVELENGTHS

# Okabe & Ito's colours: told apart by colour-blind eyes, and in grey by the line styles beside them
TRUTH, METHODS = "#000000", ["#D55E00", "#0072B2", "#009E73"]
POINTS = ["#E69F00", "#56B4E9", "#CC79A7", "#F0E442"]
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.02,
    "figure.constrained_layout.w_pad": 0.02,
}


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG (or what the path's suffix says), 200 dots an inch, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=Path(path).suffix[1:], dpi=200, facecolor="white")
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))


def pick_points(cube: np.ndarray, count: int = 4, seed: int = 0) -> list[tuple[int, int]]:
    """Return `count` pixels (row, column) of a cube (H, W, bands), spread over the image and unlike in spectrum."""
    height, width = cube.shape[:2]
    rng = np.random.default_rng(seed)
    margin = max(2, min(height, width) // 16)
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
        chosen.append(int(np.argmax(unlike * bright * apart)))
    return [(int(rows[i]), int(columns[i])) for i in chosen]


def _image(axes: Axes, image: np.ndarray, title: str = "", **style: object) -> object:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    return axes.imshow(image, interpolation="nearest", **style)


def plot_reconstruction(
    path: str | Path,
    rgb: np.ndarray,
    truth: np.ndarray,
    recs: dict[str, np.ndarray],
    wavelengths: np.ndarray = WAVELENGTHS,
    shown: tuple[int, ...] = (450, 500, 550, 600, 650),
) -> None:
    """Draw a scene as papers of this field do: bands, truth above reconstruction, error, spectra at points.

    `rgb` (H, W, 3) in [0, 1]; `truth` > 0 and each of `recs` (by method; the first is shown in bands) (H, W, bands)
    at `wavelengths` (nm), of which those next to `shown` are drawn as images.
    """
    name, rec = next(iter(recs.items()))
    points = pick_points(truth)
    bands = [int(np.abs(wavelengths - nm).argmin()) for nm in shown]
    with matplotlib.rc_context(STYLE):
        n, width, spectra_height = len(bands), 7.6, 1.8
        # as high as three rows of bands are, so that no space is left beside them
        bands_height = 3 * (width - 0.8) / n * truth.shape[0] / truth.shape[1] + 0.25
        figure = Figure(figsize=(width, bands_height + spectra_height))
        upper, lower = figure.subfigures(2, 1, height_ratios=[bands_height, spectra_height])
        axes = upper.subplots(3, n + 1, width_ratios=[1] * n + [0.07])
        for column, band in enumerate(bands):
            peak = np.percentile(truth[..., band], 99.5)  # a single highlight would leave the rest dark
            grey = {"cmap": "gray", "vmin": 0, "vmax": peak}
            _image(axes[0, column], truth[..., band], f"{wavelengths[band]:.0f} nm", **grey)
            _image(axes[1, column], rec[..., band], **grey)
            error = np.abs(rec[..., band] - truth[..., band]) / truth[..., band]
            drawn = _image(axes[2, column], error, cmap="magma", vmin=0, vmax=1)
        for row, label in enumerate(("truth", name, "relative error")):
            axes[row, 0].set_ylabel(label)
        axes[0, n].axis("off")
        axes[1, n].axis("off")
        upper.colorbar(drawn, cax=axes[2, n], ticks=[0, 0.5, 1]).outline.set_visible(False)

        axes = lower.subplots(1, 5, width_ratios=[1.2, 1, 1, 1, 1])
        _image(axes[0], (rgb / rgb.max()) ** (1 / 2.2), "RGB input")
        for i, ((row, column), colour) in enumerate(zip(points, POINTS, strict=True)):
            axes[0].plot(column, row, "o", ms=6, mfc=colour, mec="white", mew=0.8)
            axis = axes[i + 1]
            axis.set_title("●", color=colour, fontsize=11, pad=2)
            axis.plot(wavelengths, truth[row, column], color=TRUTH, lw=1.6)
            for (_, cube), line, style in zip(recs.items(), METHODS, ("-", "--", ":"), strict=False):
                axis.plot(wavelengths, cube[row, column], style, color=line, lw=1.2)
            axis.set(ylim=(0, None), xticks=wavelengths[[0, len(wavelengths) // 2, -1]].round())
            axis.tick_params(labelsize=7, length=2)
        axes[1].set_ylabel("radiance")
        axes[2].set_xlabel("wavelength (nm)", x=1.1)
        handles = [Line2D([], [], color=TRUTH, lw=1.6, label="truth")]
        for method, line, style in zip(recs, METHODS, ("-", "--", ":"), strict=False):
            handles.append(Line2D([], [], color=line, ls=style, lw=1.2, label=method))
        lower.legend(handles=handles, loc="outside lower right", ncols=len(handles))
        save(figure, path)


def plot_curves(path: str | Path, loss_csv: str | Path) -> None:
    """Draw a run's losses and learning rate over the iterations, from the `loss.csv` that main.py wrote."""
    with open(loss_csv, newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    iterations = [row["iteration"] for row in rows]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5, 2.8))
        axes = figure.subplots()
        axes.plot(
            iterations, [row["train_loss"] for row in rows], "o--", ms=3, color=METHODS[1], label="training loss"
        )
        axes.plot(
            iterations, [row["valid_loss"] for row in rows], "s-", ms=3, color=METHODS[0], label="validation, MRAE"
        )
        axes.set(xlabel="iteration", ylabel="loss", ylim=(0, None), xlim=(0, None))
        rate = axes.twinx()
        rate.plot(iterations, [row["learning_rate"] for row in rows], ":", color="0.5")
        rate.set_ylabel("learning rate", color="0.4")
        rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        rate.tick_params(colors="0.4")
        rate.set_ylim(0, None)
        axes.legend()
        save(figure, path)
