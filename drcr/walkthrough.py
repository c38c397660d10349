"""What the scripts that show the whole way share: running the project's commands, and tables of scores."""

import csv
import shlex
import subprocess
import sys
from pathlib import Path

from drcr.files import DataError
from drcr.scoring import HEADINGS

Scores = dict[str, dict[str, float]]


def step(folder: Path, command: str) -> None:
    """Run `python COMMAND` in one of the project's folders, as the README has it, and print it."""
    print(f"\n$ cd {folder.name} && python {command}", flush=True)
    if subprocess.run([sys.executable, *shlex.split(command)], cwd=folder).returncode:
        raise DataError("stopped: the command above failed")


def read_scores(path: Path) -> Scores:
    """Return the scores that compute_mrae.py wrote, by scene and score; the last row is the average."""
    with open(path, newline="") as file:
        return {row.pop("name"): {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)}


def middling_scene(scores: Scores) -> str:
    """Return the scene whose MRAE is the median's: a picture should not show the best one."""
    names = sorted((name for name in scores if name != "average"), key=lambda name: scores[name]["mrae"])
    return names[len(names) // 2]


def print_means(tables: dict[str, Scores]) -> None:
    """Print the average scores of each method."""
    print(f"{'':34}" + "".join(f"{heading:>9}" for heading, _ in HEADINGS.values()))
    for name, table in tables.items():
        mean = table["average"]
        print(f"{name:34}" + "".join(f"{mean[score]:9.{digits}f}" for score, (_, digits) in HEADINGS.items()))
