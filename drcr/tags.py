"""What an image file says of its encoding: ICC profile, EXIF, and the chunks and boxes of PNG and AVIF."""

import contextlib
import io
import struct
import warnings
from dataclasses import dataclass

from drcr.utils.files import BROKEN

EXIF_IFD, INTEROP_IFD = 0x8769, 0xA005
COLOR_SPACE, INTEROP_INDEX, ORIENTATION, ICC_PROFILE = 0xA001, 1, 0x0112, 34675

WHITE_D65 = (0.3127, 0.3290)
PRIMARIES = {
    "sRGB": (0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
    "Display P3": (0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    "Adobe RGB": (0.64, 0.33, 0.21, 0.71, 0.15, 0.06),
    "BT.2020": (0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
}
"""Chromaticities x, y of red, green and blue; the white point of all of them is D65."""

CICP_PRIMARIES = {1: "sRGB", 9: "BT.2020", 12: "Display P3"}
CICP_TRANSFER: dict[int, str | float] = {8: 1.0, 13: "srgb", 4: 2.2, 5: 2.8}
CICP_UNSUPPORTED = {1: "the curve of video", 6: "the curve of video", 14: "the curve of video",
                    15: "the curve of video", 16: "HDR by PQ", 18: "HDR by HLG"}  # fmt: skip
"""Numbers of ITU-T H.273, as PNG's cICP and the colour box of AVIF and HEIC have them."""


@dataclass(frozen=True)
class Tags:
    """What a file says of its encoding; nothing of it if `name` is None.

    Attributes
    ----------
    name : of the encoding, such as "sRGB" or "ICC profile"; None if the file has no such tag
    transfer : "srgb" for the sRGB curve, else the exponent by which stored values become linear light
    primaries : a name of `PRIMARIES`
    icc : an ICC profile, which goes before transfer and primaries
    orientation : EXIF orientation, 1 to 8
    problem : why the tagged encoding is not supported, or None
    """

    name: str | None = None
    transfer: str | float = "srgb"
    primaries: str = "sRGB"
    icc: bytes | None = None
    orientation: int = 1
    problem: str | None = None


def read_tags(data: bytes) -> Tags:
    """Return the tags of an image file (JPEG, PNG, TIFF, BMP, WebP, AVIF, HEIC), given as its bytes."""
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff_tags(data)
    icc, orientation, space, interop = _pillow_tags(data)
    chunks = _png_chunks(data) if data.startswith(b"\x89PNG") else {}
    cicp = chunks.get(b"cICP") or _colour_box(data)
    if cicp and len(cicp) >= 2 and b"cICP" in chunks:  # in PNG cICP goes before all others
        return _cicp_tags(cicp[0], cicp[1], orientation)
    if icc:
        return _icc_tags(icc, orientation)
    if b"sRGB" in chunks:
        return Tags("sRGB", orientation=orientation)
    if len(chunks.get(b"gAMA", b"")) == 4 and any(chunks[b"gAMA"]):
        gamma = 100000 / struct.unpack(">I", chunks[b"gAMA"])[0]
        return Tags("linear" if abs(gamma - 1) < 0.01 else f"gamma {gamma:.3g}", gamma, orientation=orientation)
    found = _exif_tags(space, interop, orientation)
    if found.name is None and cicp:
        return _cicp_tags(cicp[0], cicp[1], orientation)
    return found


def _pillow_tags(data: bytes) -> tuple[bytes | None, int, object, object]:
    """Return ICC profile, orientation, and EXIF's colour space and interoperability index, by Pillow.

    A format unknown to it, and data that are damaged, tell nothing: the decoder reports them.
    """
    from PIL import Image  # training reads no image, and does without

    icc, orientation, space, interop = None, 1, None, None
    with contextlib.suppress(*BROKEN), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of photographs larger than Pillow's limit: only their header is read here
        with Image.open(io.BytesIO(data)) as image:
            icc, exif = image.info.get("icc_profile"), image.getexif()
            orientation = exif.get(ORIENTATION, 1)
            details = exif.get_ifd(EXIF_IFD)
            space = details.get(COLOR_SPACE)
            if INTEROP_IFD in details:
                interop = exif.get_ifd(INTEROP_IFD).get(INTEROP_INDEX)
    return icc, orientation if orientation in range(1, 9) else 1, space, interop


def _tiff_tags(data: bytes) -> Tags:
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            tags = file.pages.first.tags
            orientation = tags.valueof(ORIENTATION, 1)
            orientation = int(orientation) if orientation in range(1, 9) else 1
            icc, details = tags.valueof(ICC_PROFILE), tags.valueof(EXIF_IFD)
    except (*BROKEN, tifffile.TiffFileError):  # damaged: the decoder reports it
        return Tags()
    if icc:
        return _icc_tags(bytes(icc), orientation)
    space = details.get("ColorSpace") if isinstance(details, dict) else None
    return _exif_tags(space, None, orientation)


def _icc_tags(icc: bytes, orientation: int) -> Tags:
    return Tags(f"ICC profile {profile_name(icc)}".strip(), icc=icc, orientation=orientation)


def _exif_tags(space: object, interop: object, orientation: int) -> Tags:
    if space == 1:
        return Tags("sRGB", orientation=orientation)
    # DCF's option file: "uncalibrated", and R03 in the interoperability index; some write 2
    if space == 2 or (space == 65535 and str(interop).startswith("R03")):
        return Tags("Adobe RGB", 563 / 256, "Adobe RGB", orientation=orientation)
    return Tags(orientation=orientation)


def _cicp_tags(primaries: int, transfer: int, orientation: int) -> Tags:
    if primaries == 2 or transfer == 2:  # unspecified
        return Tags(orientation=orientation)
    name = CICP_PRIMARIES.get(primaries)
    if name is None or transfer not in CICP_TRANSFER:
        what = CICP_UNSUPPORTED.get(transfer, f"colour {primaries}, {transfer} of ITU-T H.273")
        return Tags(what, orientation=orientation, problem=what)
    curve = CICP_TRANSFER[transfer]
    how = {"srgb": "", 1.0: ", linear"}.get(curve, f", gamma {curve}")
    return Tags(f"{name}{how}", curve, name, orientation=orientation)


def _png_chunks(data: bytes) -> dict[bytes, bytes]:
    """Return the chunks of a PNG before its pixels."""
    chunks, at = {}, 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IDAT":
            break
        chunks[kind] = data[at + 8 : at + 8 + length]
        at += 12 + length
    return chunks


def _colour_box(data: bytes) -> bytes:
    """Return primaries and transfer of an AVIF's or HEIC's colour box, empty if there is none."""
    at = data.find(b"colrnclx", 0, 65536) if data[4:8] == b"ftyp" else -1
    return bytes(struct.unpack_from(">HH", data, at + 8)) if at >= 0 else b""


def profile_name(icc: bytes) -> str:
    """Return the description of an ICC profile, such as "Display P3"; empty if it has none that can be read."""
    from PIL import ImageCms

    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(icc))).strip()
    except (*BROKEN, ImageCms.PyCMSError):  # it is no more than a name
        return ""
