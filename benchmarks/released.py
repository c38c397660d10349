"""The released way of doing the three stages, with which benchmarks/bench.py compares.

Our own code, from the facts that are known of the authors': eager, float32, contiguous memory, two passes per image,
one compressed .mat file per patch.
"""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from drcr.correction import Network
from drcr.images import normalise_rgb, read_rgb
from drcr.metrics import mrae


def write_compressed(path: Path, level: int = 7, **variables: np.ndarray) -> None:
    """Write a .mat file as ARAD_1K's and the released code's are: gzip of level 7 over shuffled bytes, checksums."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            file.create_dataset(
                name, data=value, compression="gzip", compression_opts=level, shuffle=True, fletcher32=True
            )


def read(file: h5py.File, name: str) -> np.ndarray:
    """Return a variable of an open file, float32, with the axes that the file has."""
    return np.asarray(file[name], np.float32)


def prepare(pairs: list[tuple[Path, Path]], out: Path, patch_size: int = 128, stride: int = 64) -> int:
    """Cut the scenes, pairs of cube and image files, into one .mat file per patch; return how many there are."""
    n_patches = 0
    for cube_path, rgb_path in pairs:
        with h5py.File(cube_path) as file:
            cube = read(file, "cube").transpose(0, 2, 1)  # (bands, H, W)
        rgb = normalise_rgb(read_rgb(rgb_path)).transpose(2, 0, 1)
        if cube.min() <= 0:
            continue
        for top in range(0, cube.shape[1] - patch_size + 1, stride):
            for left in range(0, cube.shape[2] - patch_size + 1, stride):
                window = np.s_[:, top : top + patch_size, left : left + patch_size]
                n_patches += 1
                write_compressed(out / f"train{n_patches}.mat", rgb=rgb[window], cube=cube[window])
    return n_patches


@torch.no_grad()
def reconstruct(model: Network, rgb: np.ndarray) -> np.ndarray:
    """Return the cube (H, W, bands) of an image (H, W, 3): rows [0, H-2), and the last two of rows [2, H)."""
    image = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))[None])
    image = image.to(next(model.parameters()).device)
    first, second = model(image[:, :, :-2]).cpu(), model(image[:, :, 2:]).cpu()
    return torch.cat([first, second[:, :, -2:]], 2)[0].permute(1, 2, 0).numpy()


def training_step(model: Network, rgb: Tensor, cube: Tensor) -> Callable[[], float]:
    """Return a function that trains `model` on a batch and returns the loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.999), eps=1e-8)

    def step() -> float:
        loss = mrae(model(rgb), cube)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
