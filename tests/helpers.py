"""What several test files use: paths, small data, commands as functions."""

import importlib.util
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

from drcr.matfile import write_cube

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
