"""Maps per pixel from RGB to spectra, fitted by least squares: they show what a network adds."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from drcr.data import ValidImages
from drcr.utils.extras import needs
from drcr.utils.files import DataError


def _root_polynomial(rgb: np.ndarray) -> np.ndarray:
    """Return the terms as published, by the field's library."""
    with needs("simulation", "the polynomial baseline"):
        from colour.characterisation import polynomial_expansion_Finlayson2015

    return polynomial_expansion_Finlayson2015(rgb, 4, root_polynomial_expansion=True)


TERMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda rgb: rgb,
    "polynomial": _root_polynomial,
}
RIDGE = {"linear": 0.0, "polynomial": 1e-6}
"""The ridge penalty of each method, as a part of the mean squared value of its terms."""


def terms(rgb: np.ndarray, method: str) -> np.ndarray:
    """Return the terms (pixels, n), float64, of an image (H, W, 3) in [0, 1]."""
    return TERMS[method](np.asarray(rgb, np.float64).reshape(-1, 3))


@dataclass(frozen=True)
class LinearMap:
    """A fitted map: the terms of `method` times `matrix` (terms, bands)."""

    method: str
    matrix: np.ndarray

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Return the cube (H, W, bands), float64, of an image (H, W, 3) divided by its largest value."""
        return (terms(rgb, self.method) @ self.matrix).reshape(*rgb.shape[:2], -1)


def fit_map(images: ValidImages, method: str, ridge: float) -> LinearMap:
    """Return the map with the least squared error over all pixels, and the ridge penalty.

    An image at a time: only the normal equations are kept. Raises DataError if they have no one solution.
    """
    normal, right = np.zeros(()), np.zeros(())
    for i in tqdm(range(len(images)), desc="fitting", unit="image", dynamic_ncols=True, leave=False):
        rgb, cube = images[i]
        x, y = terms(rgb.permute(1, 2, 0).numpy(), method), cube.flatten(1).T.double().numpy()
        normal, right = normal + x.T @ x, right + x.T @ y
    try:
        with np.errstate(all="ignore"):
            penalty = ridge * np.trace(normal) / len(normal)
            matrix = np.linalg.solve(normal + penalty * np.eye(len(normal)), right)
    except np.linalg.LinAlgError:
        matrix = np.full(1, np.nan)
    if not np.isfinite(matrix).all():
        raise DataError(f"{images.path}: no solution with --ridge {ridge:g}; give another, or more data")
    return LinearMap(method, matrix)
