"""What protects app.py's page: from other web sites, from files that claim to be huge, from leftovers on the disk."""

import errno
import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import h5py
import numpy as np
import scipy.io
import tifffile
from PIL import Image
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from drcr.images import RAW_SUFFIXES
from drcr.utils.files import DataError
from drcr.utils.hdf5 import open_hdf5, walk_hdf5
from drcr.utils.locks import LOCK, lock_folder

MAX_PIXELS = 64_000_000
"""Of an image: above what cameras of today make, and 1 GB in memory while it is decoded."""
MAX_BYTES = 3_000_000_000
"""Of a cube as its file has it, uncompressed."""
PREFIX = "drcr-app-"


def only_own(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that refuses requests of other sites' pages: their origin is not this server.

    Names that are not this computer's (DNS rebinding) are refused before, by Starlette's TrustedHostMiddleware.
    """

    async def checked(request: Request) -> Response:
        origin, host = request.headers.get("origin"), request.headers.get("host", "")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return PlainTextResponse("This page takes requests only from itself, not from other sites.\n", 403)
        return await answer(request)

    return checked


def is_full(error: OSError) -> bool:
    """Return whether an error says that a file could not grow."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def temporary_home() -> Iterator[Path]:
    """Provide a temporary folder, removed in the end; those that killed processes of this user left are removed, too.

    That of a living process is locked.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, DataError):
            if (left / LOCK).is_file() and not left.is_symlink() and left.stat().st_uid == os.getuid():
                with lock_folder(left):
                    shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder, lock_folder(Path(folder)):
        yield Path(folder)


def check_pixels(path: Path) -> None:
    """Raise DataError if an image has more than MAX_PIXELS, according to its header; its pixels are not decoded."""
    if path.suffix.lower() in RAW_SUFFIXES:
        return  # of a sensor's size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with suppress(ImportError):
                import pillow_heif

                pillow_heif.register_heif_opener()
            with Image.open(path) as image:
                fits = image.height * image.width <= MAX_PIXELS
    except Image.DecompressionBombError:
        fits = False
    except Exception:  # each format has its own; the reader says what is wrong
        fits = path.suffix.lower() not in (".tif", ".tiff") or count_planes(path)[1] <= MAX_PIXELS
    if not fits:
        raise DataError(
            f"{path}: more than {MAX_PIXELS / 1e6:g} million pixels, too many for this page; scale it down, or use "
            "test.py"
        )


def count_planes(path: Path) -> tuple[int, int]:
    """Return how many values a pixel of a TIFF file has, over all its pages, and the number of its pixels."""
    try:
        with tifffile.TiffFile(path) as file:
            page, shape = file.pages.first, file.series[0].shape
            pixels = page.imagelength * page.imagewidth
            return int(np.prod(shape, dtype=float) / max(pixels, 1)), pixels
    except Exception:  # of tifffile; the reader says what is wrong
        return 0, 0


def check_claim(path: Path) -> None:
    """Raise DataError if an array of a cube's file has more than MAX_BYTES, according to its header.

    A compressed array that was never written takes no place in the file, but all of its size in memory.
    """
    try:
        claims = _claims(path)
    except Exception:  # each library has its own; the reader says what is wrong
        return
    for name, n_bytes in claims.items():
        if n_bytes > MAX_BYTES:
            raise DataError(
                f"{path}: {name} has {n_bytes / 1e9:.1f} GB, more than the {MAX_BYTES / 1e9:g} GB that this page "
                "takes; crop the scene"
            )


def _claims(path: Path) -> dict[str, float]:
    """Return the size in bytes, uncompressed, of each array of a cube's file."""
    if h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            return {
                name: np.prod(item.shape or (), dtype=float) * item.dtype.itemsize
                for name, item in walk_hdf5(file, path)
            }
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            return {entry.filename: entry.file_size for entry in file.infolist()}
    if path.suffix.lower() in (".tif", ".tiff"):
        planes, pixels = count_planes(path)
        return {"its cube": 4.0 * planes * pixels}
    return {name: 8 * np.prod(shape, dtype=float) for name, shape, _ in scipy.io.whosmat(path, appendmat=False)}
