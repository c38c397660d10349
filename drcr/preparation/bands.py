"""What the importers do to cubes: other wavelengths, fewer pixels, a split into two parts."""

import argparse
from pathlib import Path

import numpy as np

from drcr.utils import cli
from drcr.utils.files import DataError

PARTS = ("Train", "Valid")


def read_split(path: str | Path) -> dict[str, str]:
    """Read a split: lines "Train NAME" or "Valid NAME", # for comments. Returns the part by name, as in the file."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except PermissionError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no such text file; a split has lines 'Train NAME' and 'Valid NAME'") from error
    parts: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].split(maxsplit=1)
        if not words:
            continue
        part = words[0].capitalize()
        if len(words) != 2 or part not in PARTS:
            raise DataError(f"{path}: line {number} must be 'Train NAME' or 'Valid NAME', not '{line.strip()}'")
        name = words[1].strip()
        if name in parts:
            raise DataError(f"{path}: line {number} names {name} again")
        parts[name] = part
    return parts


def add_size_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --size, for `shrink`."""
    parser.add_argument(
        "--size",
        type=cli.at_least(1),
        metavar="N",
        help="average n x n pixels so that no scene is wider or higher than N; n is the smallest whole number",
    )


def shrink(cube: np.ndarray, size: int | None) -> np.ndarray:
    """Return a cube (H, W, bands) averaged over n x n pixels, with the smallest n for which it is at most `size`.

    What is left over at the lower and right edge is dropped; a strip narrower than n is averaged across.
    """
    n = -(-max(cube.shape[:2]) // size) if size else 1
    if n == 1:
        return cube
    down, across = min(n, cube.shape[0]), min(n, cube.shape[1])
    height, width = cube.shape[0] // down, cube.shape[1] // across
    blocks = cube[: height * down, : width * across].reshape(height, down, width, across, cube.shape[2])
    return blocks.mean((1, 3), dtype=np.float64).astype(np.float32)


def resample(cube: np.ndarray, wavelengths: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return a cube (H, W, bands) at other wavelengths (nm, rising): (H, W, len(target)), float32.

    Spectra are taken for lines between bands. Where the bands are finer than half the target's distance, the lines
    are averaged over a target band's width, else their value is taken, which leaves a band that is in both as it is.
    Outside the measured range the nearest band is repeated. A band at a time: `cube` may be mapped from a file.
    """
    step = float(np.diff(target).mean()) if len(target) > 1 else 10.0
    out = np.empty((*cube.shape[:2], len(target)), np.float32)
    for i, nm in enumerate(target):
        nm = float(np.clip(nm, wavelengths[0], wavelengths[-1]))
        # the same to both sides, so that the average stays centred at the ends of the range
        half = min(step / 2, nm - wavelengths[0], wavelengths[-1] - nm)
        near = wavelengths[np.abs(wavelengths - nm) <= step]
        fine = len(near) > 2 and np.diff(near).max() <= step / 2
        points = nm + half * np.linspace(-1, 1, 101) if fine else np.array([nm])
        # how much of each band is in the average: the lines of bands that are 1 in one place and else 0
        last = len(wavelengths) - 1
        right = np.clip(np.searchsorted(wavelengths, points), min(1, last), last)
        left = np.maximum(right - 1, 0)
        gaps = np.maximum(wavelengths[right] - wavelengths[left], 1e-9)
        part = np.where(right == left, 0, (points - wavelengths[left]) / gaps)
        weights = np.zeros(len(wavelengths))
        np.add.at(weights, left, (1 - part) / len(points))
        np.add.at(weights, right, part / len(points))
        used = np.flatnonzero(weights)
        if len(used) == 1:
            out[..., i] = cube[..., used[0]]
        else:
            out[..., i] = np.float64(cube[..., used[0] : used[-1] + 1]) @ weights[used[0] : used[-1] + 1]
    return out
