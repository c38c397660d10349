"""A report as one folder: index.html, which needs no server and no network, and pictures/ beside it."""

import html
import math
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from drcr.evaluation.comparison import KINDS, Result
from drcr.metrics import HEADINGS, SCORES
from drcr.utils.files import DataError, write_atomically

GENERATOR = '<meta name="generator" content="drcr.report">'
PICTURES, STAGING = "pictures", ".pictures.tmp"
SUFFIX = "webp"
CAPTIONS = {
    "colour": "Input, truth and reconstructions in true colour",
    "bands": "Bands, the truth above the reconstructions",
    "errors": "Absolute error, and relative error below",
    "spectra": "Spectra at the points marked; r is Pearson's correlation with the truth",
    "mrae": "MRAE by wavelength",
}
HIGHER_IS_BETTER = ("psnr", "ssim")


def check_folder(out: Path) -> None:
    """Raise DataError if a folder must not take a report: it holds what no earlier report has put there."""
    index, pictures = out / "index.html", out / PICTURES
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; choose another --out")
    page = index.read_text("utf-8", errors="replace") if index.is_file() else ""
    ours = GENERATOR in page
    listed = set(re.findall(f'src="{PICTURES}/([^"]+)"', page)) if ours else set()
    for path in sorted(out.iterdir()) if out.is_dir() and not ours else ():
        if path.name != STAGING:
            raise DataError(f"{out}: holds {path.name}, and no earlier report; choose another --out")
    for path in sorted(pictures.iterdir()) if pictures.is_dir() else ():
        if quote(path.name) not in listed:
            raise DataError(f"{path}: is not from the report that is there; take it away, or choose another --out")


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """Give a folder for new pictures within `out`; whatever happens, it is gone afterwards."""
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
    """Put the pictures in their place, and index.html last: until then there is the earlier report, or none."""
    page = _page(staged, results, notes, command, methods).encode()
    (out / "index.html").unlink(missing_ok=True)
    shutil.rmtree(out / PICTURES, ignore_errors=True)
    staged.rename(out / PICTURES)
    write_atomically(out / "index.html", lambda file: file.write(page))


def _number(value: float, score: str) -> str:
    return f"{value:.{HEADINGS[score][1]}f}" if math.isfinite(value) else {math.inf: "∞"}.get(value, "–")


def _best(values: list[float], score: str) -> float | None:
    """Return the best of several methods' scores, None of a single one."""
    return (max if score in HIGHER_IS_BETTER else min)(values) if len(values) > 1 else None


def _cells(table: dict[str, list[float]], method: str) -> str:
    """Return a method's scores as cells, bold where it is the best of all methods in `table`."""
    cells = []
    for i, score in enumerate(SCORES):
        value = float(table[method][i])
        text = _number(value, score)
        if value == _best([float(row[i]) for row in table.values()], score):
            text = f"<b>{text}</b>"
        cells.append(f'<td data-value="{value!r}">{text}</td>')
    return "".join(cells)


def _figure(folder: Path, name: str, caption: str, about: str) -> str:
    with Image.open(folder / f"{name}.{SUFFIX}") as image:
        width, height = image.size
    source, about = f"{PICTURES}/{quote(name)}.{SUFFIX}", html.escape(about)
    image = f'<img src="{source}" alt="{about}" width="{width}" height="{height}" loading="lazy" decoding="async">'
    kind = name.rpartition("_")[2]
    return f'<figure class="{kind}">{image}<figcaption>{html.escape(caption)}</figcaption></figure>'


def _means(results: dict[str, Result], methods: dict[str, Path]) -> str:
    """Return the rows of the methods: mean scores, and where the reconstructions come from."""
    means = {name: np.mean([result.scores[name] for result in results.values()], 0).tolist() for name in methods}
    rows = []
    for name, folder in methods.items():
        origins = sorted({result.origins[name] for result in results.values()})
        told = "; ".join(html.escape(origin) if origin else "its files do not say" for origin in origins)
        rows.append(
            f'<tr><th scope="row">{html.escape(name)}</th>{_cells(means, name)}'
            f'<td class="text">{told}<br><code>{html.escape(str(folder))}</code></td></tr>'
        )
    return "".join(rows)


def _page(staged: Path, results: dict[str, Result], notes: list[str], command: str, methods: dict[str, Path]) -> str:
    """Return index.html; the pictures, whose sizes it needs, are in `staged`."""
    first = next(iter(methods))
    order = sorted(results, key=lambda name: -results[name].scores[first][0])
    rows, sections = [], []
    for name in order:
        result, anchor, title = results[name], f"scene-{quote(name, safe='')}", html.escape(name)
        cells = "".join(_cells(result.scores, method) for method in methods)
        rows.append(
            f'<tr data-scene="{anchor}"><th scope="row" data-value="{title}"><a href="#{anchor}">{title}</a></th>'
            f"{cells}</tr>"
        )
        mrae = ", ".join(f"{html.escape(m)} {_number(result.scores[m][0], 'mrae')}" for m in methods)
        figures = "".join(
            _figure(staged, f"{name}_{kind}", CAPTIONS[kind], f"{name}: {CAPTIONS[kind].lower()}") for kind in KINDS
        )
        sections.append(
            f'<details class="scene" id="{anchor}"><summary><h3>{title}</h3> <span>MRAE: {mrae}</span></summary>'
            f'<div class="figures">{figures}</div>'
            '<p class="back"><a href="#scenes">Back to the table</a></p></details>'
        )
    headings = [HEADINGS[score][0].replace(" ", "<br>") for score in SCORES]
    sorts = "".join(
        f'<th scope="col" data-better="{"high" if score in HIGHER_IS_BETTER else "low"}"'
        f'{" aria-sort=descending" if not i and not j else ""}><button type="button">{heading}</button></th>'
        for i in range(len(methods))
        for j, (score, heading) in enumerate(zip(SCORES, headings, strict=True))
    )
    over_all = [_figure(staged, "scores", "Scores by scene", "Scores by scene")]
    if (staged / f"mrae.{SUFFIX}").is_file():
        over_all.append(_figure(staged, "mrae", "Mean MRAE by wavelength", "Mean MRAE by wavelength"))
    count = f"{len(results)} scene{'s' * (len(results) > 1)}, {len(methods)} method{'s' * (len(methods) > 1)}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{GENERATOR}
<title>Spectral reconstruction: {count}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>Spectral reconstruction: {count}</h1>
<p>{"<br>".join(html.escape(note) for note in notes)}</p>
<h2>Means over the scenes</h2>
<div class="table" role="region" aria-label="Means" tabindex="0"><table>
<thead><tr><th scope="col">method</th>{"".join(f'<th scope="col">{heading}</th>' for heading in headings)}
<th scope="col" class="text">origin, as its files say; folder</th></tr></thead>
<tbody>{_means(results, methods)}</tbody>
</table></div>
<h2 id="scenes">Scenes</h2>
<p class="hint">A click on a score sorts by it, the worst scene first; another one, the best.
Bold: the best method.</p>
<div class="table" role="region" aria-label="Scores by scene" tabindex="0"><table class="sortable">
<thead><tr><th rowspan="2" scope="col" data-better="low"><button type="button">scene</button></th>
{"".join(f'<th colspan="{len(SCORES)}" scope="colgroup">{html.escape(name)}</th>' for name in methods)}</tr>
<tr>{sorts}</tr></thead>
<tbody>{"".join(rows)}</tbody>
</table></div>
<p class="tools"><button type="button" data-open="open">Open all</button>
<button type="button" data-open="">Close all</button></p>
<details><summary><h3>All scenes</h3> <span>Scores by scene, mean MRAE by wavelength</span></summary>
<div class="figures">{"".join(over_all)}</div></details>
<div id="sections">{"".join(sections)}</div>
<h2>Made by</h2>
<pre tabindex="0"><code>{html.escape(command)}</code></pre>
</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""


_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --soft: #555; --paper: #fff; --band: #f3f3f1; --line: #c9c9c4;
  --link: #0b57a0; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --soft: #b4b4b4; --paper: #161616; --band: #242424;
  --line: #4a4a4a; --link: #8cc4ff; } }
* { box-sizing: border-box; }
html { scroll-padding-top: .5rem; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1500px; margin: 0 auto; padding: 1rem 1.5rem 3rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 0; display: inline; }
p { margin: .5rem 0; max-width: 75rem; overflow-wrap: anywhere; }
a { color: var(--link); }
.hint, summary span, figcaption { color: var(--soft); }
.table { overflow: auto; max-height: 85vh; border: 1px solid var(--line); }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; font-size: .875rem;
  width: 100%; }
th, td { padding: .3rem .5rem; vertical-align: top; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
td.text, th.text { text-align: left; white-space: normal; min-width: 18rem; overflow-wrap: anywhere; }
tbody th, thead tr:first-child > :first-child { text-align: left; position: sticky; left: 0;
  background: var(--paper); font-weight: normal; }
thead { position: sticky; top: 0; z-index: 1; }
thead th, thead tr:first-child > :first-child { background: var(--band); font-weight: 600; }
thead th[colspan] { text-align: center; white-space: normal; border-left: 1px solid var(--line); }
.sortable :is(td, thead tr + tr th):nth-of-type(5n + 1) { border-left: 1px solid var(--line); }
tbody tr:hover > * { background: var(--band); }
tbody tr:last-child > * { border-bottom: 0; }
button { font: inherit; color: inherit; cursor: pointer; background: none; border: 1px solid var(--line);
  border-radius: 4px; padding: .25rem .7rem; }
th button { border: 0; padding: 0; text-align: right; line-height: 1.3;
  text-decoration: underline dotted; text-underline-offset: 3px; }
th[aria-sort] button { text-decoration: none; }
th[aria-sort="descending"] button::after { content: "\\a0\\2193"; }
th[aria-sort="ascending"] button::after { content: "\\a0\\2191"; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
details { border: 1px solid var(--line); border-radius: 4px; margin: .5rem 0; }
summary { padding: .5rem .8rem; cursor: pointer; background: var(--band); }
summary span { margin-left: .8rem; font-size: .9rem; font-variant-numeric: tabular-nums; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 38rem), 1fr)); gap: 1rem;
  padding: 1rem .8rem 0; align-items: start; }
figure { margin: 0; }
.figures .colour { grid-column: 1 / -1; }
img { display: block; width: 100%; height: auto; background: #fff; padding: .4rem; border: 1px solid var(--line); }
figcaption { font-size: .9rem; margin-top: .25rem; }
.back { margin: .8rem; font-size: .9rem; }
pre { background: var(--band); padding: .8rem; margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 1100px) { .sortable { font-size: .8rem; } .sortable :is(th, td) { padding: .3rem; } }
@media print {
  :root { --ink: #000; --soft: #333; --paper: #fff; --band: #fff; --line: #999; --link: #000; color-scheme: light; }
  main { padding: 0; max-width: none; } body { font-size: 10pt; }
  .tools, .back, .hint, details:not([open]) { display: none; }
  .table { max-height: none; overflow: visible; } thead, tbody th { position: static; }
  table { font-size: 7pt; } th, td { padding: .2em .35em; }
  .figures { display: block; } figure, tr { break-inside: avoid; } figure { margin-bottom: 1rem; }
}
"""

_SCRIPT = """
const table = document.querySelector(".sortable");
const number = text => Number(text.replace("inf", "Infinity"));
const value = cell => cell.tagName === "TH" ? cell.dataset.value : number(cell.dataset.value);
const compare = (a, b) => typeof a === "string" ? a.localeCompare(b) : a - b;
const columns = [...table.querySelectorAll("th[data-better]")];
columns.forEach((column, index) => column.querySelector("button").addEventListener("click", () => {
  const worst = column.dataset.better === "low" && index > 0 ? "descending" : "ascending";
  const best = worst === "ascending" ? "descending" : "ascending";
  const order = column.getAttribute("aria-sort") === worst ? best : worst;
  columns.forEach(other => other.removeAttribute("aria-sort"));
  column.setAttribute("aria-sort", order);
  const rows = [...table.tBodies[0].rows].map(row => [value(row.cells[index]), row]);
  rows.sort(([a], [b]) => Number.isNaN(a) || Number.isNaN(b) ? Number.isNaN(a) - Number.isNaN(b)
    : order === "ascending" ? compare(a, b) : compare(b, a));
  const sections = document.getElementById("sections");
  for (const [, row] of rows) {
    table.tBodies[0].append(row);
    sections.append(document.getElementById(row.dataset.scene));
  }
}));
const show = hash => {
  const section = document.getElementById(hash.slice(1));
  if (section?.matches("details")) section.open = true;
};
addEventListener("hashchange", () => show(location.hash));
document.addEventListener("click", event => {
  const link = event.target.closest("a[href^='#']");
  if (link) show(link.getAttribute("href"));
});
show(location.hash);
for (const button of document.querySelectorAll("[data-open]")) button.addEventListener("click", () => {
  for (const section of document.querySelectorAll("details")) section.open = !!button.dataset.open;
});
addEventListener("beforeprint", () => {
  for (const image of document.querySelectorAll("details[open] img")) image.loading = "eager";
});
"""
