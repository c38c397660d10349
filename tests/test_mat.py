import io
import shutil
import subprocess
import tracemalloc

import h5py
import mat73
import numpy as np
import pytest
import scipy.io

from drcr.cube import WAVELENGTHS, check_cube
from drcr.formats.mat import read_cube, read_origin, write_cube
from drcr.utils.files import DataError

RNG = np.random.default_rng(0)


@pytest.fixture
def cube():
    """Return a cube with a mark: the upper right corner of band 3 is 7."""
    cube = RNG.random((5, 8, 31), np.float32)
    cube[0, 7, 3] = 7
    return cube


@pytest.fixture
def written(cube, tmp_path):
    path = tmp_path / "cube.mat"
    write_cube(path, cube, WAVELENGTHS)
    return path


def test_we_read_what_we_write(cube, written):
    read = read_cube(written)
    assert read.dtype == np.float32
    assert np.array_equal(read, cube)


def test_mat73_reads_it(cube, written):
    content = mat73.loadmat(written)
    assert content["cube"].shape == (5, 8, 31)
    assert np.array_equal(content["cube"], cube)
    assert np.array_equal(content["bands"], WAVELENGTHS)


def test_h5py_reads_it_in_matlabs_order_with_class_and_header(cube, written):
    header = written.read_bytes()[:128]
    assert header.startswith(b"MATLAB 7.3 MAT-file")
    assert header[116:] == bytes(8) + b"\x00\x02IM"
    with h5py.File(written) as file:
        assert file.userblock_size == 512
        assert file["cube"].shape == (31, 8, 5)
        assert file["cube"].attrs["MATLAB_class"] == b"single"
        assert file["bands"].shape == (31, 1)
        assert file["cube"][3, 7, 0] == 7


@pytest.mark.skipif(not shutil.which("matdump"), reason="matdump is not installed (Debian package matio-tools)")
def test_matio_reads_it(cube, written):
    whos = subprocess.run(["matdump", "-f", "whos", written], capture_output=True, text=True, check=True).stdout
    assert "5x8x31" in whos
    assert "mxSINGLE_CLASS" in whos
    dump = subprocess.run(["matdump", "-d", written, "cube"], capture_output=True, text=True, check=True).stdout
    bands = dump.split("cube(:,:,")[1:]
    numbers = np.stack([np.loadtxt(io.StringIO(band.split("=")[1])) for band in bands], 2)
    np.testing.assert_allclose(numbers, cube, rtol=1e-5)  # it prints six digits
    assert numbers[0, 7, 3] == 7


@pytest.mark.parametrize("name", ["cube", "rad"])
def test_reads_v5_and_v7(cube, tmp_path, name):
    for compressed in (False, True):
        scipy.io.savemat(tmp_path / "a.mat", {name: cube, "other": 1.0}, do_compression=compressed)
        assert np.array_equal(read_cube(tmp_path / "a.mat"), cube)


def test_reads_rad_of_v73(cube, tmp_path):
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["rad"] = cube.T.astype(np.float64)
    read = read_cube(tmp_path / "a.mat")
    assert read.dtype == np.float32
    assert np.array_equal(read, cube)


def test_bad_files_are_named(cube, written, tmp_path):
    (tmp_path / "truncated.mat").write_bytes(written.read_bytes()[:-2000])
    (tmp_path / "text.mat").write_text("hello")
    (tmp_path / "empty.mat").write_bytes(b"")
    scipy.io.savemat(tmp_path / "v5.mat", {"cube": cube})
    (tmp_path / "truncated_v5.mat").write_bytes((tmp_path / "v5.mat").read_bytes()[:-2000])
    scipy.io.savemat(tmp_path / "other.mat", {"dog": cube})
    scipy.io.savemat(tmp_path / "flat.mat", {"cube": cube[..., 0]})
    scipy.io.savemat(tmp_path / "words.mat", {"cube": "hello"})
    with h5py.File(tmp_path / "group.mat", "w") as file:
        file.create_group("cube")
    with h5py.File(tmp_path / "string.mat", "w") as file:
        file["cube"] = "hello"
    scipy.io.savemat(tmp_path / "garbled.mat", {"cube": cube}, do_compression=True)
    content = bytearray((tmp_path / "garbled.mat").read_bytes())
    content[300:400] = bytes(100)
    (tmp_path / "garbled.mat").write_bytes(content)
    (tmp_path / "stump.mat").write_bytes(content[:100])
    for name in (
        "string",
        "garbled",
        "stump",
        "truncated",
        "text",
        "empty",
        "truncated_v5",
        "other",
        "flat",
        "words",
        "group",
        "missing",
    ):
        with pytest.raises(DataError, match=rf"/{name}\.mat: ") as error:
            read_cube(tmp_path / f"{name}.mat")
        assert "\n" not in str(error.value)


def test_origin_comes_back_and_scalars_may_be_whole(cube, written, tmp_path):
    write_cube(tmp_path / "rec.mat", cube, origin="DRCR Net, ä.pth", norm_factor=1)
    assert read_origin(tmp_path / "rec.mat") == "DRCR Net, ä.pth"
    assert read_origin(written) is None
    assert read_origin(tmp_path / "none.mat") is None
    assert mat73.loadmat(tmp_path / "rec.mat")["norm_factor"] == 1


def test_wrong_shapes_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="three"):
        write_cube(tmp_path / "a.mat", np.zeros((3, 4)))
    with pytest.raises(ValueError, match="wavelengths"):
        write_cube(tmp_path / "a.mat", np.zeros((3, 4, 5)), WAVELENGTHS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("order", ["C", "F"])
def test_writing_makes_no_copy_of_the_cube(tmp_path, order):
    cube = np.asarray(RNG.random((200, 150, 31), np.float32), order=order)
    write_cube(tmp_path / "first.mat", cube)  # what is made once, in the first call, does not count
    tracemalloc.start()
    write_cube(tmp_path / "a.mat", cube, WAVELENGTHS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * cube[..., 0].nbytes  # a band at a time
    assert np.array_equal(read_cube(tmp_path / "a.mat"), cube)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_found_and_counted(cube, value):
    check_cube(cube, "a.mat")
    cube[2:4, 3, 4] = value
    with pytest.raises(DataError, match=r"a\.mat: contains 2 NaN"):
        check_cube(cube, "a.mat")
