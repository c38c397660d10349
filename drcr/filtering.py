"""3x3 convolution with half the multiplications: minimal filtering F(m, 3) down the columns.

m rows of the result come from m + 2 convolutions of 1x3 instead of 3 m: over sums and differences of m + 2 rows of
the input, with sums and differences of the kernel's rows, and added up once more. That is exact but for rounding,
which is no more than that of the direct way (tested). The matrices are those of Lavin and Gray, "Fast algorithms
for convolutional neural networks", CVPR 2016, sections 4.1 and 4.3.

Feature maps are (..., rows, W, C) here: the order in which channels-last tensors lie in memory.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Filter:
    """F(m, 3); m = 1 is convolution as it is."""

    def __init__(self, m: Literal[1, 2, 4]) -> None:
        """`m` rows at a time."""
        self.m = m
        # `join` adds this part to every row alike: the bias belongs there
        self.bias_part = 0 if m == 1 else 1

    def weights(self, kernel: Tensor) -> list[Tensor]:
        """(C out, C in, 3, 3) -> m + 2 kernels (C out, C in, 1, 3); for m = 1 the kernel."""
        if self.m == 1:
            return [kernel]
        a, b, c = kernel.split(1, 2)
        if self.m == 2:
            return [a, (a + b + c) / 2, (a - b + c) / 2, c]
        sums = [(a + b + c) / -6, (a - b + c) / -6, (a + 2 * b + 4 * c) / 24, (a - 2 * b + 4 * c) / 24]
        return [a / 4, *sums, c]

    def split(self, padded: Tensor) -> list[Tensor]:
        """(..., rows + 2, W, C) -> what to convolve with `weights`: m + 2 times (..., rows / m, W, C)."""
        if self.m == 1:
            return [padded]
        d = self._every_mth_row(padded, self.m + 2)
        if self.m == 2:
            return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[3] - d[1]]
        p, q = torch.sub(d[4], d[2], alpha=4), torch.sub(d[3], d[1], alpha=4)
        r, s = d[4] - d[2], d[3] - d[1]
        first = torch.sub(d[4], d[2], alpha=5).add_(d[0], alpha=4)
        last = torch.sub(d[5], d[3], alpha=5).add_(d[1], alpha=4)
        return [first, p + q, p - q, torch.add(r, s, alpha=2), torch.sub(r, s, alpha=2), last]

    def join(self, parts: list[Tensor], out: Tensor) -> None:
        """Write the convolved parts, m > 1, as rows into `out` (..., rows, W, C). They may be changed."""
        y = self._every_mth_row(out, self.m)
        even, odd = parts[1] + parts[2], parts[1] - parts[2]
        if self.m == 2:
            torch.add(parts[0], even, out=y[0])
            torch.add(parts[3], odd, out=y[1])
            return
        even2, odd2 = parts[3] + parts[4], parts[3] - parts[4]
        torch.add(parts[0].add_(even), even2, out=y[0])
        torch.add(odd, odd2, alpha=2, out=y[1])
        torch.add(even, even2, alpha=4, out=y[2])
        torch.add(parts[5].add_(odd), odd2, alpha=8, out=y[3])

    def _every_mth_row(self, x: Tensor, n: int) -> list[Tensor]:
        """Return rows 0, m, 2m, ...; 1, m + 1, ...; and so on, `n` times, all equally many."""
        last = x.shape[-3] - n
        return [x[..., k : k + last + 1 : self.m, :, :] for k in range(n)]


class _Split(torch.autograd.Function):
    """F(4, 3)'s `split`, which autograd would do in many more steps."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor) -> tuple[Tensor, ...]:
        ctx.shape = padded.shape
        return tuple(Filter(4).split(padded))

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Tensor:
        result = g[0].new_empty(ctx.shape)
        d = Filter(4)._every_mth_row(result, 6)
        even, odd, even2, odd2 = g[1] + g[2], g[1] - g[2], g[3] + g[4], g[3] - g[4]
        # rows 0 and 1 of each six are the one before's rows 4 and 5
        result[..., :2, :, :] = 0
        torch.sub(torch.add(even2, even, alpha=4).neg_(), g[0], alpha=5, out=d[2])
        torch.sub(torch.add(odd, odd2, alpha=2), g[5], alpha=5, out=d[3])
        torch.add(even.add_(even2), g[0], out=d[4])
        d[5].copy_(g[5])
        d[0].add_(g[0], alpha=4)
        d[1].add_(torch.sub(g[5], odd).mul_(4).sub_(odd2, alpha=2))
        return result


class _Join(torch.autograd.Function):
    """F(4, 3)'s `join`."""

    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        *batch, rows, width, channels = parts[0].shape
        out = parts[0].new_empty(*batch, 4 * rows, width, channels)
        Filter(4).join(list(parts), out)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, ...]:
        y = Filter(4)._every_mth_row(g, 4)
        even, odd = y[0] + y[2], y[1] + y[3]
        even2, odd2 = torch.add(y[0], y[2], alpha=4), torch.add(y[1], y[3], alpha=4).mul_(2)
        return y[0].contiguous(), even + odd, even - odd, even2 + odd2, even2 - odd2, y[3].contiguous()


class FilteredConv2d(nn.Conv2d):
    """A 3x3 `nn.Conv2d`, padded by 1, computed by F(4, 3), with gradients; best in channels-last memory."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C in, H, W) -> (N, C out, H, W)."""
        height = x.shape[2]
        fill = -height % 4
        if self.padding_mode == "reflect":
            x, padding = F.pad(F.pad(x, (1, 1, 1, 1), mode="reflect"), (0, 0, 0, fill)), (0, 0)
        else:
            x, padding = F.pad(x, (0, 0, 1, 1 + fill)), (0, 1)
        method = Filter(4)
        parts = []
        kernels = method.weights(self.weight)
        for i, part in enumerate(_Split.apply(x.permute(0, 2, 3, 1).contiguous())):
            bias = self.bias if i == method.bias_part else None
            parts.append(F.conv2d(part.permute(0, 3, 1, 2), kernels[i], bias, padding=padding).permute(0, 2, 3, 1))
        return _Join.apply(*parts).permute(0, 3, 1, 2)[:, :, :height]


def use_filtering(model: nn.Module) -> None:
    """Let the 3x3 convolutions of a network be computed by F(4, 3); its parameters are what they were."""
    for module in model.modules():
        if type(module) is nn.Conv2d and module.kernel_size == (3, 3):
            module.__class__ = FilteredConv2d
