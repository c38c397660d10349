"""3x3 convolution with half the multiplications: minimal filtering F(4, 3) down the columns.

4 rows of the result come from 6 convolutions of 1x3 instead of 12: over sums and differences of 6 rows of the input,
with sums and differences of the kernel's rows, and added up once more. That is exact but for rounding, which is no
more than that of the direct way (tested). The matrices are those of Lavin and Gray, "Fast algorithms for
convolutional neural networks", CVPR 2016, section 4.3.

Feature maps are (rows, W, C) here: the order in which channels-last tensors lie in memory. So the sums over rows are
products of a small matrix and one as wide as a row is long, which libraries do at the speed of the memory.
"""

import math
import threading
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# B^T, G and A^T of the paper: of the input's rows, the kernel's, and the result's
_INPUT = torch.tensor(
    [
        [4.0, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_KERNEL = torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]).double() / 24
_RESULT = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]).double()
BIAS_PART = 1
"""`join` adds this part to every row alike: the bias belongs there."""

CHANNELS, WIDTH = 80, 64
"""Networks of fewer channels, and maps of fewer columns, are faster directly: measured, benchmarks/README.md."""

_scratch = threading.local()


def scratch(name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return room for what is soon done with, of the type of `like`: the same memory for each `name`, in each thread.

    It costs less than new memory, which the system clears page by page.
    """
    size = math.prod(shape)
    room = getattr(_scratch, name, None)
    if room is None or room.numel() < size or (room.dtype, room.device) != (like.dtype, like.device):
        with torch.inference_mode(False):  # what is made in inference mode can't be used outside
            room = torch.empty(size, dtype=like.dtype, device=like.device)
        setattr(_scratch, name, room)
    return room[:size].view(shape)


def kernels(weight: Tensor) -> Tensor:
    """(C out, C in, 3, 3) -> 6 kernels, (6, C out, C in, 1, 3)."""
    return torch.einsum("kr,oirs->kois", _KERNEL.to(weight), weight)[:, :, :, None]


def split(x: Tensor, parts: Tensor, first: int = 0) -> None:
    """Write what to convolve with `kernels`, of a map (rows, W, C), into `parts` (6, n, W, C).

    The i-th row of each part is made of rows `first` + 4 i and the five below; what lies outside the map is 0.
    """
    x, parts = x.flatten(1), parts.flatten(2)
    matrix = _INPUT.to(x)
    for i in range(parts.shape[1]):
        top = first + 4 * i
        begin, end = max(top, 0), min(top + 6, len(x))
        torch.mm(matrix[:, begin - top : end - top], x[begin:end], out=parts[:, i])


def join(parts: Tensor, out: Tensor, slope: float | None = None) -> None:
    """Write the convolved parts (6, n, W, C) as rows into `out` (4 n or up to 3 fewer, W, C).

    With `slope` the result is LeakyReLU's of it.
    """
    parts, out = parts.flatten(2), out.flatten(1)
    matrix = _RESULT.to(out)
    for i in range(parts.shape[1]):
        rows = out[4 * i : 4 * i + 4]
        torch.mm(matrix[: len(rows)], parts[:, i], out=rows)
        if slope is not None:
            F.leaky_relu_(rows, slope)


def as_image(rows: Tensor) -> Tensor:
    """(N, rows, W, C) or (rows, W, C) -> (N or 1, C, rows, W), the same memory: channels last."""
    return (rows if rows.ndim == 4 else rows[None]).permute(0, 3, 1, 2)


def convolve_parts(totals: Tensor, parts: Tensor, kernels: list[Tensor], padding: list[int]) -> None:
    """Add the convolutions of 6 parts, (6, n, W, C) or (6, N, n, W, C), with 6 kernels to `totals`."""
    fused = totals.device.type == "cpu" and totals.dtype != torch.float64 and torch.backends.mkldnn.is_available()
    for total, part, kernel in zip(map(as_image, totals), map(as_image, parts), kernels, strict=True):
        if fused:
            add = torch.ops.mkldnn._convolution_pointwise_.binary
            add(total, part, kernel, None, padding, [1, 1], [1, 1], 1, "add", 1.0, None, [], None)
        else:
            total.add_(F.conv2d(part, kernel, padding=padding))


def _split_batch(x: Tensor) -> Tensor:
    """(N, H, W, C) -> (6, N, rows, W, C), with zeros around the images."""
    n_images, height, width, channels = x.shape
    parts = scratch("parts", (6, n_images, -(-height // 4), width, channels), x)
    for i, image in enumerate(x):
        split(image, parts[:, i], first=-1)
    return parts


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve images (N, H, W, C); returns (N, H, W, C out)."""
    parts = _split_batch(x)
    totals = scratch("totals", (*parts.shape[:-1], len(weight)), parts).zero_()
    if bias is not None:
        totals[BIAS_PART] = bias
    convolve_parts(totals, parts, list(kernels(weight).to(x.dtype)), [0, 1])
    out = x.new_empty(*x.shape[:3], len(weight))
    for i, image in enumerate(out):
        join(totals[:, i], image)
    return out


class _Filtered(torch.autograd.Function):
    """The convolution of x (N, H, W, C) with weight (C out, C, 3, 3) and bias, zeros around; float32 weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_x = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _convolve(gradient, weight.transpose(0, 1).flip(2, 3), None)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 1, 2), dtype=weight.dtype)

        parts = _split_batch(x)
        of_parts = scratch("totals", (*parts.shape[:-1], len(weight)), parts)
        matrix = _RESULT.T.to(gradient)
        for i, image in enumerate(gradient.flatten(2)):
            for j, of_rows in enumerate(image.split(4)):
                torch.mm(matrix[:, : len(of_rows)], of_rows, out=of_parts[:, i, j].flatten(1))
        geometry = None, [1, 1], [0, 1], [1, 1], False, [0, 0], 1, [False, True, False]
        like = parts.new_empty(*weight.shape[:2], 1, 3)
        of_kernels = [
            torch.ops.aten.convolution_backward(as_image(of_part), as_image(part), like, *geometry)[1].to(weight)
            for of_part, part in zip(of_parts, parts, strict=True)
        ]
        of_weight = torch.einsum("kr,kois->oirs", _KERNEL.to(weight), torch.stack(of_kernels)[:, :, :, 0])
        return of_x, of_weight, of_bias


class WinogradConv2d(nn.Conv2d):
    """A 3x3 `nn.Conv2d` with zero padding of 1, computed by F(4, 3), with gradients; for the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C in, H, W) -> (N, C out, H, W), both channels last in memory. Narrow maps are convolved directly."""
        if x.shape[3] < WIDTH:
            return super().forward(x)
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        return _Filtered.apply(x.permute(0, 2, 3, 1).contiguous(), self.weight, self.bias).permute(0, 3, 1, 2)


def use_winograd(model: nn.Module) -> None:
    """Let 3x3 convolutions that pad with zeros be computed by F(4, 3); the parameters stay as they are."""
    for module in model.modules():
        if type(module) is nn.Conv2d and module.kernel_size == (3, 3) and module.padding_mode == "zeros":
            module.__class__ = WinogradConv2d
