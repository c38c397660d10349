"""Cubes in TIFF files: one page per band. Read by tifffile; written for ImageJ, each page labelled."""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from drcr.cube import StoredCube
from drcr.utils.extras import needs
from drcr.utils.files import BROKEN, BrokenFile, DataError, printable, unreadable, write_atomically

if TYPE_CHECKING:
    import tifffile

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it logs ends in one line of ours, or does no harm

GDAL_METADATA, GDAL_NODATA = 42112, 42113
"""Tags of TIFF files that GDAL writes."""


ORIGIN_MARK = "drcr origin: "
"""What ImageJ's text on the image begins with in a TIFF that is a reconstruction."""


MAX_RATIO = 3000
"""Bytes of values for each byte of a file; deflate and LZW make fewer, so more means damage, or an attack."""
CLASSIC_BYTES = 2**32 - 2**26
"""Larger files need BigTIFF, which ImageJ opens by its plugin Bio-Formats; the rest is for the tags."""


def require_tifffile(path: Path) -> Any:
    """Return the module. Raises DataError, which names the extra, if it is not installed."""
    with needs("formats", f"{path}: is a TIFF file, which"):
        import tifffile
    return tifffile


def open_tiff(path: Path) -> tifffile.TiffFile:
    """Open a TIFF as one file: of the formats whose metadata name other files, tifffile would read those, too."""
    return require_tifffile(path).TiffFile(path, is_ome=False, is_mmstack=False, is_ndtiff=False)


def read_tiff(path: Path) -> StoredCube:
    """Return the cube of a TIFF. Raises DataError if it is broken or states something that is not understood."""
    try:
        with open_tiff(path) as file:
            check_tiff(file, path)
            page, axes = file.pages[0], file.series[0].axes if len(file.series) == 1 else ""
            nodata = page.tags.get(GDAL_NODATA)
            fill = () if nodata is None else (float(str(nodata.value).strip("\0 ")),)
            # Q: tifffile wrote an array of which it knew nothing, and a page need not be a band
            axis = {"YXS": 2, "QYX": None}.get(axes, 0)
            values = file.asarray() if len(file.pages) == 1 else file.asarray(key=slice(None))
            lists = _labelled_wavelengths(file)
            if values.ndim == 2 and lists:  # a cube of one band
                values = values[None]
            return StoredCube(values, path, axis, lists=lists, fill=fill, origin=_origin(file))
    except DataError:
        raise
    except BROKEN as error:
        raise unreadable(path, error, "a TIFF") from error


def check_tiff(file: tifffile.TiffFile, path: Path) -> None:
    """Raise DataError if a TIFF has something that changes what its values mean, or not all of its values."""
    import tifffile

    pages = list(file.pages)
    if not pages:
        raise ValueError("no pages")
    if len({(page.shape, page.dtype) for page in pages}) > 1:
        raise DataError(f"{path}: its pages differ in size or type; one page per band is needed, all alike")
    claimed = stored = 0
    for page in pages:
        assert isinstance(page, tifffile.TiffPage)  # a whole page, not a frame that repeats another one's tags
        claimed, stored = claimed + page.nbytes, stored + sum(page.databytecounts)
        photometric = tifffile.PHOTOMETRIC(page.photometric)
        if photometric not in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB):
            raise DataError(f"{path}: its values are {photometric.name}, not intensities; save it as MINISBLACK")
        orientation = page.tags.get("Orientation")
        if orientation is not None and orientation.value != 1:
            raise DataError(
                f"{path}: is stored rotated or mirrored (orientation {orientation.value}); save it upright"
            )
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if not count or offset + count > file.filehandle.size:
                raise BrokenFile(f"{path}: truncated, or written in part; copy or download it again")
        if len(page.dataoffsets) < math.prod(page.chunked):
            raise BrokenFile(f"{path}: part of its values was never written; copy or download it again")
        scaling = page.tags.get(GDAL_METADATA)
        if scaling is not None and re.search(r'role="(scale|offset)"', str(scaling.value)):
            raise DataError(f"{path}: states scale and offset (GDAL_METADATA); apply them and save it again")
    if claimed > MAX_RATIO * min(stored, file.filehandle.size):
        raise BrokenFile(
            f"{path}: states {claimed / 1e6:,.0f} MB of values, far more than it holds; copy or download it again"
        )


def _labelled_wavelengths(file: tifffile.TiffFile) -> tuple[tuple[str, np.ndarray, str | None], ...]:
    """Return the wavelengths in the labels of an ImageJ stack, such as `450 nm`, as a StoredCube lists them."""
    labels = (file.imagej_metadata or {}).get("Labels") or []
    labels = [labels] if isinstance(labels, str) else labels
    found = [re.fullmatch(r"(\d+(?:\.\d+)?) ?nm", str(label).strip()) for label in labels]
    if not found or not all(found):
        return ()
    return (("labels of the slices", np.array([float(match[1]) for match in found if match]), "nm"),)


def origin_in_tiff(path: Path) -> str | None:
    """Return the line on its origin that a TIFF has if it is a reconstruction; None for any other file."""
    try:
        with open_tiff(path) as file:
            return _origin(file)
    except BROKEN:
        return None


def _origin(file: tifffile.TiffFile) -> str | None:
    text = str((file.imagej_metadata or {}).get("Info", ""))
    return text.removeprefix(ORIGIN_MARK) if text.startswith(ORIGIN_MARK) else None


def write_tiff(
    path: Path, cube: np.ndarray, wavelengths: np.ndarray | None, origin: str, names: Sequence[str] = ()
) -> None:
    """Write a reconstruction (H, W, bands), atomically; `wavelengths` in nm, or `names` of the bands, for maps."""
    tifffile = require_tifffile(path)
    metadata: dict[str, object] = {"axes": "ZYX", "Info": ORIGIN_MARK + printable(origin)}
    labels = list(names) if wavelengths is None else [f"{nm} nm" for nm in wavelengths.tolist()]
    if labels:
        metadata["Labels"] = labels
    shape = cube.shape[2], *cube.shape[:2]

    def write(file: Any) -> None:
        # one page per band: ImageJ opens no others
        pages = (np.ascontiguousarray(cube[..., i], "<f4") for i in range(shape[0]))
        options: dict[str, Any] = {"imagej": True, "bigtiff": cube.size * 4 > CLASSIC_BYTES, "metadata": metadata}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that ImageJ's text in a BigTIFF is unusual
            tifffile.imwrite(file, pages, shape=shape, dtype="<f4", **options)

    write_atomically(path, write)
