"""A cube carries its wavelengths and origin from the reader on: no file is opened twice to ask for them."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import cv2
import h5py
import numpy as np
import pytest
import scipy.io
from helpers import make_scenes

from drcr.cube import WAVELENGTHS, Cube, check_same_size, same_bands
from drcr.figures.comparison import find_jobs, read_scene
from drcr.formats.mat import load_cube, write_cube
from drcr.preparation.checking import CheckedScene, check_one_cube
from drcr.preparation.prepare import prepare
from drcr.utils.files import DataError

RNG = np.random.default_rng(4)
VERSIONS = ("v7.3", "v5")


@pytest.fixture
def opened(monkeypatch):
    """Return how often each .mat file is opened from here on, by folder and name; the real readers do the reading."""
    counts = Counter()

    class CountingFile(h5py.File):
        def __init__(self, name, *args, **kwargs):
            if str(name).endswith(".mat"):
                counts[Path(name)] += 1
            super().__init__(name, *args, **kwargs)

    def count_and_load(file, *args, **kwargs):
        counts[Path(getattr(file, "name", file))] += 1
        return loadmat(file, *args, **kwargs)

    loadmat = scipy.io.loadmat
    monkeypatch.setattr(h5py, "File", CountingFile)
    monkeypatch.setattr(scipy.io, "loadmat", count_and_load)
    return counts


def write(path, version, cube, wavelengths=WAVELENGTHS):
    """Write a cube in one of MATLAB's versions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if version == "v7.3":
        write_cube(path, cube, wavelengths)
    else:
        scipy.io.savemat(path, {"cube": np.float32(cube), "bands": wavelengths})


def random_cube():
    return RNG.random((20, 24, 31)) * 0.8 + 0.1


def once(paths):
    return dict.fromkeys(paths, 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_preparation_opens_each_cube_once(tmp_path, opened, version):
    spectral, rgb = make_scenes(tmp_path, 3)
    paths = sorted(spectral.iterdir())
    for path in paths:
        write(path, version, random_cube())
    prepare(spectral, rgb, tmp_path / "out", 16, 8)
    assert +opened == once(paths)


@pytest.mark.parametrize("version", VERSIONS)
def test_scoring_opens_each_file_of_a_pair_once(tmp_path, script, opened, version):
    paths = [tmp_path / folder / "a.mat" for folder in ("rec", "gt")]
    for path in paths:
        write(path, version, random_cube())
    script("test/compute_mrae.py", "--path_rec", tmp_path / "rec", "--path_gt", tmp_path / "gt")
    assert +opened == once(paths)


def test_figures_and_report_open_each_file_once(tmp_path, opened):
    paths = [tmp_path / folder / "a.mat" for folder in ("gt", "one", "two", "three")]
    for path in paths:
        path.parent.mkdir()
        write_cube(path, random_cube(), WAVELENGTHS, origin=path.parent.name)
    args = SimpleNamespace(
        path_rec={path.parent.name: path.parent for path in paths[1:]},
        path_gt=paths[0].parent,
        RGB_dir=None,
        scenes=None,
        floor=None,
        points=None,
        illuminant="D65",
    )
    (scene,) = map(read_scene, find_jobs(args))
    assert scene.origins == {name: name for name in ("one", "two", "three")}
    assert +opened == once(paths)


def test_check_and_rendering_open_each_cube_once(tmp_path, script, opened):
    path = tmp_path / "Train_spectral/a.mat"
    write(path, "v7.3", random_cube())
    check_one_cube(CheckedScene("Train", path, None), path, None)
    assert +opened == once([path])
    opened.clear()
    script("Dataset/render_rgb.py", "--path_gt", path.parent, "--RGB_dir", tmp_path / "rgb")
    assert +opened == once([path])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_importer_opens_each_cube_once(tmp_path, script, opened, version):
    path = tmp_path / "s/a.mat"
    write(path, version, random_cube())
    script("Dataset/import_cubes.py", "--source", path.parent, "--out", tmp_path / "d")
    assert +opened == once([path])


def test_wavelengths_that_nobody_knows(tmp_path):
    write_cube(tmp_path / "a.mat", np.ones((4, 4, 28)))
    cube = load_cube(tmp_path / "a.mat")
    assert cube.wavelengths is None
    assert cube.known_wavelengths is None
    with pytest.raises(DataError, match=r"a\.mat: 28 bands"):
        cube.require_wavelengths()


def test_31_bands_need_no_list(tmp_path):
    write_cube(tmp_path / "a.mat", np.ones((4, 4, 31)))
    cube = load_cube(tmp_path / "a.mat")
    assert cube.wavelengths is None  # the file does not say so
    assert np.array_equal(cube.require_wavelengths(), WAVELENGTHS)
    other = Cube(np.ones((4, 4, 31)), WAVELENGTHS + 20)
    assert np.array_equal(other.require_wavelengths(), WAVELENGTHS + 20)


def test_the_same_bands():
    assert same_bands(WAVELENGTHS, WAVELENGTHS + 0.05)
    assert not same_bands(WAVELENGTHS, WAVELENGTHS + 0.2)
    assert not same_bands(WAVELENGTHS, WAVELENGTHS[:-1])


def test_sizes_of_image_and_cube(tmp_path):
    check_same_size((5, 8, 3), Path("a.png"), (5, 8, 31), Path("a.mat"))
    with pytest.raises(DataError, match=r"a\.png: 8 x 5 pixels, but its cube a\.mat has 5 x 8; .*transposed"):
        check_same_size((8, 5, 3), Path("a.png"), (5, 8, 31), Path("a.mat"))
    # the same rule in the preparation
    spectral, rgb = make_scenes(tmp_path, 1)
    cv2.imwrite(str(rgb / "scene000.png"), np.ones((19, 24, 3), np.uint8))
    with pytest.raises(DataError, match="19 x 24 pixels, but its cube"):
        prepare(spectral, rgb, tmp_path / "out")
