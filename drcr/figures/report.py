"""A report as one HTML file with its pictures inside: it needs no server, no network and no other file."""

import base64
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from drcr.figures.comparison import Result, file_stem
from drcr.metrics import SCORES
from drcr.utils.extras import needs
from drcr.utils.files import plural, refuse_foreign, write_atomically

with needs("figures", "a report"):
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from PIL import Image

GENERATOR = '<meta name="generator" content="drcr.report">'
SUFFIX = "webp"
MAX_SCENES = 100
"""A scene takes up to 1.5 MB of the page, which browsers hold as a whole."""
CAPTIONS = {
    "colour": "Input, ground truth and reconstructions in true colour",
    "bands": "Bands: ground truth above reconstructions",
    "errors": "Absolute error above, relative error below",
    "spectra": "Spectra at the marked points; r is Pearson's correlation with the ground truth",
    "mrae": "MRAE by wavelength",
    "confidence": "Where not to trust: levels, and the spectral angle that is expected beside the true one",
}
UNSCORED_CAPTIONS = {
    "colour": "Input and reconstructions in true colour",
    "bands": "Bands",
    "spectra": "Spectra at the marked points",
    "confidence": "Where not to trust: levels, and the spectral angle that is expected",
}
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def check_report(path: Path) -> None:
    """Raise DataError if a report is about to replace a file that is none."""

    def is_report(path: Path) -> bool:
        return path.is_file() and GENERATOR.encode() in path.read_bytes()[:1000]

    refuse_foreign(path, is_report, "an earlier report", "choose another --out")


def write_report(
    out: Path, folder: Path, results: dict[str, Result], notes: list[str], command: str, methods: dict[str, Path]
) -> None:
    """Write a report to `out`, checked by `check_report`, whole or not at all.

    `folder`: of the pictures; `results` by scene; `notes`: lines below the title; `command`: that made the report;
    `methods`: folders of the reconstructions.
    """
    page = _page(folder, results, notes, command, methods).encode()
    write_atomically(out, lambda file: file.write(page))


@dataclass(frozen=True)
class _Score:
    """A score as a cell of a table; `best` of all methods in its row or column of methods."""

    value: str
    text: str
    best: bool


@dataclass(frozen=True)
class _Picture:
    """A picture with what its place in the page needs."""

    kind: str
    source: str
    about: str
    width: int
    height: int
    caption: str


def _number(value: float, score: str) -> str:
    return f"{value:.{SCORES[score].digits}f}" if math.isfinite(value) else {math.inf: "∞"}.get(value, "–")


def _cells(table: dict[str, list[float]]) -> list[list[_Score]]:
    """Return the cells of each method, from SCORES by method."""
    best = [
        (max if SCORES[score].higher_is_better else min)(values) if len(values) > 1 else None
        for score, values in zip(SCORES, zip(*table.values(), strict=True), strict=True)
    ]
    return [
        [
            _Score(repr(float(value)), _number(value, score), value == top)
            for value, score, top in zip(row, SCORES, best, strict=True)
        ]
        for row in table.values()
    ]


def _picture(folder: Path, name: str, caption: str, scene: str = "") -> _Picture:
    path = folder / f"{name}.{SUFFIX}"
    with Image.open(path) as image:
        width, height = image.size
    source = f"data:image/{SUFFIX};base64,{base64.b64encode(path.read_bytes()).decode()}"
    about = f"{scene}. {caption}" if scene else caption
    return _Picture(name.rpartition("_")[2], source, about, width, height, caption)


def _methods(results: dict[str, Result], methods: dict[str, Path]) -> list[dict[str, Any]]:
    """Return each method's name, mean scores, if there are any, and origin."""
    scores = [result.scores for result in results.values() if result.scores]
    means = {name: np.mean([table[name] for table in scores], 0).tolist() for name in methods if scores}
    origins = [sorted({result.origins[name] for result in results.values()}) for name in methods]
    cells = _cells(means) if means else [[] for _ in methods]
    return [
        {
            "name": name,
            "means": of_method,
            "origins": "; ".join(origin or "not stated in the files" for origin in stated),
            "folder": folder,
        }
        for (name, folder), of_method, stated in zip(methods.items(), cells, origins, strict=True)
    ]


def _scene(folder: Path, name: str, result: Result) -> dict[str, Any]:
    """Return a scene's scores and pictures."""
    stem = file_stem(name)
    return {
        "name": name,
        "anchor": f"scene-{quote(name, safe='')}",
        "methods": _cells(result.scores) if result.scores else [],
        "mrae": ", ".join(f"{method} {_number(row[0], 'mrae')}" for method, row in result.scores.items()),
        "figures": [
            _picture(folder, f"{stem}_{kind}", caption, name)
            for kind, caption in (CAPTIONS if result.scores else UNSCORED_CAPTIONS).items()
            if kind in result.figures
        ],
    }


def _page(folder: Path, results: dict[str, Result], notes: list[str], command: str, methods: dict[str, Path]) -> str:
    """Return the HTML of the page; the pictures are in `folder`."""
    first = next(iter(methods))
    scored = all(result.scores for result in results.values())
    worst_first = sorted(results.items(), key=lambda item: -item[1].scores[first][0] if scored else 0)
    overall = [_picture(folder, "scores", "Scores by scene")] if scored else []
    if (folder / f"mrae.{SUFFIX}").is_file():
        overall.append(_picture(folder, "mrae", "Mean MRAE by wavelength"))
    return TEMPLATES.get_template("report.html").render(
        generator=GENERATOR,
        count=f"{plural(len(results), 'scene')}, {plural(len(methods), 'method')}",
        notes=notes,
        scored=scored,
        headings={name: score.heading.split() for name, score in SCORES.items()} if scored else {},
        higher_is_better=[name for name, score in SCORES.items() if score.higher_is_better],
        methods=_methods(results, methods),
        scenes=[_scene(folder, name, result) for name, result in worst_first],
        overall=overall,
        command=command,
    )
