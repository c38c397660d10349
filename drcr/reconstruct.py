"""Reconstruction: an RGB image through a trained network."""

from typing import Literal

import numpy as np
import torch

from drcr.model import DRCR

Protocol = Literal["padded", "released"]


@torch.inference_mode()
def reconstruct(model: DRCR, rgb: np.ndarray, protocol: Protocol = "padded") -> np.ndarray:
    """Return the cube (H, W, bands), float32, unclipped, of an image (H, W, 3) float32 divided by its peak.

    "padded": the whole image once. "released": rows [0, H-2) and again rows [2, H), the result is the first with
    the last two rows of the second below it; twice the work. Raises ValueError on images smaller than 4 x 4
    (6 x 4 for "released").
    """
    device = next(model.parameters()).device
    image = torch.from_numpy(rgb).permute(2, 0, 1)[None].to(device)
    if protocol == "padded":
        cube = model(image)
    else:
        cube = torch.cat([model(image[:, :, :-2]), model(image[:, :, 2:])[:, :, -2:]], 2)
    return cube[0].permute(1, 2, 0).cpu().numpy()
