"""What a user can get wrong: each ends in one line that names the file, a non-zero exit, and nothing half-written."""

import resource
import shutil

import cv2
import numpy as np
import pytest
import scipy.io
import torch
from helpers import DATA

from drcr.formats.mat import read_cube, write_cube

PREPARE = "train/train_data_preprocess.py"
MODEL = DATA / "model_c16_b2.pth"
# the last scene: the first is written, the second skipped, before the fault is met
CUBE, RGB = "Train_spectral/ARAD_1K_0003.mat", "Train_RGB/ARAD_1K_0003.jpg"


@pytest.fixture
def dataset(tmp_path):
    """Return a copy of the golden data set, to spoil."""
    return shutil.copytree(DATA / "Dataset", tmp_path / "Dataset")


def nothing_half_written(folder):
    """No temporary file is left, and no index that would make the folder count as finished."""
    left = [path for path in folder.rglob("*") if path.suffix in (".tmp", ".json")]
    return not left


def spoil_wrong_bands(folder):
    write_cube(folder / CUBE, read_cube(folder / CUBE)[..., :28])


def spoil_nan(folder):
    cube = read_cube(folder / CUBE).copy()
    cube[3, 4, 5] = np.nan
    write_cube(folder / CUBE, cube)


def spoil_sizes(folder):
    write_cube(folder / CUBE, read_cube(folder / CUBE)[:-2])


def truncate(name, missing):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-missing])


SPOILED = {
    "no such folder": (lambda folder: shutil.rmtree(folder / "Train_RGB"), "Train_RGB", "no such folder"),
    "empty folder": (
        lambda folder: [p.unlink() for p in (folder / "Train_RGB").iterdir()],
        "Train_RGB",
        "no RGB images",
    ),
    "cube without image": (lambda folder: (folder / RGB).unlink(), "ARAD_1K_0003.mat", "without RGB image"),
    "image without cube": (lambda folder: (folder / CUBE).unlink(), "ARAD_1K_0003.jpg", "without cube"),
    "sizes differ": (spoil_sizes, RGB, "38 x 48 pixels, but its cube"),
    "truncated cube": (truncate(CUBE, 400), CUBE, "truncated"),
    "no such variable": (
        lambda folder: scipy.io.savemat(folder / CUBE, {"dog": np.ones((3, 3))}),
        CUBE,
        "no variable named cube or rad; it has dog",
    ),
    "truncated image": (truncate(RGB, 40), RGB, "cannot be decoded"),
    "float image": (
        lambda folder: (
            cv2.imwrite(str(folder / RGB).replace("jpg", "tiff"), np.ones((38, 48, 3), np.float32)),
            (folder / RGB).unlink(),
        ),
        "ARAD_1K_0003.tiff",
        "8 or 16 bits",
    ),
    "black image": (lambda folder: cv2.imwrite(str(folder / RGB), np.zeros((38, 48, 3))), RGB, "black"),
    "wrong number of bands": (spoil_wrong_bands, CUBE, "28 bands, and no variable `bands`"),
    "NaN": (spoil_nan, CUBE, "1 NaN"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_preparation(fails, dataset, tmp_path, case):
    spoil, names, says = SPOILED[case]
    spoil(dataset)
    message = fails(
        PREPARE, "--data_path", dataset, "--patch_size", 16, "--train_data_path", tmp_path / "out", names=names
    )
    assert says in message
    assert nothing_half_written(tmp_path / "out")


def test_patch_larger_than_the_image(fails, dataset, tmp_path):
    message = fails(PREPARE, "--data_path", dataset, "--train_data_path", tmp_path / "out", names="ARAD_1K_0001")
    assert "smaller than a patch of 128 x 128" in message
    assert nothing_half_written(tmp_path / "out")


def test_training_without_prepared_data(fails, tmp_path):
    message = fails("train/main.py", "--train_data_path", tmp_path / "none", names=tmp_path / "none")
    assert "train_data_preprocess.py" in message
    assert not (tmp_path / "RealWorldResults").exists()


@pytest.mark.parametrize("case", ["no folder", "empty folder", "bad image", "bad checkpoint", "no checkpoint"])
def test_reconstruction(fails, dataset, tmp_path, case):
    images, model, names = dataset / "Valid_RGB", MODEL, "Valid_RGB"
    if case == "no folder":
        shutil.rmtree(images)
    elif case == "empty folder":
        [path.unlink() for path in images.iterdir()]
    elif case == "bad image":
        truncate("ARAD_1K_0902.jpg", 40)(images)
        names = "ARAD_1K_0902.jpg"
    elif case == "bad checkpoint":
        model = names = tmp_path / "other.pth"
        torch.save({"state_dict": {"fc.weight": torch.zeros(3)}}, model)
    else:
        model = names = tmp_path / "none.pth"
    options = ("--RGB_dir", images, "--model_dir", model, "--result_dir", tmp_path / "out", "--strict")
    fails("test/test.py", *options, names=names)
    # the bad image is the second: the first is not run in vain
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", ["no reconstruction", "no truth", "other size", "NaN", "all dark"])
def test_scoring(fails, dataset, tmp_path, case):
    rec = shutil.copytree(dataset / "Valid_spectral", tmp_path / "rec")
    gt, one = dataset / "Valid_spectral", "ARAD_1K_0902.mat"
    if case == "no reconstruction":
        (rec / one).unlink()
    elif case == "no truth":
        (gt / one).unlink()
    elif case == "other size":
        write_cube(rec / one, read_cube(rec / one)[:-1])
    elif case == "NaN":
        write_cube(rec / one, read_cube(rec / one) * np.nan)
    else:
        for path in gt.iterdir():
            write_cube(path, read_cube(path) * 0)
        one = "Valid_spectral"
    fails("test/compute_mrae.py", "--path_rec", rec, "--path_gt", gt, "--csv", tmp_path / "s.csv", names=one)
    assert not (tmp_path / "s.csv").exists()


def test_reconstructions_replace_only_reconstructions(fails, script, dataset, tmp_path):
    options = ("--RGB_dir", dataset / "Valid_RGB", "--model_dir", MODEL, "--result_dir")
    truth = dataset / "Valid_spectral/ARAD_1K_0901.mat"
    before = truth.read_bytes()
    assert "is not a reconstruction" in fails("test/test.py", *options, dataset / "Valid_spectral", names=truth)
    assert truth.read_bytes() == before
    script("test/test.py", *options, tmp_path / "out")
    script("test/test.py", *options, tmp_path / "out")
    same = ("--path_rec", tmp_path / "out", "--path_gt", tmp_path / "out")
    assert "both --path_rec and" in fails("test/compute_mrae.py", *same, names=tmp_path / "out")


def test_a_network_of_nan_writes_nothing(fails, dataset, tmp_path):
    checkpoint = torch.load(MODEL, weights_only=True)
    checkpoint["state_dict"]["tail_conv2D.conv2d.weight"] *= np.nan
    torch.save(checkpoint, tmp_path / "nan.pth")
    options = (
        "--RGB_dir",
        dataset / "Valid_RGB",
        "--model_dir",
        tmp_path / "nan.pth",
        "--result_dir",
        tmp_path / "out",
    )
    fails("test/test.py", *options, names="nan.pth")
    assert not (tmp_path / "out").exists()


def limit(size):
    """Return what makes every file that the process writes end at `size` bytes, as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_full_disk_while_preparing(fails, script, dataset, tmp_path):
    options = ("--data_path", dataset, "--patch_size", 16, "--train_data_path", tmp_path / "out")
    fails(PREPARE, *options, names="ARAD_1K_0001.h5", preexec_fn=limit(100_000))
    assert not (tmp_path / "out").exists()
    script(PREPARE, *options)


def test_full_disk_while_reconstructing(fails, dataset, tmp_path):
    options = ("--RGB_dir", dataset / "Valid_RGB", "--model_dir", MODEL, "--result_dir", tmp_path / "out")
    fails("test/test.py", *options, names="ARAD_1K_0901.mat", preexec_fn=limit(100_000))
    assert not (tmp_path / "out").exists()


def test_full_disk_while_training_keeps_the_last_checkpoint(fails, script, prepared, tmp_path):
    options = ("--train_data_path", prepared[0], "--valid_data_path", prepared[1], "--channels", 8, "--n_blocks", 1)
    script("train/main.py", *options, "--end_epoch", 1)
    folder = tmp_path / "RealWorldResults"
    before = (folder / "last.pth").read_bytes()
    resume = (*options, "--end_epoch", 2, "--resume", folder / "last.pth")
    fails("train/main.py", *resume, names=".pth", preexec_fn=limit(len(before) // 2))
    assert (folder / "last.pth").read_bytes() == before
    assert nothing_half_written(folder)
    script("train/main.py", *resume)


def test_full_disk_while_simulating(fails, tmp_path):
    options = ("--out", tmp_path / "d", "--n_train", 1, "--n_valid", 0, "--size", 40, 40)
    fails("Dataset/simulate.py", *options, names="ARAD_1K_0001.mat", preexec_fn=limit(100_000))
    assert not [path for path in (tmp_path / "d").rglob("*") if path.is_file()]


def test_unknown_camera_and_illuminant(fails, tmp_path):
    fails("Dataset/simulate.py", "--camera", "Brownie", names="Brownie")
    fails("Dataset/simulate.py", "--camera", tmp_path / "none.csv", names=tmp_path / "none.csv")
    fails("Dataset/simulate.py", "--illuminants", "candle", names="candle")
    assert not list(tmp_path.iterdir())
