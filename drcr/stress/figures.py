"""Figures of an evaluation of trust: what each condition costs, and what metamers look like."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from drcr.confidence.model import SHARE
from drcr.figures.layout import (
    EDGE,
    LINE,
    METHODS,
    TRUTH,
    WIDTHS,
    Sheet,
    draw_image,
    draw_legend,
    styled,
    text_width,
)
from drcr.stress.study import ANY, DARK, METRICS, Key, Summary

Table = dict[Key, Summary]
ROWS = (("photo-electrons", "JPEG quality", "exposure"), ("optics", "light"), ("camera", "encoding"))
"""The conditions of `plot_conditions`, in rows."""
TICKS = [part * 10.0**power for power in range(-3, 3) for part in (1, 2, 5)]
SHOWN = ("mrae", "mrae_best_scale", "sam")


def levels_of(table: Table, condition: str) -> list[str]:
    """Return the levels of a condition in the order of the table."""
    return list(dict.fromkeys(level for name, level, _, _ in table if name == condition))


def reference_level(table: Table, condition: str) -> str | None:
    """Return the level of a condition that is the reference itself: its ratio is 1 for every draw of scenes."""
    for level in levels_of(table, condition):
        found = table.get((condition, level, methods_of(table)[0], "mrae"))
        if found is not None and found.ratio_low == found.ratio_high == 1:
            return level
    return None


def methods_of(table: Table) -> list[str]:
    """Return the methods in the order of the table."""
    return list(dict.fromkeys(method for _, _, method, _ in table if method != ANY))


@styled
def plot_conditions(table: Table, metric: str) -> Sheet:
    """Draw a metric by level for each condition and method, with 95% intervals over scenes."""
    sheet, methods = Sheet(WIDTHS["page"]), methods_of(table)
    draw_legend(sheet, EDGE, sheet.width - 2 * EDGE, methods, truth=False)
    left, between, height = 0.42, 0.38, 1.35
    room = sheet.width - left - EDGE
    for row in ROWS:
        shown = [condition for condition in row if levels_of(table, condition)]
        all_levels = [levels_of(table, condition) for condition in shown]
        n_levels, deepest = sum(map(len, all_levels)), 0.0
        each = (room - between * (len(shown) - 1)) / max(n_levels, 1)
        x, top = left, sheet.y + LINE + 0.08
        for condition, levels in zip(shown, all_levels, strict=True):
            axes = sheet.axes(x, top, each * len(levels), height)
            _level_lines(axes, table, condition, metric, methods)
            names = [level.replace("_", " ") for level in levels]
            widest = max(text_width(name, 6) for name in names)
            turned = widest > 0.9 * each
            deepest = max(deepest, widest + 0.05 if turned else LINE)
            axes.set_xticks(range(len(levels)), names, rotation=90 if turned else 0, size=6)
            axes.set_title(_with_unit(condition), loc="left")
            x += each * len(levels) + between
            if condition == shown[0]:
                axes.set_ylabel(METRICS[metric])
        sheet.y = top + height + deepest + 0.12
    return sheet


def _with_unit(condition: str) -> str:
    more = {"photo-electrons": " at white", "exposure": " (mean)"}
    return condition[0].upper() + condition[1:] + more.get(condition, "")


def _level_lines(axes: Axes, table: Table, condition: str, metric: str, methods: Sequence[str]) -> None:
    levels = levels_of(table, condition)
    ordered = condition in ROWS[0]
    styles: list[Any] = METHODS
    for i, (method, style) in enumerate(zip(methods, styles, strict=False)):
        found = [table[condition, level, method, metric] for level in levels]
        mean = np.array([summary.mean for summary in found])
        ends = np.array([(summary.low, summary.high) for summary in found]).T
        x = np.arange(len(levels)) + 0.16 * (i - (len(methods) - 1) / 2)
        axes.errorbar(
            x, mean, np.abs(ends - mean), **style | {"ls": style["ls"] if ordered else "none"}, elinewidth=0.6
        )
    if (reference := reference_level(table, condition)) is not None:
        at = levels.index(reference)
        axes.axvspan(at - 0.42, at + 0.42, color="0.92", lw=0, zorder=0)
    means = [table[condition, level, method, metric].mean for level in levels for method in methods]
    axes.set(xlim=(-0.6, len(levels) - 0.4), ylim=(0, None))
    if max(means) > 5 * min(means) > 0:
        low, high = 0.6 * min(means), 1.6 * max(means)
        axes.set(yscale="log", ylim=(low, high))
        ticks = [tick for tick in TICKS if low <= tick <= high]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_yticks([], minor=True)
    axes.grid(axis="y", color="0.88", lw=0.5)
    axes.set_axisbelow(True)


@styled
def plot_overview(table: Table) -> Sheet:
    """Draw the ratio to the reference of the first method's errors for every level, with 95% intervals."""
    method = methods_of(table)[0]
    blocks = {}
    for condition in (*(name for row in ROWS for name in row), "metamers"):
        blocks[condition] = [
            level
            for level in levels_of(table, condition)
            if level != reference_level(table, condition) and (condition, level, method, "mrae") in table
        ]
    sheet, row, left = Sheet(WIDTHS["page"]), 0.128, 1.95
    count = sum(len(levels) + 0.6 for levels in blocks.values() if levels)
    styles = dict(zip(SHOWN, METHODS, strict=False))
    _ratio_legend(sheet, styles, method)
    covered = ("reference", "reference", method, "within_bound") in table
    right = 1.1 * covered
    axes = sheet.axes(left, sheet.y, sheet.width - left - 0.15 - right, row * count)
    beside = sheet.axes(sheet.width - right, sheet.y, right - 0.15, row * count) if covered else None
    sheet.y += row * count + 0.35 + 0.12 * covered
    y, ticks, largest = 0.0, [], 1.0
    for condition, levels in blocks.items():
        named = condition in ("camera", "optics", "encoding")
        for level in levels:
            for i, (metric, style) in enumerate(styles.items()):
                found = table[condition, level, method, metric]
                at = y + 0.22 * (i - 1)
                axes.plot([found.ratio_low, found.ratio_high], [at, at], color=style["color"], lw=0.7)
                axes.plot([found.ratio], [at], **style | {"ls": "none", "ms": 2.8})
                largest = max(largest, found.ratio_high)
            if beside is not None:
                share = 100 * table[condition, level, method, "within_bound"].mean
                beside.barh(y, share, 0.6, color="0.6" if share >= 100 * SHARE else "#D55E00")
            ticks.append((y, level.replace("_", " ") if named else f"{condition}: {level}"))
            y += 1
        if levels:
            axes.axhline(y - 0.2, color="0.75", lw=0.5)
            y += 0.6
    axes.axvline(1, color="0.3", lw=0.8)
    axes.set_xscale("log")
    marks = [mark for mark in (0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20, 50, 100) if mark <= 1.3 * largest]
    axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
    axes.set_xticks([], minor=True)
    axes.set(ylim=(y - 1.0, -0.7), yticks=[at for at, _ in ticks], yticklabels=[label for _, label in ticks])
    axes.tick_params(axis="y", length=0, labelsize=6.5)
    axes.set_xlabel("error, divided by that of the reference image (logarithmic)")
    if beside is not None:
        beside.axvline(100 * SHARE, color="0.3", lw=0.8)
        beside.set(ylim=(y - 1.0, -0.7), xlim=(0, 100), yticks=[], xticks=[0, 50, 90])
        beside.set_xlabel("pixels within\nthe bound, %")
    for drawn in filter(None, (axes, beside)):
        drawn.grid(axis="x", color="0.88", lw=0.5)
        drawn.set_axisbelow(True)
    return sheet


def _ratio_legend(sheet: Sheet, styles: dict, method: str) -> None:
    axes = sheet.axes(EDGE, sheet.y, sheet.width - 2 * EDGE, LINE)
    axes.axis("off")
    handles = [Line2D([], [], **style | {"ls": "-"}) for style in styles.values()]
    names = [METRICS[metric].removesuffix(" deg") for metric in styles]
    axes.legend(
        handles, [f"{method}: {names[0]}", *names[1:]], loc="center right", ncols=3, borderpad=0, borderaxespad=0
    )
    sheet.y += LINE + 0.06


@styled
def plot_metamers(table: Table) -> Sheet:
    """Draw what metamers cost: the mean MRAE over both truths beside the floor, SAM, and the share of pixels."""
    sheet, methods = Sheet(WIDTHS["page"]), methods_of(table)
    all_levels = levels_of(table, "metamers")
    levels = [level for level in all_levels if ("metamers", level, ANY, "mrae_of_both") in table]
    draw_legend(sheet, EDGE, sheet.width - 2 * EDGE, methods, truth=False)
    left, between, height, width = 0.42, 0.5, 1.7, 1.82
    top = sheet.y + LINE + 0.08
    both, sam, share = (sheet.axes(left + i * (width + between), top, width, height) for i in range(3))
    floor = [table["metamers", level, ANY, "mrae_of_both"].mean for level in levels]
    split = sum(level.startswith("alpha") for level in levels)
    for part in (slice(0, split), slice(split, None)):
        x = np.arange(len(levels))[part]
        around = np.concatenate([x - 0.3, x + 0.3]) if part.start else x
        both.fill_between(np.sort(around), np.repeat(floor[part], len(around) // max(len(x), 1)), color="0.8", lw=0)
        both.plot(np.sort(around), np.repeat(floor[part], len(around) // max(len(x), 1)), color="k", lw=1.2)
        for method, style in zip(methods, METHODS, strict=False):
            for axes, metric in ((both, "mrae_of_both"), (sam, "sam")):
                axes.plot(x, [table["metamers", level, method, metric].mean for level in levels[part]], **style)
    both.text(
        0.45, 0.2, "no method can be\nin the grey area", transform=both.transAxes, size=6, ha="center", color="0.25"
    )
    share.bar(
        range(len(all_levels)), [100 * table["metamers", level, ANY, "feasible"].mean for level in all_levels],
        color="0.6", width=0.7,
    )  # fmt: skip
    for axes, title, names in (
        (both, "Mean MRAE of both truths", levels),
        (sam, "SAM against the metamer, deg", levels),
        (share, "Pixels with such a metamer, %", all_levels),
    ):
        labels = [name.removeprefix("alpha ") for name in names]
        axes.set_xticks(range(len(names)), labels, rotation=90, size=6)
        axes.set_title(title, loc="left")
        axes.set(ylim=(0, None), xlim=(-0.5, len(names) - 0.5))
        axes.grid(axis="y", color="0.88", lw=0.5)
        axes.set_axisbelow(True)
        axes.set_xlabel("alpha")
    share.set_ylim(0, 100)
    sheet.y = top + height + 0.75
    return sheet


def _points_with_metamers(truth: np.ndarray, count: np.ndarray, n: int = 4) -> list[tuple[int, int]]:
    """Choose pixels with different spectra among those of a cube (H, W, bands) that have the most metamers."""
    bright = truth.mean(2) >= 2 * DARK
    bright = bright if bright.any() else np.ones_like(bright)
    places = np.argwhere(bright & (count >= np.quantile(count[bright], 0.7)))
    places = places[np.random.default_rng(0).permutation(len(places))[:1000]]
    shapes = truth[places[:, 0], places[:, 1]]
    shapes = shapes / np.linalg.norm(shapes, axis=1, keepdims=True)
    chosen = [0]
    while len(chosen) < min(n, len(places)):
        distance = np.linalg.norm(shapes[:, None] - shapes[chosen], axis=2).min(1)
        apart = np.linalg.norm(places[:, None] - places[chosen], axis=2).min(1) > min(count.shape) / 10
        chosen.append(int(np.argmax(distance * np.where(apart, 1, 1e-3))))
    return [(int(row), int(column)) for row, column in places[chosen]]


@styled
def plot_spectra(
    image: np.ndarray,
    truth: np.ndarray,
    metamers: Sequence[tuple[str, np.ndarray, np.ndarray]],
    rec: np.ndarray,
    method: str,
    wavelengths: np.ndarray,
) -> Sheet:
    """Draw pixels' spectra, their metamers, and the one answer of a method.

    Parameters
    ----------
    image
        (H, W, 3) in [0, 1], to be shown.
    truth
        Cube (H, W, bands).
    metamers
        Name, cube and which of its pixels are metamers, of each level.
    rec
        Reconstruction (H, W, bands) by `method`.
    wavelengths
        (bands,) in nm.
    """
    sheet = Sheet(WIDTHS["page"])
    points = _points_with_metamers(truth, np.sum([feasible for _, _, feasible in metamers], 0))
    height = 1.35
    width = height * image.shape[1] / image.shape[0]
    axes = sheet.axes(EDGE, EDGE + 0.2, width, height)
    draw_image(axes, image, "input image")
    for i, (row, column) in enumerate(points):
        text = {"size": 7, "ha": "center", "va": "center", "weight": "bold"}
        axes.text(column, row, "ABCD"[i], **text, bbox={"boxstyle": "circle,pad=0.15", "fc": "w", "lw": 0.4})
    left, between = EDGE + width + 0.3, 0.34
    each = (sheet.width - left - EDGE - between * (len(points) - 1)) / len(points)
    for i, (row, column) in enumerate(points):
        axes = sheet.axes(left + i * (each + between), EDGE + 0.2, each, height)
        for _, cube, feasible in metamers:
            if feasible[row, column]:
                axes.plot(wavelengths, cube[row, column], color="0.55", lw=0.7)
        axes.plot(wavelengths, truth[row, column], **TRUTH)
        axes.plot(wavelengths, rec[row, column], **METHODS[0] | {"marker": "", "lw": 1.6})
        axes.set_title("ABCD"[i] + (", radiance by nm" if i == 0 else ""))
        axes.set(ylim=(0, None), xticks=[400, 550, 700])
        axes.tick_params(labelsize=6)
    sheet.y = EDGE + 0.2 + height + 0.22
    foot = sheet.axes(EDGE, sheet.y, sheet.width - 2 * EDGE, LINE)
    foot.axis("off")
    handles = [
        Line2D([], [], **TRUTH),
        Line2D([], [], color="0.55", lw=0.7),
        Line2D([], [], **METHODS[0] | {"marker": "", "lw": 1.6}),
    ]
    labels = ["ground truth", "metamers: other spectra with exactly the same RGB", method]
    foot.legend(handles, labels, loc="center", ncols=3, borderpad=0, borderaxespad=0)
    sheet.y += LINE
    return sheet
