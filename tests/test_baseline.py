"""The two maps per pixel that a network is compared with."""

import cv2
import numpy as np
import pytest

from drcr.cube import WAVELENGTHS
from drcr.formats.mat import load_cube, read_cube, read_origin, write_cube

BASELINE = "test/baseline.py"
rng = np.random.default_rng(2)


@pytest.fixture
def scenes(script, tmp_path):
    """Return a function that prepares three scenes whose cubes follow from their images."""

    def make(spectra_of, bands=31):
        for name in "abc":
            image = rng.integers(1, 256, (20, 24, 3), np.uint8)
            image[0, 0] = 255  # the peak that images are divided by
            for part in ("Train", "Valid"):
                (tmp_path / f"{part}_RGB").mkdir(exist_ok=True)
                cv2.imwrite(str(tmp_path / f"{part}_RGB/{name}.png"), image[..., ::-1])
                (tmp_path / f"{part}_spectral").mkdir(exist_ok=True)
                wavelengths = WAVELENGTHS if bands == 31 else 500 + 10.0 * np.arange(bands)
                write_cube(tmp_path / f"{part}_spectral/{name}.mat", spectra_of(image / 255), wavelengths)
        script("train/train_data_preprocess.py", "--data_path", tmp_path, "--patch_size", 16)
        options = ("--train_data_path", "dataset/Train", "--RGB_dir", "Valid_RGB", "--result_dir", "out")
        return lambda *more, **kwargs: script(BASELINE, *options, *more, **kwargs)

    return make


def test_linear_map_is_found(scenes, tmp_path):
    """A cube that is a linear map of its image is reconstructed, with its wavelengths and a note of its origin."""
    matrix = rng.uniform(0.1, 1, (3, 7))
    scenes(lambda rgb: rgb @ matrix / 3, bands=7)()
    path = tmp_path / "out/b.mat"
    assert np.allclose(read_cube(path), read_cube(tmp_path / "Valid_spectral/b.mat"), atol=1e-5)
    assert np.array_equal(load_cube(path).wavelengths, 500 + 10 * np.arange(7))
    assert read_origin(path).startswith("linear map")


def test_single_images_can_be_given(scenes, tmp_path):
    scenes(lambda rgb: rgb @ np.ones((3, 31)) / 3)("Valid_RGB/a.png", "Valid_RGB/c.png")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.mat")) == ["a.mat", "c.mat"]


def test_least_squares(scenes, tmp_path):
    """Of a cube that is none, what NumPy's least squares over all pixels gives; rows and columns at the edge too."""
    scenes(lambda rgb: np.sqrt(rgb @ rng.uniform(0.1, 1, (3, 31))) / 2)()
    images = [cv2.imread(str(tmp_path / f"Train_RGB/{name}.png"))[..., ::-1] / 255 for name in "abc"]
    x = np.concatenate([image.reshape(-1, 3) for image in images])
    y = np.concatenate([read_cube(tmp_path / f"Train_spectral/{name}.mat").reshape(-1, 31) for name in "abc"])
    matrix = np.linalg.lstsq(x, y, rcond=None)[0]
    assert np.allclose(read_cube(tmp_path / "out/a.mat"), images[0] @ matrix, atol=1e-5)


def test_root_polynomial_of_degree_4_follows_exposure(scenes, tmp_path):
    """It finds the geometric means that a linear map can't, up to degree 4, from 22 terms."""

    def spectra(rgb):
        r, g, b = np.moveaxis(rgb, 2, 0)
        pairs = [np.sqrt(r * g), np.cbrt(r * b * b), (r * r * g * b) ** 0.25, r, (b**3 * g) ** 0.25]
        return 0.05 + 0.9 * np.stack(pairs, 2) - 0.05

    printed = scenes(spectra, bands=5)("--method", "polynomial", "--ridge", 0).stdout
    assert "22 terms" in printed
    assert np.allclose(read_cube(tmp_path / "out/c.mat"), read_cube(tmp_path / "Valid_spectral/c.mat"), atol=1e-4)


def test_ridge_shrinks(scenes, tmp_path):
    run = scenes(lambda rgb: rgb @ np.ones((3, 31)) / 4)
    run("--ridge", 0)
    plain = read_cube(tmp_path / "out/a.mat").copy()
    run("--ridge", 1)
    assert read_cube(tmp_path / "out/a.mat").mean() < 0.9 * plain.mean()


def test_what_it_refuses(scenes, tmp_path):
    run = scenes(lambda rgb: rgb @ np.ones((3, 31)) / 4)
    (tmp_path / "out").mkdir()
    write_cube(tmp_path / "out/a.mat", np.ones((20, 24, 31)))  # not a reconstruction
    assert "a.mat: exists and is not a reconstruction" in run(ok=False).stderr
