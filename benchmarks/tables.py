"""What bench.py prints and writes."""

import platform
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Result

from drcr.utils.parallel import available_cores


def processor() -> str:
    """Return the name of the GPU, or of the processor with the instruction sets that matter here."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    text = Path("/proc/cpuinfo").read_text()
    names = re.findall(r"model name\s*: (.*)", text)
    flags = set((re.findall(r"flags\s*: (.*)", text) or [""])[0].split())
    sets = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    return f"{names[0] if names else platform.processor()} ({', '.join(sets) or 'no AVX2'})"


def table(stage: str, unit: str, results: list[Result], rates: dict[str, float]) -> list[str]:
    """Return the lines of a stage."""
    first = results[0]
    lines = [f"{stage + ', ' + unit:28}{'seconds':>10}  {'fastest, slowest':20}{'ratio':>7}{'memory':>9}{'rate':>20}"]
    for result in results:
        spread = f"[{min(result.seconds):.4g}, {max(result.seconds):.4g}]"
        ratio = first.median / result.median
        line = f"  {result.way.name:26}{result.median:10.4g}  {spread:20}{ratio:7.2f}"
        line += f"{result.memory / 1e6:6.0f} MB" if result.memory > 1e6 else 9 * " "  # 0 where others did the work
        if result.way.operations:
            rate = result.way.operations / result.median
            line += f"{rate / 1e9:8.0f} GFLOP/s{rate / rates[result.way.precision]:4.0%}"
        elif result.median < 0.5:
            line += f"{1 / result.median:12.0f} per second"
        lines.append(line)
    return lines


def deviations(results: list[Result]) -> list[str]:
    """Return how far the cubes are from the plain network's."""
    values = {result.way.name: result.value for result in results if result.value is not None}
    plain = values.pop("plain network, one pass")
    values.pop("released, two passes", None)  # differs in the last rows
    peak = np.abs(plain).max()
    lines = []
    for name, value in values.items():
        difference = np.abs(value - plain)
        lines.append(
            f"{name}: differs from the plain network by at most {difference.max() / peak:.1e} of the largest value, "
            f"{difference.mean() / peak:.1e} on average"
        )
    return lines


def figures(results: list[Result]) -> dict[str, dict[str, Any]]:
    """Return a stage's figures for the JSON file, by the names of its ways."""
    return {
        result.way.name: {
            "seconds": result.seconds,
            "median": result.median,
            "ratio": results[0].median / result.median,
            "peak_memory": result.memory,
            "operations": result.way.operations,
        }
        for result in results
    }


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    return {"processor": processor(), "cores": available_cores(), "torch": torch.__version__}
