"""Scoring a reconstruction against its truth, as compute_mrae.py prints it: pairing, checks, clipping, scores."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from drcr import metrics
from drcr.cube import raise_to_floor
from drcr.matfile import check_cube, describe_bands, find_wavelengths, read_cube, same_bands
from drcr.metrics import HEADINGS, SCORES
from drcr.utils.files import DataError, list_files

Scores = dict[str, dict[str, float]]
"""Of one method: the scores by scene; the row `average` is last."""


def pair_cubes(path_rec: Path, path_gt: Path, scenes: Sequence[str] = ()) -> dict[str, tuple[Path, Path]]:
    """Return (reconstruction, truth) of each scene by name: two folders' .mat files, or `scenes` of them.

    Raises DataError that names a file without a partner, or a scene that is missing.
    """
    if path_rec.exists() and path_gt.exists() and path_rec.samefile(path_gt):
        raise DataError(f"{path_rec}: is both --path_rec and --path_gt")
    recs = list_files(path_rec, (".mat",), "reconstructed cubes")
    truths = list_files(path_gt, (".mat",), "true cubes")
    for name in scenes:
        for folder, files in ((path_rec, recs), (path_gt, truths)):
            if name not in files:
                raise DataError(f"{folder}: no {name}.mat, which was asked for")
    for name, path in recs.items():
        if not scenes and name not in truths:
            raise DataError(f"{path}: no true cube of the same name; from another run? use a --result_dir for each")
    for name, path in truths.items():
        if not scenes and name not in recs:
            raise DataError(f"{path}: no reconstruction of the same name; run test.py on all of their images")
    return {name: (recs[name], truths[name]) for name in recs if not scenes or name in scenes}


def read_truth(path: Path, floor: float | None) -> tuple[np.ndarray, int] | None:
    """Return a true cube (H, W, bands) > 0 and how many of its values were raised to `floor`.

    None if it has values <= 0 and there is no floor. Raises DataError if it can't be read or has NaN.
    """
    truth = read_cube(path)
    check_cube(truth, path)
    if floor is not None:
        return raise_to_floor(truth, floor)
    return None if (truth <= 0).any() else (truth, 0)


def read_reconstruction(path: Path, truth: np.ndarray, gt_path: Path) -> np.ndarray:
    """Return the reconstruction of a truth (H, W, bands), clipped to [0, 1] as it is scored.

    Raises DataError if it can't be read, has NaN, or is of another shape or at other wavelengths.
    """
    rec = read_cube(path)
    check_cube(rec, path)
    if rec.shape != truth.shape:
        raise DataError(f"{path}: {rec.shape} H x W x bands, but the truth {gt_path} is {truth.shape}")
    bands = [find_wavelengths(file, truth.shape[2]) for file in (path, gt_path)]
    if all(nm is not None for nm in bands) and not same_bands(*bands):
        raise DataError(f"{path}: {describe_bands(bands[0])}, but the truth {gt_path} has other wavelengths")
    return rec.clip(0, 1)


def describe_passed_over(names: Sequence[str]) -> str:
    """Return a line on the scenes that were passed over."""
    return f"passed over {len(names)} scenes whose truth has values <= 0: {', '.join(names)}"


def scores(rec: np.ndarray, truth: np.ndarray) -> list[float]:
    """Return SCORES of a clipped reconstruction and its truth, both (H, W, bands)."""
    # the last printed digit depends on the order of summing, and so on the threads; the released lines are for one
    torch.set_num_threads(1)
    return [getattr(metrics, name)(rec, truth) for name in SCORES]


def read_scores(path: Path) -> Scores:
    """Return the scores that compute_mrae.py wrote, by scene and score; the last row is the average."""
    with open(path, newline="") as file:
        return {row.pop("name"): {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)}


def median_scene(scores: Scores) -> str:
    """Return the scene whose MRAE is the median's: a picture should not show the best one."""
    names = sorted((name for name in scores if name != "average"), key=lambda name: scores[name]["mrae"])
    return names[len(names) // 2]


def print_means(tables: dict[str, Scores]) -> None:
    """Print the average scores of each method."""
    print(f"{'':34}" + "".join(f"{heading:>9}" for heading, _ in HEADINGS.values()))
    for name, table in tables.items():
        mean = table["average"]
        print(f"{name:34}" + "".join(f"{mean[score]:9.{digits}f}" for score, (_, digits) in HEADINGS.items()))
