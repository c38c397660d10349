"""What the tests share: the golden numbers, a small prepared data set, and a way to run the scripts."""

import io
import re
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
import torch
from helpers import DATA, ROOT, load_script

from drcr.compute.device import exact_fp32
from drcr.preparation.prepare import prepare
from drcr.utils import cli

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request):
    """Return each device that is there; `device_tolerance` says how much wider a comparison may be on it."""
    exact_fp32()
    return torch.device(request.param)


@pytest.fixture
def device_tolerance(device):
    """Return the factor of a CPU's tolerance: cuDNN sums in another order. 10 on CUDA is assumed, not measured."""
    return {"cpu": 1, "cuda": 10}[device.type]


@pytest.fixture
def golden():
    """Return a golden .npz file by name, as a dict."""

    def load(name):
        with np.load(DATA / f"{name}.npz") as file:
            return dict(file)

    return load


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Run one of the project's scripts as a user does; returns status and output, after a check of the status.

    `ok`: whether it must succeed; None: it may. It runs in this process, through its `main(argv)`; with
    `process=True`, or options of subprocess.run, in one of its own.
    """

    def run(name, *options, ok=True, process=False, **kwargs):
        argv = [*map(str, options)]
        if process or kwargs:
            command = [sys.executable, ROOT / name, *argv]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, **kwargs)
        else:
            monkeypatch.chdir(tmp_path)
            done = run_here(name, argv)
        assert ok is None or (done.returncode == 0) == ok, done.stdout + done.stderr
        return done

    return run


def run_here(name, argv):
    """Run a script's `main(argv)` as its last line does; returns what subprocess.run would."""
    module, status = load_script(name), 0
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    n_threads, arguments = torch.get_num_threads(), sys.argv
    sys.argv = [str(ROOT / name), *argv]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            cli.run(module.main, argv)
        except SystemExit as ended:
            status = ended.code
            if isinstance(status, str):
                print(status, file=sys.stderr)
                status = 1
        finally:
            sys.argv = arguments
            torch.set_num_threads(n_threads)
            for number, handler in before.items():
                signal.signal(number, handler)
    return subprocess.CompletedProcess(argv, status or 0, out.getvalue(), err.getvalue())


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
