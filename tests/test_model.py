import numpy as np
import pytest
import torch

from drcr.checkpoint import rename_released
from drcr.model import DRCR


def close(ours, golden, tolerance):
    """Within `tolerance` of the largest golden value."""
    np.testing.assert_allclose(ours.float().cpu().numpy(), golden, rtol=0, atol=tolerance * np.abs(golden).max())


@torch.inference_mode()
def test_every_intermediate_equals_the_released_code(golden, device, precision, tolerance):
    numbers = golden("forward_c16_b2")
    model = DRCR(channels=16, n_blocks=2)
    state = {name[2:]: torch.from_numpy(value) for name, value in numbers.items() if name.startswith("w/")}
    model.load_state_dict(rename_released(state))
    model.to(device)
    seen = {}
    for name, part in {
        "stem": model.stem,
        "npm": model.npm,
        "block0": model.blocks[0],
        "block1": model.blocks[1],
    }.items():
        part.register_forward_hook(lambda _m, _x, result, name=name: seen.__setitem__(name, result))
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        seen["y"] = model(torch.from_numpy(numbers["x"]).to(device))
    assert set(seen) == {"stem", "npm", "block0", "block1", "y"}
    for name, result in seen.items():
        close(result, numbers[name], tolerance.forward)


@pytest.mark.parametrize(("npm", "parameters"), [("released", 9_378_282), ("paper", 9_478_482)])
def test_parameter_count(npm, parameters):
    assert sum(p.numel() for p in DRCR(npm=npm).parameters()) == parameters


@torch.inference_mode()
def test_paper_reading_is_the_released_one_where_its_third_kernels_equal_the_second():
    released, paper = DRCR(channels=8, n_blocks=1), DRCR(channels=8, n_blocks=1, npm="paper")
    state = released.state_dict()
    third = {name.replace("kernels.1", "kernels.2"): value for name, value in state.items() if "kernels.1" in name}
    paper.load_state_dict(state | third)
    x = torch.rand(1, 3, 16, 20)
    assert torch.equal(released(x), paper(x))
    paper.npm.kernels[2].conv3x3.weight += 0.1
    assert not torch.allclose(released(x), paper(x))


@torch.inference_mode()
@pytest.mark.parametrize("size", [(4, 4), (4, 5), (5, 4), (6, 7), (9, 11), (38, 48), (13, 64)])
def test_any_size_from_four_up(size):
    assert DRCR(channels=8, n_blocks=1)(torch.rand(1, 3, *size)).shape == (1, 31, *size)


@torch.inference_mode()
def test_padding_reaches_only_the_edge_that_needs_it():
    """Rows far from the lower edge do not change when two rows are cut there, but for the CRMs' averages."""
    model = DRCR(channels=8, n_blocks=0).eval()  # without blocks there is no CRM
    x = torch.rand(1, 3, 50, 48)
    whole, cut = model(x), model(x[:, :, :48])
    np.testing.assert_allclose(whole[:, :, :30], cut[:, :, :30], atol=1e-6)
    assert not torch.allclose(whole[:, :, 44:48], cut[:, :, 44:48], atol=1e-6)


def test_bad_arguments():
    with pytest.raises(ValueError, match="4 x 4"):
        DRCR(channels=8, n_blocks=1)(torch.rand(1, 3, 3, 8))
    with pytest.raises(ValueError, match="npm"):
        DRCR(npm="figure")
    with pytest.raises(ValueError, match="channels"):
        DRCR(channels=4)
