"""Lamps: the power of a light at the bands of a cube.

A photograph is balanced to white, so its lamp is gone: the cube is what the scene would reflect under light of equal
energy. Multiplied by a lamp's power it is the radiance under that lamp::

    radiance = cube * lamp("FL11", wavelengths)
"""

import csv
from pathlib import Path

import numpy as np

from drcr.cube import WAVELENGTHS
from drcr.utils.extras import needs
from drcr.utils.files import DataError

ALIASES = {f"F{number}": f"FL{number}" for number in range(1, 13)} | {"white LED": "LED-B3"}
"""Names that people use of lamps, and those of colour-science."""


def lamp(source: str | Path, wavelengths: np.ndarray = WAVELENGTHS) -> np.ndarray:
    """Return the relative power (bands,) of a lamp at `wavelengths` (nm), its mean over the bands 1.

    `source`: a CIE illuminant by its name in colour-science (`FL11`; `F11`, too), or a .csv file: wavelength in nm
    and power, one pair per line, with or without a header. Raises DataError if there is no such lamp or file, it is
    no such table, or it does not cover the wavelengths.
    """
    if str(source).lower().endswith(".csv"):
        nm, power = _read_csv(Path(source))
    else:
        with needs("simulation", f"illuminant {source}"):
            from colour import SDS_ILLUMINANTS

        name = ALIASES.get(str(source), str(source))
        if name not in SDS_ILLUMINANTS:
            raise DataError(
                f"{source}: no such illuminant; known are {', '.join(SDS_ILLUMINANTS)}, or give a .csv file"
            )
        nm, power = SDS_ILLUMINANTS[name].wavelengths, SDS_ILLUMINANTS[name].values
    if np.min(wavelengths) < nm[0] or np.max(wavelengths) > nm[-1]:
        raise DataError(
            f"{source}: covers {nm[0]:g}-{nm[-1]:g} nm, but the bands are {np.min(wavelengths):g}-"
            f"{np.max(wavelengths):g} nm; choose another lamp"
        )
    at_bands = np.interp(wavelengths, nm, power)
    if not at_bands.any():
        raise DataError(f"{source}: has no power at the bands; choose another lamp")
    return at_bands / at_bands.mean()


def _read_csv(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return wavelengths and power of a lamp's file."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
        first = rows[0][0].strip().replace(".", "", 1).isdigit()  # else a header
        table = np.array([[float(cell) for cell in row[:2]] for row in rows[not first :]])
        nm, power = table.T
    except (ValueError, IndexError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a table of wavelength (nm) and power; write one pair per line") from error
    if len(nm) < 2 or not (np.diff(nm) > 0).all() or not np.isfinite(table).all() or (power < 0).any():
        raise DataError(f"{path}: needs two rows or more, wavelengths rising, no power below 0; fix the table")
    return nm, power
