"""What files state is applied, or refused by name; what they leave open is settled, or asked for."""

import errno
import os
import shutil
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import scipy.io
import spectral.io.envi
import tifffile
from helpers import DATA, ROOT, SHARED, make_scenes

from drcr.cube import wavelengths_in_nm
from drcr.formats.band_files import sort_band_files, wavelengths_in_names
from drcr.formats.cubes import find_cubes, read_cube_file
from drcr.formats.mat import load_cube, read_cube, write_cube
from drcr.preparation.bands import read_split, unmeasured
from drcr.preparation.prepare import prepare
from drcr.utils.files import DataError, write_atomically

CUBES = "Dataset/import_cubes.py"
WL = np.arange(400.0, 701.0, 10.0)


def write_v5(folder, cube, bands):
    path = folder / "scene.mat"
    scipy.io.savemat(path, {"cube": cube} | ({} if bands is None else {"bands": bands}))
    return path


def write_h5(folder, cube, bands, **options):
    path = folder / "scene.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("cube", data=cube, **options)
        if bands is not None:
            file["wavelengths"] = bands
    return path


def write_envi(folder, cube, bands=None, interleave="bsq", **fields):
    path = folder / "scene.hdr"
    metadata = fields | ({} if bands is None else {"wavelength": [str(nm) for nm in np.ravel(bands)]})
    metadata = {name.replace("_", " "): value for name, value in metadata.items()}
    options = {"dtype": cube.dtype, "force": True, "interleave": interleave, "ext": ".raw"}
    spectral.io.envi.save_image(str(path), cube, metadata=metadata, **options)
    return path


@pytest.fixture
def cube():
    """Return (12, 16, 31) float32, unlike along all axes, from 0.05 to 0.9."""
    rows, columns, bands = np.ogrid[0:1:12j, 0:1:16j, 0:1:31j]
    cube = 0.4 * rows + 0.3 * columns**2 + 0.3 * bands * (0.5 + 0.5 * rows)
    cube += 0.05 * np.random.default_rng(8).random((12, 16, 31))
    return np.float32(0.05 + 0.85 * (cube - cube.min()) / (cube.max() - cube.min()))


@pytest.fixture
def source(tmp_path):
    (tmp_path / "s").mkdir()
    return tmp_path / "s"


@pytest.fixture
def imports(script, source, tmp_path):
    """Run the importer on the source, keeping the bands; return the cube `scene` and what was printed."""

    def run(*options):
        shutil.rmtree(tmp_path / "d", ignore_errors=True)
        done = script(CUBES, "--source", source, "--out", tmp_path / "d", "--bands", "keep", "--no_rgb", *options)
        return load_cube(tmp_path / "d/Train_spectral/scene.mat"), done.stdout

    return run


def refuses(path, says, **options):
    with pytest.raises(DataError, match=says) as error:
        read_cube_file(path, **options)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


# 1: which axis are the bands


def test_a_list_settles_the_axis_even_if_the_bands_are_the_longest(source, cube):
    wide = np.concatenate([cube, cube[..., :10] / 2], 2)  # 12 x 16 x 41
    nm = np.arange(400.0, 810, 10)
    np.savez(source / "scene.npz", cube=wide.transpose(2, 0, 1), wavelengths=nm)
    read = read_cube_file(source / "scene.npz")
    assert np.array_equal(read.values, wide)
    assert np.array_equal(read.wavelengths, nm)


def test_an_axis_that_two_would_fit_is_asked_for(source, imports, cube):
    square = np.concatenate([cube, cube, cube], 0)[:31]  # 31 x 16 x 31
    np.save(source / "scene.npy", square)
    refuses(source / "scene.npy", "--band_axis")
    assert np.array_equal(imports("--band_axis", "last")[0].values, square)
    assert np.array_equal(imports("--band_axis", "first")[0].values, square.transpose(1, 2, 0))


def test_envi_says_which_axis_whatever_the_numbers(source, cube):
    for interleave in ("bsq", "bil", "bip"):
        write_envi(source, cube[:, :, :20], np.arange(400.0, 600, 10), interleave)
        assert np.array_equal(read_cube_file(source / "scene.hdr").values, cube[:, :, :20])


def test_labels_of_the_dimensions_count(source, cube):
    with h5py.File(source / "scene.h5", "w") as file:
        file["cube"] = cube.transpose(0, 2, 1)
        file["cube"].dims[1].label = "wavelength"
    read = read_cube_file(source / "scene.h5", step=(430.0, 5.0))
    assert np.array_equal(read.values, cube)
    assert read.wavelengths[-1] == 430 + 5 * 30


def test_a_cube_of_the_data_folder_is_as_its_writer_says(tmp_path):
    values = np.float32(np.random.default_rng(0).random((31, 20, 28)))
    write_cube(tmp_path / "a.mat", values)  # 31 rows, not 31 bands
    assert np.array_equal(read_cube(tmp_path / "a.mat"), values)
    write_cube(tmp_path / "b.mat", values, np.linspace(420, 700, 28))
    assert np.array_equal(read_cube(tmp_path / "b.mat"), values)


# 2: wavelengths


@pytest.mark.parametrize("write", [write_v5, write_h5, write_envi])
def test_bands_are_sorted_by_their_wavelengths(source, imports, cube, write):
    order = np.random.default_rng(1).permutation(31)
    write(source, cube[..., order], WL[order])
    read, printed = imports()
    assert np.array_equal(read.values, cube)
    assert np.array_equal(read.wavelengths, WL)
    assert "bands were sorted" in printed


def test_sorted_in_every_reader(tmp_path, script):
    """The same two scenes, one with its bands in another order: preparation, check and scoring see the same cube."""
    spectral, rgb = make_scenes(tmp_path, 1)
    values = read_cube(spectral / "scene000.mat")
    scipy.io.savemat(spectral / "scene000.mat", {"cube": values[..., ::-1], "wavelength": WL[::-1]})
    order = [*range(5, 31), *range(5)]
    scipy.io.savemat(spectral / "scene001.mat", {"cube": values[..., order], "wavelength": WL[order]})
    shutil.copy(rgb / "scene000.png", rgb / "scene001.png")
    prepare(spectral, rgb, tmp_path / "out")
    scenes = []
    for name in ("scene000", "scene001"):
        with h5py.File(tmp_path / f"out/{name}.h5") as file:
            scenes.append(file["cube"][()])
            assert np.array_equal(file["cube"].attrs["wavelengths"], WL)
    assert np.array_equal(scenes[0], scenes[1])
    assert np.array_equal(scenes[0], values.transpose(2, 0, 1))
    for folder, name in (("rec", "scene000"), ("gt", "scene001")):
        (tmp_path / folder).mkdir()
        shutil.copy(spectral / f"{name}.mat", tmp_path / folder / "a.mat")
    printed = script("test/compute_mrae.py", "--path_rec", tmp_path / "rec", "--path_gt", tmp_path / "gt").stdout
    assert "bands were sorted" in printed
    assert float(printed.split("mrae is: ")[1].split()[0]) < 0.02  # the reconstruction is clipped at 1


def test_two_detectors_that_overlap_are_averaged(source, imports, cube):
    both = np.concatenate([cube[..., :20], cube[..., 18:] * 0.8], 2)
    write_v5(source, both, np.r_[WL[:20], WL[18:]])
    read, printed = imports()
    assert np.array_equal(read.wavelengths, WL)
    assert np.allclose(read.values[..., 18:20], cube[..., 18:20] * 0.9, atol=1e-6)
    assert np.allclose(read.values[..., 20:], cube[..., 20:] * 0.8, atol=1e-6)
    assert "averaged" in printed


@pytest.mark.parametrize("name", ["bands", "wavelengths", "wavelength"])
def test_a_list_of_another_length_is_an_error_in_every_reader(tmp_path, source, cube, name):
    scipy.io.savemat(source / "scene.mat", {"cube": cube, name: WL[:-2]})
    refuses(source / "scene.mat", f"{name} has 29 wavelengths")
    with pytest.raises(DataError, match=r"scene\.mat: .* 29 wavelengths"):
        load_cube(source / "scene.mat")
    read = read_cube_file(source / "scene.mat", wavelengths=WL + 3)  # unless the user gives others
    assert np.array_equal(read.wavelengths, WL + 3)


def test_two_lists_that_disagree(source, cube):
    scipy.io.savemat(source / "scene.mat", {"cube": cube, "bands": WL, "wavelengths": WL + 20})
    refuses(source / "scene.mat", "bands and wavelengths are different")


@pytest.mark.parametrize(
    ("values", "unit", "nm"),
    [
        ([400, 500.5], None, [400, 500.5]),
        ([0.4, 0.5005], None, [400, 500.5]),
        ([0.4, 12.5], "Micrometers", [400, 12500]),
        ([4000, 5005], "Angstroms", [400, 500.5]),
        ([25000, 20000], "Wavenumber", [400, 500]),
        ([4e-7, 5e-7], "m", [400, 500]),
        ([1, 2, 3], None, None),
        ([0, 1, 2], "Index", None),
        ([30, 20, 10], None, None),
    ],
)
def test_units(values, unit, nm):
    read = wavelengths_in_nm(np.array(values, float), unit)
    assert (read is None) == (nm is None)
    assert nm is None or np.allclose(read, nm)


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([4000, 7000], None),
        ([400, 700], "um"),
        ([400, -1], None),
        ([0.4, 0.7], "nm"),
        ([400, 700], "ell"),
        ([4e5], "nm"),
    ],
)
def test_units_that_make_no_sense(values, unit):
    with pytest.raises(ValueError, match=r"unit|wavelengths"):
        wavelengths_in_nm(np.array(values, float), unit)


# 3: metadata that change the meaning


def test_gain_and_offset_of_each_band(source, cube):
    gains, offsets = np.linspace(1e-4, 3e-4, 31), np.linspace(-0.02, 0.02, 31)
    raw = np.round((cube - offsets) / gains).astype(np.int16)
    lists = {"data_gain_values": [str(x) for x in gains], "data_offset_values": [str(x) for x in offsets]}
    write_envi(source, raw, WL, "bil", **lists)
    assert np.abs(read_cube_file(source / "scene.hdr").values - cube).max() < 2e-4


def test_bad_bands_do_not_enter_the_resampling(script, source, tmp_path):
    nm = np.arange(400, 702, 2.0)
    values = np.full((5, 6, len(nm)), 0.5, np.float32)
    flags = np.ones(len(nm), int)
    flags[[49, 50, 51]] = 0  # 498, 500, 502 nm
    values[..., flags == 0] = 0.01
    write_envi(source, values, nm, bbl=[str(flag) for flag in flags])
    printed = script(CUBES, "--source", source, "--out", tmp_path / "d", "--no_rgb").stdout
    assert np.allclose(read_cube(tmp_path / "d/Train_spectral/scene.mat"), 0.5)
    assert "3 of 151" in printed


def test_negative_values_are_counted_and_told(source, imports, cube):
    cube[3, 4, :5] = -0.25
    np.save(source / "scene.npy", cube)
    read, printed = imports()
    assert np.array_equal(read.values, cube)
    assert "negative values: 5 of 5,952, the lowest -0.25" in printed


def test_a_fill_value_nobody_declared_does_not_become_the_scale(fails, source, tmp_path, cube):
    cube[0, 0, 0] = 1e20
    np.save(source / "scene.npy", cube)
    options = ("--source", source, "--out", tmp_path / "d", "--scale", "max")
    fails(CUBES, *options, names="may mark missing data")


@pytest.mark.parametrize("attribute", ["_FillValue", "missing_value"])
def test_hdf5_fill_values(source, cube, attribute):
    for marked in (False, True):
        values = cube.copy()
        values[5, :, 2] = 1e30 if marked else values[5, :, 2]
        path = write_h5(source, values, WL)
        with h5py.File(path, "a") as file:
            file["cube"].attrs[attribute] = np.float32(1e30)
        if marked:
            refuses(path, "16 values in 16 pixels are 1e")
        else:
            assert np.array_equal(read_cube_file(path).values, cube)


def test_hdf5_scale_and_offset_and_the_unit_of_its_wavelengths(source, cube):
    path = write_h5(source, np.round((cube - 0.02) * 50000).astype(np.uint16), WL / 1e9)
    with h5py.File(path, "a") as file:
        file["cube"].attrs.update(scale_factor=[2e-5], add_offset=0.02)
        file["wavelengths"].attrs["units"] = "m"
    read = read_cube_file(path)
    assert np.abs(read.values - cube).max() < 2e-5
    assert np.allclose(read.wavelengths, WL)


@pytest.mark.parametrize(
    "field", ["calibration scale factor = 2", "data reflectance gain values = {2}", "file compression = 1"]
)
def test_envi_fields_that_are_not_applied_are_refused_by_name(source, cube, field):
    path = write_envi(source, cube, WL)
    path.write_text(f"{path.read_text()}{field}\n")
    refuses(path, field.split(" =")[0])


def test_envi_headers_as_programs_write_them(source, cube):
    path = write_envi(source, cube, WL, operator="me")
    text, data = path.read_text(), path.with_suffix(".raw")
    headers = [text.replace("= me", "= {Jürgen}").encode("latin-1"), text.encode("utf-8-sig"), text.encode("utf-16")]
    for header in (*headers, text.replace("byte order = 0\n", "").encode()):
        path.write_bytes(header)
        assert np.array_equal(read_cube_file(path).values, cube)
    path.write_text(text.replace("header offset = 0", "header offset = 100"))
    data.write_bytes(bytes(100) + data.read_bytes())
    assert np.array_equal(read_cube_file(path).values, cube)


def test_envi_headers_that_make_no_sense(source, cube):
    path = write_envi(source, cube, WL)
    text, lines = path.read_text(), path.read_text().splitlines(keepends=True)
    added = ["data ignore value -9999", "major frame offsets = {3, 0}", "bbl = {" + ", ".join("0" * 31) + "}"]
    added.append("reflectance scale factor = 10\ndata gain values = {" + ", ".join("2" * 31) + "}")
    headers = [f"{text}{line}\n" for line in added] + [text.replace("ENVI Standard", "ENVI Spectral Library")]
    for name in ("samples", "lines", "bands", "data type", "interleave"):
        headers.append("".join(line for line in lines if not line.startswith(f"{name} =")))
    for header in headers:
        path.write_text(header)
        refuses(path, "scene.hdr")
    path.write_text(text)
    data = path.with_suffix(".raw")
    data.write_bytes(data.read_bytes() + bytes(64))
    refuses(path, "describes")


def test_layouts_of_a_tiff_and_what_is_refused(tmp_path, cube):
    path, pages, plain = tmp_path / "scene.tif", np.ascontiguousarray(cube.transpose(2, 0, 1)), "minisblack"
    for values, options in (
        (cube, {"photometric": plain, "planarconfig": "contig"}),
        (pages, {"photometric": plain, "planarconfig": "separate"}),
        (pages, {"photometric": plain, "compression": "zlib"}),
        (pages, {"photometric": plain, "byteorder": ">"}),
        (pages, {"imagej": True, "metadata": {"axes": "CYX"}}),
    ):
        tifffile.imwrite(path, values, **options)
        assert np.array_equal(read_cube_file(path).values, cube)
    nodata = str(float(pages[0, 0, 0]))
    for values, options in (
        (pages, {"photometric": "miniswhite"}),
        (pages, {"photometric": plain, "extratags": [(274, "H", 1, 6, True)]}),
        (pages, {"photometric": plain, "extratags": [(42113, "s", 0, nodata, True)]}),
        (pages[0], {"photometric": plain}),
    ):
        tifffile.imwrite(path, values, **options)
        refuses(path, "scene.tif")


def test_storage_and_types_of_hdf5_and_numpy(source, cube):
    path = source / "scene.h5"
    with h5py.File(path, "w") as file:
        file["stored/here"], file["wavelengths"] = cube, WL
        file["cube"] = h5py.SoftLink("/stored/here")
    assert np.array_equal(read_cube_file(path).values, cube)
    write_h5(source, cube, WL, compression="gzip")
    assert np.array_equal(read_cube_file(path).values, cube)
    with h5py.File(path, "a") as file:
        file["cube"].attrs["scale_factor"] = "0.1"
    refuses(path, "scale_factor")
    with h5py.File(path, "w") as file:
        file.create_dataset("cube", cube.shape, "f4", chunks=(4, 16, 31))[:8] = cube[:8]
    refuses(path, "scene.h5")
    for dtype in (complex, bool):
        np.save(source / "scene.npy", cube.astype(dtype))
        refuses(source / "scene.npy", "numbers with three dimensions")


@pytest.mark.parametrize("kind", ["size", "colour", "depth"])
def test_band_files_that_are_not_alike(source, cube, kind):
    bands = np.round(cube * 60000).astype(np.uint16)
    other = {
        "size": bands[:-1, :, 9],
        "colour": np.dstack([bands[..., 9], bands[..., 9] // 2, bands[..., 9]]),
        "depth": (bands[..., 9] // 257).astype(np.uint8),
    }[kind]
    paths = [source / f"b{i}.png" for i in range(31)]
    for i, path in enumerate(paths):
        cv2.imwrite(str(path), other if i == 9 else bands[..., i])
    with pytest.raises(DataError, match=r"b9\.png: "):
        read_cube_file(tuple(paths))


# 4: HDF5 that MATLAB did not write


@pytest.mark.parametrize("marks", ["none", "class", "header"])
def test_matlabs_marks_decide_the_order_of_axes(tmp_path, cube, marks):
    path = tmp_path / "scene.mat"
    with h5py.File(path, "w", userblock_size=512 if marks == "header" else 0) as file:
        file["rad"] = cube if marks == "none" else cube.T
        if marks == "class":
            file["rad"].attrs["MATLAB_class"] = np.bytes_("single")
    assert np.array_equal(read_cube(path), cube)
    assert np.array_equal(read_cube_file(path).values, cube)


def test_bands_first_as_pytorch_has_it(tmp_path, cube):
    with h5py.File(tmp_path / "scene.hdf5", "w") as file:
        file["hyper"] = cube.transpose(2, 0, 1)  # the only cube, of any name
        file["mask"] = np.ones((12, 16))
    assert np.array_equal(read_cube_file(tmp_path / "scene.hdf5").values, cube)


def test_the_golden_cubes_are_read_as_before():
    path = DATA / "Dataset/Train_spectral/ARAD_1K_0001.mat"
    with h5py.File(path) as file:
        assert np.array_equal(read_cube(path), file["cube"][()].T)


# 5: files that vanish


def test_a_dangling_link_is_an_error(tmp_path, source, cube, fails):
    np.save(source / "a.npy", cube)
    (source / "b.npy").symlink_to("nowhere.npy")
    fails(CUBES, "--source", source, "--out", tmp_path / "d", names="b.npy: is a link to a missing file")
    spectral, rgb = make_scenes(tmp_path / "a", 1)
    (spectral / "scene001.mat").symlink_to("nowhere.mat")
    with pytest.raises(DataError, match=r"scene001\.mat: is a link to a missing file"):
        prepare(spectral, rgb, tmp_path / "out")


def test_what_a_run_did_not_use_is_named(tmp_path, source, cube, script, capsys):
    np.save(source / "a.npy", cube)
    (source / "b.jp2").write_bytes(b"")
    (source / "more").mkdir()
    write_envi(source, cube, WL)
    printed = script(CUBES, "--source", source, "--out", tmp_path / "d", "--no_rgb").stdout
    assert "2 cubes found, 2 imported" in printed
    assert "skipped 2: b.jp2, more/" in printed  # not scene.raw, which belongs to scene.hdr
    spectral, rgb = make_scenes(tmp_path / "a", 1)
    (rgb / "scene001.jxl").write_bytes(b"")
    prepare(spectral, rgb, tmp_path / "out")
    assert "skipped 1: scene001.jxl" in capsys.readouterr().out


# 6: a scale that cannot be


@pytest.mark.parametrize("peak", [255, 100, 65535])
def test_truth_in_counts_is_not_scored(tmp_path, fails, script, cube, peak):
    for folder, factor in (("rec", 1), ("gt", peak)):
        (tmp_path / folder).mkdir()
        write_cube(tmp_path / folder / "a.mat", cube * factor, WL)
    message = fails(
        "test/compute_mrae.py", "--path_rec", tmp_path / "rec", "--path_gt", tmp_path / "gt", names="gt/a.mat"
    )
    assert "--scale" in message
    spectral, rgb = make_scenes(tmp_path, 1, size=(12, 16))
    write_cube(spectral / "scene000.mat", cube * peak, WL)
    with pytest.raises(DataError, match="--scale"):
        prepare(spectral, rgb, tmp_path / "out")


def test_a_few_highlights_above_1_are_told(tmp_path, script, cube):
    truth = cube.copy()
    truth[0, 0] = 1.5
    for folder, values in (("rec", cube), ("gt", truth)):
        (tmp_path / folder).mkdir()
        write_cube(tmp_path / folder / "a.mat", values, WL)
    printed = script("test/compute_mrae.py", "--path_rec", tmp_path / "rec", "--path_gt", tmp_path / "gt").stdout
    assert "note: " in printed
    assert "values up to 1.5" in printed


# 7: bands that were not measured


@pytest.mark.parametrize(
    ("nm", "missing"),
    [
        (np.r_[400:500:5, 530:705:5], [500, 510, 520]),
        (np.arange(400, 701, 25), []),  # coarse, but everywhere the same
        (np.r_[400:540:5, 545:705:5], []),  # a band of 5 nm is missing
        (np.r_[400:540:10, 550:705:10], [540]),  # one band is missing
        (np.array([400.0, 410, 420, 430, 700]), list(range(440, 700, 10))),
    ],
)
def test_gaps(nm, missing):
    assert unmeasured(np.float64(nm), WL) == missing


def test_a_gap_is_refused_and_kept_bands_are_not(fails, source, imports, tmp_path, cube):
    write_v5(source, cube[..., [*range(9), *range(14, 31)]], WL[[*range(9), *range(14, 31)]])
    message = fails(
        CUBES, "--source", source, "--out", tmp_path / "d", names="490, 500, 510, 520, 530 nm were not measured"
    )
    assert "--bands keep" in message
    assert imports()[0].values.shape == (12, 16, 26)


# 9, 10: what is wrong is said


def test_a_file_in_use_is_not_called_broken(tmp_path, cube):
    path = write_h5(tmp_path, cube, WL)
    code = f"import h5py, sys; f = h5py.File({str(path)!r}, 'a'); print(flush=True); sys.stdin.read()"
    environment = os.environ | {"HDF5_USE_FILE_LOCKING": "TRUE"}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as writer:
        writer.stdout.readline()
        try:
            refuses(path, "in use by another program")
        finally:
            writer.stdin.close()


def test_a_file_larger_than_the_memory_is_not_called_broken(tmp_path):
    values = np.ones((400, 400, 100), np.float32)
    np.savez_compressed(tmp_path / "a.npz", cube=values)
    code = (
        "import resource, sys; from pathlib import Path; from drcr.formats.cubes import read_cube_file\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000,) * 2)\n"
        "try: read_cube_file(Path(sys.argv[1]))\n"
        "except ValueError as error: print(error)"
    )
    command = [sys.executable, "-c", code, tmp_path / "a.npz"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert "a.npz: does not fit into memory" in done.stdout, done.stderr


def test_the_first_error_is_the_one_told(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()

    def write(file):
        shutil.rmtree(folder)
        folder.write_text("now a file")  # so that the temporary file cannot be removed either
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as error:
        write_atomically(folder / "a.mat", write)
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(folder / "a.mat")


# 11: messages name the remedy that works


def test_a_split_in_utf_16_is_read_and_another_encoding_named(tmp_path):
    (tmp_path / "a.txt").write_bytes("Train ä\nValid b\n".encode("utf-16"))
    assert read_split(tmp_path / "a.txt") == {"ä": "Train", "b": "Valid"}
    (tmp_path / "a.txt").write_bytes("Train ä\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"a\.txt: is not UTF-8"):
        read_split(tmp_path / "a.txt")


@pytest.mark.parametrize("version", ["v5", "v7.3"])
def test_a_field_of_a_struct_in_a_struct(source, imports, fails, tmp_path, cube, version):
    if version == "v5":
        contents = {"data": {"raw": {"Cube": cube, "wavelength": WL + 5}, "id": 7}, "rad": cube[0]}
        scipy.io.savemat(source / "scene.mat", contents)
    else:
        with h5py.File(source / "scene.mat", "w") as file:
            file["data/raw/Cube"] = cube.T
            file["data/raw/Cube"].attrs["MATLAB_class"] = np.bytes_("single")
            file["data/raw/wavelength"] = WL[:, None] + 5
            file["other"] = cube.T
    options = ("--source", source, "--out", tmp_path / "d")
    assert "data" in fails(CUBES, *options, "--variable", "data.raw.Cub", names="--variable")
    read, _ = imports("--variable", "data.raw.Cube")
    assert np.array_equal(read.values, cube)
    assert np.array_equal(read.wavelengths, WL + 5)


def cell(values):
    """Return values as savemat writes a cell."""
    out = np.empty(len(values), object)
    out[:] = values
    return out


def write_groups(path, cube, lists, where="cube", attributes=None):
    with h5py.File(path, "w") as file:
        file[where] = cube
        for name, values in lists.items():
            file[name] = values
        (file[where] if attributes == "cube" else file).attrs.update(lists if attributes else {})


def write_cells(path, cube, nm):
    """Write a list as MATLAB v7.3 writes a cell."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file["DataCube"] = cube.T
        references = [file.create_dataset(f"#refs#/{i}", data=[[x]]).ref for i, x in enumerate(nm)]
        file.create_dataset("Wavelength", data=np.array(references, h5py.ref_dtype)[:, None])
        file["Wavelength"].attrs["MATLAB_class"] = np.bytes_("cell")


LISTS = {
    "MATLAB's own names": ("mat", lambda p, c, nm: scipy.io.savemat(p, {"DataCube": c, "Wavelength": nm[:, None]})),
    "capitals": ("mat", lambda p, c, nm: scipy.io.savemat(p, {"CUBE": c, "BANDS": nm})),
    "a unit in the name": ("mat", lambda p, c, nm: scipy.io.savemat(p, {"cube": c, "wavelength_um": nm / 1000})),
    "a unit beside it": (
        "mat",
        lambda p, c, nm: scipy.io.savemat(p, {"h": {"C": c, "Wavelength": nm * 10, "WavelengthUnits": "Angstroms"}}),
    ),
    "a struct with both": (
        "mat",
        lambda p, c, nm: scipy.io.savemat(p, {"hcube": {"DataCube": c, "Wavelength": nm}, "rgb": c[..., 0]}),
    ),
    "a struct beside the cube": (
        "mat",
        lambda p, c, nm: scipy.io.savemat(p, {"rad": c, "bands": 31, "info": {"a": {"Wavelength": nm}}}),
    ),
    "a cell of numbers": ("mat", lambda p, c, nm: scipy.io.savemat(p, {"cube": c, "Bands": cell([*nm])})),
    "a cell of texts": (
        "mat",
        lambda p, c, nm: scipy.io.savemat(p, {"cube": c, "Bands": cell([f"{x:g} nm" for x in nm])}),
    ),
    "a cell of v7.3": ("mat", write_cells),
    "a group": ("h5", lambda p, c, nm: write_groups(p, c, {"meta/Wavelength": nm}, "raw/cube")),
    "an attribute of the cube": ("h5", lambda p, c, nm: write_groups(p, c, {"Wavelengths": nm}, "a/b", "cube")),
    "an attribute of the file": ("h5", lambda p, c, nm: write_groups(p, c, {"Wavelengths": nm}, "a/b", "file")),
    "texts": ("h5", lambda p, c, nm: write_groups(p, c, {"wavelength": [f"{x:g}" for x in nm]})),
    "NumPy": ("npz", lambda p, c, nm: np.savez(p, cube=c, Wavelength=nm)),
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_of_wavelengths_is_found_wherever_it_is(tmp_path, cube, kind):
    suffix, write = LISTS[kind]
    write(tmp_path / f"scene.{suffix}", cube, WL + 20)
    read = read_cube_file(tmp_path / f"scene.{suffix}")
    assert np.array_equal(read.values, cube)
    assert read.wavelengths is not None
    assert np.allclose(read.wavelengths, WL + 20)


def test_a_far_list_does_not_contradict_a_near_one(tmp_path, cube):
    lamp = {"wavelength": np.arange(300.0, 900)}
    scipy.io.savemat(tmp_path / "scene.mat", {"cube": cube, "wavelength": WL + 20, "lamp": lamp})
    assert np.array_equal(read_cube_file(tmp_path / "scene.mat").wavelengths, WL + 20)
    scipy.io.savemat(tmp_path / "scene.mat", {"cube": cube, "lamp": lamp})
    refuses(tmp_path / "scene.mat", "lamp.wavelength has 600")


def test_objects_of_matlab_are_refused(tmp_path, cube):
    with h5py.File(tmp_path / "scene.mat", "w", userblock_size=512) as file:
        file["#refs#/b"], file["hcube"] = cube.T, np.uint32([[1, 2]])
        file["hcube"].attrs.update(MATLAB_class=np.bytes_("hypercube"), MATLAB_object_decode=3)
    refuses(tmp_path / "scene.mat", "hcube is a MATLAB object")


def test_hdf5_reads_no_other_file_in_any_reader(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(range(124)))
    for kind in ("link", "storage", "hidden link"):
        path = tmp_path / f"{kind}.mat"
        with h5py.File(path, "w", userblock_size=512) as file:
            if kind == "storage":
                file.create_dataset("cube", (31, 2, 2), "u1", external=[(str(secret), 0, 124)])
            elif kind == "link":
                file["cube"] = h5py.ExternalLink(str(secret), "/x")
            else:  # by way of a link within the file
                file["a/b"] = h5py.ExternalLink(str(secret), "/x")
                file["cube"] = h5py.SoftLink("/a/b/c")
        for read in (read_cube, read_cube_file):
            with pytest.raises(DataError, match=rf"{kind}\.mat: .* (not followed|not read)"):
                read(path)


def test_a_long_header_is_read_in_one_pass(source, cube):
    path = write_envi(source, cube, WL)
    lines = path.read_text() + "operator = {a,\n b = 2}\n; note\n"
    path.write_text(lines + " " * 300_000 + "\n" + "x " * 100_000 + "= 1\n")  # cubic time would take years
    assert np.array_equal(read_cube_file(path).values, cube)
    for damage in ("x", "= 1", "x = {1", "x = {1} 2", "x} = 1", " " * 300_000 + "x"):
        path.write_text(lines + damage)
        refuses(path, "fix or remove it|cut off or damaged")


OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
    'DimensionOrder="XYZCT" Type="float" SizeX="16" SizeY="12" SizeZ="31" SizeC="1" SizeT="1"><Channel ID="C:0" '
    'SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="31"><UUID FileName="{}">urn:uuid:1</UUID></TiffData></Pixels>'
    "</Image></OME>"
)


@pytest.mark.parametrize("other", ["truth.tif", "pipe.tif"])
def test_a_tiff_reads_no_other_file(tmp_path, cube, other):
    tifffile.imwrite(tmp_path / "truth.tif", 1 - cube.transpose(2, 0, 1), photometric="minisblack")
    os.mkfifo(tmp_path / "pipe.tif")  # opening it would wait for ever
    path, text = tmp_path / "scene.ome.tif", OME.format(other)
    tifffile.imwrite(path, cube.transpose(2, 0, 1), photometric="minisblack", metadata=None, description=text)
    assert np.array_equal(read_cube_file(path).values, cube)


@pytest.mark.parametrize("tags", [{}, {"RowsPerStrip": 60000}, {"StripByteCounts": 0}, {"StripOffsets": 1 << 30}])
def test_a_tiff_that_states_more_than_it_holds_is_not_decoded(tmp_path, tags):
    tifffile.imwrite(
        tmp_path / "a.tif", np.ones((31, 20, 8), np.uint16), compression="zlib", photometric="minisblack"
    )
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        for page in file.pages:
            for name, value in ({"ImageWidth": 60000, "ImageLength": 60000} | tags).items():
                page.tags[name].overwrite(value)
    refuses(tmp_path / "a.tif", "copy or download it again")


def test_a_file_at_which_scipy_crashes_ends_in_one_line(source, cube, tmp_path, fails):
    path = write_v5(source, cube, None)
    data = bytearray(path.read_bytes())
    data[data.index(cube.tobytes("F")[:16]) - 8] = 200  # a type of numbers that does not exist
    path.write_bytes(data)
    fails(CUBES, "--source", source, "--out", tmp_path / "d", names=path, process=True)


def test_what_is_no_array_in_an_npz_is_no_cube(tmp_path, cube):
    np.savez(tmp_path / "scene.npz", data=cube)
    with zipfile.ZipFile(tmp_path / "scene.npz", "a") as file:
        file.writestr("readme", "text")
    assert np.array_equal(read_cube_file(tmp_path / "scene.npz").values, cube)
    refuses(tmp_path / "scene.npz", "three dimensions", variable="readme")


def test_an_accented_letter_is_the_same_however_it_is_stored(tmp_path, script, cube):
    composed, decomposed = (unicodedata.normalize(form, "scène") for form in ("NFC", "NFD"))
    spectral, rgb = make_scenes(tmp_path, 1)
    (spectral / "scene000.mat").rename(spectral / f"{composed}.mat")
    (rgb / "scene000.png").rename(rgb / f"{decomposed}.png")
    prepare(spectral, rgb, tmp_path / "prepared", patch_size=8)
    (tmp_path / "split").write_text(f"Train {composed}\n")
    (tmp_path / "c").mkdir()
    np.save(tmp_path / f"c/{decomposed}.npy", cube)
    script(CUBES, "--source", tmp_path / "c", "--split", tmp_path / "split", "--out", tmp_path / "d", "--no_rgb")
    assert (tmp_path / f"d/Train_spectral/{composed}.mat").is_file()


# 12, 14: folders of scenes, names of NTIRE 2020


def write_bands(folder, cube, names):
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        tifffile.imwrite(folder / f"{name}.tif", cube[..., i])


def test_band_files_in_natural_order(source, imports, cube):
    write_bands(source / "scene", cube, [f"band{i}" for i in range(1, 32)])
    read, printed = imports()
    assert np.array_equal(read.values, cube)
    assert "band1.tif to band31.tif" in printed


def test_wavelengths_in_the_names_of_band_files(source, cube):
    nm = np.r_[WL[15:], WL[:15]] + 0.5
    write_bands(source / "scene", cube, [f"v2_{x:g}nm_exp3" for x in nm])
    found, _ = find_cubes(source)
    read = read_cube_file(found["scene"])
    assert np.allclose(read.wavelengths, WL + 0.5)
    assert np.array_equal(read.values[..., 0], cube[..., 16])


@pytest.mark.parametrize(
    ("names", "nm"),
    [
        (["a_400", "a_410"], [400, 410]),
        (["7_400nm", "8_410nm"], [400, 410]),
        (["img_0400", "img_0401"], None),  # a counter
        (["b1", "b2"], None),
        (["400_1", "410_2"], None),  # which of the two?
        (["a_400nm", "b_400nm"], None),
    ],
)
def test_which_numbers_are_wavelengths(names, nm):
    found = wavelengths_in_names(names)
    assert found is None if nm is None else np.array_equal(found, nm)


def test_a_missing_band_file_does_not_shift_the_others(source, cube, fails, tmp_path):
    write_bands(source / "scene", cube, [f"band{i:02}" for i in range(1, 32)])
    (source / "scene/band07.tif").unlink()
    options = ("--source", source, "--out", tmp_path / "d", "--wavelengths", 400, 10)
    fails(CUBES, *options, names="7 is missing")
    (source / "scene/band07.tif").symlink_to("nowhere.tif")
    fails(CUBES, *options, names="band07.tif: is a link to a missing file")


def test_natural_order():
    names = ["b10", "b9", "b1", "B2"]
    assert [path.stem for path in sort_band_files([Path(f"{name}.png") for name in names])] == [
        "b1",
        "B2",
        "b9",
        "b10",
    ]


def test_a_capture_without_calibration_is_named(source, imports, cube, script, tmp_path):
    for name in ("scene", "raw"):
        (source / name / "capture").mkdir(parents=True)
        write_envi(source / name / "capture", np.uint16(cube * 4000), WL)
    (source / "scene/results").mkdir()
    write_envi(source / "scene/results", cube, WL)
    for suffix in ("hdr", "raw"):
        (source / f"scene/results/scene.{suffix}").rename(source / f"scene/results/REFLECTANCE_scene.{suffix}")
    read, printed = imports()
    assert np.array_equal(read.values, cube)
    assert "skipped 1: raw (no results/REFLECTANCE_*.hdr" in printed


def test_names_of_ntire_2020(tmp_path, script, fails):
    spectral, rgb = make_scenes(tmp_path / "a", 2)
    for part in ("Train", "Valid"):
        shutil.copytree(spectral, tmp_path / f"{part}_spectral")
        (tmp_path / f"{part}_RGB").mkdir()
        for path in rgb.iterdir():
            image = cv2.imread(str(path))
            cv2.imwrite(str(tmp_path / f"{part}_RGB/{path.stem}_clean.png"), image)
            cv2.imwrite(str(tmp_path / f"{part}_RGB/{path.stem}_RealWorld.jpg"), image)
    options = ("--data_path", tmp_path)
    fails("train/valid_data_preprocess.py", *options, names="without")
    printed = script("train/valid_data_preprocess.py", *options, "--rgb_suffix", "_clean").stdout
    assert "2 of 2 scenes prepared" in printed
    printed = script("Dataset/check.py", *options, "--rgb_suffix", "_RealWorld", "--patch_size", 16, ok=None).stdout
    assert "no RGB image" not in printed
    shutil.copytree(spectral, tmp_path / "rec")
    for path in (tmp_path / "rec").iterdir():
        path.rename(path.with_name(f"{path.stem}_clean.mat"))
    scoring = ("--path_rec", tmp_path / "rec", "--path_gt", spectral)
    fails("test/compute_mrae.py", *scoring, names="no ground truth of the same name")
    assert "The average mrae is" in script("test/compute_mrae.py", *scoring, "--rec_suffix", "_clean").stdout


def test_check_finds_each_kind(tmp_path, script):
    """A file of each kind in a data folder: an error or a note names it."""
    spectral, rgb = make_scenes(tmp_path / "a", 6)
    values = read_cube(spectral / "scene000.mat")
    scipy.io.savemat(spectral / "scene001.mat", {"cube": values, "bands": WL[:-1]})
    order = np.roll(np.arange(31), 3)
    scipy.io.savemat(spectral / "scene002.mat", {"cube": values[..., order], "bands": WL[order]})
    write_cube(spectral / "scene003.mat", values * 4095, WL)
    with h5py.File(spectral / "scene004.mat", "w") as file:
        file["cube"] = h5py.ExternalLink("other.mat", "cube")
    with h5py.File(spectral / "scene005.mat", "w") as file:
        file["cube"] = values
        file["cube"].attrs["_FillValue"] = values[0, 0, 0]
    (spectral / "notes.npy").write_bytes(b"")
    for part in ("Train", "Valid"):
        shutil.copytree(spectral, tmp_path / f"{part}_spectral")
        shutil.copytree(rgb, tmp_path / f"{part}_RGB")
    done = script("Dataset/check.py", "--data_path", tmp_path, "--patch_size", 16, "--all", ok=False)
    for name, word, says in (
        ("scene001", "error", "30 wavelengths"),
        ("scene002", "note", "sorted"),
        ("scene003", "error", "--scale"),
        ("scene004", "error", "another file"),
        ("scene005", "error", "marks missing data"),
    ):
        lines = [line for line in done.stdout.splitlines() if line.startswith(f"{word}: ") and f"{name}.mat" in line]
        assert any(says in line for line in lines), (name, done.stdout)
    assert "notes.npy" in done.stdout


def test_real_scenes_as_band_files(tmp_path, script):
    """A folder of CAVE, imported as one image per band, gives what the importer of CAVE gives."""
    scene = SHARED / "data/cave/half/clay_ms/clay_ms"
    if not scene.is_dir():
        pytest.skip("../shared/data/cave, real scenes, is not there")
    shutil.copytree(scene, tmp_path / "s/clay")
    script(CUBES, "--source", tmp_path / "s", "--out", tmp_path / "d", "--scale", 65535, "--no_rgb")
    cube = read_cube(tmp_path / "d/Train_spectral/clay.mat")
    for i in (0, 30):
        png = cv2.imread(str(scene / f"clay_ms_{i + 1:02}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(np.round(cube[..., i] * 65535), png)
