"""A hyperspectral cube with its wavelengths, and the rules that hold for every cube, wherever it comes from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from drcr.utils.files import DataError, plural

WAVELENGTHS = np.arange(400.0, 701.0, 10.0)
"""The 31 bands of the challenges' data sets, in nm."""


@dataclass(frozen=True, eq=False)
class Cube:
    """A hyperspectral cube and what its file says about it.

    Attributes
    ----------
    values : (H, W, bands) float32, radiance as stored
    wavelengths : (bands,) float64 in nm, rising; None: the file says nothing about them
    path : the file that the cube was read from
    origin : where a reconstruction comes from: the line that `write_cube` stored
    notes : what was done on reading that the user should know, such as bands that were sorted
    maps : (H, W) by name, what stands beside a reconstruction, such as where not to trust it
    """

    values: np.ndarray
    wavelengths: np.ndarray | None = None
    path: Path | None = None
    origin: str | None = None
    notes: tuple[str, ...] = ()
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def known_wavelengths(self) -> np.ndarray | None:
        """Wavelengths in nm: the file's, or 400-700 nm for 31 bands of which it says nothing, or None."""
        if self.wavelengths is None and self.values.shape[2] == len(WAVELENGTHS):
            return WAVELENGTHS
        return self.wavelengths

    def require_wavelengths(self) -> np.ndarray:
        """Return `known_wavelengths`. Raises DataError, with the file's name, if they are None."""
        if (wavelengths := self.known_wavelengths) is None:
            raise DataError(
                f"{self.path}: {self.values.shape[2]} bands, and no variable `bands` with their wavelengths in nm "
                "(only 31 bands are known without it); add it with Dataset/import_cubes.py"
            )
        return wavelengths


UNITS = {
    "nm": ("nm", "nanometer", "nanometers", "nanometre", "nanometres"),
    "um": ("um", "µm", "μm", "micrometer", "micrometers", "micrometre", "micrometres", "micron", "microns"),
    "angstrom": ("a", "å", "å", "angstrom", "angstroms", "ångström", "ångstroms"),
    "mm": ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    "m": ("m", "meter", "meters", "metre", "metres"),
    "1/cm": ("1/cm", "cm-1", "cm^-1", "wavenumber", "wave number", "wavenumbers", "wave numbers"),
    "none": ("index", "band", "bands", "band number"),
}
"""Units of wavelengths in files, in lower case; `none`: numbers of bands."""
NM = {"nm": 1.0, "um": 1e3, "angstrom": 0.1, "mm": 1e6, "m": 1e9}
NOT_STATED = ("", "unknown", "unitless", "none")


def wavelengths_in_nm(values: np.ndarray, unit: str | None = None) -> np.ndarray | None:
    """Return a list of wavelengths in nm, (bands,) float64, in the order given; None if it only counts the bands.

    `unit` is what the file states. Without one, values from 100 to 3000 are nm, and values below 30 that start
    between 0.1 and 3 are micrometres. Raises ValueError, which says why, if the list cannot be one of wavelengths.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "fiu":
        raise ValueError("is not a list of numbers")
    nm = np.float64(values).ravel()
    if not nm.size or not np.isfinite(nm).all():
        raise ValueError("contains values that are not numbers")
    stated = (unit or "").strip().lower()
    names = [name for name, spellings in UNITS.items() if stated in spellings]
    if not names and stated not in NOT_STATED:
        raise ValueError(f"has the unit '{unit}', which is not known")
    whole = (nm == np.round(nm)).all()
    if names == ["none"] or (not names and whole and nm.max() < 100 and nm.min() >= 0):
        return None
    if not names and whole and len(nm) > 1 and nm[0] in (0, 1) and (np.diff(nm) == 1).all():
        return None
    if names == ["1/cm"]:
        nm = 1e7 / np.where(nm > 0, nm, np.nan)
    elif names:
        nm = nm * NM[names[0]]
    elif 0.1 < nm.min() < 3 and nm.max() < 30:
        nm = nm * 1000
    elif nm.max() > 3000:
        raise ValueError(f"goes up to {nm.max():g} without a unit")
    if not (nm >= 100).all() or nm.max() > 1e5:
        raise ValueError(f"has values that are not wavelengths ({values.min():g} to {values.max():g} {unit or 'nm'})")
    return nm


@dataclass(frozen=True, eq=False)
class StoredCube:
    """A cube as a file stores it, and what the file says about it; `settle` applies that.

    Attributes
    ----------
    values : array with three dimensions, of any numeric type, perhaps mapped from the file
    axis, usual_axis : that of the bands, if the format states it; and where files of this format usually have them
    lists : (name, values, unit) of what may be the wavelengths; `unit` is None where the file states none
    fill : stored values that mark missing data
    scale, offset : of all or each band; a value means `stored * scale + offset`
    good : (bands,) bool, those that the file does not mark as bad
    path, origin, notes, maps : as in `Cube`
    """

    values: np.ndarray
    path: Path
    axis: int | None = None
    usual_axis: int | None = None
    lists: tuple[tuple[str, np.ndarray, str | None], ...] = ()
    fill: tuple[float, ...] = ()
    scale: float | np.ndarray = 1.0
    offset: float | np.ndarray = 0.0
    good: np.ndarray | None = None
    origin: str | None = None
    notes: tuple[str, ...] = ()
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)


REMEDY = "give --wavelengths or --band_axis to Dataset/import_cubes.py"


def settle(
    stored: StoredCube,
    axis: int | None = None,
    wavelengths: np.ndarray | None = None,
    step: tuple[float, float] | None = None,
    otherwise: np.ndarray | None = None,
) -> Cube:
    """Return a cube with its bands last and rising, and with everything applied that its file states.

    The user may give the `axis` of the bands, and `wavelengths` (bands,) in nm or instead of them `step`, the first
    one and the distance to the next: the file's own are then ignored. `otherwise`: wavelengths to assume if neither
    user nor file gives them. The values are float32, or a view of what was stored where nothing needs to be applied.

    Raises DataError, with the file's name, if the values are not a cube, the axis of the bands is uncertain, the
    wavelengths make no sense, or values are missing.
    """
    path, values, notes = stored.path, stored.values, list(stored.notes)
    if values.ndim != 3 or values.dtype.kind not in "fiu" or not values.size:
        raise DataError(
            f"{path}: must contain numbers with three dimensions, not {values.dtype} {times(values.shape)}"
        )
    listed = wavelengths
    if listed is None and step is None:
        found = _listed_wavelengths(stored, values.shape if axis is None else (values.shape[axis],))
        listed = otherwise if found is None else found
    axis = _band_axis(stored, axis, None if listed is None else len(listed), step is not None)
    values = np.moveaxis(values, axis, 2)
    if step is not None:
        listed = step[0] + step[1] * np.arange(values.shape[2])
    good = np.ones(values.shape[2], bool) if stored.good is None else stored.good
    order = np.flatnonzero(good)
    if not good.all():
        notes.append(f"bands marked as bad in the file were removed: {len(good) - len(order)} of {len(good)}")
    if listed is not None:
        order = order[np.argsort(listed[order], kind="stable")]
        listed = listed[order]
        if (np.abs(np.diff(order)) != 1).any() and good.all():
            notes.append("bands were sorted by their wavelengths")
    values = _apply(stored, values, order)
    if listed is not None and len(np.unique(listed)) < len(listed):
        values, listed = _average_equal(values, listed)
        notes.append(f"bands with equal wavelengths were averaged; {len(listed)} are left")
    return Cube(values, listed, path, stored.origin, tuple(notes), stored.maps)


def _listed_wavelengths(stored: StoredCube, counts: tuple[int, ...]) -> np.ndarray | None:
    """Return the wavelengths (nm) that the file lists for its bands, of which there are one of `counts`, or None."""
    fitting: dict[str, np.ndarray] = {}
    others: dict[str, int] = {}
    for name, values, unit in stored.lists:
        if np.size(values) == 1 and 1 not in counts:
            continue
        try:
            nm = wavelengths_in_nm(values, unit)
        except ValueError as error:
            raise DataError(f"{stored.path}: {name} {error}; fix it, or {REMEDY}") from error
        if nm is not None and len(nm) in counts:
            fitting[name] = nm
        elif nm is not None:
            others[name] = len(nm)
    first = next(iter(fitting), None)
    for name, nm in fitting.items():
        if first is not None and not same_bands(nm, fitting[first]):
            raise DataError(f"{stored.path}: {first} and {name} are different wavelengths; remove one, or {REMEDY}")
    if first is not None:
        return fitting[first]
    for name, count in others.items():
        raise DataError(
            f"{stored.path}: {name} has {count} wavelengths, but the cube has {times(stored.values.shape)} values; "
            f"fix it, or {REMEDY}"
        )
    return None


def _band_axis(stored: StoredCube, axis: int | None, count: int | None, any_count: bool) -> int:
    """Return the axis of the bands: the user's, the format's, or the only one with `count` entries.

    `any_count`: whether the wavelengths are known for any number of bands.
    """
    shape = stored.values.shape
    known = stored.axis if axis is None else axis
    if known is not None:
        if count is not None and shape[known] != count:
            raise DataError(
                f"{stored.path}: {count} wavelengths for {shape[known]} bands ({times(shape)} values); {REMEDY}"
            )
        return known
    if count is None and stored.usual_axis is not None:
        return stored.usual_axis
    if any_count:
        raise DataError(
            f"{stored.path}: {times(shape)} values; the file does not say which of the three are the bands; give "
            "--band_axis first, middle or last to Dataset/import_cubes.py"
        )
    looked_for = len(WAVELENGTHS) if count is None else count
    matches = [i for i in range(3) if shape[i] == looked_for]
    if len(matches) == 1:
        return matches[0]
    if stored.usual_axis in matches:
        return stored.usual_axis
    if not matches:
        known_for = f"{count} wavelengths match none of them" if count else "no wavelengths in the file"
        raise DataError(f"{stored.path}: {times(shape)} values, and {known_for}; {REMEDY}")
    raise DataError(
        f"{stored.path}: {times(shape)} values, of which more than one match the {looked_for} wavelengths; give "
        "--band_axis first, middle or last to Dataset/import_cubes.py"
    )


def _apply(stored: StoredCube, values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return the bands `order` of `values` (H, W, bands), with scale and offset applied. Raises DataError on gaps."""
    for marker in stored.fill:
        bad = np.zeros(values.shape[:2], int)
        for band in order:  # one by one: the values may be mapped from a large file
            bad += np.isnan(values[..., band]) if np.isnan(marker) else values[..., band] == marker
        if bad.any():
            raise DataError(
                f"{stored.path}: {plural(int(bad.sum()), 'value')} in {plural(int((bad > 0).sum()), 'pixel')} "
                f"{'is' if bad.sum() == 1 else 'are'} {marker:g}, which marks missing data in this file; crop the "
                "scene to where it was measured"
            )
    scale, offset = (np.broadcast_to(x, values.shape[2:]) for x in (stored.scale, stored.offset))
    if (scale == 1).all() and (offset == 0).all():
        if np.array_equal(order, np.arange(values.shape[2])):
            return values
        return values[..., ::-1] if np.array_equal(order[::-1], np.arange(values.shape[2])) else values[..., order]
    out = np.empty((*values.shape[:2], len(order)), np.float32)
    for i, band in enumerate(order):
        out[..., i] = np.float64(values[..., band]) * scale[band] + offset[band]
    return out


def _average_equal(values: np.ndarray, wavelengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cube with bands of equal wavelength averaged, and the wavelengths that are left."""
    kept = np.unique(wavelengths)
    out = np.empty((*values.shape[:2], len(kept)), np.float32)
    for i, nm in enumerate(kept):
        out[..., i] = values[..., wavelengths == nm].mean(2, dtype=np.float64)
    return out, kept


def times(shape: Iterable[int]) -> str:
    """Return a shape as in `482 x 512`."""
    return " x ".join(map(str, shape))


def same_bands(first: ArrayLike, second: ArrayLike) -> bool:
    """Return whether two lists of wavelengths (nm) are the same, within 0.1 nm."""
    first, second = np.asarray(first), np.asarray(second)
    return first.shape == second.shape and bool(np.allclose(first, second, rtol=0, atol=0.1))


def describe_bands(wavelengths: Sequence[float] | np.ndarray) -> str:
    """Return a list of wavelengths (nm) in short: `31 bands, 400-700 nm`."""
    return f"{len(wavelengths)} bands, {wavelengths[0]:g}-{wavelengths[-1]:g} nm"


def check_cube(values: np.ndarray, path: str | Path | None) -> None:
    """Raise DataError, with the file's name, if a cube (H, W, bands) has NaN or infinite values."""
    # an infinite or missing value shows in one of these, without a mask as long as the cube
    if not np.isfinite([values.min(), values.max()]).all():
        count = plural(int(np.count_nonzero(~np.isfinite(values))), "NaN or infinite value")
        raise DataError(f"{path}: contains {count}; repair or remove the file")


def check_scale(values: np.ndarray, path: str | Path | None) -> str | None:
    """Return a line on values above 1, None if there are none. Raises DataError if the scale is not from 0 to 1.

    Highlights may be brighter than 1; most values above 1, or values above 10, mean counts or per cent.
    """
    highest = float(values.max())
    if highest <= 1:
        return None
    part = np.count_nonzero(values > 1) / values.size
    if part > 0.5 or highest > 10:
        raise DataError(
            f"{path}: values up to {highest:.4g}, {part:.0%} of them above 1, but radiance must be from 0 to 1; "
            "divide it with Dataset/import_cubes.py --scale"
        )
    return f"values up to {highest:.4g} ({part:.2%} above 1), but scoring clips reconstructions to [0, 1]"


def check_same_size(
    image_shape: tuple[int, ...], image_path: Path, cube_shape: tuple[int, ...], cube_path: Path | None
) -> None:
    """Raise DataError, with both names, if an image (H, W, 3) and its cube (H, W, bands) differ in size."""
    if image_shape[:2] != cube_shape[:2]:
        raise DataError(
            f"{image_path}: {image_shape[0]} x {image_shape[1]} pixels, but its cube {cube_path} has "
            f"{cube_shape[0]} x {cube_shape[1]}"
            + ("; one of the two is transposed" if image_shape[:2] == cube_shape[1::-1] else "")
        )


def reference_factor(
    values: np.ndarray, point: tuple[int, int], reflectance: float, path: str | Path | None = None
) -> tuple[float, str]:
    """Return the number that gives a point of a cube its known reflectance, and the words for the cube's origin.

    An exposed image does not tell how bright its scene was; a point of known reflectance does. The mean over all
    bands of the 3 x 3 pixels around `point` (row and column, from 0) becomes `reflectance`: 0.9 for white paper.

    Raises DataError, which names `path`, if the point is outside or too dark to be a reference, or the reflectance is
    not above 0 and at most 1.
    """
    (row, column), (height, width) = point, values.shape[:2]
    if not (0 <= row < height and 0 <= column < width):
        raise DataError(
            f"{path}: row {row}, column {column} is outside the {height} x {width} pixels; choose another"
        )
    if not 0 < reflectance <= 1:
        raise DataError(f"{path}: a reflectance is above 0 and at most 1, not {reflectance:g}; white paper has 0.9")
    found = float(values[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].mean(dtype=np.float64))
    if not found > 1e-3 * float(values.max()):
        raise DataError(f"{path}: row {row}, column {column} is black; choose a brighter point as the reference")
    factor = reflectance / found
    return factor, f"scaled by {factor:.4g} (row {row}, column {column} has the reflectance {reflectance:g})"


def raise_to_floor(values: np.ndarray, floor: float) -> tuple[np.ndarray, int]:
    """Return a cube with its values below `floor` raised to it, and how many they were."""
    return np.maximum(values, np.float32(floor)), int(np.count_nonzero(values < np.float32(floor)))


DIM = 0.01
"""Relative errors on smaller values dominate all others."""


def warn_of_dim(n_dim: int, n_values: int) -> str | None:
    """Return a warning if more than 1% of a data set's values are below DIM and no floor is given, else None."""
    if n_dim <= 0.01 * n_values:
        return None
    return (
        f"{n_dim / n_values:.1%} of the true values are below {DIM:g}, where relative errors are very large; "
        f"consider --non_positive floor {DIM:g}, as in preparing the data, or scoring with --min_radiance"
    )


def describe_floor(floor: float, raised: list[int], n_values: int) -> str:
    """Return a line on the dark values that were raised to `floor`: `raised` per scene, of `n_values` in all."""
    return (
        f"dark values: {sum(raised):,} of {n_values:,} ({sum(raised) / n_values:.2%}), in "
        f"{np.count_nonzero(raised)} of {len(raised)} scenes, raised to {floor:g}"
    )


def strips(height: int, width: int, size: int = 1 << 16) -> Iterator[tuple[slice, slice]]:
    """Yield the rows of strips of about `size` pixels, and the same pixels in the flat image.

    An image's cube is worked on strip by strip: flat as a whole, it would be a copy.
    """
    step = max(size // width, 1)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        yield slice(top, bottom), slice(top * width, bottom * width)
