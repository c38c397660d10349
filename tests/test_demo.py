import csv
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from helpers import ROOT, SHARED, load_script

from drcr.formats.mat import read_cube
from drcr.images import read_rgb
from drcr.utils.files import DataError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Run the demo, where files of an earlier run are; return its folder and what it printed.

    It runs in a copy of what it needs, so that the user's own demo/ is left alone.
    """
    folder = tmp_path_factory.mktemp("project")
    for name in ("Dataset", "train", "test"):
        (folder / name).mkdir()
        for path in (ROOT / name).glob("*.py"):
            shutil.copy(path, folder / name)
    shutil.copy(ROOT / "demo.py", folder)
    (folder / "demo/Dataset").mkdir(parents=True)
    (folder / "demo/Dataset/earlier.mat").touch()
    (folder / "demo/.made_by_demo").touch()
    command = [sys.executable, "demo.py", "--epochs", "4"]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert not (folder / "demo/Dataset/earlier.mat").exists()
    return folder, process.stdout


def test_the_readmes_commands_and_their_traces(demo):
    folder, printed = demo
    commands = [line.split("python ")[1].split()[0] for line in printed.splitlines() if line.startswith("$")]
    assert commands == [
        "simulate.py",
        "train_data_preprocess.py",
        "valid_data_preprocess.py",
        "main.py",
        "test.py",
        "compute_mrae.py",
        "baseline.py",
        "compute_mrae.py",
    ]
    for name in ("reconstruction.png", "curves.png"):
        assert f"demo/{name}" in printed
        picture = cv2.imread(str(folder / "demo" / name))
        assert min(picture.shape[:2]) > 400
        assert picture.std() > 10
    assert {path.name for path in folder.iterdir()} == {"Dataset", "train", "test", "demo.py", "demo"}
    assert {path.suffix for path in (folder / "Dataset").iterdir()} == {".py"}


def test_the_network_beats_the_linear_map(demo):
    folder, printed = demo
    network, linear = (read_average(folder / "demo" / name) for name in ("scores.csv", "scores_linear.csv"))
    assert network < 0.9 * linear
    assert f"is {1 - network / linear:.0%} lower" in printed


def read_average(path):
    """Return the average MRAE of a table that compute_mrae.py wrote."""
    with open(path, newline="") as file:
        return float(next(row["mrae"] for row in csv.DictReader(file) if row["name"] == "average"))


def test_a_real_photograph_through_the_demos_network(demo, script, tmp_path):
    photo = SHARED / "data/arad/RGB/ARAD_1K_0912.jpg"
    if not photo.is_file():
        pytest.skip("../shared/data/arad/RGB/ARAD_1K_0912.jpg, a real photograph, is not here")
    model = demo[0] / "demo/RealWorldResults/last.pth"
    script("test/test.py", "--RGB_dir", photo, "--model_dir", model, "--result_dir", tmp_path)
    cube = read_cube(tmp_path / "ARAD_1K_0912.mat")
    assert cube.shape == (482, 512, 31)
    # green light from green: the photograph's luminance is in the cube
    assert np.corrcoef(read_rgb(photo).mean(2).ravel(), cube.mean(2).ravel())[0, 1] > 0.9


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path, monkeypatch):
    script = load_script("demo.py")
    monkeypatch.setattr(script, "DEMO", tmp_path)
    (tmp_path / "mine").touch()
    with pytest.raises(DataError, match="not an earlier demo"):
        script.main([])
    assert (tmp_path / "mine").exists()
