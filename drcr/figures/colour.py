"""True colour: cubes as a standard observer sees them, computed with colour-science."""

from functools import lru_cache

import numpy as np

from drcr.cube import WAVELENGTHS
from drcr.utils.extras import needs
from drcr.utils.files import DataError

ILLUMINANTS = ("D65", "D50", "A", "E", "FL2", "LED-B3")
"""CIE illuminants to choose from: daylight, warmer daylight, incandescent, equal energy, fluorescent, LED."""


def true_colour(
    cube: np.ndarray, wavelengths: np.ndarray = WAVELENGTHS, illuminant: str = "D65", white: float = 1.0
) -> np.ndarray:
    """Convert a cube (H, W, bands) at `wavelengths` (nm) to sRGB (H, W, 3), float32 in [0, 1].

    Each spectrum is taken as a reflectance under a CIE illuminant, one of ILLUMINANTS, converted to XYZ with the CIE
    1931 2 degree observer (CIE 015:2018, section 7), and adapted to the white of sRGB, so that a constant spectrum is
    grey. For radiances the illuminant is "E", equal energy. Outside the measured range the nearest band is repeated.
    The luminance `white` becomes 1 (see `white_level`); values above it, or outside the gamut of sRGB, are clipped.
    """
    if illuminant not in ILLUMINANTS:
        raise DataError(f"illuminant {illuminant}: unknown; choose one of {', '.join(ILLUMINANTS)}")
    with np.printoptions(), needs("figures", "true colour"):  # the import, of a second, changes how NumPy prints
        from colour import CCS_ILLUMINANTS, XYZ_to_sRGB

    xyz = (cube @ _observer(wavelengths, illuminant)) / white
    neutral = CCS_ILLUMINANTS["CIE 1931 2 Degree Standard Observer"][illuminant]
    return XYZ_to_sRGB(np.maximum(xyz, 0), illuminant=neutral).clip(0, 1).astype(np.float32)


def white_level(cube: np.ndarray, wavelengths: np.ndarray = WAVELENGTHS, illuminant: str = "D65") -> float:
    """Return the luminance that 99.5% of a cube's pixels stay below, for `white` of `true_colour`."""
    return max(float(np.percentile(luminance(cube, wavelengths, illuminant), 99.5)), 1e-6)


def luminance(cube: np.ndarray, wavelengths: np.ndarray = WAVELENGTHS, illuminant: str = "D65") -> np.ndarray:
    """Return the luminance (...) of spectra (..., bands) under one of ILLUMINANTS; a spectrum of ones has 1."""
    return cube @ _observer(wavelengths, illuminant)[:, 1]


def _observer(wavelengths: np.ndarray, illuminant: str) -> np.ndarray:
    """Return what a value of 1 in each band adds to X, Y, Z: (bands, 3), float32; a cube of ones has Y = 1."""
    return _weights(tuple(np.asarray(wavelengths, np.float64).tolist()), illuminant)


@lru_cache(maxsize=16)
def _weights(bands: tuple[float, ...], illuminant: str) -> np.ndarray:
    wavelengths = np.array(bands)
    with np.printoptions(), needs("figures", "true colour"):
        from colour import MSDS_CMFS, SDS_ILLUMINANTS, SpectralShape, sd_ones

    shape = SpectralShape(380, 780, 1)
    cmfs = MSDS_CMFS["CIE 1931 2 Degree Standard Observer"].copy().align(shape)
    light = (sd_ones(shape) if illuminant == "E" else SDS_ILLUMINANTS[illuminant].copy().align(shape)).values
    # spectra are interpolated linearly between bands; np.interp needs rising wavelengths
    order = np.argsort(wavelengths)
    units = np.eye(len(wavelengths))[:, order]
    unit_cubes = np.stack([np.interp(shape.range(), wavelengths[order], unit) for unit in units])
    weights = unit_cubes @ (cmfs.values * light[:, None])
    return (weights / weights[:, 1].sum()).astype(np.float32)


def cielab(cube: np.ndarray, wavelengths: np.ndarray = WAVELENGTHS, illuminant: str = "D65") -> np.ndarray:
    """Return CIELAB (..., 3) of the spectra (..., bands), taken as reflectances under one of ILLUMINANTS.

    CIE 1931 2 degree observer; a constant spectrum of 1 is white (L* 100). Negative values of XYZ count as 0.
    """
    with np.printoptions(), needs("figures", "true colour"):
        from colour import CCS_ILLUMINANTS, XYZ_to_Lab

    xyz = np.maximum(np.asarray(cube, np.float64) @ _observer(wavelengths, illuminant), 0)
    return XYZ_to_Lab(xyz, CCS_ILLUMINANTS["CIE 1931 2 Degree Standard Observer"][illuminant])


def cielab_of_srgb(image: np.ndarray) -> np.ndarray:
    """Return CIELAB (..., 3) of sRGB (..., 3) in [0, 1]."""
    with np.printoptions():
        from colour import XYZ_to_Lab, sRGB_to_XYZ

    return XYZ_to_Lab(sRGB_to_XYZ(np.asarray(image, np.float64)))
