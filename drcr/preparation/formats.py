"""Cubes in the file formats that people have: .mat, HDF5, .npy, .npz, ENVI, TIFF, and one image per band.

Each reader returns a `StoredCube`: the values as they lie in the file, and all that the file says about them.
"""

import logging
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import tifffile

from drcr.cube import Cube, StoredCube, settle
from drcr.matfile import CUBE_NAMES, WAVELENGTH_NAMES, read_stored
from drcr.preparation.envi import DATA_SUFFIXES, read_envi
from drcr.utils.files import BROKEN, BrokenFile, DataError, unreadable

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it logs ends in one line of ours, or does no harm

HDF5_SUFFIXES = (".mat", ".h5", ".hdf5")
CUBE_SUFFIXES = (*HDF5_SUFFIXES, ".npy", ".npz", ".hdr", ".tif", ".tiff")
BAND_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".pgm")
NAMES = (*CUBE_NAMES, "ref")  # ref: Harvard's
AXES = {"first": 0, "middle": 1, "last": 2}
GDAL_METADATA, GDAL_NODATA = 42112, 42113
"""Tags of TIFF files that GDAL writes."""
ORIGIN_MARK = "drcr origin: "
"""What ImageJ's text on the image begins with in a TIFF that is a reconstruction."""


def read_cube_file(
    path: Path | tuple[Path, ...],
    variable: str | None = None,
    axis: int | None = None,
    wavelengths: np.ndarray | None = None,
    step: tuple[float, float] | None = None,
    otherwise: np.ndarray | None = None,
    is_matlab: bool = False,
) -> Cube:
    """Read a cube in any of the formats.

    Parameters
    ----------
    path : Path or tuple of Path
        The file (of an ENVI pair the header), or one image per band.
    variable : str, optional
        The cube's name in a .mat, HDF5 or .npz. Without it `cube`, `rad` or `ref`, or the only array with three
        dimensions.
    axis, wavelengths, step, otherwise
        As for `drcr.cube.settle`.
    is_matlab : bool
        As for `drcr.matfile.read_stored`.

    Returns
    -------
    Cube
        Bands last and rising, everything applied that the file states; a large file's values may be mapped, not read,
        and of another type than float32.

    Raises
    ------
    DataError
        The file is broken, has no such cube, or states something that is not understood.
    """
    # where files of a format usually have their bands is not certain enough for files from anywhere
    stored = replace(_read_stored(path, variable, is_matlab), usual_axis=None)
    return settle(stored, axis, wavelengths, step, otherwise)


def _read_stored(path: Path | tuple[Path, ...], variable: str | None, is_matlab: bool) -> StoredCube:
    if isinstance(path, tuple):
        return read_band_files(path)
    suffix = path.suffix.lower()
    if suffix in HDF5_SUFFIXES:
        return read_stored(path, (variable,) if variable else NAMES, variable is None, is_matlab)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if suffix in (".npy", ".npz"):
        return _read_numpy(path, variable)
    return read_envi(path) if suffix == ".hdr" else _read_tiff(path)


def _read_numpy(path: Path, variable: str | None) -> StoredCube:
    try:
        if path.suffix.lower() == ".npy":
            # mapped, so that a band can be taken without reading all
            return StoredCube(np.load(path, mmap_mode="r", allow_pickle=False), path)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file if name in WAVELENGTH_NAMES}
            names = [name for name in file if name not in WAVELENGTH_NAMES]
            name = _choose(file, names, variable)
            if name is None:
                raise DataError(
                    f"{path}: no array named {variable or ' or '.join(NAMES)}; it has {', '.join(file) or 'none'}; "
                    "give --variable NAME"
                )
            return StoredCube(file[name], path, lists=tuple((name, array, None) for name, array in arrays.items()))
    except DataError:
        raise
    except BROKEN as error:
        raise unreadable(path, error, "a NumPy file of plain numbers") from error


def _choose(file: np.lib.npyio.NpzFile, names: list[str], variable: str | None) -> str | None:
    """Return the name of a .npz file's cube: `variable`, else a usual name, else its only array."""
    if variable:
        return variable if variable in file else None
    if usual := [name for name in NAMES if name in names]:
        return usual[0]
    cubes = [name for name in names if file[name].ndim == 3] if len(names) > 1 else names
    return cubes[0] if len(cubes) == 1 else None


def _read_tiff(path: Path) -> StoredCube:
    try:
        with tifffile.TiffFile(path) as file:
            _check_tiff(file, path)
            page, axes = file.pages[0], file.series[0].axes if len(file.series) == 1 else ""
            nodata = page.tags.get(GDAL_NODATA)
            fill = () if nodata is None else (float(str(nodata.value).strip("\0 ")),)
            # Q: tifffile wrote an array of which it knew nothing, and a page need not be a band
            axis = {"YXS": 2, "QYX": None}.get(axes, 0)
            values = file.asarray() if len(file.pages) == 1 else file.asarray(key=slice(None))
            lists = _labelled_wavelengths(file)
            if values.ndim == 2 and lists:  # a cube of one band
                values = values[None]
            return StoredCube(values, path, axis, lists=lists, fill=fill, origin=_origin(file))
    except DataError:
        raise
    except (tifffile.TiffFileError, *BROKEN) as error:
        raise unreadable(path, error, "a TIFF") from error


def _labelled_wavelengths(file: tifffile.TiffFile) -> tuple[tuple[str, np.ndarray, str | None], ...]:
    """Return the wavelengths in the labels of an ImageJ stack, such as `450 nm`, as a StoredCube lists them."""
    labels = (file.imagej_metadata or {}).get("Labels") or []
    labels = [labels] if isinstance(labels, str) else labels
    found = [re.fullmatch(r"(\d+(?:\.\d+)?) ?nm", str(label).strip()) for label in labels]
    if not found or not all(found):
        return ()
    return (("labels of the slices", np.array([float(match[1]) for match in found if match]), "nm"),)


def origin_in_tiff(path: Path) -> str | None:
    """Return the line on its origin that a TIFF has if it is a reconstruction; None for any other file."""
    try:
        with tifffile.TiffFile(path) as file:
            return _origin(file)
    except (tifffile.TiffFileError, *BROKEN):
        return None


def _origin(file: tifffile.TiffFile) -> str | None:
    text = str((file.imagej_metadata or {}).get("Info", ""))
    return text.removeprefix(ORIGIN_MARK) if text.startswith(ORIGIN_MARK) else None


def _check_tiff(file: tifffile.TiffFile, path: Path) -> None:
    """Raise DataError if a TIFF has something that changes what its values mean, or not all of its values."""
    pages = list(file.pages)
    if not pages:
        raise ValueError("no pages")
    if len({(page.shape, page.dtype) for page in pages}) > 1:
        raise DataError(f"{path}: its pages differ in size or type; one page per band is needed, all alike")
    for page in pages:
        assert isinstance(page, tifffile.TiffPage)  # a whole page, not a frame that repeats another one's tags
        photometric = tifffile.PHOTOMETRIC(page.photometric)
        if photometric not in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB):
            raise DataError(f"{path}: its values are {photometric.name}, not intensities; save it as MINISBLACK")
        orientation = page.tags.get("Orientation")
        if orientation is not None and orientation.value != 1:
            raise DataError(
                f"{path}: is stored rotated or mirrored (orientation {orientation.value}); save it upright"
            )
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if not count or offset + count > file.filehandle.size:
                raise BrokenFile(f"{path}: truncated, or written in part; copy or download it again")
        scaling = page.tags.get(GDAL_METADATA)
        if scaling is not None and re.search(r'role="(scale|offset)"', str(scaling.value)):
            raise DataError(f"{path}: states scale and offset (GDAL_METADATA); apply them and save it again")


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
            with tifffile.TiffFile(path) as file:
                _check_tiff(file, path)
                image = file.asarray()
        except DataError:
            raise
        except (tifffile.TiffFileError, *BROKEN) as error:
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


CubeSource = Path | tuple[Path, ...]
"""Where a cube is stored: one file, or one image per band."""


def find_cubes(source: Path) -> tuple[dict[str, CubeSource], list[str]]:
    """Return the cubes of a folder by name, sorted, and lines on what it contains besides.

    A cube is a file, or, in a folder without such files, a folder: of one cube, of one image per band, or with
    results/REFLECTANCE_*.hdr (Specim IQ). Raises DataError if there is none, or two have the same name.
    """
    if not source.is_dir():
        raise DataError(f"{source}: {'is a file' if source.exists() else 'no such folder'}; give a folder of cubes")
    entries = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    files: dict[str, CubeSource] = {}
    for path in entries:
        if path.suffix.lower() not in CUBE_SUFFIXES or path.is_dir():
            continue
        if not path.exists():
            raise DataError(f"{path}: is a link to a missing file; repair or remove it")
        if path.stem in files:
            raise DataError(f"{path}: another cube has the same name without suffix; keep only one of the two")
        files[path.stem] = path
    if files:
        data = {stem.lower() + suffix for stem, path in files.items() for suffix in DATA_SUFFIXES}
        others = [path for path in entries if path not in files.values() and path.name.lower() not in data]
        return files, _describe_skipped(source, [path.name + "/" * path.is_dir() for path in others])
    scenes: dict[str, CubeSource] = {}
    skipped = []
    for path in entries:
        found = _scene_in(path) if path.is_dir() else "is not a cube"
        if isinstance(found, str):
            skipped.append(f"{path.name} ({found})")
        else:
            scenes[path.name] = found
    if not scenes and not isinstance(found := _scene_in(source), str):
        return {source.resolve().name: found}, []
    if not scenes:
        why = f"; {', '.join(skipped[:3])}" if skipped else ""
        raise DataError(f"{source}: no cubes in this folder ({' '.join(CUBE_SUFFIXES)}){why}")
    return scenes, _describe_skipped(source, skipped)


def _describe_skipped(source: Path, skipped: list[str]) -> list[str]:
    if not skipped:
        return []
    more = f" and {len(skipped) - 5} more" if len(skipped) > 5 else ""
    return [f"{source}: skipped {len(skipped)}: {', '.join(skipped[:5])}{more}"]


def _scene_in(folder: Path) -> CubeSource | str:
    """Return the cube that a folder consists of, or why it is not one."""
    reflectance = sorted(folder.glob("results/REFLECTANCE_*.hdr"))
    if len(reflectance) == 1:
        return reflectance[0]
    if (folder / "capture").is_dir():
        return "no results/REFLECTANCE_*.hdr, and capture/ contains counts that are not calibrated"
    files = [path for path in sorted(folder.iterdir()) if not path.is_dir() and not path.name.startswith(".")]
    for path in files:
        if not path.exists():
            raise DataError(f"{path}: is a link to a missing file; repair or remove it")
    cubes = [path for path in files if path.suffix.lower() in CUBE_SUFFIXES]
    if len(cubes) == 1:
        return cubes[0]
    if any(path.suffix.lower() not in BAND_SUFFIXES for path in cubes):
        return f"contains {len(cubes)} cubes; give it as --source"
    images = [[path for path in files if path.suffix.lower() == suffix] for suffix in BAND_SUFFIXES]
    several = [group for group in images if len(group) > 1]
    if len(several) != 1:
        return "contains neither a cube nor one image per band"
    return sort_band_files(several[0])
