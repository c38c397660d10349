"""Draw the network and the channel re-calibration module: network.png and CRM.png, and each as PDF for papers.

The files are written beside this script and replace earlier ones; they are the same bytes each time.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from drcr.utils import cli
from drcr.utils.extras import needs

with cli.imports(), needs("figures", "draw.py"):
    import matplotlib

    matplotlib.use("Agg")  # no display needed
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.colors import to_rgb
    from matplotlib.image import AxesImage
    from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
    from matplotlib.path import Path as Line
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

OUT = Path(__file__).parent
matplotlib.rcParams["pdf.fonttype"] = 42  # TrueType: publishers refuse the default, Type 3
INK, SOFT = "#222222", "#8a8a8a"
Point = tuple[float, float] | np.ndarray
Colour = str | tuple[float, ...]


def tint(colour: str, strength: float) -> tuple[float, ...]:
    """Mix a colour with white."""
    return tuple(1 - strength * (1 - c) for c in to_rgb(colour))


# Okabe-Ito hues; the operations of the legend also differ in lightness, for prints in grey
CONV, ACT = tint("#56B4E9", 0.40), tint("#0072B2", 0.85)
POOL, UP = tint("#E69F00", 0.66), tint("#009E73", 0.20)
CAT, NPM = tint("#000000", 0.24), tint("#F0E442", 0.50)
DRCR, CRM = tint("#D55E00", 0.36), tint("#CC79A7", 0.62)
SPECTRUM = ("#7a2fd0", "#2f6fe0", "#1fa35c", "#e8b400", "#d02a1e")  # 400 to 700 nm
LINEAR, CHANNEL = tint("#CC79A7", 0.38), "#0072B2"
SHAPE = "$H$ × $W$ × "


def canvas(width: float, height: float) -> Axes:
    """Return axes over a whole new figure, in inches."""
    ax = plt.figure(figsize=(width, height)).add_axes((0, 0, 1, 1))
    ax.axis("off")
    return ax


def save(ax: Axes, name: str) -> None:
    """Write the figure as PNG and PDF."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    width, height = figure.get_size_inches()
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")  # here, because imshow changes them
    # without version and date: the same bytes each time
    for form, metadata in (
        ("png", {"Software": None}),
        ("pdf", {"Creator": None, "Producer": None, "CreationDate": None}),
    ):
        figure.savefig(OUT / f"{name}.{form}", dpi=200, facecolor="white", metadata=metadata)
    plt.close(figure)


def text(ax: Axes, x: float, y: float, label: str, size: float | None = None, **style: Any) -> None:
    """Write a label; by default centred, in the usual size."""
    ax.text(x, y, label, **{"size": size, "color": INK, "ha": "center", "va": "center", "zorder": 6} | style)


def caption(ax: Axes, x: float, y: float, *lines: str) -> None:
    """Write lines of text from y downwards; captions side by side share their baselines."""
    for k, line in enumerate(lines):
        text(ax, x, y - 0.22 - 0.19 * k, line, va="baseline")


def frame(ax: Axes, x0: float, y0: float, x1: float, y1: float, r: float = 0.07, **style: Any) -> FancyBboxPatch:
    """Draw a rounded rectangle between two corners."""
    look = {"fc": "white", "ec": INK, "lw": 0.9, "zorder": 3} | style
    patch = FancyBboxPatch((x0, y0), x1 - x0, y1 - y0, f"round,pad=0,rounding_size={r}", **look)
    ax.add_patch(patch)
    return patch


def box(ax: Axes, x: float, y: float, w: float, h: float, label: str, fc: Colour, act: str = "") -> float:
    """Draw a box whose left end is x, centred on y, with a dark stripe for an activation; return its right end."""
    # an activation of blanks: the narrow stripe of the legend
    body = w - (0.21 if act.strip() else 0.12 if act else 0)
    outline = frame(ax, x, y - h / 2, x + w, y + h / 2, fc=ACT)
    fill = ax.add_patch(Rectangle((x, y - h / 2), body, h, fc=fc, lw=0, zorder=3))
    fill.set_clip_path(outline)
    frame(ax, x, y - h / 2, x + w, y + h / 2, fc="none", zorder=4)  # again, over the fill
    text(ax, x + body / 2, y, label, linespacing=1.25)
    text(ax, x + body / 2 + w / 2 - 0.005, y, act, 9, color="white", rotation=90, weight="bold")
    return x + w


def cat(ax: Axes, x: float, y: float, h: float) -> float:
    """Draw a concatenation, a narrow bar whose left end is x; return its right end."""
    frame(ax, x, y - h / 2, x + 0.22, y + h / 2, fc=CAT)
    text(ax, x + 0.11, y, "concat", 9, rotation=90)
    return x + 0.22


def node(ax: Axes, x: float, y: float, times: bool = False, r: float = 0.12) -> float:
    """Draw an addition, or a multiplication, centred on (x, y); return its right end."""
    ax.add_patch(Circle((x, y), r, fc="white", ec=INK, lw=1.1, zorder=4))
    a = 0.5 * r
    for dx, dy in ((a, a), (a, -a)) if times else ((1.2 * a, 0), (0, 1.2 * a)):
        ax.plot([x - dx, x + dx], [y - dy, y + dy], color=INK, lw=1.2, zorder=5)
    return x + r


def dot(ax: Axes, x: float, y: float, r: float = 0.032) -> None:
    """Draw a dot; at the default size it marks a fork."""
    ax.add_patch(Circle((x, y), r, color=INK, lw=0, zorder=5))


def arrow(ax: Axes, *points: Point, fork: bool = False) -> None:
    """Draw an arrow through the points; `fork`: with a dot where it leaves another arrow."""
    head = "-|>,head_length=0.42,head_width=0.19"
    line = FancyArrowPatch(
        path=Line(np.array(points)), arrowstyle=head, mutation_scale=11, joinstyle="miter", color=INK
    )
    ax.add_patch(line).set(linewidth=1.0, zorder=2)
    if fork:
        dot(ax, *points[0])


def panel(ax: Axes, y0: float, y1: float, letter: str, title: str) -> None:
    """Draw a panel as wide as the figure, its title in the top left corner."""
    frame(ax, 0.08, y0, 9.92, y1, 0.1, ec="#c4c4c4", zorder=0)
    text(ax, 0.22, y1 - 0.23, letter, 11, ha="left", va="baseline", weight="bold")
    text(ax, 0.55 if letter else 0.22, y1 - 0.23, title, 11, ha="left", va="baseline")


def group(ax: Axes, x0: float, x1: float, y0: float, y1: float) -> None:
    """Draw a dashed frame around a group."""
    frame(ax, x0, y0, x1, y1, 0.1, fc="#f6f6f6", ec=SOFT, ls=(0, (4, 2.5)), zorder=1)


def scene(n: int = 160, fine: int = 4) -> np.ndarray:
    """Return a synthetic landscape (n, n, 3) in [0, 1], drawn `fine` times larger for smooth edges."""
    v, u = np.mgrid[0 : n * fine, 0 : n * fine] / (n * fine - 1)
    sky = np.stack([0.45 + 0.5 * v, 0.68 + 0.22 * v, 0.95 - 0.1 * v], axis=-1)
    layers = [
        (np.hypot(u - 0.72, v - 0.26) < 0.13, (1.0, 0.80, 0.25)),
        (v > 0.56 - 0.20 * np.exp(-(((u - 0.28) / 0.20) ** 2)), (0.48, 0.44, 0.62)),
        (v > 0.66 - 0.09 * np.sin(5.2 * u + 3.6), (0.30, 0.60, 0.30)),
        (v > 0.84 + 0.05 * np.sin(4.5 * u + 0.5), (0.16, 0.40, 0.55)),
        ((abs(u - 0.66) < 0.10) & (abs(v - 0.66) < 0.08), (0.92, 0.86, 0.76)),
        ((v < 0.58) & (v > 0.46 + 0.8 * abs(u - 0.66)), (0.80, 0.24, 0.16)),
    ]
    for where, colour in layers:
        sky[where] = colour
    return sky.reshape(n, fine, n, fine, 3).mean(axis=(1, 3)).clip(0, 1)


def face(ax: Axes, image: np.ndarray, corner: Point, across: Point, up: Point, **style: Any) -> AxesImage:
    """Draw an image as a parallelogram with a lower left corner and two edges."""
    corner, across, up = map(np.asarray, (corner, across, up))
    place = Affine2D(np.vstack([np.stack([across, up, corner], 1), [0, 0, 1]])) + ax.transData
    drawn = ax.imshow(image, extent=(0, 1, 0, 1), transform=place, interpolation="antialiased", zorder=3, **style)
    corners = [corner, corner + across, corner + across + up, corner + up]
    ax.add_patch(Polygon(corners, fill=False, ec=INK, lw=0.7, joinstyle="round", zorder=4))
    return drawn


def legend(ax: Axes, y: float, entries: list[tuple[str, Colour, str]]) -> None:
    """Draw a row of keys (kind, colour, meaning), centred in the figure."""
    keys = [{"cat": 0.13, "add": 0.2, "times": 0.2}.get(kind, 0.36) + 0.09 for kind, _, _ in entries]
    words = [TextPath((0, 0), meaning, size=10).get_extents().width / 72 for _, _, meaning in entries]
    gap = 0.4
    x = (10 - sum(keys) - sum(words) - gap * (len(keys) - 1)) / 2
    for (kind, colour, meaning), key, word in zip(entries, keys, words, strict=True):
        if kind in ("add", "times"):
            node(ax, x + 0.1, y, kind == "times", 0.1)
        elif kind == "cat":
            frame(ax, x, y - 0.13, x + 0.13, y + 0.13, 0.04, fc=CAT)
        else:
            box(ax, x, y, 0.36, 0.22, "", colour, act=" " if kind == "act" else "")
        text(ax, x + key, y - 0.045, meaning, ha="left", va="baseline")
        x += key + word + gap


def convs(ax: Axes, x: float, y: float, source: float, first: str, second: str) -> float:
    """Draw the stem or the tail (conv, PReLU, conv) in a group whose left end is x; return its right end."""
    group(ax, x, x + 1.68, y - 0.58, y + 0.58)
    arrow(ax, (source, y), (x + 0.09, y))
    end = box(ax, x + 0.09, y, 0.78, 0.92, f"3×3\nconv\n{first}", CONV, "PReLU")
    arrow(ax, (end, y), (x + 1.05, y))
    return box(ax, x + 1.05, y, 0.54, 0.92, f"3×3\nconv\n{second}", CONV)


def draw_overview(ax: Axes, y: float) -> None:
    """Draw the whole network at height y."""
    image, low = scene(), y - 0.58
    face(ax, image, (0.22, y - 0.39), (0.78, 0), (0, 0.78))
    caption(ax, 0.61, low, "RGB image", SHAPE + "3")
    end = convs(ax, 1.26, y, 1.0, "3→$C$", "$C$→$C$")
    caption(ax, 2.10, low, "stem", "(reflection padding)")

    arrow(ax, (end, y), (3.18, y))
    end = box(ax, 3.18, y, 0.58, 0.92, "NPM\n(b)", NPM)
    caption(ax, 3.47, low, "purification", SHAPE + "$C$")

    group(ax, 4.0, 6.64, low, y + 0.58)
    for x, label in ((4.09, "1"), (4.9, "2")):
        arrow(ax, (end, y), (x, y))
        end = box(ax, x, y, 0.58, 0.92, f"DRCR\n{label}\n(c)", DRCR)
    ax.plot([end, 5.59], [y, y], color=INK, lw=1.0)
    for x in (5.65, 5.71, 5.77):
        dot(ax, x, y, 0.018)
    arrow(ax, (5.83, y), (5.97, y))
    end = box(ax, 5.97, y, 0.58, 0.92, "DRCR\n$B$\n(c)", DRCR)
    caption(ax, 5.32, low, "$B$ DRCR blocks, one after another", "(released: $C$ = 100, $B$ = 10)")

    end = convs(ax, 6.88, y, end, "$C$→$C$", "$C$→31")
    caption(ax, 7.72, low, "tail", "(reflection padding)")
    x0, size, depth = 8.81, 0.72, (0.26, 0.17)
    arrow(ax, (end, y), (x0, y))
    # a band near the wavelength of a primary colour looks like that channel of the image
    nm = np.linspace(0, 1, 31)
    block = (image @ np.clip(1.2 - 0.6 * abs(np.arange(3)[:, None] - 2 + 2 * nm), 0, 1)).clip(0, 1)[..., None]
    hues = np.stack(
        [np.interp(nm, np.linspace(0, 1, 5), hue) for hue in zip(*map(to_rgb, SPECTRUM), strict=True)], -1
    )
    face(ax, (block[0] * hues).transpose(1, 0, 2)[::-1], (x0, y + size / 2), (size, 0), depth)
    face(ax, block[:, -1] * hues, (x0 + size, y - size / 2), depth, (0, size))
    face(ax, image, (x0, y - size / 2), (size, 0), (0, size))
    caption(ax, 9.29, low, SHAPE + "31", "400–700 nm")


def draw_npm(ax: Axes, rows: tuple[float, float, float]) -> None:
    """Draw the non-local purification module, its three scales at the heights `rows`."""
    top, mid, low = rows
    group(ax, 2.32, 3.50, low - 0.45, mid + 0.45)
    text(ax, 0.3, top, "$x$")
    start = [(0.4, top)]
    for k, (y, size) in enumerate(zip(rows, ("$H$ × $W$", "$H$/2 × $W$/2", "$H$/4 × $W$/4"), strict=True)):
        if k:
            above, pool = rows[k - 1], (y + rows[k - 1]) / 2
            arrow(ax, (1.1, above), (1.1, pool + 0.17), fork=True)
            box(ax, 0.52, pool, 1.16, 0.34, "avg pool 2×2", POOL)
            start = [(1.1, pool - 0.17), (1.1, y)]
        text(ax, 1.66, y + 0.13, size)
        for to, label in ((y + 0.2, "3×3 conv"), (y - 0.2, "1×1 conv")):
            arrow(ax, *start, (2.2, y), (2.2, to), (2.44, to))
            end = box(ax, 2.44, to, 0.94, 0.33, label, CONV)
            arrow(ax, (end, to), (3.74, to))
        dot(ax, 2.2, y)
        end = cat(ax, 3.74, y, 0.74)
        arrow(ax, (end, y), (4.22, y))
        end = box(ax, 4.22, y, 1.14, 0.74, "3×3 conv\n2$C$→$C$", CONV, "LReLU")
        if k:
            arrow(ax, (end, y), (5.6, y))
            end = box(ax, 5.6, y, 1.12, 0.5, f"upsample ×{2**k}\nbilinear", UP)
        arrow(ax, (end, y), (6.92, y))
    end = cat(ax, 6.92, mid, top - low + 0.74)
    arrow(ax, (end, mid), (7.42, mid))
    end = box(ax, 7.42, mid, 1.14, 0.74, "3×3 conv\n3$C$→$C$", CONV, "LReLU")
    arrow(ax, (end, mid), (8.84, mid))
    arrow(ax, (0.56, top), (0.56, top + 0.58), (8.96, top + 0.58), (8.96, mid + 0.12), fork=True)
    arrow(ax, (node(ax, 8.96, mid), mid), (9.42, mid))
    text(ax, 9.64, mid, "out")
    text(ax, 2.91, low - 0.57, "shared *")
    released = '* npm="released", as drawn: the quarter scale uses the two convs of the half scale.'
    caption(ax, 5, low - 0.61, released + '  npm="paper": each scale has its own.')


def draw_block(ax: Axes, y: float) -> None:
    """Draw a DRCR block, encoder and decoder at height y."""
    h, w, low, under = 0.78, 0.74, y - 0.94, y - 0.57
    group(ax, 0.54, 3.52, y - 0.68, y + 0.48)
    group(ax, 4.5, 8.76, y - 0.68, y + 0.48)
    text(ax, 3.42, under, "encoder", ha="right", va="baseline")
    text(ax, 8.66, under, "decoder", ha="right", va="baseline")
    text(ax, 0.24, y, "$x$")
    # below the blocks: x -> CRM1 -> r, which goes up into the first concatenation and on to CRM2
    arrow(ax, (0.44, y), (0.44, low), (1.70, low), fork=True)
    arrow(ax, (box(ax, 1.70, low, 0.66, 0.32, "CRM1", CRM), low), (6.52, low))
    text(ax, 2.52, low + 0.13, "$r$")
    arrow(ax, (4.79, low), (4.79, y - h / 2), fork=True)
    end, forks = 0.34, []
    for k in (1, 2, 3):
        x = 0.62 + (k - 1) * 1.04
        arrow(ax, (end, y), (x, y))
        end = box(ax, x, y, w, h, f"conv{k}\n3×3\n$C$→$C$", CONV, "LReLU")
        forks.append(end + 0.14)
    ahead = "r"
    for k in (4, 5, 6):
        x, e, height = 4.68 + (k - 4) * 1.42, 7 - k, y + 0.4 + 0.25 * (k - 4)
        arrow(ax, (end, y), (x, y))
        if k == 4:
            text(ax, 4.01, y + 0.13, "$e_3$")
        else:
            arrow(ax, (forks[e - 1], y), (forks[e - 1], height), (x + 0.11, height), (x + 0.11, y + h / 2), fork=True)
            text(ax, forks[e - 1] + 0.13, height + 0.11, f"$e_{e}$")
        text(ax, x + (0.43 if k == 4 else 0.15), under, f"[$e_{e}$, ${ahead}$]", va="baseline")
        arrow(ax, (cat(ax, x, y, h), y), (x + 0.42, y))
        end, ahead = box(ax, x + 0.42, y, w, h, f"conv{k}\n3×3\n2$C$→$C$", CONV, "LReLU"), f"d_{k}"
        text(ax, end + (0.13 if k < 6 else 0.23), y + 0.13, f"${ahead}$")
    arrow(ax, (end, y), (9.08, y))
    arrow(ax, (box(ax, 6.52, low, 0.66, 0.32, "CRM2", CRM), low), (9.2, low), (9.2, y - 0.12))
    arrow(ax, (node(ax, 9.2, y), y), (9.54, y))
    text(ax, 9.73, y, "out")


def draw_network() -> None:
    """Draw network.png and network.pdf."""
    ax = canvas(10, 9.74)
    panel(ax, 7.54, 9.66, "(a)", "DRCR Net")
    draw_overview(ax, 8.67)
    panel(ax, 3.62, 7.44, "(b)", "NPM, non-local purification module")
    draw_npm(ax, (6.43, 5.51, 4.59))
    panel(ax, 0.70, 3.52, "(c)", "DRCR block")
    draw_block(ax, 2.05)
    legend(
        ax,
        0.47,
        [
            ("box", CONV, "conv"),
            ("act", CONV, "conv + activation"),
            ("box", POOL, "pooling"),
            ("box", UP, "upsampling"),
            ("cat", CAT, "concatenation"),
            ("add", INK, "add"),
        ],
    )
    text(ax, 5, 0.14, "LReLU: LeakyReLU with slope 0.2", va="baseline")
    save(ax, "network")


def maps(ax: Axes, x: float, y: float, values: np.ndarray) -> float:
    """Draw a feature map, a stack of channels shaded by their values, centred on y; return its right end."""
    size, step = 0.7, 0.05
    for k in reversed(range(len(values))):
        left, low = x + k * step, y - size / 2 + (k - (len(values) - 1) / 2) * step
        frame(ax, left, low, left + size, low + size, 0.02, fc=tint(CHANNEL, values[k]), lw=0.8, zorder=4 - k / 10)
    return x + size + step * (len(values) - 1)


def vector(ax: Axes, x: float, y: float, values: np.ndarray) -> float:
    """Draw a vector, one shaded cell per channel in a column centred on y; return its right end."""
    for k, value in enumerate(values):
        low = y + (len(values) / 2 - k - 1) * 0.115
        frame(ax, x, low, x + 0.18, low + 0.115, 0.001, fc=tint(CHANNEL, value), lw=0.8)
    return x + 0.18


def draw_crm() -> None:
    """Draw CRM.png and CRM.pdf."""
    ax, y, top = canvas(10, 3.2), 1.61, 2.49
    panel(ax, 0.45, 3.12, "", "CRM, channel re-calibration module")
    low = y - 0.62
    means = np.array([0.75, 0.35, 0.6, 0.25, 0.8, 0.5, 0.65, 0.4])
    gate = np.array([0.9, 0.2, 0.55, 0.95, 0.3, 0.75, 0.1, 0.65])

    end = maps(ax, 0.25, y, means)
    caption(ax, 0.78, low, "input $x$", SHAPE + "$C$")
    fork = end + 0.15
    arrow(ax, (end, y), (1.66, y))
    end = box(ax, 1.66, y, 0.86, 0.92, "global\navg pool\nover $H$, $W$", POOL)
    arrow(ax, (end, y), (2.87, y))
    end = vector(ax, 2.87, y, means)
    caption(ax, 2.96, low, "means", "1 × 1 × $C$")
    group(ax, 3.36, 7.06, y - 0.58, y + 0.58)
    for x, label, act in ((3.45, "$C$→$C$/8", "ReLU"), (4.73, "$C$/8→$C$/8", "ReLU"), (6.01, "$C$/8→$C$", "Sigmoid")):
        arrow(ax, (end, y), (x, y))
        end = box(ax, x, y, 0.96, 0.92, f"linear\n{label}", LINEAR, act)
    caption(ax, 5.21, low, "linear layers without bias", "($C$/8 rounded down)")
    arrow(ax, (end, y), (7.36, y))
    end = vector(ax, 7.36, y, gate)
    caption(ax, 7.45, low, "gate in (0, 1)", "1 × 1 × $C$")
    arrow(ax, (end, y), (8.0, y))
    arrow(ax, (fork, y), (fork, top), (8.12, top), (8.12, y + 0.12), fork=True)
    arrow(ax, (node(ax, 8.12, y, times=True), y), (8.68, y))
    maps(ax, 8.68, y, means * gate)
    caption(ax, 9.2, low, "output", SHAPE + "$C$")
    legend(
        ax,
        0.24,
        [
            ("box", POOL, "pooling"),
            ("act", LINEAR, "linear + activation"),
            ("times", INK, "multiply, channel by channel"),
        ],
    )
    save(ax, "CRM")


def main(argv: Sequence[str] | None = None) -> None:
    """Draw both."""
    cli.parser(__doc__).parse_args(argv)
    draw_network()
    draw_crm()


if __name__ == "__main__":
    cli.run(main)
