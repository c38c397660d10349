"""RGB images: decoding, and the released code's normalisation."""

from pathlib import Path

import cv2
import numpy as np

from drcr.utils.files import DataError, list_files

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")

cv2.utils.logging.setLogLevel(
    cv2.utils.logging.LOG_LEVEL_SILENT
)  # what does not decode is reported by read_rgb, in one line


def find_images(path: Path) -> list[Path]:
    """Return the images of a folder, sorted by name, or the one image that `path` is."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; an image, or a folder of images, is needed")
    return [path] if path.is_file() else list(list_files(path, IMAGE_SUFFIXES, "RGB images").values())


def read_rgb(path: str | Path) -> np.ndarray:
    """Decode a JPEG, PNG, BMP or TIFF file as (H, W, 3), red first, uint8 or uint16 as the file has it.

    OpenCV is the decoder because it was the released code's: another one differs in JPEG's last digits. As
    there, EXIF rotation is applied, transparency dropped, grey made of three equal channels. Raises DataError
    if the file is missing, truncated, of other than 8 or 16 bits, or black all over.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    # not cv2.imread: it fills up a truncated JPEG with grey and says nothing
    data = np.fromfile(path, np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if data.size else None
    except cv2.error:  # too large, or of a depth that it knows nothing of
        image = None
    if image is None:
        raise DataError(f"{path}: does not decode as an image; copy or download it again")
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path}: its values are {image.dtype}; images of 8 or 16 bits are needed")
    if image.max() == 0:
        raise DataError(f"{path}: black all over; there is nothing to reconstruct")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def normalise_rgb(image: np.ndarray, peak: float | None = None) -> np.ndarray:
    """Return an image as float32 divided by its largest value over all channels, so in [0, 1].

    `peak` is that largest value where `image` is a patch of a larger one.
    """
    return np.float32(image) / np.float32(image.max() if peak is None else peak)


def decode_srgb(values: np.ndarray) -> np.ndarray:
    """Return linear values of sRGB-encoded ones, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encode_srgb(values: np.ndarray) -> np.ndarray:
    """Return sRGB-encoded values of linear ones, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)


def read_linear(path: str | Path) -> np.ndarray:
    """TEMPORARY."""
    from PIL import Image

    with Image.open(path) as image:
        space = image.getexif().get_ifd(0x8769).get(0xA001)
    rgb = read_rgb(path)
    return np.float32(decode_srgb(rgb / 255)) if space == 1 else rgb
