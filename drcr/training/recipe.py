"""Recipes of training: the released one, and what the field has added since then at no more compute, part by part."""

import argparse
import math

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from drcr.camera import Imaging

PARTS = {
    "flip": "each patch is mirrored and turned by quarters at random",
    "ema": "validated and tested is an exponential moving average of the weights",
    "cosine": "the learning rate warms up, then falls as a cosine",
    "clip": "the norm of the gradients is clipped",
    "robust": "half of the patches have another exposure, half more noise, half another JPEG compression",
}
NAMES = {"released": (), "improved": tuple(PARTS)}
EMA_DECAY = 0.999
CLIP_NORM = 1.0


def parts_of(recipe: str) -> tuple[str, ...]:
    """Return the parts of a recipe: of `released` none, of `improved` all; else those named, with commas between."""
    return NAMES[recipe] if recipe in NAMES else tuple(recipe.split(","))


def read_recipe(text: str) -> str:
    """Read --recipe; the same parts give the same text."""
    asked = parts_of(text)
    if unknown := [part for part in asked if part not in PARTS]:
        raise argparse.ArgumentTypeError(
            f"must be released, improved, or of {', '.join(PARTS)} some, with commas between, not {unknown[0]!r}"
        )
    asked = tuple(part for part in PARTS if part in asked)
    return next((name for name, parts in NAMES.items() if parts == asked), ",".join(asked))


def augment(
    rgb: Tensor, cube: Tensor, parts: tuple[str, ...], seed: int, iteration: int, positions: list[int]
) -> tuple[Tensor, Tensor]:
    """Return a batch, (N, 3, p, p) in [0, 1] and (N, bands, p, p), with the parts "flip" and "robust" applied.

    What happens to a patch follows from seed, iteration and its position in the whole batch alone: it is the same in
    a resumed run, and in any number of processes.
    """
    if not {"flip", "robust"} & set(parts):
        return rgb, cube
    pairs = []
    for position, image, spectra in zip(positions, rgb, cube, strict=True):
        rng = np.random.default_rng((seed, iteration, position))
        if "flip" in parts:
            quarters, mirrored = rng.integers(4), rng.integers(2)
            image, spectra = (
                torch.rot90(values.flip(2) if mirrored else values, int(quarters), (1, 2))
                for values in (image, spectra)
            )
        if "robust" in parts:
            disturbed = disturb(image.permute(1, 2, 0).cpu().numpy(), rng)
            image = torch.from_numpy(disturbed).permute(2, 0, 1).to(rgb.device)
        pairs.append((image, spectra))
    images, cubes = zip(*pairs, strict=True)
    return torch.stack(images), torch.stack(cubes)


def disturb(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an image (H, W, 3) in [0, 1], float32, as another camera might have stored it; its scene is the same.

    Each with a probability of a half: exposed up to half a stop more or less, and clipped; photon noise of 200 to
    5,000 electrons at value 1; JPEG of quality 50 to 95.
    """
    exposed, noisy, compressed = rng.random(3) < 0.5
    if exposed:
        rgb = np.minimum(rgb * 2 ** rng.uniform(-0.5, 0.5), 1)
    if noisy:
        electrons = math.exp(rng.uniform(math.log(200), math.log(5000)))
        rgb = np.minimum(rng.poisson(rgb * electrons) / electrons, 1)
    if compressed:
        file = Imaging(quality=int(rng.integers(50, 96))).encode(np.round(rgb * 255).astype(np.uint8))
        rgb = cv2.cvtColor(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB) / 255
    return rgb.astype(np.float32)


@torch.no_grad()
def average(averaged: nn.Module, model: nn.Module, iteration: int) -> None:
    """Move averaged weights towards a network's after iteration 1, 2, ...; at first fast, then by 1 - EMA_DECAY."""
    decay = min(EMA_DECAY, (1 + iteration) / (10 + iteration))
    for mean, parameter in zip(averaged.parameters(), model.parameters(), strict=True):
        mean.lerp_(parameter, 1 - decay)
