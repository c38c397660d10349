"""Draw a graphical abstract of a scene with ground truth: input image, reconstructed cube, spectra, error.

The front of the cube is the reconstruction in true colour, on the scale of the ground truth; top and right side show
the spectra of its borders, each wavelength in its own colour. The error is |reconstruction - ground truth| / ground
truth, averaged over the bands; its mean is the MRAE that compute_mrae.py prints. The figure is 1660 pixels wide; the
same input gives the same file. A figure of an earlier run is replaced; no other file is overwritten.

  python abstract.py --path_rec ../photographs/test/photographs/network \\
      --path_gt ../photographs/test/photographs/Valid_spectral \\
      --RGB_dir ../photographs/test/photographs/Valid_RGB --illuminant E --non_positive floor 0.01
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from draw import INK, arrow, box, caption, face, text, tint
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from tqdm import tqdm

from drcr import metrics
from drcr.figures.colour import true_colour
from drcr.figures.comparison import ComparedScene, SceneFiles, add_view_options, point, read_scene
from drcr.figures.layout import ERROR_MAP, METHODS, TRUTH, Sheet, is_figure, styled
from drcr.images import IMAGE_SUFFIXES
from drcr.scoring.scoring import median_scene, pair_cubes, read_reconstruction, read_truth
from drcr.utils import cli
from drcr.utils.files import DataError, list_files, refuse_foreign

METHOD = "DRCR Net"
# inches; at 200 dots per inch twice the pixels of a README's column, so that 8 points stay 8 there
WIDTH, HEIGHT, SIZE, BASE = 8.3, 2.76, 1.36, 0.68
DEPTH = np.array([0.8, 0.46])


def median_of(pairs: dict[str, tuple[Path, Path]], floor: float | None) -> str | None:
    """Return the scene with the median MRAE; None if every ground truth has values <= 0 and there is no floor."""
    scores = {}
    for name, (rec_path, gt_path) in tqdm(pairs.items(), "scoring", unit="scene", dynamic_ncols=True, leave=False):
        if (true := read_truth(gt_path, floor)) is not None:
            truth = true[0]
            scores[name] = {"mrae": float(metrics.mrae(read_reconstruction(rec_path, truth).values, truth.values))}
    return median_scene(scores) if scores else None


def spectral_colours(cube: np.ndarray, wavelengths: np.ndarray) -> np.ndarray:
    """Return values (n, bands) in the colours of their wavelengths (nm): (n, bands, 3); the highest 0.5% are full."""
    # lights of some width on a little grey: no screen shows the pure colours
    lights = np.exp(-(((wavelengths[:, None] - wavelengths) / 30) ** 2))
    pure = true_colour(lights[None], wavelengths, "E")[0]
    pure = 0.2 + 0.8 * pure / pure.max(1, keepdims=True).clip(1e-6)
    return ((cube / max(np.percentile(cube, 99.5), 1e-6)).clip(0, 1)[..., None] ** (1 / 2.2) * pure).clip(0, 1)


def draw_cube(ax: Axes, scene: ComparedScene, corner: np.ndarray, across: np.ndarray, up: np.ndarray) -> None:
    """Draw the reconstruction as a block in parallel perspective, with the wavelengths going back."""
    rec, nm = scene.recs[METHOD], scene.wavelengths
    top, side = np.split(spectral_colours(np.concatenate([rec[0], rec[:, -1]]), nm), [rec.shape[1]])
    face(ax, top.transpose(1, 0, 2)[::-1], corner + up, across, DEPTH)
    face(ax, side, corner + across, DEPTH, up)
    face(ax, scene.colours[METHOD], corner, across, up)
    out = np.array([-DEPTH[1], DEPTH[0]]) / np.hypot(*DEPTH)
    for part in (0, 0.5, 1):
        at = corner + up + part * DEPTH
        tip = at + 0.045 * out
        ax.plot(*zip(at, tip, strict=True), color=INK, lw=0.7)
        label = f"{nm[0] + part * (nm[-1] - nm[0]):.0f}" + " nm" * (part == 0)
        text(ax, tip[0] - 0.03, tip[1], label, ha="right", va="center_baseline")


def lettered(scene: ComparedScene) -> list[tuple[str, tuple[int, int]]]:
    """Return up to three points with their letters, from left to right: a scene of one colour has fewer."""
    return list(zip("abc", sorted(scene.points[:3], key=lambda at: at[1]), strict=False))


def mark(ax: Axes, scene: ComparedScene, corner: np.ndarray, across: np.ndarray, up: np.ndarray) -> None:
    """Mark the points of the spectra by letters on an image."""
    height, width = scene.recs[METHOD].shape[:2]
    outline = [withStroke(linewidth=2.2, foreground="black")]
    for letter, (row, column) in lettered(scene):
        at = corner + (column + 0.5) / width * across + (1 - (row + 0.5) / height) * up
        ax.plot(*at, "o", ms=4, mfc="none", mec="white", mew=1, path_effects=outline, zorder=6)
        right = column < 0.85 * width
        text(
            ax, at[0] + (0.06 if right else -0.06), at[1], letter, color="white", weight="bold",
            ha="left" if right else "right", path_effects=outline,
        )  # fmt: skip


def draw_spectra(sheet: Sheet, ax: Axes, scene: ComparedScene, x: float, width: float) -> None:
    """Draw the spectra at the points below one another."""
    gap, top = 0.1, BASE + SIZE + DEPTH[1]
    height = (top - BASE - 2 * gap) / 3
    points = lettered(scene)
    for k, (letter, at) in enumerate(points):
        low = top - height - k * (height + gap)
        axes = sheet.axes(x, HEIGHT - low - height, width, height)
        axes.plot(scene.wavelengths, scene.cubes["ground truth"][at], **TRUTH)
        axes.plot(scene.wavelengths, scene.recs[METHOD][at], **METHODS[0], markevery=(3, 5))
        ticks = scene.wavelengths[[0, len(scene.wavelengths) // 2, -1]].round()
        axes.set(ylim=(0, 1.1 * max(np.max(curve.get_ydata()) for curve in axes.lines)), xticks=ticks)
        axes.yaxis.set_major_locator(MaxNLocator(2))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.tick_params(labelsize=8, labelbottom=k == len(points) - 1)
        text(ax, x + width + 0.04, low + height, letter, weight="bold", ha="left", va="top")
    text(ax, x - 0.42, (BASE + top) / 2, "radiance", rotation=90)
    text(ax, x + width / 2, BASE - 0.41, "wavelength (nm)", va="baseline")
    ax.legend(
        axes.lines, ["ground truth", METHOD], ncols=2, loc="lower center", fontsize=8, borderpad=0, borderaxespad=0,
        bbox_to_anchor=(x + width / 2, top + 0.07), bbox_transform=ax.transData, handlelength=1.6, columnspacing=1,
    )  # fmt: skip


@styled
def draw(scene: ComparedScene, citation: str) -> Sheet:
    """Draw the abstract."""
    sheet = Sheet(WIDTH)
    ax = sheet.axes(0, 0, WIDTH, HEIGHT)
    ax.axis("off")
    sheet.y = HEIGHT
    rec, truth = scene.recs[METHOD], scene.cubes["ground truth"]
    height, width, bands = truth.shape
    across, up = np.array([SIZE * width / max(height, width), 0]), np.array([0, SIZE * height / max(height, width)])
    middle = BASE + SIZE / 2
    shape = f"{height} × {width} × "

    def corner(x: float) -> np.ndarray:
        """Return the lower left corner of an image in the middle of a square of SIZE from x."""
        return np.array([x + SIZE / 2, middle]) - (across + up) / 2

    x = 0.06
    face(ax, scene.colours["RGB input"], corner(x), across, up)
    caption(ax, x + SIZE / 2, BASE, "RGB image", shape + "3")
    arrow(ax, (corner(x)[0] + across[0], middle), (1.66, middle))
    end = box(ax, 1.66, middle, 0.56, 0.56, "DRCR\nNet", tint("#D55E00", 0.36))
    x = 2.46
    arrow(ax, (end, middle), (corner(x)[0], middle))
    draw_cube(ax, scene, corner(x), across, up)
    mark(ax, scene, corner(x), across, up)
    caption(ax, x + SIZE / 2, BASE, "hyperspectral cube", f"{shape}{bands}")
    draw_spectra(sheet, ax, scene, 5.22, 1.02)

    x, error = 6.46, (np.abs(rec - truth) / truth).mean(2)
    drawn = face(ax, error, corner(x), across, up, cmap=ERROR_MAP, vmin=0, vmax=1)
    caption(ax, x + SIZE / 2, BASE, "relative error", f"MRAE {metrics.mrae(rec, truth):.3f}")
    bar = sheet.axes(x + SIZE + 0.07, HEIGHT - middle - up[1] / 2, 0.09, up[1])
    bar = sheet.figure.colorbar(drawn, cax=bar, extend="max", ticks=[0, 0.5, 1], format="%g")
    bar.outline.set_linewidth(0.4)
    bar.ax.tick_params(labelsize=8)
    text(ax, WIDTH - 0.06, 0.05, citation, ha="right", va="bottom", color="#666666")
    ax.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))  # last: imshow changes them
    return sheet


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--path_rec", type=Path, default="../test/test_results", help="folder of reconstructed cubes")
    add("--path_gt", type=Path, default="../Dataset/Valid_spectral", help="folder of ground truth cubes")
    add("--RGB_dir", type=Path, default="../Dataset/Valid_RGB", help="folder of the RGB images")
    add("--scene", metavar="NAME", help="scene, named without suffix (default: the scene with the median MRAE)")
    add(
        "--points",
        type=point,
        nargs=3,
        metavar="ROW,COLUMN",
        help="pixels whose spectra are drawn, lettered from left to right (default: three with different spectra)",
    )
    add_view_options(parser)
    add("--citation", metavar="TEXT", help="line that says where the scene is from")
    add("--out", type=Path, default="./abstract.png", help="the figure: .png, .pdf or .svg")
    args = parser.parse_args(argv)
    if args.out.suffix not in (".png", ".pdf", ".svg"):
        parser.error(f"argument --out: {args.out}: must end in .png, .pdf or .svg")
    return args


def choose_scene(args: argparse.Namespace) -> ComparedScene:
    """Read the scene that is drawn. Raises DataError if there is none, or its files cannot be used."""
    pairs = pair_cubes(args.path_rec, args.path_gt, [args.scene] if args.scene else ())
    images = list_files(args.RGB_dir, IMAGE_SUFFIXES, "RGB images")
    name = args.scene or median_of(pairs, args.floor)
    if name is None:
        raise DataError(f"{args.path_gt}: every ground truth has values <= 0; use --non_positive floor VALUE")
    rec, truth = pairs[name]
    if name not in images:
        raise DataError(f"{args.RGB_dir}: contains no image {name} for {truth}; add it, or choose another --scene")
    scene = read_scene(SceneFiles(name, truth, {METHOD: rec}, images[name], args.floor, args.points, args.illuminant))
    if scene is None:
        raise DataError(f"{truth}: has values <= 0; use --non_positive floor VALUE")
    return scene


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, choose the scene, draw."""
    args = read_options(argv)
    refuse_foreign(args.out, is_figure, "a figure of this script", "choose another --out")
    scene = choose_scene(args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    smaller: dict[str, Any] = {"pil_kwargs": {"optimize": True}} if args.out.suffix == ".png" else {}
    draw(scene, args.citation or "").save(args.out, **smaller)
    print(f"{args.out}: scene {scene.job.name}")


if __name__ == "__main__":
    cli.run(main)
