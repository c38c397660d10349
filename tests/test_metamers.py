"""Metamers: equal for the camera, feasible, and a floor that is reached and never passed."""

import numpy as np
import pytest
from helpers import SHARED

from drcr.camera import Camera
from drcr.cube import WAVELENGTHS
from drcr.formats.band_files import read_band_files
from drcr.metrics import mrae
from drcr.preparation.simulation import SceneModel
from drcr.stress.metamers import floor, metamer, natural_metamer, project
from drcr.utils.files import DataError

ALPHAS = (-1, 0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2)
LOW, HIGH = 0.01, 1.0


@pytest.fixture(scope="module")
def scene():
    """Return a simulated cube within [LOW, HIGH]."""
    model = SceneModel(size=(24, 32), radii=(2, 16), illuminants=("E",))
    return np.maximum(model.render(np.random.default_rng(5)), LOW)


@pytest.fixture(scope="module")
def curves():
    """Return the sensitivities of a measured camera, with gains, so not normalised."""
    return Camera(gains=(2.2933984, 1, 1.62308182)).curves()


def check_metamers(cube, curves):
    """Check the metamers of a cube: the same RGB to 1e-6, feasible pixels within the range, the others unchanged."""
    rgb = np.float64(cube) @ curves
    for alpha in ALPHAS:
        other, feasible = metamer(cube, curves, alpha, LOW, HIGH)
        assert other.dtype == np.float64
        assert feasible.shape == cube.shape[:2]
        np.testing.assert_allclose(other @ curves, rgb, rtol=1e-6, atol=1e-9)
        assert (other[feasible] >= LOW - 1e-12).all()
        assert (other[feasible] <= HIGH + 1e-12).all()
        np.testing.assert_array_equal(other[~feasible], np.float64(cube[~feasible]))
    return rgb


def test_metamers_have_the_same_rgb(scene, curves):
    check_metamers(scene, curves)


def test_metamers_of_real_scenes_have_the_same_rgb_for_all_measured_cameras():
    cameras = sorted((SHARED / "data/cameras").glob("*.csv"))
    scenes = [SHARED / f"data/cave/half/{name}_ms/{name}_ms" for name in ("cloth", "feathers", "face")]
    if not cameras or not all(scene.is_dir() for scene in scenes):
        pytest.skip("needs measured cameras and CAVE scenes in ../shared/data")
    assert len(cameras) == 26
    for scene in scenes:
        stored = read_band_files(tuple(sorted(scene.glob("*.png")))).values[::8, ::8]
        cube = np.maximum(np.float32(stored / 65535), LOW)
        for path in cameras:
            check_metamers(cube, Camera(path).curves())


def test_alpha_1_is_the_cube_and_0_its_projection(scene, curves):
    same, feasible = metamer(scene, curves, 1, LOW, HIGH)
    np.testing.assert_array_equal(same, np.float64(scene))
    assert feasible.all()
    seen, feasible = metamer(scene, curves, 0, -np.inf, np.inf)
    assert feasible.all()
    np.testing.assert_allclose(seen, project(scene, curves), atol=1e-12)
    np.testing.assert_allclose(project(seen, curves), seen, atol=1e-12)


def test_a_pixel_outside_the_range_has_no_metamer_where_no_alpha_helps(curves):
    # what a camera sees is its own projection: no black, and too bright
    cube = 2 * project(np.ones((1, 1, 31)), curves)
    assert not metamer(cube, curves, 0.5, LOW, HIGH)[1].any()


def test_natural_metamers_have_the_same_rgb_and_the_blacks_of_other_spectra(scene, curves):
    spectra = SceneModel(size=(16, 16)).render(np.random.default_rng(6)).reshape(-1, 31)
    other, feasible = natural_metamer(scene, curves, spectra, LOW, HIGH)
    assert 0.1 < feasible.mean() < 1
    np.testing.assert_allclose(other @ curves, np.float64(scene) @ curves, rtol=1e-6)
    assert (other[feasible] >= LOW).all()
    assert (other[feasible] <= HIGH).all()
    np.testing.assert_array_equal(other[~feasible], np.float64(scene[~feasible]))
    blacks, known = (spectra - project(spectra, curves)), spectra @ curves
    row, column = np.argwhere(feasible)[0]
    black = other[row, column] - project(scene[row, column], curves)
    like = blacks / np.linalg.norm(blacks, axis=1, keepdims=True) @ (black / np.linalg.norm(black))
    rgb = scene[row, column] @ curves
    chosen = np.argmin(np.linalg.norm(known / known.sum(1, keepdims=True) - rgb / rgb.sum(), axis=1))
    assert like[chosen] == pytest.approx(1)
    np.testing.assert_allclose(black, blacks[chosen] * rgb.sum() / known[chosen].sum(), atol=1e-12)


def test_a_pixels_own_spectrum_at_any_brightness_gives_the_pixel_back(scene, curves):
    other, feasible = natural_metamer(scene, curves, 0.3 * scene.reshape(-1, 31), 0, np.inf)
    assert feasible.all()
    np.testing.assert_allclose(other, scene, rtol=1e-4)


def test_the_floor_is_reached_by_the_best_answer(scene, curves):
    other, _ = metamer(scene, curves, 0.25, LOW, HIGH)
    truth = np.float64(scene)
    best = np.minimum(truth, other)
    mean = (mrae(best, truth) + mrae(best, other)) / 2
    assert floor(truth, other).mean() > 0.01
    assert mean == pytest.approx(floor(truth, other).mean(), rel=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_no_answer_passes_the_floor(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.uniform(0.01, 1, (2, 20, 31)) ** rng.uniform(0.3, 3)
    bound = floor(first, second)
    shape = (100, *first.shape)
    answers = [
        rng.normal(0.3, 0.3, shape),
        first + rng.uniform(-0.2, 1.2, shape) * (second - first),
        np.minimum(first, second) * rng.normal(1, 0.02, shape),
    ]
    for answer in np.concatenate(answers):
        errors = (np.abs(answer - first) / first + np.abs(answer - second) / second) / 2
        assert (errors.mean(-1) >= bound - 1e-12).all()


def test_two_equal_truths_have_no_floor(scene):
    np.testing.assert_array_equal(floor(scene, scene), 0)


def test_channels_that_are_not_independent_are_refused(scene):
    with pytest.raises(DataError, match="not independent"):
        project(scene, np.ones((len(WAVELENGTHS), 3)))


def test_spectra_that_the_camera_does_not_see_are_refused(scene, curves):
    with pytest.raises(DataError, match="as black"):
        natural_metamer(scene, curves, np.zeros((5, 31)), LOW, HIGH)
