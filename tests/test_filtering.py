"""drcr/filtering.py."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from drcr.filtering import Filter, FilteredConv2d, use_filtering
from drcr.metrics import mrae
from drcr.model import DRCR


@pytest.mark.parametrize("m", [1, 2, 4])
def test_filter_is_the_convolution(m):
    torch.manual_seed(0)
    x, kernel = torch.randn(3, 18, 9, 5), torch.randn(7, 5, 3, 3)
    method, double = Filter(m), torch.float64  # in which only a wrong formula shows
    parts = [
        F.conv2d(part.permute(0, 3, 1, 2).to(double), weight.to(double)).permute(0, 2, 3, 1)
        for part, weight in zip(method.split(x), method.weights(kernel), strict=True)
    ]
    expected = F.conv2d(x.permute(0, 3, 1, 2).to(double), kernel.to(double)).permute(0, 2, 3, 1)
    out = torch.empty_like(expected)
    if m == 1:
        out = parts[0]
    else:
        method.join(parts, out)
    assert (out - expected).abs().max() < 1e-5  # `split` and `weights` were float32


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
@pytest.mark.parametrize("height", [4, 6, 9])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_the_direct_ones(padding_mode, height, bias):
    torch.manual_seed(0)
    direct = nn.Conv2d(5, 6, 3, padding=1, padding_mode=padding_mode, bias=bias).double()
    filtered = copy.deepcopy(direct)
    use_filtering(filtered)
    assert type(filtered) is FilteredConv2d
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
    use_filtering(models[1])
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


def test_only_3x3_convolutions_and_the_same_parameters():
    model = DRCR(channels=8, n_blocks=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    use_filtering(model)
    kinds = {type(module) for module in model.modules() if isinstance(module, nn.Conv2d)}
    assert kinds == {FilteredConv2d, nn.Conv2d}  # the 1x1 ones of NPM stay
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
