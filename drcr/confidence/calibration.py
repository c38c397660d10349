"""Make the table of a network (see confidence.py), and judge it on scenes that it was not calibrated on."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.optimize import nnls
from scipy.spatial import KDTree
from scipy.stats import rankdata

from drcr.confidence.model import (
    DOUBTFUL,
    HIGHEST_SAM,
    LOWEST_SAM,
    SHARE,
    TERMS,
    Colours,
    Confidence,
    Fit,
    SceneScore,
    fingerprint,
    place_of,
    projector,
)
from drcr.data import PreparedScene, ValidImages
from drcr.formats.maps import LEVELS
from drcr.images import normalise_rgb
from drcr.inference import Reconstructor, reconstruct_image
from drcr.metrics import correlation, sam_map
from drcr.utils.files import DataError

PIXELS = 400_000
"""Pixels of the training data that `learn_colours` looks at, in all."""
PIXELS_OF_AN_IMAGE = 1 << 16
"""Of larger images so many pixels are used, chosen at random."""
PIXELS_TO_FIT = 4000
"""Of each image."""
CELLS = 500
ROUNDS = 10
RIDGE = 1e-3
"""Of the camera's fit, relative to the mean squared value of a band."""
BRIGHT = 2.0**-5
"""Below this largest channel a pixel's noise hides its colour."""


@dataclass(frozen=True, eq=False)
class Example:
    """An image with ground truth as a fit needs it.

    `name` of the image and its prepared scene's `path`; `scene`: the `fingerprint` of its ground truth; `kind`: how
    the image was decoded. Of its pixels, float32: `terms` (pixels, terms), `sam`: the true angles in degrees, and
    `brightest`: the largest channel.
    """

    path: Path
    name: str
    scene: str
    kind: str
    terms: np.ndarray
    sam: np.ndarray
    brightest: np.ndarray


def scene_of(scene: PreparedScene) -> str:
    """Return the `fingerprint` of a prepared scene."""
    return fingerprint(scene.array("cube").transpose(1, 2, 0))


def learn_colours(folder: ValidImages, rng: np.random.Generator) -> Colours:
    """Return what prepared training data tell of spectra by the colours of their pixels."""
    colours, spectra = [], []
    for scene in folder.scenes:
        image, cube = (scene.array(name).reshape(len(scene.array(name)), -1) for name in ("rgb", "cube"))
        count = min(max(PIXELS // len(folder.scenes), 1), image.shape[1])
        chosen = np.sort(rng.choice(image.shape[1], count, replace=False))
        colours.append(normalise_rgb(image[:, chosen].T, scene.peak))
        spectra.append(cube[:, chosen].T)
    return sum_up(colours, spectra, rng)


def sum_up(colours: Sequence[np.ndarray], spectra: Sequence[np.ndarray], rng: np.random.Generator) -> Colours:
    """Return what pixels tell of spectra by their colours: of each image colours (n, 3) and spectra (n, bands)."""
    rgb, cubes = (np.concatenate(values).astype(np.float64) for values in (colours, spectra))
    # images are exposed: each is brought to the brightness of its cube
    exposures = [
        np.full(len(image), cube.mean() / max(image.mean(), 1e-6))
        for image, cube in zip(colours, spectra, strict=True)
    ]
    camera = _ridge(cubes, rgb * np.concatenate(exposures)[:, None])
    visible = cubes @ projector(camera)
    blacks = (cubes - visible) / np.linalg.norm(visible, axis=1, keepdims=True).clip(1e-6)
    place = place_of(rgb)
    places, group = _cluster(place, rng)
    mean_black = _means(blacks, group, len(places))
    spread = _means(((blacks - mean_black[group]) ** 2).sum(1, keepdims=True), group, len(places))[:, 0]
    bright = rgb.max(1) >= min(BRIGHT, float(np.median(rgb.max(1))))
    tints, group = _cluster(place[bright, :2], rng)
    shapes = cubes[bright] / np.linalg.norm(cubes[bright], axis=1, keepdims=True).clip(1e-12)
    distance = KDTree(tints).query(place[bright, :2])[0]
    reach = max(float(np.quantile(distance, 0.999)), 2.0**-7)
    return Colours(camera, tints, _means(shapes, group, len(tints)), places, mean_black, spread, reach)


def _means(values: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    """Return the mean (count, m) of the values (n, m) of each of `count` groups; 0 for one without members."""
    sums = np.stack([np.bincount(group, column, count) for column in values.T], 1)
    return sums / np.bincount(group, minlength=count).clip(1)[:, None]


def _ridge(cubes: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Return the matrix (bands, 3) of least squares with a ridge penalty."""
    normal = cubes.T @ cubes
    return np.linalg.solve(normal + RIDGE * np.trace(normal) / len(normal) * np.eye(len(normal)), cubes.T @ colours)


def _cluster(points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the centres of up to CELLS groups of points, by k-means, and the number of each point's group."""
    some = points[rng.choice(len(points), min(len(points), 40_000), replace=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of groups that stay empty: they are removed below
        centres = kmeans2(some, some[:CELLS], iter=ROUNDS, minit="matrix")[0]
    group = KDTree(centres).query(points)[1]
    kept, group = np.unique(group, return_inverse=True)
    return centres[kept], group


def read_examples(
    folder: ValidImages,
    chosen: Iterable[int],
    reconstructor: Reconstructor,
    model_path: str | Path,
    colours: Colours,
    rng: np.random.Generator,
) -> list[Example]:
    """Reconstruct images of a prepared folder, given by their numbers, and compare them with their cubes."""
    examples = []
    for i in chosen:
        scene = folder.scenes[i]
        rgb, truth = (tensor.permute(1, 2, 0).contiguous().numpy() for tensor in folder[i])
        cube = reconstruct_image(reconstructor, rgb, scene.path, model_path)
        terms, sam = colours.terms(rgb, cube), sam_map(cube, truth).ravel()
        pixels = np.flatnonzero(np.isfinite(sam))
        if pixels.size > PIXELS_OF_AN_IMAGE:
            pixels = np.sort(rng.choice(pixels, PIXELS_OF_AN_IMAGE, replace=False))
        brightest = rgb.reshape(-1, 3).max(1)
        facts = scene.path.resolve(), folder.names[i], fingerprint(truth), scene.decoding
        examples.append(Example(*facts, terms[pixels], sam[pixels], brightest[pixels]))
    return examples


def fit_angles(examples: Sequence[Example], rng: np.random.Generator, n_terms: int = len(TERMS)) -> Fit:
    """Fit log2 of the true angle to the first `n_terms` of TERMS by least squares, no weight below 0.

    Each image counts equally.
    """
    terms, sam, counts = [], [], []
    for example in examples:
        chosen = rng.choice(len(example.sam), min(len(example.sam), PIXELS_TO_FIT), replace=False)
        terms.append(example.terms[chosen].astype(np.float64))
        sam.append(np.log2(example.sam[chosen].astype(np.float64).clip(LOWEST_SAM, HIGHEST_SAM)))
        counts.append(np.full(len(chosen), 1 / len(chosen)))
    x, y, counts = np.concatenate(terms), np.concatenate(sam), np.concatenate(counts)
    mean, target = np.average(x, 0, counts), float(np.average(y, 0, counts))
    root = np.sqrt(counts)
    weights = np.zeros(len(TERMS))
    weights[:n_terms] = nnls((x - mean)[:, :n_terms] * root[:, None], (y - target) * root)[0]
    return Fit(target - float(mean @ weights), weights, x.min(0), x.max(0))


def score(fit: Fit, examples: Sequence[Example]) -> dict[str, SceneScore]:
    """Return how a fit does on each scene of images that it has not seen: its worst image counts."""
    scores: dict[str, list[SceneScore]] = {}
    for example in examples:
        fitted = fit.angles(example.terms)
        ratios = np.sort(example.sam / fitted)
        ratio = float(ratios[int(np.ceil(SHARE * len(ratios))) - 1])
        mean = SceneScore(max(ratio, 1e-3), max(float(example.sam.mean()), 1e-3), float(fitted.mean()))
        scores.setdefault(example.scene, []).append(mean)
    return {
        scene: SceneScore(
            max(image.ratio for image in images),
            float(np.mean([image.true for image in images])),
            float(np.mean([image.fitted for image in images])),
        )
        for scene, images in scores.items()
    }


def judge(expected: np.ndarray, levels: np.ndarray, factor: float, sam: np.ndarray) -> dict[str, float]:
    """Compare a map with the truth: how well it knows the angles of an image whose scene it was not calibrated on.

    `expected` angles in degrees and LEVELS of pixels (n,), the `factor` of the bound, and the true angles `sam` (n,)
    in degrees; pixels without one (NaN) are skipped. Returns `within_bound`: the share of the pixels within the
    bound; `true_sam`, `expected_sam`, `bound`: mean angles; `rank_correlation`: Spearman's, of the expected and the
    true angle; `auroc`: the probability that of two pixels, one with a true angle above DOUBTFUL and one below, the
    first has the larger expected angle, NaN if there are none of one sort; `believable`: the share of the pixels
    called so; `wrongly_believable`: the share of those whose true angle is above DOUBTFUL.
    """
    known = np.isfinite(sam)
    expected, sam, believable = expected[known], sam[known], levels[known] == len(LEVELS) - 1
    wrong = sam > DOUBTFUL
    return {
        "within_bound": float((sam <= factor * expected).mean()),
        "true_sam": float(sam.mean()),
        "expected_sam": float(expected.mean()),
        "bound": float(factor * expected.mean()),
        "rank_correlation": rank_correlation(expected, sam),
        "auroc": auroc(expected, wrong),
        "believable": float(believable.mean()),
        "wrongly_believable": float(wrong[believable].mean()) if believable.any() else float("nan"),
    }


def judge_example(table: Confidence, example: Example) -> dict[str, float]:
    """Judge a table on an image, its scene left out of the calibration."""
    table = table.without(example.scene)
    expected = table.expected(example.terms)
    return judge(expected, table.levels(example.terms, expected, example.brightest), table.factor, example.sam)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation; NaN if one is constant."""
    return correlation(rankdata(first), rankdata(second))


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC curve of a score (n,) for bool `positive` (n,); NaN if all are alike."""
    n_positive, n_negative = np.count_nonzero(positive), np.count_nonzero(~positive)
    if not n_positive or not n_negative:
        return float("nan")
    ranks = rankdata(score)[positive].sum()
    return float((ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def check_unseen(scenes: Sequence[PreparedScene], training: ValidImages) -> None:
    """Raise DataError if the cube of a scene for the calibration is in the training data."""
    seen = {scene_of(scene) for scene in training.scenes}
    for scene in scenes:
        if scene_of(scene) in seen:
            raise DataError(
                f"{scene.path}: its cube is in the training data {training.path}, too; calibrate on scenes that the "
                "network has not seen"
            )
