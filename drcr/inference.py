"""Reconstruction: run a trained network on an RGB image of any size."""

import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from drcr.compute.device import winograd_pays
from drcr.compute.memory import free_memory, memory_for
from drcr.compute.streaming import ROWS, Streamed
from drcr.compute.tiles import Tiled
from drcr.correction import Correction, Network, network_of
from drcr.model import DRCR
from drcr.networks import title_of, widen
from drcr.utils.files import DataError

Protocol = Literal["padded", "released"]

# The most rows and bytes of a strip on a CPU, measured (benchmarks/README.md): fewer rows cost calls, more bytes miss
# the cache. F(6,3) keeps five strips' worth of memory in use at a time, direct convolution two.
CPU_ROWS = 60
CPU_BYTES = {"winograd": 8_000_000, "direct": 20_000_000}
# the fewest rows that are worth a thread of their own, which computes up to 16 more
SECTION_ROWS = 64
# strips and whole feature maps that exist at the same time, measured and rounded up
STRIPS_AT_A_TIME = 60
MAPS_AT_A_TIME = 20


class Reconstructor:
    """A trained network that reconstructs one image after another.

    Example::

        cube = Reconstructor(load_model("best.pth"))(normalise_rgb(read_rgb("photo.jpg")))  # (H, W, 31)
    """

    def __init__(
        self,
        model: Network,
        precision: Literal["fp32", "bf16"] = "fp32",
        tile: int | Literal["auto"] = "auto",
        scratch: str | Path | None = None,
        held: Correction | None = None,
    ) -> None:
        """Prepare the network for the device it is on.

        Parameters
        ----------
        model
            The network, in evaluation mode.
        precision
            "fp32": the network's own result except for rounding. "bf16": bfloat16 between the first convolution and
            the last.
        tile
            DRCR Net: rows of a strip, 4 or more, best a multiple of 6. Smaller strips need less memory; the result is
            the same except for rounding. Other networks: pixels of the side of a tile; see `remark`. "auto": chosen
            by speed and free memory.
        scratch
            Folder for a feature map that does not fit in memory (default: the system's temporary folder).
        held
            Holds the cubes to the images, if the network does not do it itself: only `hold_cube` is used.
        """
        self.device = next(model.parameters()).device
        self._held = None if held is model else held
        self._correction = model if isinstance(model, Correction) else None
        network = network_of(model)
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        self.tile, self.scratch = tile, scratch
        self._kept: Tensor | None = None
        if isinstance(network, DRCR):
            if self.device.type == "cuda":
                channels = network.architecture["channels"]
                network = widen(network, channels + -channels % 8)  # tensor cores take channels by eights
            winograd = winograd_pays(self.device, precision, network.architecture["channels"])
            self._network = Streamed(network, self.dtype, winograd)
            self._cpu_bytes = CPU_BYTES["winograd" if winograd else "direct"]
        else:
            self._network = Tiled(network, self.dtype, tile)
        self.architecture = network.architecture

    @property
    def remark(self) -> str | None:
        """What tiles change in the result, in words, if an image was tiled; DRCR Net needs none."""
        return self._network.remark if isinstance(self._network, Tiled) else None

    @torch.inference_mode()
    def __call__(
        self, rgb: np.ndarray, protocol: Protocol = "padded", advance: Callable[[float], None] = lambda pixels: None
    ) -> np.ndarray:
        """Return the cube of an image.

        Parameters
        ----------
        rgb
            (H, W, 3), float32, divided by its largest value.
        protocol
            "padded": the whole image once. "released": rows [0, H-2), then rows [2, H); the result is the first cube
            with the last two rows of the second below it, at twice the work.
        advance
            Called with the number of pixels just finished.

        Returns
        -------
        (H, W, bands), float32, not clipped.

        Raises
        ------
        ValueError
            If the image is smaller than 4 x 4 (6 x 4 for "released").
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
        image, values, finish = torch.from_numpy(rgb).to(self.device), torch.from_numpy(cube), None
        if self._correction is not None:
            image, finish = self._correction.for_strips(image)
        if isinstance(self._network, Tiled):
            self._network(image, values, advance, finish)
        else:
            cores = torch.get_num_threads() if self.device.type == "cpu" else 1
            n_sections = max(1, min(cores, height // SECTION_ROWS))
            rows, kept = self._rows(height, width, n_sections), self._room(height, width)
            sweeps = self.architecture["n_blocks"] + 1
            self._network(image, rows, kept, values, lambda rows: advance(rows * width / sweeps), n_sections, finish)
        if self._held is not None:
            self._held.hold_cube(values, torch.from_numpy(rgb))

    def _rows(self, height: int, width: int, n_sections: int = 1) -> int:
        """Return the number of rows of a strip."""
        if isinstance(self.tile, int):
            return self.tile
        row = width * self.architecture["channels"] * self.dtype.itemsize
        room = 0.5 * free_memory(self.device) / n_sections
        largest = room / STRIPS_AT_A_TIME
        if self.device.type == "cuda":
            if MAPS_AT_A_TIME * height * row < room:
                return height
            rows = int(largest / row)
        else:
            rows = min(int(min(largest, self._cpu_bytes / n_sections) / row), CPU_ROWS)
        return max(rows // ROWS * ROWS, ROWS)

    def _room(self, height: int, width: int) -> Tensor:
        """Return memory for a feature map: on the network's device, else in main memory, else in a file."""
        shape = height, width, self.architecture["channels"]
        if self._kept is not None and self._kept.shape == shape:
            return self._kept
        self._kept = None  # free the last image's first
        n_bytes = math.prod(shape) * self.dtype.itemsize
        for device in (self.device, torch.device("cpu")):
            if n_bytes < 0.5 * free_memory(device):
                self._kept = torch.empty(shape, dtype=self.dtype, device=device)
                return self._kept
        with tempfile.NamedTemporaryFile(prefix=".drcr-", dir=self.scratch) as file:
            try:
                os.posix_fallocate(file.fileno(), 0, n_bytes)  # a full disk shows here, not at the first write
            except OSError as error:
                raise OSError(error.errno, f"{error.strerror}; {n_bytes / 1e9:.1f} GB needed", file.name) from error
            # the file has no name any more: it is freed with the mapping, however this process ends
            flat = torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=self.dtype)
            self._kept = flat.view(shape)
            return self._kept


def reconstruct(model: Network, rgb: np.ndarray, protocol: Protocol = "padded") -> np.ndarray:
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

    Raises DataError if memory runs out, and if the network of `model_path` returns NaN or infinite values.
    """
    with memory_for(f"{path}: too large for the memory of this machine; use a smaller --tile, or scale it down"):
        before, cube = reconstructor.remark, reconstructor(rgb, protocol, advance)
    if reconstructor.remark != before:
        tqdm.write(f"{path}: {reconstructor.remark}", file=sys.stderr)
    if not np.isfinite(cube).all():
        raise DataError(f"{model_path}: returns NaN or infinite values for {path}; use another checkpoint")
    return cube


def origin_of(model: Network, model_path: str | Path, protocol: Protocol = "padded", precision: str = "fp32") -> str:
    """Return the text that says where a cube comes from, for `write_cube`."""
    return f"{title_of(model.architecture)}, {model_path}, --protocol {protocol}, --precision {precision}"
