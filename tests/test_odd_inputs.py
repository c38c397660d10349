"""Odd inputs through all commands: each goes in rightly or is refused in one line, never with a stack trace.

ODD_INPUTS sets how many are made; the default keeps the suite short.
"""

import os
import shutil

import numpy as np
import pytest
from helpers import DATA
from odd_inputs import NAME, make

from drcr.formats.mat import load_cube

COUNT = int(os.environ.get("ODD_INPUTS", "24"))


def one_line(process):
    """Assert that a command succeeded, or failed as users expect; return whether it succeeded."""
    assert process.returncode in (0, 1), process.stderr
    assert "Traceback" not in process.stderr
    if process.returncode:
        last = [text.strip().replace("\r", "\n").split("\n")[-1] for text in (process.stderr, process.stdout)]
        assert last[0].startswith("error: ") or last[1].startswith("not ready: "), last
    return process.returncode == 0


@pytest.mark.parametrize("seed", range(COUNT))
def test_an_odd_input(script, tmp_path, seed):
    odd = make(seed, tmp_path / "in")
    options = ("--source", tmp_path / "in", "--out", tmp_path / "d", "--bands", "keep", "--preset", "clean")
    process = script("Dataset/import_cubes.py", *options, *odd.options, ok=None)
    path = tmp_path / f"d/Train_spectral/{NAME}.mat"
    imported = one_line(process)
    assert imported == path.exists(), odd.what
    assert odd.refused in (None, not imported), (odd.what, process.stdout + process.stderr)
    if not imported:
        assert not [file for file in (tmp_path / "d").rglob("*") if file.is_file()]
        return
    cube = load_cube(path)
    if odd.cube is not None and odd.any_order:
        assert np.array_equal(np.sort(cube.values, None), np.sort(np.float32(odd.cube), None)), odd.what
    elif odd.cube is not None:
        assert cube.values.shape == odd.cube.shape, odd.what
        assert np.abs(cube.values - odd.cube).max() <= odd.atol, odd.what
        assert np.allclose(cube.known_wavelengths, odd.wavelengths, atol=0.01), odd.what
    # and on, as a scene to train and to validate with
    for kind in ("spectral", "RGB"):
        shutil.copytree(tmp_path / f"d/Train_{kind}", tmp_path / f"d/Valid_{kind}")
    one_line(
        script("Dataset/check.py", "--data_path", tmp_path / "d", "--patch_size", 8, "--num_workers", 1, ok=None)
    )
    for part, size in (("train", ("--patch_size", 8)), ("valid", ())):
        one_line(script(f"train/{part}_data_preprocess.py", "--data_path", tmp_path / "d", *size, ok=None))
    model = ("--model_dir", DATA / "model_c16_b2.pth")
    one_line(script("test/test.py", "--RGB_dir", tmp_path / "d/Valid_RGB", *model, ok=None))
    one_line(script("test/compute_mrae.py", "--path_gt", tmp_path / "d/Valid_spectral", ok=None))
