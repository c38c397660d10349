"""Conditions that images are taken under: each level of a condition differs from the reference in one thing.

The reference is the image that NTIRE 2022 describes, taken by one camera. All images are made from cubes, so the
truth is known. The random numbers of an image depend on its scene and the seed alone, so that levels compare the same
noise wherever the number of photo-electrons is the same.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from drcr.camera import PRESETS, Camera, Imaging, photon_noise
from drcr.cube import WAVELENGTHS
from drcr.light import lamp
from drcr.preparation.photograph import Photograph, balance
from drcr.preparation.render import scene_rng
from drcr.tags import decode_srgb
from drcr.utils.files import DataError

LIGHTS = ("E", "A", "D50", "D65", "F2", "F11", "white LED")
LINEAR, DECODED, NOT_DECODED = ENCODINGS = ("linear", "sRGB, decoded", "sRGB, not decoded")
EQUAL_ENERGY = np.ones(len(WAVELENGTHS))
BALANCE_ERROR = 0.04
"""Standard deviation of the logarithm of the gains of R and B: cameras do not know the lamp."""
SEEDS = 3
"""Seeds of noise for the reference and the levels of photo-electrons; other levels have the first."""


@dataclass(frozen=True)
class Setting:
    """How an image of a scene is made. The defaults are the reference.

    Attributes
    ----------
    imaging : noise, exposure and JPEG
    camera : a name in `views`
    encoding : one of ENCODINGS: linear as the sensor sees it; or as photographs are, white-balanced, with a colour
        matrix to sRGB and sRGB's curve, which the reader decodes, or takes as linear
    blur : sigma of the lens in pixels. The truth is blurred, too: what is judged is the spectra, not the sharpness.
    size : factor of the image's height and width; the truth is resized with it
    light : one of LIGHTS, which lights the scene; the camera balances the image to it, with BALANCE_ERROR. The truth
        is the reflectance all the same: the lamp is gone from a balanced image. "": the cube as it is.
    """

    imaging: Imaging = PRESETS["real-world"]
    camera: str = "training"
    encoding: str = LINEAR
    blur: float = 0
    size: float = 1
    light: str = ""


REFERENCES = {"real-world": Setting(), "photograph": Setting(Imaging(quality=90), encoding=DECODED)}
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


def camera_views(camera: Camera, others: dict[str, Camera]) -> dict[str, View]:
    """Return the cameras of the condition `camera` by name: the reference, others, and the reference changed.

    Its curves are moved by 5 and 10 nm, or the gain of R or B is off by 10%.
    """
    views = {"training": View(camera)} | {name: View(other) for name, other in others.items()}
    for shift in (-10, -5, 5, 10):
        moved = copy.copy(camera)
        moved.wavelengths = camera.wavelengths + shift
        views[f"curves {shift:+g} nm"] = View(moved)
    gains = {"R -10%": (0.9, 1, 1), "R +10%": (1.1, 1, 1), "B -10%": (1, 1, 0.9), "B +10%": (1, 1, 1.1)}
    return views | {name: View(camera, factors) for name, factors in gains.items()}


def lit(truth: np.ndarray, rec: np.ndarray, wavelengths: np.ndarray, light: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the radiances of a true and a reconstructed reflectance (H, W, bands) under one of LIGHTS, in [0, 1].

    Both are divided by the largest true one if that is above 1.
    """
    power = np.float32(lamp(light, wavelengths))
    radiance = truth * power
    scale = max(radiance.max(), 1)
    return radiance / scale, (rec * power / scale).clip(0, 1)


def resize(cube: np.ndarray, size: float) -> np.ndarray:
    """Return a cube (H, W, bands) of another size: averaged where it shrinks, bilinear where it grows."""
    height, width = (max(round(length * size), 1) for length in cube.shape[:2])
    method = cv2.INTER_AREA if size < 1 else cv2.INTER_LINEAR
    bands = [cv2.resize(band, (width, height), interpolation=method) for band in np.moveaxis(cube, 2, 0)]
    return np.stack(bands, 2)


def scene_as_seen(cube: np.ndarray, setting: Setting, floor: float | None) -> np.ndarray:
    """Return the truth of a setting: the cube (H, W, bands) through its lens."""
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
    rng, view, imaging = scene_rng(seed, name), views[setting.camera], setting.imaging
    curves, white = view.curves(wavelengths), view.camera.white(wavelengths)
    if setting.light:
        curves = curves * lamp(setting.light, wavelengths)[:, None]
    linear = np.maximum(truth @ curves, 0)
    if setting.encoding == LINEAR:
        if setting.light:
            linear = photon_noise(linear, imaging.electrons / white, rng) if imaging.electrons else linear
            error = np.exp(rng.normal(0, BALANCE_ERROR, 3) * (1, 0, 1))
            linear = linear * _gains(setting, view) * error
            imaging = replace(imaging, electrons=0)
        developed = imaging.develop(linear, rng, white)
    else:
        electrons, mean = imaging.electrons, imaging.mean
        light, error = (lamp(setting.light), BALANCE_ERROR) if setting.light else (EQUAL_ENERGY, 0)
        chain = Photograph((electrons, electrons), (mean, mean), balance_error=error, light=light)
        developed = chain.develop(linear / white, view.camera, rng)
    values = _decode(imaging.encode(developed)) / 255
    image = (decode_srgb(values) if setting.encoding == DECODED else values).astype(np.float32)
    if not image.any():
        raise DataError(f"{name}: its image is black all over; use more electrons or a longer exposure")
    return image


def curves_of_image(setting: Setting, views: dict[str, View], wavelengths: np.ndarray) -> np.ndarray | None:
    """Return the weights (bands, 3) by which an image shows a cube; None for one that is not linear."""
    view = views[setting.camera]
    if setting.encoding == NOT_DECODED:
        return None
    curves = view.curves(wavelengths)
    if setting.light:
        curves = curves * lamp(setting.light, wavelengths)[:, None]
    if setting.encoding == LINEAR:
        return curves * _gains(setting, view) if setting.light else curves
    gains, matrix = balance(view.camera, lamp(setting.light) if setting.light else EQUAL_ENERGY)
    return curves @ (gains[:, None] * matrix.T)


def _gains(setting: Setting, view: View) -> np.ndarray:
    """Return the gains (3,) that make the lamp of a setting look to the camera as light of equal energy does."""
    curves = view.camera.curves()
    return curves.sum(0) / (lamp(setting.light) @ curves)


def _decode(data: bytes) -> np.ndarray:
    decoded: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def levels(cameras: Sequence[str], reference: Setting = Setting()) -> list[Level]:
    """Return the levels of all conditions but the light; `cameras` are the names of views."""
    made = reference.imaging

    def imaging(condition: str, field: str, values: dict[Any, str], seeds: int = 1) -> list[Level]:
        changed = {
            name: replace(reference, imaging=replace(made, **{field: value})) for value, name in values.items()
        }
        return [Level(condition, name, setting, seeds) for name, setting in changed.items()]

    def names(*values: float, **named: float) -> dict[float, str]:
        return {value: name.replace("_", " ") for name, value in named.items()} | {v: f"{v:g}" for v in values}

    found = [Level("reference", "reference", reference, SEEDS)]
    found += imaging("photo-electrons", "electrons", names(20000, 6460, 2000, 750, 200, 50, no_noise=0), SEEDS)
    found += imaging("JPEG quality", "quality", names(95, 90, 80, 65, 50, 30, 10, PNG=0))
    found += imaging("exposure", "mean", names(0.045, 0.09, 0.18, 0.36, 0.72))
    found += [Level("camera", name, replace(reference, camera=name)) for name in cameras]
    found += [Level("encoding", name, replace(reference, encoding=name)) for name in ENCODINGS]
    found += [Level("optics", "as it is", reference)]
    found += [Level("optics", f"blur {sigma:g} px", replace(reference, blur=sigma)) for sigma in (0.5, 1, 2)]
    found += [Level("optics", f"size x {size:g}", replace(reference, size=size)) for size in (0.5, 2)]
    return found


def lit_levels(reference: Setting = Setting()) -> list[Level]:
    """Return the levels of the condition `light`, for scenes whose cubes are reflectances."""
    return [Level("light", light, replace(reference, light=light)) for light in LIGHTS]
