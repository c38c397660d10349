"""Scores of a reconstruction: MRAE and RMSE as in the NTIRE challenges, PSNR, SAM and SSIM.

Each score takes the reconstruction first and the ground truth second: cubes (H, W, bands) of radiance in [0, 1] (for
MRAE arrays of any shape). It returns one number. No score clips; the challenge's scoring clips the reconstruction to
[0, 1] first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from drcr.cube import strips
from drcr.utils.extras import needs


class Score(NamedTuple):
    """How a score is shown: its heading, its digits, and whether it rises with quality or is an error."""

    heading: str
    digits: int
    higher_is_better: bool = False


SCORES = {
    "mrae": Score("MRAE", 4),
    "rmse": Score("RMSE", 4),
    "psnr": Score("PSNR dB", 2, higher_is_better=True),
    "sam": Score("SAM deg", 2),
    "ssim": Score("SSIM", 4, higher_is_better=True),
}
"""The scores that every table, figure and report has, by their functions' names."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread meanwhile: the last digit of a score depends on the order of summation."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _tensors(rec: np.ndarray, truth: np.ndarray) -> tuple[Tensor, Tensor]:
    if rec.shape != truth.shape:
        raise ValueError(f"reconstruction {rec.shape} and ground truth {truth.shape} differ in shape")
    return torch.from_numpy(np.ascontiguousarray(rec)), torch.from_numpy(np.ascontiguousarray(truth))


@overload
def mrae(rec: np.ndarray, truth: np.ndarray) -> np.floating: ...
@overload
def mrae(rec: Tensor, truth: Tensor) -> Tensor: ...
def mrae(rec: Any, truth: Any) -> np.floating | Tensor:
    """Mean relative absolute error, mean(|rec - truth| / truth): the score of the NTIRE challenges.

    Parameters
    ----------
    rec, truth : ndarray or Tensor
        Reconstruction and ground truth, of the same shape (any).

    Returns
    -------
    floating or Tensor
        For tensors a differentiable scalar: the training loss. Infinite or NaN where the ground truth is 0; scenes
        with values <= 0 are skipped in training and scoring.
    """
    if isinstance(rec, Tensor):
        return ((rec - truth).abs() / truth).mean()
    return mrae(*_tensors(rec, truth)).numpy()[()]  # pyright: ignore[reportReturnType]


def bright_pixels(truth: np.ndarray, min_radiance: float) -> np.ndarray:
    """Return which pixels (H, W) of a cube have a mean over the bands of at least `min_radiance`.

    In near-black pixels a relative error says little: `mrae(rec[bright], truth[bright])` is the score without them.
    """
    return truth.mean(2, dtype=np.float64) >= min_radiance


def rmse(rec: np.ndarray, truth: np.ndarray) -> np.floating:
    """Root mean squared error, sqrt(mean((truth - rec)^2)), of two cubes (H, W, bands)."""
    # in MATLAB's memory order, as the released scoring sums: the last printed digit depends on it
    rec_t, truth_t = _tensors(rec.T, truth.T)
    # NumPy rounds the square root exactly; PyTorch's library does not on some processors
    return np.sqrt(((truth_t - rec_t) ** 2).mean().numpy()[()])  # pyright: ignore[reportReturnType]


def psnr(rec: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio over all pixels and bands in dB, for a peak of 1: -20 log10(RMSE)."""
    with np.errstate(divide="ignore"):
        return float(-20 * np.log10(rmse(rec, truth)))


def sam(rec: np.ndarray, truth: np.ndarray) -> float:
    """Spectral angle mapper (Kruse et al. 1993): mean angle in degrees of the spectra of two cubes (H, W, bands).

    Pixels where either spectrum is 0 in all bands have no angle and are skipped; NaN if none is left.
    """
    angles = angle(rec, truth)
    known = angles[np.isfinite(angles)]
    return float(known.mean()) if known.size else float("nan")


def angle(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the angle in degrees between vectors along the last axis, float64; NaN where either of the two is 0."""
    # in float32 the angle between equal cubes would be 0.003 degrees
    first, second = first.astype(np.float64), second.astype(np.float64)
    dot, squares, others = (
        np.einsum("...b,...b->...", a, b) for a, b in ((first, second), (first, first), (second, second))
    )
    with np.errstate(invalid="ignore"):
        return np.degrees(np.arccos((dot / np.sqrt(squares * others)).clip(-1, 1)))


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Pearson's correlation of the values of two arrays of one shape; NaN if one is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(first.ravel(), second.ravel())[0, 1]) if first.size > 1 else float("nan")


def sam_map(rec: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the `angle` of each pixel in degrees, float32 (H, W), of a reconstruction clipped to [0, 1].

    NaN where either spectrum is 0; the mean of the others is the score SAM.
    """
    height, width, _ = rec.shape
    out = np.empty((height, width), np.float32)
    for rows, _ in strips(height, width):
        out[rows] = angle(rec[rows].clip(0, 1), truth[rows])
    return out


def best_scale_mrae(rec: np.ndarray, truth: np.ndarray) -> float:
    """Return the MRAE of a reconstruction that is multiplied by the number that makes its MRAE lowest.

    An exposed image does not tell how bright its scene was; this score does not ask for it. The mean of
    |k r - t| / t is lowest where k is the median of t / r, weighted with r / t. Values of `rec` below 1e-6 count as
    1e-6.
    """
    ratio = np.sort((np.maximum(rec, 1e-6) / truth).ravel())
    # the medians of r / t and of t / r are at the same place
    weights = np.cumsum(ratio, dtype=np.float64)
    scale = 1 / ratio[np.searchsorted(weights, weights[-1] / 2)]
    return float(np.abs(scale * ratio - 1).mean(dtype=np.float64))


def ssim(rec: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004), mean over the bands of two cubes (H, W, bands): 1 if they are equal.

    Gaussian window with sigma 1.5, data range 1. NaN for images smaller than the window, 11 x 11.
    """
    if min(truth.shape[:2]) < 11:
        return float("nan")
    with needs("figures", "SSIM"):
        from skimage.metrics import structural_similarity  # takes a second to import

    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    score: Any = structural_similarity(rec, truth, data_range=1.0, channel_axis=2, **window)
    return float(score)
