"""A lamp's power at the bands, and the point of known reflectance."""

import numpy as np
import pytest

from drcr.cube import WAVELENGTHS, reference_factor
from drcr.light import lamp
from drcr.utils.files import DataError


def test_lamps_by_name_by_alias_and_from_a_file(tmp_path):
    fl11 = lamp("FL11")
    assert (fl11 == lamp("F11")).all()
    assert fl11.mean() == pytest.approx(1)
    assert WAVELENGTHS[fl11.argmax()] == 610  # the red line of three-band lamps
    for text in ("nm,power\n380,2\n780,6\n", "380,2\n780,6\n"):
        (tmp_path / "lamp.csv").write_text(text)
        power = lamp(tmp_path / "lamp.csv", np.array([480.0, 680.0]))
        assert power == pytest.approx([0.75, 1.25])


def test_lamps_that_cannot_be_used(tmp_path):
    table = tmp_path / "lamp.csv"
    for text in (
        "",
        "nm,power\n",
        "400,1\n700,x\n",
        "700,1\n400,1\n",
        "400,1\n700,-1\n",
        "500,1\n700,1\n",
        "400,0\n700,0\n",
    ):
        table.write_text(text)
        with pytest.raises(DataError, match=r"lamp.csv: .*; "):
            lamp(table)
    with pytest.raises(DataError, match="no such illuminant"):
        lamp("candle")


def test_a_point_of_known_reflectance_scales_the_cube():
    values = np.random.default_rng(0).uniform(0.2, 0.6, (6, 7, 31))
    values[1:4, 2:5] = 0.3
    factor, words = reference_factor(values, (2, 3), 0.9)
    assert factor == pytest.approx(3)
    assert "row 2, column 3" in words
    assert reference_factor(values, (0, 0), 0.9)[0] == pytest.approx(0.9 / values[:2, :2].mean())
    values[:2, 5:] = 0
    for point, reflectance in (((0, 6), 0.9), ((6, 0), 0.9), ((2, 3), 0), ((2, 3), 1.1), ((2, 3), float("nan"))):
        with pytest.raises(DataError):
            reference_factor(values, point, reflectance)
