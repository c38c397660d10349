"""What the importers do to cubes: resample the bands, average pixels, split the scenes into two parts."""

import unicodedata
from pathlib import Path

import numpy as np

from drcr.utils.files import DataError, read_text

PARTS = ("Train", "Valid")


def read_split(path: str | Path) -> dict[str, str]:
    """Read a split: lines "Train NAME" or "Valid NAME", # for comments. Returns the part of each name."""
    path = Path(path)
    lines = read_text(path, "a text file with lines 'Train NAME' and 'Valid NAME'").splitlines()
    parts: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].split(maxsplit=1)
        if not words:
            continue
        part = words[0].capitalize()
        if len(words) != 2 or part not in PARTS:
            raise DataError(f"{path}: line {number} must be 'Train NAME' or 'Valid NAME', not '{line.strip()}'")
        name = unicodedata.normalize("NFC", words[1].strip())
        if name in parts:
            raise DataError(f"{path}: line {number} names {name} again")
        parts[name] = part
    return parts


def shrink(cube: np.ndarray, size: int | None) -> np.ndarray:
    """Return a cube (H, W, bands) averaged over n x n pixels, with the smallest n for which it is at most `size`.

    Incomplete blocks at the lower and right edge are dropped; a strip narrower than n is averaged across.
    """
    n = -(-max(cube.shape[:2]) // size) if size else 1
    if n == 1:
        return cube
    down, across = min(n, cube.shape[0]), min(n, cube.shape[1])
    height, width = cube.shape[0] // down, cube.shape[1] // across
    blocks = cube[: height * down, : width * across].reshape(height, down, width, across, cube.shape[2])
    return blocks.mean((1, 3), dtype=np.float64).astype(np.float32)


def unmeasured(wavelengths: np.ndarray, target: np.ndarray) -> list[float]:
    """Return those of the `target` wavelengths (nm, rising) that lie in a gap between the measured `wavelengths`.

    A gap is wider than one and a half of the target's steps and of the usual step between measured bands.
    """
    if len(wavelengths) < 2:
        return []
    steps = np.diff(wavelengths)
    limit = 1.5 * max(float(np.median(steps)), float(np.diff(target).mean()) if len(target) > 1 else 10.0)
    gaps = [(low, low + step) for low, step in zip(wavelengths[:-1], steps, strict=True) if step > limit]
    return [float(nm) for nm in target if any(low + 0.5 < nm < high - 0.5 for low, high in gaps)]


def resample(cube: np.ndarray, wavelengths: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return a cube (H, W, bands) at other wavelengths (nm, rising): (H, W, len(target)), float32.

    Spectra are linear between bands. Where the bands are finer than half the target's step, they are averaged over
    the width of a target band; elsewhere their value is taken, so that a band in both is unchanged. Outside the
    measured range the nearest band is repeated. Band by band: `cube` may be mapped from a file.
    """
    step = float(np.diff(target).mean()) if len(target) > 1 else 10.0
    out = np.empty((*cube.shape[:2], len(target)), np.float32)
    for i, nm in enumerate(target):
        nm = float(np.clip(nm, wavelengths[0], wavelengths[-1]))
        # symmetric, so that the average stays centred at the ends of the range
        half = min(step / 2, nm - wavelengths[0], wavelengths[-1] - nm)
        near = wavelengths[np.abs(wavelengths - nm) <= step]
        fine = len(near) > 2 and np.diff(near).max() <= step / 2
        points = nm + half * np.linspace(-1, 1, 101) if fine else np.array([nm])
        # the weight of each band in the average: interpolate spectra that are 1 in one band and 0 in the others
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
