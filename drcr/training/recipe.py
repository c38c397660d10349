"""Training recipes: the released one, and parts from the literature that can be added at no more compute."""

import argparse
import math

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from drcr.camera import Imaging
from drcr.metrics import mrae

RECIPE_PARTS = {
    "flip": "each patch is mirrored and rotated by multiples of 90 degrees at random",
    "clip": "the norm of the gradients is clipped",
    "robust": "half of the patches get another exposure, half more noise, half another JPEG compression",
}
NAMES = {"released": (), "improved": ("robust",)}
"""Of the parts only those that have paid are in `improved`: train/README.md."""
FORMERLY_IMPROVED = "flip,ema,cosine,clip,robust"
"""What `improved` in a checkpoint means: since parts have left it, checkpoints name the parts."""
CLIP_NORM = 1.0
SCALE_STEP = 7
"""Every so many-th value of a patch is used to find its best scale."""


def parts_of(recipe: str) -> tuple[str, ...]:
    """Return the parts of a recipe: none of `released`, all of `improved`, else those in the comma-separated list."""
    return NAMES[recipe] if recipe in NAMES else tuple(recipe.split(","))


def read_recipe(text: str) -> str:
    """Read --recipe: `released`, or the parts, separated by commas; the same parts give the same text."""
    asked = parts_of(text)
    if unknown := [part for part in asked if part not in RECIPE_PARTS]:
        raise argparse.ArgumentTypeError(
            f"must be released, improved, or a comma-separated list of {', '.join(RECIPE_PARTS)}, not {unknown[0]!r}"
        )
    return ",".join(part for part in RECIPE_PARTS if part in asked) or "released"


def scale_invariant_loss(output: Tensor, cube: Tensor) -> Tensor:
    """Return what a scene's brightness matters little to, for a batch (N, bands, h, w).

    0.75 MRAE of each patch at its best scale + 0.25 MRAE + 2 SAM in radians + 0.5 RMSE of each patch at that scale,
    relative to the root of its mean square. An exposed image does not tell how bright its scene was. The last term is
    for highlights, which relative errors count as little as dark pixels.
    """
    with torch.no_grad():
        ratio = (output / cube).flatten(1)[:, ::SCALE_STEP].sort(1)[0]
        weights = ratio.cumsum(1)
        middle = (weights < weights[:, -1:] / 2).sum(1, keepdim=True)
        scale = (1 / ratio.gather(1, middle))[..., None, None]  # see drcr.metrics.best_scale_mrae
    cosine = (output * cube).sum(1) / (output.norm(dim=1) * cube.norm(dim=1))
    angle = cosine.clamp(-1 + 1e-6, 1 - 1e-6).acos().mean()  # the slope of acos is infinite at 1
    scaled = scale * output
    power = ((scaled - cube) ** 2).flatten(1).mean(1) / (cube**2).flatten(1).mean(1)
    return 0.75 * mrae(scaled, cube) + 0.25 * mrae(output, cube) + 2 * angle + 0.5 * power.add(1e-8).sqrt().mean()


LOSSES = {"mrae": mrae, "l1": l1_loss, "si-mrae+sam": scale_invariant_loss}
"""The training losses of output and ground truth."""


def changes_patches(parts: tuple[str, ...]) -> bool:
    """Return whether `augment` changes patches."""
    return bool({"flip", "robust"} & set(parts))


def augment(rgb: Tensor, cube: Tensor, parts: tuple[str, ...], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Apply the parts "flip" and "robust" to an image (3, p, p) in [0, 1] and its cube (bands, p, p), both float32.

    "robust" leaves the cube as it is.
    """
    if "flip" in parts:
        quarters, mirrored = rng.integers(4), rng.integers(2)
        rgb, cube = (
            torch.rot90(values.flip(2) if mirrored else values, int(quarters), (1, 2)) for values in (rgb, cube)
        )
    if "robust" in parts:
        rgb = torch.from_numpy(degrade(rgb.permute(1, 2, 0).numpy(), rng)).permute(2, 0, 1)
    return rgb, cube


def degrade(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an image (H, W, 3) in [0, 1] as another camera might have stored it, float32.

    Three changes, each with a probability of 0.5: exposure by up to half a stop more or less, with clipping; photon
    noise of 200 to 5,000 electrons at full scale; JPEG of quality 50 to 95.
    """
    exposed, noisy, compressed = rng.random(3) < 0.5
    if exposed:
        rgb = np.minimum(rgb * 2 ** rng.uniform(-0.5, 0.5), 1)
    if noisy:
        electrons = math.exp(rng.uniform(math.log(200), math.log(5000)))
        rgb = np.minimum(rng.poisson(rgb * electrons) / electrons, 1)
    if compressed:
        file = Imaging(quality=int(rng.integers(50, 96))).encode(np.round(rgb * 255).astype(np.uint8))
        decoded = np.asarray(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR))
        rgb = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB) / 255
    return rgb.astype(np.float32)
