"""Where not to trust: drcr/confidence, train/calibrate_confidence.py, test.py --confidence."""

import csv
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers import DATA, ROOT, load_script
from scipy.stats import spearmanr

from drcr import metrics
from drcr.checkpoint import load_model, save_checkpoint
from drcr.confidence.calibration import (
    CELLS,
    Example,
    auroc,
    fit_angles,
    judge_example,
    rank_correlation,
    score,
    sum_up,
)
from drcr.confidence.model import TERMS, Colours, Confidence, Fit, SceneScore, digest_of, fingerprint
from drcr.cube import raise_to_floor
from drcr.formats.mat import load_cube, read_cube, write_cube
from drcr.images import normalise_rgb, read_rgb
from drcr.inference import reconstruct
from drcr.metrics import sam_map
from drcr.model import DRCR
from drcr.utils.files import DataError

BANDS = 31
METAMERS = TERMS.index("metamers")


@pytest.fixture(scope="module")
def calibrated(prepared_once, tmp_path_factory):
    """Return a checkpoint with its table, made by the script from the golden data."""
    train, valid = prepared_once
    model = tmp_path_factory.mktemp("network") / "net.pth"
    shutil.copyfile(DATA / "model_c16_b2.pth", model)
    options = ("--model_dir", model, "--train_data_path", train, "--valid_data_path", valid)
    load_script("train/calibrate_confidence.py").main([*map(str, options)])
    return model


def curves():
    """Return the sensitivities (bands, 3) of a made-up camera."""
    nm = np.linspace(400, 700, BANDS)
    return np.exp(-(((nm[:, None] - np.array([600, 540, 460])) / 40) ** 2))


def table(ratios, miss=0.1):
    """Return a table whose calibration gave these ratios, with a fit that says 10 degrees everywhere."""
    zeros = np.zeros(len(TERMS))
    scenes = {f"scene{i}": SceneScore(ratio, 10.0, 10.0) for i, ratio in enumerate(ratios)}
    colours = Colours(
        curves(), np.zeros((1, 2)), np.ones((1, BANDS)), np.zeros((1, 3)), np.zeros((1, BANDS)), np.zeros(1), 0.1
    )
    return Confidence(colours, Fit(math.log2(10), zeros, zeros, zeros), scenes, miss, [], "linear", "", "")


def example(rng, spread, scene="scene", slope=1.0):
    """Return pixels whose angle follows one term, up to a factor that is the image's own."""
    terms = np.zeros((2000, len(TERMS)), np.float32)
    terms[:, METAMERS] = rng.uniform(1, 4, 2000)
    sam = 2 ** (slope * terms[:, METAMERS]) * rng.lognormal(0, 0.3, 2000) * rng.lognormal(0, spread)
    return Example(Path(scene), scene, scene, "linear", terms, np.float32(sam), np.full(2000, 0.5, np.float32))


# ---- the bound


@pytest.mark.parametrize(
    ("n", "miss", "rank", "promised"), [(10, 0.1, 10, 0.9), (20, 0.1, 19, 0.9), (9, 0.1, 9, 0.9), (4, 0.1, 4, 0.8)]
)
def test_the_bound_is_the_ratio_of_the_right_rank(n, miss, rank, promised):
    ratios = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
    made = table(ratios, miss)
    assert made.factor == rank
    assert 1 - made.miss == pytest.approx(promised)
    assert f"at least {promised:.0%}, at least 90% of the pixels" in made.statement


def test_new_scenes_lie_within_the_bound_as_often_as_promised():
    """A thousand times: fit on some scenes, calibrate on nine, look at a tenth."""
    rng = np.random.default_rng(0)
    fitted = fit_angles([example(rng, 0.3) for _ in range(5)], rng)
    held = 0
    for _ in range(1000):
        *calibration, new = [score(fitted, [example(rng, 0.3)])["scene"].ratio for _ in range(10)]
        made = table(calibration)
        held += new <= made.factor * made.scale
    assert 0.87 < held / 1000 < 0.93  # exactly 0.9, with a standard error of 0.0095


def test_a_scene_counts_once_by_its_worst_image():
    rng = np.random.default_rng(1)
    fitted = fit_angles([example(rng, 0)], rng)
    good, bad = example(rng, 0), example(rng, 0)
    bad = Example(bad.path, "b", bad.scene, bad.kind, bad.terms, 3 * bad.sam, bad.brightest)
    both, alone = (score(fitted, images)["scene"] for images in ([good, bad], [bad]))
    assert both.ratio == alone.ratio
    assert both.true == pytest.approx((good.sam.mean() + bad.sam.mean()) / 2)
    within = (bad.sam <= alone.ratio * fitted.angles(bad.terms)).mean()
    assert 0.9 <= within < 0.902


def test_without_a_scene_the_table_does_not_know_it():
    made = table([1.0, 2.0, 5.0])
    assert made.factor == 5
    assert made.without("scene2").factor == 2
    assert made.without("another").factor == 5
    with pytest.raises(DataError):
        table([1.0]).without("scene0")


def test_the_fit_finds_the_term_that_matters_and_judging_tells():
    rng = np.random.default_rng(2)
    training = [example(rng, 0.1) for _ in range(8)]
    fitted = fit_angles(training, rng)
    assert fitted.weights[METAMERS] == pytest.approx(1, abs=0.05)
    assert np.delete(fitted.weights, METAMERS).max() < 0.05
    assert fit_angles([example(rng, 0.1, slope=-1.0)], rng).weights.max() == 0  # no term lowers the expected angle
    blind = fit_angles(training, rng, n_terms=4)
    assert blind.weights.max() == 0
    calibration = [example(rng, 0.1, f"scene{i}") for i in range(12)]
    seen = judge_example(made_of(fitted, calibration), calibration[0])
    assert seen["rank_correlation"] > 0.8
    assert seen["auroc"] > 0.9
    assert seen["expected_sam"] == pytest.approx(seen["true_sam"], rel=0.3)
    assert 0 < seen["believable"] < 1
    assert judge_example(made_of(blind, calibration), calibration[0])["auroc"] == 0.5


def made_of(fitted, calibration):
    base = table([1.0])
    return Confidence(base.colours, fitted, score(fitted, calibration), 0.1, [], "linear", "", "")


def test_correlation_and_auroc_are_the_usual_ones():
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 20, 300), rng.integers(0, 20, 300)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second)[0])
    positive = second > 9
    pairs = first[positive][:, None] - first[~positive]
    assert auroc(first, positive) == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)
    assert math.isnan(auroc(first, first < 0))


# ---- the terms


def test_only_colours_with_metamers_in_the_training_get_a_high_term():
    """Two colours, of equal brightness; the spectra of one have two blacks, those of the other one."""
    rng = np.random.default_rng(4)
    camera = curves()
    see = camera @ np.linalg.pinv(camera)
    spectra = np.exp(-(((np.linspace(400, 700, BANDS) - np.array([[460], [600]])) / 60) ** 2)) + 0.2
    black = np.sin(np.arange(BANDS) * 1.3)
    black -= see @ black
    black *= 0.5 * np.linalg.norm(spectra[0]) / np.linalg.norm(black)
    which, sign = rng.integers(0, 2, 20_000), rng.choice([-1, 1], 20_000)
    cubes = spectra[which] + (which == 0)[:, None] * sign[:, None] * black
    cubes[:2000] = rng.random((2000, BANDS))  # spectra of all kinds, from which the camera can be told
    cubes = cubes * rng.uniform(0.2, 1, (20_000, 1))
    colours = sum_up([np.float32(cubes @ camera / 10)], [np.float32(cubes)], rng)
    assert len(colours.places) <= CELLS
    rgb = np.float32(spectra @ camera)[None] / (spectra @ camera).max()
    terms = colours.terms(rgb, np.float32(spectra)[None] * 0.5)
    with_metamers, without = 2 ** terms[:, METAMERS]
    true = np.degrees(np.arctan(np.linalg.norm(black) / np.linalg.norm(see @ spectra[0])))
    assert with_metamers == pytest.approx(true, rel=0.15)
    assert without < 0.3 * with_metamers
    new = colours.terms(np.float32([[[0.05, 1, 0.05]]]), np.float32(spectra[None, :1]))
    assert colours.is_new(new).all()
    assert not colours.is_new(terms).any()
    back = TERMS.index("residual angle")
    swapped = colours.terms(rgb, np.float32(spectra[::-1])[None] * 0.5)
    assert (swapped[:, back] > terms[:, back] + 2).all()


def test_each_term_rises_with_what_it_is_named_after():
    rng = np.random.default_rng(7)
    camera = curves()
    spectra = 0.1 + 0.8 * np.cumsum(rng.normal(0, 0.1, (5000, BANDS)), 1).clip(0)
    colours = sum_up([np.float32(spectra @ camera)], [np.float32(spectra)], rng)
    cube = np.float32(np.full((12, 16, BANDS), 0.2))
    cube[:, 8:] *= 3  # an edge
    rgb = np.float32(cube @ camera)
    rgb /= rgb.max() / 0.9
    index = {name: i for i, name in enumerate(TERMS)}

    def terms(rgb, cube):
        return colours.terms(np.float32(rgb), np.float32(cube)).reshape(*rgb.shape[:2], -1)

    plain = terms(rgb, cube)
    np.testing.assert_allclose(terms(rgb, cube / 2), plain, atol=1e-3)  # the scale of the cube is not in the image
    assert plain[5, 8, index["edges"]] > plain[5, 2, index["edges"]] + 3
    assert plain[5, 2, index["edges"]] == plain[5, 13, index["edges"]]
    dark = terms(rgb / 50, cube)
    assert (dark[..., index["dark 1/64"]] - plain[..., index["dark 1/64"]])[5, 2] > 1
    assert plain[5, 13, : index["clipped"]].max() == 0
    clipped = rgb.copy()
    clipped[3, 3] = 1
    assert terms(clipped, cube)[3, 3, index["clipped"]] == 1
    assert terms(clipped, cube)[3, 4, index["clipped"]] == 0
    larger = cube.copy()
    larger[2, 2] *= 2
    assert terms(rgb, larger)[2, 2, index["residual size"]] == pytest.approx(1, abs=0.1)
    assert plain[2, 2, index["residual size"]] < 0.1
    odd = cube.copy()
    odd[2, 2] += np.float32(0.15 * (-1.0) ** np.arange(BANDS))  # nearly unseen, and like no training spectrum
    assert terms(rgb, odd)[2, 2, index["unusual"]] > plain[2, 2, index["unusual"]] + 0.5
    assert terms(rgb, odd)[2, 2, METAMERS] > plain[2, 2, METAMERS] + 0.5
    assert abs(terms(rgb, odd) - plain)[2, 2, index["residual angle"]] < 0.5


def test_the_true_angle_is_that_of_the_scores():
    """In pixels where either spectrum is 0 there is none, for the map as for the score."""
    rng = np.random.default_rng(5)
    rec, truth = rng.normal(0.5, 0.4, (30, 40, BANDS)), rng.random((30, 40, BANDS))
    rec[:8] = 0
    angles = sam_map(np.float32(rec), np.float32(truth))
    assert np.isnan(angles[:8]).all()
    assert np.nanmean(angles) == pytest.approx(
        float(metrics.sam(np.float32(rec).clip(0, 1), np.float32(truth))), rel=1e-4
    )


def test_a_scene_is_known_whatever_its_floor():
    cube = np.float32(np.random.default_rng(6).random((20, 30, BANDS)) ** 4)
    assert fingerprint(raise_to_floor(cube, 0.01)[0]) == fingerprint(cube)
    assert fingerprint(cube[:, :-1]) != fingerprint(cube)
    assert fingerprint(cube + np.float32(0.1)) != fingerprint(cube)


# ---- the commands


def test_the_command_makes_a_table_and_says_what_it_promises(prepared_once, script, tmp_path):
    train, valid = prepared_once
    model = tmp_path / "net.pth"
    shutil.copyfile(DATA / "model_c16_b2.pth", model)
    options = ("--model_dir", model, "--train_data_path", train, "--valid_data_path", valid)
    other = ("--evaluate", tmp_path / "judged.csv", "--other_data_path", valid, train)
    printed = script("train/calibrate_confidence.py", *options, *other).stdout
    with open(tmp_path / "judged.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = {(row["images"], row["table"]): row for row in rows}
    assert len(rows) == 2 * (2 + 2)  # of the other data, those of the calibration are left aside
    assert {table for _, table in kinds} == {"all terms", "brightness alone"}
    assert {images for images, _ in kinds} == {"calibration images", "Train, taken as linear (no tags)"}
    assert all(0 <= float(row["within_bound"]) <= 1 for row in rows)
    path = tmp_path / "net.confidence.npz"
    made = Confidence.load(model)
    assert len(made.scenes) == 2
    assert made.miss == pytest.approx(1 / 3)
    assert made.statement in printed
    assert "at least 67%, at least 90% of the pixels" in printed
    assert "brightness alone" in printed
    first = path.read_bytes()
    script("train/calibrate_confidence.py", *options)
    assert path.read_bytes() == first
    script("train/calibrate_confidence.py", *options, "--seed", 1)
    assert path.read_bytes() != first


def test_scenes_that_the_network_knows_are_reconstructed_by_one_that_does_not(prepared_once, script, tmp_path):
    train, valid = prepared_once
    unseen = DRCR(**load_model(DATA / "model_c16_b2.pth").architecture)
    unseen.wavelengths = load_model(DATA / "model_c16_b2.pth").wavelengths
    save_checkpoint(tmp_path / "unseen.pth", unseen)
    shutil.copyfile(DATA / "model_c16_b2.pth", tmp_path / "net.pth")

    def true_angles(name, *options):
        judged = tmp_path / f"{name}.csv"
        data = ("--train_data_path", train, "--valid_data_path", valid, "--evaluate", judged)
        script("train/calibrate_confidence.py", "--model_dir", tmp_path / f"{name}.pth", *data, *options)
        with open(judged, newline="") as file:
            return [row["true_sam"] for row in csv.DictReader(file)]

    alone = true_angles("net")
    assert true_angles("net", "--unseen_model", tmp_path / "unseen.pth") == true_angles("unseen") != alone
    assert Confidence.load(tmp_path / "net.pth").statement
    two = ("--unseen_model", tmp_path / "net.pth", tmp_path / "net.pth")
    options = ("--train_data_path", train, "--valid_data_path", valid, *two)
    failed = script("train/calibrate_confidence.py", "--model_dir", tmp_path / "net.pth", *options, ok=False)
    assert failed.returncode == 2
    assert "must name 1 checkpoint" in failed.stderr


def test_the_maps_stand_beside_the_cube(calibrated, script, tmp_path):
    import mat73

    image = DATA / "Dataset/Valid_RGB/ARAD_1K_0901.jpg"
    options = ("--RGB_dir", image, "--model_dir", calibrated, "--result_dir", tmp_path / "out", "--confidence")
    printed = script("test/test.py", *options).stdout
    made = Confidence.load(calibrated)
    assert made.statement in printed
    path = tmp_path / "out/ARAD_1K_0901.mat"
    content = mat73.loadmat(path)
    rgb = normalise_rgb(read_rgb(image))
    cube = reconstruct(load_model(calibrated), rgb)
    assert rgb.shape[0] != rgb.shape[1]  # else a transposed map would not show
    assert np.array_equal(content["cube"], cube)
    assert content["expected_sam"].dtype == np.float32
    np.testing.assert_allclose(content["expected_sam"], made.expected_sam(rgb, cube), rtol=1e-4)
    assert content["confidence"].dtype == np.uint8
    assert np.array_equal(content["confidence"], made.maps(rgb, cube)["confidence"])
    assert float(content["sam_factor"]) == made.factor
    assert 0 < content["expected_sam"].min() <= content["expected_sam"].max() <= 180
    maps = load_cube(path).maps
    assert maps.keys() == {"expected_sam", "confidence"}
    assert np.array_equal(maps["confidence"], content["confidence"])
    assert np.array_equal(read_cube(path), cube)


@pytest.mark.skipif(not shutil.which("matdump"), reason="matdump is not installed (Debian package matio-tools)")
def test_matio_reads_the_maps(tmp_path):
    maps = {"expected_sam": np.float32([[1, 2, 3], [4, 5, 6]]), "confidence": np.uint8([[0, 1, 2], [2, 1, 0]])}
    write_cube(tmp_path / "x.mat", np.zeros((2, 3, 4), np.float32), **maps, sam_factor=1.5)
    whos = subprocess.run(["matdump", "-f", "whos", tmp_path / "x.mat"], capture_output=True, text=True).stdout
    lines = {line.split()[0]: line for line in whos.splitlines() if line.split()}
    assert "2x3" in lines["confidence"]
    assert "mxUINT8_CLASS" in lines["confidence"]
    assert "mxSINGLE_CLASS" in lines["expected_sam"]


def test_levels_follow_from_angle_clipping_and_colour():
    made = table([1.0])
    terms = np.zeros((5, len(TERMS)), np.float32)
    terms[4, TERMS.index("new colour")] = 7.5
    levels = made.levels(terms, np.float32([5, 12, 20, 5, 5]), np.float32([0.5, 0.5, 0.5, 1, 0.5]))
    assert levels.tolist() == [2, 1, 0, 1, 0]


def test_the_networks_in_the_box_have_their_tables():
    for name in ("model", "linear"):
        path = ROOT / f"test/model/{name}.pth"
        made = Confidence.load(path)
        assert path.with_suffix(".confidence.npz").stat().st_size < 200_000
        assert made.wavelengths == load_model(path).wavelengths
        assert len(made.scenes) >= 5


# ---- where the maps are shown


def test_figures_and_report_show_the_maps_where_there_are_some(calibrated, script, tmp_path):
    images, truth = DATA / "Dataset/Valid_RGB", DATA / "Dataset/Valid_spectral"
    run = ("test/test.py", "--RGB_dir", images, "--model_dir", calibrated)
    script(*run, "--result_dir", tmp_path / "with", "--confidence")
    script(*run, "--result_dir", tmp_path / "without")
    both = ("--path_rec", tmp_path / "with", "--path_rec", tmp_path / "without", "--num_workers", 0)
    for options, words in ((("--path_gt", truth), "true angle"), (("--path_gt", "none"), "expected angle")):
        script("test/figures.py", *both, *options, "--format", "svg", "--out", tmp_path / words)
        drawn = (tmp_path / words / "ARAD_1K_0901_confidence.svg").read_text()
        assert f"<!-- {words} -->" in drawn
        assert "<!-- with -->" in drawn
        assert "<!-- without -->" not in drawn
    script("test/report.py", *both, "--path_gt", truth, "--out", tmp_path / "both.html")
    assert (tmp_path / "both.html").read_text().count('<figure class="confidence">') == 2
    alone = ("--path_rec", tmp_path / "without", "--path_gt", truth, "--num_workers", 0)
    script("test/report.py", *alone, "--out", tmp_path / "alone.html")
    assert 'class="confidence"' not in (tmp_path / "alone.html").read_text()


def test_maps_that_are_none_are_refused(fails, tmp_path):
    cube = np.random.default_rng(0).random((20, 24, BANDS), np.float32)
    right = {"expected_sam": np.full((20, 24), 9, np.float32), "confidence": np.ones((20, 24), np.uint8)}
    wrong = (
        {"expected_sam": right["expected_sam"] * np.nan},
        {"confidence": right["confidence"] * 3},
        {"confidence": np.float32(cube[..., 0])},
    )
    for i, maps in enumerate(wrong):
        (tmp_path / f"{i}").mkdir()
        write_cube(tmp_path / f"{i}/x.mat", cube, None, "origin", **right | maps)
        options = (
            "--path_rec",
            tmp_path / f"{i}",
            "--path_gt",
            "none",
            "--num_workers",
            0,
            "--out",
            tmp_path / "out",
        )
        fails("test/figures.py", *options, names=next(iter(maps)))


# ---- what cannot be used


def test_a_network_without_a_table(fails, tmp_path):
    model = tmp_path / "net.pth"
    shutil.copyfile(DATA / "model_c16_b2.pth", model)
    options = ("--RGB_dir", DATA / "Dataset/Valid_RGB", "--model_dir", model, "--result_dir", tmp_path / "out")
    message = fails("test/test.py", *options, "--confidence", names=tmp_path / "net.confidence.npz")
    assert "calibrate_confidence.py" in message
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_the_table_of_another_network(calibrated, fails, tmp_path):
    other = tmp_path / "net.pth"
    save_checkpoint(other, DRCR(channels=8, n_blocks=1))
    shutil.copyfile(calibrated.with_suffix(".confidence.npz"), tmp_path / "net.confidence.npz")
    options = ("--RGB_dir", DATA / "Dataset/Valid_RGB", "--model_dir", other, "--result_dir", tmp_path / "out")
    assert "another network" in fails("test/test.py", *options, "--confidence", names="net.confidence.npz")


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("how", ["truncated", "pickle", "wrong shape", "NaN", "bomb"])
def test_a_damaged_table(calibrated, tmp_path, how):
    model, path, trap = tmp_path / "net.pth", tmp_path / "net.confidence.npz", tmp_path / "trap"
    shutil.copyfile(calibrated, model)
    data = calibrated.with_suffix(".confidence.npz").read_bytes()
    with np.load(calibrated.with_suffix(".confidence.npz")) as file:
        arrays = dict(file)
    if how == "truncated":
        path.write_bytes(data[:-200])
    elif how == "bomb":  # small as a file, and right in all but its size
        shapes = {"places": (100_000, 3), "blacks": (100_000, BANDS), "spread": (100_000,)}
        np.savez_compressed(path, **arrays | {name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    else:
        arrays |= {
            "pickle": {"facts": np.array([Trap(trap)], object)},
            "wrong shape": {"camera": arrays["camera"][:-1]},
            "NaN": {"blacks": arrays["blacks"] * np.nan},
        }[how]
        np.savez(path, **arrays)
    with pytest.raises(DataError, match="damaged, or not a table") as error:
        Confidence.load(model)
    assert str(path) in str(error.value)
    assert not trap.exists()


def test_files_that_cannot_be_written_are_named_before_anything_is_computed(fails, prepared_once, tmp_path):
    table, missing = tmp_path / "table.npz", tmp_path / "missing/table.npz"
    options = ("--model_dir", DATA / "model_c16_b2.pth", "--train_data_path", tmp_path, "--valid_data_path", tmp_path)
    for extra, named in ((("--out", missing), missing), (("--out", table, "--evaluate", table), table)):
        assert "index" not in fails("train/calibrate_confidence.py", *options, *extra, names=named)
    assert not list(tmp_path.iterdir())


def test_scenes_of_the_training_are_refused(prepared_once, fails, tmp_path):
    train, _ = prepared_once
    model = tmp_path / "net.pth"
    shutil.copyfile(DATA / "model_c16_b2.pth", model)
    options = ("--model_dir", model, "--train_data_path", train, "--valid_data_path", train)
    fails("train/calibrate_confidence.py", *options, names="not seen")
    assert not (tmp_path / "net.confidence.npz").exists()


def test_options_that_leave_nothing_and_files_that_are_not_ours(prepared_once, fails, script, tmp_path):
    train, valid = prepared_once
    model = tmp_path / "net.pth"
    shutil.copyfile(DATA / "model_c16_b2.pth", model)
    options = ("--model_dir", model, "--train_data_path", train, "--valid_data_path", valid)
    (tmp_path / "mine.npz").write_text("mine")
    fails("train/calibrate_confidence.py", *options, "--out", tmp_path / "mine.npz", names="mine.npz")
    assert (tmp_path / "mine.npz").read_text() == "mine"
    fails("train/calibrate_confidence.py", "--model_dir", model, "--train_data_path", tmp_path, names=tmp_path)
    assert script("train/calibrate_confidence.py", *options, "--miss", 1, ok=False).returncode == 2


@pytest.mark.parametrize("kind", ["photographs", "linear"])
def test_each_scene_is_calibrated_by_the_network_that_left_it_out(kind, tmp_path, monkeypatch):
    script = load_script("experiments/confidence.py")
    for name in ("0", "1", "2"):
        (tmp_path / f"last/{kind}_{name}/test").mkdir(parents=True)
    last = tmp_path / f"last/{kind}_all/run/last.pth"
    with pytest.raises(DataError, match="not complete"):
        script.folds_of(tmp_path, kind)
    last.parent.mkdir(parents=True)
    last.touch()
    commands = []
    monkeypatch.setattr(script, "step", lambda folder, command: commands.append(command))
    script.calibrate(tmp_path, tmp_path / "out", tmp_path / "network.pth", kind, tmp_path / "judged.csv")
    (command,) = commands
    options = {words.split()[0]: words.split()[1:] for words in command.split("--")[1:]}
    images = [Path(path).parts[-2:] for path in options["valid_data_path"] + options["other_data_path"]]
    networks = [Path(path).parts[-3] for path in options["unseen_model"]]
    assert [f"{kind}_{fold}" for fold, _ in images] == networks == 2 * [f"{kind}_0", f"{kind}_1", f"{kind}_2"]
    assert {which for _, which in images[:3]} == {kind}
    assert str(last) not in command


def test_the_picture_is_that_of_the_median_photograph(tmp_path):
    script = load_script("experiments/confidence.py")
    ours = {"a_p101": 0.1, "b_p102": 0.9, "c_p1": 0.3, "e_p101": 0.5, "face_p101": 0.45, "face_p102": 0.6}
    rows = [f"calibration images,all terms,{name},{value}" for name, value in ours.items()]
    rows += ["other,all terms,d_p101,0.4", "calibration images,brightness alone,f_p101,0.4"]
    (tmp_path / "x.csv").write_text("\n".join(["images,table,name,rank_correlation", *rows]))
    assert script.median_photograph(tmp_path / "x.csv") == "e_p101"


def test_other_formats_hold_the_maps_in_a_file_beside_the_cube(script, calibrated, tmp_path):
    image = DATA / "Dataset/Valid_RGB/ARAD_1K_0901.jpg"
    options = ("--RGB_dir", image, "--model_dir", calibrated, "--result_dir", tmp_path / "out", "--confidence")
    script("test/test.py", *options)
    maps = load_cube(tmp_path / "out/ARAD_1K_0901.mat").maps
    script("test/test.py", *options, "--format", "tiff")
    (beside,) = set((tmp_path / "out").rglob("*.tif")) - {tmp_path / "out/ARAD_1K_0901.tif"}
    stored = tifffile.imread(beside)
    assert np.array_equal(stored, np.stack([np.float32(maps[name]) for name in ("expected_sam", "confidence")]))


def test_maps_of_another_size_are_refused(tmp_path):
    path = tmp_path / "x.mat"
    maps = {"confidence": np.zeros((3, 2), np.uint8)}
    write_cube(path, np.zeros((2, 3, 4), np.float32), origin="a network", **maps)
    with pytest.raises(DataError, match="confidence"):
        load_cube(path)
    write_cube(path, np.zeros((2, 3, 4), np.float32), **maps)  # no reconstruction: a variable of the user's own
    assert load_cube(path).maps == {}
    assert len(digest_of(path)) == 64
