"""The importers: CAVE as it is distributed, cubes in every format, RGB images for cubes that have none."""

import importlib.util

import cv2
import h5py
import numpy as np
import pytest
import scipy.io
import spectral.io.envi
import tifffile
from helpers import ROOT, SHARED

from drcr.cube import WAVELENGTHS
from drcr.formats.cubes import read_cube_file
from drcr.formats.mat import load_cube, read_cube, write_cube
from drcr.images import read_rgb
from drcr.preparation.bands import read_split, resample, shrink
from drcr.utils.files import DataError

CAVE, CUBES, RENDER = "Dataset/import_cave.py", "Dataset/import_cubes.py", "Dataset/render_rgb.py"
rng = np.random.default_rng(5)


def smooth_cube(height=40, width=44, wavelengths=WAVELENGTHS):
    """Return a cube, values in (0, 0.9], whose spectra are lines over the wavelength."""
    slope = rng.uniform(-1, 1, (height, width, 1))
    return np.float32(0.45 + 0.4 * slope * (np.asarray(wavelengths) - 550) / 200)


def write_cave_scene(folder, name, bands, rgba=False, nested=True):
    """Write a scene as CAVE is distributed; `bands` (H, W, 31) integers."""
    folder = folder / f"{name}_ms" / f"{name}_ms" if nested else folder / f"{name}_ms"
    folder.mkdir(parents=True)
    for i in range(31):
        image = bands[..., i]
        if rgba:
            image = np.dstack([image, image, image, np.full_like(image, 255)])
        cv2.imwrite(str(folder / f"{name}_ms_{i + 1:02}.png"), image)
    cv2.imwrite(str(folder / f"{name}_RGB.bmp"), np.zeros((4, 4, 3), np.uint8))
    (folder / "Thumbs.db").write_bytes(b"not an image")
    (folder / f"._{name}_ms_01.png").write_bytes(b"a Mac's shadow of a file")


@pytest.fixture
def cave(tmp_path):
    """Return a small data base in CAVE's layout, and its integers by scene."""
    scenes = {
        "balloons": rng.integers(0, 65536, (12, 16, 31), np.uint16),
        "feathers": rng.integers(0, 65536, (12, 16, 31), np.uint16),
        "watercolors": rng.integers(0, 256, (12, 16, 31), np.uint8),
    }
    for name, bands in scenes.items():
        write_cave_scene(tmp_path / "cave", name, bands, rgba=name == "watercolors", nested=name != "feathers")
    return tmp_path / "cave", scenes


def test_cave_arrives_as_its_png_values(script, cave, tmp_path):
    folder, scenes = cave
    printed = script(CAVE, "--source", folder, "--out", tmp_path / "d").stdout
    assert "3 cubes found, 3 imported" in printed
    for name, part in (("balloons", "Train"), ("feathers", "Valid"), ("watercolors", "Valid")):
        path = tmp_path / f"d/{part}_spectral/{name}.mat"
        peak = np.iinfo(scenes[name].dtype).max
        assert np.abs(read_cube(path) * peak - scenes[name]).max() < 0.01
        assert np.array_equal(load_cube(path).wavelengths, WAVELENGTHS)
        assert read_rgb(tmp_path / f"d/{part}_RGB/{name}.jpg").shape == (12, 16, 3)


def test_the_published_splits_are_cave():
    whole, table = (read_split(ROOT / f"Dataset/{name}.txt") for name in ("cave_split", "cave_split_24"))
    assert len(whole) == 32
    assert list(whole.values()).count("Valid") == 8
    assert list(table.values()).count("Train") == 18
    assert list(table.values()).count("Valid") == 6
    assert table.items() <= whole.items()


def test_cave_with_a_split_of_ones_own_and_averaged(script, cave, tmp_path):
    folder, scenes = cave
    (tmp_path / "split.txt").write_text("# mine\nvalid balloons\nTRAIN feathers\nTrain clay\n")
    options = ("--split", tmp_path / "split.txt", "--size", 8, "--preset", "clean")
    printed = script(CAVE, "--source", folder, "--out", tmp_path / "d", *options).stdout
    assert "in the split, but not found: clay" in printed
    assert "skipped, not in the split: watercolors" in printed
    cube = read_cube(tmp_path / "d/Valid_spectral/balloons.mat")
    blocks = np.float64(scenes["balloons"]).reshape(6, 2, 8, 2, 31).mean((1, 3)) / 65535
    assert np.allclose(cube, blocks, atol=1e-6)
    assert (tmp_path / "d/Train_RGB/feathers.png").is_file()


def test_real_cave_imports_without_a_hands_touch(script, tmp_path):
    source = SHARED / "data/cave"
    if not source.is_dir():
        pytest.skip("../shared/data/cave, real scenes, is not there")
    script(CAVE, "--source", source / "full", "--out", tmp_path / "full")
    script(CAVE, "--source", source / "half", "--out", tmp_path / "half")
    assert read_cube(tmp_path / "full/Train_spectral/balloons.mat").shape == (512, 512, 31)
    found = sorted(path.stem for path in (tmp_path / "half").glob("*_spectral/*.mat"))
    assert found == sorted(path.name.removesuffix("_ms") for path in (source / "half").iterdir())
    for name, part in (("clay", "Train"), ("face", "Valid")):
        cube = read_cube(tmp_path / f"half/{part}_spectral/{name}.mat")
        for i in (0, 15, 30):
            png = cv2.imread(str(source / f"half/{name}_ms/{name}_ms/{name}_ms_{i + 1:02}.png"), cv2.IMREAD_UNCHANGED)
            assert np.array_equal(np.round(cube[..., i] * 65535), png)


CAVE_FAULTS = {
    "no such folder": (lambda f: f / "x", "no such folder"),
    "no scene": (lambda f: (f / "empty").mkdir() or f / "empty", "no scene of CAVE"),
    "band missing": (lambda f: (f / "feathers_ms/feathers_ms_07.png").unlink() or f, "feathers has no band 07"),
    "truncated band": (
        lambda f: (f / "feathers_ms/feathers_ms_07.png").write_bytes(b"\x89PNG\r\n") and f,
        "feathers_ms_07.png: cannot be decoded",
    ),
    "band of another size": (
        lambda f: cv2.imwrite(str(f / "feathers_ms/feathers_ms_07.png"), np.zeros((3, 3), np.uint16)) and f,
        "feathers_ms_07.png: 3 x 3 pixels",
    ),
}


@pytest.mark.parametrize("case", CAVE_FAULTS)
def test_what_is_wrong_with_a_cave_folder(fails, cave, tmp_path, case):
    spoil, says = CAVE_FAULTS[case]
    fails(CAVE, "--source", spoil(cave[0]), "--out", tmp_path / "d", names=says)


def test_nothing_is_overwritten(script, fails, cave, tmp_path):
    script(CAVE, "--source", cave[0], "--out", tmp_path / "d")
    fails(CAVE, "--source", cave[0], "--out", tmp_path / "d", names="balloons.mat")
    folders = ("--path_gt", tmp_path / "d/Train_spectral", "--RGB_dir", tmp_path / "d/Train_RGB")
    fails(RENDER, *folders, names="balloons.jpg")


def write_envi(folder, cube, wavelengths=None, **metadata):
    spectral.io.envi.save_image(
        str(folder / "scene.hdr"),
        cube,
        dtype=cube.dtype,
        force=True,
        ext=metadata.pop("ext", ".img"),
        interleave=metadata.pop("interleave", "bsq"),
        byteorder=metadata.pop("byteorder", 0),
        metadata={} if wavelengths is None else {"wavelength": [str(nm) for nm in wavelengths], **metadata},
    )


def write_hdf5(folder, **variables):
    """Write a MATLAB v7.3 file's data sets, arrays with MATLAB's axes."""
    with h5py.File(folder / "scene.mat", "w") as file:
        for name, array in variables.items():
            file[name] = np.asarray(array).T


def in_counts(cube, peak):
    return np.round(cube * peak).astype(np.uint16)


FORMATS = {
    "mat v7.3": lambda f, c: write_cube(f / "scene.mat", c, WAVELENGTHS),
    "mat v5, variable ref": lambda f, c: scipy.io.savemat(f / "scene.mat", {"ref": c, "bands": WAVELENGTHS}),
    "mat v7, any variable": lambda f, c: scipy.io.savemat(
        f / "scene.mat", {"dog": c, "wavelengths": WAVELENGTHS}, do_compression=True
    ),
    "mat, bands first": lambda f, c: scipy.io.savemat(
        f / "scene.mat", {"cube": c.transpose(2, 0, 1), "bands": WAVELENGTHS}
    ),
    "npy": lambda f, c: np.save(f / "scene.npy", c),
    "npy, bands first": lambda f, c: np.save(f / "scene.npy", c.transpose(2, 0, 1)),
    "npz with micrometres": lambda f, c: np.savez(f / "scene.npz", mine=c, wavelengths=WAVELENGTHS / 1000),
    "envi bsq": lambda f, c: write_envi(f, c, WAVELENGTHS),
    "envi bil, big endian": lambda f, c: write_envi(f, c, WAVELENGTHS, interleave="bil", byteorder=1, ext=".raw"),
    "envi bip, micrometres": lambda f, c: write_envi(f, c, WAVELENGTHS / 1000, interleave="bip"),
    "tiff pages": lambda f, c: tifffile.imwrite(f / "scene.tif", c.transpose(2, 0, 1), photometric="minisblack"),
    "tiff, falling wavelengths": lambda f, c: tifffile.imwrite(
        f / "scene.tif", c[..., ::-1].transpose(2, 0, 1), photometric="minisblack"
    ),
}


@pytest.mark.parametrize("case", FORMATS)
def test_every_format_gives_the_same_cube(script, tmp_path, case):
    cube = smooth_cube()
    (tmp_path / "s").mkdir()
    FORMATS[case](tmp_path / "s", cube)
    options = {"mat v7, any variable": ("--variable", "dog")}.get(case, ())
    if "falling" in case:
        options = ("--wavelengths", tmp_path / "falling.txt")
        np.savetxt(tmp_path / "falling.txt", WAVELENGTHS[::-1])
    script(CUBES, "--source", tmp_path / "s", "--out", tmp_path / "d", *options)
    path = tmp_path / "d/Train_spectral/scene.mat"
    assert np.array_equal(read_cube(path), cube)
    assert np.array_equal(load_cube(path).wavelengths, WAVELENGTHS)
    assert read_rgb(tmp_path / "d/Train_RGB/scene.jpg").shape == (40, 44, 3)


def test_icvl(script, tmp_path):
    """`rad` of MATLAB's axes 1300 x 1392 x 31 in v7.3, counts of 12 bits, lying on its side."""
    (tmp_path / "s").mkdir()
    upright = smooth_cube(24, 20)
    counts = in_counts(np.rot90(upright, -1), 4095)
    write_hdf5(tmp_path / "s", rad=counts, bands=WAVELENGTHS[None], rgb=np.zeros((20, 24, 3)))
    script(CUBES, "--source", tmp_path / "s", "--out", tmp_path / "d", "--dataset", "icvl")
    assert np.allclose(read_cube(tmp_path / "d/Train_spectral/scene.mat"), upright, atol=0.5 / 4095)


def test_icvl_at_full_resolution(script, tmp_path):
    """ENVI, BIL, uint16, 519 bands of 400-1000 nm; spectra that are lines arrive as the same lines at 31 bands."""
    (tmp_path / "s").mkdir()
    fine = np.linspace(395, 1005, 519)
    slope = rng.uniform(-1, 1, (20, 24, 1))
    upright = np.rot90(0.45 + 0.2 * slope * (WAVELENGTHS - 550) / 200, 1)
    write_envi(
        tmp_path / "s", in_counts(0.45 + 0.2 * slope * (fine - 550) / 200, 4095), fine, interleave="bil", ext=".raw"
    )
    script(CUBES, "--source", tmp_path / "s", "--out", tmp_path / "d", "--dataset", "icvl")
    cube = read_cube(tmp_path / "d/Train_spectral/scene.mat")
    assert np.allclose(cube, upright, atol=2 / 4095)


def test_harvard(script, tmp_path):
    """`ref` in v5, 420-720 nm, to be divided by the camera's sensitivity; 400 and 410 nm were not measured."""
    (tmp_path / "s").mkdir()
    wavelengths, calib = np.arange(420, 721, 10.0), np.linspace(0.1, 0.8, 31)
    cube = smooth_cube(wavelengths=wavelengths)
    scipy.io.savemat(tmp_path / "s/scene.mat", {"ref": 0.02 * cube * calib, "lbl": np.ones((40, 44))})
    np.savetxt(tmp_path / "s/calib.txt", calib)
    printed = script(CUBES, "--source", tmp_path / "s", "--out", tmp_path / "d", "--dataset", "harvard").stdout
    assert "not measured, the nearest band repeated: 400, 410 nm" in printed
    path = tmp_path / "d/Train_spectral/scene.mat"
    expected = np.concatenate([cube[..., [0, 0]], cube[..., :29]], axis=2)
    assert np.allclose(read_cube(path), expected / expected.max(), atol=1e-6)
    assert np.isclose(read_cube(path).max(), 1)


def test_ntire_2018(script, tmp_path):
    """`rad` in v7.3, counts of 12 bits, upright."""
    (tmp_path / "s").mkdir()
    cube = smooth_cube()
    write_hdf5(tmp_path / "s", rad=in_counts(cube, 4095), bands=WAVELENGTHS[None])
    script(CUBES, "--source", tmp_path / "s", "--out", tmp_path / "d", "--dataset", "ntire2018")
    assert np.allclose(read_cube(tmp_path / "d/Train_spectral/scene.mat"), cube, atol=0.5 / 4095)


@pytest.mark.parametrize("dataset", ["ntire2020", "ntire2022"])
def test_ntire_2020_and_2022(script, tmp_path, dataset):
    """`cube` with `bands` and `norm_factor`: v5 in 2020, v7.3 in 2022."""
    (tmp_path / "s").mkdir()
    variables = {"cube": np.float64(smooth_cube()), "bands": WAVELENGTHS[None], "norm_factor": 3000.0}
    if dataset == "ntire2020":
        scipy.io.savemat(tmp_path / "s/scene.mat", variables)
    else:
        write_hdf5(tmp_path / "s", **variables)
    script(CUBES, "--source", tmp_path / "s", "--out", tmp_path / "d", "--dataset", dataset)
    assert np.array_equal(read_cube(tmp_path / "d/Train_spectral/scene.mat"), np.float32(variables["cube"]))


def test_resampling():
    cube, target = smooth_cube(), WAVELENGTHS
    assert np.array_equal(resample(cube, target, target), cube)
    # lines stay lines, from coarse bands and from fine ones
    for wavelengths in (np.arange(390, 731, 17.0), np.arange(380, 741, 2.0)):
        lines = 0.5 + 0.001 * (wavelengths - 550) * np.ones((2, 3, 1))
        assert np.allclose(resample(lines, wavelengths, target), 0.5 + 0.001 * (target - 550), atol=1e-6)
    # fine bands are averaged: noise of 500 goes down with the square root of 5
    noise = rng.standard_normal((20, 20, 181))
    assert resample(noise, np.arange(380, 741, 2.0), target).std() < 0.5
    # outside what was measured, the nearest band
    assert np.array_equal(resample(cube, target + 20, target)[..., :3], cube[..., [0, 0, 0]])


def test_shrink():
    cube = smooth_cube(7, 9)
    assert np.allclose(shrink(cube, 3)[1, 2], cube[3:6, 6:9].mean((0, 1)))
    assert shrink(cube, 5).shape == (3, 4, 31)
    assert shrink(cube, 9) is cube


def test_split_keep_and_no_rgb(script, tmp_path):
    for name in "abc":
        (tmp_path / "s").mkdir(exist_ok=True)
        np.save(tmp_path / f"s/{name}.npy", smooth_cube())
    (tmp_path / "split.txt").write_text("Train a\nValid c\n")
    options = ("--source", tmp_path / "s", "--out", tmp_path / "d")
    printed = script(CUBES, *options, "--split", tmp_path / "split.txt", "--no_rgb").stdout
    assert "skipped, not in the split: b" in printed
    assert sorted(str(p.relative_to(tmp_path / "d")) for p in (tmp_path / "d").rglob("*.*")) == [
        "Train_spectral/a.mat",
        "Valid_spectral/c.mat",
    ]
    before = (tmp_path / "d/Train_spectral/a.mat").stat().st_mtime_ns
    script(CUBES, *options, "--keep", "--no_rgb")
    assert sorted(path.name for path in (tmp_path / "d/Train_spectral").iterdir()) == ["a.mat", "b.mat", "c.mat"]
    assert (tmp_path / "d/Train_spectral/a.mat").stat().st_mtime_ns == before


def spoil_npz(f):
    np.savez(f / "scene.npz", a=smooth_cube(), b=smooth_cube())


def spoil_envi(f):
    write_envi(f, smooth_cube(), WAVELENGTHS)
    (f / "scene.img").write_bytes((f / "scene.img").read_bytes()[:-100])


def spoil_envi_header(f):
    write_envi(f, smooth_cube(), WAVELENGTHS)
    (f / "scene.hdr").write_text((f / "scene.hdr").read_text().replace("bsq", "bsx"))


def spoil_tiff(f):
    with tifffile.TiffWriter(f / "scene.tif") as file:
        file.write(np.zeros((5, 6), np.float32))
        file.write(np.zeros((5, 7), np.float32))


def spoil_nan(f):
    cube = smooth_cube()
    cube[3, 4, 5] = np.nan
    np.save(f / "scene.npy", cube)


CUBE_FAULTS = {
    "nothing there": (lambda f: None, (), "no cubes in this folder"),
    "two arrays": (spoil_npz, (), "no array named"),
    "pickled": (lambda f: np.save(f / "scene.npy", np.array([{}])), (), "scene.npy: truncated"),
    "flat": (lambda f: np.save(f / "scene.npy", np.ones((5, 31))), (), "three dimensions"),
    "nan": (spoil_nan, (), "1 NaN"),
    "counts": (lambda f: np.save(f / "scene.npy", in_counts(smooth_cube(), 4095)), (), "give --scale"),
    "no wavelengths": (lambda f: np.save(f / "scene.npy", np.ones((5, 6, 28))), (), "give --wavelengths"),
    "other wavelengths": (
        lambda f: np.savez(f / "scene.npz", cube=np.ones((5, 6, 28)), bands=np.arange(400, 651, 10)),
        (),
        "give --wavelengths",
    ),
    "too narrow": (
        lambda f: np.savez(f / "scene.npz", cube=np.ones((5, 6, 28)), bands=np.linspace(450, 650, 28)),
        (),
        "--bands keep",
    ),
    "truncated envi": (spoil_envi, (), "scene.img is truncated"),
    "strange envi": (spoil_envi_header, (), "interleave is 'bsx'"),
    "envi without data": (
        lambda f: (write_envi(f, smooth_cube()), (f / "scene.img").unlink()),
        (),
        "no data file beside it",
    ),
    "pages differ": (spoil_tiff, (), "differ in size"),
    "no tiff": (lambda f: (f / "scene.tif").write_bytes(b"II*\0abcd"), (), "scene.tif: truncated"),
    "wrong wavelengths": (
        lambda f: np.save(f / "scene.npy", smooth_cube()),
        ("--wavelengths", "bananas.txt"),
        "bananas.txt",
    ),
}


@pytest.mark.parametrize("case", CUBE_FAULTS)
def test_what_is_wrong_with_a_cube(fails, tmp_path, case):
    spoil, options, says = CUBE_FAULTS[case]
    (tmp_path / "s").mkdir()
    spoil(tmp_path / "s")
    fails(CUBES, "--source", tmp_path / "s", "--out", tmp_path / "d", *options, names=says)
    assert not [path for path in (tmp_path / "d").rglob("*") if path.is_file()]


def test_images_depend_on_seed_and_name_alone(script, tmp_path):
    for folder, name in (("s1", "a"), ("s1", "b"), ("s2", "b")):
        (tmp_path / folder).mkdir(exist_ok=True)
        write_cube(tmp_path / folder / f"{name}.mat", np.full((16, 16, 31), 0.4))

    def image(source, out, name, *options):
        noisy = ("--electrons", 100, *options)
        script(RENDER, "--path_gt", tmp_path / source, "--RGB_dir", tmp_path / out, *noisy)
        return (tmp_path / out / name).read_bytes()

    first = image("s1", "r1", "b.jpg")
    assert image("s2", "r2", "b.jpg") == first
    assert image("s2", "r3", "b.jpg", "--seed", 1) != first
    assert (tmp_path / "r1/a.jpg").read_bytes() != first


def test_clean_images_have_no_noise_and_nothing_clipped(script, tmp_path):
    (tmp_path / "s").mkdir()
    write_cube(tmp_path / "s/a.mat", np.linspace(0.1, 0.5, 40)[None, :, None] * np.ones((12, 1, 31)))
    script(RENDER, "--path_gt", tmp_path / "s", "--RGB_dir", tmp_path / "r", "--preset", "clean")
    image = read_rgb(tmp_path / "r/a.png")
    assert image.max() == 255
    assert np.array_equal(image, image[:1].repeat(12, 0))  # no noise
    assert np.abs(np.diff(np.int32(image[0]), axis=0) - 255 * 0.4 / 0.5 / 39).max() < 1  # straight to the top


def test_the_challenges_camera(script, tmp_path):
    curves = SHARED / "data/ntire2022/RGB_Camera_QE.csv"
    if not curves.is_file():
        pytest.skip("../shared/data/ntire2022, the challenge's camera, is not there")
    (tmp_path / "s").mkdir()
    write_cube(tmp_path / "s/a.mat", smooth_cube())
    options = ("--camera", curves, "--gains", 2.2933984, 1, 1.62308182)
    script(RENDER, "--path_gt", tmp_path / "s", "--RGB_dir", tmp_path / "r", *options)
    assert abs(read_rgb(tmp_path / "r/a.jpg").mean() / 255 - 0.18) < 0.03


@pytest.mark.parametrize("bands", [28, 10])
def test_other_bands_go_through_all_five_commands(script, tmp_path, bands):
    """28 bands of 450-650 nm and 10 of 420-690 nm: imported, prepared, trained, reconstructed, scored."""
    wavelengths = np.linspace(450, 650, 28) if bands == 28 else np.linspace(420, 690, 10)
    (tmp_path / "s").mkdir()
    for name in ("a", "b", "c"):
        np.savez(tmp_path / f"s/{name}.npz", cube=smooth_cube(24, 24, wavelengths), wavelengths=wavelengths)
    (tmp_path / "split.txt").write_text("Train a\nTrain b\nValid c\n")
    options = ("--bands", "keep", "--split", tmp_path / "split.txt")
    script(CUBES, "--source", tmp_path / "s", "--out", tmp_path / "d", *options)
    script("train/train_data_preprocess.py", "--data_path", tmp_path / "d", "--patch_size", 16)
    script("train/valid_data_preprocess.py", "--data_path", tmp_path / "d")
    printed = script("train/main.py", "--channels", 8, "--n_blocks", 1, "--batchSize", 2, "--end_epoch", 1).stdout
    assert f"{bands} bands" in printed
    script("test/test.py", "--RGB_dir", tmp_path / "d/Valid_RGB", "--model_dir", "RealWorldResults/last.pth")
    path = tmp_path / "test_results/c.mat"
    assert read_cube(path).shape == (24, 24, bands)
    assert np.allclose(load_cube(path).wavelengths, wavelengths)
    printed = script("test/compute_mrae.py", "--path_gt", tmp_path / "d/Valid_spectral").stdout
    assert "The average mrae is" in printed


def test_training_on_real_cave_never_gives_nan_and_says_what_it_did(script, fails, tmp_path):
    source = SHARED / "data/cave/half"
    if not source.is_dir():
        pytest.skip("../shared/data/cave, real scenes, is not there")
    script(CAVE, "--source", source, "--out", tmp_path / "d")
    size = ("--patch_size", 32, "--stride", 64)
    # the released rule leaves nothing, and says what to do
    fails("train/train_data_preprocess.py", "--data_path", tmp_path / "d", *size, names="--non_positive floor VALUE")
    floor = ("--data_path", tmp_path / "d", "--non_positive", "floor", 0.001)
    assert "in 17 of 17 scenes" in script("train/train_data_preprocess.py", *floor, *size).stdout
    script("train/valid_data_preprocess.py", *floor)
    options = ("--channels", 8, "--n_blocks", 0, "--batchSize", 8, "--end_epoch", 2)
    printed = script("train/main.py", *options).stdout
    assert "training data, dark values: " in printed
    assert "validation data, dark values: " in printed
    rows = (tmp_path / "RealWorldResults/loss.csv").read_text().splitlines()[1:]
    losses = [float(value) for row in rows for value in row.split(",")[4:]]
    assert len(losses) == 4
    assert np.isfinite(losses).all()


# what a review had found


@pytest.mark.parametrize("interleave", ["bip", "bil", "bsq"])
def test_float32_files_keep_their_bands(script, tmp_path, interleave):
    """They are mapped read-only, and nothing is left to convert."""
    cube = smooth_cube()
    (tmp_path / "s").mkdir()
    np.save(tmp_path / "s/a.npy", cube)
    write_envi(tmp_path / "s", cube, WAVELENGTHS, interleave=interleave)
    script(CUBES, "--source", tmp_path / "s", "--out", tmp_path / "d", "--bands", "keep")
    for name in ("a", "scene"):
        assert np.array_equal(read_cube(tmp_path / f"d/Train_spectral/{name}.mat"), cube)


def test_start_and_step_do_not_say_which_axis_the_bands_are(script, fails, tmp_path):
    cube = smooth_cube(40, 44)
    writers = {
        "npy": lambda path: np.save(path, cube.transpose(2, 0, 1)),
        "tif": lambda path: tifffile.imwrite(path, cube, photometric="minisblack"),  # 40 pages of 44 x 31
        "mat": lambda path: scipy.io.savemat(path, {"cube": cube.transpose(0, 2, 1)}),
    }
    for (kind, write), axis in zip(writers.items(), ("first", "last", "middle"), strict=True):
        (tmp_path / kind).mkdir()
        write(tmp_path / kind / f"scene.{kind}")
        options = ("--source", tmp_path / kind, "--out", tmp_path / f"d{kind}", "--wavelengths", 400, 10)
        fails(CUBES, *options, names="--band_axis")
        script(CUBES, *options, "--band_axis", axis)
        assert np.array_equal(read_cube(tmp_path / f"d{kind}/Train_spectral/scene.mat"), cube)


def test_band_axis_is_the_users_word(script, tmp_path):
    cube = smooth_cube(20, 24)  # 20 rows are fewer than 31 bands
    (tmp_path / "s").mkdir()
    np.save(tmp_path / "s/a.npy", cube)
    options = ("--source", tmp_path / "s", "--out", tmp_path / "d", "--wavelengths", 400, 10)
    script(CUBES, *options, "--band_axis", "last")
    assert np.array_equal(read_cube(tmp_path / "d/Train_spectral/a.mat"), cube)


def test_a_count_of_bands_is_no_wavelength(script, tmp_path):
    (tmp_path / "s").mkdir()
    wavelengths = 420 + 10.0 * np.arange(31)
    scipy.io.savemat(tmp_path / "s/a.mat", {"cube": smooth_cube(), "bands": 31, "wavelengths": wavelengths})
    script(CUBES, "--source", tmp_path / "s", "--out", tmp_path / "d", "--bands", "keep")
    assert np.array_equal(load_cube(tmp_path / "d/Train_spectral/a.mat").wavelengths, wavelengths)


def test_wavelengths_that_are_assumed_are_said(script, tmp_path):
    (tmp_path / "s").mkdir()
    np.save(tmp_path / "s/a.npy", smooth_cube(40, 44))
    printed = script(CUBES, "--source", tmp_path / "s", "--out", tmp_path / "d").stdout
    assert "1 cube without wavelengths" in printed


def test_strange_envi_wavelengths_are_an_error_unless_others_are_given(script, fails, tmp_path):
    (tmp_path / "s").mkdir()
    write_envi(tmp_path / "s", smooth_cube(), ["400", "x", *range(420, 701, 10)])
    options = ("--source", tmp_path / "s", "--out", tmp_path / "d")
    fails(CUBES, *options, names="wavelength is not a list of numbers")
    script(CUBES, *options, "--wavelengths", 400, 10)


@pytest.mark.parametrize("start", [396.0, 400.0])
@pytest.mark.parametrize("step", [1.0, 2.1, 2.9, 4.8, 5.0, 7.3])
def test_resampling_keeps_every_wavelength_in_its_place(start, step):
    """A ramp whose value is the wavelength gives the target's wavelengths, ends and a gap far outside included."""
    wavelengths = np.append(np.arange(start, 704, step), 900)
    ramp = wavelengths * np.ones((2, 2, 1))
    assert np.abs(resample(ramp, wavelengths, WAVELENGTHS) - WAVELENGTHS).max() < 1e-3


def test_keep_never_overwrites(script, tmp_path):
    (tmp_path / "s").mkdir()
    for name in "abc":
        np.save(tmp_path / f"s/{name}.npy", smooth_cube(40, 44))
    (tmp_path / "d/Train_spectral").mkdir(parents=True)
    (tmp_path / "d/Train_RGB").mkdir()
    (tmp_path / "d/Train_spectral/a.mat").write_text("precious")
    (tmp_path / "d/Train_RGB/b.png").write_text("precious")
    script(CUBES, "--source", tmp_path / "s", "--out", tmp_path / "d", "--keep")
    assert (tmp_path / "d/Train_spectral/a.mat").read_text() == "precious"
    assert (tmp_path / "d/Train_RGB/b.png").read_text() == "precious"
    assert sorted(path.name for path in (tmp_path / "d/Train_RGB").iterdir()) == ["a.jpg", "b.png", "c.jpg"]
    assert sorted(path.name for path in (tmp_path / "d/Train_spectral").iterdir()) == ["a.mat", "b.mat", "c.mat"]


@pytest.mark.parametrize("kind", ["npz", "npy", "tif", "hdr", "mat", "v5.mat"])
def test_damaged_files_end_in_one_line(tmp_path, kind):
    """Cut off anywhere, or with bytes changed, a file raises DataError or reads; nothing else."""
    cube = smooth_cube(12, 12)
    path = tmp_path / f"scene.{kind}"
    {
        "npz": lambda: np.savez_compressed(path, cube=cube, wavelengths=WAVELENGTHS),
        "npy": lambda: np.save(path, cube),
        "tif": lambda: tifffile.imwrite(path, cube.transpose(2, 0, 1), photometric="minisblack", compression="zlib"),
        "hdr": lambda: write_envi(tmp_path, cube, WAVELENGTHS),
        "mat": lambda: write_cube(path, cube, WAVELENGTHS),
        "v5.mat": lambda: scipy.io.savemat(path, {"cube": cube, "bands": WAVELENGTHS}, do_compression=True),
    }[kind]()
    whole, random, refused = path.read_bytes(), np.random.default_rng(0), 0
    for i in range(60):
        data = bytearray(whole[: random.integers(len(whole))] if i % 2 else whole)
        for _ in range(random.integers(1, 6) if data else 0):
            data[random.integers(min(len(data), 2000))] = random.integers(256)
        path.write_bytes(data)
        try:
            read_cube_file(path)
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017 - some damage does no harm
            refused += 1
    assert refused > 15


def test_an_unknown_compression_is_named(tmp_path, fails):
    pytest.importorskip("PIL")
    from PIL import Image

    (tmp_path / "s").mkdir()
    pages = [Image.fromarray(page) for page in in_counts(smooth_cube(), 255).astype(np.uint8).transpose(2, 0, 1)]
    pages[0].save(tmp_path / "s/a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    if importlib.util.find_spec("imagecodecs"):
        pytest.skip("imagecodecs is installed, which reads this file")
    fails(CUBES, "--source", tmp_path / "s", "--out", tmp_path / "d", names="its compression can't be read")


def test_narrow_images_shrink_too():
    assert shrink(smooth_cube(4, 40), 5).shape == (1, 5, 31)
    assert shrink(smooth_cube(4, 40), 1).shape == (1, 1, 31)


def test_counts_make_no_images(tmp_path, fails):
    (tmp_path / "s").mkdir()
    write_cube(tmp_path / "s/a.mat", smooth_cube() * 4095)
    fails(RENDER, "--path_gt", tmp_path / "s", "--RGB_dir", tmp_path / "r", names="--scale divides them")
