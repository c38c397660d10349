"""What is done to cubes before they are prepared: other wavelengths, fewer pixels, a split into two parts."""

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
