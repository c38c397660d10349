import re
import signal
import subprocess
import sys
import time
from itertools import combinations

import cv2
import numpy as np
import pytest
from helpers import ROOT
from matplotlib.backends.backend_agg import FigureCanvasAgg

from drcr import metrics
from drcr.cube import WAVELENGTHS
from drcr.figures import scenes as plots
from drcr.figures.comparison import (
    add_options,
    find_jobs,
    mrae_of_bands,
    nearest_bands,
    pick_points,
    read_scene,
)
from drcr.figures.layout import METHODS, WIDTHS
from drcr.formats.mat import write_cube
from drcr.utils import cli
from drcr.utils.files import DataError

RNG = np.random.default_rng(3)
KINDS = ("colour", "bands", "errors", "spectra", "mrae")
NAMES = ["DRCR Net", "root-polynomial, degree 4", "linear, least squares"]
LONG = [*NAMES, "a_name_without_any_place_to_break_it_at_all", "Net (ours, with ensemble, 4 x flip)", "_$x^$"]


def scene(height=40, width=48):
    """Return a truth above 0 with smooth spectra, and three reconstructions of it."""
    centres, heights = RNG.uniform(420, 680, (height, width, 1)), RNG.uniform(0.1, 0.8, (height, width, 1))
    truth = np.float32(0.05 + heights * np.exp(-(((WAVELENGTHS - centres) / 60) ** 2)))
    factors = (0.9, 1.2, 0.7, 1.05, 1.1, 0.5)
    return truth, [np.clip(truth * np.float32(f) * RNG.uniform(0.9, 1.1, truth.shape), 0, 1) for f in factors]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a folder with two scenes: ground truths, images, two methods."""
    folder = tmp_path_factory.mktemp("scenes")
    for name in ("gt", "rgb", "net", "linear map"):
        (folder / name).mkdir()
    for name in "ab":
        truth, (net, linear, *_) = scene()
        for method, cube in (("gt", truth), ("net", net), ("linear map", linear)):
            write_cube(folder / method / f"{name}.mat", cube, WAVELENGTHS, origin=None if method == "gt" else method)
        cv2.imwrite(str(folder / "rgb" / f"{name}.png"), np.uint8(255 * truth[..., [5, 15, 25]]))
    return folder


@pytest.fixture
def options(folders):
    """Return the options for both methods."""
    recs = ("--path_rec", f"DRCR Net={folders / 'net'}", "--path_rec", folders / "linear map")
    return (*recs, "--path_gt", folders / "gt", "--num_workers", 0)


def test_all_figures_in_the_size_of_a_page_and_the_same_each_time(script, options, folders, tmp_path):
    run = ("test/figures.py", *options, "--RGB_dir", folders / "rgb", "--out", "one", "--scenes", "b", "--dpi", 100)
    assert "1 scene " in script(*run).stdout
    names = [f"b_{kind}" for kind in KINDS] + ["scores", "mrae"]
    files = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert set(files) == {f"{name}.{form}" for name in names for form in ("pdf", "png")}
    for name, content in files.items():
        if name.endswith("pdf"):
            width, height = map(float, re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", content).groups())
            assert width == pytest.approx(6.9 * 72)
            assert height <= 9.2 * 72
            assert b"/CreationDate" not in content
            assert b"/Type3" not in content  # no font that publishers refuse
        else:
            assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape[1] == 6.9 * 100
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "one").iterdir()}
    script(*run)
    for path, written in before.items():
        assert path.stat().st_mtime_ns > written
        assert path.read_bytes() == files[path.name]


def test_a_column_bands_points_and_formats_as_asked(script, options, tmp_path):
    chosen = ("--width", "column", "--format", "svg", "--bands", 444, 700, "--points", "3,4", "10,20")
    script("test/figures.py", *options, *chosen, "--scenes", "a", "--out", "out")
    names = [f"a_{kind}" for kind in KINDS] + ["scores", "mrae"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{name}.svg" for name in names}
    bands = (tmp_path / "out/a_bands.svg").read_text()
    assert f'width="{3.35 * 72:g}pt"' in bands
    assert re.findall(r"<!-- (\d+ nm) -->", bands) == ["440 nm", "700 nm"]
    assert len(set(re.findall(r"<!-- ([a-z]) -->", (tmp_path / "out/a_spectra.svg").read_text()))) == 2


def test_without_ground_truth_all_but_errors_and_scores_is_drawn(script, fails, folders, tmp_path):
    recs = ("--path_rec", f"DRCR Net={folders / 'net'}", "--path_rec", folders / "linear map", "--path_gt", "none")
    run = ("test/figures.py", *recs, "--num_workers", 0, "--format", "svg", "--out", "out")
    printed = script(*run, "--RGB_dir", folders / "rgb", "--points", "3,4").stdout
    assert "Without ground truth" in printed
    names = {f"{name}_{kind}.svg" for name in "ab" for kind in ("colour", "bands", "spectra")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    words = {kind: (tmp_path / f"out/a_{kind}.svg").read_text() for kind in ("colour", "bands", "spectra")}
    for text in words.values():
        assert "<!-- DRCR Net -->" in text
        assert "ground truth" not in text
    assert "<!-- RGB input -->" in words["colour"]
    assert "<!-- r = -->" not in words["spectra"]
    fails(*run, "--scenes", "a", "nobody", names="net: contains no nobody.mat")
    fails(*run, "--points", "40,0", names="a.mat: no pixel 40,0")
    (tmp_path / "other").mkdir()
    write_cube(tmp_path / "other/a.mat", scene(40, 47)[0], WAVELENGTHS)
    fails(*run, "--scenes", "a", "--path_rec", tmp_path / "other", names="other/a.mat: 40 x 47")


def sheets(width, names):
    """Return one figure of each kind."""
    truth, recs = scene()
    recs = dict(zip(names, recs, strict=False))
    cubes = (truth, recs, WAVELENGTHS)
    rgb = truth[..., [25, 15, 5]]
    bands = nearest_bands(WAVELENGTHS, (450, 550, 650) if width < 5 else (450, 500, 550, 600, 650))
    tables = {
        name: {
            f"a_scene_of_the_set_{i}": (0.1 * i + 0.31, 0.02 + 0.01 * i, 31.123, 4.5 + 2 * i, 0.8 + 0.01 * i)
            for i in range(6)
        }
        for name in names
    }
    return {
        "colour": plots.plot_colour({"RGB input": rgb, "ground truth": rgb, **dict.fromkeys(names, rgb)}, width),
        "bands": plots.plot_bands(*cubes, bands, width),
        "errors": plots.plot_errors(*cubes, bands, width),
        "spectra": plots.plot_spectra(rgb, "RGB input", *cubes, pick_points(truth), width),
        "mrae": plots.plot_mrae({name: rec.mean((0, 1)) for name, rec in recs.items()}, WAVELENGTHS, width),
        "scores": plots.plot_scores(tables, width),
    }  # fmt: skip


@pytest.mark.parametrize("names", [NAMES[:1], NAMES, LONG], ids=["1 method", "3 methods", "6 methods"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_no_text_is_cut_off_or_meets_another(width, names):
    for kind, sheet in sheets(width, names).items():
        figure = sheet.lay_out()
        FigureCanvasAgg(figure).draw()
        boxes = {text: text.get_window_extent() for text in texts(figure)}
        assert len(boxes) > len(names)
        boxes = {text: box for text, box in boxes.items() if text.get_text().strip()}
        for text, box in boxes.items():
            inside = box.x0 > -1 and box.y0 > -1 and box.x1 < figure.bbox.x1 + 1 and box.y1 < figure.bbox.y1 + 1
            assert inside, f"{kind}: {text.get_text()!r} is cut off"
        for (one, box), (other, other_box) in combinations(boxes.items(), 2):
            assert not box.padded(-1).overlaps(other_box.padded(-1)), f"{kind}: {one.get_text()} / {other.get_text()}"


def texts(figure):
    """Yield the texts that are drawn: of the ticks, only those within the view."""
    for axes in figure.axes:
        yield from axes.texts
        if axes.get_legend():
            yield from axes.get_legend().get_texts()
        if axes.axison:
            yield from (axes.xaxis.label, axes.yaxis.label, axes.title, axes._left_title)
            for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
                for tick in axis.get_major_ticks():
                    if min(limits) <= tick.get_loc() <= max(limits):
                        yield from (label for label in (tick.label1, tick.label2) if label.get_visible())


def test_spectra_with_their_correlation(tmp_path):
    truth, (rec, other, *_) = scene()
    rec[20, 30] = truth[20, 30, ::-1]
    rgb = truth[..., [25, 15, 5]]
    recs = {"one": rec, "two": other}
    sheet = plots.plot_spectra(rgb, "RGB", truth, recs, WAVELENGTHS, [(20, 30), (0, 0)], 6.9)
    panels = [axes for axes in sheet.figure.axes if len(axes.lines) == 3]
    assert len(panels) == 2
    for panel, point in zip(panels, ((20, 30), (0, 0)), strict=True):
        expected = [cube[point] for cube in (truth, rec, other)]
        np.testing.assert_allclose([line.get_ydata() for line in panel.lines], expected, rtol=1e-5)
        numbers = [text.get_text().replace("−", "-") for text in panel.get_legend().get_texts()]
        assert numbers == [f"{np.corrcoef(curve, expected[0])[0, 1]:.3f}" for curve in expected[1:]]


def test_bands_stand_as_they_are_on_the_truths_scale():
    truth, (rec, *_) = scene()
    sheet = plots.plot_bands(truth, {"one": rec}, WAVELENGTHS, nearest_bands(WAVELENGTHS, (454, 656)), 6.9)
    images = [axes.images[0] for axes in sheet.figure.axes]
    shown = [cube[..., band] for cube in (truth, rec) for band in (5, 26)]
    for image, expected in zip(images, shown, strict=True):
        np.testing.assert_array_equal(image.get_array(), expected)
    assert [axes.get_title() for axes in sheet.figure.axes] == ["450 nm", "660 nm", "", ""]
    assert [image.norm.vmax for image in images[:2]] == [image.norm.vmax for image in images[2:]]


def test_error_maps_are_on_one_scale_for_all_methods_and_bands():
    truth, (rec, other, *_) = scene()
    sheet = plots.plot_errors(truth, {"one": rec, "two": other}, WAVELENGTHS, [5], 6.9)
    images = [axes.images[0] for axes in sheet.figure.axes if axes.images]
    absolute, relative = np.abs(rec - truth), np.abs(rec - truth) / truth
    expected = [absolute.mean(2), absolute[..., 5], None, None, relative.mean(2), relative[..., 5]]
    for image, error in zip(images, expected, strict=False):
        if error is not None:
            np.testing.assert_allclose(image.get_array(), error, rtol=1e-5)
    assert len({image.norm.vmax for image in images[:4]}) == len({image.norm.vmax for image in images[4:]}) == 1
    best = min(np.percentile([e.mean(2), e[..., 5]], 98) for e in (absolute, np.abs(other - truth)))
    assert best <= images[0].norm.vmax < 3 * best


def test_mrae_by_wavelength_has_the_mrae_as_its_mean():
    truth, (rec, *_) = scene()
    curve = mrae_of_bands(rec, truth)
    assert curve.mean() == pytest.approx(metrics.mrae(rec, truth), rel=1e-5)
    assert curve[7] == pytest.approx(metrics.mrae(rec[..., [7]], truth[..., [7]]), rel=1e-5)


def test_scores_by_scene_worst_first_and_the_mean():
    tables = {"one": {"a": (0.2, 1, 2, 3, 4), "b": (0.4, 5, 6, 7, 8)}, "two": {"a": (0.5,) * 5, "b": (0.7,) * 5}}
    mrae, rmse = plots.plot_scores(tables, 6.9).figure.axes[1:3]  # before them the key
    assert [label.get_text() for label in mrae.get_yticklabels()] == ["b", "a", "mean"]
    np.testing.assert_allclose([line.get_xdata() for line in mrae.lines[:2]], [[0.4, 0.2, 0.3], [0.7, 0.5, 0.6]])
    np.testing.assert_allclose(rmse.lines[0].get_xdata(), [5, 1, 3])


def test_methods_are_told_apart_without_colour():
    assert len(METHODS) == cli.MAX_METHODS
    for key in ("ls", "marker"):
        assert len({style[key] for style in METHODS}) == len(METHODS)


def test_points_of_a_small_or_even_scene():
    assert pick_points(np.ones((3, 3, 31)))
    assert len(pick_points(scene()[0])) == 4
    half_black = np.random.default_rng(0).random((40, 50, 31))
    half_black[:, :30] = 0
    points = pick_points(half_black)
    assert len(set(points)) == len(points) > 1
    assert all(half_black[point].any() for point in points)


def test_libraries_for_figures_and_scores_are_imported_when_they_are_needed():
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from helpers import load_script
for name in ("figures", "report", "compute_mrae", "app"):
    load_script(f"test/{{name}}.py")
print(*{{"matplotlib", "skimage", "colour", "gradio"}} & sys.modules.keys())
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_what_is_wrong_is_said_before_hours_are_spent(fails, options, folders, tmp_path):
    run = ("test/figures.py", *options)
    fails(*run, "--scenes", "a", "nobody", names="nobody.mat")
    fails(*run, "--points", "39,47", "40,0", names="a.mat: no pixel 40,0")
    assert not (tmp_path / "figures").exists()


def test_images_that_do_not_belong_to_the_cubes(options, tmp_path):
    parser = cli.parser("")
    add_options(parser)
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 47, 3), 9, np.uint8))
    run = [*map(str, options), "--RGB_dir", str(tmp_path)]
    with pytest.raises(DataError, match="no image b"):
        find_jobs(parser.parse_args(run))
    (job,) = find_jobs(parser.parse_args([*run, "--scenes", "a"]))
    with pytest.raises(DataError, match=r"a.png: 40 x 47 pixels.* 40 x 48"):
        read_scene(job).colours  # noqa: B018


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--path_rec", "x/net", "--path_rec", "net=y"], "net=y: each method needs its own name"),
        (["--path_rec", "=y"], "each method needs its own name"),
        (["--path_rec", "ground truth=y"], "each method needs its own name"),
        ([word for name in "abcdefg" for word in ("--path_rec", name)], "at most 6"),
        (["--points", "3"], "must be ROW,COLUMN"),
        (["--points", "3,-1"], "must be ROW,COLUMN"),
    ],
)
def test_options_that_make_no_sense(wrong, message, capsys):
    parser = cli.parser("")
    add_options(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(wrong)
    assert message in capsys.readouterr().err


def test_a_folder_with_an_equals_sign_is_a_folder(tmp_path):
    (tmp_path / "a=b").mkdir()
    parser = cli.parser("")
    add_options(parser)
    recs = ["--path_rec", str(tmp_path / "a=b"), "--path_rec", f"c={tmp_path / 'a=b'}"]
    assert parser.parse_args(recs).path_rec == {"a=b": tmp_path / "a=b", "c": tmp_path / "a=b"}


def test_a_file_that_is_no_figure_of_ours_is_not_overwritten(fails, options, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b_bands.png").write_bytes(b"precious")
    fails("test/figures.py", *options, "--out", "out", names="b_bands.png: exists and is not a figure")
    assert (tmp_path / "out/b_bands.png").read_bytes() == b"precious"
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_scenes_with_zeros_are_skipped_or_raised(script, tmp_path):
    for folder in ("gt", "rec"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            truth = scene(12, 12)[0].copy()
            truth[0, 0, 0] *= name == "b"
            write_cube(tmp_path / folder / f"{name}.mat", truth)
    small = ("--format", "png", "--dpi", 50, "--num_workers", 0)
    run = ("test/figures.py", "--path_rec", "rec", "--path_gt", "gt", *small)
    assert re.search(r"skipped 1 scene\b.*: a$", script(*run, "--out", "out").stdout.strip())
    assert {path.name[:2] for path in (tmp_path / "out").iterdir()} == {"b_", "sc", "mr"}
    assert "2 scenes" in script(*run, "--non_positive", "floor", 0.01, "--out", "out").stdout
    assert {path.name[:2] for path in (tmp_path / "out").iterdir()} == {"a_", "b_", "sc", "mr"}


def test_ctrl_c_leaves_whole_figures_only(options, tmp_path):
    small = ["--out", "out", "--format", "png", "--dpi", "50"]
    command = [sys.executable, ROOT / "test/figures.py", *map(str, options), *small]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list((tmp_path).glob("out/*.png")):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert "stopped; nothing half-written is left" in process.stderr.read()
    assert process.returncode == 130
    for path in (tmp_path / "out").iterdir():
        assert path.suffix == ".png"
        assert cv2.imread(str(path)) is not None
