"""How far a method's spectra can be trusted: its scores under each of the conditions of `conditions`.

A job is one image: it is made, every method reconstructs it, and the reconstructions are scored. The reference image
also serves all metamers of its scene, because they have the same RGB.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.cluster.vq import kmeans2

from drcr import metrics
from drcr.checkpoint import load_rgb_model
from drcr.confidence.calibration import auroc, rank_correlation
from drcr.confidence.model import DOUBTFUL, SHARE, Confidence, fingerprint
from drcr.cube import Cube
from drcr.data import PreparedFolder
from drcr.figures.colour import cielab
from drcr.images import normalise_rgb
from drcr.inference import Reconstructor, reconstruct_image
from drcr.metrics import sam_map
from drcr.scoring.scoring import read_truth
from drcr.stress import metamers
from drcr.stress.conditions import Level, Plan, Setting, View, matrix_to_srgb, scene_as_seen, take
from drcr.utils.files import DataError

Method = Callable[[np.ndarray], np.ndarray]
"""From an image (H, W, 3), divided by its largest value, to its cube (H, W, bands)."""
ANY = "any method"
"""The method of rows that hold for every method."""
ALL = "all scenes"
"""The scene of rows that hold for all scenes together."""
METRICS = {
    "mrae": "MRAE",
    "mrae_best_scale": "MRAE at best scale",
    "mrae_worst_group": "MRAE, worst group",
    "rmse": "RMSE",
    "psnr": "PSNR dB",
    "sam": "SAM deg",
    "gfc": "GFC",
    "back_projection": "back-projection MRAE",
    "de00_d65": "ΔE00 D65",
    "de00_a": "ΔE00 A",
}
OF_METAMERS = ("mrae", "mrae_best_scale", "sam", "de00_d65")
"""Scores against metamers; they are also taken of the cube itself on the same pixels."""
CONFIDENCE = {
    "within_bound": "pixels within the bound",
    "held": "images within the bound",
    "expected_sam": "expected SAM deg",
    "bound": "bound deg",
    "rank": "rank correlation",
    "rank_of_darkness": "rank correlation of darkness alone",
    "auroc": "AUROC",
    "auroc_of_darkness": "AUROC of darkness alone",
    "believable": "pixels called believable",
    "wrongly_believable": "of those above 15 deg",
}
"""Scores of the confidence map of the first method, if its network has a table."""
GROUPS = 20
DARK = 0.02
"""Pixels whose mean is lower belong to no group: their spectra are noise."""
CODES = (8, 254)
"""The 8-bit values that the back-projection is compared with: others are truncated by much, or clipped."""


@dataclass(frozen=True)
class Network:
    """A network as a method; each process loads it once."""

    path: Path

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Return the cube (H, W, bands) of an image. Raises DataError if it has NaN or infinite values."""
        return reconstruct_image(_load(self.path), rgb, "an image of trust.py", self.path)


@lru_cache(maxsize=4)
def _load(path: Path) -> Reconstructor:
    return Reconstructor(load_rgb_model(path, "cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True)
class Study:
    """What all images of an evaluation share.

    Attributes
    ----------
    methods : by name
    views : cameras by name, see `conditions.camera_views`
    plan, reference : the levels, and the setting that they differ from
    low, high : the range of physically possible values, for metamers
    centres : (groups, bands), see `group_spectra`
    spectra : (n, bands), whose metameric blacks are used
    confidence : the checkpoint of the first method if it has a table of `confidence`, else None
    """

    methods: dict[str, Method]
    views: dict[str, View]
    plan: Plan
    reference: Setting
    low: float
    high: float
    centres: np.ndarray
    spectra: np.ndarray
    confidence: Path | None = None


class Scene(NamedTuple):
    """A scene's cube file, and the floor that its values are raised to."""

    name: str
    path: Path
    floor: float | None


class Job(NamedTuple):
    """An image to be taken and scored; `whole`: also the metamers and the equivariance of its scene."""

    scene: Scene
    setting: Setting
    seed: int
    study: Study
    whole: bool


class Row(NamedTuple):
    """A line of trust.csv."""

    scene: str
    condition: str
    level: str
    seed: int
    method: str
    metric: str
    value: float


class Measured(NamedTuple):
    """What a job found: values by (condition, level, method, metric), errors of groups by (condition, level, method).

    The condition and level of the image itself are "". Errors of groups are (groups, 2): sums and numbers of pixels.
    """

    values: dict[tuple[str, str, str, str], float]
    groups: dict[tuple[str, str, str], np.ndarray]


def _plain(name: str) -> Callable[[np.ndarray, "Truth"], float]:
    return lambda rec, truth: float(getattr(metrics, name)(rec, truth.values))


def _difference(light: str) -> Callable[[np.ndarray, "Truth"], float]:
    def score(rec: np.ndarray, truth: "Truth") -> float:
        from colour.difference import delta_E_CIE2000

        return float(np.mean(delta_E_CIE2000(cielab(rec, truth.wavelengths, light), truth.colours[light])))

    return score


SCORES: dict[str, Callable[[np.ndarray, "Truth"], float]] = {
    **{name: _plain(name) for name in ("mrae", "rmse", "psnr", "sam", "gfc")},
    "mrae_best_scale": _plain("best_scale_mrae"),
    "de00_d65": _difference("D65"),
    "de00_a": _difference("A"),
}
"""The scores of a reconstruction's pixels (1, pixels, bands), by metric."""


class Truth:
    """The spectra that reconstructions of a scene are scored against: some of its pixels, or all."""

    def __init__(
        self, cube: np.ndarray, pixels: np.ndarray, wavelengths: np.ndarray, labels: np.ndarray, n_groups: int
    ) -> None:
        """Take the `pixels` (H, W) of a cube (H, W, bands) with the groups `labels` (H, W)."""
        self.pixels, self.wavelengths, self.n_groups = pixels, wavelengths, n_groups
        self.values = cube[pixels][None].astype(np.float32)
        self.labels = labels[pixels]
        self.colours = {light: cielab(self.values, wavelengths, light) for light in ("D65", "A")}

    def scores(self, rec: np.ndarray, wanted: Sequence[str] = tuple(SCORES)) -> dict[str, float]:
        """Return the scores of a reconstruction (H, W, bands), clipped to [0, 1], by metric."""
        ours = rec[self.pixels][None]
        return {name: SCORES[name](ours, self) for name in wanted}

    def group_errors(self, rec: np.ndarray) -> np.ndarray:
        """Return the sum of the relative errors of each group, and the number of its pixels: (groups, 2)."""
        errors = (np.abs(rec[self.pixels] - self.values[0]) / self.values[0]).mean(-1, dtype=np.float64)
        known = self.labels >= 0
        labels = self.labels[known]
        return np.stack(
            [np.bincount(labels, errors[known], self.n_groups), np.bincount(labels, minlength=self.n_groups)], 1
        )


def group_spectra(cubes: Sequence[np.ndarray], seed: int = 0, per_cube: int = 4000) -> np.ndarray:
    """Return the centres (groups, bands) of groups of spectra of the same shape, by k-means.

    Each spectrum is divided by its mean. Pixels darker than DARK are skipped. There are GROUPS groups, or fewer
    if there are fewer spectra.
    """
    rng = np.random.default_rng(seed)
    found = []
    for cube in cubes:
        spectra = cube.reshape(-1, cube.shape[-1])
        spectra = spectra[spectra.mean(1) >= DARK]
        found.append(spectra[rng.choice(len(spectra), min(per_cube, len(spectra)), replace=False)])
    shapes = np.concatenate(found).astype(np.float64)
    if not len(shapes):
        raise DataError(f"all cubes are darker than {DARK:g} everywhere; values from 0 to 1 are needed")
    shapes /= shapes.mean(1, keepdims=True)
    count = min(GROUPS, len(np.unique(shapes, axis=0)))
    generator: dict[str, Any] = {"seed": np.random.default_rng(seed)}  # newer versions call it rng, and take both
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a group that stays empty does no harm
        return kmeans2(shapes, count, iter=50, minit="++", **generator)[0]


def label_pixels(cube: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the number of the group that each pixel's spectrum belongs to, -1 for dark pixels: (H, W)."""
    mean = cube.mean(2, keepdims=True, dtype=np.float64)
    shapes = (cube / np.maximum(mean, 1e-9)).reshape(-1, cube.shape[2])
    # |x - c|^2 without |x|^2, which is the same for all centres
    distances = (centres**2).sum(1) - 2 * shapes @ centres.T
    return np.where(mean[..., 0] >= DARK, distances.argmin(1).reshape(cube.shape[:2]), -1)


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
def read_scene(scene: Scene) -> tuple[Cube, int]:
    """Return a scene's cube, and how many of its values were raised. Raises DataError if it cannot be scored."""
    read = read_truth(scene.path, scene.floor)
    if read is None:
        raise DataError(f"{scene.path}: has values <= 0; use --non_positive floor VALUE, such as 0.01")
    return read


def back_projection_mrae(rec: np.ndarray, image: np.ndarray, curves: np.ndarray) -> float:
    """Return the MRAE, at the best scale, of what a camera would see of a reconstruction, against the image.

    Parameters
    ----------
    rec
        Reconstruction (H, W, bands).
    image
        (H, W, 3) in [0, 1], linear. Values outside CODES are not compared.
    curves
        (bands, 3) of the camera that took the image.
    """
    used = (image >= CODES[0] / 255) & (image <= CODES[1] / 255)
    return metrics.best_scale_mrae((rec @ curves)[used], image[used]) if used.any() else float("nan")


def measure(job: Job) -> Measured:
    """Take the image of a job, reconstruct it by all methods, and score them."""
    torch.set_num_threads(1)  # the last digits depend on it
    cube, study, setting = read_scene(job.scene)[0], job.study, job.setting
    wavelengths = cube.require_wavelengths()
    truth = scene_as_seen(cube.values, wavelengths, setting, job.scene.floor)
    image = take(truth, wavelengths, setting, study.views, job.seed, job.scene.name)
    rgb = normalise_rgb(image)
    raw = {method: reconstruct(rgb) for method, reconstruct in study.methods.items()}
    recs = {method: np.float32(rec).clip(0, 1) for method, rec in raw.items()}
    labels = label_pixels(scene_as_seen(cube.values, wavelengths, replace(setting, light=""), None), study.centres)
    found = Measured({}, {})
    sure = confidence_map(study, cube.values, rgb, raw)
    whole = Truth(truth, np.ones(truth.shape[:2], bool), wavelengths, labels, len(study.centres))
    for method, rec in recs.items():
        _add(found, "", "", method, whole, rec)
        if setting.encoding != "sRGB, not decoded":
            view = study.views[setting.camera]
            curves = view.curves(wavelengths)
            if setting.encoding != "linear":
                curves = curves @ matrix_to_srgb(view.camera)
            found.values["", "", method, "back_projection"] = back_projection_mrae(rec, image, curves)
    if sure is not None:
        _judge_map(found, ("", ""), sure, truth, whole.pixels)
    if setting.pixel:
        plain = normalise_rgb(
            take(truth, wavelengths, replace(setting, pixel=False), study.views, job.seed, job.scene.name)
        )
        for method, reconstruct in study.methods.items():
            found.values["", "", method, "change"] = relative_l1(raw[method], reconstruct(plain))
    if job.whole:
        for method, reconstruct in study.methods.items():
            for k in study.plan.factors:
                scaled = reconstruct(np.float32(k) * rgb)
                key = "equivariance", f"k = {k:g}", method, "change"
                found.values[key] = relative_l1(scaled, k * raw[method])
        _measure_metamers(found, truth, recs, labels, wavelengths, study, sure)
    return found


class Sure(NamedTuple):
    """What the confidence map of a method says of an image, before the truth is known."""

    method: str
    rec: np.ndarray
    expected: np.ndarray
    levels: np.ndarray
    factor: float
    darkness: np.ndarray


@lru_cache(maxsize=2)
def _load_table(path: Path) -> Confidence:
    return Confidence.load(path)


def confidence_map(study: Study, cube: np.ndarray, rgb: np.ndarray, raw: dict[str, np.ndarray]) -> Sure | None:
    """Return what the map says of an image; the scene with this cube is left out of its calibration."""
    if study.confidence is None:
        return None
    table = _load_table(study.confidence).without(fingerprint(cube))
    method, rec = next(iter(raw.items()))
    maps = table.maps(rgb, rec)
    return Sure(method, rec, maps["expected_sam"], maps["trust"], table.factor, -rgb.max(2))


def _judge_map(found: Measured, place: tuple[str, str], sure: Sure, truth: np.ndarray, pixels: np.ndarray) -> None:
    """Compare the map of an image with the true angles, on `pixels` (H, W), and with darkness as another map."""
    sam, expected, darkness = sam_map(sure.rec, truth)[pixels], sure.expected[pixels], sure.darkness[pixels]
    bound, wrong, believable = sure.factor * expected, sam > DOUBTFUL, sure.levels[pixels] == 2
    within = float((sam <= bound).mean())
    scores = {
        "within_bound": within,
        "held": float(within >= SHARE),
        "expected_sam": float(expected.mean()),
        "bound": float(bound.mean()),
        "rank": rank_correlation(expected, sam),
        "rank_of_darkness": rank_correlation(darkness, sam),
        "auroc": auroc(expected, wrong),
        "auroc_of_darkness": auroc(darkness, wrong),
        "believable": float(believable.mean()),
        "wrongly_believable": float(wrong[believable].mean()) if believable.any() else np.nan,
    }
    for name, value in scores.items():
        if np.isfinite(value):
            found.values[(*place, sure.method, name)] = value


def relative_l1(cube: np.ndarray, reference: np.ndarray) -> float:
    """Return sum |cube - reference| / sum |reference|."""
    return float(np.abs(cube - reference).sum(dtype=np.float64) / np.abs(reference).sum(dtype=np.float64))


def _add(
    found: Measured,
    condition: str,
    level: str,
    method: str,
    truth: Truth,
    rec: np.ndarray,
    wanted: Sequence[str] = tuple(SCORES),
) -> None:
    for metric, value in truth.scores(rec, wanted).items():
        found.values[condition, level, method, metric] = value
    found.groups[condition, level, method] = truth.group_errors(rec)


def _measure_metamers(
    found: Measured,
    truth: np.ndarray,
    recs: dict[str, np.ndarray],
    labels: np.ndarray,
    wavelengths: np.ndarray,
    study: Study,
    sure: Sure | None,
) -> None:
    """Score the reconstructions of the reference image against metamers of its scene.

    The scores at alpha = 1 on the same pixels, the mean MRAE of both truths and its floor stand beside them.
    """
    curves = study.views["training"].curves(wavelengths)
    for name, other, feasible in metamer_levels(truth, curves, study):
        key = "metamers", name
        found.values[(*key, ANY, "feasible")] = float(feasible.mean())
        if not feasible.any():
            continue
        itself, changed = (
            Truth(values, feasible, wavelengths, labels, len(study.centres)) for values in (truth, other)
        )
        floor = metamers.floor(itself.values, changed.values)
        found.values[(*key, ANY, "mrae_of_both")] = float(floor.mean())
        if sure is not None:
            _judge_map(found, key, sure, other, feasible)
        for method, rec in recs.items():
            _add(found, *key, method, changed, rec, OF_METAMERS)
            before = itself.scores(rec, OF_METAMERS)
            for metric in OF_METAMERS:
                found.values[(*key, method, f"{metric}_at_alpha_1")] = before[metric]
            both = (before["mrae"] + found.values[(*key, method, "mrae")]) / 2
            found.values[(*key, method, "mrae_of_both")] = both


def metamer_levels(
    truth: np.ndarray, curves: np.ndarray, study: Study
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield each level of the metamers of a cube: its name, the other cube, and which pixels are metamers."""
    for alpha in study.plan.alphas:
        yield f"alpha {alpha:g}", *metamers.metamer(truth, curves, alpha, study.low, study.high)
    yield "other blacks", *metamers.natural_metamer(truth, curves, study.spectra, study.low, study.high)


def plan_jobs(
    scenes: Sequence[Scene], reflectances: Sequence[Scene], study: Study
) -> tuple[dict[tuple[str, Setting, int], Job], list[tuple[Scene, Level]]]:
    """Return the jobs by (condition's scenes, setting, seed), each distinct image once, and all levels of all scenes.

    Parameters
    ----------
    scenes
        Scenes for all conditions but the light.
    reflectances
        Scenes whose cubes are reflectances, for the condition `light`.
    study
        What they share.
    """
    levels = [(scene, level) for scene in scenes for level in study.plan.levels(list(study.views), study.reference)]
    levels += [(scene, level) for scene in reflectances for level in study.plan.lit_levels(study.reference)]
    small = replace(study, spectra=study.spectra[:0])  # they travel to the processes with each job
    jobs = {}
    for scene, level in levels:
        for seed in range(level.seeds):
            whole = level.condition == "reference" and seed == 0
            job = Job(scene, level.setting, seed, study if whole else small, whole)
            jobs.setdefault(_key(scene, level, seed), job)
    return jobs, levels


def _key(scene: Scene, level: Level, seed: int) -> tuple[str, Setting, int]:
    # without noise all seeds give the same image
    return str(scene.path), level.setting, seed if level.setting.electrons else 0


def collect(measured: dict[tuple[str, Setting, int], Measured], levels: Sequence[tuple[Scene, Level]]) -> list[Row]:
    """Return the rows of trust.csv, in the order of conditions."""
    rows: list[Row] = []
    pooled: dict[tuple[str, str, str], np.ndarray] = {}
    for scene, level in levels:
        for seed in range(level.seeds):
            found = measured[_key(scene, level, seed)]
            own = level.condition == "reference" and seed == 0  # the metamers stand in the rows once
            for (condition, name, method, metric), value in found.values.items():
                if own or not condition:
                    place = condition or level.condition, name or level.name
                    rows.append(Row(scene.name, *place, seed, method, metric, value))
            for (condition, name, method), errors in found.groups.items():
                if seed == 0 and (own or not condition):
                    place = condition or level.condition, name or level.name, method
                    pooled[place] = pooled.get(place, 0) + errors
    for (condition, name, method), errors in pooled.items():
        rows.append(Row(ALL, condition, name, 0, method, "mrae_worst_group", worst_group(errors)[1]))
    conditions = [level.condition for _, level in levels] + [row.condition for row in rows]
    order = {condition: i for i, condition in enumerate(dict.fromkeys(conditions))}
    return sorted(rows, key=lambda row: order[row.condition])


def worst_group(errors: np.ndarray) -> tuple[int, float]:
    """Return the group with the highest error, and its MRAE; groups of less than 0.1% of the pixels do not count."""
    sums, counts = errors.T
    valid = counts >= max(0.001 * counts.sum(), 1)
    if not valid.any():
        return 0, float("nan")
    mrae = np.where(valid, sums / np.maximum(counts, 1), -np.inf)
    return int(mrae.argmax()), float(mrae.max())


@dataclass(frozen=True)
class Summary:
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


def summarise(rows: Sequence[Row], draws: int = 2000, seed: int = 0) -> dict[Key, Summary]:
    """Return the means over scenes and their 95% intervals by a paired bootstrap over scenes.

    Every draw takes the same scenes for all levels, methods and metrics. Seeds of noise are averaged first. The ratio
    is that of the means, to the reference; for the light that is the light E, for metamers the cube itself on the
    same pixels. Only errors have one.
    """
    by_key: dict[Key, dict[tuple[str, int], float]] = {}
    for row in rows:
        by_key.setdefault((row.condition, row.level, row.method, row.metric), {})[row.scene, row.seed] = row.value
    return {key: _summary(values, _reference(key, by_key), draws, seed) for key, values in by_key.items()}


def _reference(key: Key, by_key: dict[Key, dict[tuple[str, int], float]]) -> dict[tuple[str, int], float]:
    """Return the values, by scene and seed, that a level's values are divided by."""
    condition, level, method, metric = key
    if metric in ("psnr", "gfc", "change", "feasible", "mrae_of_both", *CONFIDENCE):
        return {}
    if condition == "light":
        reference = "light", "E", method, metric
    elif condition != "metamers":
        reference = "reference", "reference", method, metric
    elif metric == "mrae_worst_group":
        reference = "metamers", "alpha 1", method, metric
    else:
        reference = "metamers", level, method, f"{metric}_at_alpha_1"
    return by_key.get(reference, {})


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
