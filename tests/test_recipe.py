"""The released recipe, and the parts that can be added."""

import argparse

import numpy as np
import pytest
import torch

from drcr.data import TrainPatches
from drcr.training.batches import AugmentedPatches, Epochs, PatchKey
from drcr.training.recipe import RECIPE_PARTS, augment, degrade, parts_of, read_recipe


@pytest.mark.parametrize(
    ("text", "recipe", "parts"),
    [
        ("released", "released", ()),
        ("improved", "robust", ("robust",)),
        ("robust,flip", "flip,robust", ("flip", "robust")),
        (",".join(reversed(RECIPE_PARTS)), ",".join(RECIPE_PARTS), tuple(RECIPE_PARTS)),
    ],
)
def test_recipes_and_their_parts(text, recipe, parts):
    assert read_recipe(text) == recipe
    assert parts_of(recipe) == parts


def test_an_unknown_part_is_named():
    with pytest.raises(argparse.ArgumentTypeError, match="not 'mixup'"):
        read_recipe("flip,mixup")


def test_the_released_recipe_leaves_patches_alone(prepared_once):
    patches = TrainPatches(prepared_once[0])
    batch = next(iter(Epochs(patches, 8, seed=0, parts=("clip",)).batches(1, 0)))
    plain = next(iter(Epochs(patches, 8, seed=0).batches(1, 0)))
    assert torch.equal(batch.rgb, plain.rgb)
    assert torch.equal(batch.cube, plain.cube)


def test_image_and_cube_are_turned_and_mirrored_together():
    place = torch.arange(64.0).reshape(1, 8, 8)
    seen = set()
    for seed in range(100):
        rgb, cube = augment(place.expand(3, 8, 8), place.expand(31, 8, 8), ("flip",), np.random.default_rng(seed))
        assert (rgb[:1] == cube).all()
        corners = cube[0, [0, 0, -1, -1], [0, -1, 0, -1]].int().tolist()
        assert sorted(corners) == [0, 7, 56, 63]
        seen.add(tuple(corners))
        assert (cube.flatten(1).sort().values == torch.arange(64.0)).all()
    assert len(seen) == 8


@pytest.mark.parametrize("loading", [{}, {"num_workers": 2, "multiprocessing_context": "fork"}])
def test_a_patchs_fate_depends_on_seed_iteration_and_place_alone(prepared_once, loading):
    """Not on the epoch, nor on what was drawn before, as in a resumed run, nor on who cuts it."""
    patches, parts = TrainPatches(prepared_once[0]), ("flip", "robust")
    source = AugmentedPatches(patches, parts, seed=1)
    batches = list(Epochs(patches, 8, seed=1, parts=parts, **loading).batches(2, 4))
    rest = list(Epochs(patches, 8, seed=1, parts=parts, **loading).batches(2, 6, skip=2))
    for ours, theirs in zip(batches[2:], rest, strict=True):
        assert torch.equal(ours.rgb, theirs.rgb)
        assert torch.equal(ours.cube, theirs.cube)
    plain = list(Epochs(patches, 8, seed=1).batches(2, 4))
    for i, (batch, original) in enumerate(zip(batches, plain, strict=True)):
        for position, image, cube, *pair in zip(batch.positions, batch.rgb, batch.cube, *original[:2], strict=True):
            alone = augment(*pair, parts, np.random.default_rng((1, 4 + i, position)))
            assert torch.equal(alone[0], image)
            assert torch.equal(alone[1], cube)
    same, other_iteration, other_position = source.__getitems__(
        [PatchKey(3, 5, 7), PatchKey(3, 6, 7), PatchKey(3, 5, 8)]
    )
    assert torch.equal(same[0], source.__getitems__([PatchKey(3, 5, 7)])[0][0])
    assert not torch.equal(same[0], other_iteration[0])
    assert not torch.equal(same[0], other_position[0])


def test_degraded_images_stay_images_and_their_cubes_as_they_are():
    torch.manual_seed(0)
    untouched = 0
    for seed in range(64):
        rgb, cube = torch.rand(3, 8, 8), torch.rand(31, 8, 8)
        degraded, same = augment(rgb, cube, ("robust",), np.random.default_rng(seed))
        assert torch.equal(same, cube)
        assert degraded.dtype == torch.float32
        assert degraded.min() >= 0
        assert degraded.max() <= 1
        untouched += torch.equal(degraded, rgb)
    assert 0 < untouched < 24  # an eighth of them


def test_the_degradations_are_of_the_size_that_the_help_names():
    grey = np.full((64, 64, 3), 0.4, np.float32)
    images = [degrade(grey, np.random.default_rng(i)) for i in range(300)]
    exposures = np.array([image.mean() / 0.4 for image in images])
    assert exposures.min() == pytest.approx(2**-0.5, abs=0.02)
    assert exposures.max() == pytest.approx(2**0.5, abs=0.02)
    noise = np.array([image.std() for image in images])
    assert noise.max() == pytest.approx((0.4 * 2**0.5 / 200) ** 0.5, rel=0.3)
