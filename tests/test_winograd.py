"""drcr/compute/winograd.py."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from drcr.compute.winograd import (
    WinogradConv2d,
    as_image,
    convolve_parts,
    join,
    kernels,
    scratch,
    split,
    use_winograd,
)
from drcr.metrics import mrae
from drcr.model import DRCR


@pytest.fixture(autouse=True)
def narrow_maps_too(monkeypatch):
    monkeypatch.setattr("drcr.compute.winograd.WIDTH", 0)


@pytest.mark.parametrize(("first", "height"), [(0, 18), (-1, 16), (-1, 13), (-1, 1)])
def test_split_and_join_make_the_convolution(first, height):
    """Of a map with a halo, `first` 0, and of one without, around which there are zeros."""
    torch.manual_seed(0)
    x, kernel = torch.randn(height, 9, 5, dtype=torch.float64), torch.randn(7, 5, 3, 3, dtype=torch.float64)
    expected = F.conv2d(as_image(x), kernel, padding=(-first, 0))[0].permute(1, 2, 0)
    n = -(-len(expected) // 4)
    parts, totals = torch.full((6, n, 9, 5), torch.nan).double(), torch.zeros(6, n, 7, 7).double()
    split(x, parts, first)
    convolve_parts(totals, parts, list(kernels(kernel)), [0, 0])
    for slope in (None, 0.1):
        out = torch.empty_like(expected)
        join(totals, out, slope)
        assert (out - (expected if slope is None else F.leaky_relu(expected, slope))).abs().max() < 1e-12


def test_scratch_is_the_same_memory_as_long_as_it_fits():
    like = torch.empty(1)
    with torch.inference_mode():
        first = scratch("test", (3, 4), like)
    first.zero_()
    assert scratch("test", (12,), like).data_ptr() == first.data_ptr()
    assert scratch("test", (5, 4), like).numel() == 20
    assert scratch("test", (2,), like.double()).dtype == torch.float64
    assert scratch("other", (3, 4), like).data_ptr() != scratch("test", (3, 4), like).data_ptr()


@pytest.mark.parametrize("height", [1, 4, 6, 9])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_the_direct_ones(height, bias):
    torch.manual_seed(0)
    direct = nn.Conv2d(5, 6, 3, padding=1, bias=bias).double()
    filtered = copy.deepcopy(direct)
    use_winograd(filtered)
    assert type(filtered) is WinogradConv2d
    x = torch.randn(2, 5, height, 7, dtype=torch.float64)
    results = []
    for conv in (direct, filtered):
        given = x.clone().requires_grad_()
        out = conv(given)
        (out**3).sum().backward()
        results.append([out.detach(), given.grad, *(parameter.grad for parameter in conv.parameters())])
    for ours, theirs in zip(*reversed(results), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-10 * theirs.abs().max().item())


def test_rounding_is_no_worse_than_the_direct_way():
    """Of the whole network's gradients, float32 against float64, 100 channels wide."""
    torch.manual_seed(0)
    models = [DRCR(n_blocks=1)]
    models += [copy.deepcopy(models[0]), copy.deepcopy(models[0]).double()]
    use_winograd(models[1])
    rgb, cube = torch.rand(1, 3, 32, 32), torch.rand(1, 31, 32, 32) + 0.1
    gradients = []
    for model in models:
        model.to(memory_format=torch.channels_last)
        dtype = model.stem[0].weight.dtype
        mrae(model(rgb.to(dtype)), cube.to(dtype)).backward()
        gradients.append(torch.cat([parameter.grad.double().flatten() for parameter in model.parameters()]))
    direct, filtered = ((one - gradients[2]).norm() / gradients[2].norm() for one in gradients[:2])
    assert filtered < 2 * direct
    assert filtered < 1e-5


def test_only_3x3_convolutions_with_zeros_around_and_the_same_parameters():
    model = DRCR(channels=8, n_blocks=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    use_winograd(model)
    direct = {name for name, module in model.named_modules() if type(module) is nn.Conv2d}
    assert direct == {"stem.0", "stem.2", "tail.0", "tail.2", "npm.kernels.0.conv1x1", "npm.kernels.1.conv1x1"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_narrow_maps_are_convolved_directly(monkeypatch):
    conv = nn.Conv2d(4, 4, 3, padding=1)
    x = torch.rand(1, 4, 8, 16)
    expected = conv(x)
    use_winograd(conv)
    assert not torch.equal(conv(x), expected)
    monkeypatch.setattr("drcr.compute.winograd.WIDTH", 17)
    assert torch.equal(conv(x), expected)
