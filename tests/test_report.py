import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import ROOT, load_script

from drcr import metrics
from drcr.cube import WAVELENGTHS
from drcr.formats.mat import read_cube, write_cube

RNG = np.random.default_rng(5)
NAMES = ("scenes", "b c#1%20", "d'\"<i>&")
SCORES = ("mrae", "rmse", "psnr", "sam", "ssim")
METHODS = {"DRCR Net": "net", "linear": "linear"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a folder of three scenes, ground truths and two methods; the scenes' order differs by score."""
    folder = tmp_path_factory.mktemp("scenes")
    for name in ("gt", *METHODS.values()):
        (folder / name).mkdir()
    for i, name in enumerate(NAMES):
        truth = np.float32(
            RNG.uniform(0.02, 1, (24, 32, 1)) * (0.5 + 0.5 * np.sin(WAVELENGTHS / (60 + 20 * i))) + 0.02
        )
        write_cube(folder / "gt" / f"{name}.mat", truth.clip(0, 1), WAVELENGTHS)
        for j, method in enumerate(METHODS.values()):
            error = (0.1, 0.4, 0.2)[(i + j) % 3] * RNG.standard_normal(truth.shape) * truth
            rec = truth + error + (0.1, 0, 0.05)[i]
            write_cube(folder / method / f"{name}.mat", rec, WAVELENGTHS, f"{method} <v{j}>, model/{method}.pth")
    return folder


@pytest.fixture(scope="module")
def options(folders):
    recs = [word for name, folder in METHODS.items() for word in ("--path_rec", f"{name}={folders / folder}")]
    return [*recs, "--path_gt", str(folders / "gt"), "--num_workers", "0"]


@pytest.fixture(scope="module")
def report(options, tmp_path_factory):
    """Return a report, made by the script."""
    out = tmp_path_factory.mktemp("made") / "report.html"
    load_script("test/report.py").main([*options, "--out", str(out)])
    return out


@pytest.fixture(scope="module")
def expected(folders):
    """Return the scores by method and scene, computed here."""
    table = {}
    for method, folder in METHODS.items():
        for name in NAMES:
            rec, truth = (read_cube(folders / part / f"{name}.mat") for part in (folder, "gt"))
            table[method, name] = [float(getattr(metrics, score)(rec.clip(0, 1), truth)) for score in SCORES]
    return table


@pytest.fixture
def page(browser, report):
    """Return the report's page, from the disk; fails if it asks for anything else, or has an error."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: errors.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(report.as_uri())
    yield page
    page.close()
    assert not errors
    assert asked
    assert all(url.startswith((report.as_uri(), "data:")) for url in asked)


def column(page, index):
    """Return a column of the table of scenes, as text."""
    return page.locator(f".sortable tbody tr > :nth-child({index + 1})").all_inner_texts()


def by_score(expected, method, score, *, highest_first):
    return sorted(NAMES, key=lambda name: expected[method, name][SCORES.index(score)], reverse=highest_first)


def test_the_worst_scene_is_first_and_a_click_sorts_by_any_score(page, expected):
    assert column(page, 0) == by_score(expected, "DRCR Net", "mrae", highest_first=True)
    buttons = page.locator(".sortable thead button")
    for i, method in enumerate(METHODS):
        for j, score in enumerate(SCORES):
            index = 1 + i * len(SCORES) + j
            worst_is_high = score not in ("psnr", "ssim")
            order = by_score(expected, method, score, highest_first=worst_is_high)
            if index > 1:  # by the first it is sorted already
                buttons.nth(index).click()
            assert column(page, 0) == order
            values = [expected[method, name][j] for name in order]
            assert [float(text) for text in column(page, index)] == pytest.approx(values, abs=0.006)
            sections = page.locator("#sections details h3").all_inner_texts()
            assert sections == order
            buttons.nth(index).press("Enter")  # again, from the keyboard: the best first
            assert column(page, 0) == order[::-1]
    buttons.nth(0).click()
    assert column(page, 0) == sorted(NAMES, key=str.lower)
    assert page.locator("[aria-sort]").count() == 1


def test_scores_are_those_of_compute_mrae(page, script, folders, expected):
    printed = script("test/compute_mrae.py", "--path_rec", folders / "net", "--path_gt", folders / "gt").stdout
    exact = page.locator(".sortable tbody tr", has=page.get_by_text("b c#1%20", exact=True)).locator("td").first
    value = exact.get_attribute("data-value")
    assert np.float32(value) == np.float32(re.search(r"^b c#1%20\.mat mrae: ([\d.]+)", printed, re.MULTILINE)[1])
    means = page.locator("table").first.locator("tbody tr").first.locator("td").all_inner_texts()
    for text, score in zip(means, SCORES, strict=False):
        assert float(text) == pytest.approx(float(re.search(rf"average {score} is: ([\d.]+)", printed)[1]), abs=0.006)
    best = page.locator("table").first.locator("tbody b").count()
    assert best == len(SCORES)


def test_it_says_where_all_comes_from(page, options):
    text = page.inner_text("body")
    assert "net <v0>, model/net.pth" in text
    assert "linear <v1>, model/linear.pth" in text
    command = page.inner_text("pre")
    assert command.startswith("python report.py --path_rec 'DRCR Net=")
    assert options[-3] in command


@pytest.mark.parametrize("name", [NAMES[2], "scenes"])  # the page has a place of that name, too
def test_a_scene_opens_from_the_table_and_shows_its_pictures(page, name):
    section = page.locator("details.scene", has=page.get_by_role("heading", name=name, exact=True))
    assert not section.locator("img").first.is_visible()
    page.get_by_role("link", name=name, exact=True).press("Enter")
    section.locator("img").first.wait_for()
    assert section.bounding_box()["y"] < 900
    images = section.locator("img")
    assert images.count() == 5
    for i in range(5):
        images.nth(i).scroll_into_view_if_needed()
        images.nth(i).evaluate("image => image.decode()")
        assert images.nth(i).evaluate("image => [image.naturalWidth, image.naturalHeight]") == [
            int(images.nth(i).get_attribute(side)) for side in ("width", "height")
        ]
        assert name in images.nth(i).get_attribute("alt")
    section.locator("summary").press("Enter")
    assert not images.first.is_visible()


def test_nothing_jumps_as_one_scrolls(page):
    page.set_viewport_size({"width": 1024, "height": 768})
    page.get_by_role("button", name="Open all").click()
    last = page.locator("#sections details").last.locator("img").last
    height = page.evaluate("document.documentElement.scrollHeight")
    last.scroll_into_view_if_needed()
    last.evaluate("image => image.decode()")
    assert last.evaluate("image => image.naturalWidth") > 1000
    assert page.evaluate("document.documentElement.scrollHeight") == height


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_and_can_be_read(page, size, scheme, tmp_path):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    page.get_by_role("button", name="Open all").click()
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for selector in ("h1", "figcaption", ".hint", "tbody a", "summary span", "th button"):
        assert contrast(page, selector) >= 4.5, selector  # WCAG 2, level AA


def contrast(page, selector):
    """Return the contrast of a text with what is behind it, as WCAG defines it."""
    colours = page.locator(selector).first.evaluate("""element => {
        const ink = getComputedStyle(element).color;
        let paper = "rgba(0, 0, 0, 0)";
        for (let e = element; e && paper === "rgba(0, 0, 0, 0)"; e = e.parentElement)
            paper = getComputedStyle(e).backgroundColor;
        return [ink, paper];
    }""")
    light = []
    for colour in colours:
        rgb = np.float64(re.findall(r"[\d.]+", colour)[:3]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        light.append(linear @ (0.2126, 0.7152, 0.0722))
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_the_file_needs_no_other_and_is_not_too_large(report):
    text = re.sub(r"<pre.*?</pre>", "", report.read_text(), flags=re.DOTALL)
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    assert {source[:16] for source in re.findall(r'src="([^"]+)"', text)} == {"data:image/webp;"}
    assert report.stat().st_size < len(NAMES) * 1.6e6  # 80 MB for 50 scenes


def write_small(folder, *names, methods=("gt", "rec")):
    """Write scenes of 12 x 12 pixels; return the options to report on them."""
    for method in methods:
        (folder / method).mkdir(exist_ok=True)
        for name in names:
            write_cube(folder / method / f"{name}.mat", RNG.uniform(0.2, 1, (12, 12, 31)), WAVELENGTHS, "net")
    return "--path_rec", folder / "rec", "--path_gt", folder / "gt", "--num_workers", 0, "--bands", 550


def test_an_earlier_report_is_replaced_other_files_are_not(script, fails, tmp_path):
    run = ("test/report.py", *write_small(tmp_path, "a", "b"), "--out", tmp_path / "out.html", "--scenes")
    out = tmp_path / "out.html"
    out.write_text("my page")
    fails(*run, "b", names="out.html: exists and is not an earlier report")
    assert out.read_text() == "my page"
    out.unlink()
    script(*run, "b")
    script(*run, "a")  # another scene
    assert 'id="scene-a"' in out.read_text()
    assert 'id="scene-b"' not in out.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"out.html", "rec", "gt"}


def test_more_scenes_than_a_page_can_hold(fails, tmp_path, monkeypatch):
    monkeypatch.setattr("drcr.figures.report.MAX_SCENES", 1)
    options = write_small(tmp_path, "a", "b")
    assert "--scenes" in fails("test/report.py", *options, "--out", tmp_path / "out.html", names="2 scenes")
    assert not (tmp_path / "out.html").exists()


@pytest.mark.parametrize("count", [1, 2])
def test_names_as_long_as_a_file_can_have_and_a_scene_alone_is_open(script, browser, tmp_path, count):
    names = ["x" * 240 + end for end in "ab"[:count]]
    script("test/report.py", *write_small(tmp_path, *names), "--out", tmp_path / "out.html")
    page = browser.new_page()
    page.goto((tmp_path / "out.html").as_uri())
    assert sorted(page.locator("#sections h3").all_inner_texts()) == sorted(page.locator("tbody a").all_inner_texts())
    assert sorted(page.locator("tbody a").all_inner_texts()) == names
    assert page.locator("details.scene[open]").count() == (count == 1)
    page.close()
    assert (tmp_path / "out.html").read_text().count("<figure") == count * 5 + 2


def test_without_ground_truth_there_are_scenes_but_no_scores(script, browser, tmp_path):
    write_small(tmp_path, "a", "b", methods=("one", "two"))
    recs = ("--path_rec", tmp_path / "one", "--path_rec", f"second={tmp_path / 'two'}", "--path_gt", "none")
    script("test/report.py", *recs, "--num_workers", 0, "--out", tmp_path / "out.html")
    page = browser.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "out.html").as_uri())
    text = page.inner_text("body")
    assert "Without ground truth: no scores" in text
    assert "MRAE" not in text
    assert page.locator(".sortable").count() == 0
    assert page.locator("tbody th").all_inner_texts() == ["one", "second"]
    page.get_by_role("button", name="Open all").click()
    for name in "ab":
        section = page.locator("details.scene", has=page.get_by_role("heading", name=name, exact=True))
        assert section.locator("img").count() == 3
        section.locator("img").last.scroll_into_view_if_needed()
        section.locator("img").last.evaluate("image => image.decode()")
    assert not errors
    page.close()


def test_a_run_that_fails_or_is_stopped_leaves_the_earlier_report(fails, options, report, tmp_path):
    before = report.read_bytes()
    for name in ("gt", "rec"):
        (tmp_path / name).mkdir()
        for scene in "ab":
            cube = np.full((12, 12, 31), 0.5)
            cube[0, 0, 0] = np.nan if (name, scene) == ("rec", "b") else 0.4
            write_cube(tmp_path / name / f"{scene}.mat", cube)
    broken = ("--path_rec", "rec", "--path_gt", "gt", "--num_workers", 0, "--out", report)
    fails("test/report.py", *broken, names="rec/b.mat: ")
    command = [sys.executable, ROOT / "test/report.py", *options, "--out", report]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        while process.poll() is None and not list(tmp_path.glob("*/*.webp")):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert "stopped" in process.stderr.read()
    assert process.returncode == 130
    assert report.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"gt", "rec"}
