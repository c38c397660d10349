"""Cubes in the file formats that people have: .mat, HDF5, .npy, .npz, ENVI, TIFF, and one image per band.

Each reader returns a `StoredCube`: the values as they lie in the file, and all that the file says about them.
"""

import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np

from drcr.cube import Cube, StoredCube, settle
from drcr.formats.band_files import BAND_SUFFIXES, read_band_files, sort_band_files
from drcr.formats.envi import DATA_SUFFIXES, read_envi
from drcr.formats.mat import CUBE_NAMES, find_lists, list_names, may_be_list, read_stored
from drcr.formats.tiff import read_tiff
from drcr.utils.files import BROKEN, DataError, and_more, check_name, name_of, unreadable

HDF5_SUFFIXES = (".mat", ".h5", ".hdf5")
CUBE_SUFFIXES = (*HDF5_SUFFIXES, ".npy", ".npz", ".hdr", ".tif", ".tiff")
NAMES = (*CUBE_NAMES, "ref")  # ref: Harvard's
AXES = {"first": 0, "middle": 1, "last": 2}


def read_cube_file(
    path: Path | tuple[Path, ...],
    variable: str | None = None,
    axis: int | None = None,
    wavelengths: np.ndarray | None = None,
    step: tuple[float, float] | None = None,
    otherwise: np.ndarray | None = None,
    is_matlab: bool = False,
) -> Cube:
    """Read a cube in any of the formats: a file (of an ENVI pair the header), or one image per band.

    `variable` is the cube's name in a .mat, HDF5 or .npz; without it `cube`, `rad` or `ref`, or the only array with
    three dimensions. `axis`, `wavelengths`, `step` and `otherwise` are for `drcr.cube.settle`, `is_matlab` for
    `drcr.formats.mat.read_stored`. A large file's values may be mapped, not read, and of another type than float32.

    Raises DataError if the file is broken, has no such cube, or states something that is not understood.
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
    return read_envi(path) if suffix == ".hdr" else read_tiff(path)


def _read_numpy(path: Path, variable: str | None) -> StoredCube:
    try:
        if path.suffix.lower() == ".npy":
            # mapped, so that a band can be taken without reading all
            return StoredCube(np.load(path, mmap_mode="r", allow_pickle=False), path)
        with np.load(path, allow_pickle=False) as file:
            name = _choose(file, [name for name in file if not may_be_list(name)], variable)
            if name is None:
                raise DataError(
                    f"{path}: no array named {variable or ' or '.join(NAMES)}; it has {list_names(file)}; "
                    "give --variable NAME"
                )
            contents = {name: (file[name], None) for name in file if may_be_list(name)}
            return StoredCube(np.asarray(file[name]), path, lists=find_lists(contents, name))
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
    cubes = [name for name in names if np.ndim(file[name]) == 3] if len(names) > 1 else names
    return cubes[0] if len(cubes) == 1 else None


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
        check_name(path)
        if not path.exists():
            raise DataError(f"{path}: is a link to a missing file; repair or remove it")
        if files.setdefault(name_of(path), path) != path:
            raise DataError(f"{path}: another cube has the same name without suffix; keep only one of the two")
    if files:
        sources = [path for path in files.values() if isinstance(path, Path)]
        data = {path.stem.lower() + suffix for path in sources for suffix in DATA_SUFFIXES}
        others = [path for path in entries if path not in files.values() and path.name.lower() not in data]
        return files, _describe_skipped(source, [path.name + "/" * path.is_dir() for path in others])
    scenes: dict[str, CubeSource] = {}
    skipped = []
    for path in entries:
        found = _scene_in(path) if path.is_dir() else "is not a cube"
        if isinstance(found, str):
            skipped.append(f"{path.name} ({found})")
        else:
            check_name(path)
            scenes[unicodedata.normalize("NFC", path.name)] = found
    if not scenes and not isinstance(found := _scene_in(source), str):
        return {source.resolve().name: found}, []
    if not scenes:
        why = f"; {', '.join(skipped[:3])}" if skipped else ""
        raise DataError(f"{source}: no cubes in this folder ({' '.join(CUBE_SUFFIXES)}){why}")
    return scenes, _describe_skipped(source, skipped)


def _describe_skipped(source: Path, skipped: list[str]) -> list[str]:
    return [f"{source}: skipped {len(skipped)}: {and_more(skipped)}"] if skipped else []


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
