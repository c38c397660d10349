"""Run on a GPU, in below ten minutes, all that has run on CPUs alone; write gpu.md and gpu.json.

The tests with the fixture `device` in each precision; reconstruction against the CPU; training of the full size,
batch 16, 200 steps, in each precision and compiled; kill and resume; torchrun with all GPUs; bench.py. Then a plan of
a full training. Each step has a share of the time that is left, and is stopped after it; one that fails is a row of
the table, and the others go on. Without a GPU it says so, and runs the same steps with small sizes on the CPU: that
is its test.
"""

import drcr.utils.start  # isort: skip # noqa: F401
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from drcr.checkpoint import load_model, save_checkpoint
from drcr.compute.device import Precision, choose_device, for_training, native_bf16
from drcr.inference import Reconstructor
from drcr.metrics import mrae
from drcr.model import DRCR
from drcr.training.loop import training_step
from drcr.training.state import make_optimizer
from drcr.utils import cli
from drcr.utils.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
CUDA = torch.cuda.is_available()
DEVICE = choose_device()
# channels, blocks, patch, batch, steps, image
SIZES = (100, 10, 128, 16, 200, (480, 512)) if CUDA else (16, 1, 32, 4, 10, (48, 64))
TESTS = (
    *(f"tests/test_{name}.py" for name in ("model", "inference", "train", "export")),
    "tests/test_resume.py::test_killed_at_random_moments_it_ends_as_if_never_stopped",
)
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
ITERATIONS = 300_000
SECONDS = 570 if CUDA else 3600
"""For all steps."""


def command(*words: object, folder: Path = ROOT) -> str:
    """Run a command; return its last line. Raises RuntimeError with that line, and prints all, if it fails."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    with subprocess.Popen([str(word) for word in words], cwd=folder, env=ENVIRONMENT, **pipes) as process:
        try:
            printed, _ = process.communicate()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)  # torchrun then ends its processes
                time.sleep(5)
                os.killpg(process.pid, signal.SIGKILL)
    last = (printed.strip().splitlines() or [""])[-1]
    if process.returncode:
        print(printed, file=sys.stderr)
        raise RuntimeError(last)
    return last


def tests(precision: str) -> str:
    """Run the tests with the fixture `device`."""
    side_by_side = ("--numprocesses", 4) if CUDA else ()
    words = ("-q", "-k", DEVICE.type, "--precision", precision, *side_by_side)
    return command(sys.executable, "-m", "pytest", *words, *TESTS)


def network(n_blocks: int = SIZES[1]) -> DRCR:
    """Return a network of the size, with the same random weights each time."""
    torch.manual_seed(0)
    return DRCR(channels=SIZES[0], n_blocks=n_blocks)


@cache
def reference() -> tuple[np.ndarray, np.ndarray]:
    """Return an image, and its cube by the CPU in fp32."""
    rgb = np.random.default_rng(0).random((*SIZES[5], 3), np.float32)
    return rgb, Reconstructor(network().eval())(rgb)


def reconstruction(precision: Precision) -> str:
    """Return how far a reconstruction is from the CPU's in fp32."""
    rgb, expected = reference()
    cube = Reconstructor(network().eval().to(choose_device()), precision)(rgb)  # pyright: ignore[reportArgumentType]
    return f"largest difference {np.abs(cube - expected).max() / np.abs(expected).max():.2g} of the largest value"


def training(seconds: float, precision: Precision, compiled: bool = False) -> dict[str, float]:
    """Train on random patches for so long at most; return iterations per second, memory in GB and the last loss."""
    end = time.monotonic() + 0.9 * seconds
    device, (_, n_blocks, patch, batch, steps, _) = choose_device(precision), SIZES
    model = network(0 if compiled and not CUDA else n_blocks)  # a CPU's compiler takes minutes for a block
    trained = for_training(model, device, compiled=compiled)
    optimizer = make_optimizer(model, 1e-4)
    rgb = torch.rand(batch, 3, patch, patch, device=device)
    cube = torch.rand(batch, 31, patch, patch, device=device) + 0.1
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    start, done, loss = 0.0, -5, np.inf  # the first choose algorithms, or compile
    while done < steps and time.monotonic() < end:
        if done == 0:
            start = time.perf_counter()
        for _ in range(5):
            last = training_step(trained, optimizer, mrae, rgb, cube, precision)
        done, loss = done + 5, last.item()
    if done < 5 or not np.isfinite(loss):
        raise RuntimeError(f"{done + 5} steps, the loss is {loss}")
    rate = done / (time.perf_counter() - start)
    return {"it/s": rate, "GB": torch.cuda.max_memory_allocated() / 1e9 if CUDA else 0.0, "steps": done, "loss": loss}


def saving() -> dict[str, float]:
    """Save a checkpoint with the optimizer's two moments; return what it takes."""
    model = network()
    moments = [weight.clone() for weight in (*model.parameters(), *model.parameters())]
    with tempfile.TemporaryDirectory() as folder:
        start, path = time.perf_counter(), Path(folder) / "last.pth"
        save_checkpoint(path, model, optimizer=moments)
        return {"s": time.perf_counter() - start, "MB": path.stat().st_size / 1e6}


class Runs:
    """Small runs of train/main.py on the same simulated data, in a folder."""

    def __init__(self, folder: Path) -> None:
        """Touch nothing yet."""
        self.folder = folder

    @cached_property
    def options(self) -> list[str]:
        """The options of main.py that all share, after the data are made."""
        data, prepared = self.folder / "data", [self.folder / part for part in ("train", "valid")]
        scenes = ("--n_train", 2, "--n_valid", 1, "--size", 64, 64)
        command(sys.executable, "simulate.py", "--data_path", data, *scenes, folder=ROOT / "Dataset")
        for path, more in zip(prepared, (("--patch_size", 32, "--stride", 8), ()), strict=True):
            words = (f"{path.name}_data_preprocess.py", "--data_path", data, f"--{path.name}_data_path", path, *more)
            command(sys.executable, *words, folder=ROOT / "train")
        paths = (f"--train_data_path={prepared[0]}", f"--valid_data_path={prepared[1]}")
        return [*paths, *shlex.split("--channels 16 --n_blocks 1 --end_epoch 4 --batchSize 8 --save_every 1")]

    def out(self, name: str) -> list[str]:
        """Return the options of a run's folder."""
        return [f"--outf={self.folder / name}", "--resume", "auto"]

    def train(self, name: str, *launcher: str) -> torch.Tensor:
        """Run to the end, or go on to it; return the weights in a row."""
        command(sys.executable, *launcher, "main.py", *self.options, *self.out(name), folder=ROOT / "train")
        return torch.cat(
            [weight.flatten() for weight in load_model(self.folder / name / "last.pth").state_dict().values()]
        )

    @cached_property
    def whole(self) -> torch.Tensor:
        """The weights of a run that never stopped."""
        return self.train("whole")

    def compare(self, weights: torch.Tensor) -> str:
        """Return how far weights are from those of the run that never stopped."""
        difference = (weights - self.whole).abs().max().item()
        largest = self.whole.abs().max().item()
        return f"largest difference of a weight {difference:.2g}, largest weight {largest:.2g}"

    def killed(self) -> str:
        """Kill a run within an epoch, resume it, and compare its weights: on a CPU they must be the same."""
        words = [sys.executable, "main.py", *self.options, *self.out("killed")]
        where, nowhere = ROOT / "train", subprocess.DEVNULL
        process = subprocess.Popen(words, cwd=where, env=ENVIRONMENT, stdout=nowhere, stderr=nowhere)
        try:
            while not (self.folder / "killed/last-1.pth").exists() and process.poll() is None:
                time.sleep(0.01)
        finally:
            process.kill()
            process.wait()
        weights = self.train("killed")
        if torch.equal(weights, self.whole):
            return "the same weights as a run that never stopped, bit for bit"
        if not CUDA:
            raise RuntimeError(self.compare(weights))
        return self.compare(weights)

    def distributed(self, count: int) -> str:
        """Run in several processes; compare with the run in one."""
        return self.compare(self.train("torchrun", "-m", "torch.distributed.run", f"--nproc_per_node={count}"))


def bench() -> dict[str, float]:
    """Return the seconds of bench.py's ways, which are in a GPU's memory at the same time."""
    with tempfile.TemporaryDirectory() as folder:
        out, size = Path(folder) / "bench.json", ("--rounds", 1, "--batch", 4) if CUDA else ("--quick",)
        words = ("--stages", "reconstruct", "train", *size, "--json", out)
        command(sys.executable, "bench.py", *words, folder=ROOT / "benchmarks")
        stages = json.loads(out.read_text())["stages"]
    return {f"s {stage} {way}": found["median"] for stage in stages for way, found in stages[stage].items()}


def plan(results: dict[str, object]) -> str:
    """Return the plan of a full training by the fastest training that was measured."""
    rates = {name: found["it/s"] for name, found in results.items() if isinstance(found, dict) and "it/s" in found}
    step, rate = max(rates.items(), key=lambda item: item[1])
    save = results["save a checkpoint"]
    cost = f" takes {save['s'] / 6:.2g}% of the time" if isinstance(save, dict) else ""
    return (
        f"{'' if CUDA else '(of the small sizes) '}{step}: {ITERATIONS:,} iterations at {rate:.3g} it/s: "
        f"{ITERATIONS / rate / 3600:.1f} hours, without validation. --save_every 10min, the default,{cost}; a kill "
        f"costs 10 minutes at most, {600 * rate:.0f} iterations; Ctrl-C or SIGTERM costs nothing but the start"
    )


def list_steps(runs: Runs) -> dict[str, tuple[float, Callable[[float], object]]]:
    """Return the steps: their share of the time, and what to run, which gets its seconds."""
    bf16: list[Precision] = ["bf16"] if native_bf16(DEVICE) else []
    precisions: list[Precision] = ["fp32", *(["tf32"] if CUDA else []), *bf16]
    count = torch.cuda.device_count() if CUDA else 2
    return {
        **{f"tests, {p}": (70, lambda _, p=p: tests(p)) for p in precisions},
        **{f"reconstruct, {p}": (25, lambda _, p=p: reconstruction(p)) for p in ("fp32", *bf16)},
        **{f"train, {p}": (45, lambda seconds, p=p: training(seconds, p)) for p in precisions},
        "train, compiled": (75, lambda seconds: training(seconds, precisions[-1], compiled=True)),
        "save a checkpoint": (5, lambda _: saving()),
        "kill and resume": (50, lambda _: runs.killed()),
        f"torchrun, {count} processes": (30, lambda _: runs.distributed(count)),
        "bench.py": (100, lambda _: bench()),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the steps, and write the table."""
    parser = cli.parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="files to write, without .md and .json")
    args = parser.parse_args(argv)
    name = torch.cuda.get_device_name() if CUDA else "no GPU: small sizes on the CPU"
    print(name, flush=True)
    results: dict[str, object] = {}
    signal.signal(signal.SIGALRM, late)
    end = time.monotonic() + SECONDS
    with tempfile.TemporaryDirectory() as folder:
        steps = list_steps(Runs(Path(folder)))
        left = sum(share for share, _ in steps.values())
        for step, (share, run) in steps.items():
            seconds, left = max((end - time.monotonic()) * share / left, 1), left - share
            signal.setitimer(signal.ITIMER_REAL, seconds)
            try:
                results[step] = run(seconds)
            except Exception as error:  # a row of the table, so that the other steps' figures are not lost
                results[step] = f"FAILED: {' '.join(str(error).split())[:200]}"
            signal.setitimer(signal.ITIMER_REAL, 0)
            torch.cuda.empty_cache()  # for the processes of the steps that follow; without a GPU it does nothing
            print(f"{step}: {_words(results[step])}", flush=True)
            write_table(args.out, name, results)  # after each: a machine that is taken away leaves what was measured
    if any("it/s" in found for found in results.values() if isinstance(found, dict)):
        results["plan"] = plan(results)
    write_table(args.out, name, results)
    print(args.out.with_suffix(".md").read_text())


def late(*_: object) -> NoReturn:
    """End a step whose time is over."""
    raise TimeoutError("stopped: its share of the time is over")


def write_table(out: Path, name: str, results: dict[str, object]) -> None:
    """Write the results as Markdown and JSON."""
    rows = [f"| {step} | {_words(found)} |" for step, found in results.items()]
    text = "\n".join([f"{name}, PyTorch {torch.__version__}", "", "| step | result |", "|---|---|", *rows, ""])
    write_atomically(out.with_suffix(".md"), lambda file: file.write(text.encode()))
    document = json.dumps({"machine": name, "torch": torch.__version__, "results": results}, indent=1)
    write_atomically(out.with_suffix(".json"), lambda file: file.write(document.encode()))


def _words(found: object) -> str:
    return "; ".join(f"{value:.3g} {key}" for key, value in found.items()) if isinstance(found, dict) else str(found)


if __name__ == "__main__":
    cli.run(main)
