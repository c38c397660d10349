"""Files: atomic writing, listing folders, and the error for a problem with a user's file."""

import errno
import io
import lzma
import math
import os
import re
import secrets
import shlex
import socket
import stat
import struct
import sys
import tokenize
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import h5py.h5d
import h5py.h5g
import h5py.h5l
import h5py.h5o
import numpy as np

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None

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
"""Exceptions that libraries raise when they read truncated or corrupted files."""


class DataError(ValueError):
    """A problem with the user's input. The message names the file and says what to do."""


class BrokenFile(DataError):
    """A truncated or corrupted file: another copy would help."""


def unreadable(path: Path, error: Exception, what: str) -> DataError:
    """Return the error to raise for a file that a library could not read. It should be `what`, with an article.

    Says what is wrong where the library knows: not every failure means that the file is broken.
    """
    text = str(error).lower()
    if is_out_of_memory(error):
        return DataError(f"{path}: does not fit into memory")
    if "unable to lock file" in text or isinstance(error, BlockingIOError):
        return DataError(f"{path}: is in use by another program; close it there")
    compression = ("filter", "plugin", "imagecodecs", "compression")
    if isinstance(error, NotImplementedError) or any(word in text for word in compression):
        return DataError(
            f"{path}: uses a compression that cannot be read here; save it without, or with deflate (gzip)"
        )
    if "encrypted" in text:
        return DataError(f"{path}: is encrypted; save it without a password")
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        return DataError(f"{path}: {os.strerror(error.errno)}")
    return BrokenFile(f"{path}: truncated, corrupted or not {what}; copy or download it again")


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


def read_text(path: Path, what: str, limit: int = 10_000_000) -> str:
    """Return a text file, in UTF-8 or, with a byte order mark, UTF-16. `what` it is goes into the error."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; give {what}")
    if path.stat().st_size > limit:
        raise DataError(f"{path}: is too large for {what}")
    data = path.read_bytes()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text; save it as UTF-8") from error


def strip_suffix(files: dict[str, Path], suffix: str, folder: Path) -> dict[str, Path]:
    """Return the files whose name ends in `suffix`, by the name before it. Raises DataError if there are none."""
    found = {name.removesuffix(suffix): path for name, path in files.items() if name.endswith(suffix)}
    if not found:
        raise DataError(
            f"{folder}: contains no file whose name ends in {suffix}; it has {', '.join(list(files)[:3])}"
        )
    return found


def print_other_files(*used: Iterable[Path]) -> None:
    """Print what `describe_other_files` says about the folder of each group of files."""
    for group in map(list, used):
        if group and (line := describe_other_files(group[0].parent, group)) is not None:
            print(line)


def describe_other_files(folder: Path, taken: Iterable[Path]) -> str | None:
    """Return a line on what a folder contains besides the files `taken` from it, None if there is nothing."""
    taken = set(taken)
    data = {path.with_suffix(".img") for path in taken if path.suffix == ".hdr"}  # of ENVI pairs
    others = [path for path in sorted(folder.iterdir()) if path not in taken | data and not path.name.startswith(".")]
    if not others:
        return None
    names = [path.name + "/" * path.is_dir() for path in others]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{folder}: used {plural(len(taken), 'file')}, skipped {len(others)}: {', '.join(names[:5])}{more}"


def plural(count: int, noun: str) -> str:
    """Return `1 scene`, `2 scenes`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def refuse_foreign(path: Path, is_ours: Callable[[Path], bool], what: str, remedy: str) -> None:
    """Raise DataError if a file or folder that is about to be written or removed exists and is not ours.

    Pipes and devices never are: to read them could take for ever.

    `is_ours(path)` recognises what an earlier run wrote: `what`, such as "a reconstruction". `remedy` says what to
    do, such as "choose another --result_dir".
    """
    if path.exists() and not ((path.is_file() or path.is_dir()) and is_ours(path)):
        raise DataError(f"{path}: exists and is not {what}; {remedy}")


def write_atomically(path: str | Path, write: Callable[[Any], None]) -> None:
    """Write a file so that `path` is always a complete file, the old one or the new one.

    `write` gets a binary file with a temporary name in the same folder; it is then flushed to the disk and renamed.
    On any failure (a full disk, Ctrl-C) the temporary file is removed; the next write in the folder removes those of
    killed processes. A link is replaced, not followed. Raises OSError, with `path` as the name.
    """
    path = Path(path)
    try:
        _remove_stale(path.parent.absolute())
        temporary, file = _create_temporary(path.parent)
        try:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            for clean_up in (temporary.unlink, file.close):
                with suppress(OSError):  # the first error is the one to report
                    clean_up()
            raise
        file.close()
    except OSError as error:
        # the error names the file that the user knows, not the temporary one
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


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


def list_files(folder: str | Path, suffixes: tuple[str, ...], what: str) -> dict[str, Path]:
    """Return the files of a folder that have one of the suffixes (lower case), by name without suffix, sorted.

    Raises DataError if the folder is missing or contains none, if two files differ only in their suffix, or if one is
    a link to a missing file or has a name that `check_name` refuses.
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {problem}; give a folder of {what} ({' '.join(suffixes)})")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        check_name(path)
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


# ---- temporary files, locks

_TEMPORARY = re.compile(r"\.drcr-[0-9a-f]{16}\.tmp")
LOCK = ".drcr.lock"
_LOCK_MARK = b"DRCR Net, in use by "


def _create_temporary(folder: Path) -> tuple[Path, BinaryIO]:
    """Return the path of a new, locked file, and the file, open for writing."""
    while True:
        path = folder / f".drcr-{secrets.token_hex(8)}.tmp"
        file = open(path, "xb")  # noqa: SIM115, the caller closes it; x: never a file or link that is there already
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()  # another process removed it before it was locked


@cache  # once per process and folder: listing a large folder for each file would take too long
def _remove_stale(folder: Path) -> None:
    """Remove the temporary files that killed processes left: those that no process has locked."""
    with suppress(OSError):
        for path in [path for path in folder.iterdir() if _TEMPORARY.fullmatch(path.name)]:
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    if fcntl is not None and stat.S_ISREG(os.fstat(descriptor).st_mode):
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        path.unlink()
                finally:
                    os.close(descriptor)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Reserve an output folder for this process within a `with` block.

    A missing folder is made, and removed again if nothing is written to it. Raises DataError, with the other command,
    if another process has reserved the folder.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        try:
            descriptor = _lock(folder)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(folder)) from error
        try:
            yield
        finally:
            with suppress(OSError):
                (folder / LOCK).unlink()
            os.close(descriptor)
    finally:
        with suppress(OSError):  # ends at the first that is not empty
            for parent in made:
                parent.rmdir()


def _lock(folder: Path) -> int:
    """Create and lock a folder's lock file, or take over that of a killed process; return its descriptor."""
    path, locked = folder / LOCK, False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            holder = os.read(descriptor, 4096) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b"not a file"
            if holder and not holder.startswith(_LOCK_MARK):
                raise DataError(f"{path}: exists and is not a lock; move it, or choose another folder")
            if not _try_lock(descriptor):
                who = holder.removeprefix(_LOCK_MARK).decode(errors="replace") or "another process"
                raise DataError(f"{folder}: in use by {who}; wait until it has ended, or choose another folder")
            if os.fstat(descriptor).st_nlink:
                command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:1000]
                text = f"process {os.getpid()} on {socket.gethostname()}: {command}"
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, _LOCK_MARK + text.encode(errors="backslashreplace"), 0)
                locked = True
                return descriptor
            # the process that held it removed it, after it was opened here: once more
        finally:
            if not locked:
                os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Lock a file for this process; return False if another process has locked it."""
    if fcntl is None:
        return True
    try:
        # unlike that of flock, this lock is not inherited by forked worker processes, which may outlive this one
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    return True


# ---- names and errors

_INVISIBLE = (
    "Cc",
    "Cs",
    "Zl",
    "Zp",
)  # categories of Unicode: control characters, bytes that are not UTF-8, new lines
_DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def printable(text: str, keep: str = "") -> str:
    """Return a text with control characters, except those in `keep`, and bytes that are not UTF-8 as escapes.

    A terminal obeys control characters: a file's name could clear the screen, or show another name.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode()
        if (unicodedata.category(char) in _INVISIBLE or char in _DIRECTIONS) and char not in keep
        else char
        for char in text
    )


def check_name(path: Path) -> None:
    """Raise DataError if a file's name is not UTF-8, or has control characters: tables and pages cannot take it."""
    if printable(path.name) != path.name:
        raise DataError(f"{printable(str(path))}: its name is not UTF-8, or has control characters; rename it")


def csv_text(text: str) -> str:
    """Return a text for a cell of a CSV file that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception, of Python or a library, says that memory ran out."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error).lower()
    return any(words in text for words in _OUT_OF_MEMORY)


_OUT_OF_MEMORY = (
    "not enough memory",
    "out of memory",
    "allocate memory",
    "memory allocation failed",
    "insufficient memory",
    "bad_alloc",
    "can't start new thread",
    "could not create a primitive",  # all that oneDNN says
    "could not execute a primitive",
)
