"""Entry point of torch.hub: `torch.hub.load("path/of/this/folder", "drcr_net", source="local")`."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drcr.correction import Network

dependencies = ["torch", "numpy", "cv2"]


def drcr_net(checkpoint: str | Path | None = None, device: str = "cpu") -> "Network":
    """Return DRCR Net with the weights of a checkpoint (.pth), ours or the authors', in evaluation mode.

    Default: the small network of test/model (48 channels, 3 blocks), not the paper's. It takes RGB (N, 3, H, W)
    divided by its largest value and returns radiance (N, bands, H, W). `wavelengths` are those of the bands, in nm;
    `input_encoding` says how the values of its input are encoded.
    """
    from drcr.checkpoint import load_model

    return load_model(checkpoint or Path(__file__).with_name("test") / "model/model.pth", device)
