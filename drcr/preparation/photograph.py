"""Photographs: from a spectral cube to an image file as a phone or camera writes it.

The steps are a camera maker's: photon noise on the sensor, white balance to the scene's light, a 3 x 3 colour matrix
to linear sRGB, exposure, the sRGB curve, 8 bits, a JPEG that is tagged as sRGB. What differs from photograph to
photograph is drawn at random.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from drcr.camera import Camera, photon_noise
from drcr.cube import WAVELENGTHS
from drcr.light import lamp
from drcr.tags import encode_srgb
from drcr.utils.extras import needs

EXIF_IFD, COLOR_SPACE, SRGB = 0x8769, 0xA001, 1
"""Where EXIF keeps its `ColorSpace`, and its value for sRGB (CIPA DC-008)."""


@lru_cache
def _colour_data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return reflectances (n, 31), colour matching functions (31, 3) and the matrix from XYZ to linear sRGB."""
    with needs("simulation", "a photograph's colour matrix"):
        import colour  # takes a second

    from drcr.preparation.simulation import reflectances

    observer = colour.MSDS_CMFS["CIE 1931 2 Degree Standard Observer"]
    matching = np.stack([np.interp(WAVELENGTHS, observer.wavelengths, curve) for curve in observer.values.T], 1)
    return reflectances(), matching, colour.RGB_COLOURSPACES["sRGB"].matrix_XYZ_to_RGB


def colour_matrix(camera: Camera, light: np.ndarray) -> np.ndarray:
    """Return the 3 x 3 matrix from white-balanced camera RGB to linear sRGB, fitted as camera makers do.

    Least squares over 123 measured reflectances (CIE 2017 samples and ColorChecker) under `light`; the target is
    their colour under that light, adapted to D65 in the Bradford space. Neutral colours stay neutral: rows sum to 1.

    Parameters
    ----------
    camera : the camera
    light : (31,) relative power at 400, 410, ..., 700 nm
    """
    with needs("simulation", "a photograph's colour matrix"):
        from colour.adaptation import matrix_chromatic_adaptation_VonKries

    samples, matching, to_srgb = _colour_data()
    white = light @ matching
    d65 = np.linalg.solve(to_srgb, np.ones(3))
    adaptation = matrix_chromatic_adaptation_VonKries(white / white[1], d65, transform="Bradford")
    target = (samples * light) @ matching / white[1] @ (to_srgb @ adaptation).T
    curves = camera.curves() * light[:, None]
    seen = samples @ (curves / curves.sum(0))
    # with m_g = 1 - m_r - m_b, two unknowns a row are left
    green = seen[:, 1:2]
    red_blue = np.linalg.lstsq(seen[:, [0, 2]] - green, target - green, rcond=None)[0].T
    return np.stack([red_blue[:, 0], 1 - red_blue.sum(1), red_blue[:, 1]], 1)


def estimate_neutral(raw: np.ndarray) -> np.ndarray:
    """Return the RGB (3,) of the light in an image (H, W, 3): shades of grey with Minkowski norm 6.

    Finlayson and Trezzi, "Shades of gray and colour constancy", Color Imaging Conference 2004.
    """
    return np.maximum((raw**6).mean((0, 1)) ** (1 / 6), 1e-9)


def balance(camera: Camera, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gains (3,) of a white balance to a light (31,), and the `colour_matrix` for it."""
    neutral = light @ camera.curves()
    return neutral[1] / neutral, colour_matrix(camera, light)


@dataclass(frozen=True)
class Photograph:
    """What makes a photograph of a cube. Pairs are ranges from which each photograph's value is drawn.

    Attributes
    ----------
    electrons : photo-electrons at white in green (a cube of ones), drawn on a logarithmic scale. 0: no noise.
    mean : the mean of the exposed linear image, as a part of full scale. Brighter values are clipped.
    quality : quality of the JPEG, 1 to 100
    balance_error : standard deviation of the logarithm of the red and the blue white balance gain
    light : the scene's light (31,) at 400-700 nm, to which white is balanced. None: estimated from the image, and
        the colour matrix is that for D65.
    """

    electrons: tuple[float, float] = (1000, 30000)
    mean: tuple[float, float] = (0.08, 0.35)
    quality: tuple[int, int] = (80, 97)
    balance_error: float = 0.04
    light: np.ndarray | None = None

    suffix = ".jpg"

    def develop(self, raw: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
        """Return raw RGB as a photograph: 8-bit sRGB (H, W, 3), before JPEG.

        Parameters
        ----------
        raw : (H, W, 3), >= 0, what `camera` sees, divided by its `white`. Its gains are analogue gains, before the
            noise; (1, 1, 1) for the curves as they are
        camera : the camera that white balance and colour matrix are for
        rng : decides noise, balance and exposure
        """
        if self.electrons[1]:
            raw = photon_noise(raw, np.exp(rng.uniform(*np.log(self.electrons))), rng)
        if self.light is None:
            neutral = estimate_neutral(raw)
            gains, matrix = neutral[1] / neutral, colour_matrix(camera, lamp("D65"))
        else:
            gains, matrix = balance(camera, self.light)
        error = np.exp(rng.normal(0, self.balance_error, 3) * (1, 0, 1))
        linear = np.maximum(raw * (gains * error) @ matrix.T, 0)
        exposure = rng.uniform(*self.mean) / max(linear.mean(), 1e-12)
        return np.round(255 * encode_srgb(np.minimum(linear * exposure, 1))).astype(np.uint8)

    def encode(self, image: np.ndarray, rng: np.random.Generator) -> bytes:
        """Return an 8-bit sRGB image (H, W, 3) as the bytes of a JPEG whose EXIF data say that it is sRGB."""
        with needs("simulation", "a photograph's EXIF"):
            from PIL import Image

        exif = Image.Exif()
        exif.get_ifd(EXIF_IFD)[COLOR_SPACE] = SRGB
        file = io.BytesIO()
        low, high = self.quality
        Image.fromarray(image).save(file, "JPEG", quality=int(rng.integers(low, high + 1)), exif=exif)
        return file.getvalue()


class Cameras:
    """Several cameras, of which each image is taken by one, drawn at random."""

    def __init__(self, cameras: Sequence[Camera]) -> None:
        """Keep the cameras."""
        self.cameras = list(cameras)

    def draw(self, rng: np.random.Generator) -> Camera:
        """Return the camera of the next image."""
        return self.cameras[rng.integers(len(self.cameras))]
