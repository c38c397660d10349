"""benchmarks/: the released way gives the recorded numbers, and bench.py measures what it says."""

import importlib.util
import json
import os

import h5py
import numpy as np
import pytest
import torch
from helpers import DATA, load_script

from drcr.checkpoint import load_model, rename_released, save_checkpoint
from drcr.images import normalise_rgb, read_rgb
from drcr.model import DRCR

released = load_script("benchmarks/released.py")


def test_released_reconstruction_is_the_recorded_one(golden):
    rgb = normalise_rgb(read_rgb(DATA / "Dataset/Valid_RGB/ARAD_1K_0901.jpg"))
    cube, expected = released.reconstruct(load_model(DATA / "model_c16_b2.pth"), rgb), golden("pipeline")
    expected = expected["rec/ARAD_1K_0901"]
    assert np.abs(cube - expected).max() < 1e-5 * np.abs(expected).max()


def test_released_patches_are_the_recorded_ones(golden, tmp_path):
    folder = DATA / "Dataset"
    pairs = [(path, folder / "Train_RGB" / f"{path.stem}.jpg") for path in sorted(folder.glob("Train_spectral/*"))]
    numbers = golden("pipeline")
    count = released.prepare(pairs, tmp_path, 16, 8)
    assert count == len(numbers["train_rgb"])
    for i in range(count):
        with h5py.File(tmp_path / f"train{i + 1}.mat") as file:
            assert np.array_equal(file["rgb"], numbers["train_rgb"][i])
            assert np.array_equal(file["cube"], numbers["train_rad"][i])


def test_released_training_gives_the_recorded_first_loss(golden):
    numbers = golden("training_c8_b1")
    model = DRCR(channels=8, n_blocks=1)
    start = {name[3:]: torch.from_numpy(value) for name, value in numbers.items() if name.startswith("w0/")}
    model.load_state_dict(rename_released(start))
    step = released.training_step(model, *(torch.from_numpy(numbers[name][0]) for name in ("rgb", "hyper")))
    assert step() == pytest.approx(numbers["losses"][0], rel=1e-5)
    assert step() < numbers["losses"][0]


@pytest.mark.slow
def test_the_benchmark_prints_a_table_and_writes_its_figures(script, tmp_path):
    printed = script("benchmarks/bench.py", "--quick", "--stages", "prepare", "--json", "out.json").stdout
    document = json.loads((tmp_path / "out.json").read_text())
    assert {path.name for path in tmp_path.iterdir()} == {"out.json"}
    assert {"fp32", "memory"} <= document["rates"].keys()
    ways = document["stages"].pop("prepare")
    assert not document["stages"]
    assert list(ways) == ["released", "ours"]
    for name, way in ways.items():
        assert name in printed
        assert len(way["seconds"]) == 1
        assert way["ratio"] == pytest.approx(ways["released"]["median"] / way["median"])


@pytest.mark.slow
def test_other_runtimes_are_measured_in_the_same_run(tmp_path, monkeypatch):
    stages = load_script("benchmarks/stages.py")
    checkpoint = tmp_path / "small.pth"
    save_checkpoint(checkpoint, DRCR(channels=8, n_blocks=0))
    stages.make_scenes(tmp_path, (40, 48), 1)
    monkeypatch.setattr(stages.Work, "network", lambda self, shipped=False: load_model(checkpoint))
    work = stages.Work(tmp_path, 40, 48, 1, 32, True)
    cubes = {way.name: way.setup()() for way in stages.reconstruct(work)}
    exports = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript"))
    for name, package in (("ONNX Runtime, fp32", "onnxruntime"), ("OpenVINO, fp32", "openvino")):
        assert (name in cubes) == (exports and importlib.util.find_spec(package) is not None)
    plain = cubes["plain network, one pass"]
    for name in ("ours, fp32", *(name for name in cubes if name.startswith(("ONNX", "OpenVINO")))):
        assert np.abs(cubes[name] - plain).max() < 1e-5 * np.abs(plain).max()

    photo = stages.reconstruct_photo(work)  # of 300 x 400 pixels
    assert [way.name for way in photo] == [name for name in cubes if name.startswith(("ours", "ONNX", "OpenVINO"))]
    assert [way.setup()() for way in photo] == [None] * len(photo)


@pytest.mark.slow
def test_a_way_that_fails_ends_the_benchmark(script, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import drcr.training.loop\ndef broken(*_): raise RuntimeError('broken')\n"
        "drcr.training.loop.training_step = broken\n"
    )
    options = ("--quick", "--stages", "train", "--json", "out.json")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])}
    printed = script("benchmarks/bench.py", *options, process=True, ok=False, env=environment).stderr
    assert "RuntimeError: broken" in printed
    assert printed.splitlines()[-1].startswith("error: train: ours")
    assert {path.name for path in tmp_path.glob("*[!_]")} == {"sitecustomize.py"}
