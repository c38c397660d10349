"""Hyperspectral cubes in MATLAB's .mat files, and in HDF5 files of other programs."""

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from drcr.cube import Cube, StoredCube, settle
from drcr.formats.maps import MAPS
from drcr.utils.files import BROKEN, DataError, refuse_foreign, unreadable
from drcr.utils.hdf5 import open_hdf5, read_dataset, walk_hdf5, write_hdf5

CUBE_NAMES = ("cube", "rad")
WAVELENGTH_NAMES = ("bands", "wavelengths", "wavelength", "wl", "lambda")
NUMERIC_CLASSES = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
MAP_CLASSES = {np.dtype(np.float32): "single", np.dtype(np.uint8): "uint8"}
"""MATLAB's classes of the maps that stand beside a cube."""
HEADER_SIZE = 512
"""Bytes of the header that MATLAB writes before the HDF5 contents of a v7.3 file."""


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
        Values float32 (H, W, bands), wavelengths rising; for v7.3 usually a view in MATLAB's memory order.

    Raises
    ------
    DataError
        The file is missing or broken, has no such variable with three dimensions, or wavelengths that make no sense.
    """
    cube = settle(read_stored(Path(path), names))
    return replace(cube, values=cube.values.astype(np.float32, copy=False))


def read_stored(path: Path, names: tuple[str, ...], only_one: bool = False, is_matlab: bool = False) -> StoredCube:
    """Read a .mat or HDF5 file as it is stored.

    Parameters
    ----------
    path : Path
        The file.
    names : tuple of str
        The cube is the first of these variables that the file has; `hsi.Data` is a field of a struct, or in a group.
    only_one : bool
        Whether the only variable with three dimensions will do if the file has none of `names`.
    is_matlab : bool
        Whether an HDF5 file without MATLAB's marks is known to have MATLAB's order of axes all the same.

    Returns
    -------
    StoredCube
        The cube and what the file says about it.

    Raises
    ------
    DataError
        The file is missing or broken, reads other files, or has no such variable.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        if h5py.is_hdf5(path):
            with open_hdf5(path) as file:
                return _read_hdf5(file, path, names, only_one, is_matlab)
        import scipy.io  # takes a tenth of a second, and only old files need it

        try:
            with open(path, "rb") as file:
                return _read_v5(file, path, names, only_one)
        except scipy.io.matlab.MatReadError as error:
            raise ValueError(str(error)) from error
    except DataError:
        raise
    except BROKEN as error:
        raise unreadable(path, error, "a .mat or HDF5 file") from error


def _no_cube(path: Path, names: tuple[str, ...], others: Iterable[str]) -> DataError:
    found = ", ".join(sorted(others)) or "none"
    return DataError(
        f"{path}: no variable named {' or '.join(names)}; it has {found}; give --variable NAME to "
        "Dataset/import_cubes.py"
    )


def _read_hdf5(file: h5py.File, path: Path, names: tuple[str, ...], only_one: bool, is_matlab: bool) -> StoredCube:
    def find(name: str) -> h5py.Dataset | None:
        for key in (name, name.replace(".", "/")):
            if isinstance(found := file.get(key), h5py.Dataset):
                return found
        return None

    dataset = next((found for name in names if (found := find(name)) is not None), None)
    if dataset is None:
        found = dict(walk_hdf5(file, path))
        cubes = [item for item in found.values() if item.ndim == 3 and item.dtype.kind in "fiu"]
        if not only_one or len(cubes) != 1:
            raise _no_cube(path, names, (name.replace("/", ".") for name in found))
        dataset = cubes[0]
    attributes = dataset.attrs
    matlab_class = _text(attributes.get("MATLAB_class"))
    if (matlab_class is not None and matlab_class not in NUMERIC_CLASSES) or "MATLAB_empty" in attributes:
        raise DataError(f"{path}: {dataset.name} is empty or of class {matlab_class}; a cube of numbers is needed")
    # MATLAB stores columns first: its H x W x bands lies in the file as (bands, W, H)
    is_matlab = is_matlab or matlab_class is not None or file.userblock_size >= HEADER_SIZE
    if dataset.ndim != 3 or dataset.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: {dataset.name} must be numbers with three dimensions; it is {dataset.dtype}, {dataset.shape}"
        )
    values, origin = read_dataset(dataset), _origin_of(file)
    lists: list[tuple[str, np.ndarray, str | None]] = [
        (f"attribute {name}", np.asarray(attributes[name]), None) for name in WAVELENGTH_NAMES if name in attributes
    ]
    groups = [group for group in (dataset.parent, file) if isinstance(group, h5py.Group)]
    for group in groups[: 1 if dataset.parent == file else 2]:
        for name in WAVELENGTH_NAMES:
            if isinstance(item := group.get(name), h5py.Dataset) and item != dataset and item.size:
                unit = _text(item.attrs.get("units", item.attrs.get("unit")))
                lists.append((str(item.name).strip("/"), read_dataset(item), unit))
    return StoredCube(
        values.T if is_matlab else values,
        path,
        axis=None if is_matlab else _labelled_axis(dataset),
        usual_axis=2 if is_matlab else None,
        lists=tuple(lists),
        fill=tuple(x for name in ("_FillValue", "missing_value") for x in _numbers(path, attributes, name)),
        scale=next(iter(_numbers(path, attributes, "scale_factor")), 1.0),
        offset=next(iter(_numbers(path, attributes, "add_offset")), 0.0),
        origin=origin,
        maps={} if origin is None else _read_maps(file, path, dataset.shape[1:]),
    )


def _read_maps(file: h5py.File, path: Path, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return the MAPS beside a reconstruction as (H, W). Raises DataError if one has another size or type."""
    maps = {}
    for name in MAPS:
        if isinstance(found := file.get(name), h5py.Dataset):
            if found.shape != shape or found.dtype not in MAP_CLASSES:
                raise DataError(f"{path}: {name} is not a map of {shape[1]} x {shape[0]} pixels; remove it")
            maps[name] = read_dataset(found).T
    return maps


def _text(value: Any) -> str | None:
    """Return an HDF5 attribute that is text."""
    value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else None


def _numbers(path: Path, attributes: h5py.AttributeManager, name: str) -> list[float]:
    """Return an attribute that is a number, as a list; an empty list if there is none."""
    if name not in attributes:
        return []
    value = np.asarray(attributes[name])
    if value.size != 1 or value.dtype.kind not in "fiu":
        raise DataError(f"{path}: the attribute {name} is not a number; apply it, and store the values themselves")
    return [float(value.item())]


def _labelled_axis(dataset: h5py.Dataset) -> int | None:
    """Return the axis of the bands that the labels of the dimensions state, None if they do not."""
    labels = [(dim.label or next(iter(dim.keys()), "") or "").lower() for dim in dataset.dims]
    axes = [
        i for i, label in enumerate(labels) if label.strip("s") in ("band", "wavelength", "channel", "lambda", "wl")
    ]
    return axes[0] if len(axes) == 1 else None


def _read_v5(file: BinaryIO, path: Path, names: tuple[str, ...], only_one: bool) -> StoredCube:
    import scipy.io

    contents = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(file)}
    wanted = [name for name in names if name in contents or name.split(".")[0] in contents]
    if not wanted and only_one:
        cubes = [name for name, (shape, kind) in contents.items() if len(shape) == 3 and kind in NUMERIC_CLASSES]
        wanted = cubes if len(cubes) == 1 else []
    if not wanted:
        raise _no_cube(path, names, contents)
    parents = wanted[0].split(".") if wanted[0] not in contents else [wanted[0]]
    file.seek(0)
    loaded = scipy.io.loadmat(file, variable_names=[parents[0], *WAVELENGTH_NAMES])
    value, siblings = loaded[parents[0]], [loaded]
    for field in parents[1:]:
        fields = value.dtype.names or ()
        if field not in fields or value.size != 1:
            raise _no_cube(path, names, (f"{parents[0]}.{field}" for field in fields))
        struct = value.reshape(-1)[0]
        siblings.insert(0, {name: struct[name] for name in fields})
        value = struct[field]
    kind = contents[parents[0]][1]
    if kind not in (*NUMERIC_CLASSES, "struct"):
        raise DataError(f"{path}: {wanted[0]} is of class {kind}; a cube of numbers is needed")
    if not isinstance(value, np.ndarray) or value.ndim != 3 or value.dtype.kind not in "fiu":
        what = f"it is {value.dtype}, {value.shape}" if isinstance(value, np.ndarray) else "it is not"
        raise DataError(f"{path}: {wanted[0]} must be numbers with three dimensions; {what}")
    lists = [
        (name, np.asarray(place[name]), None)
        for place in siblings
        for name in WAVELENGTH_NAMES
        if name in place and place[name] is not value
    ]
    return StoredCube(value, path, usual_axis=2, lists=tuple(lists))


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
    **variables: float | np.ndarray,
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
    **variables : float or (H, W)
        Further variables, under their names: a scalar as double, a map as single or uint8, the type that it has.

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
    arrays = ({} if wavelengths is None else {"bands": wavelengths}) | variables

    def fill(file: h5py.File) -> None:
        if origin is not None:
            file.attrs["origin"] = np.bytes_(origin.encode())
        cube_dataset = file["cube"]
        assert isinstance(cube_dataset, h5py.Dataset)
        _set_matlab_class(cube_dataset, "single")
        for name, value in arrays.items():
            matlab_class = MAP_CLASSES.get(getattr(value, "dtype", None), "double")
            value = np.float64(value) if matlab_class == "double" else value
            _set_matlab_class(file.create_dataset(name, data=np.atleast_2d(value).T), matlab_class)

    header = f"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: {time.ctime()} HDF5 schema 1.00 ."
    # text to byte 116, 8 bytes of subsystem offset, version 2.0, "IM" as a little-endian "MI"
    header = header.encode().ljust(116) + bytes(8) + b"\x00\x02IM"
    # MATLAB stores columns first: its H x W x bands lies in the file as (bands, W, H)
    write_hdf5(path, {"cube": cube.astype(np.float32, copy=False).T}, fill, header)


def _origin_of(file: h5py.File) -> str | None:
    return _text(file.attrs.get("origin"))


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
