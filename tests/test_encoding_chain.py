"""Encoded images from preparation to reconstruction: prepared data, checkpoints and commands know what they hold."""

import cv2
import numpy as np
import pytest
import torch
from helpers import ROOT
from PIL import Image, ImageCms

from drcr.checkpoint import load_model
from drcr.data import TrainPatches
from drcr.formats.mat import load_cube, write_cube
from drcr.images import read_image
from drcr.inference import reconstruct
from drcr.tags import encode_srgb

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SIZES = ("--patch_size", 16, "--stride", 16, "--num_workers", 0)
NETWORK = ("--channels", 8, "--n_blocks", 0, "--batchSize", 4, "--end_epoch", 1, "--num_workers", 0)


def scene(rng):
    """Return a linear image of 24 x 32 pixels, 8 bits, and a cube."""
    rgb = rng.integers(20, 256, (24, 32, 3)).astype(np.uint8)
    return rgb, (0.1 + rng.random((24, 32, 31)) * 0.8).astype(np.float32)


def write_image(path, rgb, tagged):
    """Write an image, encoded and tagged as sRGB, or as it is."""
    if tagged:
        rgb = np.uint8(encode_srgb(rgb / 255) * 255 + 0.5)
    Image.fromarray(rgb).save(path, **({"icc_profile": SRGB} if tagged else {}))


@pytest.fixture
def data(tmp_path):
    """Return a function that writes a data set of tagged and untagged images."""

    def write(*tagged):
        rng = np.random.default_rng(0)
        for part in ("Train", "Valid"):
            for kind in ("spectral", "RGB"):
                (tmp_path / f"data/{part}_{kind}").mkdir(parents=True)
            for i, is_tagged in enumerate(tagged):
                rgb, cube = scene(rng)
                write_cube(tmp_path / f"data/{part}_spectral/{i}.mat", cube)
                write_image(tmp_path / f"data/{part}_RGB/{i}.png", rgb, is_tagged)
        return tmp_path / "data"

    return write


def prepare(script, data, *options):
    """Prepare both parts; return their folders."""
    parts = ("--train_data_path", "T"), ("--valid_data_path", "V")
    script("train/train_data_preprocess.py", "--data_path", data, *parts[0], *SIZES, *options)
    script("train/valid_data_preprocess.py", "--data_path", data, *parts[1], "--num_workers", 0, *options)
    return data.parent / "T", data.parent / "V"


def test_tagged_images_are_prepared_as_linear_light(script, data):
    folder = data(True, False)
    train, _ = prepare(script, folder)
    patches = TrainPatches(train)
    assert patches.input_encoding == "linear"
    rgb, _ = scene(np.random.default_rng(0))
    patch = patches[0][0].permute(1, 2, 0).numpy()
    assert np.allclose(patch * rgb.max() / 255, rgb[:16, :16] / 255, atol=0.008)  # 8 encoded bits, twice rounded


@pytest.mark.parametrize("encoding", ["auto", "linear"])
def test_a_network_gets_what_it_was_trained_on(script, data, tmp_path, encoding):
    prepare(script, data(True, True), "--encoding", encoding)
    options = ("--train_data_path", "T", "--valid_data_path", "V", "--outf", "run")
    script("train/main.py", *NETWORK, *options)
    model = load_model(tmp_path / "run/best.pth")
    assert model.input_encoding == {"auto": "linear", "linear": "stored"}[encoding]
    assert torch.load(tmp_path / "run/best.pth", weights_only=True)["input_encoding"] == model.input_encoding

    image = tmp_path / "data/Valid_RGB/0.png"
    result = script("test/test.py", "--RGB_dir", image, "--model_dir", "run/best.pth", "--result_dir", "cubes")
    stored = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB) / np.float32(255)
    seen = stored if encoding == "linear" else np.float32(((stored + 0.055) / 1.055) ** 2.4)
    tensor = torch.from_numpy(np.float32(seen / seen.max())).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = model(tensor)[0].permute(1, 2, 0).numpy()
    assert np.allclose(load_cube(tmp_path / "cubes/0.mat").values, expected, atol=2e-3)
    assert ("decoded from" in result.stdout) == (encoding == "auto")


def test_encodings_are_not_mixed(script, fails, data, tmp_path):
    folder = data(True, False)
    options = ("--data_path", folder, "--train_data_path", "T", *SIZES, "--encoding", "linear")
    fails("train/train_data_preprocess.py", *options, names="1.png")
    # nor training and validation
    for name in ("Train_RGB/1.png", "Train_spectral/1.mat", "Valid_RGB/1.png", "Valid_spectral/1.mat"):
        (folder / name).unlink()
    prepare(script, folder)
    script("train/valid_data_preprocess.py", "--data_path", folder, "--valid_data_path", "V", "--encoding", "linear")
    train = (*NETWORK, "--train_data_path", "T", "--valid_data_path", "V", "--outf", "run")
    fails("train/main.py", *train, names="V")


def test_a_network_for_stored_values_refuses_to_have_them_decoded(script, fails, data):
    prepare(script, data(True), "--encoding", "linear")
    script("train/main.py", *NETWORK, "--train_data_path", "T", "--valid_data_path", "V", "--outf", "run")
    options = ("--RGB_dir", "data/Valid_RGB", "--model_dir", "run/best.pth", "--result_dir", "cubes")
    fails("test/test.py", *options, "--encoding", "srgb", names="run/best.pth")


def test_check_tells_images_whose_values_contradict_their_encoding(script, data, tmp_path):
    folder = data(False)
    rng = np.random.default_rng(1)
    radiance = (cv2.GaussianBlur(rng.random((48, 64)), (0, 0), 2) - 0.3).clip(0.02) ** 2
    cube = np.repeat((radiance / radiance.max())[..., None], 31, 2).astype(np.float32)
    for part in ("Train", "Valid"):
        write_cube(folder / f"{part}_spectral/0.mat", cube)
        encoded = encode_srgb(cube[..., :3]) if part == "Valid" else cube[..., :3]
        Image.fromarray(np.uint8(encoded * 255 + 0.5)).save(folder / f"{part}_RGB/0.png")
    options = ("--data_path", folder, "--patch_size", 16, "--num_workers", 1)
    printed = script("Dataset/check.py", *options).stdout
    (note,) = (line for line in printed.splitlines() if line.startswith("note") and "--encoding" in line)
    assert "Valid_RGB" in note
    assert "--encoding srgb" in note
    printed = script("Dataset/check.py", *options, "--encoding", "srgb").stdout
    (note,) = (line for line in printed.splitlines() if line.startswith("note") and "--encoding" in line)
    assert "Train_RGB" in note


def test_without_model_dir_each_image_gets_the_network_that_fits(script, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name, tagged in (("photograph", True), ("linear", False)):
        write_image(tmp_path / f"images/{name}.png", scene(rng)[0], tagged)
    script("test/test.py", "--RGB_dir", "images", "--result_dir", "cubes")
    for name, network in (("photograph", "model.pth"), ("linear", "linear.pth")):
        cube = load_cube(tmp_path / f"cubes/{name}.mat")
        assert f"{network}," in cube.origin
        rgb = read_image(tmp_path / f"images/{name}.png").normalised()
        assert (cube.values == reconstruct(load_model(ROOT / "test/model" / network), rgb)).all()
