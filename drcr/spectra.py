"""What the importers do to cubes: other wavelengths, fewer pixels, a split into two parts."""

from pathlib import Path

import numpy as np

from drcr.files import DataError

PARTS = ("Train", "Valid")


def read_split(path: str | Path) -> dict[str, str]:
    """Read a split: lines "Train NAME" or "Valid NAME", # for comments. Returns the part by name, as in the file."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
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


def average_pixels(cube: np.ndarray, n: int) -> np.ndarray:
    """Return a cube (H, W, bands) averaged over n x n pixels: (H // n, W // n, bands), what is left over dropped."""
    if n == 1:
        return cube
    height, width = cube.shape[0] // n, cube.shape[1] // n
    blocks = cube[: height * n, : width * n].reshape(height, n, width, n, cube.shape[2])
    return blocks.mean((1, 3), dtype=np.float64).astype(np.float32)


def resample(cube: np.ndarray, wavelengths: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return a cube (H, W, bands) at other wavelengths (nm, rising): (H, W, len(target)), float32.

    Bands closer to each other than half the target's distance are averaged over a target band's width;
    others are interpolated linearly, which leaves a band that is in both as it is. Outside the
    measured range the nearest band is repeated. A band at a time: `cube` may be mapped from a file.
    """
    width = np.diff(target).mean() if len(target) > 1 else 10.0
    out = np.empty((*cube.shape[:2], len(target)), np.float32)
    fine = len(wavelengths) > 1 and np.diff(wavelengths).max() <= width / 2
    for i, nm in enumerate(target):
        inside = np.flatnonzero(np.abs(wavelengths - nm) <= width / 2)
        if fine and inside.size:
            out[..., i] = cube[..., inside[0] : inside[-1] + 1].mean(2, dtype=np.float64)
            continue
        right = int(np.clip(np.searchsorted(wavelengths, nm), 1, max(len(wavelengths) - 1, 1)))
        left = max(right - 1, 0)
        right = min(right, len(wavelengths) - 1)
        step = wavelengths[right] - wavelengths[left]
        part = float(np.clip((nm - wavelengths[left]) / step, 0, 1)) if step else 0.0
        if part == 0:
            out[..., i] = cube[..., left]
        elif part == 1:
            out[..., i] = cube[..., right]
        else:
            out[..., i] = np.float64(1 - part) * cube[..., left] + np.float64(part) * cube[..., right]
    return out
