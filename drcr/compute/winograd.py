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
"""`join` adds this part to every row with weight 1, so it adds the bias there."""

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
    """Return the 8 kernels of 1x3, (8, 3 C in, C out), of a 3x3 kernel (C out, C in, 3, 3)."""
    return torch.einsum("kr,oirs->ksio", _KERNEL.to(weight), weight).flatten(1, 2)


def split(x: Tensor, parts: Tensor, reflect: bool) -> None:
    """Write the inputs of the 8 convolutions into `parts` (8, n, W + 2, C), of a map (6 n + 2, W, C) with its halo.

    Row i of each part is made of rows 6 i to 6 i + 7. The columns added at left and right are reflected, or 0.
    """
    matrix = _matrix(_INPUT, x.dtype, x.device)
    rows = x.flatten(1).unfold(0, N_PARTS, TILE).mT
    torch.bmm(matrix.expand(len(rows), -1, -1), rows, out=parts[:, :, 1:-1].flatten(2).transpose(0, 1))
    if reflect:
        parts[:, :, 0], parts[:, :, -1] = parts[:, :, 2], parts[:, :, -3]
    else:
        parts[:, :, :: parts.shape[2] - 1] = 0


def convolve(totals: Tensor, parts: Tensor, weights: Tensor, add: bool) -> None:
    """Write the 8 convolutions of `parts` (8, n, W + 2, C in) into `totals` (8, n, W + 2, C out), or add them to it.

    Rows follow each other in memory with a column more at each end. So three pixels that follow each other are a row
    of a matrix, and every third pixel of the result is a row of its product with the kernel: a convolution is three
    products, which begin at one pixel each. What the columns at the ends of `totals` become is not used.
    """
    total, values, taken = totals.flatten(1, 2), parts.flatten(1), 3 * parts.shape[3]
    for first in range(3):
        out = total[:, first + 1 : -1 : 3]
        begin, n_rows = first * parts.shape[3], out.shape[1]
        rows = values[:, begin : begin + n_rows * taken].unflatten(1, (n_rows, taken))
        if add:
            out.baddbmm_(rows, weights)
        else:
            torch.bmm(rows, weights, out=out)


def join(totals: Tensor, out: Tensor, bias: Tensor | None, slope: float | None) -> None:
    """Write the rows of the result into `out` (6 n, W, C), of what `convolve` made: (8, n, W + 2, C).

    Add the bias (C,), and with `slope` apply LeakyReLU.
    """
    if bias is not None:
        totals[BIAS_PART] += bias
    matrix = _matrix(_OUTPUT, out.dtype, out.device)
    parts = totals[:, :, 1:-1].flatten(2).transpose(0, 1)
    torch.bmm(matrix.expand(len(parts), -1, -1), parts, out=out.view(len(parts), TILE, -1))
    if slope is not None:
        F.leaky_relu_(out, slope)


@cache
def _matrix(matrix: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    return matrix.to(device, dtype)
