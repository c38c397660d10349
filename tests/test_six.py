"""The six packages: what runs with them alone, and the line that names the extra of whatever else is missing."""

import json
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tifffile
from helpers import DATA, ROOT
from PIL import Image

from drcr.formats.mat import read_cube

EXTRAS = (
    "PIL", "colour", "gradio", "imagecodecs", "luxpy", "matplotlib", "onnx", "onnxruntime", "onnxscript", "openvino",
    "pillow_heif", "rawpy", "skimage", "spectral", "starlette", "tensorboard", "tifffile",
)  # fmt: skip
"""Packages that are made to be missing. Jinja2 is not among them: PyTorch needs it."""

# runs commands as programs, one after the other in one process; prints each one's exit status and output
DRIVER = """
import contextlib, io, json, os, runpy, sys, traceback
commands, missing = json.load(sys.stdin)
sys.modules.update(dict.fromkeys(missing))
ended = []
for name, *options in commands:
    sys.argv, status = [name, *options], 0
    path = sys.path[:]
    sys.path.insert(0, os.path.dirname(name))
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        try:
            runpy.run_path(name, run_name="__main__")
        except SystemExit as end:
            status = end.code
        except BaseException:
            status = traceback.format_exc()
    sys.path[:] = path
    ended.append((status, out.getvalue()))
print(json.dumps(ended))
"""


def run_without(missing, *commands):
    """Run commands in a process where some modules are missing; return each one's exit status and output."""
    commands = [[str(ROOT / name), *map(str, options)] for name, *options in commands]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], input=json.dumps((commands, missing)), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def five(folder):
    """Return the five commands, on the golden data set."""
    data, run, results = DATA / "Dataset", folder / "run", folder / "results"
    train, valid = folder / "Train", folder / "Valid"
    size = ("--patch_size", 16, "--stride", 16, "--num_workers", 0)
    small = ("--channels", 8, "--n_blocks", 0, "--batchSize", 4, "--end_epoch", 1)
    return (
        ("train/train_data_preprocess.py", "--data_path", data, "--train_data_path", train, *size),
        ("train/valid_data_preprocess.py", "--data_path", data, "--valid_data_path", valid, "--num_workers", 0),
        ("train/main.py", "--train_data_path", train, "--valid_data_path", valid, "--outf", run, *small),
        ("test/test.py", "--RGB_dir", data / "Valid_RGB", "--model_dir", run / "best.pth", "--result_dir", results),
        (
            "test/compute_mrae.py",
            "--path_rec",
            results,
            "--path_gt",
            data / "Valid_spectral",
            "--table",
            folder / "scores.csv",
        ),
    )


def check_five(folder, outputs):
    """Check what the five commands left, and what they said of what is missing."""
    (cube, *_) = sorted((folder / "results").glob("*.mat"))
    assert np.isfinite(read_cube(cube)).all()
    average = (folder / "scores.csv").read_text().splitlines()[-1].split(",")[1:]
    assert all(np.isfinite([float(score) for score in average[:4]])), "MRAE, RMSE, PSNR, SAM"
    assert "scikit-image" in outputs[4]
    assert "drcr[figures]" in outputs[4]
    assert "drcr[figures]" in outputs[2], "curves.png is not drawn"
    assert not (folder / "run/curves.png").exists()


def test_the_five_commands_need_no_other_package(tmp_path):
    ended = run_without(EXTRAS, *five(tmp_path))
    assert [status or 0 for status, _ in ended] == [0] * 5, ended
    check_five(tmp_path, [output for _, output in ended])


@pytest.fixture
def files(tmp_path):
    """Return a folder of files, each of which needs a package beyond the six."""
    image = np.random.default_rng(0).integers(1, 256, (24, 24, 3), np.uint8)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 1
    Image.fromarray(image).save(tmp_path / "exif.jpg", exif=exif)
    profile = Image.fromarray(image)
    profile.info["icc_profile"] = (ROOT / "tests/data/ntire_rgb.npz").read_bytes()[:300]
    profile.save(tmp_path / "icc.png", icc_profile=profile.info["icc_profile"])
    tifffile.imwrite(tmp_path / "photo.tif", image, photometric="rgb")
    (tmp_path / "raw.dng").write_bytes(b"II*\0raw")
    shutil.copytree(DATA / "Dataset/Valid_spectral", tmp_path / "rec")
    (tmp_path / "cubes").mkdir()
    for truth in (DATA / "Dataset/Valid_spectral").glob("*.mat"):
        tifffile.imwrite(tmp_path / f"cubes/{truth.stem}.tif", np.ones((31, 24, 24), np.float32))
    cv2.imwrite(str(tmp_path / "plain.png"), image)
    return tmp_path


def test_what_is_missing_is_one_line_that_names_the_extra(files):
    results = ("--result_dir", files / "results", "--model_dir", DATA / "model_c16_b2.pth")
    photographs = [
        (("test/test.py", "--RGB_dir", files / name, *results), "photographs")
        for name in ("exif.jpg", "icc.png", "photo.tif", "raw.dng")
    ]
    pair = ("--path_rec", files / "rec", "--path_gt", DATA / "Dataset/Valid_spectral")
    cases = [
        *photographs,
        (("test/test.py", "--RGB_dir", files / "plain.png", "--format", "tiff", *results), "formats"),
        (("test/compute_mrae.py", "--path_rec", files / "cubes", *pair[2:]), "formats"),
        (("test/figures.py", *pair, "--out", files / "f"), "figures"),
        (("test/report.py", *pair, "--out", files / "r.html"), "figures"),
        (("Dataset/simulate.py", "--out", files / "s", "--n_train", 1, "--n_valid", 1), "simulation"),
        (("train/main.py", "--tensorboard"), "tensorboard"),
        (("train/export.py", *results[2:], "--format", "onnx", "--out", files / "x"), "export"),
        (("figure/draw.py",), "figures"),
        (("test/app.py",), "app"),
        (("experiments/image_again.py",), "simulation"),
    ]  # fmt: skip
    before = sorted(files.rglob("*"))
    for (command, extra), (status, output) in zip(cases, run_without(EXTRAS, *(c for c, _ in cases)), strict=True):
        line = str(status)
        assert line.startswith("error: "), (command, output)
        assert f"drcr[{extra}]" in line, command
        assert "\n" not in line
    assert sorted(files.rglob("*")) == before, "nothing half-written"


def test_torch_hub_lists_what_it_needs():
    code = "import sys; sys.modules.update(dict.fromkeys({}))\nimport hubconf; print(hubconf.drcr_net().architecture)"
    needed = ("h5py", "scipy", "tqdm", *EXTRAS)
    declared = subprocess.run(
        [sys.executable, "-c", "import hubconf; print(*hubconf.dependencies)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    missing = [name for name in needed if name not in declared.stdout.split()]
    done = subprocess.run([sys.executable, "-c", code.format(missing)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_five_commands_in_an_environment_of_the_requirements(tmp_path):
    pip = ("-m", "pip", "--disable-pip-version-check", "--retries", "1", "--no-input")
    asked = subprocess.run(
        [sys.executable, *pip, "download", "--no-deps", "--dest", tmp_path, "tqdm"], capture_output=True, text=True
    )
    if asked.returncode:
        pytest.skip("needs a package index, for pip")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, *pip, "install", "-r", "requirements.txt"], cwd=ROOT, check=True, capture_output=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    outputs = []
    for name, *options in five(tmp_path):
        done = subprocess.run(
            [python, ROOT / name, *map(str, options)], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout + done.stderr)
    check_five(tmp_path, outputs)
