"""DRCR Net (Li et al., CVPR Workshops 2022): dense residual channel re-calibration with non-local purification.

All feature maps are (N, C, H, W).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NPMVariant = Literal["released", "paper"]
SLOPE = 0.2
"""Of LeakyReLU, the activation after every convolution in NPM (but the two kernels) and DRCR blocks."""


def conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return the 3x3 convolution used inside NPM and DRCR blocks: zero padding, with bias."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def reflect_conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return the 3x3 convolution used in stem and tail: reflection padding, no bias."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="reflect", bias=False)


def activate(x: Tensor) -> Tensor:
    """Apply LeakyReLU."""
    return F.leaky_relu(x, SLOPE)


class ChannelRecalibration(nn.Module):
    """Channel re-calibration module (CRM): scale each channel by a gate in (0, 1) seen from the whole image.

    Global average pooling, then a bottleneck of three linear layers without bias, C -> C/8 -> C/8 -> C.
    """

    def __init__(self, channels: int) -> None:
        """`channels` = C, at least 8."""
        super().__init__()
        squeezed = channels // 8
        self.gate = nn.Sequential(
            nn.Linear(channels, squeezed, bias=False),
            nn.ReLU(),
            nn.Linear(squeezed, squeezed, bias=False),
            nn.ReLU(),
            nn.Linear(squeezed, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x * self.gate(x.mean((2, 3)))[:, :, None, None]


class DRCRBlock(nn.Module):
    """Dense residual channel re-calibration block: three convolutions down, three up, joined by two CRMs."""

    def __init__(self, channels: int) -> None:
        """`channels` = C in and out."""
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)
        self.conv3 = conv3x3(channels, channels)
        self.conv4 = conv3x3(2 * channels, channels)
        self.conv5 = conv3x3(2 * channels, channels)
        self.conv6 = conv3x3(2 * channels, channels)
        self.crm1 = ChannelRecalibration(channels)
        self.crm2 = ChannelRecalibration(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        e1 = activate(self.conv1(x))
        e2 = activate(self.conv2(e1))
        e3 = activate(self.conv3(e2))
        r = self.crm1(x)
        d4 = activate(self.conv4(torch.cat([e3, r], 1)))
        d5 = activate(self.conv5(torch.cat([e2, d4], 1)))
        d6 = activate(self.conv6(torch.cat([e1, d5], 1)))
        return d6 + self.crm2(r)


class TwoKernels(nn.Module):
    """A 3x3 and a 1x1 convolution side by side, concatenated: C -> 2C."""

    def __init__(self, channels: int) -> None:
        """`channels` = C."""
        super().__init__()
        self.conv3x3 = conv3x3(channels, channels)
        self.conv1x1 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 2C, H, W)."""
        return torch.cat([self.conv3x3(x), self.conv1x1(x)], 1)


class NonLocalPurification(nn.Module):
    """Non-local purification module (NPM): the noise of the stem's features is removed at three scales.

    `reading` "released": the quarter scale runs through the half scale's two kernels, as in the authors' code
    and so in their weights. "paper": each scale has its own, as in the paper's figure.
    """

    def __init__(self, channels: int, reading: NPMVariant) -> None:
        """`channels` = C in and out."""
        super().__init__()
        self.kernels = nn.ModuleList(TwoKernels(channels) for _ in range({"released": 2, "paper": 3}[reading]))
        self.merge = nn.ModuleList(conv3x3(2 * channels, channels) for _ in range(3))
        self.fuse = conv3x3(3 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W), for any H and W from 4 up."""
        height, width = x.shape[2:]
        # Two halvings need multiples of 4. Only the pooled branches see the reflected rows and columns.
        below, right = -height % 4, -width % 4
        padded = F.pad(x, (0, right, 0, below), mode="reflect") if below or right else x
        half = F.avg_pool2d(padded, 2)
        quarter = F.avg_pool2d(half, 2)

        scales = []
        for i, scale in enumerate((x, half, quarter)):
            kernels = self.kernels[min(i, len(self.kernels) - 1)]
            features = activate(self.merge[i](kernels(scale)))
            if i > 0:
                features = F.interpolate(features, scale_factor=2**i, mode="bilinear", align_corners=False)
                features = features[:, :, :height, :width]
            scales.append(features)
        return activate(self.fuse(torch.cat(scales, 1))) + x


class DRCR(nn.Module):
    """DRCR Net: stem, non-local purification, DRCR blocks, tail. No clip, no skip from the input.

    Example::

        cube = DRCR()(torch.rand(1, 3, 482, 512))  # (1, 31, 482, 512)
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 31,
        channels: int = 100,
        n_blocks: int = 10,
        npm: NPMVariant = "released",
    ) -> None:
        """Build the network; the defaults are the released one's.

        `npm="released"` has 9,378,282 parameters (the authors' 9,478,482 less the 100,200 that their code
        allocates and never uses), `npm="paper"` has 9,478,482. Raises ValueError on sizes that make no network.
        """
        super().__init__()
        if npm not in ("released", "paper"):
            raise ValueError(f'npm must be "released" or "paper", not {npm!r}')
        if channels < 8 or n_blocks < 0 or in_channels < 1 or out_channels < 1:
            raise ValueError(
                "channels must be at least 8 (the CRM divides them by 8), n_blocks 0 or more, the others 1"
            )
        self.architecture = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "channels": channels,
            "n_blocks": n_blocks,
            "npm": npm,
        }
        self.wavelengths: list[float] | None = None
        """Of the output bands, in nm, where they are known; kept in checkpoints."""
        self.input_encoding: Literal["linear", "stored"] = "linear"
        """What it was trained on: linear light, or encoded images as their files store them; kept in checkpoints."""
        self.stem = nn.Sequential(
            reflect_conv3x3(in_channels, channels),
            nn.PReLU(),
            reflect_conv3x3(channels, channels),
        )
        self.npm = NonLocalPurification(channels, npm)
        self.blocks = nn.Sequential(*(DRCRBlock(channels) for _ in range(n_blocks)))
        self.tail = nn.Sequential(
            reflect_conv3x3(channels, channels),
            nn.PReLU(),
            reflect_conv3x3(channels, out_channels),
        )

    def forward(self, rgb: Tensor) -> Tensor:
        """RGB (N, 3, H, W), divided by its largest value, -> radiance (N, bands, H, W), nominally in [0, 1].

        H and W are any from 4 up; on multiples of 4 the result is exactly the released code's. Raises
        ValueError on smaller images.
        """
        if min(rgb.shape[2:]) < 4:
            raise ValueError(f"an image of at least 4 x 4 pixels is needed, not {rgb.shape[2]} x {rgb.shape[3]}")
        return self.tail(self.blocks(self.npm(self.stem(rgb))))
