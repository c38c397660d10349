"""Conditions that images are taken under: each level of a condition differs from the reference in one thing.

The reference is the image that NTIRE 2022 describes, taken by one camera. All images are made from cubes, so the
truth is known. The random numbers of an image depend on its scene and the seed alone, so that levels compare the same
noise wherever the number of photo-electrons is the same.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from drcr.camera import Camera, Imaging
from drcr.cube import WAVELENGTHS
from drcr.images import decode_srgb
from drcr.light import lamp
from drcr.preparation.photograph import colour_matrix, to_srgb
from drcr.preparation.render import scene_rng
from drcr.utils.files import DataError

ENCODINGS = ("linear", "sRGB, decoded", "sRGB, not decoded")
PIXEL = (0.31, 0.62)
"""Where the pixel is that is set to 255, as parts of height and width."""


@dataclass(frozen=True)
class Setting:
    """How an image of a scene is made. The defaults are the reference.

    Attributes
    ----------
    electrons, mean, quality : as in `Imaging`
    camera : a name in `views`
    encoding : one of ENCODINGS: linear as the sensor sees it; or as photographs are, white-balanced, with a colour
        matrix to sRGB and sRGB's curve, which the reader decodes, or takes as linear
    blur : sigma of the lens in pixels. The truth is blurred, too: what is judged is the spectra, not the sharpness.
    size : factor of the image's height and width; the truth is resized with it
    light : CIE illuminant; "": the cube as it is. The truth is the light that the scene reflects.
    pixel : whether one pixel of the image is set to 255
    """

    electrons: float = 6460
    mean: float = 0.18
    quality: int = 65
    camera: str = "training"
    encoding: str = "linear"
    blur: float = 0
    size: float = 1
    light: str = ""
    pixel: bool = False


REFERENCES = {"real-world": Setting(), "photograph": Setting(quality=90, encoding=ENCODINGS[1])}
"""The reference images: those of NTIRE 2022, and photographs of the same exposure and noise."""


class Level(NamedTuple):
    """A level of a condition: its name, its setting, and how many seeds of noise are taken."""

    condition: str
    name: str
    setting: Setting
    seeds: int = 1


@dataclass(frozen=True)
class View:
    """A camera as the images see it: its curves times `factors` for R, G and B."""

    camera: Camera
    factors: tuple[float, float, float] = (1, 1, 1)

    def curves(self, wavelengths: np.ndarray) -> np.ndarray:
        """Return the weights (bands, 3) of a cube's bands."""
        return self.camera.curves(wavelengths) * self.factors


def camera_views(
    camera: Camera, others: dict[str, Camera], shifts: Sequence[float], gain_errors: Sequence[float]
) -> dict[str, View]:
    """Return the cameras of the condition `camera` by name; the first is the reference.

    Parameters
    ----------
    camera
        The reference.
    others
        Other cameras by name.
    shifts
        By how many nm the curves of the reference are moved.
    gain_errors
        By how many percent the gain of R or B is off.
    """
    views = {"training": View(camera)} | {name: View(other) for name, other in others.items()}
    for shift in shifts:
        moved = copy.copy(camera)
        moved.wavelengths = camera.wavelengths + shift
        views[f"curves {shift:+g} nm"] = View(moved)
    for channel in "RB":
        for error in gain_errors:
            factor = 1 + error / 100
            views[f"{channel} {error:+g}%"] = View(camera, (factor, 1, 1) if channel == "R" else (1, 1, factor))
    return views


def lit(cube: np.ndarray, wavelengths: np.ndarray, light: str) -> np.ndarray:
    """Return what reflectances (H, W, bands) reflect under a CIE illuminant whose mean power is 1.

    Values above 1 are not possible in a cube: then the whole cube is divided by its largest.
    """
    power = np.interp(wavelengths, WAVELENGTHS, lamp(light))
    radiance = cube * np.float32(power)
    return radiance / max(radiance.max(), 1)


def resize(cube: np.ndarray, size: float) -> np.ndarray:
    """Return a cube (H, W, bands) of another size: averaged where it shrinks, bilinear where it grows."""
    height, width = (max(round(length * size), 1) for length in cube.shape[:2])
    method = cv2.INTER_AREA if size < 1 else cv2.INTER_LINEAR
    bands = [cv2.resize(band, (width, height), interpolation=method) for band in np.moveaxis(cube, 2, 0)]
    return np.stack(bands, 2)


def scene_as_seen(cube: np.ndarray, wavelengths: np.ndarray, setting: Setting, floor: float | None) -> np.ndarray:
    """Return the truth of a setting: the cube (H, W, bands) under its light, through its lens."""
    if setting.light:
        cube = lit(cube, wavelengths, setting.light)
    if setting.blur:
        cube = gaussian_filter(cube, (setting.blur, setting.blur, 0))
    if setting.size != 1:
        cube = resize(cube, setting.size)
    return cube if floor is None else np.maximum(cube, np.float32(floor))


def take(
    truth: np.ndarray, wavelengths: np.ndarray, setting: Setting, views: dict[str, View], seed: int, name: str
) -> np.ndarray:
    """Return the image of the scene `name` as a program reads it from its file: (H, W, 3), float32 in [0, 1].

    Raises
    ------
    DataError
        The image is black all over.
    """
    rng, view = scene_rng(seed, name), views[setting.camera]
    imaging = Imaging(setting.electrons, setting.mean, setting.quality)
    linear = np.maximum(truth @ view.curves(wavelengths), 0)
    white = view.camera.white(wavelengths)
    if setting.encoding == "linear":
        developed = imaging.develop(linear, rng, white)
    else:
        developed = _develop_srgb(linear / white, setting, view.camera, rng)
    values = _decode(imaging.encode(developed)) / 255
    image = (decode_srgb(values) if setting.encoding == "sRGB, decoded" else values).astype(np.float32)
    if not image.any():
        raise DataError(f"{name}: its image is black all over; use more electrons or a longer exposure")
    if setting.pixel:
        height, width = image.shape[:2]
        image[int(PIXEL[0] * height), int(PIXEL[1] * width)] = 1
    return image


def _develop_srgb(raw: np.ndarray, setting: Setting, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Return raw RGB (H, W, 3) as an 8-bit sRGB image, as `Photograph.develop` makes it, but nothing drawn at random.

    White balance and colour matrix are those for light of equal energy.
    """
    if setting.electrons:
        raw = rng.poisson(raw * setting.electrons) / setting.electrons
    return to_srgb(raw, *_balance(camera), setting.mean)


def matrix_to_srgb(camera: Camera) -> np.ndarray:
    """Return the matrix (3, 3) by which raw RGB under light of equal energy is multiplied for linear sRGB."""
    gains, matrix = _balance(camera)
    return gains[:, None] * matrix.T


def _balance(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    light = np.ones(len(WAVELENGTHS))
    neutral = light @ camera.curves()
    return neutral[1] / neutral, colour_matrix(camera, light)


def _decode(data: bytes) -> np.ndarray:
    decoded: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


@dataclass(frozen=True)
class Plan:
    """The levels of all conditions. The defaults are those of the command."""

    electrons: Sequence[float] = (0, 20000, 6460, 2000, 750, 200, 50)
    qualities: Sequence[int] = (0, 95, 90, 80, 65, 50, 30, 10)
    exposures: Sequence[float] = (0.045, 0.09, 0.18, 0.36, 0.72)
    shifts: Sequence[float] = (-10, -5, 5, 10)
    gain_errors: Sequence[float] = (-10, 10)
    blurs: Sequence[float] = (0.5, 1, 2)
    sizes: Sequence[float] = (0.5, 2)
    lights: Sequence[str] = ("E", "A", "D50", "D65", "F2", "F11", "white LED")
    alphas: Sequence[float] = (-1, 0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2)
    factors: Sequence[float] = (0.25, 0.5, 2, 4)
    seeds: int = 3

    def levels(self, cameras: Sequence[str], reference: Setting = Setting()) -> list[Level]:
        """Return the levels of the conditions that need images of their own; `cameras` are the names of views."""

        def of(condition: str, field: str, values: Sequence, name: Callable, seeds: int = 1) -> list[Level]:
            return [Level(condition, name(v), replace(reference, **{field: v}), seeds) for v in values]

        levels = [Level("reference", "reference", reference, self.seeds)]
        levels += of("photo-electrons", "electrons", self.electrons, electrons_name, self.seeds)
        levels += of("JPEG quality", "quality", self.qualities, lambda quality: f"{quality:g}" if quality else "PNG")
        levels += of("exposure", "mean", self.exposures, lambda mean: f"{mean:g}")
        levels += of("camera", "camera", cameras, str)
        levels += of("encoding", "encoding", ENCODINGS, str)
        levels += of("optics", "blur", (0, *self.blurs), lambda sigma: f"blur {sigma:g} px" if sigma else "as it is")
        levels += of("optics", "size", self.sizes, lambda size: f"size x {size:g}")
        levels += of("one pixel at 255", "pixel", (True,), lambda _: "255")
        return levels

    def lit_levels(self, reference: Setting = Setting()) -> list[Level]:
        """Return the levels of the condition `light`, for scenes whose cubes are reflectances."""
        return [Level("light", light, replace(reference, light=light)) for light in self.lights]


def electrons_name(electrons: float) -> str:
    """Return how a number of photo-electrons at white is called."""
    return f"{electrons:g}" if electrons else "no noise"
