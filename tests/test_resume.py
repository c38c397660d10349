"""Training that is stopped, killed, or finds its files damaged, and goes on."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers import DATA, ROOT
from test_train import rows

from drcr.checkpoint import find_last, load_model, read_checkpoint, save_last
from drcr.data import Epochs, TrainPatches
from drcr.model import DRCR
from drcr.utils.files import DataError

EPOCHS = 8  # of 4 batches
OPTIONS = (
    "--channels",
    8,
    "--n_blocks",
    1,
    "--batchSize",
    8,
    "--init_lr",
    "1e-3",
    "--end_epoch",
    EPOCHS,
    "--save_every",
    1,
)


def begin(prepared, outf, *options, launcher=(), **kwargs):
    """Start a run, or with `--resume auto` go on with it; returns the process."""
    paths = ("--train_data_path", prepared[0], "--valid_data_path", prepared[1], "--outf", outf)
    command = [sys.executable, *launcher, ROOT / "train/main.py", *OPTIONS, *paths, *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, command)), **pipes, **kwargs)


@pytest.fixture
def start(prepared_once, tmp_path):
    """Start a run in a folder of the test, or go on with it; returns the process."""
    return lambda outf, *options, **kwargs: begin(
        prepared_once, tmp_path / outf, "--resume", "auto", *options, **kwargs
    )


@pytest.fixture(scope="module")
def whole(prepared_once, tmp_path_factory):
    """Return the folder of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    finish(begin(prepared_once, folder))
    return folder


def finish(process, status=0):
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == status, errors
    return printed, errors


def wait_for_saves(process, path, count):
    """Wait until a file has been replaced `count` times, or the process is done."""
    seen, last = 0, path.stat().st_ino if path.exists() else None
    while seen < count and process.poll() is None:
        try:
            now = path.stat().st_ino
        except FileNotFoundError:
            continue
        seen, last = seen + (now != last), now


def same_run(ours, theirs):
    """Tell whether two runs ended with the same weights, bit for bit, and the same table but for the seconds."""
    first, second = (read_checkpoint(folder / "last.pth") for folder in (ours, theirs))
    tables = [[{**row, "seconds": ""} for row in rows(folder)] for folder in (ours, theirs)]
    moments = [
        [value for state in checkpoint["optimizer"]["state"].values() for value in state.values()]
        for checkpoint in (first, second)
    ]
    return (
        tables[0] == tables[1]
        and len(tables[0]) == EPOCHS
        and first["best"] == second["best"]
        and all(torch.equal(weight, second["state_dict"][name]) for name, weight in first["state_dict"].items())
        and all(torch.equal(a, b) for a, b in zip(*moments, strict=True))
    )


def test_killed_at_random_moments_it_ends_as_if_never_stopped(start, whole, tmp_path):
    generator = random.Random()
    kills, iterations = 0, []
    for i in range(5):
        process = start("killed")
        # the first time within an epoch for certain
        wait_for_saves(process, tmp_path / "killed/last.pth", generator.randint(1, 8) if i else 2)
        time.sleep(generator.uniform(0, 0.05) if i else 0)
        kills += process.poll() is None
        process.kill()
        process.communicate()
        iterations.append(find_last(tmp_path / "killed")[1]["iter"])
    finish(start("killed"))
    assert kills >= 3, iterations
    assert any(iteration % 4 for iteration in iterations), iterations  # within an epoch
    assert same_run(whole, tmp_path / "killed")
    assert {path.name for path in (tmp_path / "killed").glob("last*")} == {"last.pth", "last-1.pth"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_says_how_to_go_on(start, whole, tmp_path, number):
    process = start("stopped", "--save_every", "10min")
    wait_for_saves(process, tmp_path / "stopped/last.pth", 2)
    process.send_signal(number)
    printed, errors = finish(process, 128 + number)
    assert f"stopped by {number.name} in epoch" in printed
    assert "--resume auto" in printed
    assert "Traceback" not in errors
    finish(start("stopped"))
    assert same_run(whole, tmp_path / "stopped")


def test_the_improved_recipe_goes_on_as_exactly(start, tmp_path):
    recipe = ("--recipe", "improved")
    finish(start("whole", *recipe))
    process = start("killed", *recipe)
    wait_for_saves(process, tmp_path / "killed/last.pth", 6)
    process.kill()
    process.communicate()
    assert find_last(tmp_path / "killed")[1]["iter"] < 4 * EPOCHS
    finish(start("killed", *recipe))
    assert same_run(tmp_path / "whole", tmp_path / "killed")
    # what is tested is an average of the weights, what goes on are the weights themselves
    ended = [read_checkpoint(tmp_path / outf / "last.pth") for outf in ("whole", "killed")]
    assert all(torch.equal(weight, ended[1]["trained"][name]) for name, weight in ended[0]["trained"].items())
    assert not torch.equal(*(ended[0][state]["stem.0.weight"] for state in ("trained", "state_dict")))
    assert "--recipe improved" in finish(start("killed", "--end_epoch", EPOCHS + 1), 1)[1]


@pytest.mark.parametrize("damage", ["torn", "a byte", "gone"])
def test_a_damaged_checkpoint_is_passed_over(start, whole, tmp_path, damage):
    finish(start("run", "--end_epoch", 2))
    last = tmp_path / "run/last.pth"
    content = bytearray(last.read_bytes())
    if damage == "torn":
        last.write_bytes(content[: len(content) // 2])
    elif damage == "a byte":
        content[len(content) // 2] ^= 1
        last.write_bytes(content)
    else:
        last.unlink()
    errors = finish(start("run"))[1]
    assert ("warning: " in errors) == (damage != "gone")
    assert same_run(whole, tmp_path / "run")


def test_all_damaged_is_an_error(tmp_path):
    assert find_last(tmp_path) is None
    (tmp_path / "last.pth").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"last\.pth"):
        find_last(tmp_path)


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(start, whole, tmp_path):
    finish(start("run", "--end_epoch", 1))
    before = {path: path.read_bytes() for path in (tmp_path / "run").glob("last*")}
    size = len(before[tmp_path / "run/last.pth"]) // 2
    process = start("run", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    errors = finish(process, 1)[1]
    assert "make room" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert {path: path.read_bytes() for path in (tmp_path / "run").glob("last*")} == before
    finish(start("run"))
    assert same_run(whole, tmp_path / "run")


def test_last_checkpoints_are_kept_as_many_as_asked_for(tmp_path):
    model = DRCR(channels=8, n_blocks=0)
    for i in range(5):
        save_last(tmp_path, 3, model, iter=i)
    found = {path.name: read_checkpoint(path)["iter"] for path in tmp_path.iterdir()}
    assert found == {"last.pth": 4, "last-1.pth": 3, "last-2.pth": 2}
    assert find_last(tmp_path)[1]["iter"] == 4
    # killed between two renames
    os.rename(tmp_path / "last.pth", tmp_path / "last-new.pth")
    assert find_last(tmp_path)[0].name == "last-new.pth"
    save_last(tmp_path, 1, model, iter=5)
    assert find_last(tmp_path)[1]["iter"] == 5


def test_an_epochs_order_and_what_is_left_of_it(prepared_once):
    epochs = Epochs(TrainPatches(prepared_once[0]), 8, seed=3)
    whole, rest = list(epochs.batches(2)), list(epochs.batches(2, skip=2))
    assert [len(rgb) for rgb, _ in whole] == [8, 8, 8, 6]
    assert all(torch.equal(a[1], b[1]) for a, b in zip(whole[2:], rest, strict=True))
    assert list(epochs.batches(2, skip=4)) == []
    assert not torch.equal(whole[0][1], next(iter(epochs.batches(3)))[1])
    # 15 patches of the third scene come after 15 of the first; the second is left out, it has a zero
    names = {tuple(epochs.scenes(i)) for i in range(4)}
    assert {name for both in names for name in both} == {"ARAD_1K_0001", "ARAD_1K_0003"}


def test_fine_tuning_from_weights(start, tmp_path):
    released = DATA / "model_c16_b2.pth"
    finish(start("tail", "--init", released, "--freeze", "--end_epoch", 1))
    before, after = load_model(released).state_dict(), load_model(tmp_path / "tail/last.pth").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"tail.0.weight", "tail.1.weight", "tail.2.weight"}
    finish(start("tail", "--init", released, "--freeze", "--end_epoch", 2))  # the same command goes on
    assert len(rows(tmp_path / "tail")) == 2
    assert "--freeze True" in finish(start("tail", "--end_epoch", 3), 1)[1]

    other = DRCR(channels=8, n_blocks=1, out_channels=4)
    other.wavelengths = [450.0, 500.0, 550.0, 600.0]
    save_last(tmp_path, 1, other, iter=0)
    printed = finish(start("fresh", "--init", tmp_path / "last.pth", "--end_epoch", 1))[0]
    assert "the last convolution starts fresh" in printed
    assert load_model(tmp_path / "fresh/last.pth").architecture["out_channels"] == 31


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_a_data_file_that_is_lost_in_a_run_is_named(start, prepared_once, tmp_path, damage, n_workers):
    copies = []
    for folder in prepared_once:
        copies.append(tmp_path / folder.name)
        shutil.copytree(folder, copies[-1])
    options = ("--train_data_path", copies[0], "--valid_data_path", copies[1], "--num_workers", n_workers)
    process = start("run", *options, "--end_epoch", 1000)
    wait_for_saves(process, tmp_path / "run/last.pth", 6)
    lost = copies[0] / "ARAD_1K_0003.h5"
    if damage == "gone":
        lost.unlink()
    else:
        os.truncate(lost, 1000)
    errors = finish(process, 1)[1]
    assert errors.splitlines()[-1] == f"error: {lost}: gone or cut short since the start; run the preparation again"
    assert "Traceback" not in errors
    assert find_last(tmp_path / "run")[1]["iter"] >= 4
