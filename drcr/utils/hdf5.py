"""HDF5 files: reading without following links into other files, writing that survives a full disk."""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import h5py.h5d
import h5py.h5g
import h5py.h5l
import h5py.h5o
import numpy as np

from drcr.utils.files import DataError, write_atomically


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading. Raises DataError if it would read other files: they need not be the user's."""
    with h5py.File(path, "r") as file:
        for _ in walk_hdf5(file, path):
            pass
        yield file


def walk_hdf5(file: h5py.File, path: Path) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield the name and data set of each in an HDF5 file. Raises DataError at what is stored in another file."""
    groups, seen = [(b"", file.id)], set()
    while groups:
        prefix, group = groups.pop()
        for name in group:
            full_name = (prefix + name).decode(errors="replace")
            link = group.links.get_info(name).type
            if link not in (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT):
                raise DataError(f"{path}: {full_name} is a link into another file, which is not followed; copy it in")
            if link == h5py.h5l.TYPE_SOFT:  # what it leads to in this file is visited under its own name
                continue
            found = h5py.h5o.open(group, name)
            address = h5py.h5o.get_info(found).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(found, h5py.h5g.GroupID):
                groups.append((prefix + name + b"/", found))
            elif isinstance(found, h5py.h5d.DatasetID):
                layout = found.get_create_plist()
                if layout.get_external_count() or layout.get_layout() == h5py.h5d.VIRTUAL:
                    raise DataError(f"{path}: {full_name} is stored in other files, which are not read; copy it in")
                yield full_name, h5py.Dataset(found)


def read_dataset(dataset: h5py.Dataset) -> np.ndarray:
    """Return an HDF5 data set. Raises ValueError if part of it was never written: HDF5 would invent that part."""
    if dataset.chunks:
        written = dataset.id.get_num_chunks()
        whole = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    else:
        written, whole = dataset.id.get_storage_size(), dataset.nbytes
    if written < whole:
        raise ValueError("part of the values was never written")
    return np.asarray(dataset)


def write_hdf5(
    path: str | Path, arrays: dict[str, np.ndarray], fill: Callable[[h5py.File], None], header: bytes = b""
) -> None:
    """Write an HDF5 file atomically: `arrays`, each contiguous in the file, and what `fill` adds to the open file.

    `header` becomes the user block. The HDF5 library writes only the structure, in memory, because it does not
    recover from a full disk. The values are plain writes, slice by slice, so that no array is copied as a whole.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512 if header else 0) as file:
        datasets = {
            name: file.create_dataset(name, array.shape, array.dtype, fill_time="never")
            for name, array in arrays.items()
        }
        fill(file)
        # one value allocates the array; the largest comes last, so that the part in memory ends where it begins
        for name in sorted(arrays, key=lambda name: arrays[name].nbytes):
            datasets[name][(0,) * arrays[name].ndim] = 0
        offsets = {name: dataset.id.get_offset() for name, dataset in datasets.items()}
    if header:
        buffer.seek(0)
        buffer.write(header)

    def write(file: Any) -> None:
        file.write(buffer.getbuffer())
        for name, array in arrays.items():
            file.seek(offsets[name])
            for part in array:
                file.write(np.ascontiguousarray(part))

    write_atomically(path, write)
