"""What a stress test writes: two tables (CSV), a figure, and the worst level of each condition in lines."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from drcr.stress.study import Key, Row, Summary
from drcr.utils.files import begins, refuse_foreign, write_csv

HEADERS = {"stress.csv": Row._fields, "summary.csv": ("condition", "level", "method", "metric", *Summary._fields)}
"""The columns of the tables, by which a later run recognises them."""
FIGURE = "overview"


def check_folder(out: Path) -> None:
    """Raise DataError if a file that is about to be written exists and is not from an earlier run."""
    from drcr.figures.layout import is_figure

    remedy = "choose another --result_dir"
    for name, header in HEADERS.items():
        refuse_foreign(out / name, partial(_has_header, header), "a table of this script", remedy)
    for suffix in ("png", "pdf"):
        refuse_foreign(out / f"{FIGURE}.{suffix}", is_figure, "a figure of ours", remedy)


def write_results(out: Path, rows: Sequence[Row], table: dict[Key, Summary]) -> None:
    """Write the tables of `study.collect` and `study.summarise`, and the figure, into a checked folder."""
    from drcr.stress.figures import plot_overview

    out.mkdir(parents=True, exist_ok=True)
    lines = {
        "stress.csv": [(*row[:-1], f"{row.value:.8g}") for row in rows],
        "summary.csv": [(*key, *(f"{value:.4g}" for value in found)) for key, found in table.items()],
    }
    for name, header in HEADERS.items():
        write_csv(out / name, [header, *lines[name]])
    sheet = plot_overview(table)
    for suffix in ("png", "pdf"):
        sheet.save(out / f"{FIGURE}.{suffix}", dpi=200)


def _has_header(header: Sequence[str], path: Path) -> bool:
    return begins(path, ",".join(header))


def worst_levels(table: dict[Key, Summary], method: str) -> Iterator[str]:
    """Yield the lines of a Markdown table: the reference, and the level of each condition with the highest SAM."""
    yield "| condition | worst level | MRAE | x | at best scale | SAM deg | x | pixels within the bound |"
    yield "|---|---|---|---|---|---|---|---|"
    for condition in dict.fromkeys(key[0] for key in table):
        found = {
            key[1]: value.mean for key, value in table.items() if (key[0], *key[2:]) == (condition, method, "sam")
        }
        if not found:
            continue
        level = max(found, key=lambda level: found[level])
        mrae, scaled, sam = (table[condition, level, method, name] for name in ("mrae", "best_scale_mrae", "sam"))
        covered = table.get((condition, level, method, "within_bound"))
        cells = [f"{mrae.mean:.3f}", _ratio(mrae), f"{scaled.mean:.3f}", f"{sam.mean:.1f}", _ratio(sam)]
        yield f"| {condition} | {level} | {' | '.join(cells)} | {f'{covered.mean:.0%}' if covered else '-'} |"


def _ratio(found: Summary) -> str:
    return f"{found.ratio:.2f}" if math.isfinite(found.ratio) else "-"
