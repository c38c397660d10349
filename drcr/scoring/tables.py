"""Tables of scores, methods beside each other: as text, CSV and LaTeX."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from drcr.metrics import SCORES, Score
from drcr.utils.files import check_folder_of, refuse_foreign, write_atomically, write_csv

Scores = dict[str, dict[str, float]]
"""The scores of one method by scene; the row `average` comes last."""
BRIGHT_MRAE = "bright_mrae"
"""The column after SCORES, with compute_mrae.py --min_radiance."""
LATEX_MARK = "% Scores, written by compute_mrae.py; needs \\usepackage{booktabs}"
_SPECIAL = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"~": "\\textasciitilde{}", "^": "\\textasciicircum{}"})


def _cells(scores: dict[str, float]) -> list[str]:
    return [f"{value:.{_shown(name).digits}f}" for name, value in scores.items()]


def _shown(score: str) -> Score:
    return SCORES.get(score, Score("MRAE bright", 4))


def _columns(tables: dict[str, Scores]) -> list[str]:
    return list(next(iter(tables.values()))["average"])


def text_table(tables: dict[str, Scores], scenes: Sequence[str]) -> str:
    """Return the scores of some scenes (`average`: the means) as lines of text, one per scene and method."""
    rows = [["scene", "method", *(_shown(score).heading for score in _columns(tables))]]
    for scene in scenes:
        for i, (method, table) in enumerate(tables.items()):
            rows.append(["" if i else scene, method, *_cells(table[scene])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    texts, numbers = widths[:2], widths[2:]
    return "\n".join(
        "  ".join(
            [f"{cell:{width}}" for cell, width in zip(row[:2], texts, strict=True)]
            + [f"{cell:>{width}}" for cell, width in zip(row[2:], numbers, strict=True)]
        )
        for row in rows
    )


def check_table(path: Path) -> None:
    """Raise DataError if a table is about to replace a file that is not one of ours: its whole first line is."""
    scores = [[*SCORES, *more] for more in ([], [BRIGHT_MRAE])]
    firsts = [",".join([*names, *columns]) for names in (["name"], ["method", "name"]) for columns in scores]

    def is_ours(path: Path) -> bool:
        with open(path, "rb") as file:
            return file.readline() in [f"{line}\n".encode() for line in (*firsts, LATEX_MARK)]

    check_folder_of(path)
    refuse_foreign(path, is_ours, "a table of scores", "choose another --table")


def write_table(path: Path, tables: dict[str, Scores]) -> None:
    """Write each scene's scores and the means: LaTeX if the file's name ends in .tex, else CSV.

    CSV has a line per scene, `average` last; of several methods, with the method before it.
    """
    if path.suffix.lower() == ".tex":
        write_atomically(path, lambda file: file.write(_latex(tables).encode()))
        return
    rows = [["method", "name", *_columns(tables)]]
    rows += [[method, scene, *row.values()] for method, table in tables.items() for scene, row in table.items()]
    write_csv(path, [row[len(tables) == 1 :] for row in rows])


def _latex(tables: dict[str, Scores]) -> str:
    """Return the means as a table, the best of each column bold, and each scene as another."""
    columns = _columns(tables)
    headings = " & ".join(
        f"{_shown(score).heading} $\\{'up' if _shown(score).higher_is_better else 'down'}arrow$" for score in columns
    )
    means = {method: table["average"] for method, table in tables.items()}
    best = {
        score: (np.nanmax if _shown(score).higher_is_better else np.nanmin)([mean[score] for mean in means.values()])
        for score in columns
    }
    rows = []
    for method, mean in means.items():
        cells = zip(columns, _cells(mean), strict=True)
        marked = [f"\\textbf{{{cell}}}" if mean[score] == best[score] else cell for score, cell in cells]
        rows.append(" & ".join([method.translate(_SPECIAL), *marked]))
    scenes = [
        " & ".join([name.translate(_SPECIAL) for name in (scene, method)] + _cells(table[scene]))
        for scene in next(iter(tables.values()))
        if scene != "average"
        for method, table in tables.items()
    ]
    count = len(scenes) // len(tables)
    return "\n".join(
        [
            LATEX_MARK,
            f"% means over {count} scene{'s' * (count != 1)}",
            *_tabular(f"l{'r' * len(columns)}", f"Method & {headings}", rows),
            "% each scene",
            *_tabular(f"ll{'r' * len(columns)}", f"Scene & Method & {headings}", scenes),
            "",
        ]
    )


def _tabular(columns: str, head: str, rows: Sequence[str]) -> list[str]:
    lines = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", f"{head} \\\\", "\\midrule"]
    return [*lines, *(f"{row} \\\\" for row in rows), "\\bottomrule", "\\end{tabular}"]
