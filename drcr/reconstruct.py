"""Reconstruction: an RGB image through a trained network."""

import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from drcr.compute.device import winograd_pays
from drcr.compute.memory import free_memory, memory_for
from drcr.compute.streaming import Streamed, pad_channels
from drcr.model import DRCR
from drcr.utils.files import DataError

Protocol = Literal["padded", "released"]

# On a CPU strips of at most this many rows and bytes: measured, benchmarks/README.md.
CPU_ROWS = {"filtered": 32, "direct": 64}
CPU_BYTES = 20_000_000
# Strips, and whole feature maps, that are there at a time: measured, rounded up.
STRIPS_AT_A_TIME = 60
MAPS_AT_A_TIME = 20


class Reconstructor:
    """A trained network made ready to reconstruct one image after another.

    Example::

        cube = Reconstructor(load_model("best.pth"))(normalise_rgb(read_rgb("photo.jpg")))  # (H, W, 31)
    """

    def __init__(
        self,
        model: DRCR,
        precision: Literal["fp32", "bf16"] = "fp32",
        tile: int | Literal["auto"] = "auto",
        scratch: str | Path | None = None,
    ) -> None:
        """Prepare `model`'s weights for the device they are on.

        `precision` "fp32" gives the network's own result but for rounding, "bf16" computes in bfloat16 between
        the first convolution and the last. `tile`: the rows of a strip, by which memory is bounded; the
        result does not depend on it. "auto" chooses it by the free memory. `scratch`: the folder for a feature
        map that fits in no memory (default: the system's).
        """
        self.device = next(model.parameters()).device
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        if self.device.type == "cuda":
            model = pad_channels(model, 8)  # tensor cores take channels by eights
        filtered = winograd_pays(self.device, precision, model.architecture["channels"])
        self._network = Streamed(model, self.dtype, filtered)
        self._cpu_rows = CPU_ROWS["filtered" if filtered else "direct"]
        self.architecture = self._network.model.architecture
        self.tile, self.scratch = tile, scratch
        self._size: torch.Size | None = None  # of the last image
        self._graph: _Graph | None = None
        self._kept: Tensor | None = None

    @torch.inference_mode()
    def __call__(
        self, rgb: np.ndarray, protocol: Protocol = "padded", advance: Callable[[float], None] = lambda pixels: None
    ) -> np.ndarray:
        """Return the cube (H, W, bands), float32, unclipped, of an image (H, W, 3) float32 divided by its peak.

        "padded": the whole image once. "released": rows [0, H-2) and again rows [2, H), the result is the first
        with the last two rows of the second below it; twice the work. `advance` is told, as the work goes on, for how
        many more of the image's pixels it is done. Raises ValueError on images smaller than 4 x 4 (6 x 4 for
        "released").
        """
        height, width, _ = rgb.shape
        if height < (6 if protocol == "released" else 4) or width < 4:
            raise ValueError(f"{height} x {width} pixels are too few")
        # in the memory order of a .mat file: writing it takes no second copy
        cube = np.empty((self.architecture["out_channels"], width, height), np.float32).transpose(2, 1, 0)
        if protocol == "padded":
            self._run(rgb, cube, advance)
        else:
            second = np.empty_like(cube[2:])
            self._run(rgb[:-2], cube[:-2], lambda pixels: advance(pixels / 2))
            self._run(rgb[2:], second, lambda pixels: advance(pixels / 2))
            cube[-2:] = second[-2:]
        return cube

    def _run(self, rgb: np.ndarray, cube: np.ndarray, advance: Callable[[float], None]) -> None:
        """Fill `cube` from the image."""
        height, width, _ = rgb.shape
        rows = self._rows(height, width)
        image = torch.from_numpy(rgb).to(self.device)
        kept = self._room(height, width)
        if self._graphed(image, rows):
            strips = iter([self._graph(image)])
            advance(height * width)
        else:
            sweeps = self.architecture["n_blocks"] + 1
            strips = self._network(image, rows, kept, lambda done: advance(done * width / sweeps))
        top = 0
        for strip in strips:
            cube[top : top + len(strip)] = strip.cpu().numpy()
            top += len(strip)

    def _rows(self, height: int, width: int) -> int:
        """Return the rows of a strip."""
        if self.tile != "auto":
            return self.tile
        row = width * self.architecture["channels"] * self.dtype.itemsize
        room = 0.5 * free_memory(self.device)
        largest = room / STRIPS_AT_A_TIME
        if self.device.type == "cuda":
            if MAPS_AT_A_TIME * height * row < room:
                return height
            rows = max(int(largest / row) // 16 * 16, 4)
        else:
            rows, largest = self._cpu_rows, min(largest, CPU_BYTES)
        while rows > 4 and rows * row > largest:
            rows //= 2
        return rows

    def _room(self, height: int, width: int) -> Tensor:
        """Return room for a feature map where there is some: beside the network, in main memory, or in a file."""
        shape = height, width, self.architecture["channels"]
        if self._kept is not None and self._kept.shape == shape:
            return self._kept
        self._kept = None  # the last image's goes before there is a new one
        n_bytes = math.prod(shape) * self.dtype.itemsize
        for device in (self.device, torch.device("cpu")):
            if n_bytes < 0.5 * free_memory(device):
                self._kept = torch.empty(shape, dtype=self.dtype, device=device)
                return self._kept
        with tempfile.NamedTemporaryFile(prefix=".drcr-", dir=self.scratch) as file:
            try:
                os.posix_fallocate(file.fileno(), 0, n_bytes)  # a full disk shows here, not at the first write
            except OSError as error:
                raise OSError(
                    error.errno, f"{error.strerror}; {n_bytes / 1e9:.1f} GB are needed", file.name
                ) from error
            # the file is gone when the mapping is, however this process ends
            flat = torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=self.dtype)
            self._kept = flat.view(shape)
            return self._kept

    def _graphed(self, image: Tensor, rows: int) -> bool:
        """Tell whether the image goes through a CUDA graph: from the second of one size on."""
        if self.device.type != "cuda" or rows < len(image):
            return False
        if image.shape != self._size:
            self._size, self._graph = image.shape, None
            return False
        if self._graph is None:
            self._graph = _Graph(self._network, image, self._room(*image.shape[:2]))
        return True


class _Graph:
    """The forward pass for images of one size as a CUDA graph: one launch instead of some hundred."""

    def __init__(self, network: Streamed, image: Tensor, kept: Tensor) -> None:
        self._image, self._kept, self._graph = image.clone(), kept, torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            (self._cube,) = network(self._image, len(image), kept)

    def __call__(self, image: Tensor) -> Tensor:
        """(H, W, 3) -> (H, W, bands), valid until the next call."""
        self._image.copy_(image)
        self._graph.replay()
        return self._cube


def reconstruct(model: DRCR, rgb: np.ndarray, protocol: Protocol = "padded") -> np.ndarray:
    """Return the cube (H, W, bands) of one image: `Reconstructor(model)(rgb, protocol)`."""
    return Reconstructor(model)(rgb, protocol)


def reconstruct_image(
    reconstructor: Reconstructor,
    rgb: np.ndarray,
    path: str | Path,
    model_path: str | Path,
    protocol: Protocol = "padded",
    advance: Callable[[float], None] = lambda pixels: None,
) -> np.ndarray:
    """Return the cube (H, W, bands) of the image file `path`, decoded to `rgb` (H, W, 3), float32 in [0, 1].

    Raises DataError that names the file if memory is short, or if the network of `model_path` gives no numbers.
    """
    with memory_for(f"{path}: too large for the memory of this machine; a smaller --tile, or scale it down"):
        cube = reconstructor(rgb, protocol, advance)
    if not np.isfinite(cube).all():
        raise DataError(f"{model_path}: gives NaN or infinite values for {path}; its training went wrong")
    return cube


def origin_of(model_path: str | Path, protocol: Protocol = "padded", precision: str = "fp32") -> str:
    """Return the line on where a cube comes from, for `write_cube`."""
    return f"DRCR Net, {model_path}, --protocol {protocol}, --precision {precision}"


class _CallableModule(ModuleType):
    """Lets `from drcr import reconstruct` be called: once this module is imported, Python gives it that name."""

    def __call__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        return reconstruct(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
