"""Cameras: from a spectral cube to an RGB image, as the NTIRE 2022 challenge made its images.

`Camera` projects radiance through the quantum efficiency of a real camera; `Imaging` adds what happens after
the lens: photon noise, exposure, 8 bits, JPEG. The two compose::

    camera = Camera("Nikon 5100 (NPL)")
    image = Imaging().develop(camera(cube), rng, camera.white())
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from drcr.cube import WAVELENGTHS
from drcr.utils.extras import needs
from drcr.utils.files import DataError

BAND_WIDTH = 10.0
"""Width in nm of a band that counts once in `Camera.curves`: that of the challenges' cubes."""


class Camera:
    """A camera's quantum efficiency curves and analogue gains.

    Attributes
    ----------
    source : name or CSV file of the camera
    wavelengths : (n,) in nm
    sensitivities : (n, 3) for R, G, B, relative
    gains : (3,) or None
    """

    def __init__(
        self, source: str | Path = "Nikon 5100 (NPL)", gains: tuple[float, float, float] | None = None
    ) -> None:
        """Read a camera.

        Parameters
        ----------
        source : a measured camera of colour-science by name, or a CSV file (wavelength, R, G, B). Its columns are
            found by name: the first is the wavelength in nm, then R, G (or G1) and B, also written out. Other
            columns are ignored.
        gains : analogue gains of R, G, B. None makes light of equal energy neutral. The NTIRE 2022 challenge gives
            its own camera 2.2933984, 1, 1.62308182, which is close to that.

        Raises
        ------
        DataError : there is no such camera or file, or the file is no such table.
        """
        self.source = source
        self.gains = None if gains is None else np.asarray(gains, np.float64)
        if str(source).lower().endswith(".csv"):
            self.wavelengths, self.sensitivities = _read_csv(Path(source))
        else:
            # takes a second to import, so only here; chosen for its measured cameras, illuminants and samples
            with needs("simulation", f"camera {source}"):
                from colour import MSDS_CAMERA_SENSITIVITIES

            if source not in MSDS_CAMERA_SENSITIVITIES:
                known = ", ".join(sorted(MSDS_CAMERA_SENSITIVITIES))
                raise DataError(f"{source}: no such camera; known are {known}, or give a .csv file")
            curves = MSDS_CAMERA_SENSITIVITIES[source]
            self.wavelengths, self.sensitivities = curves.wavelengths, curves.values

    def curves(self, wavelengths: np.ndarray = WAVELENGTHS) -> np.ndarray:
        """Return the weights (bands, 3) of a cube's bands in R, G and B.

        Each band counts by its width: the distance between the midpoints to its neighbours, in units of 10 nm.
        With gains the curves are not normalised: the sum over bands is as the challenge computes it. Without gains
        the weights of each channel sum to 1.

        Parameters
        ----------
        wavelengths : (bands,) in nm. Outside the range in which the camera was measured its sensitivity is 0.

        Raises
        ------
        DataError : a channel sees none of the bands.
        """
        wavelengths = np.asarray(wavelengths, np.float64)
        curves = np.stack(
            [np.interp(wavelengths, self.wavelengths, curve, left=0, right=0) for curve in self.sensitivities.T], 1
        )
        if not (curves.sum(0) > 0).all():
            low, high = self.wavelengths[[0, -1]]
            raise DataError(
                f"{self.source}: sees nothing of {wavelengths.min():g}-{wavelengths.max():g} nm in some channel; "
                f"it was measured at {low:g}-{high:g}, which must be nanometres"
            )
        if len(wavelengths) > 1:
            curves *= np.abs(np.gradient(wavelengths))[:, None] / BAND_WIDTH
        return curves / curves.sum(0) if self.gains is None else curves * self.gains

    def __call__(self, cube: np.ndarray, wavelengths: np.ndarray = WAVELENGTHS) -> np.ndarray:
        """Project a cube (H, W, bands) with bands at `wavelengths` (nm) to linear RGB (H, W, 3), float64, >= 0.

        Without gains, a cube of ones gives 1 in all channels. With gains, it gives the sums of the curves (8.6 for
        the challenge's camera at 31 bands): `white` is that of green. Raises DataError as `curves` does.
        """
        return np.maximum(cube @ self.curves(wavelengths), 0)

    def white(self, wavelengths: np.ndarray = WAVELENGTHS) -> float:
        """Return the value of green for a cube of ones, before green's gain: the white level of `Imaging`."""
        green = self.curves(wavelengths)[:, 1].sum()
        return float(green if self.gains is None else green / self.gains[1])


OBSERVER = "sRGB"
"""The name in `responses` of the CIE 1931 standard observer, for images in linear sRGB."""


def responses(
    source: str | Path, gains: tuple[float, float, float] | None = None, wavelengths: np.ndarray = WAVELENGTHS
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a camera sees of a cube and of its own image, in the same three numbers, none below 0.

    `source` and `gains` are as for `Camera`; or "sRGB" for photographs in linear sRGB that are balanced to white: XYZ
    of the CIE 1931 observer, under light of equal energy. Their white is adapted from D65 in the Bradford space.

    Returned are (bands, 3), for cube @ this, and (3, 3), for image @ this. The second number is the brightness, 1 for
    a cube of ones. Raises DataError as `Camera`.
    """
    if str(source) != OBSERVER:
        curves = Camera(source, gains).curves(wavelengths)
        return curves / curves[:, 1].sum(), np.eye(3)
    from colour import MSDS_CMFS, RGB_COLOURSPACES
    from colour.adaptation import matrix_chromatic_adaptation_VonKries

    observer = MSDS_CMFS["CIE 1931 2 Degree Standard Observer"]
    curves = np.stack([np.interp(wavelengths, observer.wavelengths, curve) for curve in observer.values.T], 1)
    curves /= curves[:, 1].sum()
    to_xyz = RGB_COLOURSPACES["sRGB"].matrix_RGB_to_XYZ
    adaptation = matrix_chromatic_adaptation_VonKries(to_xyz.sum(1), curves.sum(0), transform="Bradford")
    return curves, (adaptation @ to_xyz).T


def _read_csv(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return wavelengths (n,) and R, G, B sensitivities (n, 3) of a camera's CSV file."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            header, *rows = list(csv.reader(file))
        names = [name.strip().lower() for name in header]
        columns = [
            next(names.index(name) for name in choice if name in names)
            for choice in (("r", "red"), ("g", "g1", "green"), ("b", "blue"))
        ]
        table = np.array([[float(row[i]) for i in (0, *columns)] for row in rows if row])
    except (ValueError, IndexError, StopIteration, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a table of wavelength, R, G (or G1), B with a header line") from error
    if len(table) < 2 or not (np.diff(table[:, 0]) > 0).all() or not np.isfinite(table).all():
        raise DataError(f"{path}: needs two rows or more, wavelengths rising, all of them numbers")
    return table[:, 0], table[:, 1:]


def photon_noise(linear: np.ndarray, per_value: float, rng: np.random.Generator) -> np.ndarray:
    """Return linear RGB (H, W, 3), >= 0, with the noise of `per_value` photo-electrons at the value 1."""
    return rng.poisson(linear * per_value) / per_value


@dataclass(frozen=True)
class Imaging:
    """What makes an image of linear RGB: photon noise, exposure, 8 bits, file. The defaults are NTIRE 2022's.

    Attributes
    ----------
    electrons : photo-electrons at white, which is green's value for a cube of ones. 0: no noise.
    mean : the mean of the exposed image, as a part of full scale. Brighter values are clipped. 0: the largest value
        comes to full scale, nothing is clipped.
    quality : quality of the JPEG, 1 to 100. 0: PNG, without loss.
    truncate : whether values are truncated to 8 bits, as the challenge does, or rounded.
    """

    electrons: float = 6460
    mean: float = 0.18
    quality: int = 65
    truncate: bool = True

    def develop(self, linear: np.ndarray, rng: np.random.Generator, white: float = 1.0) -> np.ndarray:
        """Return linear RGB as an exposed 8-bit image (H, W, 3), before JPEG.

        Parameters
        ----------
        linear : (H, W, 3), >= 0
        white : the value in `linear` of a cube of ones in green (`Camera.white`), where `electrons` are counted.
        """
        if self.electrons:
            linear = photon_noise(linear, self.electrons / white, rng)
            if not linear.any():
                return linear.astype(np.uint8)
        scaled = linear * (255 * self.mean / linear.mean() if self.mean else 255 / linear.max())
        return np.clip(scaled if self.truncate else np.round(scaled), 0, 255).astype(np.uint8)

    @property
    def suffix(self) -> str:
        """The file's suffix, .jpg or .png."""
        return ".jpg" if self.quality else ".png"

    def encode(self, image: np.ndarray) -> bytes:
        """Return an 8-bit image (H, W, 3), red first, as a file's bytes."""
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        options = [cv2.IMWRITE_JPEG_QUALITY, self.quality] if self.quality else []
        return cv2.imencode(self.suffix, bgr, options)[1].tobytes()


PRESETS = {"real-world": Imaging(), "clean": Imaging(electrons=0, mean=0, quality=0, truncate=False)}
"""The two tracks of the NTIRE challenges."""
