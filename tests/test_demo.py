import shutil
import subprocess
import sys

import cv2
import pytest
from conftest import ROOT


@pytest.fixture
def project(tmp_path):
    """Return a copy of what the demo needs, so that the user's own demo/ is left alone."""
    for name in ("Dataset", "train", "test"):
        (tmp_path / name).mkdir()
        for path in (ROOT / name).glob("*.py"):
            shutil.copy(path, tmp_path / name)
    shutil.copy(ROOT / "demo.py", tmp_path)
    return tmp_path


def test_the_whole_demo_twice_with_one_epoch(project):
    for _ in range(2):
        process = subprocess.run(
            [sys.executable, "demo.py", "--epochs", "1"], cwd=project, capture_output=True, text=True, check=True
        )
        commands = [
            line.split("python ")[1].split()[0] for line in process.stdout.splitlines() if line.startswith("$")
        ]
        assert commands == [
            "simulate.py",
            "train_data_preprocess.py",
            "valid_data_preprocess.py",
            "main.py",
            "test.py",
            "compute_mrae.py",
            "compute_mrae.py",
        ]
        assert "mean over 10 scenes that neither saw" in process.stdout
        assert "linear map, least squares" in process.stdout
        for name in ("reconstruction.png", "curves.png"):
            assert f"demo/{name}" in process.stdout
            picture = cv2.imread(str(project / "demo" / name))
            assert min(picture.shape[:2]) > 400
            assert picture.std() > 10
    assert {path.name for path in project.iterdir()} == {"Dataset", "train", "test", "demo.py", "demo"}
    assert {path.suffix for path in (project / "Dataset").iterdir()} == {".py"}


def test_pictures_of_the_network_are_what_the_script_draws(tmp_path):
    """The drawing in the repository is not older than its script."""
    shutil.copy(ROOT / "figure/draw.py", tmp_path)
    subprocess.run([sys.executable, "draw.py"], cwd=tmp_path, check=True)
    for name in ("network.png", "CRM.png"):
        drawn, kept = (cv2.imread(str(folder / name)) for folder in (tmp_path, ROOT / "figure"))
        assert drawn.shape == kept.shape
        assert cv2.absdiff(drawn, kept).mean() < 1  # fonts may be rendered a little otherwise elsewhere
