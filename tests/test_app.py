"""test/app.py: the page, in a real browser, against the real server."""

import csv
import http.client
import importlib.util
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import zlib
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

from drcr import metrics
from drcr.app import server
from drcr.app.guard import LOCK, PREFIX, temporary_home
from drcr.app.scene import ERROR, LINEAR, PHOTOGRAPH, PageScene
from drcr.checkpoint import load_model
from drcr.confidence.model import Confidence
from drcr.cube import WAVELENGTHS, raise_to_floor
from drcr.formats.maps import LEVEL_COLOURS, LEVELS
from drcr.formats.mat import load_cube, read_cube, read_origin, write_cube
from drcr.images import normalise_rgb, read_rgb
from drcr.inference import Reconstructor
from drcr.metrics import SCORES
from drcr.utils.files import DataError

if importlib.util.find_spec("gradio") is None:
    pytest.skip("needs Gradio: pip install gradio", allow_module_level=True)

MODEL = ROOT / "test/model/model.pth"
PHOTO = DATA / "Dataset/Valid_RGB/ARAD_1K_0901.jpg"
TRUTH = DATA / "Dataset/Valid_spectral/ARAD_1K_0901.mat"
MAX_SIDE = 64
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
    """The address of the page, with the server's process id."""

    def __new__(cls, text, pid):
        self = super().__new__(cls, text)
        self.pid = pid
        return self


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
    (leftover / "results").mkdir(parents=True)
    (leftover / LOCK).touch()
    port = free_port()
    command = [sys.executable, "-c", LISTENED, folder / "hosts", ROOT / "test/app.py", "--model_dir", MODEL]
    command += ["--port", str(port), "--max_side", str(MAX_SIDE), "--max_upload", "1"]
    with open(folder / "output", "w") as output:
        server = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            env={**os.environ, "TMPDIR": str(folder / "tmp")},
        )
    line = server.stdout.readline()
    assert line == f"http://127.0.0.1:{port} (Ctrl-C ends it)\n", (folder / "output").read_text()
    assert not leftover.exists()
    yield Address(line.split()[0], server.pid)
    server.send_signal(signal.SIGINT)
    assert server.wait(30) == 130
    assert not list((folder / "tmp").iterdir())
    assert "Traceback" not in (folder / "output").read_text()
    assert set((folder / "hosts").read_text().split()) <= {"127.0.0.1", "localhost", "None"}


@pytest.fixture
def page(browser, address):
    """Return the open page; it has asked nothing of other machines, and nothing went wrong in it."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(30_000)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(address)
    page.wait_for_selector(".picture .hint")
    yield page
    page.close()
    assert len(asked) > 10
    foreign = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert not foreign
    assert not errors


@pytest.fixture(scope="module")
def reconstructed(tmp_path_factory):
    """Return a folder of images, and folders of what test.py makes of them with --encoding linear and srgb."""
    folder = tmp_path_factory.mktemp("reconstructed")
    images = folder / "images"
    images.mkdir()
    (images / "photo.jpg").write_bytes(PHOTO.read_bytes())
    deep = np.random.default_rng(0).integers(0, 60_000, (12, 10, 3), np.uint16)
    for name in ("deep_png.png", "deep_tiff.tif"):
        cv2.imwrite(str(images / name), cv2.resize(deep, (40, 48), interpolation=cv2.INTER_CUBIC))
    pixels = Image.fromarray(np.random.default_rng(1).integers(1, 256, (16, 20, 3), np.uint8))
    srgb, gamma = PngInfo(), PngInfo()
    srgb.add(b"sRGB", b"\0")
    gamma.add(b"gAMA", (100_000).to_bytes(4, "big"))
    pixels.save(images / "tagged.png", pnginfo=srgb)
    pixels.save(images / "linear.png", pnginfo=gamma)
    for encoding in ("linear", "srgb"):
        options = ["--RGB_dir", images, "--model_dir", MODEL, "--result_dir", folder / encoding]
        load_script("test/test.py").main([*map(str, options), "--encoding", encoding])
    return images, folder / "linear", folder / "srgb"


def drop(page, zone, path, status):
    """Drop a file; wait until the page's status says something with `status` in it, and return that."""
    page.set_input_files(f"#{zone} input[type=file]", path)
    page.locator(".status", has_text=status).last.wait_for()
    return page.locator(".status").last.inner_text()


def load(page, path=PHOTO):
    drop(page, "image", path, f"{Path(path).name}: ")
    page.wait_for_selector(".picture svg image")


def switch(page, choice):
    """Choose what the image is; wait until it has been reconstructed again."""
    before = page.locator(".status").last.inner_text()
    page.locator("#encoding").get_by_label(choice, exact=True).check()
    page.wait_for_function("before => document.querySelector('.status').innerText !== before", arg=before)
    return page.locator(".status").last.inner_text()


def chosen(page):
    """Return what the page takes the image as."""
    return page.locator("#encoding input:checked").get_attribute("value")


def shown(page, place=".picture"):
    """Return the picture that is shown, (H, W) or (H, W, 3), uint8."""
    source = page.locator(f"{place} svg image").get_attribute("href")
    data = page.request.get(f"{page.url.rstrip('/')}/{source}").body()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return image[..., ::-1] if image.ndim == 3 else image


def click(page, row, column, shape, number):
    """Click into the middle of a pixel; wait until its mark is there."""
    box = page.locator(".picture svg image").bounding_box()
    x, y = ((at + 0.5) / n * box[side] for at, n, side in ((column, shape[1], "width"), (row, shape[0], "height")))
    place = box["x"] + x, box["y"] + y
    # a bar of progress may still lie on the picture
    page.wait_for_function("place => document.elementFromPoint(...place).closest('svg[data-views]')", arg=place)
    page.mouse.click(*place)
    page.locator(".picture svg g", has_text=str(number)).wait_for()


def slide(page, nm):
    """Move the slider to a wavelength, key by key; wait until its picture is there."""
    slider = page.locator("input[type=range]")
    slider.focus()
    step = 10 if nm > float(slider.input_value()) else -10
    while float(slider.input_value()) != nm:
        page.keyboard.press("ArrowRight" if step > 0 else "ArrowLeft")
    page.locator(".caption", has_text=f"{nm} nm").wait_for()
    page.wait_for_function(
        "() => { const picture = document.querySelector('.picture svg');"
        "return picture.querySelector('image').getAttribute('href') === picture.dataset.wanted; }"
    )


def download(page, button, folder):
    with page.expect_download() as started:
        page.get_by_text(button).click()
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    return path


def read_table(path):
    with open(path, newline="") as file:
        names, *rows = csv.reader(file)
    return dict(zip(names, np.array(rows, np.float64).T, strict=True))


def table(page):
    """Return the scores that the page shows, by heading."""
    cells = page.locator(".scores td").all_inner_texts()
    return dict(zip(cells[::2], cells[1::2], strict=True))


def expected_table(rec, truth):
    values = (getattr(metrics, name)(rec.clip(0, 1), truth) for name in SCORES)
    return {score.heading: f"{value:.{score.digits}f}" for score, value in zip(SCORES.values(), values, strict=True)}


def test_bands_spectra_and_files(page, reconstructed, tmp_path):
    images, _, cubes = reconstructed
    load(page, images / "photo.jpg")
    path = download(page, "Download the cube", tmp_path)
    assert path.name == "photo.mat"
    cube = read_cube(path)
    assert np.abs(cube - read_cube(cubes / "photo.mat")).max() <= 1e-6
    assert read_origin(path) == read_origin(cubes / "photo.mat")
    assert (load_cube(path).wavelengths == WAVELENGTHS).all()

    for nm in (600, 450):
        slide(page, nm)
        band = cube[..., int(nm - 400) // 10]
        grey = (band / np.percentile(band, 99.5)).clip(0, 1) * 255
        assert np.abs(shown(page) - grey).max() <= 0.51
        caption = page.locator(".caption").inner_text()
        assert caption.startswith(f"{nm} nm")
        assert page.get_by_label("Band", exact=True).is_checked()
    page.get_by_label("RGB input").check()
    page.wait_for_function("document.querySelector('.caption').innerText.includes('network')")

    points = [(3, 5), (cube.shape[0] - 1, cube.shape[1] - 2)]
    for number, point in enumerate(points, 1):
        click(page, *point, cube.shape, number)
    assert page.locator(".caption").inner_text().startswith("The image")
    spectra = read_table(download(page, "Download spectra", tmp_path))
    assert list(spectra) == ["wavelength_nm", *(f"{row},{column}" for row, column in points)]
    assert (spectra.pop("wavelength_nm") == WAVELENGTHS).all()
    for (row, column), values in zip(points, spectra.values(), strict=True):
        assert (np.float32(values) == cube[row, column]).all()

    page.get_by_text("Clear the points").click()
    page.wait_for_selector(".spectra .hint")
    assert page.locator(".picture svg g").count() == 0
    click(page, 7, 7, cube.shape, 1)


@pytest.mark.parametrize(
    ("name", "choice", "said", "then"),
    [
        ("tagged.png", PHOTOGRAPH, "Decoded from sRGB (as tagged)", "although tagged sRGB"),
        ("linear.png", LINEAR, "Linear (as tagged)", "decoded from sRGB although the file says"),
        ("photo.jpg", PHOTOGRAPH, "No tags say how it is encoded: taken as a photograph", "Taken as linear"),
        ("deep_png.png", PHOTOGRAPH, "No tags say", "Taken as linear"),
        ("deep_tiff.tif", PHOTOGRAPH, "No tags say", "Taken as linear"),
    ],
)
def test_photographs_and_linear_images(page, reconstructed, tmp_path, name, choice, said, then):
    images, linear, srgb = reconstructed

    def equals(folder):
        cube = read_cube(download(page, "Download the cube", tmp_path))
        return np.abs(cube - read_cube((folder / name).with_suffix(".mat"))).max() <= 1e-6

    words = drop(page, "image", images / name, f"{name}: ")
    page.wait_for_selector(".picture svg image")
    assert said in words
    assert chosen(page) == choice
    assert equals(srgb)
    other = LINEAR if choice == PHOTOGRAPH else PHOTOGRAPH
    assert then.lower() in switch(page, other).lower()
    assert chosen(page) == other
    if other == LINEAR:
        assert equals(linear)
    assert said.split(":")[0].lower() in switch(page, choice).lower() or choice == PHOTOGRAPH
    assert equals(srgb)


def test_the_page_says_where_not_to_trust(page, reconstructed, tmp_path):
    images, _, _ = reconstructed
    load(page, images / "photo.jpg")
    maps = load_cube(download(page, "Download the cube", tmp_path)).maps
    page.get_by_label("Confidence").check()
    page.wait_for_function("document.querySelector('.picture svg image').getAttribute('href').includes('confidence')")
    caption = page.locator(".caption").inner_text()
    for level, words in enumerate(LEVELS):
        assert f"{words} {(maps['confidence'] == level).mean():.0%}" in caption
    assert Confidence.load(MODEL).statement in caption
    # blue is believable, yellow doubtful, vermilion not to be believed: shades of them are recognised by their hue
    colours = shown(page).reshape(-1, 3)
    hues = colours / np.linalg.norm(colours, axis=1, keepdims=True)
    wanted = LEVEL_COLOURS / np.linalg.norm(LEVEL_COLOURS, axis=1, keepdims=True)
    assert np.array_equal((hues @ wanted.T).argmax(1), maps["confidence"].ravel())


@pytest.mark.parametrize("width", [1024, 1200, 1440])
def test_both_choices_can_be_seen(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    frame = page.locator("#encoding").bounding_box()
    for choice in (PHOTOGRAPH, LINEAR):
        label = page.locator("#encoding label", has_text=choice).bounding_box()
        assert label["x"] + label["width"] <= frame["x"] + frame["width"]


def test_points_and_ground_truth_stay_when_the_image_is_taken_as_linear(page, reconstructed):
    images, linear, _ = reconstructed
    load(page, images / "photo.jpg")
    truth = read_cube(TRUTH)
    click(page, 9, 11, truth.shape, 1)
    drop(page, "truth", TRUTH, "")
    page.wait_for_selector(".scores td")
    page.get_by_label("Error").check()
    before = table(page)
    switch(page, LINEAR)
    assert table(page) == expected_table(read_cube(linear / "photo.mat"), raise_to_floor(truth, 0.01)[0])
    assert table(page) != before
    assert page.locator(".picture svg g").count() == 1
    assert page.get_by_label("Error").is_checked()


def test_a_full_disk_is_said_not_shown_as_an_empty_picture(page, address):
    before = resource.prlimit(address.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(address.pid, resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        assert "cannot keep the files" in drop(page, "image", PHOTO, "Free some space")
        assert page.locator(".picture svg").count() == 0
        resource.prlimit(address.pid, resource.RLIMIT_FSIZE, (500, before[1]))
        drop(page, "image", PHOTO, "could not be kept: the disk")
    finally:
        resource.prlimit(address.pid, resource.RLIMIT_FSIZE, before)
    load(page)
    drop(page, "truth", TRUTH, "")
    page.wait_for_selector(".scores td")
    resource.prlimit(address.pid, resource.RLIMIT_FSIZE, (300, before[1]))
    try:  # maps of errors only
        floor = page.get_by_label("Raise dark values")
        floor.fill("0.1")
        floor.press("Enter")
        page.locator(".status", has_text="Free some space").last.wait_for()
    finally:
        resource.prlimit(address.pid, resource.RLIMIT_FSIZE, before)


def test_files_that_claim_to_be_huge_are_refused_by_their_headers(page, address, tmp_path):
    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = struct.pack(">IIBBBBB", 16000, 16000, 8, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "bomb.png").write_bytes(png)
    with h5py.File(tmp_path / "bomb.mat", "w") as file:
        file.create_dataset("cube", (31, 4000, 4000), "f4", chunks=(1, 100, 100))
    scipy.io.savemat(tmp_path / "old.mat", {"cube": np.zeros((1500, 1500, 31), np.uint8)}, do_compression=True)
    scipy.io.savemat(tmp_path / "struct.mat", {"cube": {"data": np.zeros(60_000_000, np.uint8)}}, do_compression=True)
    load(page)
    assert "64 million pixels" in drop(page, "image", tmp_path / "bomb.png", "bomb.png")
    assert "31 x 4000 x 4000" in drop(page, "truth", tmp_path / "bomb.mat", "bomb.mat")
    assert "1500 x 1500 x 31" in drop(page, "truth", tmp_path / "old.mat", "old.mat")
    assert "60 MB" in drop(page, "truth", tmp_path / "struct.mat", "struct.mat")
    status = Path(f"/proc/{address.pid}/status").read_text()
    assert int(re.search(r"VmHWM:\s+(\d+)", status)[1]) < 1_500_000  # kB


def test_too_large_an_upload_is_refused(page, address, tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(1_100_000))
    drop(page, "image", tmp_path / "large.png", "large.png: 2 MB, but at most 1 MB")
    load(page)
    boundary = b"--x\r\nContent-Disposition: form-data; name=files; filename=a.png\r\n\r\n"
    body = boundary + bytes(1_100_000) + b"\r\n--x--\r\n"
    assert request(address, "POST", "/gradio_api/upload", body, MULTIPART) == 413


def request(address, method, path, body, headers):
    """Send a request as no browser would; return the status of the answer."""
    name, _, port = address.removeprefix("http://").rpartition(":")
    connection = http.client.HTTPConnection(name, int(port), timeout=30)
    connection.request(method, path, body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:{port}"}, 200),
        ({"Host": "[::1]:{port}", "Origin": "http://[::1]:{port}"}, 200),
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Host": "rebound.example:{port}"}, 403),
        ({"Host": "127.0.0.1.rebound.example"}, 403),
        ({"Origin": "https://another.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_other_sites_are_refused(address, headers, status):
    port = address.rpartition(":")[2]
    headers = {key: value.format(port=port) for key, value in headers.items()}
    body = "--x\r\nContent-Disposition: form-data; name=files; filename=a.png\r\n\r\nabc\r\n--x--\r\n"
    assert request(address, "GET", "/config", None, headers) == status
    assert request(address, "POST", "/gradio_api/upload", body, headers | MULTIPART) == status


def test_true_cube(page, tmp_path):
    load(page)
    cube = read_cube(download(page, "Download the cube", tmp_path))
    truth = read_cube(TRUTH).copy()
    truth[:5] = 0
    write_cube(tmp_path / "true.mat", truth, WAVELENGTHS)
    click(page, 9, 11, cube.shape, 1)
    drop(page, "truth", tmp_path / "true.mat", "")
    page.wait_for_selector(".scores td")
    raised = raise_to_floor(truth, 0.01)[0]
    assert table(page) == expected_table(cube, raised)
    assert f"{(truth < 0.01).mean():.1%}" in page.locator(".scores .note").inner_text()
    spectra = read_table(download(page, "Download spectra", tmp_path))
    assert list(spectra) == ["wavelength_nm", "9,11", "truth 9,11"]
    assert (np.float32(spectra["truth 9,11"]) == raised[9, 11]).all()

    page.get_by_label("Error").check()
    slide(page, 640)
    error = (np.abs(cube.clip(0, 1) - raised) / raised)[..., 24]
    expected = cv2.applyColorMap(np.uint8(error.clip(0, 1) * 255 + 0.5), cv2.COLORMAP_MAGMA)[..., ::-1]
    assert np.abs(np.int16(shown(page)) - expected).max() <= 4  # a rounding may choose the next colour

    floor = page.get_by_label("Raise dark values")
    before = table(page)
    floor.fill("0.1")
    floor.press("Enter")
    page.wait_for_function(f"!document.querySelector('.scores').innerText.includes('{before['MRAE']}')")
    assert table(page) == expected_table(cube, raise_to_floor(truth, 0.1)[0])


def test_too_large_is_scaled(page, tmp_path):
    image = cv2.resize(cv2.imread(str(PHOTO)), (130, 96))
    cv2.imwrite(str(tmp_path / "large.png"), image)
    words = drop(page, "image", tmp_path / "large.png", "scaled")
    assert "96 x 130 pixels, scaled down to 47 x 64" in words
    assert read_cube(download(page, "Download the cube", tmp_path)).shape == (47, 64, 31)


def test_bad_files_get_a_word(page, tmp_path):
    (tmp_path / "text.jpg").write_text("no image at all")
    cv2.imwrite(str(tmp_path / "tiny.png"), np.full((3, 3, 3), 99, np.uint8))
    cube = np.full((20, 20, 31), 0.5, np.float32)
    write_cube(tmp_path / "size.mat", cube, WAVELENGTHS)
    other = read_cube(TRUTH)
    write_cube(tmp_path / "bands.mat", other[..., :9], WAVELENGTHS[:9])
    write_cube(tmp_path / "wavelengths.mat", other, WAVELENGTHS + 300)
    (tmp_path / "text.mat").write_text("no cube at all")

    assert drop(page, "truth", TRUTH, "first") == "Load an image first."
    load(page)
    for zone, name, words in (
        ("image", "text.jpg", "image"),
        ("image", "tiny.png", "3 x 3 pixels; at least 4 x 4 are needed"),
        ("truth", "size.mat", "20 x 20 pixels, 31 bands, but the reconstruction is"),
        ("truth", "bands.mat", "9 bands, but the reconstruction is"),
        ("truth", "wavelengths.mat", "700-1000 nm, but the reconstruction has 31 bands, 400-700 nm"),
        ("truth", "text.mat", "text.mat: "),
    ):
        message = drop(page, zone, tmp_path / name, words)
        assert message.startswith(f"{name}: ")
        assert page.locator(".bad").is_visible()
        assert page.locator("[data-testid=toast-body]").count() == 0
    for number in ("", "0", "1"):
        page.get_by_label("Raise dark values").fill(number)
        drop(page, "image", tmp_path / "text.jpg", "text.jpg: ")  # so that the next word is a new one
        drop(page, "truth", TRUTH, "Dark values can be raised to a number")
    click(page, 2, 2, read_cube(TRUTH).shape, 1)
    assert page.locator(".bad").count() == 0


def test_simulated_scene(page, tmp_path):
    page.get_by_role("button", name="Use a simulated scene").click()
    page.wait_for_selector(".scores td")
    assert 0 < float(table(page)["MRAE"]) < 2
    assert shown(page).shape == shown(page, ".scores").shape
    assert read_cube(download(page, "Download the cube", tmp_path)).shape[2] == 31


@pytest.fixture
def environment(monkeypatch):
    """Undo what app.py sets in this process's environment."""
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE", "NO_PROXY", "no_proxy", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")


def test_port_that_is_taken(fails):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        fails("test/app.py", "--port", port, "--model_dir", MODEL, names=f"--port {port}", process=True)


def test_without_gradio(fails, environment, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    message = fails("test/app.py", "--model_dir", MODEL, names="app.py: ")
    assert 'pip install "gradio>=6.20"' in message


def test_a_network_trained_on_encoded_images_gets_them_as_they_are_stored(reconstructed, environment, tmp_path):
    app, path = server, reconstructed[0] / "tagged.png"
    gr = app.import_gradio()
    model = load_model(MODEL)
    model.input_encoding = "stored"
    with gr.Blocks():
        parts = app.lay_out(gr, WAVELENGTHS)
    networks = dict.fromkeys((app.PHOTOGRAPH, app.LINEAR), (MODEL, model))
    options = Namespace(encoding="auto", max_side=MAX_SIDE)
    updates = app.Handlers(gr, parts, networks, options, tmp_path).load(str(path), 550, lambda *_, **__: None)
    scene = updates[parts.state]
    assert (scene.cube == Reconstructor(model)(normalise_rgb(read_rgb(path)))).all()
    assert scene.encoding == updates[parts.encoding].value == LINEAR
    assert not updates[parts.encoding].interactive
    options.encoding = "srgb"
    with pytest.raises(DataError, match="omit --encoding srgb"):
        app.Handlers(gr, parts, networks, options, tmp_path)


def test_each_kind_of_image_has_its_network(monkeypatch):
    app = server
    monkeypatch.chdir(ROOT / "test")
    networks = app.load_networks(None)
    assert [path.name for path, _ in networks.values()] == ["model.pth", "linear.pth"]
    assert {path for path, _ in app.load_networks(MODEL).values()} == {MODEL}


def test_port_that_cannot_be(script):
    assert "from 1 to 65535, not 70000" in script("test/app.py", "--port", 70000, ok=False).stderr


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
    scene = PageScene("photo", "", rng.random((12, 14, 3), np.float32), cube, wavelengths, tmp_path)
    scene.compare(tmp_path / "truth.mat", 0.01)
    assert len(scene.views[ERROR]) == 28
    assert scene.comparison.scores == [getattr(metrics, name)(cube, truth) for name in SCORES]
