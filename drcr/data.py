"""Prepared data as PyTorch data sets: `TrainPatches` for training, `ValidImages` for validation.

A prepared folder holds one HDF5 file per scene, `NAME.h5` (`cube` float32 (bands, H, W) and `rgb` (3, H, W) as
decoded, both contiguous, and a checksum), and `index.json` with the scenes' names, the wavelengths of their bands,
patch size and stride, and what was done about dark values. drcr/preparation/prepare.py writes it. Scenes are mapped
into memory, not read: worker processes share the pages, and only the pages of the requested patches are touched.
"""

import bisect
import json
import math
import zlib
from collections.abc import Iterable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from drcr.cube import describe_floor, same_bands
from drcr.images import InputEncoding, normalise_rgb
from drcr.utils.files import BROKEN, DataError, is_out_of_memory, printable, refuse_foreign

INDEX = "index.json"
_INDEX_LIMIT = 100_000_000  # bytes; that of 10,000 scenes has less than one million
PROVENANCE = ("patch_size", "stride", "floor", "scenes", "input_encoding")
_RGB_TYPES = (np.uint8, np.uint16, np.float32)  # float32: decoded to linear light
_SIGNATURE, _MARKS = b"\x89HDF\r\n\x1a\n", (b"source\0", b"peak\0", b"raised\0", b"wavelengths\0")


def read_index(out: Path) -> dict | None:
    """Return the index of a prepared folder; None if it is missing, unfinished, damaged or changed.

    Scene names are file names without a folder: a changed index cannot point outside the prepared folder.
    """
    index = _read_json(out / INDEX)
    try:
        return index if _is_valid(index) else None
    except BROKEN:  # of other types than preparation writes
        return None


def _read_json(path: Path) -> Any:
    """Return the contents of a JSON file; None if it has none."""
    if not path.is_file() or path.stat().st_size > _INDEX_LIMIT:
        return None
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError):
        return None


def _is_valid(index: Any) -> bool:
    """Return whether an index's values are in the ranges that preparation writes."""
    scenes, nm, floor = index["scenes"], index["wavelengths"], index["floor"]
    sizes, counts = [index["patch_size"], index["stride"]], [*index["raised"], index["n_values"]]
    return (
        isinstance(scenes, list)
        and all(Path(name).name == printable(name) == name for name in scenes)
        and 0 < len(set(scenes)) == len(scenes) == len(counts) - 1
        and index["input_encoding"] in get_args(InputEncoding)
        and len(nm) > 0
        and all(low < high < math.inf for low, high in pairwise([0, *nm]))
        and all(type(count) is int and 0 <= count < 2**63 for count in counts)
        and (sizes == [None, None] or all(type(size) is int and size > 0 for size in sizes))
        and (floor is None or (type(floor) is not bool and 0 < floor < math.inf))
    )


def check_targets(out: Path, names: Iterable[str]) -> None:
    """Raise DataError if an index or scenes that are about to be written would replace files that are not ours."""
    remedy = "move it, or choose another folder"
    refuse_foreign(out / INDEX, _is_index, "an index of prepared data", remedy)
    for name in names:
        refuse_foreign(out / f"{name}.h5", is_prepared, "a prepared scene", remedy)


def remove_scenes(out: Path, names: Iterable[str]) -> None:
    """Remove the prepared scenes of these names, and no other files."""
    for name in names:
        path = out / f"{name}.h5"
        if Path(name).name == name and is_prepared(path):
            path.unlink()


def _is_index(path: Path) -> bool:
    index = _read_json(path)
    return isinstance(index, dict) and index.keys() >= {"scenes", "wavelengths", "patch_size", "stride"}


def is_prepared(path: Path) -> bool:
    """Return whether a file is a prepared scene, perhaps a damaged one: whether it begins like one."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(1 << 16)
    return start.startswith(_SIGNATURE) and all(mark in start for mark in _MARKS)


def scene_checksum(
    cube: np.ndarray, rgb: np.ndarray, peak: float, wavelengths: np.ndarray, raised: int, input_encoding: str
) -> int:
    """Return the CRC-32 of a prepared scene: of all that training uses of it. Arrays are channel first."""
    checksum = zlib.crc32(np.array([peak, raised, *wavelengths], np.float64).tobytes() + input_encoding.encode())
    for array in (rgb, cube):
        for part in array:
            checksum = zlib.crc32(np.ascontiguousarray(part).data, checksum)
    return checksum


def patch_grid(height: int, width: int, patch_size: int, stride: int) -> tuple[int, int]:
    """Return how many full patches fit down and across, with corners at multiples of the stride."""
    return (height - patch_size) // stride + 1, (width - patch_size) // stride + 1


class PreparedScene:
    """A prepared scene, mapped into memory: `cube` (bands, H, W) float32, `rgb` (3, H, W), `peak` of the image."""

    def __init__(self, path: Path) -> None:
        """Look at the file. Raises DataError if it is missing or damaged."""
        self.path, self._in_memory = path, False
        try:
            if not path.is_file():
                raise ValueError("missing, or no file")
            self.n_bytes = path.stat().st_size
            with h5py.File(path) as file:
                self._layout = {name: self._locate(file, name) for name in ("cube", "rgb")}
                (n_bands, *size), (n_channels, *rgb_size) = self._layout["cube"][2], self._layout["rgb"][2]
                self.wavelengths = _attribute(file["cube"], "wavelengths", (n_bands,))
                self.raised = int(_attribute(file["cube"], "raised"))
                self.peak = float(_attribute(file["rgb"], "peak"))
                self.source = file.attrs.get("source")
                self.decoding = _text(file["rgb"], "decoding")
                self.input_encoding: Any = _text(file["rgb"], "input_encoding")
                self._checksum = int(_attribute(file, "checksum"))
            self.size = size[0], size[1]
            if size != rgb_size or n_channels != 3:
                raise ValueError("image and cube do not belong together")
            if self._layout["cube"][1] != np.float32 or self._layout["rgb"][1] not in _RGB_TYPES:
                raise ValueError("other types than preparation writes")
            if self.input_encoding not in get_args(InputEncoding):
                raise ValueError(f"input encoding {self.input_encoding}")
            if not 0 < self.peak < 2**16:
                raise ValueError(f"peak {self.peak}")
        except BROKEN as error:
            if is_out_of_memory(error):
                raise
            raise DataError(f"{path}: missing or damaged; run the preparation again") from error
        self._arrays: dict[str, np.ndarray] = {}

    def _locate(self, file: h5py.File, name: str) -> tuple[int, np.dtype, tuple[int, ...]]:
        """Return a data set's place in the file, type and shape."""
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is a link")
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 3 or not dataset.size:
            raise ValueError(f"{name} is not an array of three dimensions")
        offset = dataset.id.get_offset()
        layout = dataset.id.get_create_plist()
        if layout.get_layout() != h5py.h5d.CONTIGUOUS or layout.get_external_count() or offset is None:
            raise ValueError(f"{name} is not in the file, in one piece")
        if offset + dataset.nbytes > self.n_bytes:
            raise ValueError(f"{name} goes beyond the end of the file")
        return offset, dataset.dtype, dataset.shape

    def verify(self) -> None:
        """Read the scene. Raises DataError if it is not what preparation wrote."""
        cube, rgb = self.array("cube"), self.array("rgb")
        facts = self.peak, self.wavelengths, self.raised, self.input_encoding
        if scene_checksum(cube, rgb, *facts) != self._checksum:
            raise DataError(f"{self.path}: was changed or damaged (checksum differs); run the preparation again")

    def _set_arrays(self, contents: np.ndarray) -> None:
        for name, (offset, dtype, shape) in self._layout.items():
            count = math.prod(shape) * dtype.itemsize
            self._arrays[name] = contents[offset : offset + count].view(dtype).reshape(shape)

    def array(self, name: str) -> np.ndarray:
        """Return `cube` or `rgb` without reading it. Raises DataError if the file has changed its size."""
        if not self._in_memory:
            try:
                n_bytes = self.path.stat().st_size
            except OSError:
                n_bytes = 0
            if n_bytes != self.n_bytes:  # touching a page beyond the end would kill the process
                raise DataError(f"{self.path}: removed or truncated since the start; run the preparation again")
        if not self._arrays:
            # torch's map, unlike NumPy's, keeps no file open: a thousand scenes would reach the system's limit
            mapped = torch.from_file(str(self.path), shared=False, size=self.n_bytes, dtype=torch.uint8)
            self._set_arrays(mapped.numpy())
        return self._arrays[name]

    def load(self) -> None:
        """Read the file into memory; afterwards nothing is read from the disk. Raises DataError as `verify` does."""
        contents = np.fromfile(self.path, np.uint8)
        if contents.nbytes != self.n_bytes:
            raise DataError(f"{self.path}: removed or truncated since the start; run the preparation again")
        self._set_arrays(contents)
        self._in_memory = True
        self.verify()

    def crop(self, top: int, left: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return a window as (rgb, cube): float32 (3, h, w), divided by the image's peak, and (bands, h, w).

        The cube is a view of the mapped file: copy it before you pass it on.
        """
        window = np.s_[:, top : top + height, left : left + width]
        rgb = normalise_rgb(self.array("rgb")[window], self.peak)
        return torch.from_numpy(rgb), torch.from_numpy(self.array("cube")[window])


def _attribute(item: Any, name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Return an attribute of this shape as float64. Raises ValueError, KeyError or TypeError for any other."""
    stored = item.attrs.get_id(name)
    if stored.shape != shape or stored.dtype.kind not in "fiu":
        raise ValueError(f"{name} is not numbers of shape {shape}")
    return np.asarray(item.attrs[name], np.float64)


def _text(item: Any, name: str) -> str:
    """Return an attribute that is a short text. Raises ValueError, KeyError or TypeError for any other."""
    value = item.attrs[name]
    if not isinstance(value, bytes):
        raise TypeError(f"{name} is not a text")
    return value.decode()


class PreparedFolder(Dataset):
    """What the two data sets share: the index and the scenes of a prepared folder.

    `names` of the scenes, `wavelengths` of their bands in nm, `input_encoding` of the images; `dark_values`: a line
    on the values that preparation raised to a floor, None if it skipped such scenes; `provenance`: patch size,
    stride, floor, scenes and input encoding, which a resumed run must find unchanged.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the folder. Raises DataError if it is not prepared, or a scene is missing or damaged."""
        self.path = Path(path)
        index = read_index(self.path)
        if index is None:
            raise DataError(
                f"{self.path.resolve()}: no prepared data, or not finished; run train_data_preprocess.py and "
                "valid_data_preprocess.py"
            )
        self.names, self.wavelengths = index["scenes"], index["wavelengths"]
        self.input_encoding: InputEncoding = index["input_encoding"]
        self.dark_values = None
        if index["floor"] is not None:
            self.dark_values = describe_floor(index["floor"], index["raised"], index["n_values"])
        self.provenance = {name: index[name] for name in PROVENANCE}
        self.scenes = [PreparedScene(self.path / f"{name}.h5") for name in self.names]
        for scene in self.scenes:
            if not same_bands(scene.wavelengths, self.wavelengths):
                raise DataError(f"{scene.path}: has other bands than {INDEX} states; run the preparation again")
            if scene.input_encoding != self.input_encoding:
                raise DataError(
                    f"{scene.path}: is not {self.input_encoding}, as {INDEX} states; run the preparation again"
                )

    @property
    def n_bytes(self) -> int:
        """The size of the scenes' files."""
        return sum(scene.n_bytes for scene in self.scenes)


class TrainPatches(PreparedFolder):
    """The training patches of a folder that train_data_preprocess.py wrote.

    Item i is (rgb, cube), float32: (3, p, p) in [0, 1], and (bands, p, p) > 0. Patches go row by row, left to right,
    scene by scene, as the released code numbers them.

    Parameters
    ----------
    path : str or Path
        The prepared folder. Raises DataError if it is not prepared, or prepared for validation.
    cache : bool
        Read all scenes into memory at once; worker processes share them.
    """

    def __init__(self, path: str | Path, cache: bool = False) -> None:
        """Open the prepared folder."""
        super().__init__(path)
        self.patch_size, self.stride = self.provenance["patch_size"], self.provenance["stride"]
        if self.patch_size is None:
            raise DataError(f"{path}: prepared for validation; training needs train_data_preprocess.py")
        for scene in self.scenes:
            if min(scene.size) < self.patch_size:
                raise DataError(f"{scene.path}: smaller than a patch of {self.patch_size}; run the preparation again")
        self._grids = [patch_grid(*scene.size, self.patch_size, self.stride) for scene in self.scenes]
        self._ends = list(accumulate(rows * columns for rows, columns in self._grids))
        if cache:
            for scene in self.scenes:
                scene.load()

    def __len__(self) -> int:
        """Return the number of patches."""
        return self._ends[-1]

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Return patch i."""
        ((rgb, cube),) = self.__getitems__([i])
        return rgb, cube.clone(memory_format=torch.contiguous_format)

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Return patches as views, for a DataLoader, which copies them into a batch at once."""
        located = ((self.scenes[scene], top, left) for scene, top, left in map(self.locate, indices))
        return [scene.crop(top, left, self.patch_size, self.patch_size) for scene, top, left in located]

    def locate(self, i: int) -> tuple[int, int, int]:
        """Return the number of patch i's scene, and the patch's top and left pixel in it."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        scene = bisect.bisect_right(self._ends, i)
        rows, columns = self._grids[scene]
        row, column = divmod(i - (self._ends[scene] - rows * columns), columns)
        return scene, row * self.stride, column * self.stride


class ValidImages(PreparedFolder):
    """The whole validation images of a folder that valid_data_preprocess.py wrote, or train_data_preprocess.py.

    Item i is (rgb, cube), float32: (3, H - drop_rows, W) in [0, 1] and (bands, H - drop_rows, W) > 0.

    Parameters
    ----------
    path : str or Path
        The prepared folder. Raises DataError if it is not prepared.
    drop_rows : int
        How many rows to drop at the bottom. The released loader drops two (480 of 482 is a multiple of 4).
    """

    def __init__(self, path: str | Path, drop_rows: int = 2) -> None:
        """Open the prepared folder."""
        super().__init__(path)
        self.drop_rows = drop_rows
        for scene in self.scenes:
            if scene.size[0] - drop_rows < 4 or scene.size[1] < 4:
                raise DataError(f"{scene.path}: too small to validate with; run the preparation again")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.scenes)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Return image i."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        height, width = self.scenes[i].size
        rgb, cube = self.scenes[i].crop(0, 0, height - self.drop_rows, width)
        return rgb, cube.clone(memory_format=torch.contiguous_format)
