"""Measure preparation, loading, training and reconstruction against the released way, and against the machine.

Everything is measured in one run, in turns: every way of a stage once, then all once more, so that what else the
machine does hits all alike. A way's first run is not counted where it takes less than 20 seconds. Printed: medians
and, in brackets, the fastest and the slowest run; how many times as fast as the released way (released.py, the
network eager, float32 and contiguous); the peak of memory beyond what the process held before; floating-point
operations of the plain convolutions per second, and which part that is of the matrix product's rate in the same
precision, measured between the others. On CUDA if there is one, else on the CPU.

  prepare      scenes of 482 x 512, patches of 128 x 128, stride 64, files compressed as ARAD_1K's are
  load         such patches in random order in batches of 16, one process, files in the page cache
  train        a step with patches of 128 x 128, network of 100 channels and 10 blocks
  reconstruct  a 482 x 512 image through that network, in memory
  write        a cube of 482 x 512 x 31 as a .mat file, uncompressed (as test.py does) and compressed
  files        images to .mat files, test.py with its start against the released way without one
  start        test.py from the command line on one image of 128 x 128, network of test/model

The data are simulated, the network's weights drawn at random. Beside the times stands how far the results are
from the plain network's.
"""

import json
import multiprocessing
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import released
import torch
from torch.utils.data import DataLoader, RandomSampler
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from drcr import matfile, metrics
from drcr.camera import Camera
from drcr.checkpoint import load_model, save_checkpoint
from drcr.compute.device import Precision, choose_device, for_training, native_bf16
from drcr.data import TrainPatches
from drcr.images import normalise_rgb, read_rgb
from drcr.model import DRCR
from drcr.preparation.render import PRESETS, render_rgb
from drcr.preparation.simulation import SceneModel
from drcr.reconstruct import Reconstructor
from drcr.utils import cli
from drcr.utils.files import DataError, write_atomically
from drcr.utils.parallel import available_cores

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "train"))
STAGES = ("prepare", "load", "train", "reconstruct", "write", "files", "start")
WARM_UP = 20  # seconds: a first run that takes longer counts, its start is lost in it
Run = Callable[[], Any]
"""What is timed. What it returns is compared with the plain network's result, where that is a cube."""


@dataclass(frozen=True)
class Work:
    """What to measure with: a folder of simulated scenes, and sizes."""

    folder: Path
    height: int
    width: int
    batch: int
    patch: int
    scenes: int

    def pairs(self) -> list[tuple[Path, Path]]:
        """Return the cube and image files of the scenes."""
        cubes = sorted((self.folder / "Train_spectral").glob("*.mat"))
        return [(path, self.folder / "Train_RGB" / f"{path.stem}.jpg") for path in cubes]

    def network(self) -> DRCR:
        """Return the released network with weights drawn at random."""
        torch.manual_seed(0)
        return DRCR().eval()

    def image(self) -> np.ndarray:
        """Return an image to reconstruct, (H, W, 3), float32."""
        return normalise_rgb(read_rgb(self.pairs()[0][1]))[: self.height, : self.width]

    def operations(self, training: bool) -> float:
        """Return the floating-point operations of a pass over the image, or of a training step."""
        sizes = (self.batch, 3, self.patch, self.patch) if training else (1, 3, self.height, self.width)
        with FlopCounterMode(display=False) as counter, torch.device("meta"):
            output = DRCR()(torch.empty(sizes))
            if training:
                output.mean().backward()
        return counter.get_total_flops()

    def batch_of_patches(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch of (rgb, cube) to train on, on the device."""
        generator = torch.Generator().manual_seed(0)
        rgb, cube = (torch.rand(self.batch, n, self.patch, self.patch, generator=generator) for n in (3, 31))
        return rgb.to(choose_device()), (cube + 0.1).to(choose_device())


@dataclass(frozen=True)
class Way:
    """A way of doing a stage: `setup(work)` returns what is timed, which does `units` of `unit`."""

    name: str
    setup: Callable[[Work], Run]
    units: float = 1
    operations: float = 0
    rate: str = "fp32"
    """In which precision the matrix product is measured that the operations are compared with."""


@dataclass
class Result:
    """What was measured of a way: seconds a unit, run by run."""

    way: Way
    seconds: list[float] = field(default_factory=list)
    memory: int = 0
    value: Any = None

    @property
    def median(self) -> float:
        """Seconds a unit."""
        return statistics.median(self.seconds)


# ---- reconstruct


def reconstruct_released(work: Work) -> Run:
    """Return the released way: two passes."""
    return partial(released.reconstruct, work.network().to(choose_device()), work.image())


def reconstruct_once(work: Work) -> Run:
    """Return one pass of the plain network, which pads: what our results are compared with."""
    model = work.network().to(choose_device())

    @torch.inference_mode()
    def run() -> np.ndarray:
        rgb = torch.from_numpy(work.image()).permute(2, 0, 1)[None].to(choose_device())
        return model(rgb)[0].permute(1, 2, 0).cpu().numpy()

    return run


def reconstruct_ours(work: Work, precision: str) -> Run:
    """Return ours."""
    return partial(Reconstructor(work.network().to(choose_device()), precision), work.image())


# ---- train


def train_released(work: Work) -> Run:
    """Return the released way."""
    return released.training_step(work.network().train().to(choose_device()), *work.batch_of_patches())


def train_ours(work: Work, precision: Precision, compiled: bool = False) -> Run:
    """Return ours."""
    from main import training_step

    device = choose_device(precision)
    model = work.network().train()
    fast = for_training(model, device, precision, compiled)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.999), eps=1e-8, fused=True)
    rgb, cube = work.batch_of_patches()
    return lambda: training_step(fast, optimizer, metrics.mrae, rgb, cube, precision)


# ---- prepare, load


@contextmanager
def emptied(folder: Path) -> Any:
    """Give a new empty folder of that name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    yield folder


def prepare_released(work: Work, n_scenes: int) -> Run:
    """Return the released way, for that many scenes."""

    def run() -> None:
        with emptied(work.folder / "released") as out:
            released.prepare(work.pairs()[:n_scenes], out, work.patch, work.patch // 2)

    return run


def prepare_ours(work: Work, n_workers: int) -> Run:
    """Return ours, with the program's start, in that many processes beside it."""

    def run() -> None:
        with emptied(work.folder / "prepared") as out:
            sizes = ("--patch_size", work.patch, "--stride", work.patch // 2, "--num_workers", n_workers)
            script = ROOT / "train/train_data_preprocess.py"
            command(script, "--data_path", work.folder, "--train_data_path", out, *sizes)

    return run


def read_cubes(work: Work, n_scenes: int) -> Run:
    """Return the least that preparation can do: the compressed cubes read, one after the other."""

    def run() -> None:
        for path, _ in work.pairs()[:n_scenes]:
            matfile.read_cube(path)

    return run


def load(work: Work, ours: bool, n_patches: int, cache: bool = False) -> Run:
    """Return the drawing of patches as in training."""
    patches = TrainPatches(work.folder / "prepared", cache) if ours else released.Patches(work.folder / "released")
    batches = DataLoader(patches, 16, sampler=RandomSampler(patches, replacement=True, num_samples=n_patches))

    def run() -> None:
        for _ in batches:
            pass

    return run


# ---- write, files, start


def write(work: Work, compression: int | None) -> Run:
    """Return the writing of a cube, (H, W, 31), with that level of gzip."""
    cube = matfile.read_cube(work.pairs()[0][0])
    path = work.folder / "cube.mat"
    if compression is None:
        return lambda: matfile.write_cube(path, cube, matfile.WAVELENGTHS)
    return lambda: released.write_compressed(path, compression, cube=cube.T)


def files_released(work: Work, n_images: int) -> Run:
    """Return the released way, without the program's start."""
    model = work.network().to(choose_device())

    def run() -> None:
        for _, path in work.pairs()[:n_images]:
            cube = released.reconstruct(model, normalise_rgb(read_rgb(path)))
            released.write_compressed(work.folder / "cube.mat", cube=np.ascontiguousarray(cube.T))

    return run


def run_test(work: Work, n_images: int, *options: str) -> Run:
    """Return test.py on images of the released size, with the released network."""
    source, out = work.folder / "images", work.folder / "cubes"
    source.mkdir(exist_ok=True)
    for _, path in work.pairs()[:n_images]:
        shutil.copy(path, source)
    save_checkpoint(work.folder / "model.pth", work.network())
    options = ("--model_dir", work.folder / "model.pth", "--RGB_dir", source, "--result_dir", out, *options)
    return partial(command, ROOT / "test/test.py", *options)


def command(*words: Any) -> None:
    """Run Python with these arguments."""
    subprocess.run([sys.executable, *map(str, words)], check=True, capture_output=True)


def start(work: Work, ours: bool) -> Run:
    """Return test.py on a small image; or what it can't do without, the start of PyTorch."""
    if not ours:
        return partial(command, "-c", "import torch")
    small = work.folder / "small.png"
    cv2.imwrite(str(small), read_rgb(work.pairs()[0][1])[:128, :128])
    model = ROOT / "test/model/model.pth"
    return partial(
        command, ROOT / "test/test.py", "--RGB_dir", small, "--model_dir", model, "--result_dir", work.folder / "one"
    )


def ways(stage: str, work: Work, cuda: bool, quick: bool) -> list[Way]:
    """Return the ways of doing a stage; the first is what the others are measured against."""
    bf16 = native_bf16(choose_device())
    match stage:
        case "reconstruct":
            work_done = {"operations": work.operations(training=False)}
            return [
                Way("released, two passes", reconstruct_released, operations=2 * work_done["operations"]),
                Way("plain network, one pass", reconstruct_once, **work_done),
                Way("ours, fp32", partial(reconstruct_ours, precision="fp32"), **work_done),
                *[Way("ours, bf16", partial(reconstruct_ours, precision="bf16"), **work_done, rate="bf16")] * bf16,
            ]
        case "train":
            work_done = {"operations": work.operations(training=True)}
            named = {precision: partial(train_ours, precision=precision) for precision in ("fp32", "tf32", "bf16")}
            named |= {f"{name}, compiled": partial(named[name], compiled=True) for name in ("fp32", "bf16") if cuda}
            return [
                Way("released", train_released, **work_done),
                *(
                    Way(f"ours, {name}", setup, **work_done, rate=name[:4])
                    for name, setup in named.items()
                    if (cuda or "tf32" not in name) and (bf16 or "bf16" not in name)
                ),
            ]
        case "prepare":
            few, cores = 1 if quick else 3, available_cores()
            return [
                Way("released", partial(prepare_released, n_scenes=few), few),
                Way("ours, one process", partial(prepare_ours, n_workers=0), work.scenes),
                Way(f"ours, {cores} processes", partial(prepare_ours, n_workers=cores), work.scenes),
                Way("reading the cubes alone", partial(read_cubes, n_scenes=work.scenes), work.scenes),
            ]
        case "load":
            return [
                Way("released", partial(load, ours=False, n_patches=64), 64),
                Way("ours", partial(load, ours=True, n_patches=1600), 1600),
                Way("ours, --cache ram", partial(load, ours=True, n_patches=1600, cache=True), 1600),
            ]
        case "write":
            levels = {"gzip 7 (released)": 7, "gzip 4": 4, "gzip 1": 1, "ours, uncompressed": None}
            return [Way(name, partial(write, compression=level)) for name, level in levels.items()]
        case "files":
            n = min(20 if cuda else 1, work.scenes)
            return [
                Way("released", partial(files_released, n_images=n), n),
                Way("ours, fp32", partial(run_test, n_images=n), n),
                *[Way("ours, bf16", partial(_run_test_bf16, n_images=n), n)] * bf16,
            ]
        case _:
            return [
                Way("import torch, alone", partial(start, ours=False)),
                Way("ours", partial(start, ours=True)),
            ]


def _run_test_bf16(work: Work, n_images: int) -> Run:
    return run_test(work, n_images, "--precision", "bf16")


UNITS = {
    "reconstruct": "image",
    "train": "step",
    "prepare": "scene",
    "load": "patch",
    "write": "cube",
    "files": "image",
    "start": "start",
}


def synchronise() -> None:
    """Wait for what the card still does."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def resident(name: str) -> int:
    """Return the bytes that this process has in memory, VmRSS, or had at most, VmHWM."""
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def serve(connection: Connection, way: Way, work: Work) -> None:
    """Run a way as often as it is asked for; send each run's seconds, then the peak of memory and the last result."""
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak, VmHWM, is what is held now
    run = way.setup(work)
    result = None
    while _asked(connection):
        result = None
        begin = time.perf_counter()
        result = run()
        synchronise()
        connection.send(time.perf_counter() - begin)
    cuda = torch.cuda.is_available()
    connection.send(torch.cuda.max_memory_allocated() if cuda else resident("VmHWM") - before)
    connection.send(result if isinstance(result, np.ndarray) else None)


def _asked(connection: Connection) -> bool:
    """Wait for the word; with none, because the other process is gone, end this one."""
    try:
        return connection.recv()
    except EOFError:
        sys.exit()


def measure(stage: str, contenders: list[Way], work: Work, rounds: int, rooflines: "Rooflines") -> list[Result]:
    """Run the ways of a stage in turns."""
    context = multiprocessing.get_context("spawn")
    results, lines = [Result(way) for way in contenders], []
    try:
        for way in contenders:
            ours, theirs = context.Pipe()
            context.Process(target=serve, args=(theirs, way, work)).start()
            theirs.close()
            lines.append(ours)
        with tqdm(total=(rounds + 1) * len(contenders), desc=stage, unit="run", leave=False) as bar:
            for turn in range(rounds + 1):
                for result, line in zip(results, lines, strict=True):
                    bar.set_postfix_str(result.way.name)
                    if len(result.seconds) < rounds:
                        line.send(True)
                        seconds = line.recv()
                        if turn or seconds > WARM_UP:
                            result.seconds.append(seconds / result.way.units)
                    bar.update()
                rooflines.measure()
        for result, line in zip(results, lines, strict=True):
            line.send(False)
            result.memory, result.value = line.recv(), line.recv()
    except EOFError:
        raise DataError(f"{stage}: {result.way.name} failed; its message is above") from None
    finally:
        for line in lines:
            line.close()
    return results


class Rooflines:
    """What this machine can do at most: matrix products, copies in memory, measured again and again."""

    def __init__(self) -> None:
        """Begin with none."""
        self.device = choose_device()
        self.rates: dict[str, list[float]] = {}

    def measure(self) -> None:
        """Measure each once more."""
        size = 16384 if self.device.type == "cuda" else 3072
        kinds = [("fp32", torch.float32)]
        if self.device.type == "cuda":
            kinds.append(("tf32", torch.float32))
        if native_bf16(self.device):
            kinds.append(("bf16", torch.bfloat16))
        for name, dtype in kinds:
            torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
            a = torch.rand(size, size, device=self.device).to(dtype)
            b = torch.rand(size, size, device=self.device).to(dtype)
            self._time(name, lambda a=a, b=b: a @ b, 2 * size**3)
        torch.backends.cuda.matmul.allow_tf32 = False
        block = torch.zeros(2**28, dtype=torch.uint8, device=self.device)
        copy = torch.zeros_like(block)
        self._time("memory", lambda: copy.copy_(block), 2 * block.numel())

    def _time(self, name: str, run: Run, amount: float) -> None:
        run()
        synchronise()
        begin = time.perf_counter()
        for _ in range(3):
            run()
        synchronise()
        self.rates.setdefault(name, []).append(3 * amount / (time.perf_counter() - begin))

    def medians(self) -> dict[str, float]:
        """Return operations, or bytes read and written, a second."""
        return {name: statistics.median(values) for name, values in self.rates.items()}


def disk_rate(folder: Path) -> float:
    """Return the bytes a second that reach the disk."""
    block = np.random.default_rng(0).bytes(2**26)
    begin = time.perf_counter()
    with open(folder / "block", "wb") as file:
        for _ in range(8):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - begin
    (folder / "block").unlink()
    return 8 * len(block) / seconds


def make_scenes(folder: Path, size: tuple[int, int], count: int) -> None:
    """Write simulated scenes as ARAD_1K has them, compressed; all but the first two are links to those."""
    for name in ("Train_spectral", "Train_RGB"):
        (folder / name).mkdir()
    for i in range(count):
        name = f"ARAD_1K_{1 + i:04}"
        paths = [folder / "Train_spectral" / f"{name}.mat", folder / "Train_RGB" / f"{name}.jpg"]
        if i < 2:
            rng = np.random.default_rng(i)
            cube = SceneModel(size=size).render(rng)
            # the real cubes' values are of 12 bits or so: they compress like that; 41 is 0.01
            cube = np.maximum(np.round(cube * 4095), 41).astype(np.float32) / 4095
            released.write_compressed(paths[0], cube=np.ascontiguousarray(cube.T))
            paths[1].write_bytes(render_rgb(cube, matfile.WAVELENGTHS, Camera(), PRESETS["real-world"], rng, name))
        else:
            for path in paths:
                os.link(path.with_name(path.name.replace(name, f"ARAD_1K_{1 + i % 2:04}")), path)


def deviations(results: list[Result], work: Work) -> list[str]:
    """Return how far our cubes are from the plain network's, and what bfloat16 does to a trained one's scores."""
    values = {result.way.name: result.value for result in results}
    plain = values["plain network, one pass"]
    peak = np.abs(plain).max()
    lines = []
    for name in ("ours, fp32", "ours, bf16"):
        if name in values:
            difference = np.abs(values[name] - plain)
            lines.append(
                f"{name}: off the plain network's pass by {difference.max() / peak:.1e} of its largest value at "
                f"most, by {difference.mean() / peak:.1e} in the mean"
            )
    if "ours, bf16" in values:
        model = load_model(ROOT / "test/model/model.pth", choose_device())
        truth = matfile.read_cube(work.pairs()[0][0])[: work.height, : work.width]
        scores = [
            float(metrics.mrae(Reconstructor(model, precision)(work.image()).clip(0, 1), truth))
            for precision in ("fp32", "bf16")
        ]
        lines.append(
            f"MRAE of test/model's trained network on a simulated scene: {scores[0]:.6f} in fp32, {scores[1]:.6f} in "
            f"bf16, a change of {abs(scores[1] / scores[0] - 1):.2%} of itself"
        )
    return lines


def processor() -> str:
    """Return the name of the processor, or of the graphics card."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return names[0] if names else platform.processor()


def table(stage: str, results: list[Result], rates: dict[str, float]) -> list[str]:
    """Return the lines of a stage."""
    unit, first = UNITS[stage], results[0]
    lines = [f"{stage + ', ' + unit:28}{'seconds':>10}  {'fastest, slowest':20}{'ratio':>7}{'memory':>9}{'rate':>20}"]
    for result in results:
        spread = f"[{min(result.seconds):.4g}, {max(result.seconds):.4g}]"
        ratio = first.median / result.median
        line = f"  {result.way.name:26}{result.median:10.4g}  {spread:20}{ratio:7.2f}"
        line += f"{result.memory / 1e6:6.0f} MB" if result.memory > 1e6 else 9 * " "  # none in this process
        if result.way.operations:
            rate = result.way.operations / result.median
            line += f"{rate / 1e9:8.0f} GFLOP/s{rate / rates[result.way.rate]:4.0%}"
        elif result.median < 0.5:
            line += f"{1 / result.median:12.0f} a second"
        lines.append(line)
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, measure, print the table, write it as JSON."""
    parser = cli.parser(__doc__)
    parser.add_argument("--stages", nargs="+", choices=STAGES, metavar="STAGE", help="some of the stages only")
    parser.add_argument("--rounds", type=cli.at_least(1), default=3, help="times that each way is measured")
    parser.add_argument("--batch", type=cli.at_least(1), help="patches a training step (default: 16 on CUDA, else 2)")
    parser.add_argument("--quick", action="store_true", help="a minute's look: smaller images, fewer scenes, once")
    parser.add_argument("--json", type=Path, default="bench.json", help="file to write")
    args = parser.parse_args(argv)

    cuda = torch.cuda.is_available()
    # on a CPU, files and network together are what reconstruct and write are
    stages = args.stages or [stage for stage in STAGES if stage != "files" or cuda]
    rounds = 1 if args.quick else args.rounds
    rooflines, results = Rooflines(), {}
    print(f"{processor()}, {available_cores()} cores, PyTorch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=".") as folder:
        size, count = ((146, 160), 20) if args.quick else ((482, 512), 40)
        make_scenes(Path(folder), size, count)
        work = Work(
            Path(folder).resolve(), *size, args.batch or (16 if cuda else 2), 64 if args.quick else 128, count
        )
        if "load" in stages and "prepare" not in stages:
            prepare_released(work, 2)()
            prepare_ours(work, 0)()
        for stage in stages:
            results[stage] = measure(stage, ways(stage, work, cuda, args.quick), work, rounds, rooflines)
            print("\n" + "\n".join(table(stage, results[stage], rooflines.medians())), flush=True)
            if stage == "reconstruct":
                print("\n".join(deviations(results[stage], work)), flush=True)
        rates = rooflines.medians() | {"disk": disk_rate(work.folder)}
        sizes = {
            name: sum(p.stat().st_size for p in work.folder.glob(f"{name}/*")) for name in ("prepared", "released")
        }
    print("\n" + ", ".join(f"{name} {rate / 1e9:.4g}" for name, rate in rates.items()), "(GFLOP/s, GB/s)")
    if cuda and "train" in results:
        for result in results["train"]:
            print(f"300,000 steps, {result.way.name}: {300000 * result.median / 3600:.1f} hours")
    document = {
        "machine": {"processor": processor(), "cores": available_cores(), "torch": torch.__version__},
        "options": {"quick": args.quick, "rounds": rounds, "size": size, "batch": work.batch, "patch": work.patch},
        "rates": rates,
        "bytes": sizes,
        "stages": {
            stage: {
                result.way.name: {
                    "seconds": result.seconds,
                    "median": result.median,
                    "ratio": ways_[0].median / result.median,
                    "peak_memory": result.memory,
                    "operations": result.way.operations,
                }
                for result in ways_
            }
            for stage, ways_ in results.items()
        },
    }
    write_atomically(args.json, lambda file: file.write(json.dumps(document, indent=1).encode()))
    print(f"figures: {args.json}")


if __name__ == "__main__":
    cli.run(main)
