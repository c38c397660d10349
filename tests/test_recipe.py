import argparse

import numpy as np
import pytest
import torch

from drcr.model import DRCR
from drcr.training.recipe import PARTS, augment, average, disturb, parts_of, read_recipe


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.rand(16, 3, 8, 8), torch.rand(16, 31, 8, 8)


@pytest.mark.parametrize(
    ("text", "recipe", "parts"),
    [
        ("released", "released", ()),
        ("improved", "improved", tuple(PARTS)),
        ("ema,flip", "flip,ema", ("flip", "ema")),
        (",".join(reversed(PARTS)), "improved", tuple(PARTS)),
    ],
)
def test_recipes_and_their_parts(text, recipe, parts):
    assert read_recipe(text) == recipe
    assert parts_of(recipe) == parts


def test_an_unknown_part_is_named():
    with pytest.raises(argparse.ArgumentTypeError, match="not 'mixup'"):
        read_recipe("flip,mixup")


def test_the_released_recipe_leaves_a_batch_alone(batch):
    assert all(
        a is b for a, b in zip(augment(*batch, ("ema", "cosine", "clip"), 0, 0, list(range(16))), batch, strict=True)
    )


def test_image_and_cube_are_turned_and_mirrored_together(batch):
    place = torch.arange(64.0).reshape(1, 1, 8, 8).expand(16, 1, 8, 8)
    seen = set()
    for iteration in range(8):
        rgb, cube = augment(place.expand(16, 3, 8, 8), place.expand(16, 31, 8, 8), ("flip",), 0, iteration, range(16))
        assert (rgb[:, :1] == cube).all()
        assert (cube == cube[:, :1]).all()
        for corners in cube[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]].int().tolist():
            assert sorted(corners) == [0, 7, 56, 63]
            seen.add(tuple(corners))
        assert (cube[:, 0].flatten(1).sort().values == torch.arange(64.0)).all()
    assert len(seen) == 8


def test_a_patchs_fate_depends_on_seed_iteration_and_place_alone(batch):
    parts = ("flip", "robust")
    whole = augment(*batch, parts, 1, 5, list(range(16)))
    places = [3, 11]
    part = augment(*(values[places] for values in batch), parts, 1, 5, places)
    assert all(torch.equal(a[places], b) for a, b in zip(whole, part, strict=True))
    for seed, iteration in ((2, 5), (1, 6)):
        assert not torch.equal(augment(*batch, parts, seed, iteration, list(range(16)))[0], whole[0])


def test_disturbed_images_stay_images_and_their_cubes_as_they_are(batch):
    rgb, cube = augment(*batch, ("robust",), 0, 0, list(range(16)))
    assert torch.equal(cube, batch[1])
    assert rgb.dtype == torch.float32
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    untouched = [torch.equal(a, b) for a, b in zip(rgb, batch[0], strict=True)]
    assert 0 < sum(untouched) < 8  # an eighth of them


def test_the_disturbances_are_of_the_size_that_the_help_names():
    grey = np.full((64, 64, 3), 0.4, np.float32)
    images = [disturb(grey, np.random.default_rng(i)) for i in range(300)]
    exposures = np.array([image.mean() / 0.4 for image in images])
    assert exposures.min() == pytest.approx(2**-0.5, abs=0.02)
    assert exposures.max() == pytest.approx(2**0.5, abs=0.02)
    noise = np.array([image.std() for image in images])
    assert noise.max() == pytest.approx((0.4 * 2**0.5 / 200) ** 0.5, rel=0.3)


def test_the_average_follows_at_first_and_steadies_later():
    model, averaged = DRCR(channels=8, n_blocks=0), DRCR(channels=8, n_blocks=0)
    before = averaged.state_dict()["stem.0.weight"].clone()
    average(averaged, model, 1)
    expected = before + (1 - 2 / 11) * (model.state_dict()["stem.0.weight"] - before)
    torch.testing.assert_close(averaged.state_dict()["stem.0.weight"], expected)
    before = averaged.state_dict()["stem.0.weight"].clone()
    average(averaged, model, 100000)
    expected = before + 0.001 * (model.state_dict()["stem.0.weight"] - before)
    torch.testing.assert_close(averaged.state_dict()["stem.0.weight"], expected)
