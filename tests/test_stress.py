"""The stress test: conditions, scores, intervals, and the command."""

import csv
import dataclasses
import math
import shutil

import numpy as np
import pytest
from helpers import DATA
from scipy.stats import spearmanr

from drcr.camera import Camera, Imaging
from drcr.checkpoint import load_model
from drcr.confidence.model import Confidence, fingerprint
from drcr.cube import WAVELENGTHS
from drcr.figures.colour import cielab
from drcr.figures.layout import is_figure
from drcr.formats.mat import read_cube, write_cube
from drcr.images import normalise_rgb
from drcr.inference import reconstruct
from drcr.metrics import sam_map
from drcr.preparation.photograph import Photograph
from drcr.preparation.render import scene_rng
from drcr.preparation.simulation import SceneModel
from drcr.stress.conditions import (
    ENCODINGS,
    REFERENCES,
    Setting,
    camera_views,
    curves_of_image,
    levels,
    lit,
    lit_levels,
    resize,
    scene_as_seen,
    take,
)
from drcr.stress.figures import plot_overview
from drcr.stress.study import (
    Row,
    Summary,
    back_projection_mrae,
    summarise,
)

STRESS = "test/stress_test.py"


@pytest.fixture(scope="module")
def cube():
    """Return a simulated cube of reflectances, float32."""
    return SceneModel(size=(40, 48), radii=(2, 24), illuminants=("E",)).render(np.random.default_rng(3))


@pytest.fixture(scope="module")
def views():
    return camera_views(Camera(), {})


# ---- conditions


@pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES)
def test_every_level_differs_from_the_reference_in_one_thing(views, reference):
    planned = [*levels(list(views), reference), *lit_levels(reference)]
    for level in planned:
        ours, theirs = (
            {**dataclasses.asdict(x), **dataclasses.asdict(x.imaging)} for x in (level.setting, reference)
        )
        assert sum(ours[name] != theirs[name] for name in ours if name != "imaging") <= 1
        assert level.seeds == (3 if level.condition in ("reference", "photo-electrons") else 1)
    assert len({(level.condition, level.name) for level in planned}) == len(planned)


def test_the_reference_is_the_image_that_render_rgb_makes(cube, views):
    camera = Camera()
    image = take(cube, WAVELENGTHS, Setting(Imaging(quality=0)), views, 2, "a")
    expected = Imaging(quality=0).develop(camera(cube), scene_rng(2, "a"), camera.white())
    np.testing.assert_array_equal(image, np.float32(expected / 255))


def test_the_noise_is_the_same_at_every_exposure_and_quality(cube, views):
    """A pixel that the noise makes brighter is brighter at each level; another seed or scene has other noise."""
    plain = take(cube, WAVELENGTHS, Setting(Imaging(electrons=0, quality=0)), views, 0, "a")

    def noise(seed, name, **changes):
        image = take(cube, WAVELENGTHS, Setting(Imaging(200, **{"quality": 0, **changes})), views, seed, name)
        return (image / image.mean() - plain / plain.mean()).ravel()

    own = noise(0, "a")
    assert np.corrcoef(own, noise(0, "a", mean=0.12))[0, 1] > 0.99
    assert np.corrcoef(own, noise(0, "a", quality=95))[0, 1] > 0.3  # chroma is halved
    assert abs(np.corrcoef(own, noise(1, "a"))[0, 1]) < 0.1
    assert abs(np.corrcoef(own, noise(0, "b"))[0, 1]) < 0.1


def test_cameras_of_the_condition(views):
    assert {"training", "curves +5 nm", "curves -10 nm", "R +10%", "B +10%"} < views.keys()
    curves = {name: view.curves(WAVELENGTHS) for name, view in views.items()}
    middle = {name: (WAVELENGTHS @ curve / curve.sum(0))[1] for name, curve in curves.items()}
    assert middle["curves +5 nm"] - middle["training"] == pytest.approx(5, abs=0.5)
    assert middle["curves -10 nm"] - middle["training"] == pytest.approx(-10, abs=0.5)
    np.testing.assert_allclose(curves["R +10%"], curves["training"] * (1.1, 1, 1))
    np.testing.assert_allclose(curves["B +10%"], curves["training"] * (1, 1, 1.1))


def test_radiance_under_a_lamp_stays_in_range(cube):
    for same in lit(cube, cube, WAVELENGTHS, "E"):
        np.testing.assert_array_equal(same, cube)
    under_a, ours = lit(cube, cube, WAVELENGTHS, "A")
    np.testing.assert_array_equal(under_a, ours)
    assert under_a.max() <= 1
    ratio = (under_a / cube)[0, 0]
    assert (np.diff(ratio) > 0).all()  # an incandescent lamp is red
    np.testing.assert_allclose(under_a / cube, np.broadcast_to(ratio, cube.shape), rtol=1e-4)


@pytest.mark.parametrize("encoding", ["linear", "sRGB, decoded"])
def test_the_camera_balances_the_image_to_the_lamp(views, encoding):
    """A grey scene is grey under every lamp, but for the error of the balance."""
    grey = np.full((12, 14, 31), 0.4, np.float32)
    for light in ("E", "A", "F11"):
        setting = Setting(Imaging(0, quality=0), encoding=encoding, light=light)
        image = take(grey, WAVELENGTHS, setting, views, 0, "a").mean((0, 1))
        expected = take(grey, WAVELENGTHS, dataclasses.replace(setting, light="E"), views, 0, "a").mean((0, 1))
        np.testing.assert_allclose(image / image[1], expected / expected[1], rtol=0.02)
        assert 0.001 < np.abs(np.log(image / image[1])).max() < 0.15


def test_optics_change_the_truth_as_they_change_the_image(cube, views):
    """An average of spectra is seen as the average of their colours."""
    curves = views["training"].curves(WAVELENGTHS)
    for setting in (Setting(blur=1), Setting(size=0.5), Setting(size=2)):
        truth = scene_as_seen(cube, setting, None)
        size = round(40 * setting.size), round(48 * setting.size)
        assert truth.shape == (*size, 31)
        changed = scene_as_seen(np.float32(cube @ curves), setting, None)
        np.testing.assert_allclose(truth @ curves, changed, atol=1e-5)
    assert resize(cube, 0.5)[3, 4] == pytest.approx(cube[6:8, 8:10].mean((0, 1)), rel=1e-5)
    assert scene_as_seen(cube, Setting(), 0.3).min() == np.float32(0.3)


def test_an_srgb_image_is_linear_again_when_it_is_decoded(cube, views):
    exposed = {
        name: take(cube, WAVELENGTHS, Setting(Imaging(0, quality=95), encoding=name), views, 0, "a")
        for name in ENCODINGS
    }
    plain, decoded, encoded = (exposed[name].mean(2).ravel() for name in ENCODINGS)
    assert np.corrcoef(decoded, plain)[0, 1] > 0.95
    slope = [np.polyfit(np.log(plain[plain > 0.05]), np.log(x[plain > 0.05]), 1)[0] for x in (decoded, encoded)]
    assert slope[0] == pytest.approx(1, abs=0.15)
    assert slope[1] == pytest.approx(0.45, abs=0.12)


def test_a_photograph_of_the_truth_is_its_colour(cube, views):
    """It is what render_rgb.py makes as a photograph, where nothing is drawn at random."""
    setting = Setting(Imaging(0, quality=95), encoding="sRGB, not decoded")
    ours = take(cube, WAVELENGTHS, setting, views, 0, "a")
    chain = Photograph((0, 0), (0.18, 0.18), (95, 95), balance_error=0, light=np.ones(31))
    theirs = chain.develop(Camera()(cube), Camera(), np.random.default_rng(0)) / 255
    assert np.abs(ours - theirs).mean() < 0.03  # JPEG
    setting = Setting(Imaging(0, quality=0), encoding="sRGB, decoded")
    curves = curves_of_image(setting, views, WAVELENGTHS)
    assert back_projection_mrae(cube, take(cube, WAVELENGTHS, setting, views, 0, "a"), curves) < 0.05


# ---- scores


def test_cielab_of_white_and_black():
    for light in ("D65", "A"):
        np.testing.assert_allclose(cielab(np.ones((1, 1, 31)), illuminant=light)[0, 0], [100, 0, 0], atol=0.05)
    np.testing.assert_allclose(cielab(np.zeros((1, 1, 31)))[0, 0], [0, 0, 0], atol=1e-6)
    assert cielab(np.full((1, 1, 31), 0.1842))[0, 0, 0] == pytest.approx(50, abs=0.1)  # CIE 15: Y 18.42 is L* 50


def test_back_projection_of_the_truth_is_the_image(cube, views):
    curves = views["training"].curves(WAVELENGTHS)
    image = take(cube, WAVELENGTHS, Setting(Imaging(0, quality=0)), views, 0, "a")
    assert back_projection_mrae(cube, image, curves) < 0.02  # 8 bits
    assert back_projection_mrae(0.3 * cube, image, curves) < 0.02
    assert back_projection_mrae(cube[::-1], image, curves) > 0.1
    assert math.isnan(back_projection_mrae(cube, np.zeros_like(image), curves))


def rows_of(values, condition="exposure", level="0.5"):
    return [Row(f"scene{i}", condition, level, 0, "net", "mrae", value) for i, value in enumerate(values)]


def test_intervals_of_a_paired_bootstrap():
    rng = np.random.default_rng(1)
    base = rng.uniform(0.1, 1, 12)
    rows = [*rows_of(base, "reference", "reference"), *rows_of(3 * base), *rows_of(base + 0.1, level="0.7")]
    found = summarise(rows)
    threefold = found["exposure", "0.5", "net", "mrae"]
    assert (threefold.scenes, threefold.mean) == (12, pytest.approx(3 * base.mean()))
    # every draw has the same scenes above and below
    assert threefold.ratio_low == pytest.approx(3)
    assert threefold.ratio_high == pytest.approx(3)
    error = 3 * base.std() / np.sqrt(12)
    assert threefold.mean - threefold.low == pytest.approx(1.96 * error, rel=0.25)
    assert threefold.high - threefold.mean == pytest.approx(1.96 * error, rel=0.25)
    shifted = found["exposure", "0.7", "net", "mrae"]
    assert shifted.ratio == pytest.approx((base.mean() + 0.1) / base.mean())
    assert shifted.ratio_low < shifted.ratio < shifted.ratio_high
    assert summarise(rows) == found


def test_a_level_with_one_seed_is_compared_with_that_seed():
    reference = [Row("a", "reference", "reference", seed, "net", "mrae", 0.1 + 0.1 * seed) for seed in range(3)]
    table = summarise([*reference, Row("a", "exposure", "0.5", 0, "net", "mrae", 0.1)])
    assert table["exposure", "0.5", "net", "mrae"].ratio == pytest.approx(1)
    assert table["reference", "reference", "net", "mrae"].mean == pytest.approx(0.2)


# ---- the command


@pytest.fixture
def data(script, tmp_path):
    """Return options for three simulated scenes of reflectances, a small network, and prepared data for the maps."""
    sizes = ("--size", 24, 32, "--radii", 3, 16, "--illuminants", "E")
    script("Dataset/simulate.py", "--out", "sim", "--n_train", 2, "--n_valid", 3, *sizes)
    script("train/train_data_preprocess.py", "--data_path", "sim", "--train_data_path", "Train", "--patch_size", 16)
    cubes = tmp_path / "sim/Valid_spectral"
    return ("--spectral_dir", cubes, "--train_data_path", "Train", "--model_dir", DATA / "model_c16_b2.pth")


def test_the_confidence_map_is_judged_without_the_scene_itself(script, data, tmp_path):
    """As the library says it of one image, with the scene left out of the calibration."""
    script("train/valid_data_preprocess.py", "--data_path", "sim", "--valid_data_path", "Valid")
    model = tmp_path / "net.pth"
    shutil.copyfile(DATA / "model_c16_b2.pth", model)
    folders = ("--train_data_path", "Train", "--valid_data_path", "Valid")
    script("train/calibrate_confidence.py", "--model_dir", model, *folders)
    script(STRESS, *data, "--model_dir", model, "--out", "out", "--num_workers", 0)
    rows = read(tmp_path / "out/stress.csv")

    name = "ARAD_1K_0902"
    cube = read_cube(data[1] / f"{name}.mat")
    rgb = normalise_rgb(take(cube, WAVELENGTHS, Setting(), camera_views(Camera(), {}), 0, name))
    rec = reconstruct(load_model(model), rgb)
    table = Confidence.load(model)
    known = table.without(fingerprint(cube))
    assert len(known.scenes) == len(table.scenes) - 1
    place = {"scene": name, "condition": "reference", "seed": "0", "method": "DRCR Net"}
    maps, sam = known.maps(rgb, rec), sam_map(rec, cube)
    expected = {
        "expected_sam": maps["expected_sam"].mean(),
        "bound": known.factor * maps["expected_sam"].mean(),
        "within_bound": (sam <= known.factor * maps["expected_sam"]).mean(),
        "believable": (maps["confidence"] == 2).mean(),
        "rank_correlation": spearmanr(maps["expected_sam"].ravel(), sam.ravel())[0],
    }
    for metric, value in expected.items():
        assert value_of(rows, **place, metric=metric) == pytest.approx(float(value), rel=1e-4, abs=1e-6), metric


def read(path):
    with open(path, newline="") as file:
        return [{**row, "value": float(row["value"])} for row in csv.DictReader(file)]


def value_of(rows, **wanted):
    """Return the one value of the rows that have these fields."""
    (value,) = [row["value"] for row in rows if all(row[key] == value for key, value in wanted.items())]
    return value


def test_the_command(script, data, tmp_path):
    lit_scenes = ("--reflectances_dir", data[1])
    printed = script(STRESS, *data, *lit_scenes, "--out", "first", "--num_workers", 0)
    assert "3 scenes" in printed.stdout
    assert "image/s" in printed.stderr
    rows = read(tmp_path / "first/stress.csv")
    check_rows(rows)
    assert "| light | " in printed.stdout
    assert is_figure(tmp_path / "first/overview.png")
    assert is_figure(tmp_path / "first/overview.pdf")
    # once more, in two processes: the same numbers, byte for byte
    script(STRESS, *data, *lit_scenes, "--out", "second", "--num_workers", 2)
    for path in sorted((tmp_path / "first").iterdir()):
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name


def check_rows(rows):
    """Check what must hold between the rows of the tiny run."""
    scenes = {row["scene"] for row in rows}
    assert len(scenes) == 3
    methods = ("DRCR Net", "root-polynomial", "linear")
    for scene in scenes:
        for method in methods:
            own = {"scene": scene, "method": method, "metric": "mrae"}
            for seed in "01":
                reference = value_of(rows, condition="reference", seed=seed, **own)
                assert value_of(rows, condition="photo-electrons", level="6460", seed=seed, **own) == reference
            reference = value_of(rows, condition="reference", seed="0", **own)
            for condition, level in (("exposure", "0.18"), ("JPEG quality", "65"), ("camera", "training")):
                assert value_of(rows, condition=condition, level=level, **own) == reference
            assert value_of(rows, condition="exposure", level="0.36", **own) != reference
            under_f11 = value_of(rows, condition="light", level="F11", **own)
            assert value_of(rows, condition="light", level="F11, radiance", **own) == pytest.approx(
                under_f11, rel=0.05
            )
            for level in ("alpha 0.5", "other blacks"):
                place = {"scene": scene, "condition": "metamers", "level": level}
                floor = value_of(rows, **place, method="any method", metric="mrae_of_both")
                assert 0 < floor <= value_of(rows, **place, method=method, metric="mrae_of_both")
            place = {"scene": scene, "condition": "metamers", "level": "alpha 1", "method": method}
            both = [value_of(rows, **place, metric=metric) for metric in ("mrae", "mrae_at_alpha_1", "mrae_of_both")]
            assert both[0] == both[1] == pytest.approx(both[2], rel=1e-6)


def test_levels_without_a_confidence_map_are_drawn_without_its_bar():
    """Cubes under a named lamp have none: after all the work, the figure ended in a trace."""
    found = Summary(1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    levels = (("reference", "reference"), ("light", "E"), ("light", "F11"), ("light", "F11, radiance"))
    table = {(*level, "DRCR Net", metric): found for level in levels for metric in ("mrae", "best_scale_mrae", "sam")}
    table |= {(*level, "DRCR Net", "within_bound"): found for level in levels[:3]}
    sheet = plot_overview(table)
    assert len(sheet.figure.axes[-1].patches) == 1  # F11; the two others are what is compared with


def test_its_scores_are_those_of_the_commands(script, data, tmp_path):
    """render_rgb.py, baseline.py and compute_mrae.py give the same score for the reference."""
    script(STRESS, *data, "--out", "out", "--num_workers", 0)
    script("Dataset/render_rgb.py", "--spectral_dir", data[1], "--rgb_dir", "images")
    options = ("--train_data_path", "Train", "--RGB_dir", "images", "--result_dir", "rec")
    script("test/baseline.py", "--method", "polynomial", *options)
    script("test/compute_mrae.py", "--path_rec", "rec", "--path_gt", data[1], "--csv", "scores.csv")
    rows = read(tmp_path / "out/stress.csv")
    with open(tmp_path / "scores.csv", newline="") as file:
        scores = {row["name"]: row for row in csv.DictReader(file)}
    for name in scores.keys() - {"average"}:
        place = {"scene": name, "condition": "reference", "seed": "0", "method": "root-polynomial"}
        for metric in ("mrae", "rmse", "psnr", "sam"):
            assert value_of(rows, **place, metric=metric) == pytest.approx(float(scores[name][metric]), rel=1e-5)


def test_what_it_refuses(fails, data, tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/stress.csv").write_text("name,score\n")
    fails(STRESS, *data, "--out", "foreign", names="foreign/stress.csv")
    assert (tmp_path / "foreign/stress.csv").read_text() == "name,score\n"
    fails(STRESS, *data, "--camera", "nothing.csv", names="nothing.csv")
    fails(STRESS, *data, "--train_data_path", "nowhere", names="nowhere")
    fails(STRESS, *data, "--model_dir", "nothing.pth", names="nothing.pth")
    dark = tmp_path / "dark"
    dark.mkdir()
    write_cube(dark / "black.mat", np.zeros((20, 24, 31)))
    assert "floor" in fails(STRESS, *data, "--spectral_dir", dark, names="black.mat")
    write_cube(dark / "black.mat", np.full((20, 24, 31), 1.2))
    fails(STRESS, *data, "--spectral_dir", dark, names="values up to 1.2")
    write_cube(dark / "black.mat", np.full((20, 24, 7), 0.5), 500 + 10.0 * np.arange(7))
    fails(STRESS, *data, "--spectral_dir", dark, names="31 bands")
    write_cube(dark / "another.mat", np.full((20, 24, 31), 0.5))
    fails(STRESS, *data, "--spectral_dir", dark, names="black.mat: 7 bands")
    assert not (tmp_path / "stress").exists()
