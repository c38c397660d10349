"""Reconstructions as files: .mat, ENVI or TIFF, with wavelengths and origin, which are read back exactly."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from drcr.cube import Cube
from drcr.formats.cubes import read_cube_file
from drcr.formats.envi import ENVI_DATA, is_own_data, origin_in_header, write_envi
from drcr.formats.mat import load_cube, read_origin, write_cube
from drcr.formats.tiff import origin_in_tiff, write_tiff
from drcr.utils.files import refuse_foreign

FORMATS = {"mat": ".mat", "envi": ".hdr", "tiff": ".tif"}
"""The suffix of a result by the name of its format; ENVI's values are in .img, beside the header."""
RESULT_SUFFIXES = tuple(FORMATS.values())


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
        As `drcr.formats.mat.load_cube` and `drcr.formats.cubes.read_cube_file`.
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
        What else to write, as `drcr.formats.mat.write_cube` does; into .mat files alone.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    if path.suffix == ".mat":
        write_cube(path, cube, wavelengths, origin, **variables)
    elif path.suffix == ".hdr":
        write_envi(path, cube, wavelengths, origin)
    else:
        write_tiff(path, cube, wavelengths, origin)


def check_target(path: Path) -> None:
    """Raise DataError if a reconstruction is about to replace a file that is not one."""
    remedy = "choose another --result_dir"
    refuse_foreign(path, lambda path: _origin_of(path) is not None, "a reconstruction", remedy)
    if path.suffix == ".hdr":
        refuse_foreign(path.with_suffix(ENVI_DATA), is_own_data, "the data of a reconstruction", remedy)


def _origin_of(path: Path) -> str | None:
    read = {".mat": read_origin, ".hdr": origin_in_header, ".tif": origin_in_tiff}
    return read[path.suffix](path)
