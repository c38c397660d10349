"""Training that is stopped, killed, or finds its files damaged, and continues. What is killed is a real process."""

import argparse
import os
import random
import resource
import shutil
import signal
import threading
import time

import pytest
import torch
from helpers import DATA, EPOCHS, begin, ended, finish, load_script, rows, run_options, same_run, wait_for_saves

from drcr.checkpoint import load_model, read_checkpoint, save_checkpoint
from drcr.model import DRCR
from drcr.training import loop
from drcr.training.run_folder import Every, RunFolder
from drcr.training.state import RECIPE, make_optimizer
from drcr.utils.files import DataError


def a_state(model, iteration, **changed):
    """Return a training state of a network, as after so many iterations."""
    torch.manual_seed(0)
    optimizer = make_optimizer(model, 1e-3)
    for _ in range(iteration):
        model(torch.rand(1, 3, 4, 4)).sum().backward()
        optimizer.step()
    options = argparse.Namespace(**dict.fromkeys(RECIPE, 0) | {"recipe": "released"})
    run = loop.Run(model, optimizer, options, *[None] * 3, iteration=iteration)
    return run.state() | changed


@pytest.fixture
def start(prepared_once, tmp_path, device, precision):
    """Start a run in a folder of the test, or go on with it, in a process of its own; return the process."""
    auto = ("--resume", "auto", "--precision", precision)
    return lambda outf, *options, **kwargs: begin(prepared_once, tmp_path / outf, *auto, *options, **kwargs)


@pytest.fixture
def go_on(script, prepared_once, tmp_path, device, precision):
    """Start a run in a folder of the test, or go on with it, in this process."""
    auto = ("--resume", "auto", "--precision", precision)

    def run(outf, *options, ok=True):
        return script("train/main.py", *run_options(prepared_once, tmp_path / outf, *auto, *options), ok=ok)

    return run


@pytest.fixture(scope="module")
def whole(prepared_once, tmp_path_factory, device, precision):
    """Return the folder of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    load_script("train/main.py").main(run_options(prepared_once, folder, "--precision", precision))
    assert len(rows(folder)) == EPOCHS
    return folder


@pytest.fixture
def begun(whole, tmp_path):
    """Return the folder `run` of the test with a run that has finished two epochs."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for name in ("last.pth", "last-1.pth"):
        epoch = 2 - len(name.removeprefix("last").removesuffix(".pth")) // 2
        shutil.copy(whole / f"net_{epoch}epoch.pth", folder / name)
    return folder


def test_killed_at_random_moments_it_ends_as_if_never_stopped(start, go_on, whole, tmp_path, tolerance):
    generator = random.Random()
    kills, iterations = 0, []
    for i in range(2):
        process = start("killed")
        # the first time within an epoch for certain
        wait_for_saves(tmp_path / "killed/last.pth", generator.randint(1, 8) if i else 2, ended(process))
        time.sleep(generator.uniform(0, 0.05) if i else 0)
        kills += process.poll() is None
        process.kill()
        process.communicate()
        iterations.append(RunFolder(tmp_path / "killed").find_last()[1]["iter"])
    go_on("killed")
    assert kills, iterations
    assert any(iteration % 4 for iteration in iterations), iterations  # within an epoch
    assert same_run(whole, tmp_path / "killed", tolerance.resumed)
    assert {path.name for path in (tmp_path / "killed").glob("last*")} == {"last.pth", "last-1.pth"}


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_asked_to_stop_it_saves_and_says_how_to_go_on(start, go_on, whole, tmp_path, tolerance, number):
    process = start("stopped", "--save_every", "10min")
    wait_for_saves(tmp_path / "stopped/last.pth", 2, ended(process))
    process.send_signal(number)
    printed, errors = finish(process, 128 + number)
    assert f"stopped by {number.name} in epoch" in printed
    assert "--resume auto" in printed
    assert "Traceback" not in errors
    go_on("stopped")
    assert same_run(whole, tmp_path / "stopped", tolerance.resumed)


def test_a_recipe_goes_on_as_exactly(start, go_on, tmp_path, tolerance):
    recipe = ("--recipe", "flip,clip,robust")
    go_on("whole", *recipe)
    process = start("killed", *recipe)
    wait_for_saves(tmp_path / "killed/last.pth", 6, ended(process))
    process.kill()
    process.communicate()
    assert RunFolder(tmp_path / "killed").find_last()[1]["iter"] < 4 * EPOCHS
    go_on("killed", *recipe, "--num_workers", 2)  # who cuts the patches makes no difference
    assert same_run(tmp_path / "whole", tmp_path / "killed", tolerance.resumed)
    assert "--recipe flip,clip,robust" in go_on("killed", "--end_epoch", EPOCHS + 1, ok=False).stderr


@pytest.mark.parametrize("recipe", ["improved", "flip,ema"])
def test_a_run_with_a_recipe_that_has_left_does_not_go_on_with_another(go_on, begun, recipe):
    """`improved` named all parts at first."""
    last = read_checkpoint(begun / "last.pth")
    last["recipe"]["recipe"] = recipe
    save_checkpoint(begun / "last.pth", load_model(begun / "last.pth"), **last)
    for asked in ("improved", "released"):
        assert "was trained with ema" in go_on("run", "--recipe", asked, ok=False).stderr.splitlines()[-1]


@pytest.mark.parametrize("damage", ["torn", "a byte", "gone"])
def test_a_damaged_checkpoint_is_skipped(go_on, whole, begun, tolerance, damage):
    last = begun / "last.pth"
    content = bytearray(last.read_bytes())
    if damage == "torn":
        last.write_bytes(content[: len(content) // 2])
    elif damage == "a byte":
        content[len(content) // 2] ^= 1
        last.write_bytes(content)
    else:
        last.unlink()
    assert ("warning: " in go_on("run").stderr) == (damage != "gone")
    assert same_run(whole, begun, tolerance.resumed)


def test_all_damaged_is_an_error(tmp_path):
    assert RunFolder(tmp_path).find_last() is None
    (tmp_path / "last.pth").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"last\.pth"):
        RunFolder(tmp_path).find_last()


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(start, go_on, whole, begun, tolerance):
    before = {path: path.read_bytes() for path in begun.glob("last*")}
    size = len(before[begun / "last.pth"]) // 2
    process = start("run", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    errors = finish(process, 1)[1]
    assert errors.splitlines()[-1].startswith(f"error: {begun / 'last-new.pth'}: File too large")
    assert "Traceback" not in errors
    assert {path: path.read_bytes() for path in begun.glob("last*")} == before
    go_on("run")
    assert same_run(whole, begun, tolerance.resumed)


def test_last_checkpoints_are_kept_as_many_as_asked_for(tmp_path):
    model, folder = DRCR(channels=8, n_blocks=0), RunFolder(tmp_path, keep=3)
    for i in range(5):
        folder.save_last(model, **a_state(model, i))
    found = {path.name: read_checkpoint(path)["iter"] for path in tmp_path.iterdir()}
    assert found == {"last.pth": 4, "last-1.pth": 3, "last-2.pth": 2}
    assert folder.find_last()[1]["iter"] == 4
    # killed between two renames
    os.rename(tmp_path / "last.pth", tmp_path / "last-new.pth")
    assert folder.find_last()[0].name == "last-new.pth"
    RunFolder(tmp_path, keep=1).save_last(model, **a_state(model, 5))
    assert folder.find_last()[1]["iter"] == 5


def test_the_newest_is_found_among_our_own_names_alone(tmp_path):
    """Of two after the same iteration, the one whose epoch is validated; of two equal ones, the later file."""
    model, folder = DRCR(channels=8, n_blocks=0), RunFolder(tmp_path)
    for name in ("last-backup.pth", "last_1.pth", "lastly.pth", "last-1.pth.pth"):
        save_checkpoint(tmp_path / name, model, **a_state(model, 9))
    assert folder.find_last() is None
    for name, epoch, modified in (("last-1.pth", 0, 3), ("last.pth", 1, 1), ("last-2.pth", 1, 2)):
        save_checkpoint(tmp_path / name, model, **a_state(model, 4, epoch=epoch))
        os.utime(tmp_path / name, (modified, modified))
    assert folder.find_last()[0].name == "last-2.pth"


def test_a_run_does_not_continue_in_the_folder_of_another(go_on, begun, whole, tmp_path):
    go_on("other", "--end_epoch", 1, "--seed", 0)
    before = {path: path.read_bytes() for path in (tmp_path / "other").iterdir()}
    error = go_on("other", "--resume", begun / "last.pth", ok=False).stderr.splitlines()[-1]
    assert error == (
        f"error: {tmp_path / 'other/last.pth'}: not of the same run as {begun / 'last.pth'}; choose another --outf"
    )
    assert {path: path.read_bytes() for path in (tmp_path / "other").iterdir()} == before
    # a copy of it elsewhere is the same run, and so is what it leaves there
    for end, path in ((3, begun / "last.pth"), (4, tmp_path / "copy/last.pth")):
        go_on("copy", "--end_epoch", end, "--resume", path)
    assert [row["valid_loss"] for row in rows(tmp_path / "copy")] == [row["valid_loss"] for row in rows(whole)][2:4]


@pytest.mark.parametrize("kind", ["net", "text", "another run", "link"])
def test_nothing_foreign_is_lost_where_a_run_goes_on(go_on, begun, tmp_path, kind):
    epoch = read_checkpoint(begun / "last.pth")["epoch"]
    model = DRCR(channels=8, n_blocks=0)
    foreign = {
        "net": tmp_path / f"other/net_{epoch + 1}epoch.pth",
        "text": begun / "last-2.pth",
        "another run": begun / "last-2.pth",
        "link": begun / "train.log",
    }[kind]
    foreign.parent.mkdir(exist_ok=True)
    if kind == "link":
        foreign.rename(tmp_path / "behind")
        foreign.symlink_to(tmp_path / "behind")
    elif kind == "text":
        foreign.write_text("precious")
    else:
        save_checkpoint(foreign, model, **a_state(model, 1))
    before = {path: path.read_bytes() for path in foreign.parent.iterdir()}
    error = go_on(foreign.parent, "--resume", begun / "last.pth", "--keep", 3, ok=False).stderr
    assert error.splitlines()[-1].startswith(f"error: {foreign}: ")
    assert {path: path.read_bytes() for path in foreign.parent.iterdir()} == before


@pytest.mark.parametrize(("cell", "value"), [(5, "nan"), (0, "7")])
def test_a_damaged_table_is_named_before_anything_is_trained(go_on, begun, cell, value):
    lines = (begun / "loss.csv").read_text().splitlines()
    cells = lines[2].split(",")
    cells[cell] = value
    (begun / "loss.csv").write_text("\n".join([*lines[:2], ",".join(cells), *lines[3:], ""]))
    before = {path: path.read_bytes() for path in begun.iterdir()}
    assert "loss.csv: line 3 is damaged" in go_on("run", ok=False).stderr.splitlines()[-1]
    assert {path: path.read_bytes() for path in begun.iterdir()} == before


def test_an_epoch_is_saved_before_it_is_drawn(go_on, begun, whole, monkeypatch, tolerance):
    def fail(*_):
        raise DataError("it can't be drawn")

    monkeypatch.setattr(load_script("train/main.py"), "draw_curves", fail)
    assert "it can't be drawn" in go_on("run", ok=False).stderr
    assert RunFolder(begun).find_last()[1]["epoch"] == 3
    monkeypatch.undo()
    go_on("run")
    assert same_run(whole, begun, tolerance.resumed)


def test_random_states_are_restored_for_the_gpus_that_are_there(monkeypatch):
    restored = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.set_rng_state", lambda state, device: restored.append((device, state)))
    run = loop.Run(*[None] * 6)
    run.random = {"cpu": torch.get_rng_state(), "cuda": ["of the first", "of the second"]}
    run.restore_random_states()
    run.restore_random_states()
    assert restored == [(0, "of the first")]


def test_when_to_save():
    assert [Every(3).due(iteration, 0) for iteration in range(1, 7)] == [False, False, True] * 2
    assert [Every(60, timed=True).due(1, seconds) for seconds in (59.9, 60)] == [False, True]


def test_fine_tuning_from_weights(go_on, tmp_path):
    released = DATA / "model_c16_b2.pth"
    go_on("tail", "--init", released, "--freeze", "--end_epoch", 1)
    before, after = load_model(released).state_dict(), load_model(tmp_path / "tail/last.pth").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"tail.0.weight", "tail.1.weight", "tail.2.weight"}
    go_on("tail", "--init", released, "--freeze", "--end_epoch", 2)  # the same command goes on
    assert len(rows(tmp_path / "tail")) == 2
    assert "--freeze True" in go_on("tail", "--end_epoch", 3, ok=False).stderr

    other = DRCR(channels=8, n_blocks=1, out_channels=4)
    other.wavelengths = [450.0, 500.0, 550.0, 600.0]
    save_checkpoint(tmp_path / "other.pth", other)
    assert (
        "the last convolution starts at random"
        in go_on("fresh", "--init", tmp_path / "other.pth", "--end_epoch", 1).stdout
    )
    assert load_model(tmp_path / "fresh/last.pth").architecture["out_channels"] == 31


def test_weights_alone_cannot_be_continued(go_on, tmp_path):
    save_checkpoint(tmp_path / "weights.pth", DRCR(channels=8, n_blocks=1))
    error = go_on("run", "--resume", tmp_path / "weights.pth", ok=False).stderr
    assert "weights.pth: contains no training state" in error


@pytest.mark.parametrize("n_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_a_data_file_that_is_lost_in_a_run_is_named(go_on, prepared_once, tmp_path, damage, n_workers):
    copies = [tmp_path / folder.name for folder in prepared_once]
    for folder, copy in zip(prepared_once, copies, strict=True):
        shutil.copytree(folder, copy)
    lost, last, over = copies[0] / "ARAD_1K_0003.h5", tmp_path / "run/last.pth", threading.Event()

    def lose():
        wait_for_saves(last, 6, over.is_set)
        if damage == "gone":
            lost.unlink()
        else:
            os.truncate(lost, 1000)

    thread = threading.Thread(target=lose)
    thread.start()
    options = ("--train_data_path", copies[0], "--valid_data_path", copies[1], "--num_workers", n_workers)
    try:
        errors = go_on("run", *options, "--end_epoch", 1000, ok=False).stderr
    finally:
        over.set()
        thread.join()
    assert (
        errors.splitlines()[-1] == f"error: {lost}: removed or truncated since the start; run the preparation again"
    )
    assert "Traceback" not in errors
    assert RunFolder(tmp_path / "run").find_last()[1]["iter"] >= 4
