"""test/app.py: the page, in a real browser, against the real server."""

import csv
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import zipfile
from argparse import Namespace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import scipy.io
from helpers import DATA, ROOT, load_script
from PIL import Image
from PIL.PngImagePlugin import PngInfo

pytest.importorskip("starlette", reason="needs pip install 'drcr[app]'")
pytest.importorskip("uvicorn", reason="needs pip install 'drcr[app]'")

from drcr import metrics
from drcr.app.guard import PREFIX, temporary_home
from drcr.app.scene import LINEAR, PHOTOGRAPH, PageScene, open_cube, transparent
from drcr.app.server import Cancelled, LoadedNetwork, Progress, Work
from drcr.checkpoint import load_model
from drcr.confidence.model import Confidence
from drcr.cube import WAVELENGTHS, raise_to_floor
from drcr.formats.envi import write_envi
from drcr.formats.maps import LEVEL_COLOURS
from drcr.formats.mat import load_cube, read_cube, read_origin, write_cube
from drcr.formats.tiff import write_tiff
from drcr.images import normalise_rgb, read_rgb
from drcr.inference import Reconstructor
from drcr.light import lamp
from drcr.metrics import SCORES
from drcr.tags import encode_srgb
from drcr.utils.files import DataError
from drcr.utils.locks import LOCK

MODEL = ROOT / "test/model/model.pth"
PHOTO = DATA / "Dataset/Valid_RGB/ARAD_1K_0901.jpg"
TRUTH = DATA / "Dataset/Valid_spectral/ARAD_1K_0901.mat"
MAX_SIDE = 1400
# app.py as it is, and beside it a list of every host that the process asks for or connects to
LISTENED = """
import runpy, socket, sys
log, sys.argv = open(sys.argv[1], "a", buffering=1), sys.argv[2:]
def hear(event, args):
    if event == "socket.getaddrinfo": print(args[0], file=log)
    if event == "socket.connect" and args[0].family != socket.AF_UNIX: print(args[1][0], file=log)
sys.addaudithook(hear)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Address(str):
    """The address of the page, with the server's process id and its temporary folder."""

    def __new__(cls, text, pid, folder):
        self = super().__new__(cls, text)
        self.pid, self.folder = pid, folder
        return self

    def uploads(self):
        """Return the folders of uploaded files that the server keeps."""
        return sorted(self.folder.glob(f"{PREFIX}*/*/"))


def free_port():
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Return the address of the running page; its end leaves nothing, and it has asked nothing of other machines."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "tmp").mkdir()
    leftover = folder / "tmp" / f"{PREFIX}killed"
    (leftover / "scene").mkdir(parents=True)
    (leftover / LOCK).touch()
    port = free_port()
    command = [sys.executable, "-c", LISTENED, folder / "hosts", ROOT / "test/app.py", "--model_dir", MODEL]
    command += ["--port", str(port), "--max_side", str(MAX_SIDE), "--max_upload", "20", "--sessions", "3"]
    with open(folder / "output", "w") as output:
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=output, text=True,
            env={**os.environ, "TMPDIR": str(folder / "tmp")},
        )  # fmt: skip
    line = server.stdout.readline()
    assert line == f"http://127.0.0.1:{port} (Ctrl-C ends it)\n", (folder / "output").read_text()
    assert not leftover.exists()
    yield Address(line.split()[0], server.pid, folder / "tmp")
    data = cv2.imencode(".png", cv2.resize(cv2.imread(str(PHOTO)), (1400, 1400)))[1].tobytes()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", f"/open?files=%5B%5B%22a.png%22,{len(data)}%5D%5D", data)
    answer = connection.getresponse()
    while not json.loads(answer.readline()).get("part"):  # Ctrl-C comes in the midst of the work
        pass
    server.send_signal(signal.SIGINT)
    assert server.wait(30) == 130
    assert not list((folder / "tmp").iterdir())
    assert "Traceback" not in (folder / "output").read_text()
    assert set((folder / "hosts").read_text().split()) <= {"127.0.0.1", "localhost", "None"}


@pytest.fixture
def page(browser, address):
    """Return the open page; it has asked nothing of other machines, and nothing went wrong in it."""
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    page.set_default_timeout(60_000)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(address)
    yield page
    page.close()
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert not errors


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Return a folder of images."""
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(1).integers(1, 256, (4, 5, 3), np.uint8)
    pixels = Image.fromarray(cv2.resize(pixels, (40, 32), interpolation=cv2.INTER_CUBIC))
    srgb, gamma = PngInfo(), PngInfo()
    srgb.add(b"sRGB", b"\0")
    gamma.add(b"gAMA", (100_000).to_bytes(4, "big"))
    pixels.save(folder / "tagged.png", pnginfo=srgb)
    pixels.save(folder / "linear.png", pnginfo=gamma)
    return folder


def of_test_py(image, folder, encoding):
    """Return the file that test.py makes of an image."""
    options = ["--RGB_dir", image, "--model_dir", MODEL, "--result_dir", folder, "--encoding", encoding]
    load_script("test/test.py").main([*map(str, options)])
    return (folder / image.name).with_suffix(".mat")


def load(page, *paths):
    """Open files; wait until they are shown."""
    page.set_input_files("#file", paths)
    page.locator("#lines", has_text=f"{paths[0].stem}.").wait_for()
    page.locator("#picture image[href]").first.wait_for()
    arrived(page)


def arrived(page):
    """Wait until both pictures are there, photograph and reconstruction; on a busy machine one comes later."""
    page.wait_for_function(
        "() => [...document.querySelectorAll('#picture image')].every("
        "image => (image.getAttribute('href') ?? '') === image.dataset.wanted)"
    )


def choose(page, view):
    """Choose a view; wait until its picture is there; return it, (H, W) or (H, W, channels), uint8."""
    page.get_by_role("radio", name=view, exact=True).check(force=True)
    return picture(page)


def picture(page):
    """Return the picture that is shown, on the right of the dividing line."""
    arrived(page)
    return fetch(page, page.locator("#picture image[href]").last.get_attribute("href"))


def fetch(page, source):
    data = page.request.get(f"{page.url}{source}").body()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image.ndim == 3 and image.shape[2] == 3 else image


def at(page, row, column):
    """Return where the middle of a pixel is on the screen."""
    box = page.locator("#picture").bounding_box()
    width, height = map(int, page.locator("#picture").get_attribute("data-size").split())
    return box["x"] + (column + 0.5) / width * box["width"], box["y"] + (row + 0.5) / height * box["height"]


def listed(page, count):
    """Wait for so many spectra; return the places of the points and regions, in order."""
    page.wait_for_function(f"document.querySelectorAll('.curve').length === {count}")
    return [cell.split("\n")[0] for cell in page.locator("#points td:nth-child(2)").all_inner_texts()]


def download(page, target, folder):
    with page.expect_download() as started:
        page.locator(target).click()
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    return path


def read_table(path):
    with open(path, newline="") as file:
        names, *rows = csv.reader(file)
    return dict(zip(names, np.array(rows, np.float64).T, strict=True))


def slide(page, label, steps):
    """Move a slider by so many keys."""
    slider = page.get_by_role("slider", name=label)
    slider.focus()
    for _ in range(abs(steps)):
        slider.press("ArrowRight" if steps > 0 else "ArrowLeft")


def test_the_photograph_beside_its_reconstruction(page, images, tmp_path):
    load(page, images / "tagged.png")
    photo, _ = page.locator("#picture image").all()
    original = cv2.imread(str(images / "tagged.png"))[..., ::-1]
    assert np.abs(fetch(page, photo.get_attribute("href")).astype(int) - original).max() <= 1
    assert np.ptp(picture(page)) > 50
    assert re.search(r"CIEDE2000 \d+\.\d", page.locator("#caption").inner_text())
    assert "40 x 32 pixels" in page.locator("#lines").inner_text()
    slide(page, "Photograph", 40)
    assert float(page.locator("#divider").get_attribute("x1")) > 20

    theirs = of_test_py(images / "tagged.png", tmp_path / "test", "auto")
    path = download(page, "[data-cube=mat]", tmp_path)
    assert np.abs(read_cube(path) - read_cube(theirs)).max() <= 1e-6
    assert read_origin(path) == read_origin(theirs)
    page.get_by_label("linear light").check()
    page.locator("#lines", has_text="Taken as linear").wait_for()
    theirs = of_test_py(images / "tagged.png", tmp_path / "linear", "linear")
    assert np.abs(read_cube(download(page, "[data-cube=mat]", tmp_path)) - read_cube(theirs)).max() <= 1e-6
    load(page, images / "linear.png")
    assert page.get_by_label("linear light").is_checked()


def test_each_click_counts_in_order(page, tmp_path):
    load(page, PHOTO)
    places = [(3, 5), (20, 30), (9, 9), (30, 8), (15, 20)]
    for place in places:
        page.mouse.click(*at(page, *place))
    assert listed(page, 5) == [f"row {row}, column {column}" for row, column in places]
    cube = read_cube(download(page, "[data-cube=mat]", tmp_path))
    spectra = read_table(download(page, "[data-save=csv]", tmp_path))
    assert list(spectra) == ["wavelength_nm", *(f"{row},{column}" for row, column in places)]
    for place, values in zip(places, list(spectra.values())[1:], strict=True):
        assert (values.astype(np.float32) == cube[place]).all()
    page.mouse.click(*at(page, *places[1]))  # again: it goes
    del places[1]
    assert listed(page, 4) == [f"row {row}, column {column}" for row, column in places]
    for place in ((2, 2), (4, 40)):
        page.mouse.click(*at(page, *place))
    listed(page, 6)
    page.mouse.click(*at(page, 36, 38))
    assert "At most 6" in page.locator("#message").inner_text()
    page.locator("#clear").click()
    listed(page, 0)
    assert not page.locator("#message").is_visible()


def test_points_are_dragged_and_regions_averaged(page, tmp_path):
    load(page, PHOTO)
    cube = read_cube(download(page, "[data-cube=mat]", tmp_path))
    page.mouse.click(*at(page, 10, 10))
    listed(page, 1)
    page.mouse.move(*at(page, 10, 10))
    page.mouse.down()
    page.mouse.move(*at(page, 20, 25), steps=5)
    page.mouse.up()
    page.locator("#points", has_text="row 20, column 25").wait_for()
    page.mouse.move(*at(page, 30, 5))
    page.mouse.down()
    page.mouse.move(*at(page, 35, 16), steps=5)
    page.mouse.up()
    assert listed(page, 2)[1].startswith("rows 30-35, columns 5-16, mean of 72 pixels")
    spectra = read_table(download(page, "[data-save=csv]", tmp_path))
    part = cube[30:36, 5:17].reshape(-1, 31).astype(np.float64)
    assert spectra["20,25"] == pytest.approx(cube[20, 25])
    assert spectra["30-35,5-16"] == pytest.approx(part.mean(0))
    assert spectra["sd 30-35,5-16"] == pytest.approx(part.std(0))
    page.get_by_label("each to its maximum").check()
    ends = page.locator(".curve").evaluate_all("curves => curves.map(curve => curve.getBBox().y)")
    assert ends[0] == pytest.approx(ends[1], abs=0.2)  # both have the maximum 1


def test_a_finger_that_holds_still_draws_a_region_one_that_moves_at_once_does_not(browser, address):
    context = browser.new_context(viewport={"width": 390, "height": 700}, has_touch=True)
    page = context.new_page()
    page.goto(address)
    load(page, PHOTO)
    finger = context.new_cdp_session(page)

    def touch(kind, *place):
        points = [dict(zip("xy", at(page, *place), strict=True))] if place else []
        finger.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    for still in (False, True):
        touch("Start", 30, 5)
        if still:
            page.locator("#marks rect").wait_for()
        touch("Move", 32, 9)
        touch("Move", 35, 16)
        touch("End")
        listed(page, int(still))
    assert listed(page, 1)[0].startswith("rows 30-35, columns 5-16, mean of 72 pixels")
    context.close()


def test_by_keyboard(page):
    load(page, PHOTO)
    width, height = map(int, page.locator("#picture").get_attribute("data-size").split())
    page.locator("#picture").focus()
    for key in ("Enter", "ArrowUp", "Shift+ArrowLeft", "Enter"):
        page.keyboard.press(key)
    place = f"row {height // 2 - 1}, column {width // 2 - 10}"
    assert listed(page, 1) == [place]
    page.locator("#readout", has_text=place.capitalize()).wait_for()
    page.keyboard.press("Enter")
    listed(page, 0)


def test_bands_by_slider_and_by_a_click_in_the_plot(page, tmp_path):
    load(page, PHOTO)
    cube = read_cube(download(page, "[data-cube=mat]", tmp_path))
    white = np.maximum(np.percentile(cube.reshape(-1, 31), 99.5, axis=0), 1e-6)
    box = page.locator("#plot svg").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 540 / 560, box["y"] + 50)  # the right end of the axis
    assert np.abs(picture(page) - (cube[..., 30] / white[30]).clip(0, 1) * 255).max() <= 0.51
    slide(page, "Band", -3)
    assert np.abs(picture(page) - (cube[..., 27] / white[27]).clip(0, 1) * 255).max() <= 0.51
    assert "670 nm" in page.locator("#caption").inner_text()
    choose(page, "Three bands")
    slide(page, "Red", 2)
    shown = picture(page)
    assert np.abs(shown - encode_srgb((cube / white)[..., [24, 14, 6]].clip(0, 1)) * 255).max() <= 0.51


def test_views_and_plots_as_pictures(page, tmp_path):
    load(page, PHOTO)
    page.mouse.click(*at(page, 5, 5))
    listed(page, 1)
    for name in ("view", "plot"):
        image = cv2.imread(str(download(page, f"[data-save='{name}.png']", tmp_path)))
        assert max(image.shape) >= 900
        assert np.ptp(image) > 100
        drawing = download(page, f"[data-save='{name}.svg']", tmp_path).read_text()
        assert drawing.startswith("<svg")
        assert "http://www.w3.org/2000/svg" in drawing
        assert 'href="data:image/png' in drawing or name == "plot"
    envi = download(page, "[data-cube=envi]", tmp_path)
    assert {Path(name).suffix for name in zipfile.ZipFile(envi).namelist() if "." in name} == {".hdr", ".img"}
    assert download(page, "[data-cube=tiff]", tmp_path).suffix == ".tif"


def test_cancel_stops_the_work(page, address, images, tmp_path):
    load(page, PHOTO)
    image = cv2.resize(cv2.imread(str(PHOTO)), (1400, 1400))
    cv2.imwrite(str(tmp_path / "large.png"), image)
    before = address.uploads()
    page.set_input_files("#file", tmp_path / "large.png")
    page.locator("#progress", has_text="Reconstructing").wait_for()
    assert len(address.uploads()) == len(before) + 1
    page.get_by_role("button", name="Cancel").click()
    assert not page.locator("#progress").is_visible()
    assert "ARAD_1K_0901" in page.locator("#lines").inner_text()
    load(page, images / "tagged.png")  # it has to wait for the end of the other one
    assert not list(address.folder.glob("*/*/large.png"))
    assert not page.locator("#message").is_visible()


def test_an_error_goes_with_the_next_action(page, images, tmp_path):
    (tmp_path / "text.jpg").write_text("no image at all")
    (tmp_path / "text.mat").write_text("no cube at all")
    cv2.imwrite(str(tmp_path / "tiny.png"), np.full((3, 3, 3), 99, np.uint8))
    (tmp_path / "large.png").write_bytes(bytes(20_100_000))
    load(page, images / "tagged.png")
    for name, words in (("text.jpg", ""), ("tiny.png", "at least 4 x 4"), ("text.mat", ""), ("large.png", "20 MB")):
        page.set_input_files("#file", tmp_path / name)
        page.locator("#message", has_text=f"{name}: ").wait_for()
        assert words in page.locator("#message").inner_text()
        assert str(tmp_path.parent) not in page.locator("#message").inner_text()
        assert "tagged.png" in page.locator("#lines").inner_text()  # what is still shown
    choose(page, "One band")
    assert not page.locator("#message").is_visible()


def test_a_cube_is_opened_without_a_network(page, tmp_path):
    values = np.random.default_rng(0).random((12, 9, 8), np.float32)
    wavelengths = np.linspace(420, 700, 8)
    write_cube(tmp_path / "a.mat", values, wavelengths)
    write_envi(tmp_path / "b.hdr", values, wavelengths, "an origin")
    write_tiff(tmp_path / "c.tif", values, wavelengths, "an origin")
    for paths in (["a.mat"], ["b.img", "b.hdr"], ["c.tif"]):
        load(page, *(tmp_path / name for name in paths))
        assert "9 x 12 pixels, 8 bands, 420-700 nm" in page.locator("#lines").inner_text()
        assert not page.locator("#encoding").is_visible()
        page.mouse.click(*at(page, 7, 3))
        listed(page, 1)
        spectra = read_table(download(page, "[data-save=csv]", tmp_path))
        assert (np.float32(spectra["7,3"]) == values[7, 3]).all()
        page.locator("#clear").click()
    os.chdir(tmp_path)  # where there is no network
    work = Work(Namespace(model_dir=None, encoding="auto", max_side=64, sessions=1), tmp_path)
    assert work.open([tmp_path / "b.hdr"], None, Progress())["name"] == "b"


def test_a_white_point_and_a_lamp(page, images, tmp_path):
    load(page, images / "tagged.png")
    before = read_cube(download(page, "[data-cube=mat]", tmp_path))
    page.mouse.click(*at(page, 8, 12))
    listed(page, 1)
    page.get_by_label("A point of known reflectance").fill("0.5")
    page.get_by_role("button", name="white", exact=True).click()
    page.locator("#scaled", has_text="row 8, column 12").wait_for()
    path = download(page, "[data-cube=mat]", tmp_path)
    factor = 0.5 / before[7:10, 11:14].mean(dtype=np.float64)
    assert read_cube(path) == pytest.approx(before * factor, rel=1e-5)
    assert "row 8, column 12 has the reflectance 0.5" in read_origin(path)
    page.get_by_label("Lamp").select_option("FL11")
    page.locator("#plot", has_text="radiance under FL11").wait_for()
    path = download(page, "[data-cube=mat]", tmp_path)
    assert read_cube(path) == pytest.approx(before * factor * lamp("FL11"), rel=1e-4)
    assert "FL11" in read_origin(path)
    (tmp_path / "my.csv").write_text("380,1\n780,3\n")
    page.set_input_files("#table", tmp_path / "my.csv")
    page.locator("#plot", has_text="radiance under my.csv").wait_for()
    page.get_by_role("button", name="As before").click()
    page.wait_for_function("document.querySelector('#unscale').hidden")
    path = download(page, "[data-cube=mat]", tmp_path)
    assert read_cube(path) == pytest.approx(before * lamp(tmp_path / "my.csv"), rel=1e-4)


def test_ground_truth(page, tmp_path):
    load(page, PHOTO)
    cube = read_cube(download(page, "[data-cube=mat]", tmp_path))
    truth = read_cube(TRUTH).copy()
    truth[:5] = 0
    write_cube(tmp_path / "true.mat", truth, WAVELENGTHS)
    page.mouse.click(*at(page, 9, 11))
    page.set_input_files("#truth", tmp_path / "true.mat")
    page.locator("#scores td").first.wait_for()

    def table():
        cells = page.locator("#scores td").all_inner_texts()
        return dict(zip(cells[::2], cells[1::2], strict=True))

    def expected(floor):
        raised = raise_to_floor(truth, floor)[0]
        values = {name: getattr(metrics, name)(cube.clip(0, 1), raised) for name in SCORES}
        return {score.heading: f"{values[name]:.{score.digits}f}" for name, score in SCORES.items()}

    assert table() == expected(0.01)
    choose(page, "Errors")
    slide(page, "Band", 2)
    raised = raise_to_floor(truth, 0.01)[0]
    errors = np.abs(cube.clip(0, 1) - raised) / raised
    scale = float(page.locator("#caption .scale").inner_text().split("or")[0].lstrip("0") or 1)
    shown = cv2.applyColorMap(np.uint8((errors[..., 17] / scale).clip(0, 1) * 255 + 0.5), cv2.COLORMAP_MAGMA)
    assert np.abs(np.int16(picture(page)) - shown[..., ::-1]).max() <= 6  # a rounding may choose the next colour
    page.get_by_label("dark values raised to").fill("0.1")
    page.get_by_label("dark values raised to").press("Enter")
    page.locator("#scores", has_text="raised to 0.1").wait_for()
    assert table() == expected(0.1)
    write_cube(tmp_path / "size.mat", truth[:9], WAVELENGTHS)
    page.set_input_files("#truth", tmp_path / "size.mat")
    page.locator("#message", has_text="9 pixels, 31 bands, but the cube has").wait_for()


def test_confidence_in_the_colours_of_its_legend(page, tmp_path):
    load(page, PHOTO)
    maps = load_cube(download(page, "[data-cube=mat]", tmp_path)).maps
    levels = next(values for values in maps.values() if values.dtype == np.uint8)
    shown = choose(page, "Confidence")
    assert (shown == np.uint8(LEVEL_COLOURS * 255 + 0.5)[levels]).all()
    legend = page.locator("#caption .level").evaluate_all("all => all.map(one => one.style.background)")
    assert legend == [f"rgb({', '.join(f'{255 * part:.0f}' for part in colour)})" for colour in LEVEL_COLOURS[::-1]]
    page.get_by_text("What does this mean?").click()
    assert Confidence.load(MODEL).statement in page.locator("#caption").inner_text()


def test_transparent_pixels_are_hidden(page, tmp_path):
    pixels = np.full((16, 20, 4), 200, np.uint8)
    pixels[..., 3] = 255
    pixels[:8, :10] = 0
    Image.fromarray(pixels).save(tmp_path / "logo.png")
    load(page, tmp_path / "logo.png")
    assert (picture(page)[..., 3] == pixels[..., 3]).all()
    page.mouse.click(*at(page, 2, 2))
    page.locator("#message", has_text="ransparent").wait_for()
    page.mouse.click(*at(page, 12, 2))
    assert listed(page, 1) == ["row 12, column 2"]
    assert not page.locator("#message").is_visible()
    assert transparent(PHOTO, read_rgb(PHOTO).shape) is None


def test_a_full_disk_is_said(page, address):
    before = resource.prlimit(address.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(address.pid, resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        page.set_input_files("#file", PHOTO)
        page.locator("#message", has_text="Free some space").wait_for()
    finally:
        resource.prlimit(address.pid, resource.RLIMIT_FSIZE, before)
    load(page, PHOTO)


def test_files_that_claim_to_be_huge_are_refused_by_their_headers(page, address, tmp_path):
    Image.new("1", (16000, 16000)).save(tmp_path / "bomb.png")
    with h5py.File(tmp_path / "bomb.mat", "w") as file:
        file.create_dataset("cube", (310, 4000, 4000), "f4", chunks=(1, 100, 100))
    for name, words in (("bomb.png", "64 million pixels"), ("bomb.mat", "19.8 GB")):
        page.set_input_files("#file", tmp_path / name)
        page.locator("#message", has_text=f"{name}: ").wait_for()
        assert words in page.locator("#message").inner_text()
    status = Path(f"/proc/{address.pid}/status").read_text()
    assert int(re.search(r"VmHWM:\s+(\d+)", status)[1]) < 2_500_000  # kB


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:{port}"}, 200),
        ({"Host": "[::1]:{port}", "Origin": "http://[::1]:{port}"}, 200),
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Host": "rebound.example:{port}"}, 400),
        ({"Host": "127.0.0.1.rebound.example"}, 400),
        ({"Origin": "https://another.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_other_sites_are_refused(address, headers, status):
    port = address.rpartition(":")[2]
    headers = {key: value.format(port=port) for key, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
    connection.request("POST", "/open?files=%5B%5B%22a.png%22,3%5D%5D", "abc", headers)
    answer = connection.getresponse()
    assert answer.status == status
    assert status != 200 or json.loads(answer.read().splitlines()[-1])["error"].startswith("a.png: ")
    connection.close()
    connection.request("POST", "/open?files=%5B%5B%22a.png%22,30000000%5D%5D", "", {"Host": f"localhost:{port}"})
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.slow
def test_a_simulated_scene_is_scored(page):
    page.locator("#example").click()
    page.locator("#scores td").first.wait_for()
    assert "256 x 256 pixels" in page.locator("#lines").inner_text()


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 820, 1366])
def test_sizes_of_screens(page, images, width):
    page.set_viewport_size({"width": width, "height": 800})
    load(page, images / "tagged.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    picture, plot = (page.locator(name).bounding_box() for name in ("#picture", "#plot"))
    assert picture["y"] < 400
    assert (plot["y"] > picture["y"] + picture["height"]) == (width < 760)


def test_port_that_is_taken(fails):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        fails("test/app.py", "--port", port, "--model_dir", MODEL, names=f"--port {port}")


def test_port_that_cannot_be(script):
    assert "from 1 to 65535, not 70000" in script("test/app.py", "--port", 70000, ok=False).stderr


def test_a_network_trained_on_encoded_images_gets_them_as_they_are_stored(images, tmp_path):
    model, path = load_model(MODEL), images / "tagged.png"
    work = Work(Namespace(model_dir=None, encoding="linear", max_side=64, sessions=1), tmp_path)
    network = LoadedNetwork(MODEL, "", WAVELENGTHS, True, False, Reconstructor(model), None)
    work.network = lambda kind: network
    scene = work.reconstruct(path, LINEAR, Progress())
    assert (scene.cube == Reconstructor(model)(normalise_rgb(read_rgb(path)))).all()
    assert "as they are stored" in scene.lines[1]


def test_each_kind_of_image_has_its_network(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT / "test")
    options = Namespace(model_dir=None, encoding="auto", max_side=64, sessions=1)
    work = Work(options, tmp_path)
    assert [work.network(kind).path.name for kind in (PHOTOGRAPH, LINEAR)] == ["model.pth", "linear.pth"]
    options.model_dir = MODEL
    assert [Work(options, tmp_path).network(kind).path for kind in (PHOTOGRAPH, LINEAR)] == [MODEL, MODEL]


def test_a_cancelled_reconstruction_ends_within_a_strip(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT / "test")
    work = Work(Namespace(model_dir=None, encoding="auto", max_side=999, sessions=1), tmp_path)
    progress, parts = Progress(), []
    say = progress.say

    def stop_soon(stage, part=None):
        parts.append(part)
        progress.cancelled = len(parts) > 4
        say(stage, part)

    progress.say = stop_soon
    cv2.imwrite(str(tmp_path / "wide.png"), cv2.resize(cv2.imread(str(PHOTO)), (40, 600)))
    with pytest.raises(Cancelled):
        work.reconstruct(tmp_path / "wide.png", None, progress)
    assert len(parts) < 9
    assert work.turn.acquire(blocking=False)


def test_folders_of_killed_processes_are_swept_those_of_living_ones_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = "import drcr.app.guard as g\nwith g.temporary_home() as home: print(home, flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    ) as process:
        theirs = Path(process.stdout.readline().strip())
        (theirs / "results").mkdir()
        (tmp_path / f"{PREFIX}of_something_else").mkdir()
        with temporary_home() as ours:
            assert theirs.is_dir()
        process.kill()
        process.wait()
        assert theirs.is_dir()
        with temporary_home() as ours:
            assert sorted(tmp_path.iterdir()) == sorted([ours, tmp_path / f"{PREFIX}of_something_else"])


@pytest.mark.parametrize("known", [True, False], ids=["wavelengths", "no wavelengths"])
def test_ground_truth_of_other_bands(tmp_path, known):
    rng = np.random.default_rng(0)
    wavelengths = np.linspace(453.5, 648, 28)
    cube, truth = rng.random((2, 12, 14, 28), np.float32) * 0.8 + 0.1
    write_cube(tmp_path / "truth.mat", truth, wavelengths if known else None)
    scene = PageScene("photo", [], cube, wavelengths, "")
    scene.compare(tmp_path / "truth.mat", 0.01)
    assert scene.comparison.errors.shape == cube.shape
    assert scene.comparison.scores == pytest.approx([getattr(metrics, name)(cube, truth) for name in SCORES])
    write_cube(tmp_path / "other.mat", truth, wavelengths + 30)
    with pytest.raises(DataError, match="but the cube has"):
        scene.compare(tmp_path / "other.mat", 0.01)
    scipy.io.savemat(tmp_path / "none.mat", {"cube": cube})
    with pytest.raises(DataError, match="wavelengths"):
        open_cube([tmp_path / "none.mat"])
