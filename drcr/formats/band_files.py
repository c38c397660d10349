"""Scenes stored as one grey image per band: the order of the files, their wavelengths, and reading them."""

import re
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from drcr.cube import StoredCube
from drcr.formats.tiff import check_tiff, open_tiff
from drcr.utils.files import BROKEN, BrokenFile, DataError, unreadable

BAND_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".pgm")


def read_band_files(paths: tuple[Path, ...]) -> StoredCube:
    """Read a scene that is stored as one grey image per band, in the order of `sort_band_files`."""
    bands: list[np.ndarray] = []
    for path in paths:
        band = _read_band(path)
        if bands and (band.shape != bands[0].shape or band.dtype != bands[0].dtype):
            raise DataError(
                f"{path}: {band.shape[0]} x {band.shape[1]} pixels of {band.dtype}, but {paths[0].name} has "
                f"{bands[0].shape[0]} x {bands[0].shape[1]} of {bands[0].dtype}; all bands of a scene must be alike"
            )
        bands.append(band)
    folder = paths[0].parent
    wavelengths = wavelengths_in_names([path.stem for path in paths])
    if wavelengths is None and (missing := missing_counter([path.stem for path in paths])) is not None:
        raise DataError(
            f"{folder}: {missing:g} is missing in the numbers of the band files; add the band, or rename them"
        )
    lists, notes = (), (f"bands in the order of the file names, {paths[0].name} to {paths[-1].name}",)
    if wavelengths is not None:
        lists = (("file names", wavelengths, "nm"),)
        notes = (f"wavelengths from the file names, {paths[0].name} to {paths[-1].name}",)
    return StoredCube(np.stack(bands, 2), folder, 2, lists=lists, notes=notes)


def _read_band(path: Path) -> np.ndarray:
    """Return a grey image (H, W) with its values as stored."""
    if path.suffix.lower() in (".tif", ".tiff"):
        try:
            with open_tiff(path) as file:
                check_tiff(file, path)
                image = file.asarray()
        except DataError:
            raise
        except BROKEN as error:
            raise unreadable(path, error, "a TIFF") from error
    else:
        data = np.fromfile(path, np.uint8)
        try:
            stored = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
        except cv2.error:
            stored = None
        if stored is None:
            raise BrokenFile(f"{path}: cannot be decoded as an image; copy or download it again")
        image = stored
    if image.ndim == 3 and image.shape[2] in (2, 3, 4):  # grey saved as colour, perhaps with transparency
        colours = image[..., : min(image.shape[2], 3) if image.shape[2] > 2 else 1]
        if (colours != colours[..., :1]).any():
            raise DataError(f"{path}: is a colour image; one grey image per band is needed")
        image = colours[..., 0]
    if image.ndim != 2 or image.dtype.kind not in "fiu":
        raise DataError(f"{path}: must be one grey image, not {image.dtype} {image.shape}")
    return image


def sort_band_files(paths: list[Path]) -> tuple[Path, ...]:
    """Return files in natural order: numbers in their names count as numbers, so that band 10 follows band 9."""

    def key(path: Path) -> list[tuple[bool, float, str]]:
        parts = re.split(r"(\d+(?:\.\d+)?)", path.stem.lower())
        return [(bool(i % 2), float(part) if i % 2 else 0.0, part) for i, part in enumerate(parts)]

    return tuple(sorted(paths, key=key))


def wavelengths_in_names(stems: list[str]) -> np.ndarray | None:
    """Return the wavelengths (nm) in the names of band files, None if the names only count the bands.

    A number before "nm" is a wavelength. Without "nm", the only number that differs between the names is, if it is
    from 300 to 2600 and does not count in steps of 1.
    """
    marked = [re.findall(r"(\d+(?:\.\d+)?)\s*nm(?![a-z])", stem, re.IGNORECASE) for stem in stems]
    if all(len(found) == 1 for found in marked):
        numbers = np.array([float(found[0]) for found in marked])
    else:
        numbers = _changing_numbers(stems)
        if numbers is None:
            return None
        steps = np.sort(numbers)[1:] - np.sort(numbers)[:-1]
        if numbers.min() < 300 or numbers.max() > 2600 or steps.min() <= 1:
            return None
    return numbers if len(set(numbers)) == len(numbers) else None


def missing_counter(stems: list[str]) -> float | None:
    """Return the first number that is missing where the names of band files count in equal steps, None if none is."""
    numbers = _changing_numbers(stems)
    if numbers is None or len(numbers) < 3:
        return None
    numbers = np.sort(numbers)
    step = float(np.median(numbers[1:] - numbers[:-1]))
    return next((float(low + step) for low, high in pairwise(numbers) if high - low > 1.5 * step), None)


def _changing_numbers(stems: list[str]) -> np.ndarray | None:
    """Return the numbers in names that differ between them, None if there are none or more than one in a name."""
    rows = [[float(number) for number in re.findall(r"\d+(?:\.\d+)?", stem)] for stem in stems]
    if len({len(row) for row in rows}) != 1:
        return None
    changing = [column for column in np.array(rows).reshape(len(rows), -1).T if len(set(column)) > 1]
    return np.array(changing[0], float) if len(changing) == 1 else None
