"""Where not to trust a reconstruction: the spectral angle to expect in each pixel, and a bound on it.

Three channels do not determine a spectrum, so a network can be wrong where nothing in its answer shows it. A table
beside the checkpoint, written by train/calibrate_confidence.py, holds what the training data tell of that::

    confidence = Confidence.load("model/model.pth")              # reads model/model.confidence.npz, too
    expected = confidence.expected_sam(rgb, cube)                # (H, W), degrees
    bound = confidence.factor * expected                         # print(confidence.statement) says what it means

All follows from the image and its reconstruction: no second pass through the network.
"""

import io
import json
import math
import zipfile
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np

from drcr.correction import Network
from drcr.cube import same_bands, strips
from drcr.images import InputEncoding
from drcr.metrics import angle
from drcr.utils.files import BROKEN, DataError, is_out_of_memory, plural, refuse_foreign, write_atomically

if TYPE_CHECKING:
    from scipy.spatial import KDTree  # SciPy takes a tenth of a second: it is imported where a map is made

SUFFIX = ".confidence.npz"
FORMER_SUFFIX = ".trust.npz"
"""Tables were called so before; they are still read."""
TERMS = (
    "dark 1/64", "dark 1/23", "dark 1/8", "dark 1/3", "clipped", "residual angle", "residual size", "new colour",
    "metamers", "unusual", "edges",
)  # fmt: skip
"""What is computed of each pixel. A higher value of any of them means a larger error, or nothing."""
DARK = np.array((-6.0, -4.5, -3.0, -1.5))
"""Below these brightnesses, log2 of the largest channel, the terms of darkness rise."""
BRIGHTNESS_ONLY = 4
"""So many of TERMS know only the brightness."""
STOP = 0.03
"""A factor of 2 in brightness counts as this much chromaticity where pixels of similar colour are looked up."""
NEIGHBOURS = 4
BELIEVABLE, DOUBTFUL = 10.0, 15.0
"""Degrees of the expected angle: a pixel is believable up to the first, not to be believed above the second."""
CLIPPED = 0.98
"""A channel is clipped from here up, where 1 is the image's largest value."""
SHARE = 0.9
"""The share of an image's pixels for which a bound holds."""
ARRAYS = ("camera", "tints", "usual", "places", "blacks", "spread")
"""Of Colours."""
LOWEST_SAM, HIGHEST_SAM = 0.5, 90.0
MIN_SCORE, MAX_VALUE = 1e-3, 1e4
"""Bounds of a table's numbers: of its scores, and of all (those of the networks in test/model are below 20)."""
MAX_BYTES = 8_000_000
"""Of a table's arrays; those for 31 bands have 0.2 million."""


def table_path(model_path: str | Path) -> Path:
    """Return the path of the table beside a checkpoint: model.confidence.npz for model.pth."""
    path, former = (Path(model_path).with_suffix(suffix) for suffix in (SUFFIX, FORMER_SUFFIX))
    return former if former.is_file() and not path.is_file() else path


def digest_of(model_path: str | Path) -> str:
    """Return the digest of a checkpoint's file, by which a table knows its network."""
    return sha256(Path(model_path).read_bytes()).hexdigest()


def fingerprint(cube: np.ndarray) -> str:
    """Return a short digest of a scene's ground truth (H, W, bands), of every eighth row and column.

    Values are raised to 0.05 first: a cube is the same scene whatever lower floor its dark values were raised to.
    """
    values = np.maximum(cube[::8, ::8], np.float32(0.05)).astype(np.float32)
    return sha256(f"{cube.shape}".encode() + values.tobytes()).hexdigest()[:16]


def projector(camera: np.ndarray) -> np.ndarray:
    """Return the matrix (bands, bands) that leaves of a spectrum the part that a camera (bands, 3) sees."""
    return camera @ np.linalg.pinv(camera, 1e-3)


def place_of(colours: np.ndarray) -> np.ndarray:
    """Return where pixels (n, 3) are looked up, (n, 3): two chromaticities, and STOP times log2 of the brightness."""
    chromaticity = colours[:, :2] / colours.sum(1, keepdims=True).clip(1e-6)
    return np.column_stack([chromaticity, STOP * stops_of(colours)])


def stops_of(colours: np.ndarray) -> np.ndarray:
    """Return log2 of the largest channel of pixels (n, 3), at least -8, which is half a level of 8 bits."""
    return np.log2(colours.max(1).clip(2.0**-8))


class _Nearest(NamedTuple):
    """The groups nearest to pixels: the distance of the first, and of all the numbers and weights, (n, k)."""

    distance: np.ndarray
    groups: np.ndarray
    weights: np.ndarray

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Return the weighted mean (n, m) of the groups' values (groups, m)."""
        return np.einsum("nk,nkm->nm", self.weights, values[self.groups])


def _nearest(tree: "KDTree", points: np.ndarray) -> _Nearest:
    found = tree.query(points, min(NEIGHBOURS, tree.n))
    distance, groups = (np.reshape(values, (len(points), -1)) for values in found)
    weights = 1 / (distance + 0.005)
    return _Nearest(distance[:, 0], groups, weights / weights.sum(1, keepdims=True))


def _contrast(rgb: np.ndarray) -> np.ndarray:
    """Return how much an image varies around each pixel: the standard deviation in stops of 5 x 5 pixels, (H, W)."""
    from scipy.ndimage import uniform_filter

    stops = np.log2(rgb.mean(2).clip(2.0**-8))
    variance = uniform_filter(stops * stops, 5) - uniform_filter(stops, 5) ** 2
    return np.sqrt(variance.clip(4e-4))


@dataclass(frozen=True, eq=False)
class Colours:
    """What the training data tell of spectra by the colours of their pixels: statistics, no pixel of any scene.

    A spectrum is the part that the camera sees and the rest, its metameric black, here divided by the length of the
    first. Spectra of one colour differ in their blacks alone.

    Attributes
    ----------
    camera : (bands, 3), from cubes to images, by least squares over the training data
    tints : (cells, 2), centres of groups of pixels by chromaticity, dark ones left aside
    usual : (cells, bands), the mean spectrum of each of these groups; spectra have length 1
    places : (cells, 3), centres of groups by chromaticity and brightness, as `place_of` describes them
    blacks : (cells, bands), the mean black of each of these groups
    spread : (cells,), the mean squared length of a black's difference from that mean
    reach : chromaticities further than this from all `tints` are new; those of 0.1% of the training pixels are
    """

    camera: np.ndarray
    tints: np.ndarray
    usual: np.ndarray
    places: np.ndarray
    blacks: np.ndarray
    spread: np.ndarray
    reach: float

    def terms(self, rgb: np.ndarray, cube: np.ndarray) -> np.ndarray:
        """Return TERMS of each pixel of an image (H, W, 3) and its cube (H, W, bands): float32 (H * W, terms)."""
        return np.concatenate([terms for _, terms in self.terms_of_parts(rgb, cube)])

    def terms_of_parts(self, rgb: np.ndarray, cube: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield slices of an image's pixels, row by row, and their `terms`: those of all would take much memory."""
        from scipy.spatial import KDTree

        height, width, bands = cube.shape
        seen = np.concatenate([cube[rows].clip(0, 1) @ self.camera for rows, _ in strips(height, width)])
        # an exposed image does not tell how bright its scene was
        seen *= (seen * rgb).sum(dtype=np.float64) / max((seen * seen).sum(dtype=np.float64), 1e-12)
        contrast = _contrast(rgb)
        by_tint, by_place = KDTree(self.tints), KDTree(self.places)
        for rows, part in strips(height, width):
            out = np.empty((part.stop - part.start, len(TERMS)), np.float32)
            values, back = rgb[rows].reshape(-1, 3).astype(np.float64), seen[rows].reshape(-1, 3)
            place, spectrum = place_of(values), cube[rows].reshape(-1, bands).astype(np.float64).clip(0, 1)
            lengths = [np.linalg.norm(both, axis=1).clip(1e-3) for both in (back, values)]
            near = _nearest(by_tint, place[:, :2])
            out[:, :4] = np.maximum(0, DARK - stops_of(values)[:, None])
            out[:, 4] = ((values.max(1) - 0.95) / 0.05).clip(0, 1)
            out[:, 5] = np.log2(np.nan_to_num(angle(back, values), nan=60).clip(1, 60))
            out[:, 6] = np.abs(np.log2(lengths[0] / lengths[1])).clip(0, 4)
            out[:, 7] = np.log2(near.distance.clip(2.0**-8, 0.5)) + 8
            out[:, 8] = np.log2(self._metamers(spectrum, _nearest(by_place, place)))
            out[:, 9] = np.log2(np.nan_to_num(angle(spectrum, near.mean(self.usual)), nan=90).clip(1))
            out[:, 10] = np.log2(contrast[rows].ravel())
            yield part, out

    def _metamers(self, spectra: np.ndarray, near: "_Nearest") -> np.ndarray:
        """Return the angle in degrees to expect between spectra (n, bands) and the training spectra of their colour.

        As seen by the camera, the training spectra are taken to be equal to the reconstruction: what differs is the
        black. It is the root of the mean square, so it has both the difference of the reconstruction's black from the
        mean of its colour and the spread around that mean.
        """
        visible = spectra @ projector(self.camera)
        black = (spectra - visible) / np.linalg.norm(visible, axis=1, keepdims=True).clip(1e-6)
        mean = near.mean(self.blacks)
        squares = near.mean((self.spread + (self.blacks.astype(np.float64) ** 2).sum(1))[:, None])[:, 0]
        spread = (squares - (mean**2).sum(1)).clip(0)
        return np.degrees(np.arctan(np.sqrt(((black - mean) ** 2).sum(1) + spread))).clip(1)

    def is_new(self, terms: np.ndarray) -> np.ndarray:
        """Return which pixels have a colour that the training data do not have, from their `terms`."""
        return 2.0 ** (terms[:, 7] - 8) > self.reach


@dataclass(frozen=True, eq=False)
class Fit:
    """The angle of a pixel as a function of its TERMS, fitted to images that the network was trained on.

    log2 of the angle in degrees is constant + weights (terms,) @ terms; no weight is below 0. Terms beyond what the
    fit has seen, `low` to `high` (terms,), are taken as these.
    """

    constant: float
    weights: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def angles(self, terms: np.ndarray) -> np.ndarray:
        """Return the fitted angle in degrees of pixels with these terms, float32."""
        values = self.constant + np.clip(terms, self.low, self.high) @ self.weights
        return np.exp2(values).clip(LOWEST_SAM, HIGHEST_SAM).astype(np.float32)


@dataclass(frozen=True)
class SceneScore:
    """How a fit does on a scene that the network was not trained on.

    `ratio`: the smallest number for which SHARE of an image's pixels have a true angle of at most `ratio` times the
    fitted one; the largest of the scene's images. `true`, `fitted`: the mean angles in degrees.
    """

    ratio: float
    true: float
    fitted: float


@dataclass(frozen=True, eq=False)
class Confidence:
    """The table of a network: which spectral angle to expect in each pixel of a reconstruction, and a bound.

    Attributes
    ----------
    colours, fit : from the training data
    scenes : those of the calibration, by `fingerprint`; the network was not trained on them
    asked_miss : the probability, at most, with which the bound may fail for a new scene, if there are scenes enough
    wavelengths : of the network's bands, in nm
    input_encoding : what the images are that the network was trained on, "linear" or "stored"
    network : the `digest_of` the checkpoint
    images : in words, the images of the calibration, such as "18 images decoded from sRGB"
    """

    colours: Colours
    fit: Fit
    scenes: dict[str, SceneScore]
    asked_miss: float
    wavelengths: list[float]
    input_encoding: InputEncoding
    network: str
    images: str

    @classmethod
    def load(cls, model_path: str | Path) -> "Confidence":
        """Read the table beside a checkpoint. Raises DataError if it is missing, damaged, or of another network."""
        path = table_path(model_path)
        if not path.is_file():
            raise DataError(
                f"{path}: no such file; --confidence needs this table of the network; run calibrate_confidence.py"
            )
        table = _read(path)
        if table.network != digest_of(model_path):
            raise DataError(
                f"{path}: was made for another network than {model_path}; run calibrate_confidence.py, or remove it"
            )
        return table

    @property
    def miss(self) -> float:
        """The bound fails for a new scene with at most this probability; with n scenes it cannot be below 1/(n+1)."""
        return max(self.asked_miss, 1 / (len(self.scenes) + 1))

    @property
    def scale(self) -> float:
        """What the fitted angles are multiplied by: errors are larger on new scenes than on those of the training."""
        scores = self.scenes.values()
        return sum(score.true for score in scores) / sum(score.fitted for score in scores)

    @property
    def factor(self) -> float:
        """The bound is this many times the expected angle.

        Split conformal prediction, the unit being a scene (Vovk, Gammerman and Shafer, 2005): of the n ratios the one
        of rank ceil((n + 1) (1 - miss)).
        """
        ratios = sorted(scene.ratio for scene in self.scenes.values())
        rank = math.ceil((len(ratios) + 1) * (1 - self.miss) - 1e-9)
        return ratios[rank - 1] / self.scale

    @property
    def statement(self) -> str:
        """What the bound means, in a sentence."""
        return (
            f"with a probability of at least {1 - self.miss:.0%}, at least {SHARE:.0%} of the pixels of a new image "
            f"of this kind lie within {self.factor:.2f} x expected_sam "
            f"(calibrated on {plural(len(self.scenes), 'scene')}, {self.images})"
        )

    def without(self, scene: str) -> "Confidence":
        """Return the table as it would be without a scene, given by its `fingerprint`; itself if it is not known.

        So a table can be judged on the scenes that it was calibrated on. Raises DataError if there is no other.
        """
        others = {name: score for name, score in self.scenes.items() if name != scene}
        if not others:
            raise DataError("the table was calibrated on one scene alone; it cannot be judged on that one")
        return replace(self, scenes=others)

    def expected_sam(self, rgb: np.ndarray, cube: np.ndarray) -> np.ndarray:
        """Return the angle to expect between a cube (H, W, bands) and the unknown truth: (H, W) float32, degrees.

        `rgb`: the network's input (H, W, 3), float32, divided by its largest value.
        """
        return self.maps(rgb, cube)["expected_sam"]

    def expected(self, terms: np.ndarray) -> np.ndarray:
        """Return the expected angle in degrees of pixels with these terms, float32."""
        return (self.scale * self.fit.angles(terms)).clip(0, 180).astype(np.float32)

    def maps(self, rgb: np.ndarray, cube: np.ndarray) -> dict[str, np.ndarray]:
        """Return what test.py --confidence writes, (H, W) each, from what `expected_sam` takes.

        `expected_sam`, float32, degrees; `confidence`, uint8, the LEVELS: 2 where the expected angle is at most
        BELIEVABLE and no channel is clipped; 0 where it is above DOUBTFUL, or the training data have no such colour;
        else 1.
        """
        brightest = rgb.max(2).ravel()
        angles, levels = np.empty(brightest.size, np.float32), np.empty(brightest.size, np.uint8)
        for part, terms in self.colours.terms_of_parts(rgb, cube):
            angles[part] = self.expected(terms)
            levels[part] = self.levels(terms, angles[part], brightest[part])
        return {"expected_sam": angles.reshape(rgb.shape[:2]), "confidence": levels.reshape(rgb.shape[:2])}

    def variables(self, rgb: np.ndarray, cube: np.ndarray) -> dict[str, Any]:
        """Return `maps` and `sam_factor`, the factor of the bound, as variables for `write_cube`."""
        return {**self.maps(rgb, cube), "sam_factor": self.factor}

    def levels(self, terms: np.ndarray, expected: np.ndarray, brightest: np.ndarray) -> np.ndarray:
        """Return the LEVELS, uint8, of pixels: their terms, expected angles and largest channels."""
        believable = (expected <= BELIEVABLE) & (brightest < CLIPPED)
        refused = (expected > DOUBTFUL) | self.colours.is_new(terms)
        return np.where(refused, 0, np.where(believable, 2, 1)).astype(np.uint8)

    def save(self, path: Path) -> None:
        """Write the table, completely or not at all. Raises DataError if `path` is a file that is no table."""
        check_table_target(path)
        facts = {
            "scenes": list(self.scenes),
            "miss": self.asked_miss,
            "wavelengths": self.wavelengths,
            "input_encoding": self.input_encoding,
            "network": self.network,
            "images": self.images,
            "terms": list(TERMS),
        }
        fit = self.fit
        arrays = {
            "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8),
            "scores": np.array([astuple(score) for score in self.scenes.values()]),
            "fit": np.array([fit.weights, fit.low, fit.high]),
            "numbers": np.array([fit.constant, self.colours.reach]),
            **{name: np.float32(getattr(self.colours, name)) for name in ARRAYS},
        }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_atomically(path, lambda file: file.write(buffer.getbuffer()))


def check_table_target(path: Path) -> None:
    """Raise DataError if a table is about to replace a file that is not one."""

    def is_table(path: Path) -> bool:
        try:
            with zipfile.ZipFile(path) as file:
                return "facts.npy" in file.namelist()
        except (OSError, zipfile.BadZipFile):
            return False

    refuse_foreign(path, is_table, "a table of calibrate_confidence.py", "choose another --out")


def _read(path: Path) -> Confidence:
    """Read a table. Nothing in the file is executed. Raises DataError if it is damaged."""
    try:
        with zipfile.ZipFile(path) as file:
            if sum(entry.file_size for entry in file.infolist()) > MAX_BYTES:
                raise ValueError("too large")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return _build(arrays, json.loads(arrays.pop("facts").tobytes()))
    except DataError:
        raise
    except (*BROKEN, RecursionError) as error:
        if is_out_of_memory(error):
            raise
        raise DataError(
            f"{path}: damaged, or not a table of calibrate_confidence.py; run calibrate_confidence.py again"
        ) from error


def _build(arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> Confidence:
    """Return the table of a file's contents. Raises ValueError, LookupError or TypeError if they make none."""
    bands, scenes = len(facts["wavelengths"]), len(facts["scenes"])
    cells, tints = len(arrays["places"]), len(arrays["tints"])
    shapes = {
        "camera": (bands, 3),
        "tints": (tints, 2),
        "usual": (tints, bands),
        "places": (cells, 3),
        "blacks": (cells, bands),
        "spread": (cells,),
        "scores": (scenes, 3),
        "fit": (3, len(TERMS)),
        "numbers": (2,),
    }
    if facts["terms"] != list(TERMS) or arrays.keys() != shapes.keys() or not min(bands, cells, tints, scenes):
        raise ValueError("other contents")
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype.kind != "f" or not (np.abs(array) <= MAX_VALUE).all():
            raise ValueError(f"{name} is not numbers of shape {shape}")
    if not all(isinstance(text, str) for text in (*facts["scenes"], facts["network"], facts["images"])):
        raise TypeError("not texts")
    if facts["input_encoding"] not in get_args(InputEncoding):
        raise ValueError("input encoding")
    scores, fit = arrays.pop("scores"), arrays.pop("fit")
    constant, reach = arrays.pop("numbers").tolist()
    nm = [float(nm) for nm in facts["wavelengths"]]
    if not (scores >= MIN_SCORE).all() or not 0 < float(facts["miss"]) < 1 or not all(0 < x <= 1e5 for x in nm):
        raise ValueError("numbers out of range")
    return Confidence(
        Colours(**arrays, reach=reach),
        Fit(constant, *fit),
        {name: SceneScore(*row) for name, row in zip(facts["scenes"], scores.tolist(), strict=True)},
        float(facts["miss"]),
        nm,
        facts["input_encoding"],
        facts["network"],
        facts["images"],
    )


def load_confidence(model_path: str | Path, model: Network) -> Confidence:
    """Return the table of a network that was read from a checkpoint.

    Raises DataError as `Confidence.load` does, and if its bands are not those of the network.
    """
    table = Confidence.load(model_path)
    if model.wavelengths is None or not same_bands(model.wavelengths, table.wavelengths):
        raise DataError(
            f"{table_path(model_path)}: has other wavelengths than {model_path}; run calibrate_confidence.py"
        )
    return table
