import csv
import importlib
import re

import numpy as np
import pytest
import torch
from helpers import DATA

from drcr import metrics
from drcr.formats.mat import read_cube, write_cube
from drcr.scoring.scoring import scores

RNG = np.random.default_rng(1)


@pytest.fixture
def reconstructed(golden, tmp_path):
    """Return a folder with the cubes that the released test script wrote."""
    numbers = golden("pipeline")
    for name in ("ARAD_1K_0901", "ARAD_1K_0902"):
        (tmp_path / "rec").mkdir(exist_ok=True)
        write_cube(tmp_path / "rec" / f"{name}.mat", numbers[f"rec/{name}"])
    return tmp_path / "rec"


@pytest.mark.parametrize("process", [True, False], ids=["in a process of its own", "beside colour-science"])
def test_score_lines_equal_the_released_ones_in_every_digit(script, golden, reconstructed, tmp_path, process):
    if not process:
        importlib.import_module("colour")  # it changes how NumPy prints numbers
        np.set_printoptions(legacy="1.13")
    options = ("--path_rec", reconstructed, "--path_gt", DATA / "Dataset/Valid_spectral", "--csv", tmp_path / "s.csv")
    printed = script("test/compute_mrae.py", *options, process=process).stdout
    np.set_printoptions(legacy=False)
    released = str(golden("pipeline")["score"])
    assert printed.startswith(released)
    assert [line.split()[2] for line in printed.splitlines()[4:]] == ["psnr", "sam", "ssim"]
    with open(tmp_path / "s.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["ARAD_1K_0901", "ARAD_1K_0902", "average"]
    assert rows[0]["mrae"] == "0.7168593"
    assert rows[2]["mrae"] == "0.7233371138572693"


def test_scenes_with_values_not_above_zero_are_skipped(script, reconstructed, tmp_path):
    (tmp_path / "gt").mkdir()
    for i, name in enumerate(("ARAD_1K_0901.mat", "ARAD_1K_0902.mat")):
        truth = read_cube(DATA / "Dataset/Valid_spectral" / name).copy()
        truth[3, 4, 5] *= i
        write_cube(tmp_path / "gt" / name, truth)
    printed = script("test/compute_mrae.py", "--path_rec", reconstructed, "--path_gt", tmp_path / "gt").stdout
    assert "ARAD_1K_0901.mat" not in printed
    assert "skipped 1 scene " in printed.splitlines()[-1]
    assert "ARAD_1K_0901" in printed.splitlines()[-1]
    assert "The average mrae is: 0.7298149" in printed


def test_definitions():
    """Against the formulas, written out in float64."""
    rec, truth = RNG.random((2, 24, 20, 31), np.float32) * 0.8 + 0.1
    r, t = rec.astype(np.float64), truth.astype(np.float64)
    assert metrics.mrae(rec, truth) == pytest.approx(np.mean(np.abs(r - t) / t), rel=1e-6)
    assert metrics.rmse(rec, truth) == pytest.approx(np.sqrt(np.mean((r - t) ** 2)), rel=1e-6)
    assert metrics.psnr(rec, truth) == pytest.approx(10 * np.log10(1 / np.mean((r - t) ** 2)), rel=1e-6)
    angles = [
        np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        for a, b in zip(r.reshape(-1, 31), t.reshape(-1, 31), strict=True)
    ]
    assert metrics.sam(rec, truth) == pytest.approx(np.degrees(np.mean(angles)), rel=1e-5)
    assert metrics.mrae(torch.from_numpy(rec), torch.from_numpy(truth)).item() == metrics.mrae(rec, truth)


def test_scoring_leaves_the_threads_of_the_process_as_they_are():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        scores(*(RNG.random((2, 12, 12, 31), np.float32) + np.float32(0.1)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_reconstruction_is_first_truth_second():
    rec, truth = np.full((2, 8, 8, 31), 0.5, np.float32)
    truth = truth / 2
    assert metrics.mrae(rec, truth) == 1
    assert metrics.mrae(truth, rec) == 0.5


def test_perfect_reconstruction():
    cube = RNG.random((16, 16, 31), np.float32) + np.float32(0.1)
    assert metrics.mrae(cube, cube) == metrics.rmse(cube, cube) == 0
    assert metrics.psnr(cube, cube) == np.inf
    assert metrics.sam(cube, cube) == pytest.approx(0, abs=1e-5)
    assert metrics.sam(1.7 * cube, cube) == pytest.approx(0, abs=1e-5)
    assert np.isnan(metrics.sam(0 * cube, cube))
    assert np.isnan(metrics.ssim(cube[:8], cube[:8]))
    assert metrics.ssim(cube, cube) == pytest.approx(1)


def test_ssim_is_the_mean_over_bands():
    rec, truth = RNG.random((2, 32, 32, 3), np.float32)
    single = [metrics.ssim(rec[..., [i]], truth[..., [i]]) for i in range(3)]
    assert metrics.ssim(rec, truth) == pytest.approx(np.mean(single), rel=1e-5)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shape"):
        metrics.mrae(np.ones((2, 2, 3)), np.ones((2, 3, 3)))


def test_a_floor_scores_scenes_with_zeros_and_counts(script, tmp_path):
    truth, rec = np.full((12, 12, 31), 0.5, np.float32), np.full((12, 12, 31), 0.4, np.float32)
    truth[0, :, 0] = 0
    (tmp_path / "gt").mkdir()
    (tmp_path / "rec").mkdir()
    write_cube(tmp_path / "gt/a.mat", truth)
    write_cube(tmp_path / "rec/a.mat", rec)
    folders = ("--path_rec", tmp_path / "rec", "--path_gt", tmp_path / "gt")
    assert "--non_positive floor" in script("test/compute_mrae.py", *folders, ok=False).stderr
    printed = script("test/compute_mrae.py", *folders, "--non_positive", "floor", 0.1).stdout
    expected = (12 * (0.4 - 0.1) / 0.1 + (4464 - 12) * 0.1 / 0.5) / 4464
    assert float(re.search(r"average mrae is: (.+)", printed)[1]) == pytest.approx(expected, rel=1e-6)
    assert "dark values: 12 of 4,464 (0.27%), in 1 of 1 scenes, raised to 0.1" in printed


def test_min_radiance_skips_dark_pixels_beside_the_full_score(script, tmp_path):
    truth = np.full((12, 12, 31), 0.5, np.float32)
    truth[:3] = 0.01  # a quarter of the pixels
    truth[3, 0, 0] = 1e-4  # a dark value in a bright pixel stays in
    rec = truth + np.float32(0.1)
    for folder, cube in (("gt", truth), ("rec", rec)):
        (tmp_path / folder).mkdir()
        write_cube(tmp_path / folder / "a.mat", cube)
    options = ("--path_rec", tmp_path / "rec", "--path_gt", tmp_path / "gt", "--min_radiance", 0.02, "--csv", "s.csv")
    printed = script("test/compute_mrae.py", *options).stdout
    bright = (0.1 / 1e-4 + (9 * 12 * 31 - 1) * 0.2) / (9 * 12 * 31)
    found = re.search(r"average mrae without pixels below 0.02 is: (\S+) \(25.00% of the pixels skipped\)", printed)
    assert float(found[1]) == pytest.approx(bright, rel=1e-4)
    full = (0.1 / 1e-4 + (9 * 12 * 31 - 1) * 0.2 + 3 * 12 * 31 * 10) / (144 * 31)
    assert float(re.search(r"average mrae is: (.+)", printed)[1]) == pytest.approx(full, rel=1e-4)
    header, row, _ = (tmp_path / "s.csv").read_text().splitlines()
    assert header.split(",")[-1] == "bright_mrae"
    assert float(row.split(",")[-1]) == pytest.approx(bright, rel=1e-4)


def test_cubes_at_other_wavelengths_are_not_compared(fails, tmp_path):
    for folder, start in (("gt", 400), ("rec", 420)):
        (tmp_path / folder).mkdir()
        write_cube(tmp_path / folder / "a.mat", np.ones((12, 12, 31)), start + 10.0 * np.arange(31))
    fails("test/compute_mrae.py", "--path_rec", tmp_path / "rec", "--path_gt", tmp_path / "gt", names="rec/a.mat")


def test_bands_that_31_are_taken_for_are_compared_too(fails, tmp_path):
    for folder, wavelengths in (("gt", None), ("rec", 420 + 10.0 * np.arange(31))):
        (tmp_path / folder).mkdir()
        write_cube(tmp_path / folder / "a.mat", np.ones((12, 12, 31)), wavelengths)
    fails("test/compute_mrae.py", "--path_rec", tmp_path / "rec", "--path_gt", tmp_path / "gt", names="rec/a.mat")


def test_an_image_dark_all_over_does_not_spoil_the_second_mrae(script, fails, tmp_path):
    for folder, error in (("gt", 0), ("rec", 0.1)):
        (tmp_path / folder).mkdir()
        for name, value in (("bright", 0.5), ("dark", 0.01)):
            write_cube(tmp_path / folder / f"{name}.mat", np.full((12, 12, 31), value + error))
    folders = ("--path_rec", tmp_path / "rec", "--path_gt", tmp_path / "gt")
    printed = script("test/compute_mrae.py", *folders, "--min_radiance", 0.2).stdout
    assert re.search(r"average mrae without pixels below 0.2 is: 0\.(2|1999)\d* \(50.00%", printed)
    assert "entirely dark: dark" in printed
    fails("test/compute_mrae.py", *folders, "--min_radiance", 0.7, names="every pixel is below --min_radiance 0.7")


def test_a_file_that_is_no_table_of_scores_is_not_overwritten(script, fails, tmp_path):
    for folder in ("gt", "rec"):
        (tmp_path / folder).mkdir()
        write_cube(tmp_path / folder / "a.mat", np.full((12, 12, 31), 0.5))
    options = ("--path_rec", tmp_path / "rec", "--path_gt", tmp_path / "gt", "--csv")
    ours = "name,mrae,rmse,psnr,sam,ssim"
    for name, line in (("mine.txt", "precious"), ("longer.csv", f"{ours},mine"), ("shorter.csv", "name,mrae,")):
        (tmp_path / name).write_text(f"{line}\n")
        fails("test/compute_mrae.py", *options, name, names=f"{name}: exists and is not a table of scores")
        assert (tmp_path / name).read_text() == f"{line}\n"
    for more in ((), ("--min_radiance", 0.1), ()):  # its own it replaces
        script("test/compute_mrae.py", *options, "scores.csv", *more)


def test_the_part_that_the_challenge_and_the_toolbox_score(script, fails, tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.2, 1, (260, 270, 3)).astype(np.float32)
    rec = truth.copy()
    rec[128:132, 128:142] *= np.float32(0.9)
    rec[:128] *= np.float32(0.5)
    for folder, cube in (("gt", truth), ("rec", rec)):
        (tmp_path / folder).mkdir()
        write_cube(tmp_path / folder / "a.mat", cube)
    run = ("test/compute_mrae.py", "--path_rec", "rec", "--path_gt", "gt", "--crop")
    for crop in ("ntire2022", "mst"):
        printed = script(*run, crop).stdout
        assert float(re.search(r"average mrae is: (.+)", printed)[1]) == pytest.approx(0.1, rel=1e-4)
        assert f"--crop {crop}: scored 4 x 14 pixels of 260 x 270" in printed
    assert script(*run, "none").stdout == script(*run[:-1]).stdout
    for folder in ("gt", "rec"):
        write_cube(tmp_path / folder / "a.mat", truth[:256])
    fails(*run, "mst", names="gt/a.mat: of 256 x 270 pixels, --crop mst leaves none")


def test_names_that_a_spreadsheet_would_run_are_text_in_the_table(script, tmp_path):
    for folder in ("gt", "rec"):
        (tmp_path / folder).mkdir()
        for name in ("=cmd|' C calc'!A0", "@x", "plain-1"):
            write_cube(tmp_path / folder / f"{name}.mat", np.full((12, 12, 31), 0.5))
    script("test/compute_mrae.py", "--path_rec", "rec", "--path_gt", "gt", "--csv", "s.csv")
    with open(tmp_path / "s.csv", newline="") as file:
        names = [row[0] for row in csv.reader(file)][1:]
    assert names == ["'=cmd|' C calc'!A0", "'@x", "plain-1", "average"]


def test_best_scale_is_the_best_of_a_fine_grid_and_undoes_a_factor():
    truth = RNG.uniform(0.05, 0.5, (6, 7, 31))
    rec = 0.6 * truth * np.exp(RNG.normal(0, 0.4, truth.shape))
    by_search = min(np.abs(scale * rec / truth - 1).mean() for scale in np.geomspace(0.2, 5, 4000))
    assert metrics.best_scale_mrae(rec, truth) == pytest.approx(by_search, rel=1e-4)
    assert metrics.best_scale_mrae(rec, truth) <= by_search
    assert metrics.best_scale_mrae(0.5 * truth, truth) == pytest.approx(0, abs=1e-9)
    assert metrics.best_scale_mrae(np.float32(rec), np.float32(truth)) == pytest.approx(by_search, rel=1e-4)


def test_several_methods_in_one_table(script, tmp_path):
    truth = RNG.uniform(0.2, 0.9, (12, 14, 31)).astype(np.float32)
    for folder, factor in (("gt", 1), ("good", 1.1), ("bad_one", 1.5)):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            write_cube(tmp_path / folder / f"{name}.mat", np.float32(factor) * truth)
    methods = ("--path_rec", "Net & co=good", "--path_rec", "bad_one", "--path_gt", "gt")
    printed = script("test/compute_mrae.py", *methods, "--table", "s.csv").stdout
    assert [line.split()[0] for line in printed.splitlines() if line[0] != " "] == ["scene", "a", "b", "average"]
    with open(tmp_path / "s.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["method"], row["name"]) for row in table[2:4]] == [("Net & co", "average"), ("bad_one", "a")]
    alone = script("test/compute_mrae.py", "--path_rec", "good", "--path_gt", "gt", "--table", "alone.csv").stdout
    with open(tmp_path / "alone.csv", newline="") as file:
        assert [row["sam"] for row in csv.DictReader(file)] == [row["sam"] for row in table[:3]]
    assert f"The average mrae is: {table[2]['mrae']}" in alone

    script("test/compute_mrae.py", *methods, "--table", "s.tex")
    latex = (tmp_path / "s.tex").read_text()
    assert "Net \\& co & \\textbf{" in latex
    assert "bad\\_one & 0." in latex
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") == 2
    script("test/compute_mrae.py", *methods, "--table", "s.tex")  # its own it replaces


def test_tiny_true_values_without_a_floor_are_warned_of(script, tmp_path):
    truth = RNG.uniform(0.2, 0.9, (12, 14, 31)).astype(np.float32)
    truth[:2] = 1e-4
    for folder in ("gt", "rec"):
        (tmp_path / folder).mkdir()
        write_cube(tmp_path / folder / "a.mat", truth)
    run = ("test/compute_mrae.py", "--path_rec", "rec", "--path_gt", "gt")
    assert "16.7% of the true values are below 0.01" in script(*run).stdout
    assert "below 0.01" not in script(*run, "--non_positive", "floor", 0.01).stdout
