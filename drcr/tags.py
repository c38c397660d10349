"""What the tags of an image file say of its encoding, and its values as linear light.

The libraries that decode the pixels read the tags (`drcr.images`); this module tells what they mean.
"""

import contextlib
import io
import re
import sys
import warnings
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from drcr.utils.extras import needs
from drcr.utils.files import DataError, is_out_of_memory, printable

EXIF_IFD, INTEROP_IFD = 0x8769, 0xA005
COLOR_SPACE, INTEROP_INDEX, ORIENTATION = 0xA001, 1, 0x0112

PRIMARIES = {
    "sRGB": (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
    "Display P3": (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    "Adobe RGB": (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06),
    "BT.2020": (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
}
"""Chromaticities x, y of white, red, green and blue."""

CICP_PRIMARIES = {1: "sRGB", 9: "BT.2020", 12: "Display P3"}
CICP_TRANSFER: dict[int, str | float] = {8: 1.0, 13: "srgb", 4: 2.2, 5: 2.8}
CICP_UNSUPPORTED = {1: "the curve of video", 6: "the curve of video", 14: "the curve of video",
                    15: "the curve of video", 16: "HDR by PQ", 18: "HDR by HLG"}  # fmt: skip
"""Numbers of ITU-T H.273, as PNG's cICP and the colour box of AVIF and HEIC have them."""


@dataclass(frozen=True)
class Tags:
    """The tags of a file, as the library that decodes its pixels gives them; None or False where it has none.

    Attributes
    ----------
    icc : ICC profile
    exif : EXIF block, as TIFF data; or its colour space and interoperability index
    cicp : primaries and transfer of ITU-T H.273, and whether black is 0 and white the full scale
    srgb : the file states that it is sRGB
    gamma : stored values are light to the power of `gamma` (PNG's gAMA)
    chromaticities : as in `PRIMARIES` (PNG's cHRM)
    default : the format, if its specification says that files without tags are sRGB
    problem : why what the file says cannot be used
    """

    icc: bytes | None = None
    exif: bytes | tuple[Any, Any] | None = None
    cicp: tuple[int, int, bool] | None = None
    srgb: bool = False
    gamma: float | None = None
    chromaticities: tuple[float, ...] | None = None
    default: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class ColourSpace:
    """How values are encoded.

    Attributes
    ----------
    name : such as "sRGB" or "ICC profile Display P3"
    transfer : "srgb" for the sRGB curve, else the exponent by which stored values become linear light
    primaries : chromaticities, as in `PRIMARIES`
    icc : an ICC profile, which goes before transfer and primaries
    full_range : whether black is 0 and white the full scale; else, as in video, 16 and 235 of 255
    problem : why the encoding is not supported, or None
    """

    name: str
    transfer: str | float = "srgb"
    primaries: tuple[float, ...] = PRIMARIES["sRGB"]
    icc: bytes | None = None
    full_range: bool = True
    problem: str | None = None

    @property
    def is_linear(self) -> bool:
        """Whether stored values are linear light with the primaries of sRGB."""
        return self == ColourSpace(self.name, 1.0)


SRGB = ColourSpace("sRGB")


@cache
def say(path: Path, words: str) -> None:
    """Print a line about a file on stderr, once."""
    print(printable(f"{path}: {words}"), file=sys.stderr)


def colour_space(tags: Tags, path: Path, is_grey: bool) -> ColourSpace | None:
    """Return how a file says that it is encoded, None if it says nothing.

    Says on stderr what cannot be used. `is_grey`: all channels of the image are equal.
    """
    if tags.problem:
        return ColourSpace(tags.problem, problem=tags.problem)
    if tags.icc:
        kind = tags.icc[16:20]
        if kind == b"RGB " or (kind == b"GRAY" and is_grey):
            return ColourSpace(f"ICC profile {_profile_name(tags.icc)}".strip(), icc=tags.icc)
        if kind != b"GRAY":
            known = {b"CMYK": "a profile for CMYK, not RGB", b"Lab ": "a profile for Lab, not RGB"}
            what = known.get(kind, "a profile that is damaged, or not for RGB")
            return ColourSpace(what, problem=what)
        say(path, "ignored its ICC profile, which is for grey: the image has colours")
    if tags.cicp:
        return _of_cicp(*tags.cicp)
    if tags.srgb:
        return SRGB
    if tags.gamma is not None:
        return _of_gamma(tags.gamma, tags.chromaticities or PRIMARIES["sRGB"])
    if tags.chromaticities:
        say(path, "ignored the primaries that it states (cHRM): it states no curve (gAMA)")
    return _of_exif(tags.exif, path)


def _of_cicp(primaries: int, transfer: int, full_range: bool) -> ColourSpace | None:
    if primaries == 2 or transfer == 2:  # unspecified
        return None
    name = CICP_PRIMARIES.get(primaries)
    if name is None or transfer not in CICP_TRANSFER:
        what = CICP_UNSUPPORTED.get(transfer, f"colour {primaries}, {transfer} of ITU-T H.273")
        return ColourSpace(what, problem=what)
    curve = CICP_TRANSFER[transfer]
    how = {"srgb": "", 1.0: ", linear"}.get(curve, f", gamma {curve}") + ", narrow range" * (not full_range)
    return ColourSpace(f"{name}{how}", curve, PRIMARIES[name], full_range=full_range)


def _of_gamma(gamma: float, chromaticities: tuple[float, ...]) -> ColourSpace:
    if not 0.2 <= gamma <= 5:
        what = f"gamma {gamma:.3g}"
        return ColourSpace(what, problem=what)
    near = [name for name, known in PRIMARIES.items() if np.allclose(known, chromaticities, rtol=0, atol=0.002)]
    primaries = PRIMARIES[near[0]] if near else chromaticities
    exponent = 1.0 if abs(gamma - 1) < 0.01 else 1 / gamma
    whose = "" if near == ["sRGB"] else f", {near[0]}" if near else ", primaries of its own"
    return ColourSpace(f"gamma {exponent:.3g}{whose}", exponent, primaries)


def _of_exif(exif: bytes | tuple[Any, Any] | None, path: Path) -> ColourSpace | None:
    space, interop = read_exif(exif, path)[1:] if isinstance(exif, bytes) else exif or (None, None)
    if space == 1:
        return SRGB
    # DCF's option file: "uncalibrated", and R03 in the interoperability index; some write 2
    if space == 2 or (space == 65535 and str(interop).startswith("R03")):
        return ColourSpace("Adobe RGB", 563 / 256, PRIMARIES["Adobe RGB"])
    return None


def read_exif(exif: bytes, path: Path) -> tuple[int, Any, Any]:
    """Return orientation, colour space and interoperability index of an EXIF block; says if it is damaged."""
    with needs("photographs", f"{path}: has EXIF tags, which"):
        from PIL import Image

    found, details, interop, orientation = Image.Exif(), {}, {}, 1
    damaged = False
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            found.load(exif)
            details = found.get_ifd(EXIF_IFD)
            interop = found.get_ifd(INTEROP_IFD) if INTEROP_IFD in details else {}
            orientation = found.get(ORIENTATION, 1)
        except Exception as error:  # of a damaged block Pillow raises many
            if is_out_of_memory(error):
                raise
            damaged = True
    if damaged or any(re.search("corrupt|truncated", str(warning.message), re.IGNORECASE) for warning in warned):
        say(path, "its EXIF tags are damaged; used what can be read of them")
    return orientation if orientation in range(1, 9) else 1, details.get(COLOR_SPACE), interop.get(INTEROP_INDEX)


def _profile_name(icc: bytes) -> str:
    """Return the description of an ICC profile, such as "Display P3"; empty if it has none that can be read."""
    with contextlib.suppress(Exception):  # it is no more than a name
        from PIL import ImageCms

        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(icc))).strip()
    return ""


def decode_srgb(values: np.ndarray) -> np.ndarray:
    """Return linear values of sRGB-encoded ones, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encode_srgb(values: np.ndarray) -> np.ndarray:
    """Return sRGB-encoded values of linear ones, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)


def to_linear(rgb: np.ndarray, full_scale: int, space: ColourSpace, path: Path) -> np.ndarray:
    """Return stored values (H, W, 3) as linear RGB with the primaries of sRGB, float32, clipped to [0, 1].

    Raises DataError if the profile, or the primaries, make no sense.
    """
    if space.icc is not None:
        linear = _convert(np.float32(rgb) / np.float32(full_scale), space.icc, path)
    else:
        levels = np.arange(np.iinfo(rgb.dtype).max + 1) / full_scale
        if not space.full_range:
            levels = (levels * full_scale / ((full_scale + 1) // 256) - 16) / 219
        levels = levels.clip(0, 1)
        curve = decode_srgb(levels) if space.transfer == "srgb" else levels ** float(space.transfer)
        linear = curve.astype(np.float32)[rgb]
        if space.primaries != PRIMARIES["sRGB"]:
            linear = _convert(linear, space.primaries, path)
    linear = np.clip(linear, 0, 1)
    if not linear.max() > 0:  # or NaN
        raise DataError(f"{path}: {space.name} makes it black all over; --encoding linear ignores its tags")
    return linear


@lru_cache
def _linear_profile(chromaticities: tuple[float, ...]) -> bytes:
    """Return an ICC profile of linear RGB."""
    import imagecodecs

    white, red, green, blue = ((*chromaticities[i : i + 2], 1.0) for i in (0, 2, 4, 6))
    return imagecodecs.cms_profile("rgb", whitepoint=white, primaries=(*red, *green, *blue), gamma=1.0)


def _convert(values: np.ndarray, source: bytes | tuple[float, ...], path: Path) -> np.ndarray:
    """Return float32 values in [0, 1] as linear RGB with the primaries of sRGB, not clipped.

    `source` is the ICC profile of the values, or the chromaticities if they are linear.
    """
    with needs("photographs", f"{path}: has a colour profile, which"):
        import imagecodecs  # Little CMS, the colour management library, in float32

    is_grey = isinstance(source, bytes) and source[16:20] == b"GRAY"
    try:
        return imagecodecs.cms_transform(
            np.ascontiguousarray(values[..., 0]) if is_grey else values,
            source if isinstance(source, bytes) else _linear_profile(source),
            _linear_profile(PRIMARIES["sRGB"]),
            colorspace="gray" if is_grey else "rgb",
            outcolorspace="rgb",
            outdtype="float32",
            intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
        )
    except Exception as error:  # of Little CMS
        if is_out_of_memory(error):
            raise
        what = "ICC profile is" if isinstance(source, bytes) else "primaries are"
        raise DataError(f"{path}: its {what} damaged; remove it, or --encoding linear ignores it") from error
