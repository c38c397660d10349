"""The forward pass of networks other than DRCR Net for reconstruction: of the whole image, or in overlapping tiles.

A tile's middle is kept, so that a network that looks no further than `OVERLAP` pixels sees what it sees in the whole
image. Networks that look further, or at averages of the image, give other values in tiles: `Tiled.remark` says by how
much, measured.
"""

import weakref
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from drcr.compute.memory import free_memory
from drcr.compute.streaming import Finish

OVERLAP = 32
TRIAL = 128
"""Pixels of the side of the image on which a network's memory is measured."""
Window = tuple[slice, slice]


class Tiled:
    """A trained network that runs on whole images where memory allows it, else on tiles."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, tile: int | Literal["auto"]) -> None:
        """Prepare `model`, (1, 3, H, W) -> (1, bands, H, W); `tile`: see `Reconstructor`."""
        self.model, self.dtype, self.tile = model, dtype, tile
        self.device = next(model.parameters()).device
        self._bytes_per_pixel: float | None = None
        self.remark: str | None = None
        """What tiles change, in words; None if no image was tiled."""

    def __call__(
        self, rgb: Tensor, cube: Tensor, advance: Callable[[float], None], finish: Finish | None = None
    ) -> None:
        """Fill `cube` (H, W, bands) from an image (H, W, 3).

        `advance` is called with the number of pixels done. `finish`: what is done to the network's output.
        """
        height, width, _ = rgb.shape
        tile = self._tile(height, width)
        if max(height, width) > tile and self.remark is None:
            self.remark = self._compare(rgb, cube.shape[2], tile)
        self._run(rgb, cube, tile, advance)
        if finish is not None:
            for top in range(0, height, OVERLAP):
                rows = cube[top : top + OVERLAP]
                rows.copy_(finish(rows.to(rgb.device), top))

    def _run(self, rgb: Tensor, cube: Tensor, tile: int, advance: Callable[[float], None]) -> None:
        for seen, kept, inside in windows(rgb.shape[0], rgb.shape[1], tile):
            with torch.autocast(rgb.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                output = self.model(rgb[seen].permute(2, 0, 1)[None])
            cube[kept] = output[0].permute(1, 2, 0)[inside].to(cube)
            advance(cube[kept].shape[0] * cube[kept].shape[1])

    def _tile(self, height: int, width: int) -> int:
        """Return the side of the tiles; that of the whole image if it fits into half of the free memory."""
        if isinstance(self.tile, int):
            return self.tile
        if self._bytes_per_pixel is None:
            trial = torch.zeros(1, 3, TRIAL, TRIAL, device=self.device)
            with torch.autocast(trial.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                self._bytes_per_pixel = peak_bytes(self.model, trial) / TRIAL**2
        side = int((0.5 * free_memory(self.device) / self._bytes_per_pixel) ** 0.5)
        return max(height, width) if height * width <= side**2 else max(side // 2 - 2 * OVERLAP, OVERLAP)

    def _compare(self, rgb: Tensor, bands: int, tile: int) -> str:
        """Return what tiles change in the middle of an image, on 2 x 2 tiles."""
        height, width = (min(size, 2 * tile) for size in rgb.shape[:2])
        top, left = (rgb.shape[0] - height) // 2, (rgb.shape[1] - width) // 2
        part = rgb[top : top + height, left : left + width]
        whole, tiled = (torch.empty(height, width, bands) for _ in range(2))
        self._run(part, whole, max(height, width), lambda _: None)
        self._run(part, tiled, tile, lambda _: None)
        change, scale = (tiled - whole).abs(), whole.abs().mean().clamp(min=1e-12)
        return (
            f"in tiles of {tile} pixels that overlap by {OVERLAP}; on {height} x {width} pixels in the middle, this "
            f"changes values by {change.mean() / scale:.2%} of their mean, at most by {change.max() / scale:.2%}"
        )


def windows(height: int, width: int, tile: int) -> Iterator[tuple[Window, Window, Window]]:
    """Yield for each tile the window that the network sees, the one that is kept, and this within the former."""
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            seen, kept, inside = [], [], []
            for start, size in ((top, height), (left, width)):
                end, before = min(start + tile, size), max(start - OVERLAP, 0)
                seen.append(slice(before, min(end + OVERLAP, size)))
                kept.append(slice(start, end))
                inside.append(slice(start - before, end - before))
            yield (seen[0], seen[1]), (kept[0], kept[1]), (inside[0], inside[1])


def peak_bytes(model: nn.Module, rgb: Tensor) -> int:
    """Return the most bytes of tensors that a forward pass has at the same time, without the weights."""
    with _Memory() as memory:
        model(rgb)
    return memory.most


class _Memory(TorchDispatchMode):
    """Count the bytes of the tensors that operators return, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most = 0, 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        address, n_bytes = storage._cdata, storage.nbytes()
        if address not in self._alive:
            self._alive.add(address)
            self.now += n_bytes
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._free, address, n_bytes)

    def _free(self, address: int, n_bytes: int) -> None:
        self._alive.discard(address)
        self.now -= n_bytes
