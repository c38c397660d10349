"""What an evaluation of trust writes: tables (CSV, Markdown), figures, and the page."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from drcr.figures.colour import true_colour, white_level
from drcr.figures.report import TEMPLATES
from drcr.images import encode_srgb, normalise_rgb
from drcr.metrics import sam_map
from drcr.scoring.scoring import median_scene
from drcr.stress.conditions import take
from drcr.stress.study import ANY, METRICS, Key, Row, Study, Summary, confidence_map, metamer_levels
from drcr.utils.files import csv_text, refuse_foreign, write_atomically

GENERATOR = '<meta name="generator" content="drcr.trust">'
HEADERS = {
    "trust.csv": ",".join(Row._fields),
    "summary.csv": ",".join(("condition", "level", "method", "metric", *(item.name for item in fields(Summary)))),
    "tables.md": "<!-- drcr.trust -->",
}
"""How the files begin, by which a later run recognises them."""
FIGURES = {
    "trust_overview": "What each condition does to the errors of the first method: the ratio to the reference image, "
    "with 95% intervals over scenes",
    "trust_mrae": "MRAE by condition, with 95% intervals over scenes; the grey level is the reference",
    "trust_mrae_best_scale": "MRAE at the best scale of each image, which does not count a wrong brightness",
    "trust_sam": "SAM by condition: the shape of the spectra alone",
    "trust_metamers": "Metamers: two truths share one image. Left: the mean MRAE of both, and the floor that no "
    "method can pass. Middle: SAM against the metamer. Right: the share of pixels that have such a metamer",
    "trust_confidence": "Where not to trust: the error that is not known in use, and the error that the map expects. "
    "The scene is that of median MRAE",
    "trust_spectra": "One image, many truths: all thin and black curves of a panel have exactly the same RGB. The "
    "scene is that of median MRAE",
}
METAMERS_ABOUT = (
    "the image is the same; × compares with the cube itself on the same pixels; no method can have a mean of both "
    "MRAEs below the floor"
)
CONFIDENCE_ABOUT = "in brackets: darkness alone as a map"
CHANGE_ABOUT = (
    "relative L1 distance of f(k x) and k f(x), and of the two cubes if one pixel of the image is set to 255"
)
REFERENCE_PLACE = "reference", "reference"
COLUMNS = ("mrae", "mrae_best_scale", "sam", "de00_d65")
"""The metrics of the tables."""
ABOUT = {
    "photo-electrons": "at white; fewer electrons, more noise",
    "JPEG quality": "at the same noise",
    "exposure": "mean of the image as a part of full scale; brighter values are clipped",
    "camera": "other curves; the image keeps light of equal energy neutral, but for the levels R and B",
    "encoding": "as the sensor sees it, or with a colour matrix and the curve of sRGB, decoded or taken as linear",
    "optics": "the truth is blurred or resized with the image",
    "one pixel at 255": "one pixel of the image is set to full scale",
    "light": "CIE illuminants on known reflectances, not white-balanced",
    "metamers": "other spectra with the same image; × compares with the cube itself on the same pixels",
}


def check_folder(out: Path) -> None:
    """Raise DataError if a file that is about to be written exists and is not from an earlier run."""
    from drcr.figures.layout import is_figure

    remedy = "choose another --out"
    for name, header in HEADERS.items():

        def begins(path: Path, header: str = header) -> bool:
            return path.is_file() and path.read_bytes().startswith(header.encode())

        refuse_foreign(out / name, begins, "a table of this script", remedy)
    refuse_foreign(
        out / "index.html",
        lambda path: path.is_file() and GENERATOR in path.read_text("utf-8", errors="replace"),
        "a page of this script",
        remedy,
    )
    for name in FIGURES:
        for suffix in ("png", "pdf"):
            refuse_foreign(
                out / f"{name}.{suffix}", lambda path: path.is_file() and is_figure(path), "a figure of ours", remedy
            )


def write_results(
    out: Path,
    rows: Sequence[Row],
    table: dict[Key, Summary],
    study: Study,
    cubes: dict[str, np.ndarray],
    wavelengths: np.ndarray,
    notes: Sequence[str],
    command: str,
) -> None:
    """Write tables, figures and the page into a folder that `check_folder` has checked.

    Parameters
    ----------
    out
        The folder.
    rows, table
        From `trust.collect` and `trust.summarise`.
    study
        What the images shared.
    cubes
        The scenes' cubes (H, W, bands) by name; the one of median MRAE is drawn.
    wavelengths
        (bands,) in nm.
    notes
        Lines below the title.
    command
        The command line.
    """
    out.mkdir(parents=True, exist_ok=True)
    lines = [(*map(csv_text, row[:3]), row.seed, row.method, row.metric, f"{row.value:.8g}") for row in rows]
    _write_csv(out / "trust.csv", lines)
    _write_csv(
        out / "summary.csv",
        [(*map(csv_text, key), *(f"{value:.8g}" for value in astuple(found))) for key, found in table.items()],
    )
    write_text(out / "tables.md", markdown(table))
    sheets = draw(rows, table, study, cubes, wavelengths)
    for name in FIGURES:
        for suffix in ("png", "pdf"):
            path = out / f"{name}.{suffix}"
            if name in sheets:
                sheets[name].save(path, dpi=130 if name == "trust_confidence" else 200)  # images make large files
            else:
                path.unlink(missing_ok=True)  # of an earlier run
    write_text(out / "index.html", _page(out, table, notes, command))


def _write_csv(path: Path, lines: Sequence[Sequence]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADERS[path.name].split(","), *lines])
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def draw(
    rows: Sequence[Row],
    table: dict[Key, Summary],
    study: Study,
    cubes: dict[str, np.ndarray],
    wavelengths: np.ndarray,
) -> dict[str, Any]:
    """Return the figures by name."""
    from drcr.figures.layout import WIDTHS
    from drcr.figures.scenes import plot_trust
    from drcr.stress import figures

    sheets = {f"trust_{metric}": figures.plot_conditions(table, metric) for metric in figures.SHOWN}
    sheets |= {"trust_overview": figures.plot_overview(table), "trust_metamers": figures.plot_metamers(table)}
    method, reconstruct = next(iter(study.methods.items()))
    first = ("reference", method, "mrae", 0)
    mrae = {row.scene: row.value for row in rows if (row.condition, row.method, row.metric, row.seed) == first}
    scene = median_scene({name: {"mrae": value} for name, value in mrae.items()})
    truth = cubes[scene]
    image = take(truth, wavelengths, study.reference, study.views, 0, scene)
    rgb = normalise_rgb(image)
    raw = reconstruct(rgb)
    rec = np.float32(raw).clip(0, 1)
    others = list(metamer_levels(truth, study.views["training"].curves(wavelengths), study))
    if (sure := confidence_map(study, truth, rgb, {method: raw})) is not None:
        colours = true_colour(rec, wavelengths, "E", white_level(truth, wavelengths, "E"))
        maps = {"expected_sam": sure.expected, "trust": sure.levels}
        true = {method: sam_map(sure.rec, truth)}
        sheets["trust_confidence"] = plot_trust({method: colours}, {method: maps}, true, WIDTHS["page"])
    sheets["trust_spectra"] = figures.plot_spectra(encode_srgb(image), truth, others, rec, method, wavelengths)
    return sheets


# ---- tables


@dataclass(frozen=True)
class _Cell:
    """A value as a text, and its ratio to the reference with its interval."""

    value: str
    ratio: str = ""


def number(value: float, metric: str) -> str:
    """Return a value as the tables print it."""
    digits = {"psnr": 2, "sam": 2, "de00_d65": 2, "de00_a": 2}.get(metric, 3)
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _cell(found: Summary | None, metric: str) -> _Cell:
    if found is None:
        return _Cell("–")
    ratio = f"×{found.ratio:.2f} ({found.ratio_low:.2f}–{found.ratio_high:.2f})" if math.isfinite(found.ratio) else ""
    return _Cell(number(found.mean, metric), ratio)


def _tables(table: dict[Key, Summary]) -> list[dict[str, Any]]:
    """Return the table of each condition: levels by methods and COLUMNS."""
    from drcr.stress.figures import levels_of, methods_of, reference_level

    tables = []
    for condition, about in ABOUT.items():
        rows = [
            {
                "level": level.replace("_", " "),
                "reference": level == reference_level(table, condition),
                "cells": [
                    _cell(table.get((condition, level, method, metric)), metric)
                    for method in methods_of(table)
                    for metric in COLUMNS
                ],
            }
            for level in levels_of(table, condition)
        ]
        if rows:
            tables.append({"title": condition[0].upper() + condition[1:], "about": about, "rows": rows})
    return tables


def _reference_rows(table: dict[Key, Summary]) -> list[tuple[str, list[str]]]:
    from drcr.stress.figures import methods_of

    return [
        (method, [number(table["reference", "reference", method, metric].mean, metric) for metric in METRICS])
        for method in methods_of(table)
    ]


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)] + [""]


def markdown(table: dict[Key, Summary]) -> str:
    """Return the main numbers as Markdown tables: the reference, conditions, metamers, equivariance."""
    from drcr.stress.figures import levels_of, methods_of, reference_level

    methods = methods_of(table)
    first = methods[0]
    lines = [HEADERS["tables.md"], "", "**The reference image**", ""]
    lines += _grid(["", *METRICS.values()], [[name, *cells] for name, cells in _reference_rows(table)])
    header = ["", "MRAE", "×", "at best scale", "×", "SAM deg", "×", "worst group", "back-projection"]
    header += [f"{method}: MRAE ×, SAM ×" for method in methods[1:]]
    rows = []
    for condition in ABOUT:
        if condition == "metamers":
            continue
        for level in levels_of(table, condition):
            if level == reference_level(table, condition) and condition != "light":
                continue
            rows.append([f"{condition}: {level}".replace("_", " "), *_row_of_level(table, condition, level, methods)])
    lines += [f"**{first} under each condition** (×: divided by the reference, with its 95% interval)", ""]
    lines += _grid(header, rows)
    lines += [f"**Metamers** ({METAMERS_ABOUT})", ""]
    lines += _grid(*_metamer_table(table, methods))
    if (*REFERENCE_PLACE, first, "bound") in table:
        lines += [f"**The confidence map** (angles in degrees; {CONFIDENCE_ABOUT})", ""]
        lines += _grid(*_confidence_table(table, first))
    lines += [f"**Scaled images** ({CHANGE_ABOUT})", ""]
    changes = _change_table(table, methods)
    lines += _grid(changes["header"], changes["rows"])
    return "\n".join(lines)


def _row_of_level(table: dict[Key, Summary], condition: str, level: str, methods: Sequence[str]) -> list[str]:
    cells = []
    for metric in ("mrae", "mrae_best_scale", "sam"):
        found = table[condition, level, methods[0], metric]
        cells += [number(found.mean, metric), f"{found.ratio:.2f} ({found.ratio_low:.2f}–{found.ratio_high:.2f})"]
    for metric in ("mrae_worst_group", "back_projection"):
        found = table.get((condition, level, methods[0], metric))
        cells.append("–" if found is None else number(found.mean, metric))
    for method in methods[1:]:
        mrae, sam = (table[condition, level, method, metric].ratio for metric in ("mrae", "sam"))
        cells.append(f"{mrae:.2f}, {sam:.2f}")
    return cells


def _metamer_table(table: dict[Key, Summary], methods: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    from drcr.stress.figures import levels_of

    header = ["", "pixels", "MRAE", "×", "SAM deg", "×", "mean MRAE of both", "floor"]
    header += [f"{method}: mean of both" for method in methods[1:]]
    rows = []
    for level in levels_of(table, "metamers"):
        place = "metamers", level
        share = f"{table[(*place, ANY, 'feasible')].mean:.1%}"
        if (*place, methods[0], "mrae") not in table:
            rows.append([level, share, *["–"] * (len(header) - 2)])
            continue
        cells = []
        for metric in ("mrae", "sam"):
            found = table[(*place, methods[0], metric)]
            cells += [number(found.mean, metric), f"{found.ratio:.2f} ({found.ratio_low:.2f}–{found.ratio_high:.2f})"]
        cells += [number(table[(*place, method, "mrae_of_both")].mean, "mrae") for method in (methods[0], ANY)]
        cells += [number(table[(*place, method, "mrae_of_both")].mean, "mrae") for method in methods[1:]]
        rows.append([level, share, *cells])
    return header, rows


def _confidence_table(table: dict[Key, Summary], method: str) -> tuple[list[str], list[list[str]]]:
    from drcr.stress.figures import reference_level

    header = ["", "images within the bound", "pixels within it", "true SAM", "expected", "bound", "rank correlation",
              "AUROC", "believable", "of those above 15°"]  # fmt: skip
    places = dict.fromkeys((condition, level) for condition, level, name, metric in table if metric == "bound")
    rows = []
    for condition, level in places:
        if level == reference_level(table, condition) and condition not in ("light", "reference"):
            continue

        def mean(metric: str, form: str, place: tuple[str, str] = (condition, level)) -> str:
            found = table.get((*place, method, metric))
            return "–" if found is None else format(found.mean, form)

        held = table[condition, level, method, "held"]
        name = "reference" if condition == "reference" else f"{condition}: {level}".replace("_", " ")
        rows.append(
            [
                name,
                f"{held.mean * held.scenes:.0f} of {held.scenes}",
                mean("within_bound", ".0%"),
                *(mean(metric, ".1f") for metric in ("sam", "expected_sam", "bound")),
                f"{mean('rank', '.2f')} ({mean('rank_of_darkness', '.2f')})",
                f"{mean('auroc', '.2f')} ({mean('auroc_of_darkness', '.2f')})",
                mean("believable", ".0%"),
                mean("wrongly_believable", ".0%"),
            ]
        )
    return header, rows


def _more_tables(table: dict[Key, Summary]) -> list[dict[str, Any]]:
    """Return the tables of metamers, confidence and equivariance for the page."""
    from drcr.stress.figures import methods_of

    methods, found = methods_of(table), []
    if (*REFERENCE_PLACE, methods[0], "bound") in table:
        header, rows = _confidence_table(table, methods[0])
        about = f"Angles in degrees; {CONFIDENCE_ABOUT}"
        found.append({"title": "The confidence map", "about": about, "header": header, "rows": rows})
    header, rows = _metamer_table(table, methods)
    return [
        {"title": "Metamers and the floor", "about": METAMERS_ABOUT, "header": header, "rows": rows},
        *found,
        {"title": "Scaled images", "about": CHANGE_ABOUT, **_change_table(table, methods)},
    ]


def _change_table(table: dict[Key, Summary], methods: Sequence[str]) -> dict[str, Any]:
    """Return how much cubes change, by method: the relative L1 distances."""
    from drcr.stress.figures import levels_of

    places = [("equivariance", level) for level in levels_of(table, "equivariance")] + [("one pixel at 255", "255")]
    rows = [[name, *(f"{table[(*place, name, 'change')].mean:.3f}" for place in places)] for name in methods]
    return {"header": ["", *(level for _, level in places[:-1]), "one pixel at 255"], "rows": rows}


def _page(out: Path, table: dict[Key, Summary], notes: Sequence[str], command: str) -> str:
    """Return index.html; the pictures are in `out`."""
    from drcr.stress.figures import methods_of

    pictures = []
    for name, caption in FIGURES.items():
        if not (out / f"{name}.png").exists():
            continue
        with Image.open(out / f"{name}.png") as image:
            pictures.append({"name": name, "caption": caption, "width": image.width, "height": image.height})
    return TEMPLATES.get_template("trust.html").render(
        generator=GENERATOR,
        methods=methods_of(table),
        notes=notes,
        reference={
            "title": "Reference",
            "header": ["method", *METRICS.values()],
            "rows": [[name, *cells] for name, cells in _reference_rows(table)],
        },
        columns=[
            (METRICS[metric].removesuffix(" at best scale"), "at best scale" * metric.endswith("scale"))
            for metric in COLUMNS
        ],
        more=_more_tables(table),
        tables=_tables(table),
        overall=pictures,
        command=command,
    )
