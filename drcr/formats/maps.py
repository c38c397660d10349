"""The maps beside a reconstruction that say where not to trust it, and their colours in pictures."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from drcr.utils.files import DataError

MAPS = ("expected_sam", "confidence")
"""What test.py --confidence writes beside a cube, (H, W) each."""
LEVELS = ("not to be believed", "doubtful", "believable")
"""The meaning of 0, 1 and 2 in the mask `confidence`."""
LEVEL_COLOURS = np.array([[213, 94, 0], [240, 228, 66], [86, 180, 233]]) / 255
"""Of the LEVELS in pictures: vermilion, yellow and blue of Okabe and Ito, which colour-blind readers distinguish."""


def level_image(levels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Return a mask of LEVELS (H, W) as LEVEL_COLOURS, shaded by the brightness of an image (H, W, 3) in [0, 1]."""
    return LEVEL_COLOURS[levels] * (0.75 + 0.25 * colour.mean(2, keepdims=True))


def check_maps(maps: Mapping[str, np.ndarray], path: Path) -> None:
    """Raise DataError if MAPS that were read from a file cannot be what test.py --confidence wrote."""
    angles, levels = maps.get("expected_sam"), maps.get("confidence")
    if angles is not None and (angles.dtype != np.float32 or not (np.abs(angles - 90) <= 90).all()):
        raise DataError(f"{path}: expected_sam is not angles in degrees; run test.py --confidence again")
    if levels is not None and (levels.dtype != np.uint8 or levels.max() >= len(LEVELS)):
        raise DataError(f"{path}: confidence has other values than 0, 1 and 2; run test.py --confidence again")
