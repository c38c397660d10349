"""drcr/compute/winograd.py."""

import pytest
import torch
import torch.nn.functional as F

from drcr.compute.winograd import N_PARTS, TILE, as_image, convolve_parts, join, kernels, scratch, split


@pytest.mark.parametrize("height", [8, 26])
@pytest.mark.parametrize("slope", [None, 0.1])
def test_split_and_join_make_the_convolution(height, slope):
    torch.manual_seed(0)
    x, kernel = torch.randn(height, 9, 5, dtype=torch.float64), torch.randn(7, 5, 3, 3, dtype=torch.float64)
    expected = F.conv2d(as_image(x), kernel)[0].permute(1, 2, 0)
    if slope is not None:
        expected = F.leaky_relu(expected, slope)
    n = len(expected) // TILE
    parts, totals = torch.full((N_PARTS, n, 9, 5), torch.nan).double(), torch.zeros(N_PARTS, n, 7, 7).double()
    split(x, parts)
    convolve_parts(totals, parts, list(kernels(kernel)), [0, 0])
    out = torch.empty_like(expected)
    join(totals, out, slope)
    assert (out - expected).abs().max() < 1e-12


def test_rounding_is_no_worse_than_direct_convolution():
    """In float32, 100 channels wide, against float64."""
    torch.manual_seed(0)
    x, kernel = torch.rand(38, 32, 100), torch.randn(100, 100, 3, 3)
    exact = F.conv2d(as_image(x.double()), kernel.double())[0].permute(1, 2, 0)
    direct = F.conv2d(as_image(x), kernel)[0].permute(1, 2, 0)
    parts, totals, out = torch.empty(N_PARTS, 6, 32, 100), torch.zeros(N_PARTS, 6, 30, 100), torch.empty(36, 30, 100)
    split(x, parts)
    convolve_parts(totals, parts, list(kernels(kernel)), [0, 0])
    join(totals, out)
    errors = [float((result - exact).norm() / exact.norm()) for result in (out, direct)]
    assert errors[0] < 3 * errors[1] < 3e-6


def test_scratch_is_the_same_memory_as_long_as_it_fits():
    like = torch.empty(1)
    first = scratch("test", (3, 4), like)
    assert scratch("test", (12,), like).data_ptr() == first.data_ptr()
    assert scratch("test", (5, 4), like).numel() == 20
    assert scratch("test", (2,), like.double()).dtype == torch.float64
    assert scratch("other", (3, 4), like).data_ptr() != scratch("test", (3, 4), like).data_ptr()
