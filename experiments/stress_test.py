"""Make the tables and figures of docs/stress_test.md: test/stress_test.py on the networks in test/model.

Needs the folder that experiments/photographs.py wrote: its held-out scenes of CAVE, its held-out cameras and its
prepared training data. linear.pth is judged on linear images of the six scenes that it has not seen, model.pth on
photographs of all eight. The condition "light" uses 20 simulated scenes with reflectances of luxpy that no training
scene has.

Writes OUT/linear and OUT/model, and puts tables, sentences and figures into docs/. What is there in OUT is kept: to
judge other networks, give another --out. Prints the lines for the README.
"""

import csv
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from drcr.utils import cli
from drcr.utils.cli import step
from drcr.utils.files import DataError, write_atomically

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/stress_test.md"
UNSEEN = ("cloth", "face", "fake_and_real_food", "feathers", "glass_tiles", "stuffed_toys")
SCENES = {"linear": UNSEEN, "model": (*UNSEEN, "jelly_beans", "fake_and_real_beers")}
PRESETS = {"linear": "real-world", "model": "photograph"}
FIGURES = {"linear": ("overview", "metamers", "spectra", "confidence"), "model": ("overview", "metamers")}
NETWORK = "DRCR Net"
FLOOR = 0.01


class Level(NamedTuple):
    """A level of a condition, or a pair of them in a sentence: what it is, and the row of summary.csv."""

    condition: str
    level: str
    row: dict[str, float]

    @property
    def name(self) -> str:
        """What the level is called in a sentence."""
        return f"{self.condition}, {self.level}".replace("_", " ")


def read_summary(path: Path, method: str = NETWORK) -> dict[str, list[Level]]:
    """Return the levels of summary.csv for a method by metric."""
    found: dict[str, list[Level]] = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            condition, level, name, metric = (row.pop(key) for key in ("condition", "level", "method", "metric"))
            if name == method:
                numbers = {key: float(value) for key, value in row.items()}
                found.setdefault(metric, []).append(Level(condition, level.removeprefix("'"), numbers))
    return found


def worst(levels: Sequence[Level], key: str, *but: str) -> Level:
    """Return the level with the highest value, of all conditions but some."""
    return max((level for level in levels if level.condition not in but), key=lambda level: level.row[key])


def of(levels: Sequence[Level], condition: str, level: str) -> dict[str, float]:
    """Return the row of a level."""
    return next(found.row for found in levels if (found.condition, found.level) == (condition, level))


def sentences(
    table: dict[str, list[Level]], floors: dict[str, list[Level]], other_map: dict[str, list[Level]]
) -> list[str]:
    """Return what the numbers of a network say, beside those of any method and of the root-polynomial map."""
    ours, theirs = (
        [of(found[metric], "reference", "reference")["mean"] for metric in ("mrae", "mrae_best_scale", "sam")]
        for found in (table, other_map)
    )
    scenes = int(of(table["mrae"], "reference", "reference")["scenes"])
    lines = [
        f"On the reference image of {scenes} scenes that it has not seen the network has an MRAE of {ours[0]:.2f} "
        f"({ours[1]:.2f} at the best scale) and a SAM of {ours[2]:.1f} degrees; the root-polynomial map has "
        f"{theirs[0]:.2f} ({theirs[1]:.2f}) and {theirs[2]:.1f} degrees."
    ]
    angle, error, other = (
        worst(table["sam"], "mean"),
        worst(table["mrae"], "ratio"),
        worst(table["mrae"], "ratio", "light"),
    )
    lines.append(
        f"**The worst numbers: a SAM of {angle.row['mean']:.0f} degrees ({angle.name}); an MRAE of "
        f"{error.row['mean']:.1f}, {error.row['ratio']:.0f} times the reference's ({error.name}), and apart from the "
        f"light {other.row['mean']:.1f}, {other.row['ratio']:.0f} times ({other.name}).**"
    )
    metamer = worst([level for level in table["sam"] if level.condition == "metamers"], "ratio")
    both = of(table["mrae_of_both"], "metamers", metamer.level)["mean"]
    lines.append(
        f"Metamers, spectra that the camera cannot tell apart, raise SAM to {metamer.row['mean']:.1f} degrees "
        f"({metamer.level}), {metamer.row['ratio']:.1f} times that of the cubes themselves; the mean MRAE of both "
        f"truths is {both:.2f}, and no method whatever can be below "
        f"{of(floors['mrae_of_both'], 'metamers', metamer.level)['mean']:.2f}."
    )
    harmless = [level for level in table["sam"] if level.condition in ("photo-electrons", "JPEG quality", "camera")]
    most = worst([level for level in harmless if level.level != "10"], "ratio")
    lines.append(
        f"Noise, JPEG down to quality 30, other cameras, and gains 10% off change SAM by a factor of at most "
        f"{most.row['ratio']:.2f} ({most.name}), JPEG of quality 10 by "
        f"{of(table['sam'], 'JPEG quality', '10')['ratio']:.2f}."
    )
    if "within_bound" in table:
        least = min(table["within_bound"], key=lambda level: level.row["mean"])
        inside = of(table["within_bound"], "reference", "reference")["mean"]
        lines.append(
            f"The confidence map's bound holds for {inside:.0%} of the pixels of the reference images (90% is "
            f"promised), and for {least.row['mean']:.0%} in the worst case ({least.name}): it knows nothing of "
            "changes that the image does not show."
        )
    return lines


def run(data: Path, out: Path, name: str) -> None:
    """Judge a network in test/model."""
    if (out / name / "index.html").exists():
        return
    step(
        ROOT / "test",
        f"trust.py --preset {PRESETS[name]} --model_dir model/{name}.pth "
        f"--spectral_dir {data}/held_out/Valid_spectral --scenes "
        f"{' '.join(SCENES[name])} --reflectances_dir {out}/simulated/Valid_spectral --train_data_path "
        f"{data}/prepared/Train --other_cameras {data}/cameras/held_out --non_positive floor {FLOOR} "
        f"--out {out / name}",
    )


def fill(page: str, name: str, text: str) -> str:
    """Return a page with another text between the marks of this name."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if begin not in page or end not in page:
        raise DataError(f"{PAGE}: has no marks {begin} and {end}")
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{text.strip()}\n{end}", page, flags=re.DOTALL)


def main(argv: Sequence[str] | None = None) -> None:
    """Judge the networks, and put the results into docs/."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, default="../photographs", help="folder that photographs.py wrote")
    add("--out", type=Path, default="../trust", help="folder for the results")
    args = parser.parse_args(argv)
    data, out = args.data.resolve(), args.out.resolve()
    if shlex.quote(f"{data}{out}") != f"{data}{out}":
        raise DataError(f"{out}: choose folders without spaces and special characters")
    out.mkdir(parents=True, exist_ok=True)
    step(
        ROOT / "Dataset",
        f"simulate.py --out {out}/simulated --n_train 0 --n_valid 20 --size 128 128 --radii 8 96 --illuminants E "
        "--reflectances luxpy --seed 2026 --preset clean --keep",
    )
    page = PAGE.read_text("utf-8")
    for name in SCENES:
        run(data, out, name)
        tables = (out / name / "tables.md").read_text("utf-8").partition("\n")[2]
        page = fill(page, f"tables of {name}", tables)
        summary = out / name / "summary.csv"
        lines = sentences(*(read_summary(summary, method) for method in (NETWORK, "any method", "root-polynomial")))
        page = fill(page, f"numbers of {name}", "\n".join(f"- {line}" for line in lines))
        for figure in FIGURES[name]:
            if (out / name / f"trust_{figure}.png").exists():
                shutil.copyfile(out / name / f"trust_{figure}.png", PAGE.with_name(f"trust_{name}_{figure}.png"))
        print(f"\n{name}.pth\n" + "\n".join(lines))
    write_atomically(PAGE, lambda file: file.write(page.encode()))
    print(f"\n{PAGE}")


if __name__ == "__main__":
    cli.run(main)
