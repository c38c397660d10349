"""What protects app.py's page: from other web sites, from files that claim to be huge, from leftovers on the disk."""

import errno
import fcntl
import ipaddress
import os
import shutil
import socket
import struct
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h5py
import numpy as np
import scipy.io
import tifffile
from PIL import Image

from drcr.images import RAW_SUFFIXES
from drcr.utils.files import DataError, plural
from drcr.utils.hdf5 import open_hdf5, walk_hdf5

MAX_PIXELS = 64_000_000
"""Of an uploaded image: above what cameras of today make, and 1 GB in memory while it is decoded."""
PREFIX, LOCK = "drcr-app-", "lock"


class SameSite:
    """ASGI middleware that refuses requests which other web sites make through a visitor's browser.

    A site can point its own name at this computer (DNS rebinding): such a request carries that name as Host. And a
    page of another site can send files here: its request carries that site as Origin. An address of digits as Host
    cannot be rebound, so it is accepted.

    Parameters
    ----------
    app
        The ASGI application.
    hosts
        Names by which browsers may reach it, besides localhost and this computer's own.
    """

    def __init__(self, app: Any, hosts: Sequence[str]) -> None:  # noqa: D107
        self.app = app
        self.hosts = {name.lower() for name in ("localhost", socket.gethostname(), *hosts)}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self.refusal(headers.get("host", ""), headers.get("origin"))
        if refusal is None:
            try:
                await self.app(scope, receive, send)
            except OSError as error:
                if not (is_full(error) and scope["path"].endswith("/upload")):
                    raise
                await _answer(send, 507, "The disk is full.\n")
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _answer(send, 403, refusal)

    def refusal(self, host: str, origin: str | None) -> str | None:
        """Return why a request with these headers is refused, None if it is not."""
        try:
            name, source = urlsplit(f"//{host}").hostname or "", urlsplit(origin or f"//{host}").netloc
        except ValueError:
            return "The address of this request makes no sense.\n"
        if name not in self.hosts and not _is_address(name):
            return f"{name} is not a name of this computer; start app.py with --allow_host {name} if it should be.\n"
        if source.lower() != host.lower():
            return "This page takes requests only from itself, not from other sites.\n"
        return None


async def _answer(send: Any, status: int, words: str) -> None:
    kind = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": kind})
    await send({"type": "http.response.body", "body": words.encode()})


def is_full(error: OSError) -> bool:
    """Return whether an error says that a file could not grow."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@contextmanager
def temporary_home() -> Iterator[Path]:
    """Provide a temporary folder, removed in the end; those that killed processes of this user left are removed, too.

    A folder belongs to a living process as long as the lock file in it is locked.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if left.is_symlink() or left.stat().st_uid != os.getuid():
                continue
            with open(left / LOCK) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder, open(Path(folder, LOCK), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(folder)


def check_pixels(path: Path) -> None:
    """Raise DataError if an image has more than MAX_PIXELS, according to its header; its pixels are not decoded."""
    with open(path, "rb") as file:
        start = file.read(16)
    try:
        height, width = _image_size(path, start)
        fits = height * width <= MAX_PIXELS
    except Image.DecompressionBombError:
        fits = False
    except Exception as error:  # each library has its own
        if start[4:8] == b"ftyp" or path.suffix.lower() in RAW_SUFFIXES:
            return  # its library may be missing: the reader says so
        raise DataError(f"{path}: cannot be decoded as an image; convert it to PNG, TIFF or JPEG") from error
    if not fits:
        raise DataError(
            f"{path}: more than {MAX_PIXELS / 1e6:g} million pixels, too many for this page; scale it down, or use "
            "test.py"
        )


def _image_size(path: Path, start: bytes) -> tuple[int, int]:
    """Return the height and width that the header of an image states; `start` is how the file begins."""
    if path.suffix.lower() in RAW_SUFFIXES or start[4:11] == b"ftypcrx":
        import rawpy

        with rawpy.imread(str(path)) as raw:
            return raw.sizes.raw_height, raw.sizes.raw_width
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            return page.imagelength, page.imagewidth
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            return image.height, image.width


def check_claim(path: Path, shape: tuple[int, ...]) -> None:
    """Raise DataError if a .mat file holds more than a cube of `shape` has, according to its header.

    A compressed array that was never written takes no place in the file, but all of its size in memory.
    """
    limit = int(np.prod(shape))
    try:
        claims = _hdf5_claims(path) if h5py.is_hdf5(path) else _mat5_claims(path)
    except Exception:  # each library has its own
        return  # the reader says what is wrong with it
    for name, (claimed, n_bytes) in claims.items():
        if np.prod(claimed, dtype=float) > limit or n_bytes > 8 * limit + 65536:
            what = " x ".join(map(str, claimed)) if len(claimed) > 2 else f"{n_bytes / 1e6:,.0f} MB"
            raise DataError(
                f"{path}: its variable {name} is {what}, more than the reconstruction has "
                f"({shape[0]} x {shape[1]} pixels, {plural(shape[2], 'band')})"
            )


def _hdf5_claims(path: Path) -> dict[str, tuple[tuple[int, ...], int]]:
    """Return the shape and the size in bytes of each data set of an HDF5 file."""
    with open_hdf5(path) as file:
        return {
            name: (item.shape or (), int(np.prod(item.shape or (), dtype=float)) * item.dtype.itemsize)
            for name, item in walk_hdf5(file, path)
        }


def _mat5_claims(path: Path) -> dict[str, tuple[tuple[int, ...], int]]:
    """Return the shape and the size in bytes, uncompressed, of each variable of a .mat file before v7.3."""
    variables = scipy.io.whosmat(path, appendmat=False)
    sizes = []
    with open(path, "rb") as file:
        order = {b"IM": "<", b"MI": ">"}.get(file.read(128)[126:])
        while order and len(tag := file.read(8)) == 8:
            kind, n_bytes = struct.unpack(f"{order}II", tag)
            end = file.tell() + n_bytes
            if kind == 15:  # miCOMPRESSED: the tag of the variable itself is the first that comes out
                tag = zlib.decompressobj().decompress(file.read(min(n_bytes, 1024)), 8)
                n_bytes = struct.unpack(f"{order}II", tag)[1]
            sizes.append(n_bytes)
            file.seek(end)
    sizes += [0] * (len(variables) - len(sizes))
    return {name: (shape, size) for (name, shape, _), size in zip(variables, sizes, strict=False)}
