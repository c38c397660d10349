"""What several test files use: paths, small data, commands as functions."""

import csv
import importlib.util
import os
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import torch

from drcr.checkpoint import read_checkpoint
from drcr.formats.mat import write_cube

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
SHARED = ROOT.parent / "shared"
# real processes import the library of this checkout, wherever an installed one is
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


@lru_cache
def load_script(name: str) -> ModuleType:
    """Import a script of the project, as `train/main.py`; its folder stays importable, as when Python runs it."""
    path = ROOT / name
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module_name = "command_" + name.removesuffix(".py").replace("/", "_")
    spec = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # where a process of a pool looks for its functions
    spec.loader.exec_module(module)
    return module


def peak_memory(*command) -> float:
    """Run a command; return the MB that the largest of its processes had in memory.

    By way of a small process: the system counts what a process' parent has in memory, too.
    """
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, capture_output=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, sys.executable, *map(str, command)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(process.stdout) / 1024


def make_scenes(folder, count, size=(20, 24)):
    """Write `count` scenes into folder/s and folder/r; return both."""
    rng = np.random.default_rng(0)
    (folder / "s").mkdir(parents=True)
    (folder / "r").mkdir()
    for i in range(count):
        write_cube(folder / f"s/scene{i:03}.mat", rng.random((*size, 31)) + 0.1)
        cv2.imwrite(str(folder / f"r/scene{i:03}.png"), rng.integers(0, 256, (*size, 3), np.uint8))
    return folder / "s", folder / "r"


# ---- training runs

EPOCHS = 5  # of 4 batches: the golden data set has 30 patches of 16 x 16
RUN_OPTIONS = ("--channels", 8, "--n_blocks", 1, "--batchSize", 8, "--init_lr", "1e-3", "--save_every", 1)


def run_options(prepared, outf, *options):
    """Return the options of a small run in the folder `outf`; `prepared`: the folders of its data."""
    paths = ("--train_data_path", prepared[0], "--valid_data_path", prepared[1], "--outf", outf)
    return [*map(str, (*RUN_OPTIONS, "--end_epoch", EPOCHS, *paths, *options))]


def begin(prepared, outf, *options, launcher=(), **kwargs):
    """Start a small run in a process of its own; return the process."""
    command = [
        sys.executable,
        *map(str, launcher),
        str(ROOT / "train/main.py"),
        *run_options(prepared, outf, *options),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


def finish(process, status=0):
    """Wait for a process, and check its exit status; return what it printed to stdout and stderr."""
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == status, errors
    return printed, errors


def ended(process):
    """Return a function that tells whether a process has ended."""
    return lambda: process.poll() is not None


def wait_for_saves(path, count, done):
    """Wait until a file has been replaced `count` times, or `done()` is true."""
    seen, last = 0, path.stat().st_ino if path.exists() else None
    while seen < count and not done():
        time.sleep(0.002)  # the core is the run's
        try:
            now = path.stat().st_ino
        except FileNotFoundError:
            continue
        seen, last = seen + (now != last), now


def rows(folder):
    """Return the rows of a run's loss.csv, as dicts of strings."""
    with open(folder / "loss.csv", newline="") as file:
        return list(csv.DictReader(file))


def same_run(ours, theirs, tolerance=0):
    """Return whether two runs ended with the same weights, bit for bit, and the same table except for the seconds.

    With a `tolerance`: whether the weights differ by so small a part of their norm.
    """
    first, second = (read_checkpoint(folder / "last.pth") for folder in (ours, theirs))
    if tolerance:
        a, b = (torch.cat([x.flatten() for x in run["state_dict"].values()]) for run in (first, second))
        return first["iter"] == second["iter"] and (a - b).norm() <= tolerance * b.norm()
    tables = [[{**row, "seconds": ""} for row in rows(folder)] for folder in (ours, theirs)]
    moments = [
        [value for state in checkpoint["optimizer"]["state"].values() for value in state.values()]
        for checkpoint in (first, second)
    ]
    weights = [checkpoint["state_dict"].values() for checkpoint in (first, second)]
    return (
        tables[0] == tables[1]
        and first["best"] == second["best"]
        and all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
        and all(torch.equal(a, b) for a, b in zip(*moments, strict=True))
    )
