"""Winograd convolution F(4,3) (Lavin & Gray).

"Fast algorithms for convolutional neural networks", CVPR 2016, section 4.3: a 3x3 convolution with half the
multiplications. F(4,3) is applied down the columns: 4 rows of the result come from 6 convolutions of 1x3 instead of
12. Their inputs are sums and differences of 6 rows of the input, their weights sums and differences of the kernel's
rows, and their outputs are added up once more. This is exact except for rounding.

Feature maps are (rows, W, C) here, the order in which channels-last tensors lie in memory. So the sums over rows are
products of a small matrix and one as wide as a row is long, which libraries compute at the speed of the memory.
"""

import math
import threading
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

# B^T, G and A^T of the paper: applied to the input's rows, the kernel's rows and the products
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
_OUTPUT = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]).double()
BIAS_PART = 1
"""`join` adds this part to every row with weight 1, so the bias belongs there."""

_scratch = threading.local()


def scratch(name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return uninitialised memory for a short-lived tensor: the same memory for each `name`, in each thread.

    It is faster than new memory, which the system clears page by page.
    """
    size = math.prod(shape)
    room = getattr(_scratch, name, None)
    if room is None or room.numel() < size or (room.dtype, room.device) != (like.dtype, like.device):
        room = torch.empty(size, dtype=like.dtype, device=like.device)
        setattr(_scratch, name, room)
    return room[:size].view(shape)


def kernels(weight: Tensor) -> Tensor:
    """Return the 6 kernels of 1x3, (6, C out, C in, 1, 3), of a 3x3 kernel (C out, C in, 3, 3)."""
    return torch.einsum("kr,oirs->kois", _KERNEL.to(weight), weight)[:, :, :, None]


def split(x: Tensor, parts: Tensor) -> None:
    """Write the inputs of the 6 convolutions into `parts` (6, n, W, C), of a map (4 n + 2, W, C) with its halo.

    Row i of each part is made of rows 4 i to 4 i + 5.
    """
    matrix = _matrix(_INPUT, x.dtype, x.device)
    for rows, part in zip(x.flatten(1).unfold(0, 6, 4).mT, parts.flatten(2).unbind(1), strict=True):
        torch.mm(matrix, rows, out=part)


def join(parts: Tensor, out: Tensor, slope: float | None = None) -> None:
    """Write the rows of the result into `out` (4 n, W, C), of the outputs (6, n, W, C) of the 6 convolutions.

    With `slope`, apply LeakyReLU to them.
    """
    matrix = _matrix(_OUTPUT, out.dtype, out.device)
    for part, rows in zip(parts.flatten(2).unbind(1), out.flatten(1).split(4), strict=True):
        torch.mm(matrix, part, out=rows)
        if slope is not None:
            F.leaky_relu_(rows, slope)


@cache
def _matrix(matrix: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    return matrix.to(device, dtype)


def as_image(rows: Tensor) -> Tensor:
    """Return a map (rows, W, C) as (1, C, rows, W), or several (n, rows, W, C) as (n, 1, C, rows, W): same memory."""
    return rows.unsqueeze(-4).movedim(-1, -3)


def convolve_parts(totals: Tensor, parts: Tensor, kernels: list[Tensor], padding: list[int]) -> None:
    """Convolve the 6 parts (6, n, W, C) with the 6 kernels and add the results to `totals`."""
    fused = totals.device.type == "cpu" and totals.dtype != torch.float64 and torch.backends.mkldnn.is_available()
    for total, part, kernel in zip(as_image(totals), as_image(parts), kernels, strict=True):
        if fused:
            add = torch.ops.mkldnn._convolution_pointwise_.binary
            add(total, part, kernel, None, padding, [1, 1], [1, 1], 1, "add", 1.0, None, [], None)
        else:
            total.add_(F.conv2d(part, kernel, padding=padding))
