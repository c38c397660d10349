"""Reconstructions as files: .mat, ENVI or TIFF, with wavelengths and origin, which are read back exactly."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from drcr.cube import Cube
from drcr.matfile import load_cube, read_origin, write_cube
from drcr.preparation.envi import ORIGIN_FIELD, origin_in_header
from drcr.preparation.formats import ORIGIN_MARK, origin_in_tiff, read_cube_file
from drcr.utils.files import printable, refuse_foreign, write_atomically

FORMATS = {"mat": ".mat", "envi": ".hdr", "tiff": ".tif"}
"""The suffix of a result by the name of its format; ENVI's values are in .img, beside the header."""
RESULT_SUFFIXES = tuple(FORMATS.values())
ENVI_DATA = ".img"


def read_result(path: Path) -> Cube:
    """Read a reconstruction in any of FORMATS.

    Parameters
    ----------
    path : Path
        A .mat file, an ENVI header, or a TIFF.

    Returns
    -------
    Cube
        Values float32 (H, W, bands), in the memory order of a .mat file: scores depend on it in their last digits.

    Raises
    ------
    DataError
        As `drcr.matfile.load_cube` and `drcr.preparation.formats.read_cube_file`.
    """
    if path.suffix.lower() == ".mat":
        return load_cube(path)
    cube = read_cube_file(path)
    return replace(cube, values=np.asarray(cube.values.T, np.float32, order="C").T)


def write_result(
    path: Path, cube: np.ndarray, wavelengths: np.ndarray | None, origin: str, **variables: float | np.ndarray
) -> None:
    """Write a reconstruction, atomically, in the format that the suffix of its path says.

    Parameters
    ----------
    path : Path
        The file; of an ENVI pair the header.
    cube : (H, W, bands)
        Written as float32, not clipped.
    wavelengths : (bands,) or None
        In nm.
    origin : str
        A line on where the cube comes from. A file with such a line may be replaced by a later run.
    **variables : float or (H, W)
        What else to write, as `drcr.matfile.write_cube` does; into .mat files alone.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    if path.suffix == ".mat":
        write_cube(path, cube, wavelengths, origin, **variables)
    elif path.suffix == ".hdr":
        _write_envi(path, cube, wavelengths, origin)
    else:
        _write_tiff(path, cube, wavelengths, origin)


def check_target(path: Path) -> None:
    """Raise DataError if a reconstruction is about to replace a file that is not one."""
    remedy = "choose another --result_dir"
    refuse_foreign(path, lambda path: _origin_of(path) is not None, "a reconstruction", remedy)
    if path.suffix == ".hdr":
        refuse_foreign(path.with_suffix(ENVI_DATA), lambda _: path.exists(), "the data of a reconstruction", remedy)


def _origin_of(path: Path) -> str | None:
    read = {".mat": read_origin, ".hdr": origin_in_header, ".tif": origin_in_tiff}
    return read[path.suffix](path)


def _write_envi(path: Path, cube: np.ndarray, wavelengths: np.ndarray | None, origin: str) -> None:
    height, width, bands = cube.shape
    fields = {
        "samples": width,
        "lines": height,
        "bands": bands,
        "header offset": 0,
        "file type": "ENVI Standard",
        "data type": 4,
        "interleave": "bsq",
        "byte order": 0,
        # in ASCII: readers do not agree on the encoding of a header
        ORIGIN_FIELD: printable(origin).encode("ascii", "backslashreplace").decode(),
    }
    if wavelengths is not None:
        fields |= {"wavelength units": "Nanometers", "wavelength": f"{{{', '.join(map(str, wavelengths.tolist()))}}}"}

    def write_values(file: Any) -> None:
        for i in range(bands):
            file.write(np.ascontiguousarray(cube[..., i], "<f4"))
        file.flush()
        os.fsync(file.fileno())
        # an earlier run's header never describes the new values, even if this process is killed here
        path.unlink(missing_ok=True)

    def write_header(file: Any) -> None:
        file.write("".join(["ENVI\n", *(f"{name} = {value}\n" for name, value in fields.items())]).encode())
        write_atomically(path.with_suffix(ENVI_DATA), write_values)

    write_atomically(path, write_header)  # the header gets its name last: without it, the values are not a cube


def _write_tiff(path: Path, cube: np.ndarray, wavelengths: np.ndarray | None, origin: str) -> None:
    metadata: dict[str, object] = {"axes": "ZYX", "Info": ORIGIN_MARK + printable(origin)}
    if wavelengths is not None:
        metadata["Labels"] = [f"{nm} nm" for nm in wavelengths.tolist()]
    shape = cube.shape[2], *cube.shape[:2]

    def write(file: Any) -> None:
        # one page per band: ImageJ opens no others
        pages = (np.ascontiguousarray(cube[..., i], "<f4") for i in range(shape[0]))
        tifffile.imwrite(file, pages, shape=shape, dtype="<f4", imagej=True, metadata=metadata)

    write_atomically(path, write)
