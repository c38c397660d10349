"""Files: atomic writing, listing folders, and the error for a problem with a user's file."""

import csv
import errno
import fcntl
import io
import lzma
import os
import re
import secrets
import stat
import struct
import tokenize
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

BROKEN = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    NameError,
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
    names = and_more(path.name + "/" * path.is_dir() for path in others)
    return f"{folder}: used {plural(len(taken), 'file')}, skipped {len(others)}: {names}"


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


def check_folder_of(path: Path) -> None:
    """Raise DataError if the folder of a file that a command writes at its end is missing: before it computes."""
    if not path.parent.is_dir():
        raise DataError(f"{path}: no such folder {path.parent}; make it, or choose another")


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


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_csv_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def begins(path: Path, *starts: str) -> bool:
    """Return whether a file begins with one of these texts."""
    return path.is_file() and path.read_bytes().startswith(tuple(start.encode() for start in starts))


def and_more(names: Iterable[str], most: int = 5) -> str:
    """Return the first names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _stop(kind: str, text: str) -> None:
    raise DataError(text)


def list_files(
    folder: str | Path, suffixes: tuple[str, ...], what: str, report: Callable[[str, str], None] = _stop
) -> dict[str, Path]:
    """Return the files of a folder that have one of the suffixes (lower case), by `name_of`, sorted.

    The folder is missing or contains none, two files have the same name, or one is a link to a missing file or has a
    name that `check_name` refuses: `report` gets a kind of problem and a line on it. By default it raises DataError.
    """
    folder, found = Path(folder), {}
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "no such folder"
        report("no folder", f"{folder}: {problem}; give a folder of {what} ({' '.join(suffixes)})")
        return {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if printable(path.name) != path.name:
            report("name", _bad_name(path))
        elif path.is_symlink() and not path.exists():
            report("dangling link", f"{path}: is a link to a missing file; repair or remove it")
        elif path.is_file() and found.setdefault(name_of(path), path) != path:
            other = found[name_of(path)].name
            report("two files of one name", f"{path}: {other} has the same name; keep only one of the two")
    if not found:
        report("no files", f"{folder}: no {what} in this folder ({' '.join(suffixes)})")
    return found


def name_of(path: Path) -> str:
    """Return a file's name without suffix; an accented letter as one character, which a Mac may store as two."""
    return unicodedata.normalize("NFC", path.stem)


# ---- temporary files

_TEMPORARY = re.compile(r"\.drcr-[0-9a-f]{16}\.tmp")


def _create_temporary(folder: Path) -> tuple[Path, BinaryIO]:
    """Return the path of a new, locked file, and the file, open for writing."""
    while True:
        path = folder / f".drcr-{secrets.token_hex(8)}.tmp"
        file = open(path, "xb")  # noqa: SIM115, the caller closes it; x: never a file or link that is there already
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
                    if stat.S_ISREG(os.fstat(descriptor).st_mode):
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        path.unlink()
                finally:
                    os.close(descriptor)


# ---- names and errors

_INVISIBLE = ("Cc", "Cs", "Zl", "Zp")
"""Categories of Unicode: control characters, bytes that are not UTF-8, new lines."""
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
        raise DataError(_bad_name(path))


def _bad_name(path: Path) -> str:
    return f"{printable(str(path))}: its name is not UTF-8, or has control characters; rename it"


def _csv_cell(text: str) -> str:
    """Return a text, or a number as text, for a cell of a CSV file that no spreadsheet takes for a formula."""
    number = re.fullmatch(r"[+-]?([\d.]+(e[+-]?\d+)?|inf|nan)", text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) and not number else text


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
