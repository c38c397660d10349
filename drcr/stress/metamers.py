"""Metamers: different spectra that a camera cannot tell apart, and the error that no method can avoid for them.

A camera with the sensitivities C (bands, 3) sees of a spectrum s only its projection s0 = P s with
P = C (C^T C)^-1 C^T (Cohen and Kappauf, "Metameric color stimuli, fundamental metamers, and Wyszecki's metameric
blacks", American Journal of Psychology 1982). The rest, b = s - s0, is the metameric black: its RGB is 0. So all
spectra s(alpha) = s0 + alpha b have the same RGB, and one image serves them all. Nothing is clipped here: a clipped
spectrum has another RGB.
"""

import numpy as np
from scipy.spatial import KDTree

from drcr.utils.files import DataError


def project(cube: np.ndarray, sensitivities: np.ndarray) -> np.ndarray:
    """Return what a camera sees of spectra (..., bands): their projection onto its sensitivities (bands, 3).

    Raises DataError if the three sensitivities are not linearly independent.
    """
    if np.linalg.matrix_rank(sensitivities) < sensitivities.shape[1]:
        raise DataError("the camera's channels are not independent in these bands; choose another camera or bands")
    basis, _ = np.linalg.qr(np.asarray(sensitivities, np.float64))
    return (np.asarray(cube, np.float64) @ basis) @ basis.T


def metamer(
    cube: np.ndarray, sensitivities: np.ndarray, alpha: float, low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return a cube (..., bands), float64, with the same RGB: s(alpha) = s0 + alpha b where it is feasible.

    `alpha` is the factor of the metameric black. 1: the cube itself; 0: its projection; below 0: the black's sign
    changes. A pixel that would leave the physically possible `low` to `high` in any band keeps alpha = 1. Also
    returned is which pixels (...) are s(alpha): only these are to be scored.
    """
    cube = np.asarray(cube, np.float64)
    other = cube + (alpha - 1) * (cube - project(cube, sensitivities))
    return _where_feasible(other, cube, low, high)


def _where_feasible(other: np.ndarray, cube: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    feasible = np.asarray(((other >= low) & (other <= high)).all(-1))
    return np.where(feasible[..., None], other, cube), feasible


def natural_metamer(
    cube: np.ndarray, sensitivities: np.ndarray, spectra: np.ndarray, low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return a cube with the same RGB and the blacks of other, measured `spectra` (n, bands), as `metamer` does.

    A pixel gets the black of that spectrum whose chromaticity (RGB / (R + G + B)) is nearest, scaled to the pixel's R
    + G + B. Spectra that the camera sees as black are not used; raises DataError if it sees all so.
    """
    cube, spectra = np.asarray(cube, np.float64), np.asarray(spectra, np.float64)
    seen, known = cube @ sensitivities, spectra @ sensitivities
    used = known.sum(-1) > 0
    if not used.any():
        raise DataError("the camera sees all training spectra as black; use other training data")
    spectra, known = spectra[used], known[used]
    brightness = seen.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        chromaticity = np.where(brightness > 0, seen / brightness, 1 / 3)
    nearest = KDTree(known / known.sum(-1, keepdims=True)).query(chromaticity)[1]
    blacks = (spectra - project(spectra, sensitivities)) / known.sum(-1, keepdims=True)
    other = project(cube, sensitivities) + brightness * blacks[nearest]
    return _where_feasible(other, cube, low, high)


def floor(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the error (...) that no method can avoid if two truths (..., bands), above 0, share one image.

    A method sees the same RGB for both and gives one answer r. In a band with the truths s and s', the mean of both
    relative errors, (|r - s| / s + |r - s'| / s') / 2, is lowest at r = min(s, s'), where it is |s - s'| / (2 max(s,
    s')). So the mean of a method's two MRAEs is at least the mean of this over bands and pixels.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return (np.abs(first - second) / (2 * np.maximum(first, second))).mean(-1)
