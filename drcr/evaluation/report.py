"""A report as one folder: index.html, which needs no server and no network, and pictures/ beside it."""

import math
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from drcr.evaluation.comparison import HIGHER_IS_BETTER, KINDS, Result
from drcr.metrics import HEADINGS, SCORES
from drcr.utils.files import LOCK, refuse_foreign, write_atomically

GENERATOR = '<meta name="generator" content="drcr.report">'
PICTURES, STAGING = "pictures", ".pictures.tmp"
SUFFIX = "webp"
CAPTIONS = {
    "colour": "Input, ground truth and reconstructions in true colour",
    "bands": "Bands: ground truth above reconstructions",
    "errors": "Absolute error above, relative error below",
    "spectra": "Spectra at the marked points; r is Pearson's correlation with the ground truth",
    "mrae": "MRAE by wavelength",
}
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def check_folder(out: Path) -> None:
    """Raise DataError if a report must not be written to a folder: it has files that no earlier report wrote."""
    index = out / "index.html"
    page = index.read_text("utf-8", errors="replace") if index.is_file() else ""
    ours = GENERATOR in page
    listed = set(re.findall(f'src="{PICTURES}/([^"]+)"', page)) if ours else set()

    def is_free(folder: Path) -> bool:
        return folder.is_dir() and (ours or all(path.name in (STAGING, LOCK) for path in folder.iterdir()))

    refuse_foreign(out, is_free, "an empty folder or an earlier report", "choose another --out")

    def is_listed(picture: Path) -> bool:
        return quote(picture.name) in listed

    for picture in sorted((out / PICTURES).iterdir()) if (out / PICTURES).is_dir() else ():
        refuse_foreign(picture, is_listed, "a picture of the report there", "move it, or choose another --out")


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """Provide a folder for new pictures within `out`, which is removed in the end, whatever happens."""
    folder = out / STAGING
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_report(
    out: Path, staged: Path, results: dict[str, Result], notes: list[str], command: str, methods: dict[str, Path]
) -> None:
    """Replace the report in a folder.

    Parameters
    ----------
    out
        Folder of the report, checked by `check_folder`.
    staged
        Folder with the new pictures, from `staging`.
    results
        The results by scene.
    notes
        Lines below the title.
    command
        The command that made the report.
    methods
        Folders of the reconstructions, by method.
    """
    page = _page(staged, results, notes, command, methods).encode()
    # index.html comes last: until then there is the earlier report, or none
    (out / "index.html").unlink(missing_ok=True)
    shutil.rmtree(out / PICTURES, ignore_errors=True)
    staged.rename(out / PICTURES)
    write_atomically(out / "index.html", lambda file: file.write(page))


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
    return f"{value:.{HEADINGS[score][1]}f}" if math.isfinite(value) else {math.inf: "∞"}.get(value, "–")


def _cells(table: dict[str, list[float]]) -> list[list[_Score]]:
    """Return the cells of each method, from SCORES by method."""
    best = [
        (max if score in HIGHER_IS_BETTER else min)(values) if len(values) > 1 else None
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
    with Image.open(folder / f"{name}.{SUFFIX}") as image:
        width, height = image.size
    about = f"{scene}. {caption}" if scene else caption
    return _Picture(name.rpartition("_")[2], f"{PICTURES}/{quote(name)}.{SUFFIX}", about, width, height, caption)


def _methods(results: dict[str, Result], methods: dict[str, Path]) -> list[dict[str, Any]]:
    """Return each method's name, mean scores and origin."""
    means = {name: np.mean([result.scores[name] for result in results.values()], 0).tolist() for name in methods}
    origins = [sorted({result.origins[name] for result in results.values()}) for name in methods]
    return [
        {
            "name": name,
            "means": cells,
            "origins": "; ".join(origin or "not stated in the files" for origin in of_method),
            "folder": folder,
        }
        for (name, folder), cells, of_method in zip(methods.items(), _cells(means), origins, strict=True)
    ]


def _scene(staged: Path, name: str, result: Result) -> dict[str, Any]:
    """Return a scene's scores and pictures."""
    return {
        "name": name,
        "anchor": f"scene-{quote(name, safe='')}",
        "methods": _cells(result.scores),
        "mrae": ", ".join(f"{method} {_number(row[0], 'mrae')}" for method, row in result.scores.items()),
        "figures": [_picture(staged, f"{name}_{kind}", CAPTIONS[kind], name) for kind in KINDS],
    }


def _page(staged: Path, results: dict[str, Result], notes: list[str], command: str, methods: dict[str, Path]) -> str:
    """Return index.html; the pictures, whose sizes it needs, are in `staged`."""
    first = next(iter(methods))
    worst_first = sorted(results.items(), key=lambda item: -item[1].scores[first][0])
    overall = [_picture(staged, "scores", "Scores by scene")]
    if (staged / f"mrae.{SUFFIX}").is_file():
        overall.append(_picture(staged, "mrae", "Mean MRAE by wavelength"))
    return _TEMPLATES.get_template("report.html").render(
        generator=GENERATOR,
        count=f"{len(results)} scene{'s' * (len(results) != 1)}, {len(methods)} method{'s' * (len(methods) != 1)}",
        notes=notes,
        headings={score: heading.split() for score, (heading, _) in HEADINGS.items()},
        higher_is_better=HIGHER_IS_BETTER,
        methods=_methods(results, methods),
        scenes=[_scene(staged, name, result) for name, result in worst_first],
        overall=overall,
        command=command,
    )
