"""Scores of a reconstruction: MRAE and RMSE as in the NTIRE challenges, PSNR, SAM and SSIM.

All take the reconstruction first and the truth second, cubes (H, W, bands) of radiance in [0, 1] (the MRAE arrays of
any shape), and return one number. None clips; the challenge's scoring clips the reconstruction to [0, 1] beforehand.
"""

import numpy as np
import torch
from torch import Tensor

HEADINGS = {
    "mrae": ("MRAE", 4),
    "rmse": ("RMSE", 4),
    "psnr": ("PSNR dB", 2),
    "sam": ("SAM deg", 2),
    "ssim": ("SSIM", 4),
}
"""The scores, by their name in drcr.metrics: heading, digits."""
SCORES = tuple(HEADINGS)


def _tensors(rec: np.ndarray, truth: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return both cubes as tensors, after a check that they belong together."""
    if rec.shape != truth.shape:
        raise ValueError(f"reconstruction {rec.shape} and truth {truth.shape} differ in shape")
    return torch.from_numpy(np.ascontiguousarray(rec)), torch.from_numpy(np.ascontiguousarray(truth))


def mrae(rec: np.ndarray | Tensor, truth: np.ndarray | Tensor) -> np.floating | Tensor:
    """Mean relative absolute error, mean(|rec - truth| / truth), of arrays or tensors of any shape.

    Of tensors it is the training loss, a differentiable scalar. Infinite or NaN where the
    truth is 0: scenes with values <= 0 are left out of training and scoring.
    """
    if isinstance(rec, Tensor):
        return ((rec - truth).abs() / truth).mean()
    return mrae(*_tensors(rec, truth)).numpy()[()]


def bright_pixels(truth: np.ndarray, min_radiance: float) -> np.ndarray:
    """Return which pixels (H, W) of a cube (H, W, bands) have a radiance, averaged over the bands, of at least that.

    Over near-black pixels a relative error says little: `mrae(rec[bright], truth[bright])` leaves them out.
    """
    return truth.mean(2, dtype=np.float64) >= min_radiance


def rmse(rec: np.ndarray, truth: np.ndarray) -> np.floating:
    """Root of the mean squared error, sqrt(mean((truth - rec)^2))."""
    # In MATLAB's memory order: the released scoring sums so, and the last printed digit depends on it.
    rec, truth = _tensors(rec.T, truth.T)
    # NumPy's root is rounded exactly; PyTorch's comes from a library that rounds otherwise on some processors.
    return np.sqrt(((truth - rec) ** 2).mean().numpy()[()])


def psnr(rec: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and bands, for a peak of 1: -20 log10(RMSE)."""
    with np.errstate(divide="ignore"):
        return float(-20 * np.log10(rmse(rec, truth)))


def sam(rec: np.ndarray, truth: np.ndarray) -> float:
    """Spectral angle mapper (Kruse et al. 1993): mean angle between spectra, in degrees.

    Pixels where either spectrum is zero in all bands have no angle and are left out; NaN if that is all of them.
    """
    # float32 would leave 0.003 degrees between equal cubes
    rec, truth = rec.astype(np.float64), truth.astype(np.float64)
    dot, rec2, truth2 = (np.einsum("hwb,hwb->hw", a, b) for a, b in ((rec, truth), (rec, rec), (truth, truth)))
    valid = (rec2 > 0) & (truth2 > 0)
    if not valid.any():
        return float("nan")
    cosine = dot[valid] / np.sqrt(rec2[valid] * truth2[valid])
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1)).mean()))


def ssim(rec: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004: Gaussian window, sigma 1.5, for a range of 1), mean over bands.

    NaN for images smaller than its window, 11 x 11.
    """
    if min(truth.shape[:2]) < 11:
        return float("nan")
    from skimage.metrics import structural_similarity  # takes a second to import

    return float(
        structural_similarity(
            rec,
            truth,
            data_range=1.0,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )
