import subprocess
import sys

import colour
import numpy as np
import pytest

from drcr.cube import WAVELENGTHS
from drcr.figures.colour import ILLUMINANTS, true_colour, white_level
from drcr.utils.files import DataError


@pytest.mark.parametrize("illuminant", ILLUMINANTS)
def test_an_even_spectrum_is_grey_under_any_illuminant(illuminant):
    rgb = true_colour(np.full((2, 3, 31), 0.5, np.float32), illuminant=illuminant)
    assert rgb.shape == (2, 3, 3)
    assert rgb.dtype == np.float32
    np.testing.assert_allclose(rgb, 0.7354, atol=2e-3)  # sRGB's curve at 0.5


@pytest.mark.parametrize("illuminant", ["D65", "A"])
def test_measured_patches_have_the_colours_that_the_library_gives_their_spectra(illuminant):
    patches = list(colour.SDS_COLOURCHECKERS["BabelColor Average"].values())
    cube = np.stack([patch[WAVELENGTHS] for patch in patches])[None].astype(np.float32)
    white = colour.CCS_ILLUMINANTS["CIE 1931 2 Degree Standard Observer"][illuminant]
    with colour.utilities.suppress_warnings(colour_runtime_warnings=True):  # it tells of each patch that it cuts
        expected = [
            colour.XYZ_to_sRGB(colour.sd_to_XYZ(patch, illuminant=colour.SDS_ILLUMINANTS[illuminant]) / 100, white)
            for patch in patches
        ]
    # the library has the patches from 380 to 730 nm, the cube to 700
    np.testing.assert_allclose(true_colour(cube, illuminant=illuminant)[0], np.clip(expected, 0, 1), atol=0.01)


def test_other_bands_give_the_same_colour():
    nm = np.arange(400, 701, 5)
    fine = np.interp(nm, WAVELENGTHS, np.linspace(0.2, 0.9, 31) ** 2)[None, None]
    coarse = (np.linspace(0.2, 0.9, 31) ** 2)[None, None]
    np.testing.assert_allclose(true_colour(fine, nm), true_colour(coarse), atol=1e-3)


def test_the_order_of_the_bands_does_not_matter():
    cube = np.linspace(0.1, 0.9, 62, dtype=np.float32).reshape(1, 2, 31)
    np.testing.assert_allclose(true_colour(cube[..., ::-1], WAVELENGTHS[::-1]), true_colour(cube), atol=1e-6)


def test_white_level_brings_the_bright_pixels_to_white():
    cube = np.linspace(0.01, 0.2, 1000, dtype=np.float32)[:, None, None] * np.ones((1, 1, 31), np.float32)
    level = white_level(cube)
    assert level == pytest.approx(0.199, abs=1e-3)
    assert true_colour(cube, white=level)[-1].min() > 0.99
    assert white_level(np.zeros((2, 2, 31), np.float32)) > 0


def test_numpy_prints_as_before():
    code = "import numpy as np; from drcr.figures.colour import true_colour; true_colour(np.ones((1, 1, 31)))"
    command = [sys.executable, "-c", f"{code}; print(np.float32(0.7168593))"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "0.7168593\n"


def test_an_unknown_illuminant_is_an_error():
    with pytest.raises(DataError, match=r"D66.*D65"):
        true_colour(np.ones((1, 1, 31)), illuminant="D66")
