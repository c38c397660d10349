"""RGB images: decoding, the encoding of photographs, and the released code's normalisation.

The network wants linear light, as the challenge's images have it. Photographs are encoded, mostly by the sRGB curve.
`read_image` reads both as linear RGB with the primaries of sRGB::

    image = read_image("photo.jpg", "auto")
    image.values, image.how     # (H, W, 3) float32 in [0, 1]; "decoded from sRGB (as tagged)"
"""

import argparse
import io
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np

from drcr.tags import PRIMARIES, WHITE_D65, Tags, read_tags
from drcr.utils.files import BROKEN, DataError, check_name, is_out_of_memory, list_files

Encoding = Literal["auto", "linear", "srgb"]
ENCODINGS: tuple[str, ...] = get_args(Encoding)
InputEncoding = Literal["linear", "stored"]
"""What a network is trained on: linear light, or encoded values as their files store them."""

RAW_SUFFIXES = (
    ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".raf", ".orf", ".rw2", ".pef", ".srw",
    ".3fr", ".fff", ".iiq", ".erf", ".mef", ".mos", ".mrw", ".kdc", ".dcr", ".rwl", ".x3f",
)  # fmt: skip
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".heic", ".heif", *RAW_SUFFIXES
)  # fmt: skip
UNREADABLE = {
    b"GIF8": "GIF", b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL", b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"%PDF": "PDF", b"8BPS": "Photoshop", b"\x76\x2f\x31\x01": "OpenEXR", b"<": "HTML or SVG",
    b"#?RADIANCE": "Radiance HDR",
}  # fmt: skip
"""What files begin with that are sometimes taken for images that can be read."""

ENCODING_HELP = (
    "encoding of the images. auto: a file whose tags say how it is encoded (ICC profile, EXIF, PNG) is decoded to "
    "linear light accordingly; a file without tags is linear, as ARAD_1K's files are. srgb: a file without tags is "
    "decoded from sRGB, as photographs are. linear: tags are ignored, values are taken as they are. RAW files are "
    "developed linear"
)

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # read_rgb reports errors, in one line


def add_encoding_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --encoding, for `read_image`."""
    parser.add_argument("--encoding", type=str.lower, choices=ENCODINGS, default="auto", help=ENCODING_HELP)


def encoding_for(trained_on: InputEncoding, asked: Encoding, model_path: str | Path) -> Encoding:
    """Return how to read the images for a network, or a map, that was trained on linear or on stored values.

    Raises DataError if `asked`, of --encoding, would decode images for one that was trained on stored values.
    """
    if trained_on == "linear":
        return asked
    if asked == "srgb":
        raise DataError(f"{model_path}: was trained on encoded images as they are stored; omit --encoding srgb")
    return "linear"


def find_images(path: Path) -> list[Path]:
    """Return the images of a folder, sorted by name, or the one image that `path` is.

    Reports on stderr which files of a folder are skipped because they are not images.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; an image, or a folder of images, is needed")
    if path.is_file():
        check_name(path)
        return [path]
    images = list(list_files(path, IMAGE_SUFFIXES, "RGB images").values())
    others = sorted(
        entry.name for entry in path.iterdir() if entry.is_file() and entry not in images and entry.name[0] != "."
    )
    if others:
        more = f" and {len(others) - 10} more" if len(others) > 10 else ""
        print(f"skipped, not images, in {path}: {', '.join(others[:10])}{more}", file=sys.stderr)
    return images


@dataclass(frozen=True)
class RGBImage:
    """An image file, read as linear RGB.

    Attributes
    ----------
    stored : (H, W, 3), red first, proportional to linear light: uint8 or uint16 as in the file if the file is linear,
        else float32 in [0, 1] with the primaries of sRGB
    how : what was done, in words: "decoded from sRGB (as tagged)"
    tagged : whether the file says how it is encoded
    encoded : whether `stored` is not linear light after all, because "linear" was asked for although the tags say
        otherwise
    photograph : whether `stored` was decoded or developed, as photographs are; else it is linear as stored
    """

    stored: np.ndarray
    how: str
    tagged: bool
    encoded: bool = False
    photograph: bool = False

    @property
    def values(self) -> np.ndarray:
        """The image as linear RGB, (H, W, 3) float32 in [0, 1], where 1 is the full scale of the file."""
        scale = 1 if self.stored.dtype == np.float32 else np.iinfo(self.stored.dtype).max
        return np.float32(self.stored) / np.float32(scale)

    @property
    def input_encoding(self) -> InputEncoding:
        """What a network gets to see: "stored" if the values are encoded after all."""
        return "stored" if self.encoded else "linear"

    def normalised(self) -> np.ndarray:
        """Return the network's input: (H, W, 3) float32, divided by the largest value."""
        return normalise_rgb(self.stored)


def read_image(path: str | Path, encoding: Encoding = "auto") -> RGBImage:
    """Read an image file as linear RGB.

    Parameters
    ----------
    path : JPEG, PNG, TIFF, BMP, WebP, AVIF, HEIC or camera RAW, as `read_rgb` reads them
    encoding : "auto": decode by the tags of the file (ICC profile, EXIF `ColorSpace`, PNG's cICP, sRGB and gAMA, the
        colour box of AVIF and HEIC); a file without tags is linear. "srgb": a file without tags is sRGB. "linear":
        take the values as they are, whatever the tags say.

    Raises
    ------
    DataError : as `read_rgb`, or the encoding that the tags name is not supported.
    """
    path = Path(path)
    rgb, tags, is_raw = _decode(path)
    tagged = is_raw or tags.name is not None
    if is_raw:
        return RGBImage(rgb, "developed from camera RAW, linear", tagged, photograph=True)
    is_linear = tags.icc is None and tags.transfer == 1.0 and tags.primaries == "sRGB"
    if encoding == "linear" and tagged and not is_linear:
        return RGBImage(rgb, f"taken as linear although tagged {tags.name} (--encoding linear)", True, True)
    if encoding == "linear":
        return RGBImage(rgb, "taken as linear (--encoding linear)", tagged)
    if tags.name is None and encoding == "auto":
        return RGBImage(rgb, UNTAGGED, tagged)
    if tags.problem:
        raise DataError(f"{path}: its tags say {tags.problem}, which is not supported; convert it to sRGB")
    if not tagged:
        linear = _to_linear(rgb, Tags("sRGB"), path)
        return RGBImage(linear, "decoded from sRGB (--encoding srgb)", tagged, photograph=True)
    if is_linear:
        return RGBImage(rgb, "linear (as tagged)", tagged)
    how = f"decoded from {tags.name} (as tagged)"
    return RGBImage(_to_linear(rgb, tags, path), how, tagged, photograph=True)


UNTAGGED = "taken as linear (no tags)"


def describe_decoding(images: Iterable[RGBImage | str]) -> str:
    """Return a line on how images were read, for a run to print once; `images` or their `how`."""
    counts = Counter(image if isinstance(image, str) else image.how for image in images)
    parts = [f"{count} {'image' if count == 1 else 'images'} {how}" for how, count in counts.items()]
    hint = "; photographs without tags need --encoding srgb" if UNTAGGED in counts else ""
    return ", ".join(sorted(parts, key=lambda part: UNTAGGED in part)) + hint


def apparent_exponent(rgb: np.ndarray, cube: np.ndarray) -> float:
    """Return the exponent g for which an image is closest to a power of its cube's brightness, image ~ radiance^g.

    About 1 for a linear image (0.92 to 1.18 for 42 images of CAVE), 0.5 for one encoded by the sRGB curve (0.40 to
    0.62 for 28). From the medians of the image in 20 classes of brightness; clipped and near-black values do not
    count. NaN if too little is left.

    Parameters
    ----------
    rgb : (H, W, 3), any scale
    cube : (H, W, bands) of the same scene
    """
    image, radiance = np.float64(rgb).mean(2).ravel(), np.float64(cube).mean(2).ravel()
    used = (np.float64(rgb).max(2).ravel() < 0.98 * rgb.max()) & (image > 0.02 * rgb.max()) & (radiance > 0.01)
    if np.count_nonzero(used) < 200:
        return float("nan")
    image, radiance = np.log(image[used]), np.log(radiance[used])
    order = np.array_split(np.argsort(radiance), 20)
    x, y = (np.array([np.median(values[part]) for part in order]) for values in (radiance, image))
    return float(np.polyfit(x, y, 1)[0]) if np.ptp(x) > 0.3 else float("nan")


def doubt_encoding(image: RGBImage, cube: np.ndarray) -> str | None:
    """Return why an image, compared with its cube (H, W, bands), seems to be read in the wrong encoding, or None."""
    exponent = apparent_exponent(image.stored, cube)
    words = f"{image.how}, but its values follow its cube's to the power of {exponent:.2f}"
    if exponent < 0.75:
        return f"{words}, as those of encoded photographs do; --encoding srgb decodes files without tags"
    if exponent > 1.45:
        return f"{words}, as if it were decoded although it is linear; --encoding linear ignores tags"
    return None


def read_rgb(path: str | Path) -> np.ndarray:
    """Decode an image file as (H, W, 3), red first, uint8 or uint16, the values as the file has them.

    JPEG, PNG, BMP, WebP and AVIF are decoded by OpenCV because it was the released code's decoder: another one
    differs in JPEG's last digits. TIFF is read by tifffile, HEIC by pillow-heif, camera RAW is developed by LibRaw:
    linear, 16 bits, white balance as shot, primaries of sRGB. Orientation tags are applied, transparency is dropped,
    grey becomes three equal channels. Tags of encoding are not applied: that is `read_image`.

    Raises
    ------
    DataError : the file is missing, truncated, not an image, not of 8 or 16 bits, or black all over; or an optional
        library is missing.
    """
    return _decode(Path(path))[0]


def _decode(path: Path) -> tuple[np.ndarray, Tags, bool]:
    """Return an image file's values (H, W, 3), its tags, and whether it was developed from camera RAW."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    data = path.read_bytes()
    is_raw = path.suffix.lower() in RAW_SUFFIXES or data[4:11] == b"ftypcrx"
    tags = Tags() if is_raw else read_tags(data)
    if is_raw:
        image = _develop_raw(path)
    elif data[4:8] == b"ftyp" and b"avif" not in data[8:64] and b"avis" not in data[8:64]:
        image = _decode_heic(path, data)
    elif data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        image = _orient(_decode_tiff(path, data), tags.orientation)
    else:
        image = _decode_opencv(path, data)
        if data[4:8] == b"ftyp":  # OpenCV applies the orientation of the others
            image = _orient(image, tags.orientation)
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path}: its values are {image.dtype}; images of 8 or 16 bits are needed")
    if image.max() == 0:
        raise DataError(f"{path}: black all over; there is nothing to reconstruct")
    return image, tags, is_raw


def _decode_opencv(path: Path, data: bytes) -> np.ndarray:
    # not cv2.imread: it fills up a truncated JPEG with grey and says nothing
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if data else None
    except cv2.error:  # too large, or of a depth that it knows nothing of
        image = None
    if image is None:
        for start, name in UNREADABLE.items():
            if data.startswith(start):
                raise DataError(f"{path}: is a {name} file, which is not read; convert it to PNG, TIFF or JPEG")
        raise DataError(f"{path}: cannot be decoded as an image; copy or download it again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _decode_tiff(path: Path, data: bytes) -> np.ndarray:
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            pages = [page for page in file.pages if not page.is_reduced]
            page = file.pages.first
            composite = len(pages) == 3 and file.series[0].axes == "CYX"  # ImageJ's: one page for each channel
            if len(pages) > 1 and not composite:
                raise DataError(f"{path}: holds {len(pages)} pages; save the one RGB image that is meant as a file")
            plain = page.photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.MINISBLACK)
            if composite:
                image = np.moveaxis(file.series[0].asarray(), 0, 2)
            elif plain and page.bitspersample in (8, 16, 32, 64):
                image = page.asarray()
                if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and image.ndim == 3:
                    image = np.moveaxis(image, 0, 2)
            elif page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
                raise DataError(f"{path}: has the colours of a printer (CMYK); convert it to RGB")
            else:
                return _decode_opencv(path, data)
    except DataError:
        raise
    except (*BROKEN, tifffile.TiffFileError) as error:
        raise DataError(f"{path}: cannot be decoded as a TIFF image; copy or download it again") from error
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, 2)
    if image.ndim != 3 or image.shape[2] not in (2, 3, 4):
        raise DataError(f"{path}: a TIFF file of shape {image.shape}; an RGB image is needed")
    return np.ascontiguousarray(image[..., :3] if image.shape[2] > 2 else np.repeat(image[..., :1], 3, 2))


def _decode_heic(path: Path, data: bytes) -> np.ndarray:
    try:
        import pillow_heif
    except ImportError as error:
        raise DataError(
            f"{path}: is a HEIC file, which needs pillow-heif (pip install 'drcr[photo]'); or convert it to JPEG"
        ) from error
    try:
        file = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
        image = np.asarray(file)
    except Exception as error:  # libheif has errors of its own
        raise DataError(f"{path}: is a HEIC file that cannot be decoded ({error}); convert it to JPEG") from error
    image = image[..., None] if image.ndim == 2 else image
    return np.ascontiguousarray(image[..., :3] if image.shape[2] > 2 else np.repeat(image[..., :1], 3, 2))


def _develop_raw(path: Path) -> np.ndarray:
    try:
        import rawpy
    except ImportError as error:
        raise DataError(
            f"{path}: is a camera RAW file, which needs rawpy (pip install 'drcr[photo]'); or develop it as TIFF"
        ) from error
    try:
        with rawpy.imread(str(path)) as raw:
            return raw.postprocess(
                gamma=(1, 1),
                no_auto_bright=True,
                adjust_maximum_thr=0,  # else the largest value, where it is near full scale, becomes full scale
                use_camera_wb=True,
                output_bps=16,
                output_color=rawpy.ColorSpace.sRGB,
            )
    except (rawpy.LibRawError, *BROKEN) as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else error
        raise DataError(f"{path}: cannot be developed as camera RAW ({reason}); develop it as TIFF") from error


def _orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return an image as the EXIF orientation, 1 to 8, wants it shown."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def decode_srgb(values: np.ndarray) -> np.ndarray:
    """Return linear values of sRGB-encoded ones, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encode_srgb(values: np.ndarray) -> np.ndarray:
    """Return sRGB-encoded values of linear ones, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)


@lru_cache
def _linear_profile(primaries: str) -> bytes:
    """Return an ICC profile of linear RGB."""
    import imagecodecs

    x_y = PRIMARIES[primaries]
    chromaticities = (*x_y[0:2], 1.0, *x_y[2:4], 1.0, *x_y[4:6], 1.0)
    return imagecodecs.cms_profile("rgb", whitepoint=(*WHITE_D65, 1.0), primaries=chromaticities, gamma=1.0)


def _to_linear(rgb: np.ndarray, tags: Tags, path: Path) -> np.ndarray:
    """Return the stored values (H, W, 3) as linear RGB with the primaries of sRGB, float32, clipped to [0, 1]."""
    top = np.iinfo(rgb.dtype).max
    if tags.icc is None:
        levels = np.arange(top + 1) / top
        curve = decode_srgb(levels) if tags.transfer == "srgb" else levels ** float(tags.transfer)
        linear = curve.astype(np.float32)[rgb]
        if tags.primaries != "sRGB":
            linear = _convert(linear, _linear_profile(tags.primaries))
        return np.clip(linear, 0, 1)
    space = tags.icc[16:20]
    if space not in (b"RGB ", b"GRAY"):
        raise DataError(f"{path}: has a profile for {space.decode('latin-1').strip()}, not RGB; convert it to sRGB")
    try:
        if space == b"GRAY":
            grey = np.ascontiguousarray(rgb[..., 0], np.float32) / top
            return np.clip(_convert(grey, tags.icc, "gray"), 0, 1)
        return np.clip(_convert(np.float32(rgb) / np.float32(top), tags.icc), 0, 1)
    except Exception as error:  # of Little CMS
        if is_out_of_memory(error):
            raise
        raise DataError(f"{path}: its ICC profile is damaged; remove it, or --encoding linear ignores it") from error


def _convert(values: np.ndarray, profile: bytes, space: str = "rgb") -> np.ndarray:
    """Return float32 values in [0, 1] of a profile's space as linear RGB with the primaries of sRGB, not clipped."""
    import imagecodecs  # Little CMS, the colour management library, in float32

    return imagecodecs.cms_transform(
        values,
        profile,
        _linear_profile("sRGB"),
        colorspace=space,
        outcolorspace="rgb",
        outdtype="float32",
        intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
    )


def normalise_rgb(image: np.ndarray, peak: float | None = None) -> np.ndarray:
    """Return an image as float32 divided by its largest value over all channels, so in [0, 1].

    `peak` is that largest value where `image` is a patch of a larger one.
    """
    return np.float32(image) / np.float32(image.max() if peak is None else peak)
