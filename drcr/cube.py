"""A hyperspectral cube with its wavelengths, and the rules that hold for every cube, wherever it comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from drcr.utils.files import DataError, plural

WAVELENGTHS = np.arange(400.0, 701.0, 10.0)
"""The 31 bands of the challenges' data sets, in nm."""


@dataclass(frozen=True, eq=False)
class Cube:
    """A hyperspectral cube and what its file says about it.

    Attributes
    ----------
    values : (H, W, bands) float32
        Radiance, as stored.
    wavelengths : (bands,) float64 or None
        Wavelengths in nm, rising. None: the file says nothing about them.
    path : Path or None
        The file that the cube was read from.
    origin : str or None
        Where a reconstruction comes from: the line that `write_cube` stored.
    """

    values: np.ndarray
    wavelengths: np.ndarray | None = None
    path: Path | None = None
    origin: str | None = None

    @property
    def known_wavelengths(self) -> np.ndarray | None:
        """Wavelengths in nm: the file's, or 400-700 nm for 31 bands of which it says nothing, or None."""
        if self.wavelengths is None and self.values.shape[2] == len(WAVELENGTHS):
            return WAVELENGTHS
        return self.wavelengths

    def require_wavelengths(self) -> np.ndarray:
        """Return `known_wavelengths`. Raises DataError, with the file's name, if they are None."""
        if (wavelengths := self.known_wavelengths) is None:
            raise DataError(
                f"{self.path}: {self.values.shape[2]} bands, and no variable `bands` with their wavelengths in nm "
                "(only 31 bands are known without it); add it with Dataset/import_cubes.py"
            )
        return wavelengths


def wavelengths_in_nm(values: np.ndarray) -> np.ndarray | None:
    """Return a list of wavelengths in nm, float64; None if `values` cannot be one.

    They must rise or fall throughout. Values between 0.2 and 3 are taken for micrometres.
    """
    if values.dtype.kind not in "fiu" or values.size == 0 or not np.isfinite(values).all():
        return None
    values = np.float64(values).ravel()
    if values.min() > 0.2 and values.max() < 3:
        values = values * 1000
    monotonic = (np.diff(values) > 0).all() or (np.diff(values) < 0).all()
    return values if monotonic and 100 < values.min() <= values.max() < 1e5 else None


def same_bands(first: ArrayLike, second: ArrayLike) -> bool:
    """Return whether two lists of wavelengths (nm) are the same, within 0.1 nm."""
    first, second = np.asarray(first), np.asarray(second)
    return first.shape == second.shape and bool(np.allclose(first, second, rtol=0, atol=0.1))


def describe_bands(wavelengths: Sequence[float] | np.ndarray) -> str:
    """Return a list of wavelengths (nm) in short: `31 bands, 400-700 nm`."""
    return f"{len(wavelengths)} bands, {wavelengths[0]:g}-{wavelengths[-1]:g} nm"


def check_cube(values: np.ndarray, path: str | Path | None) -> None:
    """Raise DataError, with the file's name, if a cube (H, W, bands) has NaN or infinite values."""
    # an infinite or missing value shows in one of these, without a mask as long as the cube
    if not np.isfinite([values.min(), values.max()]).all():
        count = plural(int(np.count_nonzero(~np.isfinite(values))), "NaN or infinite value")
        raise DataError(f"{path}: contains {count}; repair or remove the file")


def check_same_size(
    image_shape: tuple[int, ...], image_path: Path, cube_shape: tuple[int, ...], cube_path: Path | None
) -> None:
    """Raise DataError, with both names, if an image (H, W, 3) and its cube (H, W, bands) differ in size."""
    if image_shape[:2] != cube_shape[:2]:
        raise DataError(
            f"{image_path}: {image_shape[0]} x {image_shape[1]} pixels, but its cube {cube_path} has "
            f"{cube_shape[0]} x {cube_shape[1]}"
            + ("; one of the two is transposed" if image_shape[:2] == cube_shape[1::-1] else "")
        )


def raise_to_floor(values: np.ndarray, floor: float) -> tuple[np.ndarray, int]:
    """Return a cube with its values below `floor` raised to it, and how many they were."""
    return np.maximum(values, np.float32(floor)), int(np.count_nonzero(values < np.float32(floor)))


def describe_floor(floor: float, raised: list[int], n_values: int) -> str:
    """Return a line on the dark values that were raised to `floor`: `raised` per scene, of `n_values` in all."""
    return (
        f"dark values: {sum(raised):,} of {n_values:,} ({sum(raised) / n_values:.2%}), in "
        f"{np.count_nonzero(raised)} of {len(raised)} scenes, raised to {floor:g}"
    )
