"""Hyperspectral cubes in MATLAB's .mat files."""

import time
from pathlib import Path

import h5py
import numpy as np
import scipy.io

from drcr.cube import WAVELENGTHS, Cube, check_cube, describe_bands, same_bands, wavelengths_in_nm
from drcr.utils.files import BROKEN, DataError, refuse_foreign, write_hdf5

__all__ = [
    "WAVELENGTHS",
    "check_cube",
    "check_target",
    "describe_bands",
    "load_cube",
    "read_cube",
    "read_origin",
    "same_bands",
    "write_cube",
]

CUBE_NAMES = ("cube", "rad")
WAVELENGTH_NAMES = ("bands", "wavelengths", "wavelength", "wl", "lambda")


def _read_variables(path: Path, wanted: tuple[str, ...]) -> tuple[dict[str, np.ndarray], list[str], str | None]:
    """Return those of the variables `wanted` that a .mat file has, with MATLAB's axes, all names, and the origin."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as contents:
                # MATLAB stores columns first: its H x W x bands lies in the file as (bands, W, H)
                found = {name: np.asarray(contents[name]).T for name in wanted if name in contents}
                return found, sorted(contents), _origin_of(contents)
        with open(path, "rb") as file:
            names = sorted(entry[0] for entry in scipy.io.whosmat(file))
            file.seek(0)
            contents = scipy.io.loadmat(file, variable_names=list(wanted))
            return {name: contents[name] for name in wanted if name in contents}, names, None
    except PermissionError:
        raise
    except MemoryError as error:
        raise DataError(f"{path}: does not fit into memory") from error
    except (*BROKEN, scipy.io.matlab.MatReadError) as error:
        raise DataError(f"{path}: truncated or no .mat file; copy or download it again") from error


def load_cube(path: str | Path, names: tuple[str, ...] = CUBE_NAMES) -> Cube:
    """Read a .mat file (v5, v7 or v7.3): its cube, the wavelengths, and where it comes from. The file is opened once.

    Parameters
    ----------
    path : str or Path
        The file.
    names : tuple of str
        The cube is the first of these variables that the file has.

    Returns
    -------
    Cube
        Values float32 (H, W, bands) as stored, for v7.3 a view in MATLAB's memory order.

    Raises
    ------
    DataError
        The file is missing or truncated, or has no such variable with three dimensions.
    """
    path = Path(path)
    found, all_names, origin = _read_variables(path, (*names, *WAVELENGTH_NAMES))
    name = next((name for name in names if name in found), None)
    if name is None:
        raise DataError(f"{path}: no variable named {' or '.join(names)}; it has {', '.join(all_names) or 'none'}")
    values = found[name]
    if values.ndim != 3 or values.dtype.kind not in "fiu" or not values.size:
        raise DataError(f"{path}: {name} must be numbers, H x W x bands; it is {values.dtype}, {values.shape}")
    lists = [found[name] for name in WAVELENGTH_NAMES if name in found]
    return Cube(values.astype(np.float32, copy=False), _find_wavelengths(lists, values.shape), path, origin)


def _find_wavelengths(lists: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the first of `lists` that can be the wavelengths of the last or, failing that, the first axis."""
    for count in (shape[2], shape[0]):
        for values in lists:
            if values.size == count and (wavelengths := wavelengths_in_nm(values)) is not None:
                return wavelengths
    return None


def read_cube(path: str | Path, names: tuple[str, ...] = CUBE_NAMES) -> np.ndarray:
    """Return the values of `load_cube`: float32 (H, W, bands)."""
    return load_cube(path, names).values


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
    """Write a cube as variable `cube` of a MATLAB v7.3 .mat file, as ARAD_1K has it, atomically.

    Parameters
    ----------
    path : str or Path
        The file.
    cube : (H, W, bands)
        Radiance; written as float32.
    wavelengths : (bands,), optional
        In nm; written as `bands`.
    origin : str, optional
        A line on where a reconstruction comes from, as an attribute that `load_cube` gives back.
    **variables : float
        Further scalars, under their names.

    Raises
    ------
    ValueError
        The cube has another number of dimensions, or of bands than there are wavelengths.
    OSError
        The file cannot be written.
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


def _origin_of(file: h5py.File) -> str | None:
    origin = file.attrs.get("origin")
    return origin.decode() if isinstance(origin, bytes) else None


def read_origin(path: str | Path) -> str | None:
    """Return the line that `write_cube` was given as `origin`; None for any other file."""
    try:
        with h5py.File(path, "r") as file:
            return _origin_of(file)
    except OSError:
        return None


def check_target(path: Path) -> None:
    """Raise DataError if a reconstruction is about to replace a file that is not one."""
    refuse_foreign(
        path, lambda path: read_origin(path) is not None, "a reconstruction", "choose another --result_dir"
    )
