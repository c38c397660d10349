"""Cubes in the file formats that people have: .mat, .npy, .npz, ENVI, TIFF."""

from pathlib import Path

import numpy as np
import spectral.io.envi  # SPy, the field's reader of ENVI files
import tifffile  # scikit-image's reader of scientific TIFF

from drcr.cube import Cube, wavelengths_in_nm
from drcr.matfile import CUBE_NAMES, WAVELENGTH_NAMES, load_cube
from drcr.utils.files import BROKEN, DataError

CUBE_SUFFIXES = (".mat", ".npy", ".npz", ".hdr", ".tif", ".tiff")
NAMES = (*CUBE_NAMES, "ref")  # ref: Harvard's


def read_cube_file(path: Path, variable: str | None = None, need_wavelengths: bool = True) -> tuple[Cube, bool]:
    """Read a cube of any of the formats.

    Parameters
    ----------
    path : Path
        The file; of an ENVI pair the header.
    variable : str, optional
        The cube's name in a .mat or .npz. Without it `cube`, `rad` or `ref` is looked for.
    need_wavelengths : bool
        Whether wavelengths in an ENVI header that make no sense are an error.

    Returns
    -------
    tuple of Cube and bool
        The cube with its axes and values as stored (an ENVI or .npy file's is mapped, not read), and whether its
        bands are known to come first (pages of a TIFF).

    Raises
    ------
    DataError
        The file is broken or has no such cube.
    """
    suffix, bands_first, wavelengths = path.suffix.lower(), False, None
    if suffix == ".mat":
        return load_cube(path, (variable,) if variable else NAMES), False
    if suffix in (".npy", ".npz"):
        values, wavelengths = _read_numpy(path, variable)
    elif suffix == ".hdr":
        values, wavelengths = _read_envi(path, need_wavelengths)
    else:
        values, bands_first = _read_tiff(path)
    return Cube(_checked(values, path), wavelengths, path), bands_first


def _checked(cube: np.ndarray, path: Path) -> np.ndarray:
    if cube.ndim != 3 or cube.dtype.kind not in "fiu" or not cube.size:
        raise DataError(
            f"{path}: a cube of numbers with three dimensions is needed; it is {cube.dtype}, {cube.shape}"
        )
    return cube


def _read_numpy(path: Path, variable: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the array of a .npy or .npz, and the wavelengths that a .npz has beside it."""
    try:
        if path.suffix.lower() == ".npy":
            # mapped, so that a band can be taken without reading all
            return np.load(path, mmap_mode="r", allow_pickle=False), None
        with np.load(path, allow_pickle=False) as file:
            name = _choose(file, variable)
            if name is None:
                raise DataError(
                    f"{path}: no array named {variable or ' or '.join(NAMES)}; it has {', '.join(file) or 'none'}; "
                    "give --variable NAME"
                )
            lists = (file[other] for other in WAVELENGTH_NAMES if other in file)
            found = (wavelengths_in_nm(values) for values in lists)
            return file[name], next((wavelengths for wavelengths in found if wavelengths is not None), None)
    except (DataError, PermissionError):
        raise
    except BROKEN as error:
        raise DataError(f"{path}: truncated or no NumPy file of plain numbers; copy or save it again") from error


def _choose(file: np.lib.npyio.NpzFile, variable: str | None) -> str | None:
    """Return the name of a .npz file's cube: `variable`, else a usual name, else its only array."""
    if variable:
        return variable if variable in file else None
    others = [name for name in file if name not in WAVELENGTH_NAMES]
    return next((name for name in NAMES if name in file), others[0] if len(others) == 1 else None)


def _read_envi(path: Path, need_wavelengths: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the cube (H, W, bands), mapped, and the wavelengths of an ENVI header and the data file beside it."""
    try:
        image = spectral.io.envi.open(str(path))
        interleave, order = (str(image.metadata.get(key, "")).lower() for key in ("interleave", "byte order"))
        if interleave not in ("bil", "bip", "bsq") or order not in ("0", "1"):
            # the library takes anything else for bsq and 0
            raise ValueError(f"interleave {interleave}, byte order {order}")
        cube = image.open_memmap(interleave="bip", writable=False)
        factor = float(image.metadata.get("reflectance scale factor", 1))
        if cube is None or not factor > 0:
            raise ValueError(f"reflectance scale factor {factor}")
    except spectral.io.envi.EnviDataFileNotFoundError as error:
        raise DataError(f"{path}: its data file is not beside it (same name; .raw, .img, .dat or none)") from error
    except PermissionError:
        raise
    except (spectral.SpyException, *BROKEN) as error:
        raise DataError(f"{path}: broken, or shorter than its header says ({error}); copy it again") from error
    listed = image.metadata.get("wavelength")
    wavelengths = None
    if listed is not None and image.bands.centers is not None and len(listed) == cube.shape[2]:
        wavelengths = wavelengths_in_nm(np.array(image.bands.centers, np.float64))
    if listed is not None and wavelengths is None and need_wavelengths:
        raise DataError(
            f"{path}: its wavelengths are no rising list in nm, one a band; mend it, or give --wavelengths"
        )
    return cube if factor == 1 else cube / np.float32(factor), wavelengths


def _read_tiff(path: Path) -> tuple[np.ndarray, bool]:
    """Return a TIFF's array with three dimensions, and whether its bands come first."""
    try:
        with tifffile.TiffFile(path) as file:
            shapes = {page.shape for page in file.pages}
            if not shapes:
                raise ValueError("no pages")
            if len(shapes) > 1:
                raise DataError(f"{path}: its pages differ in size; a page for each band is needed, all of one size")
            if len(file.pages) > 1:
                return file.asarray(key=slice(None)), True
            return file.asarray(), file.series[0].axes != "YXS"
    except (DataError, PermissionError):
        raise
    except (tifffile.TiffFileError, *BROKEN) as error:
        if "imagecodecs" in str(error):  # an optional, large package
            raise DataError(f"{path}: its compression can't be read; save it without, or with deflate") from error
        raise DataError(f"{path}: truncated or no TIFF; copy or save it again") from error
