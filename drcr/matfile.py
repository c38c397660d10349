"""Hyperspectral cubes in MATLAB's .mat files."""

import time
from pathlib import Path

import h5py
import numpy as np
import scipy.io
from numpy.typing import ArrayLike

from drcr.utils.files import BROKEN, DataError, write_hdf5

CUBE_NAMES = ("cube", "rad")
WAVELENGTHS = np.arange(400.0, 701.0, 10.0)
"""The 31 bands of the challenges' data sets, in nanometres."""


def _read_variable(path: Path, names: tuple[str, ...]) -> tuple[str | None, np.ndarray | None, list[str]]:
    """Return the first of `names` that a .mat file has, its value with MATLAB's axes, and the names of all.

    Raises DataError if the file is missing or broken.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                name = next((name for name in names if name in file), None)
                # MATLAB stores columns first: its H x W x bands lies in the file as (bands, W, H)
                return name, None if name is None else np.asarray(file[name]).T, sorted(file)
        found = sorted(entry[0] for entry in scipy.io.whosmat(path))
        name = next((name for name in names if name in found), None)
        return name, None if name is None else scipy.io.loadmat(path, variable_names=[name])[name], found
    except PermissionError:
        raise
    except (*BROKEN, scipy.io.matlab.MatReadError) as error:
        raise DataError(f"{path}: truncated or no .mat file; copy or download it again") from error


def read_cube(path: str | Path, names: tuple[str, ...] = CUBE_NAMES) -> np.ndarray:
    """Read a cube from a .mat file (v5, v7 or v7.3): the first of the variables `names`, `cube` or `rad`.

    Returns radiance as float32 (H, W, bands), values as stored; for v7.3 a view in MATLAB's memory order.
    Raises DataError if the file is missing, truncated, or has no such variable with three dimensions.
    """
    path = Path(path)
    name, cube, found = _read_variable(path, names)
    if cube is None:
        raise DataError(f"{path}: no variable named {' or '.join(names)}; it has {', '.join(found) or 'none'}")
    if cube.ndim != 3 or cube.dtype.kind not in "fiu" or not cube.size:
        raise DataError(f"{path}: {name} must be numbers, H x W x bands; it is {cube.dtype}, {cube.shape}")
    return cube.astype(np.float32, copy=False)


def wavelengths_in_nm(values: np.ndarray) -> np.ndarray | None:
    """Return a list of wavelengths in nm, float64; None if `values` can't be one.

    They must rise or fall throughout. Those between 0.2 and 3 are taken for micrometres.
    """
    if values.dtype.kind not in "fiu" or values.size == 0 or not np.isfinite(values).all():
        return None
    values = np.float64(values).ravel()
    if values.min() > 0.2 and values.max() < 3:
        values = values * 1000
    monotonic = (np.diff(values) > 0).all() or (np.diff(values) < 0).all()
    return values if monotonic and 100 < values.min() <= values.max() < 1e5 else None


def read_wavelengths(path: str | Path, count: int, names: tuple[str, ...] = ("bands",)) -> np.ndarray | None:
    """Return the wavelengths (nm) of a .mat file's `count` bands, from its variable `bands` or another of `names`.

    None if no variable is such a list: some files hold only the numbers of the bands, 1, 2, 3.
    """
    for name in names:
        _, values, _ = _read_variable(Path(path), (name,))
        if values is not None and values.size == count and (wavelengths := wavelengths_in_nm(values)) is not None:
            return wavelengths
    return None


def find_wavelengths(path: str | Path, count: int) -> np.ndarray | None:
    """Return the wavelengths (nm) of a .mat cube's `count` bands: 400-700 nm for 31 that tell none, else None."""
    wavelengths = read_wavelengths(path, count)
    return WAVELENGTHS if wavelengths is None and count == len(WAVELENGTHS) else wavelengths


def wavelengths_of(path: str | Path, count: int) -> np.ndarray:
    """Return what `find_wavelengths` finds. Raises DataError if that is nothing."""
    wavelengths = find_wavelengths(path, count)
    if wavelengths is None:
        raise DataError(
            f"{path}: {count} bands, and no variable `bands` with their wavelengths in nm (only 31 are known without "
            "it); Dataset/import_cubes.py adds it"
        )
    return wavelengths


def same_bands(first: ArrayLike, second: ArrayLike) -> bool:
    """Tell whether two lists of wavelengths (nm) are the same, within 0.1 nm."""
    return len(first) == len(second) and bool(np.allclose(first, second, rtol=0, atol=0.1))


def describe_bands(wavelengths: np.ndarray) -> str:
    """Return a few words on a list of wavelengths (nm)."""
    return f"{len(wavelengths)} bands, {wavelengths[0]:g}-{wavelengths[-1]:g} nm"


def check_cube(cube: np.ndarray, path: str | Path) -> None:
    """Raise DataError if a cube (H, W, bands) has a value that is no number."""
    # an infinite or missing value shows in one of these, without a mask as long as the cube
    if not np.isfinite([cube.min(), cube.max()]).all():
        count = np.count_nonzero(~np.isfinite(cube))
        raise DataError(f"{path}: {count} values are NaN or infinite; mend or remove this file")


def _set_matlab_class(dataset: h5py.Dataset, name: str) -> None:
    """Mark a data set as MATLAB's class `name`, in the one string type that MATLAB and matio both read.

    MATLAB's is null-terminated with no room for the null; h5py's own is null-padded, and matio then loses the
    last letter.
    """
    string = h5py.h5t.C_S1.copy()
    string.set_size(len(name))
    string.set_strpad(h5py.h5t.STR_NULLTERM)
    attribute = h5py.h5a.create(dataset.id, b"MATLAB_class", string, h5py.h5s.create(h5py.h5s.SCALAR))
    attribute.write(np.array(name.encode()), mtype=string)


def write_cube(
    path: str | Path,
    cube: np.ndarray,
    wavelengths: np.ndarray | None = None,
    origin: str | None = None,
    **variables: float,
) -> None:
    """Write a cube (H, W, bands) as float32 variable `cube` of a MATLAB v7.3 .mat file, as ARAD_1K has it.

    `wavelengths` (nm, one a band) are added as `bands`, further scalars under their names; `origin`, a line on
    where a reconstruction comes from, as an attribute that `read_origin` gives back. The file appears
    whole or not at all. Raises ValueError on another shape, OSError if it can't be written.
    """
    if cube.ndim != 3:
        raise ValueError(f"a cube has three dimensions (H, W, bands), not {cube.ndim}")
    if wavelengths is not None:
        wavelengths = np.asarray(wavelengths, np.float64)
        if wavelengths.shape != cube.shape[2:]:
            raise ValueError(f"{cube.shape[2]} bands, but {wavelengths.size} wavelengths")
        variables = {"bands": wavelengths, **variables}

    def fill(file: h5py.File) -> None:
        if origin is not None:
            file.attrs["origin"] = np.bytes_(origin.encode())
        _set_matlab_class(file["cube"], "single")
        for name, value in variables.items():
            _set_matlab_class(file.create_dataset(name, data=np.atleast_2d(np.float64(value)).T), "double")

    header = f"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: {time.ctime()} HDF5 schema 1.00 ."
    # text to byte 116, 8 bytes of subsystem offset, version 2.0, "IM" as a little-endian "MI"
    header = header.encode().ljust(116) + bytes(8) + b"\x00\x02IM"
    # MATLAB stores columns first: its H x W x bands lies in the file as (bands, W, H)
    write_hdf5(path, {"cube": cube.astype(np.float32, copy=False).T}, fill, header)


def read_origin(path: str | Path) -> str | None:
    """Return the line that `write_cube` was given as `origin`; None for any other file."""
    try:
        with h5py.File(path, "r") as file:
            return file.attrs["origin"].decode()
    except (OSError, KeyError, AttributeError):
        return None


def check_target(path: Path) -> None:
    """Raise DataError if a reconstruction is to be written over a file that is none."""
    if path.exists() and read_origin(path) is None:
        raise DataError(f"{path}: is there already, and no reconstruction; choose another --result_dir")
