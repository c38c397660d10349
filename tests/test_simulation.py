import importlib.util

import h5py
import numpy as np
import pytest
from helpers import DATA

from drcr.cube import WAVELENGTHS
from drcr.formats.mat import read_cube
from drcr.images import read_image, read_rgb
from drcr.light import lamp
from drcr.preparation.simulation import SceneModel, read_library, reflectances
from drcr.utils.files import DataError

SMALL = ("--n_train", 2, "--n_valid", 1, "--size", 48, 40, "--radii", 3, 20)


def test_same_folders_names_and_formats_as_arad_1k(script, tmp_path):
    script("Dataset/simulate.py", "--out", tmp_path / "d", *SMALL)
    names = {str(path.relative_to(tmp_path / "d")) for path in (tmp_path / "d").rglob("*.*")}
    assert names == {
        "Train_spectral/ARAD_1K_0001.mat",
        "Train_spectral/ARAD_1K_0002.mat",
        "Train_RGB/ARAD_1K_0001.jpg",
        "Train_RGB/ARAD_1K_0002.jpg",
        "Valid_spectral/ARAD_1K_0901.mat",
        "Valid_RGB/ARAD_1K_0901.jpg",
    }
    with (
        h5py.File(tmp_path / "d/Train_spectral/ARAD_1K_0001.mat") as ours,
        h5py.File(DATA / "Dataset/Train_spectral/ARAD_1K_0001.mat") as theirs,
    ):
        assert set(ours) == set(theirs) == {"bands", "cube", "norm_factor"}
        for name in ours:
            assert ours[name].dtype == theirs[name].dtype
            assert ours[name].attrs["MATLAB_class"] == theirs[name].attrs["MATLAB_class"]
        assert ours["bands"].shape == theirs["bands"].shape
        assert ours["cube"].shape == (31, 40, 48)
    for path in (tmp_path / "d").rglob("*.mat"):
        cube = read_cube(path)
        assert cube.min() > 0
        assert cube.max() == 1
        image = read_rgb(str(path).replace("spectral", "RGB").replace(".mat", ".jpg"))
        assert image.shape == (48, 40, 3)
        assert image.mean() / 255 == pytest.approx(0.18, abs=0.02)
        # the image belongs to the cube: its luminance follows the cube's
        assert np.corrcoef(image.mean(2).ravel(), cube.mean(2).ravel())[0, 1] > 0.8


def test_repeatable_by_seed(script, tmp_path):
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        script("Dataset/simulate.py", "--out", tmp_path / out, *SMALL, "--seed", seed)
    for name in ("Train_spectral/ARAD_1K_0002.mat", "Valid_RGB/ARAD_1K_0901.jpg"):
        # the .mat header holds the time
        a, b, c = ((tmp_path / out / name).read_bytes()[512:] for out in "abc")
        assert a == b != c


def test_options_change_what_they_say(script, tmp_path):
    script("Dataset/simulate.py", "--out", tmp_path / "a", *SMALL)
    for out, *option in (
        ("camera", "--camera", "Sigma SDMerill (NPL)"),
        ("gains", "--gains", 2, 1, 1),
        ("electrons", "--electrons", 50),
        ("mean", "--mean", 0.3),
        ("quality", "--quality", 30),
    ):
        script("Dataset/simulate.py", "--out", tmp_path / out, *SMALL, *option)
        cubes = [read_cube(tmp_path / name / "Train_spectral/ARAD_1K_0001.mat") for name in ("a", out)]
        assert np.array_equal(*cubes)
        assert (tmp_path / out / "Train_RGB/ARAD_1K_0001.jpg").read_bytes() != (
            tmp_path / "a/Train_RGB/ARAD_1K_0001.jpg"
        ).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"texture": 0},
        {"shading": 0},
        {"exponent": 2},
        {"radii": (6, 30)},
        {"illuminants": ("FL2",)},
        {"blur": 2},
        {"flare": 0.1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_scene_options_change_the_scene(change):
    base = SceneModel(size=(32, 32), radii=(3, 20))
    one, other = (SceneModel(**{**base.__dict__, **c}).render(np.random.default_rng(0)) for c in ({}, change))
    assert not np.allclose(one, other, atol=1e-3)


def test_power_spectrum_of_natural_images():
    """Power falls as 1/f^1.8 to 1/f^2.4 (Field 1987), with the default parameters."""
    slopes = []
    for seed in range(3):
        image = SceneModel().render(np.random.default_rng(seed)).mean(2)[:480, :480]
        window = np.hanning(480)
        power = np.abs(np.fft.fft2((image - image.mean()) * window * window[:, None])) ** 2
        radius = np.hypot(np.fft.fftfreq(480)[:, None], np.fft.fftfreq(480)[None]) * 480
        frequencies = np.arange(3, 100)
        mean = [power[(radius >= f) & (radius < f + 1)].mean() for f in frequencies]
        slopes.append(np.polyfit(np.log(frequencies), np.log(mean), 1)[0])
    assert -2.4 < np.mean(slopes) < -1.8, slopes


def test_measured_data():
    samples = reflectances()
    assert samples.shape == (123, 31)
    assert samples.min() > 0
    assert samples.max() < 1
    a, d65 = lamp("A"), lamp("D65")
    assert a.mean() == pytest.approx(1)
    assert a[-1] / a[0] == pytest.approx(13.5, rel=0.01)  # CIE 15: 198.26 at 700 nm, 14.71 at 400 nm
    assert d65[-1] / d65[0] == pytest.approx(71.6091 / 82.7549, rel=1e-4)
    assert len(WAVELENGTHS) == len(a)
    with pytest.raises(DataError, match="D65"):
        lamp("candle")


def library_file(path, count=60, low=400):
    """Write `count` reflectances that are flat, each its own height."""
    lines = [f"{nm}," + ",".join(f"{0.1 + 0.8 * i / count:.4f}" for i in range(count)) for nm in range(low, 701, 20)]
    path.write_text("nm," + ",".join(f"s{i}" for i in range(count)) + "\n" + "\n".join(lines) + "\n")
    return path


def test_reflectances_of_a_file(script, fails, tmp_path):
    """Flat reflectances under even light give flat spectra."""
    path = library_file(tmp_path / "flat.csv")
    even = ("--illuminants", "E", "--out", tmp_path / "d")
    script("Dataset/simulate.py", *SMALL, *even, "--reflectances", path)
    cube = read_cube(tmp_path / "d/Train_spectral/ARAD_1K_0001.mat")
    assert np.ptp(cube / cube.mean(2, keepdims=True), axis=2).max() < 1e-3
    fails("Dataset/simulate.py", "--reflectances", tmp_path / "none.csv", names="none.csv: no such file")
    fails(
        "Dataset/simulate.py",
        "--reflectances",
        library_file(tmp_path / "short.csv", low=500),
        names="short.csv: needs",
    )
    (tmp_path / "text.csv").write_text("nm,a\nx,y\n")
    fails("Dataset/simulate.py", "--reflectances", tmp_path / "text.csv", names="text.csv: not a table")


def test_parts_draw_from_different_blocks(tmp_path):
    library = read_library([str(library_file(tmp_path / "flat.csv", 1000))])
    drawn = {part: library.draw(np.random.default_rng(0), 3000, part)[:, 0].round(6) for part in ("Train", "Valid")}
    assert not set(drawn["Train"]) & set(drawn["Valid"])
    assert len(set(drawn["Train"])) > 700
    assert len(set(drawn["Valid"])) > 180


def test_reflectances_of_luxpy():
    if importlib.util.find_spec("luxpy") is None:
        pytest.skip("needs luxpy: pip install luxpy")
    drawn = read_library(["luxpy"]).draw(np.random.default_rng(0), 2000, "Train")
    assert drawn.shape == (2000, 31)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert len(np.unique(drawn, axis=0)) > 1500


def test_a_photograph_is_balanced_to_the_simulated_light(script, tmp_path):
    """Flat reflectances under incandescent light: the photograph, which knows the light, is grey."""
    options = ("--reflectances", library_file(tmp_path / "flat.csv"), "--illuminants", "A", "--preset", "photograph")
    script("Dataset/simulate.py", *SMALL, "--out", tmp_path / "d", *options)
    image = read_image(tmp_path / "d/Train_RGB/ARAD_1K_0001.jpg")
    means = image.values[image.values.max(2) < 0.95].mean(0)
    assert np.abs(np.log(means / means[1])).max() < 0.15  # the balance has an error of 4%


def test_nothing_is_overwritten(script, tmp_path):
    script("Dataset/simulate.py", "--out", tmp_path / "d", *SMALL)
    error = script("Dataset/simulate.py", "--out", tmp_path / "d", *SMALL, ok=False).stderr
    assert "ARAD_1K_0001.mat: is there already" in error
