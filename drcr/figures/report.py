"""A report as one folder: index.html, which needs no server and no network, and beside it a folder of pictures."""

import math
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from drcr.figures.comparison import Result, file_stem
from drcr.metrics import SCORES
from drcr.utils.files import plural, refuse_foreign, write_atomically
from drcr.utils.locks import LOCK

GENERATOR = '<meta name="generator" content="drcr.report">'
PICTURES, STAGING = "pictures", ".pictures.tmp"
SUFFIX = "webp"
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


def check_folder(out: Path) -> None:
    """Raise DataError if a report must not be written to a folder: it has files that no earlier report wrote."""
    pictures = _listed(out)

    def is_free(folder: Path) -> bool:
        if not folder.is_dir():
            return False
        return pictures is not None or not any(
            path.name not in (STAGING, LOCK) and not _is_left(path) for path in folder.iterdir()
        )

    refuse_foreign(out, is_free, "an empty folder or an earlier report", "choose another --out")

    def is_listed(picture: Path) -> bool:
        return picture in (pictures or ())

    for folder in {path.parent for path in pictures or () if path.parent.is_dir()}:
        for picture in sorted(folder.iterdir()):
            refuse_foreign(picture, is_listed, "a picture of the report there", "move it, or choose another --out")


def _listed(out: Path) -> set[Path] | None:
    """Return the pictures of the report in a folder; None if there is no report of ours."""
    index = out / "index.html"
    page = index.read_text("utf-8", errors="replace") if index.is_file() else ""
    if GENERATOR not in page:
        return None
    sources = re.findall(rf'src="({PICTURES}[-0-9a-f]*)/([^"/]+)"', page)
    return {out / folder / unquote(name) for folder, name in sources}


def _digest(folder: Path) -> str:
    """Return the digest of a folder's files, names and contents."""
    digest = sha256()
    for path in sorted(folder.iterdir()):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode(errors="surrogateescape"))
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _is_left(folder: Path) -> bool:
    """Return whether a folder is complete pictures that a killed run left: its name has the digest of its files."""
    name = folder.name.startswith(f"{PICTURES}-") and folder.is_dir() and not folder.is_symlink()
    return (
        name and all(path.is_file() for path in folder.iterdir()) and folder.name == f"{PICTURES}-{_digest(folder)}"
    )


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
    # pictures of their own name stand beside the earlier ones until index.html, in one step, shows them instead
    pictures = out / f"{PICTURES}-{_digest(staged)}"
    page = _page(staged, pictures.name, results, notes, command, methods).encode()
    before = {path.parent for path in _listed(out) or ()}
    if not _is_left(pictures):
        shutil.rmtree(pictures, ignore_errors=True)  # incomplete
        staged.rename(pictures)
    write_atomically(out / "index.html", lambda file: file.write(page))
    for folder in {*before, *filter(_is_left, out.iterdir())} - {pictures}:
        if folder.is_dir():
            shutil.rmtree(staged, ignore_errors=True)
            folder.rename(staged)  # a name that is removed whatever it holds, if a kill comes now
            shutil.rmtree(staged)


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


def _picture(staged: Path, folder: str, name: str, caption: str, scene: str = "") -> _Picture:
    with Image.open(staged / f"{name}.{SUFFIX}") as image:
        width, height = image.size
    about = f"{scene}. {caption}" if scene else caption
    return _Picture(name.rpartition("_")[2], f"{folder}/{quote(name)}.{SUFFIX}", about, width, height, caption)


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


def _scene(staged: Path, folder: str, name: str, result: Result) -> dict[str, Any]:
    """Return a scene's scores and pictures."""
    stem = file_stem(name)
    return {
        "name": name,
        "anchor": f"scene-{quote(name, safe='')}",
        "methods": _cells(result.scores) if result.scores else [],
        "mrae": ", ".join(f"{method} {_number(row[0], 'mrae')}" for method, row in result.scores.items()),
        "figures": [
            _picture(staged, folder, f"{stem}_{kind}", caption, name)
            for kind, caption in (CAPTIONS if result.scores else UNSCORED_CAPTIONS).items()
            if kind in result.figures
        ],
    }


def _page(
    staged: Path,
    folder: str,
    results: dict[str, Result],
    notes: list[str],
    command: str,
    methods: dict[str, Path],
) -> str:
    """Return index.html; the pictures, whose sizes it needs, are in `staged`, and will be in `folder`."""
    first = next(iter(methods))
    scored = all(result.scores for result in results.values())
    worst_first = sorted(results.items(), key=lambda item: -item[1].scores[first][0] if scored else 0)
    overall = [_picture(staged, folder, "scores", "Scores by scene")] if scored else []
    if (staged / f"mrae.{SUFFIX}").is_file():
        overall.append(_picture(staged, folder, "mrae", "Mean MRAE by wavelength"))
    return TEMPLATES.get_template("report.html").render(
        generator=GENERATOR,
        count=f"{plural(len(results), 'scene')}, {plural(len(methods), 'method')}",
        notes=notes,
        scored=scored,
        headings={name: score.heading.split() for name, score in SCORES.items()} if scored else {},
        higher_is_better=[name for name, score in SCORES.items() if score.higher_is_better],
        methods=_methods(results, methods),
        scenes=[_scene(staged, folder, name, result) for name, result in worst_first],
        overall=overall,
        command=command,
    )
