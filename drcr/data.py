"""Prepared data as PyTorch data sets: `TrainPatches` for training, `ValidImages` for validation.

Scenes are mapped into memory, not read: pages are shared between workers, and only those of the patches asked
for are touched.
"""

import bisect
import json
import math
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from drcr.compute.memory import free_memory
from drcr.cube import describe_floor
from drcr.images import normalise_rgb
from drcr.training.distributed import World
from drcr.utils.files import DataError

INDEX = "index.json"


def read_index(out: Path) -> dict | None:
    """Return the index of a folder that an earlier run finished, None if there is none."""
    try:
        index = json.loads((out / INDEX).read_text())
        return index if "wavelengths" in index else None
    except (OSError, ValueError):
        return None


def patch_grid(height: int, width: int, patch_size: int, stride: int) -> tuple[int, int]:
    """Return how many full windows fit down and across, with corners at multiples of the stride."""
    return (height - patch_size) // stride + 1, (width - patch_size) // stride + 1


class _Scene:
    """A prepared scene, mapped into memory: `cube` (bands, H, W) float32, `rgb` (3, H, W), `peak` of the image."""

    def __init__(self, path: Path) -> None:
        try:
            with h5py.File(path) as file:
                self._layout = {
                    name: (file[name].id.get_offset(), file[name].dtype, file[name].shape) for name in ("cube", "rgb")
                }
                self.peak = float(file["rgb"].attrs["peak"])
        except (OSError, KeyError) as error:
            raise DataError(f"{path}: missing or damaged; run the preparation again") from error
        self.path, self._n_bytes, self._in_memory = path, path.stat().st_size, False
        self.size = self._layout["rgb"][2][1:]
        self._arrays: dict[str, np.ndarray] = {}

    def _take(self, contents: np.ndarray) -> None:
        """Take cube and image from the file's bytes."""
        for name, (offset, dtype, shape) in self._layout.items():
            count = math.prod(shape) * dtype.itemsize
            self._arrays[name] = contents[offset : offset + count].view(dtype).reshape(shape)

    def array(self, name: str) -> np.ndarray:
        """Return `cube` or `rgb` without reading it. Raises DataError if the file is no longer what it was."""
        if not self._in_memory:
            try:
                n_bytes = self.path.stat().st_size
            except OSError:
                n_bytes = 0
            if n_bytes != self._n_bytes:  # to read what was cut off would kill the process
                raise DataError(f"{self.path}: gone or cut short since the start; run the preparation again")
        if not self._arrays:
            # torch's map, unlike NumPy's, keeps no file open: a thousand scenes would reach the system's limit
            self._take(torch.from_file(str(self.path), shared=False, size=n_bytes, dtype=torch.uint8).numpy())
        return self._arrays[name]

    def load(self) -> None:
        """Read the file into memory: nothing is read from the disk after that."""
        self._take(np.fromfile(self.path, np.uint8))
        self._in_memory = True

    def crop(self, top: int, left: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return a window as (rgb, cube): float32 (3, h, w), divided by the image's peak, and (bands, h, w).

        The cube is a view of the file's map: to be copied before it is given away.
        """
        window = np.s_[:, top : top + height, left : left + width]
        rgb = normalise_rgb(self.array("rgb")[window], self.peak)
        return torch.from_numpy(rgb), torch.from_numpy(self.array("cube")[window])


def _open_index(path: str | Path) -> tuple[dict, list[_Scene]]:
    """Return a prepared folder's index and scenes."""
    path = Path(path)
    index = read_index(path)
    if index is None:
        raise DataError(
            f"{path.resolve()}: no prepared data, or not finished; run train_data_preprocess.py and "
            "valid_data_preprocess.py"
        )
    return index, [_Scene(path / f"{name}.h5") for name in index["scenes"]]


def _dark_values(index: dict) -> str | None:
    return None if index["floor"] is None else describe_floor(index["floor"], index["raised"], index["n_values"])


def _provenance(index: dict) -> dict:
    return {name: index[name] for name in ("patch_size", "stride", "floor", "scenes")}


def _check_room(path: str | Path, n_bytes: int, device: torch.device) -> None:
    """Raise DataError if so much does not fit in a device's free memory, a fifth of which is left to the training."""
    free = free_memory(device)
    if n_bytes > 0.8 * free:
        where = "memory" if device.type == "cpu" else "memory of the graphics card"
        raise DataError(
            f"{path}: to be kept, it needs {n_bytes / 0.8e9:.2f} GB of {where}, a fifth of them for the training; "
            f"{free / 1e9:.2f} GB are free; take --cache none"
        )


class TrainPatches(Dataset):
    """The training patches of a folder that train_data_preprocess.py wrote.

    Item i is (rgb, cube), float32: (3, p, p) in [0, 1], and (bands, p, p) > 0; patches row by row, left to right,
    scene by scene, as the released code numbers them. `names` of the scenes; `wavelengths` of the bands, in nm;
    `dark_values`: what the preparation did about them, in a line, or None; `provenance`: patch size, stride, floor
    and scenes. Raises DataError if the folder is not prepared.
    """

    def __init__(self, path: str | Path, cache: bool = False) -> None:
        """Open the prepared folder `path`; with `cache` read it into memory, which worker processes share."""
        index, self._scenes = _open_index(path)
        if index["patch_size"] is None:
            raise DataError(f"{path}: prepared for validation; training needs train_data_preprocess.py")
        self.path, self.names = Path(path), index["scenes"]
        self.patch_size, self.stride = index["patch_size"], index["stride"]
        self.wavelengths, self.dark_values = index["wavelengths"], _dark_values(index)
        self.provenance = _provenance(index)
        self._grids = [patch_grid(*scene.size, self.patch_size, self.stride) for scene in self._scenes]
        self._ends = list(accumulate(rows * columns for rows, columns in self._grids))
        if cache:
            _check_room(path, sum(scene.path.stat().st_size for scene in self._scenes), torch.device("cpu"))
            for scene in tqdm(self._scenes, desc="reading", unit="scene", dynamic_ncols=True):
                scene.load()

    def __len__(self) -> int:
        """Return the number of patches."""
        return self._ends[-1]

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Return patch i."""
        ((rgb, cube),) = self.__getitems__([i])
        return rgb, cube.clone(memory_format=torch.contiguous_format)

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Return patches for a DataLoader, which copies them into a batch at once: as views."""
        located = ((self._scenes[scene], top, left) for scene, top, left in map(self.locate, indices))
        return [scene.crop(top, left, self.patch_size, self.patch_size) for scene, top, left in located]

    def locate(self, i: int) -> tuple[int, int, int]:
        """Return the number of patch i's scene, and its top and left pixel in it."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        scene = bisect.bisect_right(self._ends, i)
        rows, columns = self._grids[scene]
        row, column = divmod(i - (self._ends[scene] - rows * columns), columns)
        return scene, row * self.stride, column * self.stride

    def whole_scenes(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Return the scenes, (rgb, cube), of which the patches are windows; to be copied before they are changed."""
        return (scene.crop(0, 0, *scene.size) for scene in self._scenes)


class PatchesOnDevice(Dataset):
    """The same training patches from scenes that are kept on a device: batches are cut there.

    For a DataLoader with `collate_fn=PatchesOnDevice.collate`, in one process. Raises DataError if they do not fit.
    """

    def __init__(self, patches: TrainPatches, device: torch.device) -> None:
        """Copy the scenes of `patches` to `device`."""
        self._patches = patches
        n_values = sum(rgb.numel() + cube.numel() for rgb, cube in patches.whole_scenes())
        _check_room(patches.path, 4 * n_values, device)
        scenes = tqdm(
            patches.whole_scenes(), desc="reading", total=len(patches.names), unit="scene", dynamic_ncols=True
        )
        self._scenes = [tuple(values.to(device, copy=True) for values in scene) for scene in scenes]

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self._patches)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Return a batch, (N, 3, p, p) and (N, bands, p, p), on the device."""
        size, batch = self._patches.patch_size, ([], [])
        for scene, top, left in map(self._patches.locate, indices):
            for parts, values in zip(batch, self._scenes[scene], strict=True):
                parts.append(values[:, top : top + size, left : left + size])
        return torch.stack(batch[0]), torch.stack(batch[1])

    @staticmethod
    def collate(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return a batch that is one already."""
        return batch


class Epochs:
    """The batches of training, epoch by epoch: all patches in random order, which seed and epoch alone decide.

    Of several processes each gets its part of every batch.
    """

    def __init__(
        self,
        patches: TrainPatches,
        batch_size: int,
        seed: int,
        world: World = World(),  # noqa: B008, it never changes
        device: torch.device | None = None,
        **loading: Any,
    ) -> None:
        """Batches of `batch_size`, in all processes together, of `patches`; `loading`: options of the DataLoader.

        With `device` from scenes that are kept there (see `PatchesOnDevice`; raises DataError if they do not fit).
        """
        self._patches, self._batch_size, self._seed, self._world = patches, batch_size, seed, world
        self._source, self._loading = patches, loading
        if device is not None:
            self._source = PatchesOnDevice(patches, device)
            self._loading = {"collate_fn": PatchesOnDevice.collate}
        self._batches: list[list[int]] = []

    def batches(self, epoch: int, skip: int = 0) -> DataLoader:
        """Return the batches of an epoch but the first `skip`: (rgb, cube), (N, 3, p, p) and (N, bands, p, p).

        Where there are fewer patches than processes, those without one get a patch that `share` leaves out.
        """
        # the numbers that DataLoader and RandomSampler would draw: runs of earlier versions can be repeated
        torch.manual_seed(1000 * self._seed + epoch)
        _, drawn = (torch.empty((), dtype=torch.int64).random_().item() for _ in range(2))
        order = torch.randperm(len(self._patches), generator=torch.Generator().manual_seed(drawn))
        self._batches = [part.tolist() for part in order.split(self._batch_size)]
        own = [self._world.share(batch) or batch[:1] for batch in self._batches[skip:]]
        return DataLoader(self._source, batch_sampler=own, **self._loading)

    def share(self, batch: int) -> float:
        """Return this process' part of a batch of the epoch, from 0 to 1; the first batch is 0."""
        return len(self._world.share(self._batches[batch])) / len(self._batches[batch])

    def positions(self, batch: int) -> list[int]:
        """Return where this process' patches stand in a batch of the epoch, all processes' together."""
        return self._world.share(list(range(len(self._batches[batch])))) or [0]

    def scenes(self, batch: int) -> list[str]:
        """Return the names of the scenes that a batch of the epoch has patches of, in all processes."""
        return sorted({self._patches.names[self._patches.locate(i)[0]] for i in self._batches[batch]})


class ValidImages(Dataset):
    """The validation images of a folder that valid_data_preprocess.py wrote, whole.

    Item i is (rgb, cube), float32: (3, H - drop_rows, W) in [0, 1] and (bands, H - drop_rows, W) > 0. The released
    loader drops the last two rows (480 of 482 is a multiple of 4); `drop_rows=0` keeps them. `names` of the
    scenes, `wavelengths` and `dark_values` as of `TrainPatches`, whose folders it opens too.
    """

    def __init__(self, path: str | Path, drop_rows: int = 2) -> None:
        """Open the prepared folder `path`."""
        index, self._scenes = _open_index(path)
        self.path, self.provenance = Path(path), _provenance(index)
        self.names, self.drop_rows = index["scenes"], drop_rows
        self.wavelengths, self.dark_values = index["wavelengths"], _dark_values(index)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._scenes)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Return image i."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        height, width = self._scenes[i].size
        rgb, cube = self._scenes[i].crop(0, 0, height - self.drop_rows, width)
        return rgb, cube.clone(memory_format=torch.contiguous_format)
