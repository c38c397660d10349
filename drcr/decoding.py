"""Image files as values: each container by one library, which gives its pixels and its tags in one read."""

import io
import math
import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from drcr.tags import Tags, read_exif, say
from drcr.utils.extras import needs
from drcr.utils.files import BROKEN, DataError, check_name, is_out_of_memory

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # errors are reported in one line

RAW_SUFFIXES = (
    ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".raf", ".orf", ".rw2", ".pef", ".srw",
    ".3fr", ".fff", ".iiq", ".erf", ".mef", ".mos", ".mrw", ".kdc", ".dcr", ".rwl", ".x3f",
)  # fmt: skip
UNREADABLE = {
    b"GIF8": "GIF", b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL", b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"%PDF": "PDF", b"8BPS": "Photoshop", b"\x76\x2f\x31\x01": "OpenEXR", b"<": "HTML or SVG",
    b"#?RADIANCE": "Radiance HDR",
}  # fmt: skip
"""What files begin with that are sometimes taken for images that can be read."""
MAX_PIXELS = 2**30
"""OpenCV's own limit."""


@dataclass(frozen=True)
class Decoded:
    """An image file's values (H, W, 3), uint8 or uint16, and what the same library says of them.

    `full_scale` is the value of full light, if it is not the largest of its type; `developed` says how LibRaw
    developed camera RAW.
    """

    rgb: np.ndarray
    tags: Tags
    full_scale: int | None = None
    developed: str | None = None


def decode(path: Path) -> Decoded:
    """Decode an image file; raises DataError if that is not possible, or a library for it is missing."""
    check_name(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    data = path.read_bytes()
    if path.suffix.lower() in RAW_SUFFIXES or data[4:11] == b"ftypcrx":
        found = _develop_raw(path)
    elif data[:4] in TIFF_STARTS:
        found = _decode_tiff(path, data)
    elif data[4:8] == b"ftyp":
        is_avif = b"avif" in data[8:64] or b"avis" in data[8:64]
        found = _decode_avif(path, data) if is_avif else _decode_heic(path, data)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        found = _decode_png(path, data)
    elif data.startswith(b"\xff\xd8\xff"):
        found = _decode_jpeg(path, data)
    elif data.startswith(b"RIFF"):
        rgb, blocks = _decode_opencv(path, data)
        found = Decoded(rgb, Tags(blocks.get(ICC), blocks.get(EXIF), default="WebP"))
    elif data.startswith(b"BM"):
        found = Decoded(_decode_opencv(path, data)[0], _bmp_tags(data))
    else:
        kind = next((name for start, name in UNREADABLE.items() if data.startswith(start)), None)
        what = f"is a {kind} file, which is not read; convert it to PNG, TIFF or JPEG"
        raise DataError(f"{path}: {what if kind else 'cannot be decoded as an image; copy or download it again'}")
    if found.rgb.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path}: its values are {found.rgb.dtype}; images of 8 or 16 bits are needed")
    if found.rgb.max() == 0:
        raise DataError(f"{path}: black all over; there is nothing to reconstruct")
    return found


TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
EXIF, ICC, CICP = cv2.IMAGE_METADATA_EXIF, cv2.IMAGE_METADATA_ICCP, cv2.IMAGE_METADATA_CICP
_stderr = threading.Lock()


def _decode_opencv(path: Path, data: bytes, flags: int = 0) -> tuple[np.ndarray, dict[int, bytes]]:
    """Return the values (H, W, 3) and the blocks of tags, by OpenCV's number of their kind."""
    try:
        with _decoders_words() as words:
            # not cv2.imread: it fills up a truncated JPEG with grey and says nothing
            image, kinds, blocks = cv2.imdecodeWithMetadata(
                np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | flags
            )
    except cv2.error as error:  # too large, or of a depth that it knows nothing of
        if is_out_of_memory(error):
            raise
        if "MAX_IMAGE" in str(error):
            raise DataError(f"{path}: has more than 2^30 pixels, or states so; cut it into parts") from error
        image, kinds, blocks = None, (), ()
    broken = [line for line in words if _BROKEN_PIXELS.search(line)]
    if image is None or broken:
        why = f" ({broken[0]})" if broken else ""
        raise DataError(f"{path}: cannot be decoded as an image{why}; copy or download it again")
    for line in words:
        say(path, line)
    found = {kind: np.asarray(block).tobytes() for kind, block in zip(kinds, blocks, strict=True)}
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), found


_WORDS = re.compile(
    r"libpng (?:warning|error): |Corrupt JPEG data: |Premature end of JPEG |.*in(?:put)? JPEG |Warning: "
)
_BROKEN_PIXELS = re.compile(
    r"premature end|Premature end|bad Huffman code|bad arithmetic code|instead of RST|IDAT: (?!Too much|Extra)"
    r"|(?:[89]|\d\d+) extraneous bytes"  # some cameras fill up with a few
)


@contextmanager
def _decoders_words() -> Iterator[list[str]]:
    """Collect what libjpeg and libpng print meanwhile: they have no other way to tell that data are damaged."""
    words: list[str] = []
    with _stderr:
        try:
            before = os.dup(2)
        except OSError:  # closed
            yield words
            return
        reader, writer = os.pipe()
        os.set_blocking(writer, False)  # what does not fit into the pipe is lost
        os.dup2(writer, 2)
        os.close(writer)
        try:
            yield words
        finally:
            os.dup2(before, 2)  # closes the pipe's other end
            os.close(before)
            with os.fdopen(reader, "rb") as pipe:
                lines = pipe.read().splitlines(keepends=True)
            for line in lines:
                text = line.decode(errors="replace").strip()
                if _WORDS.match(text):
                    words.append(text)
                else:  # another thread's
                    os.write(2, line)


def _decode_jpeg(path: Path, data: bytes) -> Decoded:
    if fault := _jpeg_fault(data):
        raise DataError(f"{path}: {fault}")
    rgb, blocks = _decode_opencv(path, data)
    return Decoded(rgb, Tags(blocks.get(ICC), blocks.get(EXIF)))


def _jpeg_fault(data: bytes) -> str | None:
    """Return what OpenCV overlooks in a JPEG: the colours of a printer, and a scan that is partly zeros.

    libjpeg takes zeros for the shortest code, again and again. An encoder writes so only if that code is the end of a
    block in every table, as it can be for flat images; and in files of several scans.
    """
    at, shortest, kind = 2, set(), 0
    while kind != 0xDA and at + 4 < len(data):
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if kind in (0xC0, 0xC1, 0xC2) and data[at + 9 : at + 10] == b"\4":
            return "has the colours of a printer (CMYK); convert it to RGB"
        table = data[at + 4 : at + 2 + length] if kind == 0xC4 else b""
        while len(table) > 17:
            shortest |= {table[17]} if table[0] >> 4 else set()  # of the codes for coefficients
            table = table[17 + sum(table[1:17]) :]
        at += 2 + length
    end = data.find(b"\xff\xd9", at)
    if shortest - {0} and data.find(bytes(24), at, end) >= 0 and data.find(b"\xff\xda", at, end) < 0:
        return "part of its pixels was overwritten with zeros; copy or download it again"
    return None


def _decode_png(path: Path, data: bytes) -> Decoded:
    kinds, at = set(), 8
    while at + 8 <= len(data) and b"IDAT" not in kinds:  # OpenCV takes as much memory as a chunk states
        length, kind = struct.unpack_from(">I4s", data, at)
        kinds.add(kind)
        at += 12 + length
    if at > len(data):
        raise DataError(f"{path}: cannot be decoded as an image; copy or download it again")
    rgb, blocks = _decode_opencv(path, data)
    tags = Tags(exif=blocks.get(EXIF))
    if b"cICP" in kinds and len(cicp := blocks.get(CICP, b"")) == 4:  # goes before all others
        return Decoded(rgb, Tags(cicp=(cicp[0], cicp[1], cicp[3] == 1)))
    if kinds & {b"iCCP", b"sRGB", b"gAMA", b"cHRM"}:
        tags = _png_tags(path, data, blocks.get(EXIF))
    return Decoded(rgb, tags)


def _png_tags(path: Path, data: bytes, exif: bytes | None) -> Tags:
    """Return the tags of a PNG: of OpenCV's decoder, which gives no sRGB, gAMA and cHRM, by Pillow."""
    with needs("photographs", f"{path}: has tags of its encoding, which"):
        from PIL.PngImagePlugin import PngImageFile

    try:
        info = PngImageFile(io.BytesIO(data)).info  # not Image.open: that has a limit of pixels
    except (SyntaxError, *BROKEN) as error:
        raise DataError(f"{path}: its tags are damaged ({error}); save it anew, or remove them") from error
    if "icc_profile" in info and not info["icc_profile"]:
        raise DataError(f"{path}: its ICC profile is damaged; save it anew, or remove it")
    return Tags(info.get("icc_profile"), exif, None, "srgb" in info, info.get("gamma"), info.get("chromaticity"))


def _bmp_tags(data: bytes) -> Tags:
    """Return what the header of a BMP, versions 4 and 5, says: no library at hand reads it."""
    if len(data) < 138 or (size := struct.unpack_from("<I", data, 14)[0]) < 108:
        return Tags()
    kind, gammas = data[70:74], data[110:122]
    if kind in (b"BGRs", b" niW"):
        return Tags(srgb=True)
    if kind == b"DEBM" and size >= 124:
        at, length = struct.unpack_from("<II", data, 126)
        return Tags(icc=data[14 + at : 14 + at + length].ljust(128, b"\0"))
    if kind == b"KNIL" or any(gammas):
        return Tags(problem="a profile in another file" if kind == b"KNIL" else "calibrated RGB")
    return Tags()


def _decode_tiff(path: Path, data: bytes) -> Decoded:
    with needs("photographs", f"{path}: is a TIFF file, which"):
        import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            pages = [part for page in file.pages for part in (page, *(page.aspage().pages or ()))]
            pictures = [page for page in pages if not page.subfiletype & 5]  # neither reduced nor masks
            raw = (tifffile.PHOTOMETRIC.CFA, tifffile.PHOTOMETRIC.LINEAR_RAW)
            if any(page.photometric in raw or DNG_VERSION in page.tags for page in pages):
                return _develop_raw(path)
            composite = len(pictures) == 3 and file.series[0].axes == "CYX"  # ImageJ's: one page for each channel
            if len(pictures) != 1 and not composite:
                what = f"is a TIFF file of {len(pictures)} pages" if pages else "is a TIFF file without an image"
                raise DataError(f"{path}: {what}; save the one RGB image that is meant as a file")
            page, *_ = pictures = [page.aspage() for page in pictures]
            _check_tiff(path, pictures, len(data))
            if composite:
                return Decoded(np.ascontiguousarray(np.moveaxis(file.series[0].asarray(), 0, 2)), _tiff_tags(page))
            rgb, full_scale = _tiff_values(page)
            return Decoded(_orient(rgb, page.tags.valueof(ORIENTATION, 1)), _tiff_tags(page), full_scale)
    except DataError:
        raise
    except (*BROKEN, tifffile.TiffFileError) as error:
        if is_out_of_memory(error):
            raise
        raise DataError(f"{path}: cannot be decoded as a TIFF image ({error}); copy or download it again") from error


DNG_VERSION, ORIENTATION, EXIF_IFD = 50706, 274, 34665


def _check_tiff(path: Path, pages: list[Any], n_bytes: int) -> None:
    """Raise DataError if the pages of an image are not RGB, or state more values than the file can hold."""
    import tifffile

    page = pages[0]
    kinds = tifffile.PHOTOMETRIC
    jpeg = (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG)
    readable = (kinds.RGB, kinds.MINISBLACK, kinds.MINISWHITE, kinds.PALETTE)
    if page.photometric not in readable and not (page.photometric == kinds.YCBCR and page.compression in jpeg):
        name = "a printer (CMYK)" if page.photometric == kinds.SEPARATED else getattr(page.photometric, "name", "?")
        raise DataError(f"{path}: has the colours of {name}; convert it to RGB")
    if page.dtype not in (np.uint8, np.uint16, bool):
        raise DataError(f"{path}: its values are {page.dtype}; images of 8 or 16 bits are needed")
    height, width, channels = page.imagelength, page.imagewidth, page.samplesperpixel
    if channels > 4 or page.imagedepth > 1:
        raise DataError(f"{path}: a TIFF file of shape {page.shape}; an RGB image is needed")
    if height * width > MAX_PIXELS:
        raise DataError(f"{path}: has more than 2^30 pixels, or states so; cut it into parts")
    needed = len(pages) * height * width * channels * page.bitspersample // 8
    counts = [count for page in pages for count in page.databytecounts]
    held, n_parts = sum(counts), math.prod(page.chunked) * len(pages)
    decoded = n_parts * math.prod(page.chunks) * page.bitspersample // 8  # tiles may be larger than the image
    # no compression makes less than 1/5000 of a photograph
    if (
        not all(counts)
        or len(counts) < n_parts
        or held > n_bytes
        or 5000 * held < decoded
        or (page.compression == 1 and held < needed)
    ):
        raise DataError(f"{path}: cannot be decoded as a TIFF image (values are missing); copy or download it again")


def _tiff_values(page: Any) -> tuple[np.ndarray, int]:
    """Return the values (H, W, 3) of a page of a TIFF file, and that of full light."""
    import tifffile

    image, full_scale = page.asarray(), 2**page.bitspersample - 1
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and image.ndim == 3:
        image = np.moveaxis(image, 0, 2)
    if image.dtype == bool:
        image = image.astype(np.uint8)
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        image = full_scale - image
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        image, full_scale = np.moveaxis((page.colormap >> 8).astype(np.uint8)[:, image], 0, 2), 255
    return _three_channels(image), full_scale


def _tiff_tags(page: Any) -> Tags:
    icc, details = page.tags.valueof(34675), page.tags.valueof(EXIF_IFD)
    exif = (details.get("ColorSpace"), None) if isinstance(details, dict) else None
    return Tags(bytes(icc) if icc else None, exif)


def _three_channels(image: np.ndarray) -> np.ndarray:
    """Return an image of 1 (grey), 2 (grey and alpha), 3 or 4 channels as (H, W, 3)."""
    image = image[..., None] if image.ndim == 2 else image
    return np.ascontiguousarray(image[..., :3] if image.shape[2] > 2 else np.repeat(image[..., :1], 3, 2))


def _open_heif(path: Path, data: bytes, kind: str) -> tuple[Any, Tags]:
    """Return the primary image of a HEIC or AVIF file, not decoded yet, and its tags."""
    with needs("photographs", f"{path}: is {kind} file, which"):
        import pillow_heif

    try:
        file = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
        (width, height), info = file.size, file.info
    except Exception as error:  # libheif has errors of its own
        raise _broken_heif(path, error) from error
    if width * height > MAX_PIXELS:
        raise DataError(f"{path}: has more than 2^30 pixels, or states so; cut it into parts")
    nclx, cicp = info.get("nclx_profile"), None
    if nclx:  # 2 is "unspecified": the formats' default, sRGB
        primaries, transfer = int(nclx["color_primaries"]), int(nclx["transfer_characteristics"])
        cicp = (1 if primaries == 2 else primaries, 13 if transfer == 2 else transfer, True)
    return file, Tags(info.get("icc_profile"), info.get("exif"), cicp, default=kind.split()[-1])


def _broken_heif(path: Path, error: Exception) -> Exception:
    """Return the error for a HEIC or AVIF file that libheif or Pillow could not read."""
    reason = " ".join(str(error).split())
    return (
        error
        if is_out_of_memory(error) and "ecurity limit" not in reason
        else DataError(f"{path}: is a HEIC or AVIF file that cannot be decoded ({reason}); convert it to JPEG")
    )


def _decode_heic(path: Path, data: bytes) -> Decoded:
    file, tags = _open_heif(path, data, "a HEIC")
    try:
        image = np.asarray(file)
    except Exception as error:  # libheif has errors of its own
        raise _broken_heif(path, error) from error
    bits = file.info["bit_depth"]
    full_scale = 255 if image.dtype == np.uint8 else (2**bits - 1) << (16 - bits)  # as pillow-heif shifts them
    return Decoded(_three_channels(image), tags, full_scale)


def _decode_avif(path: Path, data: bytes) -> Decoded:
    """Decode by OpenCV, as pillow-heif decodes no AVIF; libavif's rotation is known to Pillow alone."""
    file, tags = _open_heif(path, data, "an AVIF")
    with needs("photographs", f"{path}: is an AVIF file, which"):
        from PIL.AvifImagePlugin import AvifImageFile

    rgb, _ = _decode_opencv(path, data, cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of EXIF, which is read below
            exif = AvifImageFile(io.BytesIO(data)).info.get("exif")
    except (SyntaxError, *BROKEN) as error:
        raise _broken_heif(path, error) from error
    orientation = read_exif(exif, path)[0] if exif else 1
    return Decoded(_orient(rgb, orientation), tags, 2 ** file.info["bit_depth"] - 1)


def _develop_raw(path: Path) -> Decoded:
    with needs("photographs", f"{path}: is a camera RAW file, which"):
        import rawpy

    try:
        with rawpy.imread(str(path)) as raw:
            as_shot = all(factor > 0 for factor in raw.camera_whitebalance[: raw.num_colors])
            image = raw.postprocess(
                gamma=(1, 1),
                no_auto_bright=True,
                adjust_maximum_thr=0,  # else the largest value, where it is near full scale, becomes full scale
                # without a balance as shot LibRaw would take the average for grey. This one is of the white that the
                # file states (AsShotWhiteXY), else of daylight
                use_camera_wb=as_shot,
                user_wb=None if as_shot else [*raw.daylight_whitebalance],
                output_bps=16,
                output_color=rawpy.ColorSpace.sRGB,
            )
            if not as_shot and raw.num_colors > 1:
                say(
                    path, "states no white balance as shot; developed for the white point that it states, or daylight"
                )
    except (rawpy.LibRawError, *BROKEN) as error:
        if is_out_of_memory(error):
            raise
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else error
        raise DataError(f"{path}: cannot be developed as camera RAW ({reason}); develop it as TIFF") from error
    return Decoded(_three_channels(image), Tags(), developed="developed from camera RAW, linear")


def _orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return an image as the EXIF orientation, 1 to 8, wants it shown."""
    if orientation not in range(2, 9):
        return image
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
