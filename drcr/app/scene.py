"""What app.py's page shows: an image with its reconstruction, or an opened cube; views, spectra and scores."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from drcr import metrics
from drcr.app.guard import check_claim, count_planes
from drcr.cube import Cube, check_cube, describe_bands, raise_to_floor, reference_factor, same_bands
from drcr.figures.colour import cielab_of_srgb, luminance, true_colour, white_level
from drcr.formats.cubes import CUBE_SUFFIXES, read_cube_file
from drcr.formats.maps import LEVEL_COLOURS, LEVELS, check_maps
from drcr.images import RGBImage, read_image
from drcr.light import lamp
from drcr.metrics import SCORES
from drcr.scoring.scoring import read_truth
from drcr.tags import decode_srgb, encode_srgb
from drcr.utils.files import DataError, plural

PHOTOGRAPH, LINEAR = "photograph", "linear"
"""What an image can be: encoded, as by the sRGB curve, or linear light."""
LOWEST = 1e-7
"""Ground truths are kept with values from here up; any floor is higher."""
FLOOR = 0.01
"""What dark values of a ground truth are raised to, if nobody says otherwise."""
Box = tuple[int, int, int, int]
"""The first row and column of a region, and the last; of a point they are equal."""


@dataclass(frozen=True)
class Comparison:
    """A ground truth, and what it says about a cube when its values are raised to `floor`."""

    truth: Cube
    """As the file has it, but for values below LOWEST."""
    floor: float
    raised: int
    scores: list[float]
    """SCORES."""
    errors: np.ndarray
    """Relative errors (H, W, bands)."""


@dataclass
class PageScene:
    """A cube and what is known of it.

    Attributes
    ----------
    name : of the file, without suffix
    lines : what was read, and how
    cube, wavelengths : (H, W, bands) as reconstructed or read, and (bands,) in nm
    origin : where the cube comes from, for its file
    photo : (H, W, 3), sRGB in [0, 1]: the image as it was dropped, None for a cube that was opened
    hidden : (H, W) bool, the transparent pixels, or None
    maps, statement : where not to trust the cube (`Confidence.maps`), and what the bound means
    factor : of that bound; None: the file of the cube does not have it
    encoding : PHOTOGRAPH, LINEAR, or "" for a cube
    held : whether the network holds its spectra to the colours of the image
    files : what was uploaded, to read it again
    """

    name: str
    lines: list[str]
    cube: np.ndarray
    wavelengths: np.ndarray
    origin: str
    photo: np.ndarray | None = None
    hidden: np.ndarray | None = None
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    statement: str = ""
    factor: float | None = None
    encoding: str = ""
    held: bool = False
    files: list[Path] = field(default_factory=list)
    comparison: Comparison | None = None
    reference: tuple[int, int, float] | None = None
    light: str = ""
    lamp_file: Path | None = None

    def __post_init__(self) -> None:
        """Render the colours and set the scale of the bands."""
        self.gain, self.gain_words = np.ones(len(self.wavelengths), np.float32), ""
        self.difference = ""
        white = white_level(self.cube, self.wavelengths, "E")
        if self.photo is not None:
            white = _same_exposure(self.photo, self.cube, self.wavelengths, self.hidden) or white
        self.colours = true_colour(self.cube, self.wavelengths, "E", white)
        if self.photo is not None:
            self.difference = _describe_difference(self.photo, self.colours, self.hidden) + self._reason()
        # of a tenth of a million pixels; scaled to the brightest one, a highlight would leave the rest dark
        step = max(int(np.sqrt(self.cube[..., 0].size / 1e5)), 1)
        seen = self.cube[::step, ::step]
        if self.hidden is not None and not self.hidden[::step, ::step].all():
            seen = seen[~self.hidden[::step, ::step]]
        self.whites = np.maximum(np.percentile(seen.reshape(-1, seen.shape[-1]), 99.5, axis=0), 1e-6)

    def _reason(self) -> str:
        """Return why the colours differ."""
        if self.encoding == LINEAR:
            return "The image has the values of a camera, which sees other colours than the eye."
        if self.held:
            return "The spectra are held to the colours of the photograph, less so where it is dark or clipped."
        return "The network estimates spectra, and nothing holds them to the colours of the photograph."

    @property
    def scaled(self) -> np.ndarray:
        """The cube with the reference and the lamp applied."""
        return self.cube if (self.gain == 1).all() else self.cube * self.gain

    def adjust(self, reference: tuple[int, int, float] | None, light: str, floor: float = FLOOR) -> None:
        """Scale the cube by a point (row, column) of known reflectance, and put it under a lamp.

        `light` is the name of an illuminant, or that of the table that `lamp_file` has; "" for light of equal energy.
        The values of a ground truth are raised to `floor`. Raises DataError if the point or the lamp cannot be used;
        then nothing changes.
        """
        gain, words = np.ones(len(self.wavelengths)), []
        if reference is not None:
            row, column, reflectance = reference
            factor, said = reference_factor(self.cube, (row, column), reflectance, self.name)
            gain, words = gain * factor, [said]
        if light:
            source = self.lamp_file if light.lower().endswith(".csv") and self.lamp_file else light
            gain = gain * lamp(source, self.wavelengths)
            words.append(f"radiance under the lamp {light}")
        check_floor(floor)
        self.reference, self.light = reference, light
        self.gain, self.gain_words = gain.astype(np.float32), "".join(f", {word}" for word in words)
        if self.comparison:
            self.score(self.comparison.truth, floor)

    def compare(self, path: Path, floor: float) -> None:
        """Read a ground truth and score the cube.

        Raises DataError if the file is not a cube, or has another size or other wavelengths.
        """
        check_claim(path)
        true = read_truth(path, LOWEST)
        assert true is not None  # there is a floor
        truth, _ = true
        if truth.values.shape != self.cube.shape:
            (theirs, ours) = (
                f"{shape[1]} x {shape[0]} pixels, {plural(shape[2], 'band')}"
                for shape in (truth.values.shape, self.cube.shape)
            )
            raise DataError(f"{path}: {theirs}, but the cube has {ours}; choose the ground truth of this scene")
        wavelengths = truth.known_wavelengths
        if wavelengths is not None and not same_bands(wavelengths, self.wavelengths):
            theirs, ours = describe_bands(wavelengths), describe_bands(self.wavelengths)
            raise DataError(f"{path}: {theirs}, but the cube has {ours}; choose the ground truth of this scene")
        self.score(truth, floor)

    def score(self, true: Cube, floor: float) -> None:
        """Score the cube as compute_mrae.py does, with the values of the ground truth raised to `floor`."""
        check_floor(floor)
        truth, raised = raise_to_floor(true.values, floor)
        rec = self.scaled.clip(0, 1)
        scores = [getattr(metrics, name)(rec, truth) for name in SCORES]
        self.comparison = Comparison(true, floor, raised, scores, np.abs(rec - truth) / truth)

    def spectrum(self, box: Box) -> dict[str, Any]:
        """Return the spectrum of a region, for the page: its mean over the pixels that are not hidden, and more."""
        top, left, bottom, right = box
        part = np.s_[top : bottom + 1, left : right + 1]
        seen = np.ones((bottom + 1 - top, right + 1 - left), bool) if self.hidden is None else ~self.hidden[part]
        if not seen.any():
            return {"hidden": True}
        values = self.cube[part][seen].astype(np.float64) * self.gain
        found: dict[str, Any] = {
            "values": _plain(values.mean(0)),
            "spread": _plain(values.std(0)) if len(values) > 1 else None,
            "pixels": len(values),
        }
        if self.maps:
            levels = np.bincount(self.maps["confidence"][part][seen], minlength=len(LEVELS))
            found |= {"angle": float(self.maps["expected_sam"][part][seen].mean()), "level": int(levels.argmax())}
        if self.comparison:
            truth = raise_to_floor(self.comparison.truth.values[part][seen], self.comparison.floor)[0]
            found["truth"] = _plain(truth.mean(0, dtype=np.float64))
        return found

    def view(self, name: str, numbers: list[int]) -> bytes:
        """Return a PNG file: `photo`, `colour`, `bands` (one or three), `confidence`, `error` (of a band or all)."""
        if name == "photo" and self.photo is not None:
            image = self.photo
        elif name == "colour":
            image = self.colours
        elif name == "bands":
            image = self.cube[..., numbers] / np.float32(self.whites[numbers])
            image = encode_srgb(image.clip(0, 1)) if len(numbers) > 1 else image  # else a screen shows them too dark
        elif name == "confidence" and self.maps:
            image = LEVEL_COLOURS[self.maps["confidence"]]
        elif name == "error" and self.comparison:
            errors = self.comparison.errors
            image = heat((errors[..., numbers[0]] if numbers else errors.mean(2)) / self.error_scale)
        else:
            raise KeyError(name)
        return _png(np.squeeze(image), self.hidden)

    @property
    def error_scale(self) -> float:
        """The relative error at the end of the colour bar: of the data, but at most 1."""
        assert self.comparison is not None
        peak = float(np.percentile(self.comparison.errors.mean(2), 99))
        return min(1.0, max(float(f"{peak:.1g}"), 0.01))

    def describe(self) -> dict[str, Any]:
        """Return what the page needs to know of the scene, as JSON."""
        height, width, _ = self.cube.shape
        return {
            "name": self.name,
            "lines": self.lines,
            "width": width,
            "height": height,
            "wavelengths": self.wavelengths.tolist(),
            "whites": (self.whites * self.gain).tolist(),
            "encoding": self.encoding,
            "photo": self.photo is not None,
            "difference": self.difference,
            "confidence": self._confidence(),
            "reference": self.reference,
            "light": self.light,
            "scaled": self.gain_words.removeprefix(", ") + self._doubt_of_reference(),
            "scores": self._scores(),
        }

    def _doubt_of_reference(self) -> str:
        """Return a question if hardly anything reflects more light than there is, and much of the cube would."""
        above = float((self.whites * self.gain > 1.5).mean()) if self.reference and not self.light else 0.0
        return "; the brightest pixels then reflect far more than 1: is this point in the shade?" * (above > 0.5)

    def _confidence(self) -> dict[str, Any] | None:
        """Return the legend and the meaning of the map of confidence, in words for a person."""
        if not self.maps:
            return None
        seen = np.s_[:] if self.hidden is None else ~self.hidden
        levels, expected = self.maps["confidence"][seen], self.maps["expected_sam"][seen]
        rgb = [_css(colour) for colour in LEVEL_COLOURS.tolist()]
        shares = [float((levels == level).mean()) for level in range(len(LEVELS))]
        legend = [{"words": LEVELS[level], "colour": rgb[level], "share": shares[level]} for level in (2, 1, 0)]
        low, middle, high = np.percentile(expected, (10, 50, 90))
        words = f"The error to expect is {middle:.0f}° in the median pixel, {low:.0f}° to {high:.0f}° in most."
        if self.factor is not None:
            words += (
                " Of a picture of this kind, 9 of 10 pixels lie within their bound, which is about "
                f"{self.factor * middle:.0f}° in the median pixel."
            )
        return {"legend": legend, "words": words, "formula": self.statement}

    def _scores(self) -> dict[str, Any] | None:
        """Return the scores, by heading, and what they were computed from."""
        if self.comparison is None:
            return None
        found, truth = self.comparison, self.comparison.truth
        return {
            "table": [
                (score.heading, f"{value:.{score.digits}f}")
                for score, value in zip(SCORES.values(), found.scores, strict=True)
            ],
            "truth": Path(truth.path or "").name,
            "raised": f"{found.raised / self.cube.size:.1%} of its values raised to {found.floor:g}",
            "floor": found.floor,
            "notes": list(truth.notes),
            "scale": f"{self.error_scale:g}",
            "colours": [_css(colour) for colour in heat(np.linspace(0, 1, 9)[None])[0].tolist()],
        }


def check_floor(floor: float) -> None:
    """Raise DataError if dark values cannot be raised to this."""
    if not 1e-6 <= floor < 1:
        raise DataError("Dark values can be raised to a number from 1e-6 up, below 1.")


def _plain(values: np.ndarray) -> list[float]:
    """Return float32 values with as many digits as tell them apart."""
    return [float(f"{value:.9g}") for value in values.astype(np.float32)]


def _css(colour: list[float]) -> str:
    """Return a colour (3,) in [0, 1] as style sheets write it."""
    return f"rgb({', '.join(f'{255 * part:.0f}' for part in colour)})"


def _png(image: np.ndarray, hidden: np.ndarray | None) -> bytes:
    """Return an image (H, W) or (H, W, 3), clipped to [0, 1], as a PNG file, transparent where `hidden`."""
    image = (np.ascontiguousarray(image).clip(0, 1) * 255 + 0.5).astype(np.uint8)
    if hidden is not None:
        image = np.dstack([image if image.ndim == 3 else np.repeat(image[..., None], 3, 2), np.where(hidden, 0, 255)])
        image = cv2.cvtColor(image.astype(np.uint8), cv2.COLOR_RGBA2BGRA)
    elif image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _same_exposure(
    photo: np.ndarray, cube: np.ndarray, wavelengths: np.ndarray, hidden: np.ndarray | None
) -> float | None:
    """Return the luminance of a cube that is white at the exposure of a photograph (H, W, 3), sRGB in [0, 1].

    Least squares over the luminances of the pixels that are neither clipped nor hidden; None if there are none.
    """
    used = (photo.max(2) < 0.99) & (True if hidden is None else ~hidden)
    seen = decode_srgb(photo[used].astype(np.float64)) @ (0.2126, 0.7152, 0.0722)
    ours = luminance(cube, wavelengths, "E")[used]
    white = float((ours * ours).sum() / max((ours * seen).sum(), 1e-12)) if used.any() else 0.0
    return white if white > 0 else None


def _describe_difference(photo: np.ndarray, colours: np.ndarray, hidden: np.ndarray | None) -> str:
    """Return how far a reconstruction's colours (H, W, 3) are from a photograph's, both sRGB in [0, 1]."""
    from colour.difference import delta_E_CIE2000  # takes a second to import

    height, width, _ = photo.shape
    step = max(int(np.sqrt(height * width / 4e4)), 1)
    seen = np.ones((height, width), bool) if hidden is None else ~hidden
    seen = seen[::step, ::step]
    if not seen.any():
        return ""
    first, second = (cielab_of_srgb(image[::step, ::step][seen]) for image in (photo, colours))
    middle, high = np.percentile(delta_E_CIE2000(first, second), (50, 90))
    in_colour = np.abs((first - second)[:, 1:]).mean() > 0.5 * np.abs((first - second)[:, 0]).mean()
    clipped = float((photo[::step, ::step][seen].max(1) > 0.99).mean())
    what = "hue and saturation" if in_colour else "brightness"
    return (
        f"The reconstruction's colours differ from the photograph's by CIEDE2000 {middle:.1f} in the median pixel "
        f"and above {high:.1f} in one of ten (1 is just visible), mostly in {what}"
        f"{f'; {clipped:.0%} of the pixels are clipped' if clipped >= 0.01 else ''}. "
    )


def is_cube(paths: list[Path]) -> bool:
    """Return whether files that were dropped are a cube, not an image: by suffix, and a TIFF by its planes."""
    suffixes = {path.suffix.lower() for path in paths}
    if suffixes & {".tif", ".tiff"}:
        return count_planes(paths[0])[0] > 4
    return bool(suffixes & set(CUBE_SUFFIXES))


def open_cube(paths: list[Path]) -> PageScene:
    """Open a cube in any format that Dataset/import_cubes.py reads; of an ENVI pair both files are given.

    Raises DataError if it cannot be read, or nothing says which wavelengths its bands have.
    """
    path = next((path for path in paths if path.suffix.lower() in CUBE_SUFFIXES), paths[0])
    check_claim(path)
    found = read_cube_file(path)
    wavelengths = found.require_wavelengths()
    values = np.asarray(found.values.T, np.float32, order="C").T  # a band is contiguous
    check_cube(values, path)
    maps = {name: np.asarray(values) for name, values in found.maps.items()}
    check_maps(maps, path)
    height, width, _ = values.shape
    lines = [f"{path.name}: {width} x {height} pixels, {describe_bands(wavelengths)}", *found.notes]
    lines += [found.origin] if found.origin else []
    complete = {"confidence", "expected_sam"} <= maps.keys()
    origin = found.origin or f"opened from {path.name}"
    return PageScene(path.stem, lines, values, wavelengths, origin, maps=maps if complete else {}, files=paths)


def read_decoded(path: Path, choice: str | None) -> tuple[RGBImage, str, str]:
    """Read an image as a photograph or as linear; return it, a line on how it was read, and which of the two.

    `choice` is PHOTOGRAPH or LINEAR, whatever the tags of the file say; None: as they say, PHOTOGRAPH without any.
    """
    image = read_image(path, "srgb")
    chosen = choice or (PHOTOGRAPH if image.photograph else LINEAR)
    if chosen == LINEAR and image.photograph:
        image = read_image(path, "linear")
    elif chosen == PHOTOGRAPH and not image.photograph:
        how = "decoded from sRGB although the file says that it is linear"
        image = replace(image, stored=decode_srgb(image.values).astype(np.float32), how=how, photograph=True)
    if not image.tagged and choice is None:
        return image, "No tags say how it is encoded: taken as a photograph, decoded from sRGB", chosen
    told = re.sub(r" \(--encoding \w+\)", "", image.how)
    return image, told[0].upper() + told[1:], chosen


def transparent(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return which pixels (H, W) of an image file are transparent, None if none are, or the file does not say so."""
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[2] != 4 or image.shape[:2] != shape[:2]:
        return None
    hidden = image[..., 3] == 0
    return hidden if hidden.any() else None


def shrink(image: np.ndarray, max_side: int) -> np.ndarray:
    """Return an image (H, W, ...) whose longer side has at most `max_side` pixels, averaged."""
    height, width = image.shape[:2]
    if max(height, width) <= max_side:
        return image
    factor = max_side / max(height, width)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def as_shown(image: RGBImage, max_side: int) -> np.ndarray:
    """Return an image for a screen, (H, W, 3) float32: a photograph as its file has it, linear light in sRGB."""
    small = shrink(image.values, max_side)
    return encode_srgb(small if image.photograph else small / max(float(small.max()), 1e-6)).astype(np.float32)


def heat(error: np.ndarray) -> np.ndarray:
    """Return numbers (H, W) as colours (H, W, 3) in [0, 1]; those above 1 have the colour of 1."""
    image = cv2.applyColorMap((error.clip(0, 1) * 255 + 0.5).astype(np.uint8), cv2.COLORMAP_MAGMA)
    return image[..., ::-1] / np.float32(255)
