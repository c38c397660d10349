"""What is done to every cube, wherever it comes from."""

import numpy as np


def raise_to_floor(cube: np.ndarray, floor: float) -> tuple[np.ndarray, int]:
    """Return a cube with its values below `floor` raised to it, and how many they were."""
    return np.maximum(cube, np.float32(floor)), int(np.count_nonzero(cube < np.float32(floor)))


def describe_floor(floor: float, raised: list[int], n_values: int) -> str:
    """Return a line on what was done about dark values."""
    return (
        f"dark values: {sum(raised):,} of {n_values:,} ({sum(raised) / n_values:.2%}), in "
        f"{np.count_nonzero(raised)} of {len(raised)} scenes, raised to {floor:g}"
    )
