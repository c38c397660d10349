"""RGB images: decoding, the encoding of photographs, and the released code's normalisation.

The network wants linear light, as the challenge's images have it. Photographs are encoded, mostly by the sRGB curve.
`read_image` reads both as linear RGB with the primaries of sRGB::

    image = read_image("photo.jpg", "auto")
    image.values, image.how     # (H, W, 3) float32 in [0, 1]; "decoded from sRGB (as tagged)"
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from drcr.decoding import RAW_SUFFIXES, decode
from drcr.tags import SRGB, colour_space, to_linear
from drcr.utils.files import DataError, and_more, check_name, list_files, plural, printable

Encoding = Literal["auto", "linear", "srgb"]
ENCODINGS: tuple[str, ...] = get_args(Encoding)
InputEncoding = Literal["linear", "stored"]
"""What a network is trained on: linear light, or encoded values as their files store them."""

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".jpe", ".mpo", ".png", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".heic", ".heif",
    ".hif", *RAW_SUFFIXES
)  # fmt: skip
ENCODING_HELP = (
    "encoding of the images. auto: a file whose tags say how it is encoded (ICC profile, EXIF, PNG) is decoded to "
    "linear light accordingly; a file without tags is linear, as ARAD_1K's files are (WebP, AVIF and HEIC: sRGB). "
    "srgb: a file without tags is decoded from sRGB, as photographs are. linear: tags are ignored, values are "
    "taken as they are. RAW files are developed linear"
)


def add_encoding_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --encoding, for `read_image`."""
    parser.add_argument("--encoding", type=str.lower, choices=ENCODINGS, default="auto", help=ENCODING_HELP)


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add the images to reconstruct, for `all_images`."""
    parser.add_argument(
        "images", nargs="*", type=Path, metavar="IMAGE", help="images or folders, instead of --RGB_dir"
    )
    parser.add_argument("--RGB_dir", type=Path, default="../Dataset/Valid_RGB", help="folder of images, or one image")


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
    names = {image.name for image in images}
    others = sorted(
        entry.name for entry in path.iterdir() if entry.name not in names and entry.name[0] != "." and entry.is_file()
    )
    if others:
        print(f"skipped, not images, in {path}: {and_more(others, 10)}", file=sys.stderr)
    return images


def all_images(args: argparse.Namespace) -> list[Path]:
    """Return the images that `add_inputs` names, or that are in them. Raises DataError if two have the same name."""
    images = [image for source in args.images or [args.RGB_dir] for image in find_images(source)]
    names = Counter(image.stem for image in images)
    for image in images:
        if names[image.stem] > 1:
            raise DataError(f"{image}: another image has the same name; reconstruct it into another --result_dir")
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
    looks_encoded : whether it was taken as linear for want of tags, and looks like an encoded photograph
    full_scale : the value of full light in `stored`, where these are whole numbers
    """

    stored: np.ndarray
    how: str
    tagged: bool
    encoded: bool = False
    photograph: bool = False
    looks_encoded: bool = False
    full_scale: int = 1

    @property
    def values(self) -> np.ndarray:
        """The image as linear RGB, (H, W, 3) float32 in [0, 1], where 1 is the full scale of the file."""
        return np.float32(self.stored) / np.float32(1 if self.stored.dtype == np.float32 else self.full_scale)

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
    encoding : "auto": decode by the tags of the file (ICC profile, EXIF `ColorSpace`, PNG's cICP, sRGB, gAMA and
        cHRM, the colour box of AVIF and HEIC); a file without tags is linear, but WebP, AVIF and HEIC are sRGB, as
        their specifications say. "srgb": a file without tags is sRGB. "linear": take the values as they are,
        whatever the tags say.

    Raises
    ------
    DataError : as `read_rgb`, or the encoding that the tags name is not supported.
    """
    path = Path(path)
    found = decode(path)
    rgb = found.rgb
    full_scale = found.full_scale or int(np.iinfo(rgb.dtype).max)
    if found.developed:
        return RGBImage(rgb, found.developed, True, photograph=True, full_scale=full_scale)
    is_grey = bool((rgb[..., :1] == rgb[..., 1:]).all()) if found.tags.icc else False
    space, why = colour_space(found.tags, path, is_grey), "as tagged"
    if encoding == "linear":
        if space is None or space.is_linear:
            return RGBImage(rgb, "taken as linear (--encoding linear)", space is not None, full_scale=full_scale)
        how = f"taken as linear although tagged {space.name} (--encoding linear)"
        return RGBImage(rgb, how, True, encoded=True, full_scale=full_scale)
    tagged = space is not None
    if space is None and found.tags.default:
        space, why = SRGB, f"the default of {found.tags.default}"
    elif space is None and encoding == "srgb":
        space, why = SRGB, "--encoding srgb"
    if space is None:
        return RGBImage(rgb, UNTAGGED, False, looks_encoded=looks_encoded(rgb, full_scale), full_scale=full_scale)
    if space.problem:
        raise DataError(f"{path}: its tags say {space.problem}, which is not supported; convert it to sRGB")
    if space.is_linear:
        return RGBImage(rgb, "linear (as tagged)", tagged, full_scale=full_scale)
    linear = to_linear(rgb, full_scale, space, path)
    is_encoded = space.icc is not None or space.transfer != 1.0
    return RGBImage(linear, f"decoded from {space.name} ({why})", tagged, photograph=is_encoded)


UNTAGGED = "taken as linear (no tags)"


def describe_decoding(images: Iterable[RGBImage | str]) -> str:
    """Return a line on how images were read, for a run to print once; `images` or their `how`."""
    counts = Counter(image if isinstance(image, str) else image.how for image in images)
    parts = [f"{count} {'image' if count == 1 else 'images'} {how}" for how, count in counts.items()]
    hint = "; photographs without tags need --encoding srgb" if UNTAGGED in counts else ""
    return ", ".join(sorted(parts, key=lambda part: UNTAGGED in part)) + hint


def looks_encoded(rgb: np.ndarray, full_scale: int) -> bool:
    """Return whether stored values (H, W, 3) are so bright as those of encoded photographs.

    Their mean is 0.18 of the full scale in linear photographs that are exposed for grey, 0.46 encoded by sRGB.
    """
    return float(rgb.mean()) > 0.3 * full_scale


@dataclass(frozen=True)
class ImageFacts:
    """Of an image that was read once: how, in words, whether it is a photograph, and its size."""

    how: str
    photograph: bool
    height: int
    width: int


def read_once(
    paths: list[Path], encoding: Encoding, strict: bool = False, smallest: tuple[int, int] = (1, 1)
) -> tuple[dict[Path, ImageFacts], dict[Path, Exception]]:
    """Read all images: one that cannot be decoded shows now, not after hours.

    Returns what is known of each, and why others are skipped: a broken one, or one of less than `smallest` rows and
    columns, raises only if `strict`, or if no image is left. Prints how they are decoded, and names on stderr what
    looks encoded and is taken as linear.
    """
    facts, skipped, doubtful = {}, {}, []
    for path in paths:
        try:
            image = read_image(path, encoding)
            height, width = image.stored.shape[:2]
            if height < smallest[0] or width < smallest[1]:
                needed = f"at least {smallest[0]} x {smallest[1]} are needed"
                raise DataError(f"{path}: {height} x {width} pixels; {needed}")
        except (DataError, OSError) as error:
            if strict or len(paths) == 1:
                raise
            skipped[path] = error
            continue
        facts[path] = ImageFacts(image.how, image.photograph, height, width)
        doubtful += [printable(path.name)] * image.looks_encoded
    if doubtful:
        words = "warning: without tags, and so taken as linear, but as bright as encoded photographs"
        print(f"{words}: {and_more(doubtful, 10)}; --encoding srgb decodes them", file=sys.stderr)
    if not facts:
        report_skipped(skipped)
    print(describe_decoding(image.how for image in facts.values()))
    return facts, skipped


def report_skipped(skipped: dict[Path, Exception]) -> None:
    """Print on stderr why images were skipped; raises DataError, for the exit status, if any was."""
    for path, error in skipped.items():
        print(printable(f"skipped {path.name}: {error}"), file=sys.stderr)
    if skipped:
        names = and_more(path.name for path in skipped)
        raise DataError(f"{plural(len(skipped), 'image')} skipped: {names}; repair or remove, or see above")


def apparent_exponent(rgb: np.ndarray, cube: np.ndarray) -> float:
    """Return the exponent g for which an image is closest to a power of its cube's brightness, image ~ radiance^g.

    About 1 for a linear image (0.92 to 1.18 for 42 images of CAVE), 0.5 for one encoded by the sRGB curve (0.40 to
    0.62 for 28). From the medians of the image (H, W, 3), of any scale, in 20 classes of brightness of its cube (H,
    W, bands); clipped and near-black values do not count. NaN if too little is left.
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
    DataError : the file is missing, truncated, not an image, not of 8 to 16 bits, or black all over; or an optional
        library is missing.
    """
    return decode(Path(path)).rgb


def normalise_rgb(image: np.ndarray, peak: float | None = None) -> np.ndarray:
    """Return an image as float32 divided by its largest value over all channels, so in [0, 1].

    `peak` is that largest value where `image` is a patch of a larger one.
    """
    return np.float32(image) / np.float32(image.max() if peak is None else peak)
