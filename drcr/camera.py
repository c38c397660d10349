"""Cameras: from a spectral cube to an RGB image, as the NTIRE 2022 challenge made its images.

`Camera` projects radiance through the quantum efficiency of a real camera; `Imaging` adds what happens after
the lens: photon noise, exposure, 8 bits, JPEG. The two compose::

    linear = Camera("Nikon 5100 (NPL)")(cube)
    image = Imaging().develop(linear, rng)
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from drcr.matfile import WAVELENGTHS
from drcr.utils.files import DataError


class Camera:
    """A camera's quantum efficiency curves and analogue gains.

    Attributes: `source`, `wavelengths` (n,) in nm, `sensitivities` (n, 3) for R, G, B, relative, `gains` (3,) or
    None.
    """

    def __init__(
        self, source: str | Path = "Nikon 5100 (NPL)", gains: tuple[float, float, float] | None = None
    ) -> None:
        """`source`: a measured camera of colour-science by name, or a CSV file (wavelength, R, G, B).
        `gains` of R, G, B; None makes light of equal energy neutral. The NTIRE 2022 challenge gives its own
        camera 2.2933984, 1, 1.62308182, which is close to that.

        The CSV's columns are found by name: the first is the wavelength in nm, then R, G (or G1) and B, also
        written out; further ones are passed over. Raises DataError if there is no such camera or file, or if
        the file is no such table.
        """
        self.source = source
        self.gains = None if gains is None else np.asarray(gains, np.float64)
        if str(source).lower().endswith(".csv"):
            self.wavelengths, self.sensitivities = _read_csv(Path(source))
        else:
            # takes a second to import, so only here; chosen for its measured cameras, illuminants and samples
            from colour import MSDS_CAMERA_SENSITIVITIES

            if source not in MSDS_CAMERA_SENSITIVITIES:
                known = ", ".join(sorted(MSDS_CAMERA_SENSITIVITIES))
                raise DataError(f"{source}: no such camera; known are {known}, or give a .csv file")
            curves = MSDS_CAMERA_SENSITIVITIES[source]
            self.wavelengths, self.sensitivities = curves.wavelengths, curves.values

    def __call__(self, cube: np.ndarray, wavelengths: np.ndarray = WAVELENGTHS) -> np.ndarray:
        """Project a cube (H, W, bands) with bands at `wavelengths` (nm) to linear RGB (H, W, 3), float64, >= 0.

        On a scale where a cube of ones gives 1 in green (before its gain, if there are gains). Outside the range
        in which the camera was measured its sensitivity is taken as 0. Raises DataError if a channel sees none
        of the bands.
        """
        curves = np.stack(
            [np.interp(wavelengths, self.wavelengths, curve, left=0, right=0) for curve in self.sensitivities.T], 1
        )
        if not (curves.sum(0) > 0).all():
            low, high = self.wavelengths[[0, -1]]
            raise DataError(
                f"{self.source}: sees nothing of {wavelengths.min():g}-{wavelengths.max():g} nm in some channel; "
                f"it was measured at {low:g}-{high:g}, which must be nanometres"
            )
        if self.gains is None:
            curves /= curves.sum(0)
        else:
            curves *= self.gains / curves[:, 1].sum()
        return np.maximum(cube @ curves, 0)


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


@dataclass(frozen=True)
class Imaging:
    """What makes an image of linear RGB: photon noise, exposure, 8 bits, file. The defaults are NTIRE 2022's.

    `electrons`: photo-electrons at value 1 (0: no noise). `mean`: the mean that the exposure brings the image
    to, as a part of full scale; what is brighter than that is clipped (0: its largest value comes to full scale,
    nothing is clipped). `quality`: of the JPEG, 1 to 100 (0: PNG, without loss).
    """

    electrons: float = 750
    mean: float = 0.18
    quality: int = 65

    def develop(self, linear: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return linear RGB (H, W, 3), >= 0, as an exposed 8-bit image (H, W, 3), before JPEG."""
        if self.electrons:
            linear = rng.poisson(linear * self.electrons) / self.electrons
            if not linear.any():
                return linear.astype(np.uint8)
        full_scale = linear.mean() / self.mean if self.mean else linear.max()
        return np.clip(np.round(linear * (255 / full_scale)), 0, 255).astype(np.uint8)

    @property
    def suffix(self) -> str:
        """The file's suffix, .jpg or .png."""
        return ".jpg" if self.quality else ".png"

    def encode(self, image: np.ndarray) -> bytes:
        """Return an 8-bit image (H, W, 3), red first, as a file's bytes."""
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        options = [cv2.IMWRITE_JPEG_QUALITY, self.quality] if self.quality else []
        return cv2.imencode(self.suffix, bgr, options)[1].tobytes()


PRESETS = {"real-world": Imaging(), "clean": Imaging(electrons=0, mean=0, quality=0)}
"""The two tracks of the NTIRE challenges."""
