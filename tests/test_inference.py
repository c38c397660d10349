"""test/test.py and drcr/inference.py."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from helpers import DATA, ROOT

from drcr.checkpoint import load_model
from drcr.cube import WAVELENGTHS
from drcr.formats.mat import read_cube
from drcr.images import normalise_rgb
from drcr.inference import Reconstructor, reconstruct

MODEL = DATA / "model_c16_b2.pth"


@pytest.fixture(scope="module")
def precision(precision):
    """Reconstruction has no tf32."""
    return "fp32" if precision == "tf32" else precision


@pytest.mark.parametrize("model", ["model_c16_b2.pth", "model_c16_b2_dataparallel.pth"])
def test_released_protocol_gives_the_released_cubes(script, golden, tmp_path, model, precision, tolerance):
    options = ("--RGB_dir", DATA / "Dataset/Valid_RGB", "--model_dir", DATA / model, "--result_dir", tmp_path / "out")
    script("test/test.py", *options, "--protocol", "released", "--precision", precision)
    for name in ("ARAD_1K_0901", "ARAD_1K_0902"):
        cube, released = read_cube(tmp_path / "out" / f"{name}.mat"), golden("pipeline")[f"rec/{name}"]
        assert cube.shape == released.shape
        np.testing.assert_allclose(cube, released, rtol=0, atol=tolerance.forward * np.abs(released).max())
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_padded_protocol_differs_only_near_the_lower_edge():
    model = load_model(MODEL)
    rgb = np.random.default_rng(0).random((122, 96, 3), np.float32)
    padded, released = (reconstruct(model, rgb, protocol) for protocol in ("padded", "released"))
    difference = np.abs(padded - released).max((1, 2)) / np.abs(released).max()
    assert padded.shape == (122, 96, 31)
    # above, only the CRMs' averages over two more rows
    assert difference[:-30].max() < 2e-3
    assert difference[-30:].max() > 2e-3


@pytest.mark.parametrize("tile", ["auto", 8])
def test_on_multiples_of_four_padded_is_the_plain_forward_pass(tile, device, precision, tolerance):
    model = load_model(MODEL)
    rgb = np.random.default_rng(0).random((24, 32, 3), np.float32)
    with torch.inference_mode():
        plain = model(torch.from_numpy(rgb.transpose(2, 0, 1)[None]))[0].numpy().transpose(1, 2, 0)
    cube = Reconstructor(model.to(device), precision, tile)(rgb)
    np.testing.assert_allclose(cube, plain, rtol=0, atol=tolerance.strips * np.abs(plain).max())


def test_formats_eight_and_sixteen_bit(script, tmp_path):
    image = np.random.default_rng(1).integers(0, 256, (18, 22, 3)).astype(np.uint8)
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.bmp", "c.tiff", "d.JPG"):
        cv2.imwrite(str(folder / name), image)
    for name in ("e.png", "f.tif"):
        cv2.imwrite(str(folder / name), image.astype(np.uint16) * 257)
    (folder / "notes.txt").write_text("not an image")
    script("test/test.py", "--RGB_dir", folder, "--model_dir", MODEL, "--result_dir", tmp_path / "out")
    cubes = {name: read_cube(tmp_path / "out" / f"{name}.mat") for name in "abcdef"}
    expected = reconstruct(load_model(MODEL), normalise_rgb(image[..., ::-1]))
    for name in "abcef":  # JPEG loses something
        np.testing.assert_allclose(cubes[name], expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert cubes["d"].shape == (18, 22, 31)

    script("test/test.py", "--RGB_dir", folder / "e.png", "--model_dir", MODEL, "--result_dir", tmp_path / "one")
    assert np.array_equal(read_cube(tmp_path / "one/e.mat"), cubes["e"])
    assert len(list((tmp_path / "one").iterdir())) == 1


def test_orientation_survives(script, tmp_path):
    """A bright mark in the upper right corner of the image is there in the cube, as mat73 reads it."""
    import mat73

    image = np.full((24, 40, 3), 30, np.uint8)
    image[:6, -8:] = 255
    cv2.imwrite(str(tmp_path / "mark.png"), image)
    script("test/test.py", "--RGB_dir", tmp_path / "mark.png", "--model_dir", MODEL, "--result_dir", tmp_path / "out")
    content = mat73.loadmat(tmp_path / "out/mark.mat")
    assert content["cube"].shape == (24, 40, 31)
    assert np.array_equal(content["bands"], WAVELENGTHS)
    # an untrained network's answer to the mark has no sign, but it lies where the mark is
    change = np.abs(content["cube"] - content["cube"][14, 14]).mean(2)
    row, column = np.unravel_index(change[2:-2, 2:-2].argmax(), change[2:-2, 2:-2].shape)
    assert row + 2 < 10
    assert column + 2 > 28


def test_test_py_imports_nothing_that_it_does_not_use(tmp_path):
    """It starts within 0.3 s of PyTorch (benchmarks/README.md); SciPy alone takes 0.1 s."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((8, 8, 3), 100, np.uint8))
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from helpers import load_script
load_script("test/test.py").main(["--RGB_dir", "a.png", "--model_dir", {str(ROOT / "test/model/model.pth")!r}])
print(*{{"scipy", "skimage", "matplotlib", "colour"}} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""
