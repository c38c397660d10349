"""The figure of a stress test: what each condition costs."""

from drcr.confidence.model import SHARE
from drcr.figures.layout import EDGE, LINE, METHODS, WIDTHS, Sheet, styled
from drcr.stress.study import ANY, Key, Summary
from drcr.utils.extras import needs

with needs("figures", "a figure"):
    from matplotlib.lines import Line2D

Table = dict[Key, Summary]
CONDITIONS = (
    "photo-electrons", "JPEG quality", "exposure", "optics", "light", "camera", "encoding", "metamers",
)  # fmt: skip
SHOWN = {"mrae": "MRAE", "best_scale_mrae": "MRAE at best scale", "sam": "SAM"}


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
def plot_overview(table: Table) -> Sheet:
    """Draw the ratio to the reference of the first method's errors for every level, with 95% intervals."""
    method = methods_of(table)[0]
    blocks = {}
    for condition in CONDITIONS:
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
            # cubes that are multiplied by a named lamp have no map
            if beside is not None and (found := table.get((condition, level, method, "within_bound"))):
                share = 100 * found.mean
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
    names = [SHOWN[metric] for metric in styles]
    axes.legend(
        handles, [f"{method}: {names[0]}", *names[1:]], loc="center right", ncols=3, borderpad=0, borderaxespad=0
    )
    sheet.y += LINE + 0.06
