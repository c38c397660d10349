"""drcr/compute/winograd.py."""

import pytest
import torch
import torch.nn.functional as F

from drcr.compute.streaming import as_image, as_strip
from drcr.compute.winograd import N_PARTS, TILE, convolve, join, kernels, scratch, split


def convolved(x: torch.Tensor, kernel: torch.Tensor, **how) -> torch.Tensor:
    """Return the valid rows of a map (6 n + 2, W, C), with zeros or reflected columns at its sides."""
    n, width = len(x) // TILE, x.shape[1]
    parts, totals = (x.new_full((N_PARTS, n, width + 2, channels), torch.nan) for channels in kernel.shape[1::-1])
    split(x, parts, how.pop("reflect", False))
    for add in (False, True)[: how.pop("times", 1)]:
        convolve(totals, parts, kernels(kernel), add)
    out = x.new_empty(n * TILE, width, len(kernel))
    join(totals, out, how.get("bias"), how.get("slope"))
    return out


def expected(x: torch.Tensor, kernel: torch.Tensor, mode="constant") -> torch.Tensor:
    return as_strip(F.conv2d(F.pad(as_image(x), (1, 1, 0, 0), mode=mode), kernel))


@pytest.mark.parametrize(("height", "width"), [(8, 9), (26, 9), (8, 1), (14, 2), (8, 4)])
@pytest.mark.parametrize("slope", [None, 0.1])
def test_split_and_join_make_the_convolution(height, width, slope):
    torch.manual_seed(0)
    x, kernel, bias = (torch.randn(*size).double() for size in ((height, width, 5), (7, 5, 3, 3), (7,)))
    wanted = 2 * expected(x, kernel) + bias
    result = convolved(x, kernel, bias=bias, slope=slope, times=2)
    assert (result - (wanted if slope is None else F.leaky_relu(wanted, slope))).abs().max() < 1e-12
    if width > 1:
        result = convolved(x, kernel, reflect=True)
        assert (result - expected(x, kernel, "reflect")).abs().max() < 1e-12


def test_rounding_is_near_that_of_direct_convolution():
    """In float32, 100 channels wide, against float64. Direct convolution has 2e-7 to 6e-7, as oneDNN chooses."""
    torch.manual_seed(0)
    x, kernel = torch.rand(38, 32, 100), torch.randn(100, 100, 3, 3)
    exact = expected(x.double(), kernel.double())
    assert (convolved(x, kernel) - exact).norm() < 1.5e-6 * exact.norm()


def test_scratch_is_the_same_memory_as_long_as_it_fits():
    like = torch.empty(1)
    first = scratch("test", (3, 4), like)
    assert scratch("test", (12,), like).data_ptr() == first.data_ptr()
    assert scratch("test", (5, 4), like).numel() == 20
    assert scratch("test", (2,), like.double()).dtype == torch.float64
    assert scratch("other", (3, 4), like).data_ptr() != scratch("test", (3, 4), like).data_ptr()
