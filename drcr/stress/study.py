"""When a method's spectra are not to be believed: its scores under each of the conditions of `conditions`.

A shot is one image: it is made, every method reconstructs it, and the reconstructions are scored. The reference image
also serves all metamers of its scene, because they have the same RGB.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from drcr import metrics
from drcr.checkpoint import load_rgb_model
from drcr.confidence.calibration import judge
from drcr.confidence.model import Confidence, fingerprint
from drcr.cube import Cube
from drcr.data import PreparedFolder
from drcr.figures.colour import cielab
from drcr.images import normalise_rgb
from drcr.inference import Reconstructor, reconstruct_image
from drcr.metrics import sam_map
from drcr.networks import offer, offered
from drcr.scoring.scoring import read_truth
from drcr.stress import metamers
from drcr.stress.conditions import Level, Setting, View, curves_of_image, levels, lit, lit_levels, scene_as_seen, take
from drcr.utils.extras import needs
from drcr.utils.files import DataError

Method = Callable[[np.ndarray], np.ndarray]
"""From an image (H, W, 3), divided by its largest value, to its cube (H, W, bands)."""
ANY = "any method"
"""The method of rows that hold for every method."""
OF_METAMERS = ("mrae", "best_scale_mrae", "sam", "de00")
"""Scores against metamers; they are also taken of the cube itself on the same pixels."""
ALPHAS = (-1, 0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2)
"""Factors of the part of a spectrum that the camera does not see; 1: the cube itself."""
LOW, HIGH = float(np.float32(0.01)), 1.0
"""The range of physically possible values, for metamers; as float32, which cubes have."""
CODES = (8, 254)
"""The 8-bit values that the back-projection is compared with: others are truncated by much, or clipped."""


@dataclass(frozen=True)
class Network:
    """A network as a method; each process loads it once."""

    path: Path
    files: tuple[str, ...] = field(default_factory=offered)  # for the processes to which it is sent

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Return the cube (H, W, bands) of an image. Raises DataError if it has NaN or infinite values."""
        return reconstruct_image(_load(self.path, self.files), rgb, "an image of stress_test.py", self.path)


@lru_cache(maxsize=4)
def _load(path: Path, files: tuple[str, ...]) -> Reconstructor:
    for spec in files:
        offer(spec)
    return Reconstructor(load_rgb_model(path, "cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True)
class Study:
    """What all images of a stress test share.

    Attributes
    ----------
    methods : by name
    views : cameras by name, see `conditions.camera_views`
    reference : the setting that the levels differ from
    spectra : (n, bands), whose metameric blacks are used
    confidence : the checkpoint of the first method if it has a table of `confidence`, else None
    """

    methods: dict[str, Method]
    views: dict[str, View]
    reference: Setting
    spectra: np.ndarray
    confidence: Path | None = None


class Scene(NamedTuple):
    """A scene's cube file, and the floor that its values are raised to."""

    name: str
    path: Path
    floor: float | None


class Shot(NamedTuple):
    """An image to be taken and scored; `whole`: also the metamers of its scene."""

    scene: Scene
    setting: Setting
    seed: int
    study: Study
    whole: bool


Measured = dict[tuple[str, str, str, str], float]
"""What a shot found, by condition, level, method and metric; condition and level of the image itself are ""."""


class Row(NamedTuple):
    """A line of stress.csv."""

    scene: str
    condition: str
    level: str
    seed: int
    method: str
    metric: str
    value: float


def score(
    rec: np.ndarray, truth: np.ndarray, wavelengths: np.ndarray, wanted: Sequence[str] = ()
) -> dict[str, float]:
    """Return the scores of a clipped reconstruction by metric, or the `wanted` ones; cubes (H, W, bands)."""
    with needs("simulation", "a colour difference"):
        from colour.difference import delta_E_CIE2000

    def de00(rec: np.ndarray, truth: np.ndarray) -> float:
        return float(np.mean(delta_E_CIE2000(cielab(rec, wavelengths), cielab(truth, wavelengths))))

    functions = {name: getattr(metrics, name) for name in ("mrae", "best_scale_mrae", "rmse", "psnr", "sam")}
    functions["de00"] = de00
    truth = truth.astype(np.float32)
    return {name: float(functions[name](rec, truth)) for name in wanted or functions}


def sample_spectra(folder: PreparedFolder, count: int = 20000, seed: int = 0) -> np.ndarray:
    """Return about `count` spectra (n, bands) of prepared training data, as many of each scene."""
    rng, found = np.random.default_rng(seed), []
    per_scene = -(-count // len(folder.scenes))
    for scene in folder.scenes:
        cube = scene.array("cube")
        rows, columns = (rng.integers(length, size=per_scene) for length in cube.shape[1:])
        found.append(cube[:, rows, columns].T)
    return np.concatenate(found)


@lru_cache(maxsize=1)
def read_true_scene(scene: Scene) -> tuple[Cube, int]:
    """Return a scene's cube, and how many of its values were raised. Raises DataError if it cannot be scored."""
    read = read_truth(scene.path, scene.floor)
    if read is None:
        raise DataError(f"{scene.path}: has values <= 0; use --non_positive floor VALUE, such as 0.01")
    return read


def back_projection_mrae(rec: np.ndarray, image: np.ndarray, curves: np.ndarray) -> float:
    """Return the MRAE, at the best scale, of what a camera with `curves` (bands, 3) would see of a reconstruction.

    It is compared with the image that this camera took, (H, W, 3) in [0, 1], linear; values outside CODES are not.
    """
    used = (image >= CODES[0] / 255) & (image <= CODES[1] / 255)
    return metrics.best_scale_mrae((rec @ curves)[used], image[used]) if used.any() else float("nan")


@metrics.one_thread()
def measure(shot: Shot) -> Measured:
    """Take the image of a shot, reconstruct it by all methods, and score them."""
    cube, study, setting = read_true_scene(shot.scene)[0], shot.study, shot.setting
    wavelengths = cube.require_wavelengths()
    truth = scene_as_seen(cube.values, setting, shot.scene.floor)
    image = take(truth, wavelengths, setting, study.views, shot.seed, shot.scene.name)
    rgb = normalise_rgb(image)
    raw = {method: reconstruct(rgb) for method, reconstruct in study.methods.items()}
    recs = {method: np.float32(rec).clip(0, 1) for method, rec in raw.items()}
    curves, found = curves_of_image(setting, study.views, wavelengths), {}
    for method, rec in recs.items():
        scores = score(rec, truth, wavelengths)
        if curves is not None:
            scores["back_projection"] = back_projection_mrae(rec, image, curves)
        found |= {("", "", method, metric): value for metric, value in scores.items()}
        if setting.light:  # with the lamp named: radiance
            level, (radiance, ours) = f"{setting.light}, radiance", lit(truth, rec, wavelengths, setting.light)
            scores = score(ours, radiance, wavelengths)
            found |= {("light", level, method, metric): value for metric, value in scores.items()}
    sure = None
    if study.confidence is not None:  # the scene itself is left out of the calibration
        table = _load_table(study.confidence).without(fingerprint(cube.values))
        method, rec = next(iter(raw.items()))
        sure = Sure(method, rec, table.maps(rgb, rec), table.factor)
        found |= sure.judged("", "", truth, np.ones(truth.shape[:2], bool))
    if shot.whole:
        found |= _measure_metamers(truth, recs, wavelengths, study, sure)
    return found


class Sure(NamedTuple):
    """What the confidence map of a method says of an image, before the truth is known."""

    method: str
    rec: np.ndarray
    maps: dict[str, np.ndarray]
    factor: float

    def judged(self, condition: str, level: str, truth: np.ndarray, pixels: np.ndarray) -> Measured:
        """Compare it with the true angles on `pixels` (H, W)."""
        sam = sam_map(self.rec, truth)[pixels]
        judgement = judge(self.maps["expected_sam"][pixels], self.maps["confidence"][pixels], self.factor, sam)
        return {(condition, level, self.method, name): x for name, x in judgement.items() if np.isfinite(x)}


@lru_cache(maxsize=2)
def _load_table(path: Path) -> Confidence:
    return Confidence.load(path)


def _measure_metamers(
    truth: np.ndarray, recs: dict[str, np.ndarray], wavelengths: np.ndarray, study: Study, sure: Sure | None
) -> Measured:
    """Score the reconstructions of the reference image against metamers of its scene.

    The scores at alpha = 1 on the same pixels, the mean MRAE of both truths and its floor stand beside them.
    """
    curves, found = study.views["training"].curves(wavelengths), {}
    for name, other, feasible in metamer_levels(truth, curves, study.spectra):
        key = "metamers", name
        found[(*key, ANY, "feasible")] = float(feasible.mean())
        if not feasible.any():
            continue
        itself, changed = truth[feasible][None], other[feasible][None]
        found[(*key, ANY, "mrae_of_both")] = float(metamers.floor(itself, changed).mean())
        if sure is not None:
            found |= sure.judged(*key, other, feasible)
        for method, rec in recs.items():
            now, before = (score(rec[feasible][None], x, wavelengths, OF_METAMERS) for x in (changed, itself))
            for metric in OF_METAMERS:
                found[(*key, method, metric)] = now[metric]
                found[(*key, method, f"{metric}_at_alpha_1")] = before[metric]
            found[(*key, method, "mrae_of_both")] = (now["mrae"] + before["mrae"]) / 2
    return found


def metamer_levels(
    truth: np.ndarray, curves: np.ndarray, spectra: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield each level of the metamers of a cube: its name, the other cube, and which pixels are metamers."""
    for alpha in ALPHAS:
        yield f"alpha {alpha:g}", *metamers.metamer(truth, curves, alpha, LOW, HIGH)
    yield "other blacks", *metamers.natural_metamer(truth, curves, spectra, LOW, HIGH)


Place = tuple[str, Setting, int]
"""The scene's file, the setting and the seed of an image."""


def plan_shots(
    scenes: Sequence[Scene], reflectances: Sequence[Scene], study: Study
) -> tuple[dict[Place, Shot], list[tuple[Scene, Level]]]:
    """Return the shots, each distinct image once, and all levels of all scenes.

    `reflectances`: scenes whose cubes are reflectances, for the condition `light`; the others are for the other
    conditions.
    """
    planned = [(scene, level) for scene in scenes for level in levels(list(study.views), study.reference)]
    planned += [(scene, level) for scene in reflectances for level in lit_levels(study.reference)]
    small = replace(study, spectra=study.spectra[:0])  # they travel to the processes with each shot
    shots: dict[Place, Shot] = {}
    for scene, level in planned:
        for seed in range(level.seeds):
            whole = level.condition == "reference" and seed == 0
            shot = Shot(scene, level.setting, seed, study if whole else small, whole)
            shots.setdefault(_place(scene, level, seed), shot)
    return shots, planned


def _place(scene: Scene, level: Level, seed: int) -> Place:
    # without noise all seeds give the same image
    return str(scene.path), level.setting, seed if level.setting.imaging.electrons else 0


def collect(measured: dict[Place, Measured], planned: Sequence[tuple[Scene, Level]]) -> list[Row]:
    """Return the rows of stress.csv, in the order of conditions."""
    rows: list[Row] = []
    for scene, level in planned:
        for seed in range(level.seeds):
            own = level.condition == "reference" and seed == 0  # the metamers stand in the rows once
            for (condition, name, method, metric), value in measured[_place(scene, level, seed)].items():
                if own or condition in ("", level.condition):
                    place = condition or level.condition, name or level.name
                    rows.append(Row(scene.name, *place, seed, method, metric, value))
    conditions = [level.condition for _, level in planned] + ["metamers"]
    order = {condition: i for i, condition in enumerate(dict.fromkeys(conditions))}
    return sorted(rows, key=lambda row: order[row.condition])


class Summary(NamedTuple):
    """A metric's mean over scenes with its interval, and its ratio to the reference with its interval."""

    scenes: int
    mean: float
    low: float
    high: float
    ratio: float
    ratio_low: float
    ratio_high: float


Key = tuple[str, str, str, str]
"""Condition, level, method, metric."""
WITH_RATIO = ("mrae", "best_scale_mrae", "rmse", "sam", "de00", "back_projection")


def summarise(rows: Sequence[Row], draws: int = 2000, seed: int = 0) -> dict[Key, Summary]:
    """Return the means over scenes and their 95% intervals by a paired bootstrap over scenes.

    Every draw takes the same scenes for all levels, methods and metrics. Seeds of noise are averaged first. The ratio
    is that of the means, to the reference; for the light that is the light E, for metamers the cube itself on the
    same pixels. Only errors have one.
    """
    by_key: dict[Key, dict[tuple[str, int], float]] = {}
    for row in rows:
        by_key.setdefault((row.condition, row.level, row.method, row.metric), {})[row.scene, row.seed] = row.value
    return {key: _summary(values, by_key.get(_reference(key), {}), draws, seed) for key, values in by_key.items()}


def _reference(key: Key) -> Key:
    """Return what a level's values are divided by; a key that is not there for what is no error."""
    condition, level, method, metric = key
    if metric not in WITH_RATIO:
        return "", "", method, metric
    if condition == "light":
        return "light", "E", method, metric
    if condition == "metamers":
        return "metamers", level, method, f"{metric}_at_alpha_1"
    return "reference", "reference", method, metric


def _summary(
    values: dict[tuple[str, int], float], reference: dict[tuple[str, int], float], draws: int, seed: int
) -> Summary:
    names = dict.fromkeys(scene for scene, _ in values)

    def per_scene(table: dict[tuple[str, int], float]) -> np.ndarray:
        found = {name: [table.get(key, np.nan) for key in values if key[0] == name] for name in names}
        return np.array([np.mean(of_scene) for of_scene in found.values()])

    own, base = per_scene(values), per_scene(reference)
    chosen = np.random.default_rng(seed).integers(len(own), size=(draws, len(own)))
    drawn = own[chosen].mean(1)
    bounds = [np.percentile(draw, (2.5, 97.5)) for draw in (drawn, drawn / base[chosen].mean(1))]
    return Summary(len(own), *map(float, (own.mean(), *bounds[0], own.mean() / base.mean(), *bounds[1])))
