"""A seeded generator of odd inputs: valid files of every format, changed in one way, and what must come of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import h5py
import numpy as np
import scipy.io
import spectral.io.envi
import tifffile

WL = np.arange(400.0, 701.0, 10.0)
NAME = "scene"


@dataclass
class Odd:
    """An input below `folder`, options of import_cubes.py for it, and what must come of it.

    `cube` and `wavelengths`: what must be imported, if it is. `refused`: whether it must be (None: it may be).
    """

    what: str
    cube: np.ndarray | None
    refused: bool | None = False
    wavelengths: np.ndarray = field(default_factory=lambda: WL)
    options: tuple = ()
    atol: float = 1e-6
    any_order: bool = False
    """Compare the values regardless of their order."""


def base_cube(rng: np.random.Generator) -> np.ndarray:
    """Return (12, 16, 31) float32, unlike along all axes, from 0.05 to 0.9."""
    rows, columns, bands = np.ogrid[0:1:12j, 0:1:16j, 0:1:31j]
    cube = 0.4 * rows + 0.3 * columns**2 + 0.3 * bands * (0.5 + 0.5 * rows) + 0.05 * rng.random((12, 16, 31))
    return np.float32(0.05 + 0.85 * (cube - cube.min()) / (cube.max() - cube.min()))


def write_v5(folder: Path, cube: np.ndarray, bands: np.ndarray | None) -> Path:
    path = folder / f"{NAME}.mat"
    scipy.io.savemat(path, {"cube": cube} | ({} if bands is None else {"bands": bands}))
    return path


def write_h5(folder: Path, cube: np.ndarray, bands: np.ndarray | None, **options) -> Path:
    path = folder / f"{NAME}.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("cube", data=cube, **options)
        if bands is not None:
            file["wavelengths"] = bands
    return path


def write_v73(folder: Path, cube: np.ndarray, bands: np.ndarray | None) -> Path:
    path = folder / f"{NAME}.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["cube"] = cube.T
        file["cube"].attrs["MATLAB_class"] = np.bytes_("single")
        if bands is not None:
            file["wavelength"] = bands[None].T
    return path


def write_npz(folder: Path, cube: np.ndarray, bands: np.ndarray | None) -> Path:
    path = folder / f"{NAME}.npz"
    np.savez(path, cube=cube, **({} if bands is None else {"wl": bands}))
    return path


def write_envi(folder: Path, cube: np.ndarray, bands: object = None, interleave: str = "bsq", **fields) -> Path:
    path = folder / f"{NAME}.hdr"
    metadata = fields | ({} if bands is None else {"wavelength": [str(nm) for nm in np.ravel(bands)]})
    metadata = {name.replace("_", " "): value for name, value in metadata.items()}
    spectral.io.envi.save_image(
        str(path), cube, dtype=cube.dtype, force=True, interleave=interleave, ext=".raw", metadata=metadata
    )
    return path


ENVI_CHANGES = [
    "ignored",
    "ignore",
    "factor",
    "gains",
    "both",
    "bad",
    "all-bad",
    "units",
    "offset",
    "latin",
    "bom",
    "no-order",
    "drop",
    "line",
    "compressed",
    "longer",
    "no-data",
    "frames",
    "library",
]
HDF5_CHANGES = [
    "filled",
    "fill",
    "scale",
    "external-link",
    "external-storage",
    "virtual",
    "unwritten",
    "gzip",
    "soft-link",
    "group",
    "labels",
    "text-scale",
]
LISTED: dict[str, Callable] = {
    "v5": write_v5,
    "v7.3": write_v73,
    "h5": write_h5,
    "npz": write_npz,
    "envi": write_envi,
}


def odd_list(folder: Path, rng: np.random.Generator, cube: np.ndarray) -> Odd:
    """Write a file whose list of wavelengths is odd."""
    kind = rng.choice(list(LISTED))
    write = LISTED[kind]
    change = rng.choice(
        ["shuffled", "falling", "um", "double", "short", "nan", "negative", "numbers", "none", "angstrom"]
    )
    what = f"{kind}, list {change}"
    order = rng.permutation(31)
    if change == "shuffled":
        write(folder, cube[..., order], WL[order])
    elif change == "falling":
        write(folder, cube[..., ::-1].copy(), WL[::-1])
    elif change == "um":
        write(folder, cube, WL / 1000)
    elif change == "double":
        write(folder, cube[..., [*range(31), 7]], WL[[*range(31), 7]])
    elif change in ("short", "nan", "negative", "angstrom"):
        bands = {
            "short": WL[:-1],
            "nan": WL * np.where(WL == 500, np.nan, 1),
            "negative": WL - 450,
            "angstrom": WL * 10,
        }
        write(folder, cube, bands[change])
        return Odd(what, None, refused=True)
    else:
        write(folder, cube, np.arange(1.0, 32) if change == "numbers" else None)
    return Odd(what, cube)


def odd_axes(folder: Path, rng: np.random.Generator, cube: np.ndarray) -> Odd:
    """Write a file with its axes in another order."""
    axis = int(rng.integers(3))
    turned = np.ascontiguousarray(np.moveaxis(cube, 2, axis))
    kind = rng.choice(["v5", "h5", "npz", "npy", "tif"])
    given = bool(rng.integers(2))
    if kind == "npy":
        np.save(folder / f"{NAME}.npy", turned)
    elif kind == "tif":
        tifffile.imwrite(folder / f"{NAME}.tif", turned, photometric="minisblack")
    else:
        LISTED[kind](folder, turned, None)
    options = ("--wavelengths", 400, 10) if given else ()
    # the first wavelength and the step say nothing about the axis
    return Odd(f"{kind}, bands on axis {axis}, {options}", cube, refused=given, options=options)


def odd_type(folder: Path, rng: np.random.Generator, cube: np.ndarray) -> Odd:
    """Write numbers of another type."""
    kind = rng.choice(["v5", "h5", "npz", "npy", "envi", "tif"])
    types = (
        ["f8", "u2", "i4", "u1"]
        + (["c8", "?"] if kind not in ("envi", "tif") else [])
        + [">f4", ">u2"] * (kind != "envi")
    )
    dtype = np.dtype(str(rng.choice(types)))
    peak = {"u2": 60000, "i4": 100000, "u1": 255}.get(dtype.str[1:], 1)
    values = np.round(cube * peak).astype(dtype) if dtype.kind in "ui" else cube.astype(dtype)
    if kind == "npy":
        np.save(folder / f"{NAME}.npy", values)
    elif kind == "tif":
        order = ">" if dtype.str[0] == ">" else "<"
        pages = values.transpose(2, 0, 1)
        tifffile.imwrite(folder / f"{NAME}.tif", pages, photometric="minisblack", byteorder=order)
    else:
        LISTED[kind](folder, values, WL)
    options = ("--scale", peak) if peak > 1 else ()
    return Odd(
        f"{kind} of {dtype}", cube, refused=dtype.kind in "cb", options=options, atol=0.6 / peak if peak > 1 else 1e-6
    )


def odd_envi(folder: Path, rng: np.random.Generator, cube: np.ndarray) -> Odd:
    """Write an ENVI pair with odd fields."""
    change = str(rng.choice(ENVI_CHANGES))
    what, counts = f"envi, {change}", np.round(cube * 10000).astype(np.uint16)
    interleave = str(rng.choice(["bsq", "bil", "bip"]))
    refused: bool | None = False
    expected, wavelengths, atol, options = cube, WL, 1e-6, ()
    if change in ("ignored", "ignore"):
        values = cube.copy()
        if change == "ignored":
            values[2, 3:7, rng.integers(31)] = -9999
        path = write_envi(folder, values, WL, interleave, data_ignore_value=-9999)
        refused = change == "ignored"
    elif change in ("factor", "both"):
        gains = {"data_gain_values": ["2"] * 31} if change == "both" else {}
        path = write_envi(folder, counts, WL, interleave, reflectance_scale_factor=10000, **gains)
        refused, atol = change == "both", 1e-4
    elif change == "gains":
        gains = rng.uniform(1e-4, 2e-4, 31)
        raw = np.round((cube + 0.01) / gains).astype(np.uint16)
        lists = {"data_gain_values": [str(x) for x in gains], "data_offset_values": ["-0.01"] * 31}
        path, atol = write_envi(folder, raw, WL, interleave, **lists), 2e-4
    elif change in ("bad", "all-bad"):
        flags = np.ones(31, int)
        flags[[4, 17]] = 0
        refused = change == "all-bad"
        path = write_envi(folder, cube, WL, interleave, bbl=[str(x) for x in flags * (not refused)])
        expected, wavelengths = cube[..., flags == 1], WL[flags == 1]
    elif change == "units":
        unit, factor = [("Nanometers", 1), ("Micrometers", 1e-3), ("Angstroms", 10), ("parsec", 1)][rng.integers(4)]
        path = write_envi(folder, cube, WL * factor, interleave, wavelength_units=unit)
        what, refused = f"{what} {unit}", unit == "parsec"
    else:
        path = write_envi(folder, cube, WL, interleave, operator="{Jürgen}" if change == "latin" else "me")
        text = path.read_text()
        if change == "no-order":
            text = text.replace("byte order = 0\n", "")
        elif change == "drop":
            dropped = str(rng.choice(["samples", "lines", "bands", "data type", "interleave"]))
            text = "\n".join(line for line in text.split("\n") if not line.startswith(f"{dropped} ="))
            what, refused = f"{what} {dropped}", True
        elif change in ("line", "compressed", "frames", "library"):
            text += {"line": "data ignore value -9999\n", "compressed": "file compression = 1\n",
                     "frames": "major frame offsets = {3, 0}\n", "library": ""}[change]  # fmt: skip
            text = text.replace("ENVI Standard", "ENVI Spectral Library") if change == "library" else text
            refused = True
        elif change == "offset":
            data = path.with_suffix(".raw")
            data.write_bytes(bytes(100) + data.read_bytes())
            text = text.replace("header offset = 0", "header offset = 100")
        elif change == "longer":
            data = path.with_suffix(".raw")
            data.write_bytes(data.read_bytes() + bytes(64))
            refused = True
        elif change == "no-data":
            path.with_suffix(".raw").unlink()
            refused = True
        path.write_bytes(text.encode({"latin": "latin-1", "bom": "utf-8-sig"}.get(change, "utf-8")))
    return Odd(what, expected, refused, wavelengths, options, atol)


def odd_hdf5(folder: Path, rng: np.random.Generator, cube: np.ndarray) -> Odd:
    """Write an HDF5 file with attributes, links or storage that change what its values mean."""
    change = str(rng.choice(HDF5_CHANGES))
    path, other = folder / f"{NAME}.h5", folder.parent / "other.h5"
    refused, options = (
        change in ("filled", "external-link", "external-storage", "virtual", "unwritten", "text-scale"),
        (),
    )
    with h5py.File(other, "w") as file:
        file["cube"] = cube
    with h5py.File(path, "w") as file:
        file["wavelengths"] = WL
        if change == "external-link":
            file["cube"] = h5py.ExternalLink(str(other), "cube")
        elif change == "external-storage":
            (folder.parent / "raw").write_bytes(cube.tobytes())
            file.create_dataset("cube", cube.shape, "f4", external=[(str(folder.parent / "raw"), 0, cube.nbytes)])
        elif change == "virtual":
            layout = h5py.VirtualLayout(cube.shape, "f4")
            layout[:] = h5py.VirtualSource(str(other), "cube", cube.shape)
            file.create_virtual_dataset("cube", layout)
        elif change == "unwritten":
            file.create_dataset("cube", cube.shape, "f4", chunks=(4, 16, 31))[:8] = cube[:8]
        elif change == "soft-link":
            file["stored/here"] = cube
            file["cube"] = h5py.SoftLink("/stored/here")
        elif change == "group":
            file["hsi/Data"], options = cube, ("--variable", "hsi.Data")
        elif change == "labels":
            file["cube"] = cube.transpose(2, 0, 1)
            del file["wavelengths"]
            file["cube"].dims[0].label = "band"
            options = ("--wavelengths", 400, 10)
        else:
            values = cube.copy()
            if change == "filled":
                values[1, 2, 3] = -9999
            if change == "scale":
                values = np.round((cube - 0.1) / 2e-5).astype(np.int32)
            file.create_dataset("cube", data=values, compression="gzip" if change == "gzip" else None)
            if change in ("fill", "filled"):
                file["cube"].attrs["_FillValue"] = np.float32(-9999)
            if change == "scale":
                file["cube"].attrs.update(scale_factor=2e-5, add_offset=0.1)
            if change == "text-scale":
                file["cube"].attrs["scale_factor"] = "0.1"
    return Odd(f"h5, {change}", cube, refused, options=options, atol=2e-5 if change == "scale" else 1e-6)


def odd_tiff(folder: Path, rng: np.random.Generator, cube: np.ndarray) -> Odd:
    """Write a TIFF with odd tags or pages."""
    change = str(rng.choice(["deflate", "white", "turned", "pixels", "planes", "mixed", "nodata", "imagej", "flat"]))
    path, pages, refused = (
        folder / f"{NAME}.tif",
        cube.transpose(2, 0, 1),
        change in ("white", "turned", "mixed", "nodata", "flat"),
    )
    if change == "pixels":
        tifffile.imwrite(path, cube, photometric="minisblack", planarconfig="contig")
    elif change == "planes":
        tifffile.imwrite(path, pages, photometric="minisblack", planarconfig="separate")
    elif change == "imagej":
        tifffile.imwrite(path, pages, imagej=True, metadata={"axes": "CYX"})
    elif change == "mixed":
        with tifffile.TiffWriter(path) as file:
            for i, page in enumerate(pages):
                file.write(page if i != 5 else np.uint16(page * 9), photometric="minisblack")
    elif change == "flat":
        tifffile.imwrite(path, pages[0], photometric="minisblack")
    else:
        options = {
            "deflate": {"compression": "zlib"},
            "white": {"photometric": "miniswhite"},
            "turned": {"extratags": [(274, "H", 1, 6, True)]},
            "nodata": {"extratags": [(42113, "s", 0, str(float(pages[0, 0, 0])), True)]},
        }[change]
        tifffile.imwrite(path, pages, **({"photometric": "minisblack"} | options))
    return Odd(f"tiff, {change}", cube, refused)


def odd_bands(folder: Path, rng: np.random.Generator, cube: np.ndarray) -> Odd:
    """Write a folder with one image per band."""
    change = str(rng.choice(["nm", "numbers", "counters", "size", "colour", "depth", "twice"]))
    scene = folder / NAME
    scene.mkdir()
    bands = np.round(cube * 60000).astype(np.uint16)
    for i in rng.permutation(31):
        image = bands[..., i]
        if i == 9 and change == "size":
            image = image[:-1]
        if i == 9 and change == "colour":
            image = np.dstack([image, image // 2, image])
        if i == 9 and change == "depth":
            image = (image // 257).astype(np.uint8)
        name = {"nm": f"x12_{WL[i]:g}nm", "numbers": f"b_{WL[i]:g}", "twice": f"b_{WL[max(i, 1)]:g}nm_{i:02}"}.get(
            change, f"b{i + 1}"
        )
        cv2.imwrite(str(scene / f"{name}.png"), image)
    refused = change in ("size", "colour", "depth")
    expected = cube
    if change == "twice":  # 400 nm is called 410 nm: without names that tell, the order counts
        refused = None
    return Odd(f"band files, {change}", expected, refused, options=("--scale", 60000), atol=1e-5)


def damaged(folder: Path, rng: np.random.Generator, cube: np.ndarray) -> Odd:
    """Cut a file off, or change some of its first bytes."""
    kind = str(rng.choice(["v5", "v7.3", "h5", "npz", "npy", "tif", "envi"]))
    if kind == "npy":
        path = folder / f"{NAME}.npy"
        np.save(path, cube)
    elif kind == "tif":
        path = folder / f"{NAME}.tif"
        tifffile.imwrite(path, cube.transpose(2, 0, 1), photometric="minisblack")
    else:
        path = LISTED[kind](folder, cube, WL)
    if kind == "envi" and rng.integers(2):
        path = path.with_suffix(".raw")
    data = bytearray(path.read_bytes())
    cut = bool(rng.integers(2))
    if cut:
        data = data[: rng.integers(len(data))]
    else:
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(min(len(data), 400))] = rng.integers(256)
    path.write_bytes(data)
    if cut:  # what is cut off may be nothing that is needed
        return Odd(f"{kind}, cut off", cube, refused=None)
    try:
        reference = plain_reading(path)
    except Exception:
        reference = None
    return Odd(f"{kind}, bytes changed", reference, refused=None, any_order=True)


def plain_reading(path: Path) -> np.ndarray:
    """Return what the library of a format reads, without any of our rules."""
    kind = path.suffix
    if kind in (".npy", ".npz"):
        loaded = np.load(path)
        return loaded if kind == ".npy" else loaded["cube"]
    if kind == ".tif":
        return tifffile.imread(path)
    if kind in (".hdr", ".raw"):
        return np.array(spectral.io.envi.open(str(path.with_suffix(".hdr"))).open_memmap())
    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            return file["cube"][()]
    return scipy.io.loadmat(path)["cube"]


KINDS = (odd_list, odd_axes, odd_type, odd_envi, odd_hdf5, odd_tiff, odd_bands, damaged)


def make(seed: int, folder: Path) -> Odd:
    """Write the odd input of a seed into a new folder; return what must come of it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    return KINDS[seed % len(KINDS)](folder, rng, base_cube(rng))
