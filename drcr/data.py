"""Prepared data as PyTorch data sets: `TrainPatches` for training, `ValidImages` for validation.

A prepared folder holds one HDF5 file per scene, `NAME.h5` (`cube` float32 (bands, H, W) and `rgb` (3, H, W) as
decoded, both contiguous), and `index.json` with the scenes' names, the wavelengths of their bands, patch size and
stride, and what was done about dark values. drcr/preparation/prepare.py writes it. Scenes are mapped into memory, not
read: worker processes share the pages, and only the pages of the requested patches are touched.
"""

import bisect
import json
import math
from itertools import accumulate
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from drcr.cube import describe_floor
from drcr.images import normalise_rgb
from drcr.utils.files import DataError

INDEX = "index.json"
_INDEX_KEYS = {"scenes", "wavelengths", "patch_size", "stride", "floor", "raised", "n_values"}


def read_index(out: Path) -> dict | None:
    """Return the index of a prepared folder; None if it is missing, unfinished or damaged.

    Scene names are file names without a folder: a changed index cannot point outside the prepared folder.
    """
    try:
        index = json.loads((out / INDEX).read_text())
        plain_names = all(Path(name).name == name for name in index["scenes"])
        return index if plain_names and index.keys() >= _INDEX_KEYS else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def patch_grid(height: int, width: int, patch_size: int, stride: int) -> tuple[int, int]:
    """Return how many full patches fit down and across, with corners at multiples of the stride."""
    return (height - patch_size) // stride + 1, (width - patch_size) // stride + 1


class _PreparedScene:
    """A prepared scene, mapped into memory: `cube` (bands, H, W) float32, `rgb` (3, H, W), `peak` of the image."""

    def __init__(self, path: Path) -> None:
        try:
            self.path, self.n_bytes, self._in_memory = path, path.stat().st_size, False
            with h5py.File(path) as file:
                self._layout = {name: self._locate(file, name) for name in ("cube", "rgb")}
                self.peak = float(np.float64(file["rgb"].attrs["peak"]))  # pyright: ignore[reportArgumentType]
            (_, *size), (_, *cube_size) = self._layout["rgb"][2], self._layout["cube"][2]
            self.size = size[0], size[1]
            if size != cube_size:
                raise ValueError("image and cube differ in size")
        except (OSError, LookupError, ValueError, TypeError, RuntimeError) as error:
            raise DataError(f"{path}: missing or damaged; run the preparation again") from error
        self._arrays: dict[str, np.ndarray] = {}

    def _locate(self, file: h5py.File, name: str) -> tuple[int, np.dtype, tuple[int, ...]]:
        """Return a data set's place in the file, type and shape."""
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 3:
            raise ValueError(f"{name} is not an array of three dimensions")
        offset = dataset.id.get_offset()
        if offset is None or offset + dataset.nbytes > self.n_bytes:
            raise ValueError(f"{name} is not in the file, in one piece")
        return offset, dataset.dtype, dataset.shape

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
        """Read the file into memory; afterwards nothing is read from the disk."""
        self._set_arrays(np.fromfile(self.path, np.uint8))
        self._in_memory = True

    def crop(self, top: int, left: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return a window as (rgb, cube): float32 (3, h, w), divided by the image's peak, and (bands, h, w).

        The cube is a view of the mapped file: copy it before you pass it on.
        """
        window = np.s_[:, top : top + height, left : left + width]
        rgb = normalise_rgb(self.array("rgb")[window], self.peak)
        return torch.from_numpy(rgb), torch.from_numpy(self.array("cube")[window])


class PreparedFolder(Dataset):
    """What the two data sets share: the index and the scenes of a prepared folder.

    Attributes
    ----------
    path : Path
    names : list of str
        The scenes.
    wavelengths : list of float
        Of the bands, in nm.
    dark_values : str or None
        One line on the values that preparation raised to a floor; None if it skipped such scenes.
    provenance : dict
        Patch size, stride, floor and scenes: what a resumed run must find unchanged.
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
        self.dark_values = None
        if index["floor"] is not None:
            self.dark_values = describe_floor(index["floor"], index["raised"], index["n_values"])
        self.provenance = {name: index[name] for name in ("patch_size", "stride", "floor", "scenes")}
        self.scenes = [_PreparedScene(self.path / f"{name}.h5") for name in self.names]

    @property
    def n_bytes(self) -> int:
        """The size of the scenes' files."""
        return sum(scene.n_bytes for scene in self.scenes)


class TrainPatches(PreparedFolder):
    """The training patches of a folder that train_data_preprocess.py wrote.

    Item i is (rgb, cube), float32: (3, p, p) in [0, 1], and (bands, p, p) > 0. Patches go row by row, left to right,
    scene by scene, as the released code numbers them. Attributes: those of `PreparedFolder`, and `patch_size` and
    `stride`.

    Parameters
    ----------
    path : str or Path
        The prepared folder.
    cache : bool
        Read all scenes into memory at once; worker processes share them.

    Raises
    ------
    DataError
        If the folder is not prepared, or prepared for validation.
    """

    def __init__(self, path: str | Path, cache: bool = False) -> None:
        """Open the prepared folder."""
        super().__init__(path)
        self.patch_size, self.stride = self.provenance["patch_size"], self.provenance["stride"]
        if self.patch_size is None:
            raise DataError(f"{path}: prepared for validation; training needs train_data_preprocess.py")
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
    """The whole validation images of a folder that valid_data_preprocess.py wrote.

    Item i is (rgb, cube), float32: (3, H - drop_rows, W) in [0, 1] and (bands, H - drop_rows, W) > 0. Attributes:
    those of `PreparedFolder`. Folders that were prepared for training open, too.

    Parameters
    ----------
    path : str or Path
        The prepared folder.
    drop_rows : int
        How many rows to drop at the bottom. The released loader drops two (480 of 482 is a multiple of 4).

    Raises
    ------
    DataError
        If the folder is not prepared.
    """

    def __init__(self, path: str | Path, drop_rows: int = 2) -> None:
        """Open the prepared folder."""
        super().__init__(path)
        self.drop_rows = drop_rows

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
