"""Measure ways of doing a stage in turns, each in a process of its own, and what the machine can do at most."""

import multiprocessing
import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from drcr.compute.device import choose_device, native_bf16
from drcr.utils.files import DataError

WARM_UP = 20
"""Seconds. The first run of a way counts only if it takes longer than this: then its start does not matter."""
Run = Callable[[], Any]
"""What is timed. If it returns a cube, that is compared with the plain network's."""


@dataclass(frozen=True)
class Way:
    """A way of doing a stage: `setup()` returns what is timed, which does `units` of the stage's unit."""

    name: str
    setup: Callable[[], Run]
    units: float = 1
    operations: float = 0
    precision: str = "fp32"
    """Precision of the matrix product that the operations are compared with."""


@dataclass
class Result:
    """What was measured of a way: seconds per unit of each run, peak memory in bytes, the value of the last run."""

    way: Way
    seconds: list[float] = field(default_factory=list)
    memory: int = 0
    value: Any = None

    @property
    def median(self) -> float:
        """Seconds per unit."""
        return statistics.median(self.seconds)


def measure(stage: str, ways: list[Way], rounds: int, rooflines: "Rooflines") -> list[Result]:
    """Run the ways of a stage in turns, each `rounds` times."""
    context = multiprocessing.get_context("spawn")
    results, lines = [Result(way) for way in ways], []
    try:
        for result in results:
            ours, theirs = context.Pipe()
            lines.append(ours)
            context.Process(target=serve, args=(theirs, result.way)).start()
            theirs.close()
            ours.recv()  # ready: nothing else runs while one is timed
        with tqdm(total=(rounds + 1) * len(ways), desc=stage, unit="run", leave=False) as bar:
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


def serve(connection: Connection, way: Way) -> None:
    """Run a way as often as asked; send the seconds of each run, then the peak memory and the last result."""
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak, VmHWM, to what is in use now
    run = way.setup()
    connection.send(None)  # ready
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
    """Wait for the answer whether to run; end this process if the parent is gone."""
    try:
        return connection.recv()
    except EOFError:
        sys.exit()


def synchronise() -> None:
    """Wait for the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def resident(name: str) -> int:
    """Return the bytes that this process has in memory (VmRSS), or its peak (VmHWM)."""
    text = Path("/proc/self/status").read_text()
    return int(re.findall(rf"{name}:\s+(\d+)", text)[0]) * 1024


class Rooflines:
    """What this machine can do at most: matrix products and copies in memory, measured again and again."""

    def __init__(self, quick: bool = False) -> None:
        """Begin without measurements; `quick`: with small matrices."""
        self.device = choose_device()
        self.size = 1024 if quick else 16384 if self.device.type == "cuda" else 3072
        self.rates: dict[str, list[float]] = {}

    def measure(self) -> None:
        """Measure each once more."""
        kinds = [("fp32", torch.float32)]
        if self.device.type == "cuda":
            kinds.append(("tf32", torch.float32))
        if native_bf16(self.device):
            kinds.append(("bf16", torch.bfloat16))
        for name, dtype in kinds:
            torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
            a = torch.rand(self.size, self.size, device=self.device).to(dtype)
            b = torch.rand(self.size, self.size, device=self.device).to(dtype)
            self._time(name, lambda a=a, b=b: a @ b, 2 * self.size**3)
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
        """Return operations per second of each precision, and bytes read and written per second."""
        return {name: statistics.median(values) for name, values in self.rates.items()}
