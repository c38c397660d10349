"""Compare networks: the same prepared data, steps and seeds; scores with intervals over the scenes.

Trains each network by train/main.py, reconstructs the validation images by test/test.py, and scores them, with two
maps per pixel beside. The last checkpoint is scored, because the validation scenes select the best one. Parameters,
memory and time are of this machine; time is relative to the first network, taken in turns. A network of a user's
file: --network FILE.py:Class --also "LABEL=--network FILE.py:Class --network_args KEY=VALUE".
"""

import drcr.utils.start  # isort: skip # noqa: F401
import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from drcr.checkpoint import load_model
from drcr.images import read_image
from drcr.inference import Reconstructor
from drcr.metrics import best_scale_mrae, mrae, rmse, sam
from drcr.networks import add_network_option
from drcr.scoring.scoring import pair_cubes, read_reconstruction, read_truth
from drcr.utils import cli
from drcr.utils.files import DataError, write_atomically

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = {
    "DRCR Net, small": "--channels 24 --n_blocks 2",
    "HSCNN+, small": "--network HSCNN+ --network_args n_blocks=8 channels=32",
    "MLP": "--network MLP",
}
MAPS = {"root-polynomial": "polynomial", "linear": "linear"}
METRICS = {"MRAE": mrae, "best scale": best_scale_mrae, "RMSE": rmse, "SAM deg": sam}


def run(folder: str, command: str) -> float:
    """Run a script of the project; return the most memory of it in GB."""
    script, *options = shlex.split(command)
    process = subprocess.Popen([sys.executable, script, *options], cwd=ROOT / folder)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise DataError(f"{folder}/{command}: failed")
    return usage.ru_maxrss / 1e6


def labelled(text: str) -> tuple[str, str]:
    """Read LABEL=OPTIONS."""
    label, equals, options = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"must be LABEL=OPTIONS, not {text!r}")
    return label, options


def score(results: Path, truths: Path, floor: float | None) -> dict[str, list[float]]:
    """Return the scores of each scene, by metric."""
    found: dict[str, list[float]] = {name: [] for name in METRICS}
    for rec_path, truth_path in pair_cubes(results, truths).values():
        if (truth := read_truth(truth_path, floor)) is None:
            continue
        rec = np.clip(read_reconstruction(rec_path, truth[0]).values, 0, 1)
        for name, metric in METRICS.items():
            found[name].append(float(metric(rec, truth[0].values)))
    return found


def interval(values: list[float]) -> str:
    """Return a mean and its 95% interval over scenes, by bootstrap."""
    drawn = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{np.mean(values):.4g} ({low:.4g}-{high:.4g})"


def times(checkpoints: dict[str, Path], image: np.ndarray) -> dict[str, float]:
    """Return the time of an image by each network, relative to the first; medians of 5, in turns."""
    networks = {name: Reconstructor(load_model(path)) for name, path in checkpoints.items()}
    taken: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(6):
        for name, network in networks.items():
            start = time.perf_counter()
            network(image)
            taken[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(values[1:])) for name, values in taken.items()}
    return {name: value / next(iter(medians.values())) for name, value in medians.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Train, reconstruct, score, and write compare.md and compare.json."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--data_path", type=Path, required=True, help="folder with Valid_RGB and Valid_spectral")
    add("--train_data_path", type=Path, required=True, help="prepared training data")
    add("--valid_data_path", type=Path, required=True, help="prepared validation data")
    add("--out", type=Path, default="compare", help="folder for the runs and the table")
    add("--train", default="--batchSize 8 --end_epoch 4 --init_lr 2e-3", help="options of train/main.py, for all")
    add(
        "--also",
        type=labelled,
        nargs="*",
        default=[],
        metavar="LABEL=OPTIONS",
        help="more networks, by options of train/main.py",
    )
    cli.add_non_positive(parser)
    add_network_option(parser)
    args = parser.parse_args(argv)
    out, data = args.out.resolve(), args.data_path.resolve()
    prepared = f"--train_data_path {shlex.quote(str(args.train_data_path.resolve()))}"
    images = f"--RGB_dir {shlex.quote(str(data / 'Valid_RGB'))}"
    given = f"--network {shlex.quote(args.network)}" if args.network else ""
    valid = f"--valid_data_path {shlex.quote(str(args.valid_data_path.resolve()))}"
    rows, checkpoints, memory = {}, {}, {}
    for label, options in (NETWORKS | dict(args.also)).items():
        results = out / label.replace(" ", "_").replace(",", "")
        folder = shlex.quote(str(results))
        run("train", f"main.py {options} {args.train} {prepared} {valid} --outf {folder} --resume auto")
        checkpoints[label] = results / "last.pth"
        memory[label] = run(
            "test", f"test.py {images} --model_dir {folder}/last.pth --result_dir {folder}/results {given}"
        )
        rows[label] = score(results / "results", data / "Valid_spectral", args.floor)
    for label, method in MAPS.items():
        run(
            "test", f"baseline.py --method {method} {prepared} {images} --result_dir {shlex.quote(str(out / method))}"
        )
        rows[label] = score(out / method, data / "Valid_spectral", args.floor)
    first = min((data / "Valid_RGB").iterdir())
    relative = times(checkpoints, read_image(first).normalised())
    lines = [
        f"| network | {' | '.join(METRICS)} | parameters | time, relative | memory GB |",
        "|---" * (len(METRICS) + 4) + "|",
    ]
    for label, found in rows.items():
        costs = ["", "", ""]
        if label in checkpoints:
            n = sum(values.numel() for values in load_model(checkpoints[label]).parameters())
            costs = [f"{n:,}", f"{relative[label]:.2f}", f"{memory[label]:.2f}"]
        lines.append(f"| {label} | {' | '.join([*map(interval, found.values()), *costs])} |")
    words = f"{len(next(iter(rows.values()))['MRAE'])} scenes; {args.train}; {torch.get_num_threads()} threads"
    text = "\n".join([words, "", *lines, ""])
    write_atomically(out / "compare.md", lambda file: file.write(text.encode()))
    write_atomically(out / "compare.json", lambda file: file.write(json.dumps(rows).encode()))
    print(text)


if __name__ == "__main__":
    cli.run(main)
