"""What hostile files, names and other processes could do to a user's data. Each hostile file is made here."""

import json
import mmap
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from helpers import DATA, ROOT, begin, finish, load_script, make_scenes, run_options, wait_for_saves

from drcr.checkpoint import load_model, read_checkpoint, save_checkpoint
from drcr.data import TrainPatches, ValidImages
from drcr.formats.mat import write_cube
from drcr.model import DRCR
from drcr.preparation.prepare import prepare
from drcr.training.state import check_state, freeze_all_but_tail, read_state
from drcr.utils import cli
from drcr.utils.files import DataError, list_files, write_atomically, write_csv
from drcr.utils.locks import LOCK, lock_folder

MODEL = DATA / "model_c16_b2.pth"
FOREIGN = b"the only copy of a thesis"


def refusal(call):
    """Return the message of the DataError that a call raises, an empty text without one."""
    try:
        call()
    except DataError as error:
        return str(error)
    return ""


def contents(folder):
    """Return the contents of all files below a folder, by path."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def scenes(tmp_path):
    """Return folders of cubes and images of two scenes, and where to prepare them."""
    return *make_scenes(tmp_path, 2), tmp_path / "out"


# ---- preparation writes and removes its own files only


@pytest.mark.parametrize("where", ["../thesis", "{folder}/thesis", "thesis", "."])
def test_preparation_removes_nothing_that_an_index_names(scenes, where):
    prepare(*scenes, 8, 4)
    out = scenes[2]
    theses = [out.parent / "thesis.h5", out / "thesis.h5"]
    for path in theses:
        path.write_bytes(FOREIGN)
    index = json.loads((out / "index.json").read_text())
    index["scenes"] = [*index["scenes"], where.format(folder=out.parent)]
    index["raised"] += [0]
    (out / "index.json").write_text(json.dumps(index))
    prepare(*scenes, 8, 4)
    assert [path.read_bytes() for path in theses] == [FOREIGN] * 2


def test_preparation_removes_scenes_that_it_wrote_and_that_are_gone(scenes):
    prepare(*scenes, 8, 4)
    for path in (scenes[0] / "scene001.mat", scenes[1] / "scene001.png"):
        path.unlink()
    prepare(*scenes, 8, 4)
    assert sorted(path.name for path in scenes[2].iterdir()) == ["index.json", "scene000.h5"]


@pytest.mark.parametrize("name", ["scene001.h5", "index.json"])
@pytest.mark.parametrize("kind", ["text", "hdf5", "json", "link"])
def test_preparation_overwrites_nothing_that_is_not_its_own(scenes, tmp_path, name, kind):
    out = scenes[2]
    out.mkdir()
    path = out / name
    if kind == "hdf5":
        with h5py.File(path, "w") as file:
            file["measurement"] = np.arange(9)
    elif kind == "link":
        (tmp_path / "thesis").write_bytes(FOREIGN)
        path.symlink_to(tmp_path / "thesis")
    else:
        path.write_bytes(FOREIGN if kind == "text" else b'{"scenes": 3}')
    before = contents(tmp_path)
    with pytest.raises(DataError, match=f"{name}: exists and is not"):
        prepare(*scenes, 8, 4)
    assert contents(tmp_path) == before
    assert path.is_symlink() == (kind == "link")


# ---- temporary files and locks


def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "thesis").write_bytes(FOREIGN)
    monkeypatch.setattr("secrets.token_hex", lambda *_: "0" * 16)
    for name in (".drcr-0000000000000000.tmp", ".out.tmp", "out"):
        (tmp_path / name).symlink_to(tmp_path / "thesis")
    with pytest.raises(OSError, match=r"out'$"):  # the name that the user knows
        write_atomically(tmp_path / "out", lambda file: file.write(b"new"))
    monkeypatch.undo()
    write_atomically(tmp_path / "out", lambda file: file.write(b"new"))
    assert (tmp_path / "thesis").read_bytes() == FOREIGN
    assert (tmp_path / "out").read_bytes() == b"new"
    assert not (tmp_path / "out").is_symlink()


def test_two_writers_of_one_file_leave_that_of_one(tmp_path):
    begun = threading.Barrier(2)

    def write(letter):
        for _ in range(20):
            begun.wait()
            write_atomically(tmp_path / "cube.mat", lambda file: [file.write(letter * 50_000) for _ in range(20)])
            begun.wait()
            assert len(set((tmp_path / "cube.mat").read_bytes())) == 1

    failed = []
    threading.excepthook, before = lambda arguments: (failed.append(arguments), begun.abort()), threading.excepthook
    writers = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    threading.excepthook = before
    assert not failed
    assert os.listdir(tmp_path) == ["cube.mat"]


def test_temporary_files_of_killed_processes_are_removed_and_no_others(tmp_path):
    stale, live, foreign = (tmp_path / f".drcr-{name}.tmp" for name in ("0" * 16, "1" * 16, "notes"))
    for path in (stale, foreign):
        path.write_bytes(b"half")
    code = (
        f"import drcr.utils.files as f, secrets, time; secrets.token_hex = lambda _: '{'1' * 16}'\n"
        f"f.write_atomically({str(tmp_path / 'slow')!r}, lambda file: (print(flush=True), time.sleep(60)))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    write_atomically(tmp_path / "new", lambda file: None)
    assert [path.exists() for path in (stale, live, foreign)] == [False, True, True]
    process.kill()
    process.communicate()


def test_the_first_error_is_reported(tmp_path):
    def write(file):
        file.write(b"what does not fit")
        raise ValueError("the first")

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(ValueError, match="the first"):
            write_atomically(tmp_path / "out", write)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not os.listdir(tmp_path)


def test_new_files_have_the_permissions_that_the_user_chose(tmp_path):
    before = os.umask(0o027)
    write_atomically(tmp_path / "out", lambda file: None)
    os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640


@contextmanager
def held(folder):
    """Hold a folder in another process; yield the process."""
    code = (
        "import sys, time; from pathlib import Path; from drcr.utils.locks import lock_folder\n"
        "with lock_folder(Path(sys.argv[1])): print(flush=True), time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE)
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


WRITERS = {
    "train/main.py": "--outf",
    "train/train_data_preprocess.py": "--train_data_path",
    "train/valid_data_preprocess.py": "--valid_data_path",
    "test/test.py": "--result_dir",
    "test/baseline.py": "--result_dir",
    "test/figures.py": "--out",
    "Dataset/simulate.py": "--data_path",
    "Dataset/render_rgb.py": "--RGB_dir",
    "Dataset/import_cave.py": "--data_path",
    "Dataset/import_cubes.py": "--data_path",
}
NEEDED = {
    "Dataset/import_cave.py": ("--source", "."),
    "Dataset/import_cubes.py": ("--source", "."),
    "Dataset/render_rgb.py": ("--path_gt", "."),
}


def test_a_folder_is_written_by_one_run_at_a_time(fails, tmp_path):
    folder = tmp_path / "out"
    with held(folder) as process:
        before = contents(folder)
        for command, option in WRITERS.items():
            message = fails(command, option, folder, *NEEDED.get(command, ()), names=folder)
            assert f"process {process.pid}" in message
            assert contents(folder) == before
    # a killed process holds nothing, and its lock file is in nobody's way
    assert (folder / LOCK).exists()
    with lock_folder(folder):
        pass
    assert not (folder / LOCK).exists()


def test_two_runs_do_not_share_a_folder(prepared_once, tmp_path, script):
    process = begin(prepared_once, tmp_path / "run", "--end_epoch", 1000)
    wait_for_saves(tmp_path / "run/last.pth", 2, lambda: process.poll() is not None)
    options = run_options(prepared_once, tmp_path / "run", "--resume", "auto")
    assert f"in use by process {process.pid}" in script("train/main.py", *options, ok=False).stderr
    process.kill()
    process.communicate()
    # the lock of a killed run is free at once, also while its worker processes still live
    finish(begin(prepared_once, tmp_path / "run", "--resume", "auto", "--end_epoch", 1000, "--max_iter", 10), 1)


@pytest.mark.slow
def test_worker_processes_do_not_hold_the_lock(prepared_once, tmp_path):
    options = ("--end_epoch", 1000, "--num_workers", 2)
    process = begin(prepared_once, tmp_path / "run", *options)
    wait_for_saves(tmp_path / "run/last.pth", 3, lambda: process.poll() is not None)
    process.kill()
    process.wait()  # its workers live a few seconds longer
    with lock_folder(tmp_path / "run"):
        pass
    process.communicate()


@pytest.mark.parametrize("kind", ["text", "link", "pipe"])
def test_a_lock_file_that_is_none_is_left_alone(tmp_path, kind):
    folder, thesis = tmp_path / "out", tmp_path / "thesis"
    folder.mkdir()
    thesis.write_bytes(FOREIGN)
    if kind == "pipe":
        os.mkfifo(folder / LOCK)
    elif kind == "link":
        (folder / LOCK).symlink_to(thesis)
    else:
        (folder / LOCK).write_bytes(FOREIGN)
    with pytest.raises((DataError, OSError)), lock_folder(folder):
        pytest.fail("locked")
    assert thesis.read_bytes() == FOREIGN
    assert (folder / LOCK).exists()


def test_a_run_that_fails_leaves_no_empty_folder(fails, tmp_path):
    fails("test/test.py", "--model_dir", tmp_path / "none", "--result_dir", tmp_path / "a/b", names="none")
    assert not os.listdir(tmp_path)


# ---- our own files, changed


def changed_checkpoints():
    """Return functions that change a checkpoint of a network of 8 channels and 2 blocks, by what they do."""

    def put(name, value):
        return lambda checkpoint: checkpoint["state_dict"].__setitem__(name, value)

    def state(name, value):
        return lambda checkpoint: checkpoint["architecture"].__setitem__(name, value)

    weight = "blocks.0.conv1.weight"
    return {
        "ten million blocks": state("n_blocks", 10_000_000),
        "other channels": state("channels", 100_000),
        "another module": state("npm", "paper"),
        "a list as a size": state("channels", [8]),
        "no architecture": lambda checkpoint: checkpoint.update(architecture=None),
        "an additional size": state("groups", 2),
        "a gap in the blocks": put("blocks.10000000.conv1.weight", torch.zeros(8, 8, 3, 3)),
        "a tensor of another shape": put(weight, torch.zeros(8, 8, 5, 5)),
        "a tensor without values": put(weight, torch.zeros(1).expand(8, 8, 3, 3)),
        "a sparse tensor": put(weight, torch.zeros(8, 8, 3, 3).to_sparse()),
        "whole numbers": put(weight, torch.zeros(8, 8, 3, 3, dtype=torch.int64)),
        "a tensor that is nowhere": put(weight, torch.zeros(8, 8, 3, 3, device="meta")),
        "no tensor": put(weight, 3),
        "a terabyte of channels": put("stem.0.weight", torch.zeros(1).expand(100_000, 3, 3, 3)),
        "wavelengths of nothing": lambda checkpoint: checkpoint.update(wavelengths=[float("nan")] * 31),
        "wavelengths of text": lambda checkpoint: checkpoint.update(wavelengths="x" * 31),
    }


def test_changed_checkpoints_are_refused_before_a_network_is_built(tmp_path, monkeypatch):
    path, model = tmp_path / "a.pth", DRCR(channels=8, n_blocks=2)
    save_checkpoint(path, model)
    load_model(path)
    whole = path.read_bytes()

    def build(self, *arguments, before=DRCR.__init__, **options):
        assert torch.empty(0).device.type == "meta", "a network is built"
        assert options["n_blocks"] <= 2
        before(self, *arguments, **options)

    monkeypatch.setattr(DRCR, "__init__", build)
    for kind, change in changed_checkpoints().items():
        path.write_bytes(whole)
        checkpoint = torch.load(path, weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, path)
        message = refusal(lambda: load_model(path))
        assert message.startswith(f"{path}: "), kind
        assert "\n" not in message, kind


def test_tensors_that_share_their_memory_do_not_make_a_large_network(tmp_path):
    """A file of 400 kB that states 58 MB."""
    with torch.device("meta"):
        model = DRCR(channels=64, n_blocks=20)
    values = torch.zeros(3 * 64 * 64 * 9)
    state = {name: values[: tensor.numel()].view(tensor.shape) for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    with pytest.raises(DataError, match="more values than the file holds"):
        load_model(tmp_path / "a.pth")


def test_a_compressed_checkpoint_is_not_unpacked(tmp_path):
    save_checkpoint(tmp_path / "a.pth", DRCR(channels=8, n_blocks=0), zeros=torch.zeros(10**6))
    with zipfile.ZipFile(tmp_path / "a.pth") as whole, zipfile.ZipFile(tmp_path / "b.pth", "w", 8) as small:
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    with pytest.raises(DataError, match="compressed"):
        read_checkpoint(tmp_path / "b.pth")


def nested(*keys):
    """Return a function that gives a checkpoint's part, which `keys` lead to, another value."""

    def change(checkpoint, value):
        for key in keys[:-1]:
            checkpoint = checkpoint[key]
        checkpoint[keys[-1]] = value

    return change


FIRST = ("optimizer", "state", 0)
CHANGED_STATES = {
    "a moment of another shape": (nested(*FIRST, "exp_avg"), torch.zeros(3)),
    "a moment without values": (nested(*FIRST, "exp_avg_sq"), torch.zeros(1).expand(16, 16, 3, 3)),
    "a moment in double precision": (nested(*FIRST, "exp_avg"), torch.zeros(16, 16, 3, 3, dtype=torch.float64)),
    "a step that is none": (nested(*FIRST, "step"), 4),
    "another step": (nested(*FIRST, "step"), torch.tensor(7.0)),
    "another beta": (nested("optimizer", "param_groups", 0, "betas"), (0.5, 0.999)),
    "another decay": (nested("optimizer", "param_groups", 0, "weight_decay"), 0.1),
    "other parameters": (nested("optimizer", "param_groups", 0, "params"), [0, 0]),
    "no groups": (nested("optimizer", "param_groups"), []),
    "a state of no parameter": (nested("optimizer", "state", 10_000), {}),
    "no states": (nested("optimizer", "state"), {}),
    "losses of another shape": (nested("losses"), torch.zeros(2, 2)),
    "more losses than iterations": (nested("losses"), torch.zeros(10_000)),
    "best loss NaN": (nested("best"), float("nan")),
    "an unknown option": (nested("recipe", "shell"), "rm"),
    "losses as a list": (nested("losses"), [0.1]),
    "a loss that is none": (nested("losses"), torch.tensor([float("nan")])),
    "random state too short": (nested("random", "cpu"), torch.zeros(10, dtype=torch.uint8)),
    "random state of zeros": (nested("random", "cpu"), torch.zeros(5056, dtype=torch.uint8)),
    "random state as text": (nested("random", "cpu"), "seed"),
    "random states of GPUs as numbers": (nested("random", "cuda"), [3]),
    "random state of a GPU too short": (nested("random", "cuda"), [torch.zeros(3, dtype=torch.uint8)]),
    "epoch as text": (nested("epoch"), "1"),
    "iteration below 0": (nested("iter"), -1),
    "iteration as a tensor": (nested("iter"), torch.tensor(4)),
    "recipe as a list": (nested("recipe"), [1]),
    "a tensor in the recipe": (nested("recipe", "seed"), torch.zeros(2)),
    "data as a tensor": (nested("data", "train", "floor"), torch.zeros(2)),
    "run as a number": (nested("run"), 5),
    "weights in half precision": (nested("state_dict", "stem.0.weight"), torch.zeros(16, 3, 3, 3).half()),
}


def test_changed_training_states_are_refused(prepared_once, tmp_path, fails):
    """Whatever is changed, no run goes on with it: it would end, or be another one and not say so."""
    main, options = load_script("train/main.py"), run_options(prepared_once, tmp_path, "--end_epoch", 1, "--freeze")
    main.main([*options, "--init", str(MODEL)])
    last, train_set = tmp_path / "last.pth", TrainPatches(prepared_once[0])
    args = main.build_parser().parse_args([*options, "--init", str(MODEL), "--resume", str(last)])
    data = {"train": train_set.provenance, "valid": ValidImages(prepared_once[1]).provenance}
    whole = last.read_bytes()

    def go_on():
        checkpoint = read_state(last)
        model = main.resumed_model(args, checkpoint, train_set, data)
        freeze_all_but_tail(model)
        check_state(checkpoint, model, last)

    go_on()
    for kind, (apply, value) in CHANGED_STATES.items():
        last.write_bytes(whole)
        checkpoint = torch.load(last, weights_only=True)
        apply(checkpoint, value)
        torch.save(checkpoint, last)
        assert refusal(go_on).startswith(f"{last}: "), kind
    before = contents(tmp_path)
    fails("train/main.py", *options, "--init", MODEL, "--resume", last, names=last)
    assert contents(tmp_path) == before


CHANGED_INDEX = (
    {"scenes": []}, {"scenes": ["\udcff", "b", "c"]}, {"scenes": ["ARAD_1K_0001"] * 3}, {"scenes": "ARAD_1K_0001"},
    {"wavelengths": "400"}, {"wavelengths": [None] * 31}, {"wavelengths": [400.0] * 31}, {"patch_size": 0},
    {"patch_size": "16"}, {"patch_size": 10**6}, {"stride": 2.5}, {"stride": None}, {"raised": [0]},
    {"raised": ["x", 0, 0]}, {"n_values": -1}, {"floor": "low"}, {"floor": float("nan")}, {"scenes": ["../thesis"]},
    {"scenes": ["/etc/passwd", "b", "c"]}, {"scenes": [3]}, {"scenes": None},
)  # fmt: skip


@pytest.fixture
def copied(prepared_once, tmp_path):
    """Return a prepared folder, to change."""
    return shutil.copytree(prepared_once[0], tmp_path / "copied")


def test_a_changed_index_is_refused(copied):
    path = copied / "index.json"
    whole = json.loads(path.read_text())
    for change in CHANGED_INDEX:
        path.write_text(json.dumps(whole | change))
        message = refusal(lambda: TrainPatches(copied))
        assert "run the preparation again" in message or "run train_data_preprocess" in message, change
    del whole["stride"]
    for text in (json.dumps(whole), "[]", "[" * 100_000):
        path.write_text(text)
        assert "no prepared data" in refusal(lambda: TrainPatches(copied))


def cube_as(**options):
    """Return a function that stores a prepared scene's cube in another way."""

    def change(file):
        attributes, cube = dict(file["cube"].attrs), file["cube"][()]
        del file["cube"]
        data = options.pop("data", None)
        file.create_dataset("cube", data=cube if data is None else data(cube), **options)
        file["cube"].attrs.update(attributes)

    return change


def external(file):
    attributes = dict(file["cube"].attrs)
    cube = file["cube"][()]
    with h5py.File(Path(file.filename).parent / "other.h5", "w") as other:
        other["cube"] = cube
        other["cube"].attrs.update(attributes)
    del file["cube"]
    file["padding"] = np.zeros(cube.shape)  # the file is long enough for what the other one states
    file["cube"] = h5py.ExternalLink("other.h5", "cube")


CHANGED_SCENES = {
    "another encoding": lambda file: file["rgb"].attrs.__setitem__("input_encoding", np.bytes_("stored")),
    "an encoding of a terabyte": lambda file: file["rgb"].attrs.__setitem__("input_encoding", 10**12),
    "peak of 0": lambda file: file["rgb"].attrs.__setitem__("peak", 0.0),
    "peak NaN": lambda file: file["rgb"].attrs.__setitem__("peak", np.nan),
    "another peak": lambda file: file["rgb"].attrs.__setitem__("peak", 17.0),
    "cube in double precision": cube_as(dtype=np.float64),
    "cube compressed": cube_as(compression="gzip"),
    "cube in another file": external,
    "fewer wavelengths": lambda file: file["cube"].attrs.__setitem__("wavelengths", [400.0]),
    "a group": lambda file: (file.__delitem__("cube"), file.create_group("cube")),
    "no checksum": lambda file: file.attrs.__delitem__("checksum"),
    "image of four channels": lambda file: (
        file.create_dataset("new", data=np.concatenate([file["rgb"][()]] * 2)[:4]),
        file["new"].attrs.update(dict(file["rgb"].attrs)),
        file.__delitem__("rgb"),
        file.move("new", "rgb"),
    ),
}


def test_changed_scenes_are_refused(copied):
    path = copied / "ARAD_1K_0003.h5"
    whole = path.read_bytes()
    for kind, change in CHANGED_SCENES.items():
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            change(file)
        # only the checksum tells another peak; all else shows without reading the values
        message = refusal(lambda kind=kind: TrainPatches(copied, cache=kind == "another peak"))
        assert message.startswith(f"{path}: "), kind
        assert message.endswith("run the preparation again"), kind


@pytest.mark.parametrize("what", ["cube", "rgb"])
def test_a_flipped_bit_is_found_and_repaired(prepared, fails, script, what):
    path = prepared[0] / "ARAD_1K_0003.h5"
    whole = path.read_bytes()
    with h5py.File(path) as file:
        offset = file[what].id.get_offset()
    with open(path, "r+b") as file:
        file.seek(offset + 1234)
        byte = file.read(1)[0]
        file.seek(offset + 1234)
        file.write(bytes([byte ^ 16]))
    paths = ("--train_data_path", prepared[0], "--valid_data_path", prepared[1], "--channels", 8, "--end_epoch", 1)
    assert "checksum" in fails("train/main.py", *paths, "--n_blocks", 0, "--cache", "ram", names=path)
    for scene in TrainPatches(prepared[0]).scenes[:-1]:
        scene.verify()
    options = ("--data_path", DATA / "Dataset", "--train_data_path", prepared[0], "--patch_size", 16, "--stride", 8)
    script("train/train_data_preprocess.py", *options)
    assert path.read_bytes() == whole


def test_a_source_of_equal_size_and_time_is_prepared_again(scenes):
    prepare(*scenes)
    path = scenes[0] / "scene001.mat"
    before, data = path.stat(), path.read_bytes()
    with h5py.File(path, "r+") as file:
        file["cube"][...] = 0.5
    assert path.stat().st_size == len(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    prepare(*scenes)
    assert (ValidImages(scenes[2])[1][1] == 0.5).all()


# ---- memory


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: torch.empty(2**50),
        lambda: np.empty(2**50),
        lambda: cv2.resize(np.zeros((2, 2), np.uint8), (2**31 - 9, 2**20)),
        lambda: mmap.mmap(-1, 2**62),
    ],
    ids=["PyTorch", "NumPy", "OpenCV", "system"],
)
def test_out_of_memory_is_one_line(allocate, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda _: allocate())
    assert str(ended.value).startswith("error: not enough memory")


def test_a_whole_checkpoint_is_not_called_damaged_where_memory_is_short(tmp_path):
    save_checkpoint(tmp_path / "a.pth", DRCR(channels=8, n_blocks=0), large=torch.zeros(10**8))
    code = (
        "import resource, sys; from drcr.checkpoint import read_checkpoint\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2 * 10**8,) * 2)\n"
        "read_checkpoint(sys.argv[1])"
    )
    process = subprocess.run([sys.executable, "-c", code, tmp_path / "a.pth"], capture_output=True, text=True)
    assert "does not fit into memory" in process.stderr.splitlines()[-1]


# ---- names


BAD_NAMES = {"not UTF-8": os.fsdecode(b"sc\xffne"), "a control character": "sc\x1b[2Jne", "a mark": "a\u202eb"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD_NAMES)
def test_names_that_no_table_can_hold_are_refused_early(scenes, fails, script, tmp_path, kind):
    name = BAD_NAMES[kind]
    data = tmp_path / "data"
    for part in ("Train", "Valid"):
        shutil.copytree(scenes[0], data / f"{part}_spectral")
        shutil.copytree(scenes[1], data / f"{part}_RGB")
    for folder, suffix in (("Train_spectral", ".mat"), ("Train_RGB", ".png")):
        (data / folder / f"scene000{suffix}").rename(data / folder / f"{name}{suffix}")
    options = ("--data_path", data, "--train_data_path", tmp_path / "out", "--patch_size", 8)
    for message in (
        fails("train/train_data_preprocess.py", *options, names="not UTF-8", process=True),
        script("Dataset/check.py", "--data_path", data, "--patch_size", 8, ok=False, process=True).stdout,
    ):
        assert "not UTF-8" in message
        assert name not in message
        assert "\x1b" not in message
    assert not (tmp_path / "out").exists()
    assert list_files(scenes[0], (".mat",), "cubes").keys() == {"scene000", "scene001"}


def test_an_image_alone_with_a_name_that_is_not_utf_8_is_refused(fails, tmp_path):
    image = tmp_path / f"{BAD_NAMES['not UTF-8']}.png"
    assert cv2.imwrite(str(tmp_path / "a.png"), np.full((8, 8, 3), 9, np.uint8))
    (tmp_path / "a.png").rename(image)
    fails("test/test.py", "--RGB_dir", image, "--result_dir", tmp_path / "out", names="not UTF-8", process=True)


@pytest.mark.parametrize("where", ["ascii", "closed", "full"])
def test_whatever_stdout_is_a_command_ends_without_a_trace(where, tmp_path):
    code = (
        "import os, sys; from drcr.utils import cli\n"
        "def main(_):\n    print('\\u00e9' * 10)\n    open(sys.argv[1], 'w').close()\n    os.write(1, b'from C')\n"
        "cli.run(main)"
    )
    shell = {"ascii": "PYTHONIOENCODING=ascii {} >out", "closed": "{} >&-", "full": "{} >/dev/full"}[where]
    command = shell.format(f"{sys.executable} -c {shlex.quote(code)} data")
    done = subprocess.run(command, shell=True, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert done.returncode == (where == "full")
    assert where == "full" or (tmp_path / "data").read_bytes() == b""
    assert where != "ascii" or "\\xe9" in (tmp_path / "out").read_text()


def test_what_files_say_reaches_the_terminal_as_text(capsys):
    def command(_):
        print("a\x1b]0;title\x07b\tc\nd \udcff é")
        raise DataError("file\x1b[2J\nerror: forged")

    with pytest.raises(SystemExit) as ended:
        cli.run(command)
    assert capsys.readouterr().out == "a\\x1b]0;title\\x07b\tc\nd \\udcff é\n"
    assert ended.value.code == "error: file\\x1b[2J\\nerror: forged"


def test_no_name_is_a_formula_in_a_table(script, tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("rec", "gt"):
        (tmp_path / folder).mkdir()
        for name in ("=cmd|'calc'!A0", "plain"):
            write_cube(tmp_path / folder / f"{name}.mat", rng.random((8, 8, 31)) + 0.1)
    script("test/compute_mrae.py", "--path_rec", "rec", "--path_gt", "gt", "--csv", "scores.csv")
    assert (tmp_path / "scores.csv").read_text().splitlines()[1].startswith("'=cmd")
    write_csv(tmp_path / "numbers.csv", [["-0.5", "-1.2e-05", -2, "-x", "@a"]])  # a number below 0 stays one
    assert (tmp_path / "numbers.csv").read_text() == "-0.5,-1.2e-05,-2,'-x,'@a\n"


# ---- files that are none, and signals


def pipe(path):
    """Make a pipe, whose reader waits for ever."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def pipes(folder, prepared):
    """Return commands, each with a pipe among its files, and the name that its error must have."""
    paths = ("--train_data_path", prepared[0], "--valid_data_path", prepared[1])
    image, target = DATA / "Dataset/Valid_RGB/ARAD_1K_0901.jpg", folder / "results/ARAD_1K_0901.mat"
    scene = pipe(shutil.copytree(prepared[0], folder / "t") / "ARAD_1K_0001.h5")
    result = ("--model_dir", MODEL, "--result_dir", pipe(target).parent)
    split = (
        "--source",
        DATA / "Dataset/Valid_spectral",
        "--out",
        folder / "o",
        "--split",
        pipe(folder / "split.txt"),
    )
    return {
        "image": ("test/test.py", ("--RGB_dir", pipe(folder / "a.png"), "--model_dir", MODEL), "a.png"),
        "checkpoint": ("test/test.py", ("--RGB_dir", image, "--model_dir", pipe(folder / "a.pth")), "a.pth"),
        "result": ("test/test.py", ("--RGB_dir", image, *result), target.name),
        "split": ("Dataset/import_cubes.py", split, "split.txt"),
        "scene": ("train/main.py", ("--train_data_path", scene.parent, *paths[2:]), scene.name),
        "table of losses": ("train/main.py", (*paths, "--outf", pipe(folder / "r/loss.csv").parent), "loss.csv"),
    }


PIPES = ["image", "checkpoint", "result", "split", "scene", "table of losses"]


@pytest.mark.parametrize("kind", PIPES)
def test_a_pipe_in_place_of_a_file_is_refused(fails, prepared_once, tmp_path, kind):
    command, options, names = pipes(tmp_path, prepared_once)[kind]
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for the pipe"))
    signal.alarm(60)
    try:
        fails(command, *options, names=names)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("command", ["train/main.py", "test/test.py", "Dataset/import_cubes.py", "test/app.py"])
def test_ctrl_c_during_the_imports_leaves_no_trace(command):
    process = subprocess.Popen(
        [sys.executable, ROOT / command, "--no_such_option"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # NumPy is the first of the large libraries
    while "_multiarray_umath" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    assert "Traceback" not in process.communicate()[1]
    assert process.returncode == -signal.SIGINT
