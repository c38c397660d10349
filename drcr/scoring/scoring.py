"""Score reconstructions against ground truth, as compute_mrae.py prints it: pairing, checks, clipping, scores."""

import csv
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from drcr import metrics
from drcr.cube import Cube, check_cube, check_scale, describe_bands, raise_to_floor, same_bands
from drcr.formats.mat import load_cube
from drcr.formats.results import RESULT_SUFFIXES, read_result
from drcr.metrics import SCORES
from drcr.scoring.tables import Scores
from drcr.utils.extras import missing
from drcr.utils.files import DataError, list_files, plural, strip_suffix


def pair_cubes(
    path_rec: Path, path_gt: Path, scenes: Sequence[str] = (), suffix: str = ""
) -> dict[str, tuple[Path, Path]]:
    """Pair two folders' cubes by name: reconstructions in any format of test.py, ground truths in .mat.

    With `scenes`, names without suffix, only these are paired; without, each file needs a partner. The reconstruction
    of NAME.mat is NAME`suffix`; others are ignored. Raises DataError if a file has no partner, or a scene is missing.
    """
    if path_rec.exists() and path_gt.exists() and path_rec.samefile(path_gt):
        raise DataError(f"{path_rec}: is both --path_rec and --path_gt; give two different folders")
    recs = strip_suffix(list_files(path_rec, RESULT_SUFFIXES, "reconstructed cubes"), suffix, path_rec)
    truths = list_files(path_gt, (".mat",), "ground truth cubes")
    scenes = [unicodedata.normalize("NFC", name) for name in scenes]
    for name in scenes:
        for folder, files, suffixes in ((path_rec, recs, RESULT_SUFFIXES), (path_gt, truths, (".mat",))):
            if name not in files:
                raise DataError(f"{folder}: contains no {name}{' or '.join(suffixes)}, which --scenes names")
    for name, path in recs.items():
        if not scenes and name not in truths:
            raise DataError(
                f"{path}: no ground truth of the same name; if it is from another run, use one --result_dir per run"
            )
    for name, path in truths.items():
        if not scenes and name not in recs:
            raise DataError(f"{path}: no reconstruction of the same name; run test.py on all of their images")
    return {name: (recs[name], truths[name]) for name in recs if not scenes or name in scenes}


def read_truth(path: Path, floor: float | None) -> tuple[Cube, int] | None:
    """Read a ground truth as it is scored, all values above 0, and how many were raised to `floor`.

    None if it has values <= 0 and there is no floor. Raises DataError if the file cannot be read, has NaN or infinite
    values, or values that are not on a scale from 0 to 1.
    """
    truth = load_cube(path)
    check_cube(truth.values, path)
    note = check_scale(truth.values, path)
    truth = replace(truth, notes=(*truth.notes, *([note] if note else [])))
    if floor is not None:
        values, raised = raise_to_floor(truth.values, floor)
        return replace(truth, values=values), raised
    return None if (truth.values <= 0).any() else (truth, 0)


def read_reconstruction(path: Path, truth: Cube) -> Cube:
    """Read the reconstruction of a ground truth as it is scored: clipped to [0, 1].

    Raises DataError if it cannot be read, has NaN, or has another shape or other wavelengths.
    """
    rec = read_result(path)
    check_cube(rec.values, path)
    if rec.values.shape != truth.values.shape:
        ours, theirs = (" x ".join(map(str, cube.values.shape)) for cube in (rec, truth))
        raise DataError(f"{path}: {ours} (H x W x bands), but the ground truth {truth.path} has {theirs}")
    ours, theirs = rec.known_wavelengths, truth.known_wavelengths
    if ours is not None and theirs is not None and not same_bands(ours, theirs):
        raise DataError(
            f"{path}: {describe_bands(ours)}, but the ground truth {truth.path} has {describe_bands(theirs)}"
        )
    return replace(rec, values=rec.values.clip(0, 1))


def describe_skipped(names: Sequence[str]) -> str:
    """Return a line on the scenes that were skipped."""
    return f"skipped {plural(len(names), 'scene')} with ground truth <= 0: {', '.join(names)}"


def scores(rec: np.ndarray, truth: np.ndarray) -> list[float]:
    """Return SCORES of a clipped reconstruction and its ground truth, (H, W, bands); SSIM only with scikit-image."""
    computed = [name for name in SCORES if name != "ssim" or not missing("skimage", "figures", "SSIM")]
    with metrics.one_thread():  # as the released lines
        return [getattr(metrics, name)(rec, truth) if name in computed else float("nan") for name in SCORES]


def read_scores(path: Path) -> Scores:
    """Return the scores that compute_mrae.py wrote, by scene and score; the last row is the average."""
    with open(path, newline="") as file:
        return {row.pop("name"): {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)}


def median_scene(scores: Scores) -> str:
    """Return the scene with the median MRAE: a picture should not show the best scene."""
    names = sorted((name for name in scores if name != "average"), key=lambda name: scores[name]["mrae"])
    return names[len(names) // 2]
