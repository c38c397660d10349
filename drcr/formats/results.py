"""Reconstructions as files: .mat, ENVI or TIFF, with wavelengths and origin, which are read back exactly.

Maps of the confidence are variables of a .mat file; of ENVI and TIFF they are files of their own, see `maps_path`.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from drcr.cube import Cube
from drcr.formats.cubes import read_cube_file
from drcr.formats.envi import ENVI_DATA, is_own_data, origin_in_header, read_envi, write_envi
from drcr.formats.maps import MAPS
from drcr.formats.mat import load_cube, read_origin, write_cube
from drcr.formats.tiff import origin_in_tiff, read_tiff, require_tifffile, write_tiff
from drcr.utils.files import DataError, refuse_foreign

FORMATS = {"mat": ".mat", "envi": ".hdr", "tiff": ".tif"}
"""The suffix of a result by the name of its format; ENVI's values are in .img, beside the header."""
RESULT_SUFFIXES = tuple(FORMATS.values())


def read_result(path: Path) -> Cube:
    """Read a reconstruction: a .mat file, an ENVI header, or a TIFF. Raises DataError as their readers do.

    Its values are float32 in the memory order of a .mat file: scores depend on it in their last digits.
    """
    if path.suffix.lower() == ".mat":
        return load_cube(path)
    cube = read_cube_file(path)
    maps = {} if cube.origin is None else _read_maps(maps_path(path), cube.values.shape[:2])
    return replace(cube, values=np.asarray(cube.values.T, np.float32, order="C").T, maps=maps)


def maps_path(path: Path) -> Path:
    """Return where the maps beside a cube in ENVI or TIFF are: in the folder confidence, under the same name."""
    return path.parent / MAPS[1] / path.name


def _read_maps(path: Path, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return MAPS (H, W) from a file that `write_result` wrote, none if there is none."""
    if _origin_of(path) is None:
        return {}
    stored = read_envi(path) if path.suffix == ".hdr" else read_tiff(path)
    values = np.moveaxis(stored.values, stored.axis or 0, 2)
    if values.shape != (*shape, len(MAPS)):
        raise DataError(f"{path}: is not the maps of its cube; run test.py --confidence again")
    angles, levels = np.moveaxis(values, 2, 0)
    return {MAPS[0]: np.asarray(angles, np.float32), MAPS[1]: np.asarray(levels).astype(np.uint8)}


def write_result(
    path: Path, cube: np.ndarray, wavelengths: np.ndarray | None, origin: str, **variables: float | np.ndarray
) -> None:
    """Write a reconstruction (H, W, bands), not clipped, atomically, in the format that the suffix of its path says.

    `wavelengths` (bands,) in nm; `origin`: a line on where the cube comes from, by which a later run knows that it
    may replace the file; `variables`: what else to write, into .mat files anything, as `drcr.formats.mat.write_cube`
    does, else MAPS.
    """
    if path.suffix == ".mat":
        write_cube(path, cube, wavelengths, origin, **variables)
        return
    write = write_envi if path.suffix == ".hdr" else write_tiff
    beside = maps_path(path)
    if _origin_of(beside) is not None:  # an earlier run's maps are not this cube's
        beside.unlink()
    write(path, cube, wavelengths, origin)
    if MAPS[0] in variables:
        beside.parent.mkdir(exist_ok=True)
        told = "; ".join([origin, *(f"{name} {value:g}" for name, value in variables.items() if name not in MAPS)])
        write(beside, np.stack([np.float32(variables[name]) for name in MAPS], 2), None, told, MAPS)


def check_target(path: Path) -> None:
    """Raise DataError if a reconstruction is about to replace a file that is not one."""
    remedy = "choose another --result_dir"
    if path.suffix == ".tif":
        require_tifffile(path)  # what is missing shows now, not after the first image
    refuse_foreign(path, lambda path: _origin_of(path) is not None, "a reconstruction", remedy)
    if path.suffix == ".hdr":
        refuse_foreign(path.with_suffix(ENVI_DATA), is_own_data, "the data of a reconstruction", remedy)


def _origin_of(path: Path) -> str | None:
    read = {".mat": read_origin, ".hdr": origin_in_header, ".tif": origin_in_tiff}
    return read[path.suffix](path)
