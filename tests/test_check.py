"""Dataset/check.py: each fault is found and named, sound folders pass, and memory does not grow with the scenes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import scipy.io
from helpers import DATA, ROOT, peak_memory

from drcr.formats.mat import read_cube, write_cube
from drcr.preparation.prepare import prepare
from drcr.utils.files import DataError

CHECK = "Dataset/check.py"
SIZE = (40, 48)
PATCH = ("--patch_size", 32)
CUBE, RGB, VALID_CUBE = "Train_spectral/t2.mat", "Train_RGB/t2.png", "Valid_spectral/v1.mat"


def make_cube(seed, size=SIZE):
    """Return a cube of blotches in two colours, in (0, 1)."""
    rng = np.random.default_rng(seed)
    blotches = [cv2.GaussianBlur(rng.random(size, np.float32), (0, 0), 2) for _ in range(2)]
    first, second = (np.clip(3 * (image - 0.5) + 0.4, 0.05, 0.8)[..., None] for image in blotches)
    slope = np.linspace(0.2, 1, 31, dtype=np.float32)
    return first * slope + 0.2 * second * slope[::-1]


def image_of(cube):
    """Return an 8-bit image (H, W, 3), blue first, of a cube."""
    return np.uint8(np.clip(250 * np.stack([cube[..., i : i + 10].mean(2) for i in (0, 10, 20)], 2), 0, 255))


def write_scene(folder, part, name, cube):
    for kind in ("spectral", "RGB"):
        (folder / f"{part}_{kind}").mkdir(parents=True, exist_ok=True)
    write_cube(folder / f"{part}_spectral/{name}.mat", cube)
    cv2.imwrite(str(folder / f"{part}_RGB/{name}.png"), image_of(cube))


@pytest.fixture
def folder(tmp_path):
    """Return a sound data folder: t1, t2, t3 to train with, v1 and v2 to validate."""
    for i, name in enumerate(("t1", "t2", "t3", "v1", "v2")):
        write_scene(tmp_path / "data", "Train" if name[0] == "t" else "Valid", name, make_cube(i))
    return tmp_path / "data"


@pytest.fixture
def check(script, folder):
    """Run the script on the folder; returns what it printed."""

    def run(*options, ok=True, **kwargs):
        process = script(CHECK, "--data_path", folder, *PATCH, *options, ok=ok, **kwargs)
        assert "Traceback" not in process.stderr
        if not ok:
            assert process.returncode == 1
        last = process.stdout.splitlines()[-3 if ok else -1]
        assert ok or last.startswith("not ready: "), process.stdout
        return process.stdout

    return run


def faults(printed, word="error"):
    return [line for line in printed.splitlines() if line.startswith(f"{word}: ")]


def change(name, function):
    """Return what rewrites a cube of a folder."""
    return lambda folder: write_cube(folder / name, function(read_cube(folder / name).copy()))


def put(*where, value):
    """Return what sets values of a cube."""

    def function(cube):
        cube[where] = value
        return cube

    return function


def prepares(folder):
    """Return whether the preparation takes the folder, and the training both parts."""
    try:
        parts = [
            prepare(folder / f"{part}_spectral", folder / f"{part}_RGB", folder / "prepared" / part, *size)
            for part, size in (("Train", (32, 8)), ("Valid", ()))
        ]
    except DataError:
        return False
    return np.array_equal(parts[0].wavelengths, parts[1].wavelengths)


def test_a_sound_folder(check, folder, script):
    printed = check()
    assert (
        "Train: 3 scenes\n  pixels  40 x 48\n  bands   31 bands, 400-700 nm\n  images  3 images taken as linear"
        in printed
    )
    assert printed.count("no values <= 0") == 2
    assert not faults(printed) + faults(printed, "note")
    assert prepares(folder)
    shutil.rmtree(folder / "prepared")
    assert "ready: 3 training and 2 validation scenes" in printed
    # the next commands are what it says they are
    commands = [line.split() for line in printed.splitlines() if line.startswith("  python ")]
    for (_, name, *options), out in zip(commands, ("--train_data_path", "--valid_data_path"), strict=True):
        script(f"train/{name}", *options, out, folder.parent / out)
    assert sorted(path.name for path in folder.iterdir()) == [
        "Train_RGB",
        "Train_spectral",
        "Valid_RGB",
        "Valid_spectral",
    ]


def test_the_golden_folder(script):
    printed = script(CHECK, "--data_path", DATA / "Dataset", "--patch_size", 16).stdout
    assert "ready: 2 training and 2 validation scenes" in printed
    assert "1 of 169,632 values <= 0" in printed
    assert "skipped: Train/ARAD_1K_0002\n" in printed


ERRORS = {
    "no folder": (lambda folder: shutil.rmtree(folder / "Valid_RGB"), "Valid_RGB", "no such folder"),
    "empty folder": (lambda folder: [p.unlink() for p in folder.glob("Train_RGB/*")], "Train_RGB", "no RGB images"),
    "cube alone": (lambda folder: (folder / RGB).unlink(), CUBE, "no RGB image of the same name"),
    "image alone": (lambda folder: (folder / CUBE).unlink(), RGB, "no cube of the same name"),
    "sizes": (change(CUBE, lambda cube: cube[:-2]), RGB, "40 x 48 pixels, but its cube"),
    "unknown bands": (change(CUBE, lambda cube: cube[..., :28]), CUBE, "28 bands"),
    "NaN": (change(CUBE, put(3, 4, 5, value=np.nan)), CUBE, "1 NaN"),
    "infinity": (change(VALID_CUBE, put(3, 4, slice(2), value=np.inf)), VALID_CUBE, "2 NaN or infinite"),
    "all dark": (
        lambda folder: [change(f"Valid_spectral/v{i}.mat", put(0, 0, 0, value=0))(folder) for i in (1, 2)],
        "Valid_spectral",
        "none is left",
    ),
    "too small to train": (
        lambda folder: write_scene(folder, "Train", "t2", make_cube(9, (48, 31))),
        RGB,
        "48 x 31 pixels; training needs at least 32 x 32",
    ),
    "too small to validate": (
        lambda folder: write_scene(folder, "Valid", "v1", make_cube(9, (5, 40))),
        "Valid_RGB/v1.png",
        "5 x 40 pixels; validation needs at least 6 x 4",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_the_preparation_refuses(check, folder, case):
    spoil, name, says = ERRORS[case]
    spoil(folder)
    assert not prepares(folder)
    (line, *more) = faults(check(ok=False))
    assert name in line
    assert says in line
    assert not more


def test_other_bands_than_most(check, folder):
    write_cube(folder / "Train_spectral/t1.mat", make_cube(0), np.linspace(410, 710, 31))
    write_cube(folder / VALID_CUBE, make_cube(3), np.linspace(400, 700, 31) + 0.05)  # as others round them
    assert not prepares(folder)
    (line,) = faults(check(ok=False))
    # the first scene, which the preparation would take for the rule
    assert "t1.mat: 31 bands, 410-710 nm, but 4 of 5 scenes have 31 bands, 400-700 nm" in line


def test_everything_is_said_at_once(check, folder):
    for name in (CUBE, "Train_RGB/t3.png", "Valid_spectral/v2.mat"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-60])
    (folder / "Valid_RGB/v1.png").write_bytes(b"")
    (folder / "Train_RGB/t1.png").unlink()
    change(VALID_CUBE, put(0, 0, 0, value=np.nan))(folder)
    printed = check(ok=False)
    assert [re.search(r"(\w+/\w+\.mat)", line)[1] for line in faults(printed)] == [
        "Train_spectral/t1.mat",
        VALID_CUBE,
    ]
    listed = printed.split("download again: 4 broken files")[1].splitlines()[1:-1]
    assert [line.strip() for line in listed] == [
        str(folder / name) for name in (CUBE, "Train_RGB/t3.png", "Valid_RGB/v1.png", "Valid_spectral/v2.mat")
    ]
    assert "not ready: 6 errors" in printed


def test_a_file_that_kills_its_process_does_not_stop_the_rest(check, folder, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nimport drcr.images as images\nread = images.read_image\n"
        "images.read_image = lambda path, *rest: os._exit(9) if path.stem == 't2' else read(path, *rest)\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    (folder / "Valid_RGB/v2.png").write_bytes(b"")
    printed = check("--num_workers", 2, ok=False, env=environment)
    (line,) = faults(printed)
    assert RGB in line
    assert "kills the process" in line
    assert "Valid_RGB/v2.png\n" in printed.split("download again: 1 broken file\n")[1]


def test_swapped_images(check, folder):
    """Of bright objects before dark backgrounds, whose luminances correlate even so."""
    down, across = np.mgrid[-1 : 1 : SIZE[0] * 1j, -1 : 1 : SIZE[1] * 1j]
    light = np.float32(0.05 + np.exp(-3 * (down**2 + across**2)))[..., None]
    cubes = [make_cube(i) * light for i in range(2)]
    write_scene(folder, "Train", "t1", cubes[0])
    write_scene(folder, "Valid", "v2", cubes[1])
    assert np.corrcoef(cubes[0].mean(2).ravel(), cubes[1].mean(2).ravel())[0, 1] > 0.7
    assert not faults(check())
    one, other = folder / "Train_RGB/t1.png", folder / "Valid_RGB/v2.png"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    lines = faults(check(ok=False))
    for line, path in zip(lines, (one, other), strict=True):
        assert float(re.search(f"{path}: does not belong to its cube, correlation (.*);", line)[1]) < 0.4


def test_turned_images(check, folder):
    ways = {
        "mirrored left to right": lambda image: image[:, ::-1],
        "mirrored upside down": lambda image: image[::-1],
        "rotated by 180 degrees": lambda image: image[::-1, ::-1],
        "rotated by 270 degrees": lambda image: np.rot90(image),
        "transposed": lambda image: image.transpose(1, 0, 2),
    }
    for i, turn in enumerate(ways.values()):
        write_scene(folder, "Train", f"w{i}", make_cube(9 + i, (48, 48)))
        path = str(folder / f"Train_RGB/w{i}.png")
        cv2.imwrite(path, turn(cv2.imread(path)))
    printed = check("--all", ok=False)
    for line, (i, way) in zip(faults(printed), enumerate(ways), strict=True):
        assert f"w{i}.png: matches its cube only {way}: correlation 1.00" in line


def test_right_images_are_not_accused(check, folder):
    """Noise and JPEG, a gamma, clipped highlights, one channel alone, 2 pixels beside it, 16 bits."""
    rng = np.random.default_rng(0)
    cube = make_cube(1)
    image = image_of(cube)
    noisy = np.clip(rng.poisson(image / 4.0) * 4, 0, 255).astype(np.uint8)
    images = {
        "noise.jpg": cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 40])[1],
        "gamma.png": cv2.imencode(".png", np.uint8(255 * (image / 255.0) ** (1 / 2.2)))[1],
        "clipped.png": cv2.imencode(".png", np.uint8(np.clip(image * 2.0, 0, 255)))[1],
        "red.png": cv2.imencode(".png", image * np.uint8([0, 0, 1]))[1],
        "shifted.png": cv2.imencode(".png", np.roll(image, 2, 1))[1],
        "deep.png": cv2.imencode(".png", image * np.uint16(200))[1],
    }
    for i, (name, data) in enumerate(images.items()):
        stem = name.split(".")[0]
        (folder / "Train_RGB" / name).write_bytes(data)
        write_cube(folder / f"Train_spectral/{stem}.mat", cube * (1 - 0.01 * i))
    assert not faults(check())


def test_what_cannot_be_told_is_no_error(check, folder):
    write_scene(folder, "Train", "t2", np.full((40, 48, 31), 0.5))
    write_scene(folder, "Valid", "v1", make_cube(8, (20, 48)))
    (folder / "Valid_RGB/v1.png").write_bytes(cv2.imencode(".png", image_of(make_cube(7, (20, 48))))[1])
    printed = check()
    assert not faults(printed)
    smooth, small = faults(printed, "note")
    assert "t2.mat: almost no detail" in smooth
    assert "v1.png: smaller than 32 pixels" in small


def test_copies(check, folder):
    # the same cube in another version of .mat, and another image
    scipy.io.savemat(folder / "Train_spectral/t4.mat", {"cube": read_cube(folder / "Train_spectral/t1.mat")})
    cv2.imwrite(str(folder / "Train_RGB/t4.png"), image_of(make_cube(0) * 0.9))
    # the same scene in both parts
    for kind in ("spectral/{}.mat", "RGB/{}.png"):
        shutil.copy(folder / f"Train_{kind.format('t2')}", folder / f"Valid_{kind.format('leak')}")
    # the same image for a cube that is another
    write_cube(folder / "Valid_spectral/v3.mat", make_cube(4) * 0.9)
    shutil.copy(folder / "Valid_RGB/v2.png", folder / "Valid_RGB/v3.png")
    leak, *rest = faults(check(), "note")
    assert "Train/t2, Valid/leak: the same cube and image; validation would use" in leak
    assert {re.search("note: (.*);", line)[1] for line in rest} == {
        "Train/t1, Train/t4: the same cube",
        "Valid/v2, Valid/v3: the same image",
    }


def test_values_above_one(check, folder):
    change(CUBE, lambda cube: cube * 3)(folder)
    (line,) = faults(check(), "note")
    assert re.search(r"t2\.mat: values up to [1-3]\.\d+ .*, but scoring clips", line)


def test_dark_values(check, folder):
    for name in (VALID_CUBE, "Valid_spectral/v2.mat"):
        change(name, put(0, slice(4), 0, value=[0, 0, 0.0005, -1]))(folder)
    change(CUBE, put(0, 0, slice(3), value=-0.1))(folder)
    printed = check(ok=False)
    assert "3 of 178,560 values <= 0 (0.00%)\n          in 1 of 3 scenes, skipped: Train/t2" in printed
    assert "not ready: 1 error;" in printed
    printed = check("--non_positive", "floor", "0.001")
    assert "8 of 119,040 values < 0.001 (0.01%)\n          in 2 of 2 scenes, raised to 0.001: Valid/v1" in printed
    assert printed.count("--non_positive floor 0.001") == 2


def test_skipped_scenes_may_be_what_the_others_may_not(check, folder):
    write_scene(folder, "Train", "t2", put(0, 0, 0, value=0)(make_cube(9, (31, 48))))
    assert prepares(folder)
    assert "ready: 2 training" in check()


def test_many_of_a_kind_are_shortened(check, folder):
    for i in range(6):
        write_cube(folder / f"Train_spectral/u{i}.mat", make_cube(i)[..., :2])
    printed = check(ok=False)
    lines = [line for line in faults(printed) if "no RGB image" in line]
    assert len(lines) == 3
    assert "error: and 3 more like these (without RGB image); --all lists them" in printed
    assert "not ready: 12 errors" in printed
    lines = [line for line in faults(check("--all", ok=False)) if "no RGB image" in line]
    assert [line[line.index("/u") + 1 :][:2] for line in lines] == [f"u{i}" for i in range(6)]


def test_no_folder_at_all(script, tmp_path):
    process = script(CHECK, "--data_path", tmp_path, ok=False)
    assert process.stdout.count("no such folder") == 4
    assert "Traceback" not in process.stderr
    process = script(CHECK, "--data_path", tmp_path / "none", ok=False)
    assert process.returncode == 1
    assert process.stderr == f"error: {tmp_path / 'none'}: no such folder\n"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_scenes(tmp_path):
    """The largest process, of one worker and its parent: 32 more cubes of 3.1 MB would be 100 MB."""
    cube = make_cube(0, (160, 160))
    peaks = []
    for count in (8, 40):
        data = tmp_path / str(count)
        for part in ("Train", "Valid"):
            write_scene(data, part, "s00", cube)
        for i in range(1, count):
            for kind in ("spectral/s{:02}.mat", "RGB/s{:02}.png"):
                os.link(data / f"Train_{kind.format(0)}", data / f"Train_{kind.format(i)}")
        peaks.append(peak_memory(ROOT / CHECK, "--data_path", data, "--num_workers", 1))
    assert peaks[1] < peaks[0] + 15


@pytest.mark.parametrize("case", ["a process has nothing to do", "scenes have not begun"])
def test_ctrl_c_ends_it_without_a_trace(folder, tmp_path, case):
    slow, seconds = ("t2", 2) if case == "a process has nothing to do" else ("", 0.2)
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, time\nimport drcr.images as images\nread = images.read_image\n"
        "def read_image(path, *rest):\n"
        f"    if path.stem.startswith({slow!r}):\n"
        f"        pathlib.Path({str(tmp_path / 'begun')!r}).touch()\n"
        f"        time.sleep({seconds})\n"
        "    return read(path, *rest)\n"
        "images.read_image = read_image\n"
    )
    for i in range(0 if slow else 60):
        for kind in ("spectral/{}.mat", "RGB/{}.png"):
            os.link(folder / f"Train_{kind.format('t1')}", folder / f"Train_{kind.format(f'u{i}')}")
    process = subprocess.Popen(
        [sys.executable, ROOT / CHECK, "--data_path", folder, "--num_workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # `make test &` ignores it
    )
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
        assert process.poll() is None
    time.sleep(0.5)  # the other scenes' time
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the processes get it too
    _, errors = process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in errors


def test_prepared_folders_are_compared_with_their_checksums(script, prepared, tmp_path):
    train, valid = prepared
    assert "ready" in script("Dataset/check.py", "--prepared", train, valid).stdout
    path = min(valid.glob("*.h5"))
    contents = bytearray(path.read_bytes())
    contents[-5] ^= 1  # in the values of the cube, the last in the file
    path.write_bytes(contents)
    printed = script("Dataset/check.py", "--prepared", train, valid, ok=False).stdout
    assert str(path) in printed
    assert "not ready: 1 error" in printed
    assert "not ready: 1 error" in script("Dataset/check.py", "--prepared", tmp_path, ok=False).stdout
