"""Hyperspectral cubes in MATLAB's .mat files, and in HDF5 files of other programs."""

import os
import re
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import h5py
import numpy as np

from drcr.cube import Cube, StoredCube, settle, wavelengths_in_nm
from drcr.formats.maps import MAPS
from drcr.utils.files import BROKEN, DataError, printable, unreadable
from drcr.utils.hdf5 import read_dataset, walk_hdf5, write_hdf5

CUBE_NAMES = ("cube", "rad")
LIST_NAME = re.compile(
    r"(?:cent(?:er|re)_?)?(?:wave_?lengths?|wvls?|wls?|lambdas?|bands?|band_?cent(?:er|re)s?)(?:_?(nm|um))?",
    re.IGNORECASE,
)
"""What a list of wavelengths is called, perhaps with its unit: `bands`, `Wavelength`, as MATLAB's toolbox has it."""
UNIT_NAME = re.compile(r"wave_?lengths?_?units?", re.IGNORECASE)
MAX_LIST = 100_000
"""Entries of a MATLAB cell that may be a list of wavelengths."""
NUMERIC_CLASSES = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
MAP_CLASSES = {np.dtype(np.float32): "single", np.dtype(np.uint8): "uint8"}
"""MATLAB's classes of the maps that stand beside a cube."""
HEADER_SIZE = 512
"""Bytes of the header that MATLAB writes before the HDF5 contents of a v7.3 file."""


def load_cube(path: str | Path, names: tuple[str, ...] = CUBE_NAMES) -> Cube:
    """Read a .mat file (v5, v7 or v7.3): its cube, the wavelengths, and where it comes from. The file is opened once.

    The cube is the first of the variables `names` that the file has. Values are float32 (H, W, bands), wavelengths
    rising; for v7.3 usually a view in MATLAB's memory order. Raises DataError if the file is missing or broken, has
    no such variable with three dimensions, or wavelengths that make no sense.
    """
    cube = settle(read_stored(Path(path), names))
    return replace(cube, values=cube.values.astype(np.float32, copy=False))


def read_stored(path: Path, names: tuple[str, ...], only_one: bool = False, is_matlab: bool = False) -> StoredCube:
    """Read a .mat or HDF5 file as it is stored: its cube, and what the file says about it.

    The cube is the first of `names` that the file has; `hsi.Data` is a field of a struct, or in a group. With
    `only_one`, the only variable with three dimensions will do. `is_matlab`: an HDF5 file without MATLAB's marks is
    known to have MATLAB's order of axes all the same.

    Raises DataError if the file is missing or broken, reads other files, or has no such variable.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                return _read_hdf5(file, path, names, only_one, is_matlab)
        import scipy.io  # takes a tenth of a second, and only old files need it

        try:
            with open(path, "rb") as file:
                _try_apart(lambda: _read_v5(file, path, names, only_one))
                file.seek(0)
                return _read_v5(file, path, names, only_one)
        except scipy.io.matlab.MatReadError as error:
            raise ValueError(str(error)) from error
    except DataError:
        raise
    except BROKEN as error:
        raise unreadable(path, error, "a .mat or HDF5 file") from error


def _try_apart(read: Callable[[], object]) -> None:
    """Try `read` in a process of its own. SciPy's reader crashes at some damaged files, and all would end with it.

    What it raises is not passed on. Raises ValueError if it crashes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other threads, which the new process does not have or need
        child = os.fork()
        if not child:
            try:
                read()
            finally:
                os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        raise MemoryError if os.WTERMSIG(status) == signal.SIGKILL else ValueError("the reader crashed")


def list_names(names: Iterable[str]) -> str:
    """Return the names of a file's variables for an error: as many as fit into a line, printable."""
    text = printable(", ".join(islice(sorted(names), 20)))
    return f"{text[:300]} ..." if len(text) > 300 else text or "none"


def _no_cube(path: Path, names: tuple[str, ...], others: Iterable[str]) -> DataError:
    found = list_names(others)
    return DataError(
        f"{path}: no variable named {' or '.join(names)}; it has {found}; give --variable NAME to "
        "Dataset/import_cubes.py"
    )


def find_lists(
    contents: Mapping[str, tuple[Any, str | None]], cube: str
) -> tuple[tuple[str, np.ndarray, str | None], ...]:
    """Return what of a file's contents may be the wavelengths of its cube, as a StoredCube lists them.

    `contents`: values and unit, if one is stated, by name; `hsi.Wavelength` is in `hsi`. The lists beside the cube
    and around it come first, the nearest at once; lists elsewhere, such as in another struct, follow if these say
    nothing.
    """
    near: list[tuple[str, np.ndarray, str | None]] = []
    far = near.copy()
    units = {name.rpartition(".")[0]: _text(x[0]) for name, x in contents.items() if UNIT_NAME.fullmatch(_last(name))}
    for name, (values, unit) in contents.items():
        place, match = name.rpartition(".")[0], LIST_NAME.fullmatch(_last(name))
        if match and name != cube:
            is_near = not place or f"{cube}.".startswith(f"{place}.")
            (near if is_near else far).append((name, _numbers_of_cell(values), unit or match[1] or units.get(place)))
    near.sort(key=lambda entry: -entry[0].count("."))
    return tuple(near if any(_says_something(*entry[1:]) for entry in near) else near + far)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def may_be_list(name: str) -> bool:
    """Return whether a variable's name is that of a list of wavelengths, or of their unit."""
    return bool(LIST_NAME.fullmatch(_last(name)) or UNIT_NAME.fullmatch(_last(name)))


def _says_something(values: np.ndarray, unit: str | None) -> bool:
    try:
        return values.size > 1 and wavelengths_in_nm(values, unit) is not None
    except ValueError:
        return True


def _numbers_of_cell(values: Any) -> np.ndarray:
    """Return a cell of numbers, or of texts such as `450 nm`, as numbers; anything else as it is."""
    values = np.asarray(values)
    if values.dtype == object and values.size:
        parts = [np.ravel(part) for part in values.ravel()]
        if all(part.dtype.kind in "fiu" for part in parts) or all(part.dtype.kind in "SU" for part in parts):
            values = np.concatenate(parts)
    texts = [_text(text) for text in values.ravel()] if values.dtype.kind in "OSU" else []
    found = [re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:nm)?", (text or "").strip()) for text in texts]
    return np.array([float(match[1]) for match in found if match]) if found and all(found) else values


def _no_object(path: Path, name: str) -> DataError:
    return DataError(
        f"{path}: {name} is a MATLAB object, whose contents only MATLAB knows; save the cube and its wavelengths as "
        f"variables: cube = {name}.DataCube; bands = {name}.Wavelength; save('new.mat', 'cube', 'bands', '-v7.3')"
    )


def _read_hdf5(file: h5py.File, path: Path, names: tuple[str, ...], only_one: bool, is_matlab: bool) -> StoredCube:
    def find(name: str) -> h5py.Dataset | None:
        for key in (name, name.replace(".", "/")):
            if isinstance(found := file.get(key), h5py.Dataset):
                return found
        return None

    contents = dict(walk_hdf5(file, path))
    dataset = next((found for name in names if (found := find(name)) is not None), None)
    if dataset is None:
        cubes = [item for item in contents.values() if item.ndim == 3 and item.dtype.kind in "fiu"]
        if objects := [name for name, item in contents.items() if "MATLAB_object_decode" in item.attrs]:
            raise _no_object(path, objects[0])
        if not only_one or len(cubes) != 1:
            raise _no_cube(path, names, (name.replace("/", ".") for name in contents))
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
    return StoredCube(
        values.T if is_matlab else values,
        path,
        axis=None if is_matlab else _labelled_axis(dataset),
        usual_axis=2 if is_matlab else None,
        lists=find_lists(_hdf5_lists(file, contents, dataset), str(dataset.name).strip("/").replace("/", ".")),
        fill=tuple(x for name in ("_FillValue", "missing_value") for x in _numbers(path, attributes, name)),
        scale=next(iter(_numbers(path, attributes, "scale_factor")), 1.0),
        offset=next(iter(_numbers(path, attributes, "add_offset")), 0.0),
        origin=origin,
        maps={} if origin is None else _read_maps(file, path, dataset.shape[1:]),
    )


def _hdf5_lists(
    file: h5py.File, contents: Mapping[str, h5py.Dataset], cube: h5py.Dataset
) -> dict[str, tuple[Any, str | None]]:
    """Return the data sets and attributes of an HDF5 file that `find_lists` may want, with their units."""
    found: dict[str, tuple[Any, str | None]] = {}
    for name, item in contents.items():
        if name.startswith("#") or item == cube or not item.size:  # what MATLAB's cells and objects hold, unnamed
            continue
        if may_be_list(name.replace("/", ".")):
            unit = _text(item.attrs.get("units", item.attrs.get("unit")))
            found[name.replace("/", ".")] = _read_item(file, item), unit
    for place in {"", *contents, *(str(parent) for name in contents for parent in PurePosixPath(name).parents[:-1])}:
        for name, value in (file[place] if place else file).attrs.items():
            if may_be_list(name):
                found[f"{place.replace('/', '.')}.{name}".strip(".")] = value, None
    return found


def _read_item(file: h5py.File, item: h5py.Dataset) -> Any:
    """Return the values of a data set: of MATLAB's char the text, of a cell the numbers that it refers to."""
    if _text(item.attrs.get("MATLAB_class")) == "char":
        return bytes(read_dataset(item).ravel().astype("u1")).decode(errors="replace")
    values = read_dataset(item)
    if h5py.check_ref_dtype(item.dtype) is h5py.Reference and values.size <= MAX_LIST:
        parts = [found for reference in values.ravel() if isinstance(found := file[reference], h5py.Dataset)]
        if parts and sum(part.nbytes for part in parts) <= 8 * MAX_LIST:
            return np.concatenate([np.ravel(read_dataset(part)) for part in parts])
    return values


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

    known = scipy.io.whosmat(file)
    kinds = {name: kind for name, _, kind in known}
    wanted = next((name for name in names if name.split(".")[0] in kinds), None)
    if wanted is None and not only_one:
        raise _no_cube(path, names, kinds)
    if wanted is None:
        first = [name for name, shape, kind in known if len(shape) == 3 and kind in NUMERIC_CLASSES]
    else:
        first = [wanted.split(".")[0]]
        if (kind := kinds[first[0]]) not in (*NUMERIC_CLASSES, "struct", "opaque"):
            raise DataError(f"{path}: {wanted} is of class {kind}; a cube of numbers is needed")
    others = [name for name, kind in kinds.items() if kind in ("struct", "cell") or may_be_list(name)]
    file.seek(0)
    contents = dict(_walk_v5(scipy.io.loadmat(file, variable_names=[*first, *others])))
    cubes = [name for name, x in contents.items() if x.ndim == 3 and x.dtype.kind in "fiu"]
    found = cubes if wanted is None else [wanted] if wanted in contents else []
    if len(found) != 1:
        if objects := [name for name, kind in kinds.items() if kind == "opaque"]:
            raise _no_object(path, objects[0])
        raise _no_cube(path, names, kinds.keys() | contents.keys())
    name, value = found[0], contents[found[0]]
    if name not in cubes:
        raise DataError(f"{path}: {name} must be numbers with three dimensions; it is {value.dtype}, {value.shape}")
    lists = find_lists({name: (values, None) for name, values in contents.items()}, name)
    return StoredCube(value, path, usual_axis=2, lists=lists)


def _walk_v5(loaded: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and value of all variables of a v5 file, and of the fields of its structs."""
    places = [(name, value) for name, value in loaded.items() if not name.startswith("__")]
    while places:
        name, value = places.pop(0)
        if isinstance(value, np.ndarray) and value.dtype.names and value.size == 1:
            places += [(f"{name}.{field}", value.reshape(-1)[0][field]) for field in value.dtype.names]
        elif isinstance(value, np.ndarray):
            yield name, value


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
            file.attrs["origin"] = np.bytes_(printable(origin).encode())
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
