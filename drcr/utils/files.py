"""Files: atomic writing, listing folders, and the error for a problem with a user's file."""

import io
import lzma
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
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
    EOFError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
)
"""Exceptions that libraries raise when they read truncated or corrupted files."""


class DataError(ValueError):
    """A problem with the user's input. The message names the file and says what to do."""


def plural(count: int, noun: str) -> str:
    """Return `1 scene`, `2 scenes`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def refuse_foreign(path: Path, is_ours: Callable[[Path], bool], what: str, remedy: str) -> None:
    """Raise DataError if a file or folder that is about to be written or removed exists and is not ours.

    `is_ours(path)` recognises what an earlier run wrote: `what`, such as "a reconstruction". `remedy` says what to
    do, such as "choose another --result_dir".
    """
    if path.exists() and not is_ours(path):
        raise DataError(f"{path}: exists and is not {what}; {remedy}")


def write_atomically(path: str | Path, write: Callable[[Any], None]) -> None:
    """Write a file so that `path` is always a complete file, the old one or the new one.

    `write` gets a binary file with a temporary name in the same folder; it is then flushed to the disk and renamed.
    On any failure (a full disk, Ctrl-C) the temporary file is removed. Raises OSError, with `path` as the name.
    """
    path = Path(path)
    # always the same name, so that the next run replaces what a killed process left
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
        with suppress(OSError):  # the first error is the one to report
            temporary.unlink(missing_ok=True)


def write_hdf5(
    path: str | Path, arrays: dict[str, np.ndarray], fill: Callable[[h5py.File], None], header: bytes = b""
) -> None:
    """Write an HDF5 file atomically: `arrays`, each contiguous in the file, and what `fill` adds to the open file.

    `header` becomes the user block. The HDF5 library writes only the structure, in memory, because it does not
    recover from a full disk. The values are plain writes, slice by slice, so that no array is copied as a whole.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512 if header else 0) as file:
        for name, array in arrays.items():
            file.create_dataset(name, array.shape, array.dtype, fill_time="never")
        fill(file)
        # one value allocates the array; the largest comes last, so that the part in memory ends where it begins
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
    """Return the files of a folder that have one of the suffixes (lower case), by name without suffix, sorted.

    Raises DataError if the folder is missing or contains none, if two files differ only in their suffix, or if one is
    a link to a missing file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {problem}; give a folder of {what} ({' '.join(suffixes)})")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if path.is_symlink() and not path.exists():
            raise DataError(f"{path}: is a link to a missing file; repair or remove it")
        if not path.is_file():
            continue
        if path.stem in found:
            raise DataError(f"{path}: {found[path.stem].name} has the same name; keep only one of the two")
        found[path.stem] = path
    if not found:
        raise DataError(f"{folder}: no {what} in this folder ({' '.join(suffixes)})")
    return found
