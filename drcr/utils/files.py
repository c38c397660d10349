"""Files: atomic writing, listing folders, and the error for what is wrong with a user's file."""

import io
import lzma
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

BROKEN = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    MemoryError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
)
"""What the libraries that read data raise on files that are cut off or garbled."""


class DataError(ValueError):
    """Something about the user's input is wrong; the message names the file and says what to do."""


def refuse_foreign(path: Path, is_ours: Callable[[Path], bool], what: str, remedy: str) -> None:
    """Raise DataError if a file or folder that is about to be written or removed exists and is not ours.

    The one guard of this project: `is_ours(path)` recognises what an earlier run wrote, such as `what` ("a
    reconstruction"); `remedy` says what else to do ("choose another --result_dir").
    """
    if path.exists() and not is_ours(path):
        raise DataError(f"{path}: exists and is not {what}; {remedy}")


def write_atomically(path: str | Path, write: Callable[[Any], None]) -> None:
    """Write a file so that `path` is either the old file, complete, or the new one, complete.

    `write` gets an open binary file with a temporary name in the same folder; it is flushed to the disk and
    renamed. On any failure (a full disk, Ctrl-C) the temporary file is removed and the error goes on.
    Raises OSError as the file system reports it.
    """
    path = Path(path)
    # the same name each time: what a killed process leaves is replaced by the next run
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        # the error names the file that the user knows, not the temporary one
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_hdf5(
    path: str | Path, arrays: dict[str, np.ndarray], fill: Callable[[h5py.File], None], header: bytes = b""
) -> None:
    """Write an HDF5 file atomically: `arrays`, each contiguous in the file, and what `fill` adds to the open file.

    `header` goes before it as a user block. HDF5 makes only the frame, in memory, because it does not recover from a
    disk that fills up; the arrays' values are plain writes, slice by slice, so that no copy of a whole one is made.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512 if header else 0) as file:
        for name, array in arrays.items():
            file.create_dataset(name, array.shape, array.dtype, fill_time="never")
        fill(file)
        # the first value makes room for all; the largest comes last, so that what is in memory ends where it begins
        for name in sorted(arrays, key=lambda name: arrays[name].nbytes):
            file[name][(0,) * arrays[name].ndim] = 0
        offsets = {name: file[name].id.get_offset() for name in arrays}
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


def list_files(folder: str | Path, suffixes: tuple[str, ...], what: str) -> dict[str, Path]:
    """Return the files of a folder with one of the suffixes (lower case), by name without suffix, sorted.

    Raises DataError if the folder is missing or has none, or if two files differ only in their suffix.
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = "a file" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {problem}; a folder of {what} ({' '.join(suffixes)}) is needed")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith(".") or not path.is_file():
            continue
        if path.stem in found:
            raise DataError(f"{path}: {found[path.stem].name} has the same name; keep only one of the two")
        found[path.stem] = path
    if not found:
        raise DataError(f"{folder}: no {what} in this folder ({' '.join(suffixes)})")
    return found
