"""The batches of training and validation, for one process or several."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from drcr.compute.memory import free_memory
from drcr.data import PreparedFolder, TrainPatches, ValidImages
from drcr.training.distributed import World
from drcr.training.recipe import augment, changes_patches
from drcr.utils.cli import Stop
from drcr.utils.files import DataError


class Batch(NamedTuple):
    """A process' share of a training batch."""

    rgb: Tensor
    """float32 (N, 3, p, p) in [0, 1]."""
    cube: Tensor
    """float32 (N, bands, p, p) > 0."""
    weight: float
    """How much of the whole batch this share is, 0 to 1."""
    positions: list[int]
    """Where the patches stand in the whole batch."""
    scenes: list[str]
    """The scenes of the whole batch."""


class PatchKey(NamedTuple):
    """A patch to cut, and for which iteration and position in the whole batch."""

    index: int
    iteration: int
    position: int


class AugmentedPatches(Dataset):
    """Training patches by `PatchKey`, augmented where they are cut: in the worker processes."""

    def __init__(self, patches: TrainPatches, parts: tuple[str, ...], seed: int) -> None:
        """Augment `patches` by the `parts` of a recipe."""
        self._patches, self._parts, self._seed = patches, parts, seed

    def __getitems__(self, keys: list[PatchKey]) -> list[tuple[Tensor, Tensor]]:
        """Return patches (rgb, cube) for a DataLoader.

        What happens to a patch follows from seed, iteration and position alone: it is the same in a resumed run, and
        with any number of processes and workers.
        """
        pairs = self._patches.__getitems__([key.index for key in keys])
        if not changes_patches(self._parts):
            return pairs
        rngs = (np.random.default_rng((self._seed, key.iteration, key.position)) for key in keys)
        return [augment(*pair, self._parts, rng) for pair, rng in zip(pairs, rngs, strict=True)]


class Epochs:
    """The batches of training: each epoch all patches, in an order that depends on seed and epoch alone."""

    def __init__(
        self,
        patches: TrainPatches,
        batch_size: int,
        seed: int,
        *,
        max_iter: int = 2**31,
        parts: tuple[str, ...] = (),
        world: World = World(),  # noqa: B008, it never changes
        **loading: Any,
    ) -> None:
        """Set up: batches of `batch_size` patches over all processes of `world`.

        `seed` decides the order and, with iteration and position, the augmentation by `parts` of the recipe. An epoch
        ends at iteration `max_iter`. `loading`: options of the DataLoader.
        """
        self._patches, self._batch_size, self._seed, self._max_iter = patches, batch_size, seed, max_iter
        self._source, self._world, self._loading = AugmentedPatches(patches, parts, seed), world, loading

    def batches(self, epoch: int, iteration: int, skip: int = 0) -> "EpochBatches":
        """Return an epoch's batches without the first `skip`, which `iteration` iterations precede."""
        # the order that a DataLoader with a RandomSampler draws from this seed
        torch.manual_seed(1000 * self._seed + epoch)
        _, drawn = (torch.empty((), dtype=torch.int64).random_().item() for _ in range(2))
        order = torch.randperm(len(self._patches), generator=torch.Generator().manual_seed(int(drawn)))
        rest = [part.tolist() for part in order.split(self._batch_size)][skip:][: self._max_iter - iteration]
        keys = [
            [PatchKey(index, iteration + i, position) for position, index in enumerate(batch)]
            for i, batch in enumerate(rest)
        ]
        return EpochBatches(self._patches, self._source, keys, self._world, self._loading)


class EpochBatches:
    """The batches of an epoch, or what is left of it."""

    def __init__(
        self,
        patches: TrainPatches,
        source: Dataset,
        keys: list[list[PatchKey]],
        world: World,
        loading: dict[str, Any],
    ) -> None:
        """`keys`: of the whole batches, one list per batch."""
        self._patches, self._keys, self._world = patches, keys, world
        # where there are fewer patches than processes, some train on a patch that has no weight
        self._own = [list(world.share(batch)) or batch[:1] for batch in keys]
        # a generator of its own: PyTorch's, which dropout draws from, would be one number ahead in a resumed epoch
        own = {"generator": torch.Generator(), "worker_init_fn": _prepare_worker}
        self._loader = DataLoader(source, batch_sampler=self._own, **own, **loading)

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._keys)

    def __iter__(self) -> Iterator[Batch]:
        """Yield this process' share of each batch."""
        for (rgb, cube), own, whole in zip(self._loader, self._own, self._keys, strict=True):
            weight = len(self._world.share(whole)) / len(whole)
            scenes = sorted({self._patches.names[self._patches.locate(key.index)[0]] for key in whole})
            yield Batch(rgb, cube, weight, [key.position for key in own], scenes)


def _prepare_worker(_worker: int) -> None:
    cv2.setNumThreads(0)  # OpenCV's threads do not survive a fork


class Validation:
    """A process' share of the validation images, one per batch."""

    def __init__(self, images: ValidImages, world: World = World(), **loading: Any) -> None:  # noqa: B008, never changes
        """`loading`: options of the DataLoader."""
        self.n_images, self._share = len(images), world.share(range(len(images)))
        self._loader = DataLoader(Subset(images, self._share), batch_size=1, **loading)

    def __iter__(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield (number of the image, rgb (1, 3, H, W), cube (1, bands, H, W))."""
        for i, (rgb, cube) in zip(self._share, self._loader, strict=True):
            yield i, rgb, cube


def read_into_memory(folder: PreparedFolder, stop: Stop) -> None:
    """Read all scenes of a prepared folder into memory; worker processes share them.

    Raises DataError if they need more than 80% of the free memory: the training needs the rest; SystemExit if the
    user stops the program.
    """
    free = free_memory(torch.device("cpu"))
    if folder.n_bytes > 0.8 * free:
        raise DataError(
            f"{folder.path}: --cache ram needs {folder.n_bytes / 0.8e9:.2f} GB of free memory, a fifth of it for the "
            f"training; {free / 1e9:.2f} GB are free; use --cache none"
        )
    for scene in tqdm(folder.scenes, desc="reading", unit="scene", dynamic_ncols=True):
        if stop.asked:
            raise SystemExit(128 + stop.asked)
        scene.load()
