import importlib
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from helpers import DATA, ROOT, load_script
from matplotlib import colormaps

from drcr.formats.mat import read_cube, write_cube
from drcr.images import read_rgb
from drcr.utils.files import DataError


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Return a folder in which draw.py has run, what it wrote, and what it wrote of CRM the second time."""
    folder = tmp_path_factory.mktemp("figure")
    shutil.copy(ROOT / "figure/draw.py", folder)
    subprocess.run([sys.executable, "draw.py"], cwd=folder, check=True)
    first = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".py"}
    module = load_script("figure/draw.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "OUT", folder)
        module.draw_crm()
    return folder, first, {name: (folder / name).read_bytes() for name in ("CRM.png", "CRM.pdf")}


@pytest.mark.parametrize("name", ["network.png", "CRM.png"])
def test_pictures_of_the_network_are_what_the_script_draws(drawn, name):
    """The drawing in the repository is not older than its script."""
    now, kept = (cv2.imread(str(folder / name)) for folder in (drawn[0], ROOT / "figure"))
    assert now.shape == kept.shape
    # a letter changed makes a block of 8 x 8 differ; a font rendered a little otherwise makes none
    blocks = cv2.resize(cv2.absdiff(now, kept), None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA)
    assert blocks.max() < 60


def test_the_drawings_are_the_same_bytes_each_time_as_picture_and_for_papers(drawn):
    _, first, second = drawn
    assert first.keys() == {"network.png", "network.pdf", "CRM.png", "CRM.pdf"}
    assert second.items() <= first.items()
    for name in ("network.pdf", "CRM.pdf"):
        assert len(first[name]) < 500_000
        assert b"/Type3" not in first[name]
        assert b"/FontFile2" in first[name]


RELATIVE = {"dark": 0.7, "medium": 0.8, "good": 0.95}
"""Scenes, and their reconstructions as parts of the truth: MRAE 0.3, 0.2, 0.05."""


@pytest.fixture
def scenes(tmp_path, monkeypatch):
    """Return the options for three scenes whose errors are known, in the folder that tests then are in."""
    monkeypatch.chdir(tmp_path)
    truth = read_cube(DATA / "Dataset/Valid_spectral/ARAD_1K_0901.mat")
    for folder in ("rec", "gt", "rgb"):
        (tmp_path / folder).mkdir()
    for name, part in RELATIVE.items():
        write_cube(tmp_path / f"rec/{name}.mat", part * truth)
        write_cube(tmp_path / f"gt/{name}.mat", truth)
        shutil.copy(DATA / "Dataset/Valid_RGB/ARAD_1K_0901.jpg", tmp_path / f"rgb/{name}.jpg")
    return "--path_rec", "rec", "--path_gt", "gt", "--RGB_dir", "rgb"


@pytest.fixture
def abstract(monkeypatch):
    """Run abstract.py in this process, which has imported its libraries."""
    monkeypatch.syspath_prepend(ROOT / "figure")
    module = importlib.import_module("abstract")

    def run(*options):
        module.main([*map(str, options)])

    return run


def test_the_abstract_shows_image_and_error_of_the_median_scene(script, abstract, scenes, tmp_path):
    assert script("figure/abstract.py", *scenes, process=True).stdout == "abstract.png: scene medium\n"
    abstract(*scenes, "--out", "again.png")
    assert (tmp_path / "abstract.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    picture = read_rgb(tmp_path / "abstract.png")
    assert picture.shape == (560, 1660, 3)
    # 200 dots an inch; images 1.36 inches wide, centred 1.36 inches above the bottom
    row = 552 - 272
    image = read_rgb(DATA / "Dataset/Valid_RGB/ARAD_1K_0901.jpg")
    assert np.abs(picture[row, 12 + 136] - image[19, 24].astype(float)).max() < 25
    error = np.array(colormaps["magma"](0.2)[:3]) * 255
    assert np.abs(picture[row - 80 : row + 80, 1310:1550] - error).max() < 3
    # nothing is cut off
    assert picture[[0, -1]].min() == picture[:, [0, -1]].min() == 255


def test_the_abstract_of_a_chosen_scene_tells_its_score_and_where_it_is_from(abstract, scenes, tmp_path):
    points = ("--points", "3,40", "30,5", "20,20")
    abstract(*scenes, "--scene", "dark", "--citation", "Scene: nobody, 1999", *points, "--out", "new/abstract.svg")
    words = (tmp_path / "new/abstract.svg").read_text()
    for expected in ("MRAE 0.300", "Scene: nobody, 1999", "38 × 48 × 31", "400 nm"):
        assert f"<!-- {expected} -->" in words


def test_what_is_missing_or_not_ours_is_one_line(fails, abstract, scenes, tmp_path):
    fails("figure/abstract.py", "--path_rec", "nowhere", *scenes[2:], names="nowhere: no such folder")
    (tmp_path / "photo.png").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"photo\.png: exists and is not a figure"):
        abstract(*scenes, "--out", "photo.png")
    assert (tmp_path / "photo.png").read_bytes() == b"mine"
    (tmp_path / "rgb/medium.jpg").unlink()
    with pytest.raises(DataError, match="no image medium"):
        abstract(*scenes)


def test_a_truth_with_zeros_needs_a_floor(abstract, scenes, tmp_path):
    truth = read_cube(tmp_path / "gt/dark.mat").copy()
    truth[0, 0, 0] = 0
    write_cube(tmp_path / "gt/dark.mat", truth)
    with pytest.raises(DataError, match=r"dark\.mat: has values <= 0"):
        abstract(*scenes, "--scene", "dark")
    abstract(*scenes, "--scene", "dark", "--non_positive", "floor", 0.01)


def test_a_scene_of_one_colour_has_fewer_points(abstract, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, value in (("rec", 0.4), ("gt", 0.5)):
        (tmp_path / folder).mkdir()
        write_cube(tmp_path / folder / "grey.mat", np.full((24, 32, 31), value, np.float32))
    (tmp_path / "rgb").mkdir()
    cv2.imwrite(str(tmp_path / "rgb/grey.png"), np.full((24, 32, 3), 128, np.uint8))
    abstract("--path_rec", "rec", "--path_gt", "gt", "--RGB_dir", "rgb")
    assert (tmp_path / "abstract.png").exists()
