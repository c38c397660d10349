"""Run on a GPU, in below ten minutes, all that has run on CPUs alone; write gpu.md and gpu.json.

The tests with the fixture `device`; reconstruction against the CPU; training of the full size, batch 16, 200 steps,
in fp32, tf32, bf16 and compiled; kill and resume; torchrun with all GPUs; bench.py. Then a plan of a full training.
Without a GPU it says so, and runs the same steps with small sizes on the CPU: that is its test. A step that fails is
a row of the table, and the others go on.
"""

import drcr.utils.start  # isort: skip # noqa: F401
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from drcr.compute.device import for_training, native_bf16
from drcr.inference import Reconstructor
from drcr.metrics import mrae
from drcr.model import DRCR
from drcr.training.loop import training_step
from drcr.training.state import make_optimizer
from drcr.utils import cli
from drcr.utils.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
# channels, blocks, patch, batch, steps, image
SIZES = (100, 10, 128, 16, 200, (480, 512)) if CUDA else (16, 1, 32, 4, 10, (48, 64))
TESTS = ("tests/test_model.py", "tests/test_inference.py::test_on_multiples_of_four_padded_is_the_plain_forward_pass")
ITERATIONS = 300_000


def command(*words: object, limit: int = 120, folder: Path = ROOT) -> str:
    """Run a command; return its last line. Raises RuntimeError with that line if it fails."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    options = {"capture_output": True, "text": True, "timeout": limit, "cwd": folder, "env": environment}
    done = subprocess.run([str(word) for word in words], check=False, **options)
    lines = (done.stdout + done.stderr).strip().splitlines() or [""]
    if done.returncode:
        raise RuntimeError(lines[-1])
    return lines[-1]


def network() -> DRCR:
    """Return a network of the size, with the same random weights each time."""
    torch.manual_seed(0)
    return DRCR(channels=SIZES[0], n_blocks=SIZES[1])


def reconstruction(precision: str) -> str:
    """Return how far a reconstruction is from the CPU's in fp32."""
    rgb = np.random.default_rng(0).random((*SIZES[5], 3), np.float32)
    expected = Reconstructor(network().eval())(rgb)
    cube = Reconstructor(network().eval().to(DEVICE), precision)(rgb)  # pyright: ignore[reportArgumentType]
    return f"largest difference {np.abs(cube - expected).max() / np.abs(expected).max():.2g} of the largest value"


def training(precision: str, compiled: bool = False) -> dict[str, float]:
    """Train on random patches; return iterations per second, memory in GB and the last loss."""
    _, _, patch, batch, steps, _ = SIZES
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    model = network()
    trained = for_training(model, DEVICE, compiled=compiled)
    optimizer = make_optimizer(model, 1e-4)
    rgb = torch.rand(batch, 3, patch, patch, device=DEVICE)
    cube = torch.rand(batch, 31, patch, patch, device=DEVICE) + 0.1
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    start, loss = time.perf_counter(), torch.zeros(())
    for i in range(steps + 5):
        if i == 5:  # the first choose algorithms, or compile
            loss.item()
            start = time.perf_counter()
        loss = training_step(trained, optimizer, mrae, rgb, cube, precision)  # pyright: ignore[reportArgumentType]
    last = loss.item()
    if not np.isfinite(last):
        raise RuntimeError(f"the loss is {last}")
    rate = steps / (time.perf_counter() - start)
    return {"it/s": rate, "GB": torch.cuda.max_memory_allocated() / 1e9 if CUDA else 0.0, "loss": last}


def kill_and_resume(*launcher: str) -> str:
    """Kill a small run within an epoch, and resume it to its end."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder, python = Path(name), sys.executable
        command(python, "simulate.py", "--data_path", folder / "d", "--n_train", 2, "--n_valid", 1, "--size", 64, 64,
                folder=ROOT / "Dataset")  # fmt: skip
        for part, more in (("train", ("--patch_size", 32, "--stride", 8)), ("valid", ())):
            paths = ("--data_path", folder / "d", f"--{part}_data_path", folder / part)
            command(python, f"{part}_data_preprocess.py", *paths, *more, folder=ROOT / "train")
        options = [
            *["--channels", "16", "--n_blocks", "1", "--end_epoch", "4"],
            *["--save_every", "1", "--batchSize", "8"],
        ]
        paths = (f"--train_data_path={folder}/train", f"--valid_data_path={folder}/valid", f"--outf={folder}/run")
        run = [python, *launcher, "main.py", *options, *paths, "--resume", "auto"]
        if not launcher:
            process = subprocess.Popen(run, cwd=ROOT / "train", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            end = time.monotonic() + 60
            while not (folder / "run/last-1.pth").exists() and process.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            process.kill()
            process.wait()
        command(*run, folder=ROOT / "train")
        n_epochs = len((folder / "run/loss.csv").read_text().splitlines()) - 1
        if n_epochs != 4:
            raise RuntimeError(f"{n_epochs} epochs instead of 4")
    return "4 epochs"


def plan(rate: float) -> str:
    """Return the plan of a full training at so many iterations per second."""
    return (
        f"{ITERATIONS:,} iterations at {rate:.3g} it/s: {ITERATIONS / rate / 3600:.1f} hours, without validation. "
        f"With --save_every 10min a kill costs 10 minutes at most, {600 * rate:.0f} iterations; a stop by Ctrl-C or "
        "SIGTERM costs the iteration under way"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the steps, and write the table."""
    parser = cli.parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="files to write, without .md and .json")
    parser.add_argument("--bench", action="store_true", help="also on a CPU: bench.py --quick")
    args = parser.parse_args(argv)
    name = torch.cuda.get_device_name() if CUDA else "no GPU: small sizes on the CPU"
    print(name, flush=True)
    precisions = ["fp32", *(["tf32"] if CUDA else []), *(["bf16"] if native_bf16(DEVICE) else [])]
    n_gpus = max(torch.cuda.device_count(), 1)
    steps: dict[str, Callable[[], object]] = {
        "tests": lambda: command(sys.executable, "-m", "pytest", "-q", *TESTS, limit=180)
    }
    steps |= {f"reconstruct {p}": lambda p=p: reconstruction(p) for p in precisions if p != "tf32"}
    steps |= {f"train {p}": lambda p=p: training(p) for p in precisions}
    steps |= {
        # on a busy CPU the compiler alone takes minutes; tests/test_train.py compiles there
        **({"train compiled": lambda: training(precisions[-1], compiled=True)} if CUDA else {}),
        "kill and resume": kill_and_resume,
        f"torchrun, {n_gpus}": lambda: kill_and_resume("-m", "torch.distributed.run", f"--nproc_per_node={n_gpus}"),
    }
    if CUDA or args.bench:
        bench = ("bench.py", "--stages", "reconstruct", "train", *([] if CUDA else ["--quick"]))
        steps["bench.py"] = lambda: command(sys.executable, *bench, limit=240, folder=ROOT / "benchmarks")
    results: dict[str, object] = {}
    for step, run in steps.items():
        try:
            results[step] = run()
        except Exception as error:  # a row of the table, so that the other steps' figures are not lost
            results[step] = f"FAILED: {' '.join(str(error).split())[:200]}"
        rates = {step: found["it/s"] for step, found in results.items() if isinstance(found, dict)}
        if rates:
            best = max(rates, key=lambda step: rates[step])
            small = "" if CUDA else "(of the small sizes) "
            results["plan"] = f"{small}{best}: {plan(rates[best])}"
        print(f"{step}: {results[step]}", flush=True)
        write_table(args.out, name, results)  # after each: a machine that is taken away leaves what was measured
    print(args.out.with_suffix(".md").read_text())


def write_table(out: Path, name: str, results: dict[str, object]) -> None:
    """Write the results as Markdown and JSON."""
    rows = [f"| {step} | {_words(found)} |" for step, found in results.items()]
    text = "\n".join([f"{name}, PyTorch {torch.__version__}", "", "| step | result |", "|---|---|", *rows, ""])
    write_atomically(out.with_suffix(".md"), lambda file: file.write(text.encode()))
    document = json.dumps({"machine": name, "torch": torch.__version__, "results": results}, indent=1)
    write_atomically(out.with_suffix(".json"), lambda file: file.write(document.encode()))


def _words(found: object) -> str:
    return ", ".join(f"{value:.3g} {key}" for key, value in found.items()) if isinstance(found, dict) else str(found)


if __name__ == "__main__":
    cli.run(main)
