"""What test.py does with a cube before it is written, and what it writes beside it."""

import csv

import cv2
import numpy as np
import pytest
from helpers import ROOT

from drcr.formats.envi import read_header
from drcr.formats.mat import load_cube, read_cube, read_origin
from drcr.formats.results import read_result
from drcr.light import lamp

TEST = "test/test.py"
MODEL = ROOT / "test/model/model.pth"


@pytest.fixture
def photo(tmp_path):
    """Return a photograph of 24 x 20 pixels, without tags."""
    y, x = np.mgrid[:24, :20]
    cv2.imwrite(str(tmp_path / "photo.png"), np.uint8(np.stack([60 + 6 * x, 80 + 5 * y, 90 + 3 * x + 2 * y], 2)))
    return tmp_path / "photo.png"


def test_a_point_of_known_reflectance_and_a_lamp(script, fails, photo, tmp_path):
    plain = ("--model_dir", MODEL, "--encoding", "srgb", "--result_dir")
    script(TEST, photo, *plain, "plain")
    script(TEST, photo, *plain, "scaled", "--reference", 8, 12, 0.9)
    script(TEST, photo, *plain, "lit", "--reference", 8, 12, 0.9, "--light", "F11")
    cube, scaled, lit = (read_cube(tmp_path / folder / "photo.mat") for folder in ("plain", "scaled", "lit"))
    assert scaled[7:10, 11:14].mean() == pytest.approx(0.9, rel=1e-4)
    np.testing.assert_allclose(scaled / cube, (scaled / cube)[0, 0, 0], rtol=1e-4)
    np.testing.assert_allclose(lit, scaled * np.float32(lamp("F11")), rtol=1e-5)
    assert "row 8, column 12" in read_origin(tmp_path / "scaled/photo.mat")
    assert "lamp F11" in read_origin(tmp_path / "lit/photo.mat")
    fails(TEST, photo, *plain, "no", "--reference", 24, 12, 0.9, names="photo.png: 24 rows and 20 columns")
    fails(TEST, photo, *plain, "no", "--light", "candle", names="candle: no such illuminant")
    fails(TEST, photo, *plain, "no", "--spectra", 1, 2, 3, names="--spectra")
    assert not list((tmp_path / "no").glob("*.mat"))


def test_pictures_and_spectra_beside_the_cube(script, fails, photo, tmp_path):
    run = (TEST, photo, "--model_dir", MODEL, "--encoding", "srgb", "--result_dir", "out")
    run = (*run, "--pictures", "--confidence", "--spectra", 3, 4, 20, 19)
    printed = script(*run).stdout
    assert "figures.py --path_gt none --path_rec out" in printed.splitlines()[-1]
    cube = read_cube(tmp_path / "out/photo.mat")
    for kind in ("colour", "confidence"):
        assert cv2.imread(str(tmp_path / f"out/photo_{kind}.png")).shape == (24, 20, 3)
    with open(tmp_path / "out/photo_spectra.csv", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["wavelength_nm", "3,4", "20,19"]
    np.testing.assert_allclose(np.float32([row[2] for row in rows]), cube[20, 19])
    script(*run)  # its own it replaces
    cv2.imwrite(str(tmp_path / "out/photo_colour.png"), np.zeros((4, 4, 3), np.uint8))
    fails(*run, names="photo_colour.png: exists and is not a picture")


@pytest.mark.parametrize(("form", "suffix"), [("envi", ".hdr"), ("tiff", ".tif")])
def test_the_confidence_map_in_every_format(script, photo, tmp_path, form, suffix):
    run = (TEST, photo, "--model_dir", MODEL, "--encoding", "srgb")
    script(*run, "--confidence", "--result_dir", "mat")
    script(*run, "--confidence", "--result_dir", "other", "--format", form)
    maps, others = (
        load_cube(tmp_path / "mat/photo.mat").maps,
        read_result(tmp_path / f"other/photo{suffix}").maps,
    )
    assert maps.keys() == others.keys()
    for name, values in maps.items():
        np.testing.assert_array_equal(values, others[name])
        assert values.dtype == others[name].dtype
    script("test/figures.py", "--path_gt", "none", "--path_rec", "other", "--num_workers", 0, "--format", "png")
    assert (tmp_path / "figures/photo_confidence.png").is_file()
    script(*run, "--result_dir", "other", "--format", form)  # without: the maps of the earlier run go
    assert not read_result(tmp_path / f"other/photo{suffix}").maps


def test_an_envi_header_opens_in_colour(script, photo, tmp_path):
    script(TEST, photo, "--model_dir", MODEL, "--result_dir", "out", "--format", "envi")
    header = read_header(tmp_path / "out/photo.hdr")
    shown = [float(header["wavelength"][int(band) - 1]) for band in header["default bands"]]
    assert shown == [640, 550, 460]


def test_several_images_of_one_name_are_refused(fails, photo, tmp_path):
    cv2.imwrite(str(tmp_path / "photo.jpg"), cv2.imread(str(photo)))
    fails(TEST, photo, tmp_path / "photo.jpg", "--model_dir", MODEL, names="same name")
