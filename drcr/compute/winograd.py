"""Winograd convolution F(6,3) (Lavin & Gray).

"Fast algorithms for convolutional neural networks", CVPR 2016, section 4: a 3x3 convolution with less than half the
multiplications. F(6,3) is applied down the columns: 6 rows of the result come from 8 convolutions of 1x3 instead of
18. Their inputs are sums and differences of 8 rows of the input, their weights sums and differences of the kernel's
rows, and their outputs are added up once more. This is exact except for rounding.

Feature maps are (rows, W, C) here, the order in which channels-last tensors lie in memory. So the sums over rows are
products of a small matrix and one as wide as a row is long, which libraries compute at the speed of the memory.
"""

import math
import threading
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 6
"""Rows of the result that are computed together."""
N_PARTS = TILE + 2
"""Convolutions of 1x3 that give them."""
# The algorithm multiplies polynomials by their values at these points and at infinity. More points save more
# multiplications and cost digits: the next step, F(8,3), has three to four times the rounding error.
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)


def _matrices(points: tuple[float, ...]) -> list[Tensor]:
    """Return B^T, G and A^T of the paper: applied to the input's rows, the kernel's rows and the products.

    Those of Cook and Toom: Blahut, Fast Algorithms for Signal Processing, 2010, section 5.2.
    """
    others = {p: [q for q in points if q != p] for p in points}
    inputs = [[*np.poly(rest)[::-1], 0] for rest in others.values()] + [np.poly(points)[::-1]]
    kernel = [[p**i / np.prod(np.subtract(p, rest)) for i in range(3)] for p, rest in others.items()] + [[0, 0, 1]]
    output = [[*(p**i for p in points), i == TILE - 1] for i in range(TILE)]
    return [torch.from_numpy(np.array(rows, float)) for rows in (inputs, kernel, output)]


_INPUT, _KERNEL, _OUTPUT = _matrices(_POINTS)
BIAS_PART = _POINTS.index(1)
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
    """Return the 8 kernels of 1x3, (8, C out, C in, 1, 3), of a 3x3 kernel (C out, C in, 3, 3)."""
    return torch.einsum("kr,oirs->kois", _KERNEL.to(weight), weight)[:, :, :, None]


def split(x: Tensor, parts: Tensor) -> None:
    """Write the inputs of the 8 convolutions into `parts` (8, n, W, C), of a map (6 n + 2, W, C) with its halo.

    Row i of each part is made of rows 6 i to 6 i + 7.
    """
    matrix = _matrix(_INPUT, x.dtype, x.device)
    for rows, part in zip(x.flatten(1).unfold(0, N_PARTS, TILE).mT, parts.flatten(2).unbind(1), strict=True):
        torch.mm(matrix, rows, out=part)


def join(parts: Tensor, out: Tensor, slope: float | None = None) -> None:
    """Write the rows of the result into `out` (6 n, W, C), of the outputs (8, n, W, C) of the 8 convolutions.

    With `slope`, apply LeakyReLU to them.
    """
    matrix = _matrix(_OUTPUT, out.dtype, out.device)
    for part, rows in zip(parts.flatten(2).unbind(1), out.flatten(1).split(TILE), strict=True):
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
    """Convolve the 8 parts (8, n, W, C) with the 8 kernels and add the results to `totals`."""
    fused = totals.device.type == "cpu" and totals.dtype != torch.float64 and torch.backends.mkldnn.is_available()
    for total, part, kernel in zip(as_image(totals), as_image(parts), kernels, strict=True):
        if fused:
            add = torch.ops.mkldnn._convolution_pointwise_.binary
            add(total, part, kernel, None, padding, [1, 1], [1, 1], 1, "add", 1.0, None, [], None)
        else:
            total.add_(F.conv2d(part, kernel, padding=padding))
