"""ENVI files: a text header beside a file of plain numbers. What the header states is applied, or refused by name.

Own code, not the `spectral` package: that ignores units, fill values, gains and bad bands, and takes other text
encodings for broken files.
"""

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from drcr.cube import StoredCube
from drcr.utils.files import BrokenFile, DataError, printable, write_atomically

TYPES = {"1": "u1", "2": "i2", "3": "i4", "4": "f4", "5": "f8", "12": "u2", "13": "u4", "14": "i8", "15": "u8"}
INTERLEAVES = {
    "bsq": ("bands", "lines", "samples"),
    "bil": ("lines", "bands", "samples"),
    "bip": ("lines", "samples", "bands"),
}
DATA_SUFFIXES = ("", ".raw", ".img", ".dat", ".bin", ".bsq", ".bil", ".bip", ".hyspex", ".cube")
OTHER_FILES = re.compile(r"classification|library|tiff|hdf|nitf|jpeg|virtual|meta|erdas|pci", re.IGNORECASE)
"""Values of `file type` that are not a cube of plain numbers."""
MAX_HEADER = 10_000_000
ENVI_DATA = ".img"
"""Of the values of a reconstruction, beside its header."""
ORIGIN_FIELD = "drcr origin"
"""The field in which the header of a reconstruction says where it comes from."""
DATA_MARK = b"DRCR Net: values of a reconstruction, described in the header".ljust(63) + b"\n"
"""What the values of a reconstruction begin with, so that a later run knows them without their header."""
Header = dict[str, str | list[str]]


def read_envi(path: Path) -> StoredCube:
    """Return the cube of an ENVI header, its values mapped from the data file beside it.

    Raises DataError if the header is not one, states something that is not understood, or does not fit the data file.
    """
    header = read_header(path)
    shape = {name: _whole(header, path, name, least=1) for name in ("lines", "samples", "bands")}
    offset = _whole(header, path, "header offset", least=0, default=0)
    _refuse(header, path)
    interleave = _text(header, path, "interleave").lower()
    if interleave not in INTERLEAVES:
        raise DataError(f"{path}: interleave is '{interleave}'; bsq, bil or bip is needed")
    data_type = _text(header, path, "data type")
    if data_type not in TYPES:
        what = "complex numbers" if data_type in ("6", "9") else "not known"
        raise DataError(f"{path}: data type {data_type} is {what}; numbers of type {', '.join(TYPES)} are needed")
    order = _text(header, path, "byte order", "")
    notes = []
    if order not in ("0", "1"):
        if order:
            raise DataError(f"{path}: byte order is '{order}'; 0 or 1 is needed")
        if np.dtype(TYPES[data_type]).itemsize > 1:
            notes.append("no byte order in the header, taken as 0 (little endian)")
    dtype = np.dtype(TYPES[data_type]).newbyteorder(">" if order == "1" else "<")

    own = path.with_suffix(ENVI_DATA)
    data, axes = own if _origin(header) and own.is_file() else find_data(path), INTERLEAVES[interleave]
    needed = offset + math.prod(shape.values()) * dtype.itemsize
    if data.stat().st_size < needed:
        raise BrokenFile(
            f"{path}: {data.name} is truncated, {data.stat().st_size} of {needed} bytes; copy or download it again"
        )
    if data.stat().st_size > needed:
        raise DataError(
            f"{path}: describes {needed} bytes, but {data.name} has {data.stat().st_size}; fix the header"
        )
    values = np.memmap(data, dtype, "r", offset, tuple(shape[name] for name in axes))
    scale, shift = _scaling(header, path, shape["bands"])
    ignore = _number(header, path, "data ignore value")
    return StoredCube(
        values.transpose([axes.index(name) for name in ("lines", "samples", "bands")]),
        path,
        axis=2,
        lists=_wavelengths(header),
        fill=() if ignore is None else (ignore,),
        scale=scale,
        offset=shift,
        good=_good_bands(header, path, shape["bands"]),
        origin=_origin(header),
        notes=tuple(notes),
    )


def read_header(path: Path) -> Header:
    """Return the fields of an ENVI header, names in lower case; a field in braces is a list."""
    if path.stat().st_size > MAX_HEADER:
        raise DataError(f"{path}: is too large for an ENVI header")
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16", errors="replace")
    else:  # all that is read here is ASCII, but comments and names may be in Latin-1
        text = data.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    first, _, rest = text.lstrip().partition("\n")
    if first.strip().upper() != "ENVI":
        raise DataError(f"{path}: is not an ENVI header, which begins with a line ENVI; remove the file")
    header: Header = {}
    for name, value in _fields(rest, path):
        field = [item.strip() for item in value[1:-1].split(",")] if value.startswith("{") else value
        if header.get(name, field) != field:
            raise DataError(f"{path}: has the field '{name}' twice, with different values; remove one")
        header[name] = field
    return header


def _fields(text: str, path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and value of each field of a header, in one pass: a hostile header may be long."""
    lines = iter(text.split("\n"))
    for line in lines:
        name, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or name.startswith(";"):
            continue
        if value.startswith("{"):  # it may go over several lines, and contain equals signs
            parts = [value]
            while "}" not in parts[-1]:
                if (following := next(lines, None)) is None:
                    raise DataError(
                        f"{path}: the field '{name[:60]}' has no closing brace; the header is cut off or damaged"
                    )
                parts.append(following)
            value = "\n".join(parts).strip()
        is_list = value.startswith("{")
        if not equals or not name or {"{", "}"} & set(name) or (is_list and value.find("}") != len(value) - 1):
            raise DataError(f"{path}: the line '{line.strip()[:60]}' is not 'field = value'; fix or remove it")
        yield " ".join(name.lower().split()), value


def origin_in_header(path: Path) -> str | None:
    """Return the line on its origin that the header of a reconstruction has; None for any other file."""
    try:
        return _origin(read_header(path))
    except (DataError, OSError):
        return None


def is_own_data(path: Path) -> bool:
    """Return whether a file is the values of a reconstruction, with its header or without."""
    with suppress(OSError), open(path, "rb") as file:
        return file.read(len(DATA_MARK)) == DATA_MARK
    return False


def _origin(header: Header) -> str | None:
    origin = header.get(ORIGIN_FIELD)
    return origin if isinstance(origin, str) else None


def find_data(path: Path) -> Path:
    """Return the data file beside an ENVI header: scene.raw of scene.hdr or of scene.raw.hdr."""
    names = {path.stem.lower() + suffix for suffix in DATA_SUFFIXES}
    found = [
        other for other in path.parent.iterdir() if other.name.lower() in names and other.is_file() and other != path
    ]
    exact = [other for other in found if other.name == path.stem]
    found = exact or found
    if not found:
        raise DataError(
            f"{path}: no data file beside it; it needs the same name and {' '.join(DATA_SUFFIXES[1:])} or none"
        )
    if len(found) > 1:
        names = ", ".join(sorted(other.name for other in found))
        raise DataError(f"{path}: more than one file could be its data: {names}; keep one")
    return found[0]


def _refuse(header: Header, path: Path) -> None:
    """Raise DataError if a header states something that changes what the values mean and is not applied here."""
    file_type = header.get("file type", "")
    if isinstance(file_type, str) and OTHER_FILES.search(file_type):
        raise DataError(f"{path}: file type is '{file_type}'; a cube of plain numbers (ENVI Standard) is needed")
    if str(header.get("file compression", "0")) not in ("0", ""):
        raise DataError(f"{path}: its data file is compressed (file compression); save it without")
    for name, value in header.items():
        numbers = [number for number in (value if isinstance(value, list) else [value]) if number]
        if name in ("major frame offsets", "minor frame offsets"):
            neutral = {"0"}
        elif name != "reflectance scale factor" and re.search(r"scale factor$", name):
            neutral = {"1", "1.0"}
        elif re.fullmatch(r"data \w+ (gain|offset) values", name):
            neutral = {"1", "1.0"} if "gain" in name else {"0", "0.0"}
        else:
            continue
        if not set(numbers) <= neutral:
            raise DataError(
                f"{path}: the field '{name}' is not supported; apply it, save the cube, and remove the field"
            )


def _text(header: Header, path: Path, name: str, default: str | None = None) -> str:
    value = header.get(name, default)
    if isinstance(value, list) or value is None or (value == "" and default is None):
        raise DataError(f"{path}: the field '{name}' is missing, empty or a list; add it to the header")
    return value


def _whole(header: Header, path: Path, name: str, least: int, default: int | None = None) -> int:
    text = _text(header, path, name, None if default is None else str(default))
    if not re.fullmatch(r"\d{1,12}", text) or int(text) < least:
        raise DataError(f"{path}: the field '{name}' is '{text}'; a whole number from {least} is needed")
    return int(text)


def _number(header: Header, path: Path, name: str) -> float | None:
    """Return a field that is a number, None if it is missing or empty."""
    value = header.get(name, "")
    if value == "":
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: the field '{name}' is not a number; fix or remove it") from error


def _numbers(header: Header, path: Path, name: str, count: int) -> np.ndarray | None:
    """Return a field that is a list of one number per band, None if it is missing or empty."""
    value = header.get(name, "")
    if value in ("", [""]):
        return None
    try:
        numbers = np.array([float(item) for item in value]) if isinstance(value, list) else np.array([float(value)])
    except ValueError as error:
        raise DataError(f"{path}: the field '{name}' is not a list of numbers; fix or remove it") from error
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise DataError(f"{path}: the field '{name}' must have one number for each of the {count} bands; fix it")
    return numbers


def _scaling(header: Header, path: Path, bands: int) -> tuple[float | np.ndarray, float | np.ndarray]:
    """Return scale and offset: data gain and offset values, or one over the reflectance scale factor."""
    gains, offsets = (_numbers(header, path, f"data {name} values", bands) for name in ("gain", "offset"))
    factor = _number(header, path, "reflectance scale factor")
    if factor is not None and not 0 < factor < math.inf:
        raise DataError(f"{path}: reflectance scale factor is {factor:g}; a number above 0 is needed")
    if factor not in (None, 1.0) and (gains is not None or offsets is not None):
        raise DataError(f"{path}: has both data gain or offset values and a reflectance scale factor; remove one")
    scale = 1.0 if gains is None else gains
    return (1 / factor if factor is not None and gains is None else scale), 0.0 if offsets is None else offsets


def _wavelengths(header: Header) -> tuple[tuple[str, np.ndarray, str | None], ...]:
    value = header.get("wavelength", "")
    if value in ("", [""]):
        return ()
    try:
        numbers = np.array([float(item) for item in value] if isinstance(value, list) else [float(value)])
    except ValueError:
        numbers = np.array(value)  # not numbers, which `settle` says if the wavelengths are needed
    unit = header.get("wavelength units", "")
    return (("wavelength", numbers, unit if isinstance(unit, str) else ", ".join(unit)),)


def _good_bands(header: Header, path: Path, bands: int) -> np.ndarray | None:
    """Return which bands the list of bad bands (bbl: 1 good, 0 bad) keeps."""
    flags = _numbers(header, path, "bbl", bands)
    if flags is None:
        return None
    if not np.isin(flags, (0, 1)).all() or not flags.any():
        raise DataError(f"{path}: the field 'bbl' must consist of 1 (good) and 0 (bad), not all of them 0; fix it")
    return flags == 1


def write_envi(
    path: Path, cube: np.ndarray, wavelengths: np.ndarray | None, origin: str, names: Sequence[str] = ()
) -> None:
    """Write a reconstruction (H, W, bands) as a header and its values beside it, in .img.

    `wavelengths` in nm; `names` of the bands, for maps.
    """
    height, width, bands = cube.shape
    fields = {
        "samples": width,
        "lines": height,
        "bands": bands,
        "header offset": len(DATA_MARK),
        "file type": "ENVI Standard",
        "data type": 4,
        "interleave": "bsq",
        "byte order": 0,
        # in ASCII: readers do not agree on the encoding of a header
        ORIGIN_FIELD: printable(origin).encode("ascii", "backslashreplace").decode(),
    }
    if wavelengths is not None:
        fields |= {"wavelength units": "Nanometers", "wavelength": f"{{{', '.join(map(str, wavelengths.tolist()))}}}"}
        # viewers then open the file in colour: the bands nearest to red, green and blue, counted from 1
        shown = [str(np.abs(wavelengths - nm).argmin() + 1) for nm in (640, 550, 460)]
        fields |= {"default bands": f"{{{', '.join(shown)}}}"}
    if names:
        fields["band names"] = f"{{{', '.join(names)}}}"

    def write_values(file: Any) -> None:
        file.write(DATA_MARK)
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
