"""What the tests share: the golden numbers, a small prepared data set, and a way to run the scripts."""

import io
import re
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers import DATA, ROOT, load_script

from drcr.compute.device import exact_fp32
from drcr.preparation.prepare import prepare
from drcr.utils import cli

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


class Tolerance(NamedTuple):
    """How closely a device must agree, on the scale of the largest value."""

    forward: float  # a forward pass with the recorded one, and with that of the exported network
    strips: float  # Reconstructor with the plain forward pass on the CPU in fp32
    training: float  # 12 steps of training with the recorded ones: losses, weights
    resumed: float  # weights of a resumed run with those of one that never stopped; 0: bit for bit


# of the tests with the fixture `device`; on CUDA assumed, because none has run there: cuDNN sums in another order
TOLERANCES = {
    ("cpu", "fp32"): Tolerance(1e-5, 3e-6, 1e-4, 0),
    ("cpu", "bf16"): Tolerance(2e-2, 2e-2, 5e-2, 0),
    ("cuda", "fp32"): Tolerance(1e-4, 3e-5, 1e-3, 1e-2),
    ("cuda", "tf32"): Tolerance(5e-3, 5e-3, 2e-2, 5e-2),
    ("cuda", "bf16"): Tolerance(2e-2, 2e-2, 5e-2, 0.1),
}


def hide_gpu(patch):
    """Let commands find no GPU, in this process and in their own."""
    patch.setattr("torch.cuda.is_available", lambda: False)
    patch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="session", autouse=True)
def without_gpu():
    """All tests run on the CPU, except those with the fixture `device`."""
    with pytest.MonkeyPatch.context() as patch:
        hide_gpu(patch)
        yield patch


def pytest_addoption(parser):
    parser.addoption(
        "--precision", choices=("fp32", "tf32", "bf16"), default="fp32", help="of the tests with the fixture `device`"
    )


@pytest.fixture(scope="session")
def precision(pytestconfig):
    """Return the option --precision."""
    return pytestconfig.getoption("precision")


@pytest.fixture(scope="module", params=DEVICES)
def device(request, precision, without_gpu):
    """Return each device that is there, set up for the precision; commands run on it."""
    if request.param == "cuda":
        without_gpu.undo()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    yield torch.device(request.param)
    exact_fp32()
    hide_gpu(without_gpu)


@pytest.fixture
def tolerance(device, precision):
    """Return how exactly the device computes in the precision."""
    return TOLERANCES[device.type, precision]


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
