"""What the tests share: the golden numbers, a small prepared data set, and a way to run the scripts."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from drcr.prepare import prepare

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
SHARED = ROOT.parent / "shared"


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
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout) / 1024


@pytest.fixture
def golden():
    """Return a golden .npz file by name, as a dict."""

    def load(name):
        with np.load(DATA / f"{name}.npz") as file:
            return dict(file)

    return load


@pytest.fixture
def script(tmp_path):
    """Run one of the project's scripts as a user does; returns the finished process, after a check of its status."""

    def run(name, *options, ok=True, **kwargs):
        process = subprocess.run(
            [sys.executable, ROOT / name, *map(str, options)], cwd=tmp_path, capture_output=True, text=True, **kwargs
        )
        assert (process.returncode == 0) == ok, process.stdout + process.stderr
        return process

    return run


@pytest.fixture
def fails(script):
    """Run a script that must fail as users expect; returns its one line."""

    def run(name, *options, names, **kwargs):
        process = script(name, *options, ok=False, **kwargs)
        assert process.returncode == 1
        message = re.split(r"[\r\n]", process.stderr.strip())[-1]  # below a progress bar, perhaps
        assert message.startswith("error: "), process.stderr
        assert str(names) in message
        assert "Traceback" not in process.stderr
        return message

    return run


@pytest.fixture
def prepared(script, tmp_path):
    """Return the folders of the golden data set, prepared by the scripts for training and for validation."""
    train, valid = tmp_path / "prepared/Train", tmp_path / "prepared/Valid"
    size = ("--patch_size", 16, "--stride", 8)
    script("train/train_data_preprocess.py", "--data_path", DATA / "Dataset", "--train_data_path", train, *size)
    script("train/valid_data_preprocess.py", "--data_path", DATA / "Dataset", "--valid_data_path", valid)
    return train, valid


@pytest.fixture(scope="module")
def prepared_once(tmp_path_factory):
    """Return the same folders, for tests that leave them as they are."""
    folder = tmp_path_factory.mktemp("prepared")
    for part, size in (("Train", (16, 8)), ("Valid", ())):
        prepare(DATA / f"Dataset/{part}_spectral", DATA / f"Dataset/{part}_RGB", folder / part, *size)
    return folder / "Train", folder / "Valid"


@pytest.fixture(scope="session")
def browser():
    """Return Chromium, headless, driven by Playwright; skips where either is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()
