import shutil

import cv2
import numpy as np
import pytest
import spectral.io.envi
import tifffile
from helpers import DATA

from drcr.formats.cubes import read_cube_file
from drcr.formats.mat import load_cube
from drcr.formats.results import FORMATS, check_target, read_result, write_result
from drcr.utils import files
from drcr.utils.files import DataError

MODEL = DATA / "model_c16_b2.pth"
NM = np.array([400.0, 411.1111111111111, 1 / 3 + 500, 699.9999999999999])
ORIGIN = "DRCR Net, ./modèle {x}.pth, image linear, = as it is"
EACH = pytest.mark.parametrize("suffix", FORMATS.values())
OTHERS = pytest.mark.parametrize("suffix", [".hdr", ".tif"])


@pytest.fixture
def cube():
    """Return a cube of odd size with values that a conversion would change, in the order that test.py has it."""
    cube = np.random.default_rng(0).standard_normal((4, 7, 5)).astype(np.float32).T
    cube[0, 0, 0], cube[0, 0, 1], cube[0, 0, 2] = 1e-42, -0.0, 3e38
    return cube


def same(first, second):
    return first.dtype == second.dtype == np.float32 and first.tobytes("C") == second.tobytes("C")


@EACH
@pytest.mark.parametrize("nm", [NM, None])
def test_what_is_written_is_read_back_exactly(cube, tmp_path, suffix, nm):
    path = tmp_path / f"scene{suffix}"
    write_result(path, cube, nm, ORIGIN)
    read = read_result(path)
    assert same(read.values, cube)
    assert read.values.strides == cube.strides, "scores depend on the order in memory, in the last digits"
    assert nm is None if read.wavelengths is None else np.array_equal(read.wavelengths, nm)
    if nm is not None and suffix != ".mat":
        stored = read_cube_file(path)
        assert same(np.asarray(stored.values), cube)
        assert np.array_equal(stored.wavelengths, nm)
    assert "image linear, = as it is" in read.origin


def test_spy_opens_envi(cube, tmp_path):
    write_result(tmp_path / "scene.hdr", cube, NM, ORIGIN)
    image = spectral.io.envi.open(tmp_path / "scene.hdr")
    assert image.shape == cube.shape
    assert image.bands.centers == NM.tolist()
    assert image.bands.band_unit == "Nanometers"
    assert same(np.asarray(image.open_memmap()), cube)
    assert image.metadata["drcr origin"].endswith("as it is")


def test_tifffile_opens_tiff_as_an_imagej_stack(cube, tmp_path):
    write_result(tmp_path / "scene.tif", cube, NM, ORIGIN)
    with tifffile.TiffFile(tmp_path / "scene.tif") as file:
        assert file.is_imagej
        assert len(file.pages) == 4
        assert file.series[0].axes == "ZYX"
        assert same(file.asarray().transpose(1, 2, 0), cube)
        assert file.imagej_metadata["Labels"] == [f"{nm} nm" for nm in NM.tolist()]


def test_a_large_tiff_keeps_its_pages(cube, tmp_path, monkeypatch):
    monkeypatch.setattr("drcr.formats.tiff.CLASSIC_BYTES", 100)  # instead of 4 GiB
    write_result(tmp_path / "scene.tif", cube, NM, ORIGIN)
    with tifffile.TiffFile(tmp_path / "scene.tif") as file:
        assert file.is_bigtiff
        assert len(file.pages) == 4
    read = read_result(tmp_path / "scene.tif")
    assert same(read.values, cube)
    assert np.array_equal(read.wavelengths, NM)
    check_target(tmp_path / "scene.tif")


@EACH
def test_a_cube_of_one_band(tmp_path, suffix):
    cube = np.random.default_rng(0).random((4, 5, 1), np.float32)
    write_result(tmp_path / f"scene{suffix}", cube, NM[:1], ORIGIN)
    read = read_result(tmp_path / f"scene{suffix}")
    assert same(read.values, cube)
    assert np.array_equal(read.wavelengths, NM[:1])


# ---- never over files of others


@EACH
def test_a_result_may_be_replaced(cube, tmp_path, suffix):
    path = tmp_path / f"scene{suffix}"
    check_target(path)
    write_result(path, cube, NM, ORIGIN)
    check_target(path)
    write_result(path, cube[:2] + 1, NM, ORIGIN)
    assert same(read_result(path).values, cube[:2] + 1)


def foreign_envi(folder):
    values = np.ones((5, 7, 4), np.float32)
    spectral.io.envi.save_image(str(folder / "scene.hdr"), values, metadata={"description": "drcr origin"})


def foreign_data(folder):
    (folder / "scene.img").write_bytes(b"a disk image")


def foreign_data_under_our_header(folder):
    write_result(folder / "scene.hdr", np.ones((4, 5, 7), np.float32), None, ORIGIN)
    (folder / "scene.img").write_bytes(b"precious")


def foreign_tiff(folder):
    tifffile.imwrite(folder / "scene.tif", np.ones((4, 5, 7), np.float32), imagej=True, metadata={"Info": "mine"})


def broken_tiff(folder):
    (folder / "scene.tif").write_bytes(b"II*\0 not much more")


def folder_in_the_way(folder):
    (folder / "scene.hdr").mkdir()


@pytest.mark.parametrize(
    "place", [foreign_envi, foreign_data, foreign_data_under_our_header, foreign_tiff, broken_tiff, folder_in_the_way]
)
def test_files_of_others_are_refused(tmp_path, place):
    place(tmp_path)
    suffix = ".tif" if "tiff" in place.__name__ else ".hdr"
    with pytest.raises(DataError, match="exists and is not"):
        check_target(tmp_path / f"scene{suffix}")


# ---- interruption


class Stop(BaseException):
    """As KeyboardInterrupt, which nothing catches."""


def stop_at_write(monkeypatch, count):
    """Let the `count`-th rename of `write_atomically` fail as if the process were stopped before it."""
    real, calls = files.os.replace, []

    def replace(*paths):
        calls.append(paths)
        if len(calls) == count:
            raise Stop
        real(*paths)

    monkeypatch.setattr("drcr.utils.files.os.replace", replace)


@OTHERS
def test_stopped_before_the_first_rename_all_is_as_before(cube, tmp_path, monkeypatch, suffix):
    path = tmp_path / f"scene{suffix}"
    stop_at_write(monkeypatch, 1)
    with pytest.raises(Stop):
        write_result(path, cube, NM, ORIGIN)
    assert not list(tmp_path.iterdir())


def test_new_values_never_stand_under_an_old_header(cube, tmp_path, monkeypatch):
    path = tmp_path / "scene.hdr"
    write_result(path, cube, NM, "old")
    stop_at_write(monkeypatch, 2)  # the values have their name, the header not yet
    with pytest.raises(Stop):
        write_result(path, cube + 1, NM, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["scene.img"]
    check_target(path)  # the next run may go on


@OTHERS
def test_a_full_disk_leaves_the_earlier_result(cube, tmp_path, monkeypatch, suffix):
    path = tmp_path / f"scene{suffix}"
    write_result(path, cube, NM, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("drcr.utils.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_result(path, cube + 1, NM, "new")
    monkeypatch.undo()
    assert same(read_result(path).values, cube)
    assert not list(tmp_path.glob(".drcr*"))


# ---- the commands


@pytest.fixture
def images(tmp_path):
    for path in (DATA / "Dataset/Valid_RGB").iterdir():
        (tmp_path / "rgb").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "rgb")
    return tmp_path / "rgb"


def test_all_formats_score_alike_and_import_exactly(script, images, tmp_path):
    printed, cubes, part = {}, {}, ("--part", "Valid", "--scale", 2)
    for name, suffix in FORMATS.items():
        out = tmp_path / name
        options = ("--RGB_dir", images, "--model_dir", MODEL, "--result_dir", out, "--format", name)
        script("test/test.py", *options)
        script("test/test.py", *options)  # replaces its own
        lines = script("test/compute_mrae.py", "--path_rec", out, "--path_gt", DATA / "Dataset/Valid_spectral").stdout
        printed[name] = lines.replace(suffix, "")
        script("Dataset/import_cubes.py", "--source", out, "--out", tmp_path / f"d_{name}", *part)
        read = {path.stem: load_cube(path) for path in sorted((tmp_path / f"d_{name}/Valid_spectral").iterdir())}
        cubes[name] = read
    for name in FORMATS:
        assert printed[name] == printed["mat"]
        assert cubes[name].keys() == cubes["mat"].keys()
        for scene, cube in cubes[name].items():
            assert same(cube.values, cubes["mat"][scene].values)
            assert np.array_equal(cube.wavelengths, cubes["mat"][scene].wavelengths)


def test_figures_and_report_read_them(script, images, tmp_path):
    options = ("--RGB_dir", images, "--model_dir", MODEL)
    for name in ("envi", "tiff"):
        script("test/test.py", *options, "--result_dir", tmp_path / name, "--format", name)
    recs = ("--path_rec", f"a={tmp_path}/envi", "--path_rec", f"b={tmp_path}/tiff", "--num_workers", 0)
    script("test/figures.py", *recs, "--path_gt", "none", "--out", tmp_path / "fig")
    script("test/report.py", *recs, "--path_gt", DATA / "Dataset/Valid_spectral", "--out", tmp_path / "r.html")
    assert (tmp_path / "r.html").is_file()
    assert list((tmp_path / "fig").iterdir())


def test_foreign_files_stop_the_command_before_it_works(fails, tmp_path):
    (tmp_path / "rgb").mkdir()
    cv2.imwrite(str(tmp_path / "rgb/scene.png"), np.full((8, 8, 3), 9, np.uint8))
    (tmp_path / "out").mkdir()
    for suffix, name in ((".hdr", "envi"), (".img", "envi"), (".tif", "tiff")):
        foreign = tmp_path / f"out/scene{suffix}"
        foreign.write_bytes(b"precious")
        options = ("--RGB_dir", tmp_path / "rgb", "--result_dir", tmp_path / "out", "--format", name)
        fails("test/test.py", *options, names=foreign)
        assert [path.name for path in (tmp_path / "out").iterdir()] == [foreign.name]
        assert foreign.read_bytes() == b"precious"
        foreign.unlink()


def test_an_unknown_format_is_an_error(script):
    done = script("test/test.py", "--format", "png", ok=False)
    assert done.returncode == 2
    assert "mat" in done.stderr
