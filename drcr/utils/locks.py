"""Output folders that are reserved for a command while it runs."""

import fcntl
import os
import shlex
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from drcr.utils.files import DataError

LOCK = ".drcr.lock"
_LOCK_MARK = b"DRCR Net, in use by "


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
    try:
        # unlike that of flock, this lock is not inherited by forked worker processes, which may outlive this one
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    return True
