"""train/main.py and its loop: the recorded numbers, the files of a run, what it refuses."""

import argparse
import copy
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import DATA, ROOT, load_script, make_scenes, rows, run_options
from torch.optim.optimizer import register_optimizer_step_pre_hook

from drcr.checkpoint import load_model, read_checkpoint, rename_released
from drcr.compute.device import DelayedReading, choose_device, for_training, native_bf16
from drcr.metrics import mrae
from drcr.model import DRCR
from drcr.preparation.prepare import prepare
from drcr.training import loop
from drcr.training.batches import Batch
from drcr.training.distributed import World
from drcr.training.run_folder import Every, RunFolder
from drcr.utils.cli import Stop
from drcr.utils.files import DataError

train_main = load_script("train/main.py")

CPU = torch.device("cpu")
needs_bf16 = pytest.mark.skipif(not native_bf16(CPU), reason="this processor has no bfloat16 arithmetic")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++, a C++ compiler")
TINY = ("--channels", 8, "--n_blocks", 1, "--batchSize", 8, "--init_lr", "1e-3")


def weights(numbers, prefix):
    state = {name[3:]: torch.from_numpy(value) for name, value in numbers.items() if name.startswith(prefix)}
    return rename_released(state)


class FixedEpochs(list):
    """Stands for Epochs: the same batches (rgb, cube) in each epoch."""

    def batches(self, epoch, iteration, skip=0):
        whole = [Batch(*pair, 1.0, list(range(len(pair[0]))), [f"scene{i}"]) for i, pair in enumerate(self)]
        return whole[skip:]


class FixedImages(list):
    """Stands for Validation."""

    @property
    def n_images(self):
        return len(self)

    def __iter__(self):
        return ((i, *pair) for i, pair in enumerate(super().__iter__()))


def settings(outf, **options):
    """Return the options that train() takes, for a short run."""
    defaults = {
        "max_iter": 40,
        "decay_power": 1.5,
        "seed": 0,
        "batchSize": 1,
        "loss": "mrae",
        "recipe": "released",
        "precision": "fp32",
        "compile": False,
        "freeze": False,
        "quiet": False,
        "save_every": Every(600, timed=True),
    }
    return argparse.Namespace(**defaults | {"outf": outf} | options)


def train(model, epochs, images, args, checkpoint=None, device=CPU):
    start = (checkpoint["epoch"], checkpoint["iter"]) if checkpoint else ()
    with RunFolder(args.outf).open(*start) as folder, Stop() as stop:
        loop.train(model, epochs, FixedImages(images), args, device, folder, stop, checkpoint=checkpoint)


def a_batch(scale=1.0, offset=0.1):
    return torch.rand(1, 3, 8, 8), torch.rand(1, 31, 8, 8) * scale + offset


def test_losses_and_final_weights_equal_the_released_run(golden, tmp_path, monkeypatch, device, precision, tolerance):
    numbers = golden("training_c8_b1")
    model = DRCR(channels=8, n_blocks=1)
    model.load_state_dict(weights(numbers, "w0"))
    batches = list(zip(torch.from_numpy(numbers["rgb"]), torch.from_numpy(numbers["hyper"]), strict=True))
    losses = []

    def recorded(rec, truth):
        loss = mrae(rec, truth)
        if loss.requires_grad:
            losses.append(loss.item())
        return loss

    monkeypatch.setitem(loop.LOSSES, "mrae", recorded)
    args = settings(
        tmp_path,
        init_lr=float(numbers["init_lr"]),
        max_iter=int(numbers["max_iter"]),
        decay_power=float(numbers["power"]),
        end_epoch=int(numbers["epochs"]),
        batchSize=2,
        precision=precision,
    )
    train(model, FixedEpochs(batches), batches[:2], args, device=device)

    rtol = tolerance.training
    assert len(losses) == 12
    np.testing.assert_allclose(losses, numbers["losses"], rtol=rtol)
    final = model.cpu().state_dict()
    for name, golden_weight in weights(numbers, "w1").items():
        np.testing.assert_allclose(final[name], golden_weight, rtol=0, atol=rtol * golden_weight.abs().max().item())
    table = rows(tmp_path)
    assert float(table[-1]["learning_rate"]) == pytest.approx(numbers["lrs"][-1], rel=1e-12)
    assert float(table[-1]["train_loss"]) == pytest.approx(numbers["losses"][6:].mean(), rel=rtol)
    assert float(table[-1]["valid_loss"]) == pytest.approx(float(numbers["val"]), rel=rtol)


@pytest.fixture
def run(script, prepared_once, tmp_path):
    """Train on the golden data set."""

    def run(out, *options, ok=True):
        paths = ("--train_data_path", prepared_once[0], "--valid_data_path", prepared_once[1])
        return script("train/main.py", *TINY, *paths, "--outf", tmp_path / out, *options, ok=ok)

    return run


def test_files_of_a_run(run, tmp_path):
    printed = run("a", "--end_epoch", 3).stdout
    table = rows(tmp_path / "a")
    assert list(table[0]) == ["epoch", "iteration", "seconds", "learning_rate", "train_loss", "valid_loss"]
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    assert [row["iteration"] for row in table] == ["4", "8", "12"]  # 30 patches, the last batch has 6
    log = (tmp_path / "a/train.log").read_text().splitlines()
    assert len(log) == 4
    assert "30 patches of 16 x 16, 2 validation images" in log[0]
    losses = [float(row["valid_loss"]) for row in table]
    kept = {f"net_{i + 1}epoch.pth" for i in range(3) if losses[i] < min([math.inf, *losses[:i]]) + 1e-4}
    assert {path.name for path in (tmp_path / "a").glob("net_*")} == kept
    best = read_checkpoint(tmp_path / "a/best.pth")
    assert best["epoch"] == 1 + int(np.argmin(losses))
    assert best["architecture"]["channels"] == 8
    assert f"best: epoch {best['epoch']}" in printed
    assert read_checkpoint(tmp_path / "a/last.pth")["iter"] == 12


def test_epochs_within_a_hair_of_the_best_are_kept(tmp_path, monkeypatch):
    """Validation losses 0.5, 0.50005, 0.6, 0.4: the second is kept without being best, the third is not."""
    losses = iter([0.5, 0.50005, 0.6, 0.4])
    monkeypatch.setattr(loop, "validate", lambda *_: next(losses))
    train(DRCR(channels=8, n_blocks=0), FixedEpochs([a_batch()]), [], settings(tmp_path, init_lr=1e-3, end_epoch=4))
    assert {path.name for path in tmp_path.glob("*.pth")} == {
        "best.pth",
        "last.pth",
        "last-1.pth",
        "net_1epoch.pth",
        "net_2epoch.pth",
        "net_4epoch.pth",
    }
    assert read_checkpoint(tmp_path / "best.pth")["epoch"] == 4


def test_resumed_run_ends_like_one_that_never_stopped(run, tmp_path):
    run("whole", "--end_epoch", 4)
    run("parts", "--end_epoch", 2)
    run("parts", "--end_epoch", 4, "--resume", tmp_path / "parts/last.pth")
    whole, parts = (read_checkpoint(tmp_path / name / "last.pth") for name in ("whole", "parts"))
    for name, weight in whole["state_dict"].items():
        assert torch.equal(weight, parts["state_dict"][name])
    tables = [[{**row, "seconds": ""} for row in rows(tmp_path / name)] for name in ("whole", "parts")]
    assert tables[0] == tables[1]


def test_ends_at_max_iter_without_a_crash(run, tmp_path):
    """Past the last iteration of the schedule the released code fails at the end of the epoch."""
    run("a", "--end_epoch", 5, "--max_iter", 6)
    assert [row["iteration"] for row in rows(tmp_path / "a")] == ["4", "6"]
    again = run("a", "--end_epoch", 5, "--max_iter", 6, "--resume", tmp_path / "a/last.pth")
    assert "already finished" in again.stdout
    assert len(rows(tmp_path / "a")) == 2


def test_seed_repeats_a_run(run, tmp_path):
    for out, seed in (("a", 3), ("b", 3), ("c", 4)):
        run(out, "--end_epoch", 1, "--seed", seed)
    losses = [rows(tmp_path / out)[0]["train_loss"] for out in "abc"]
    assert losses[0] == losses[1] != losses[2]


def test_it_learns(run, tmp_path):
    run("a", "--end_epoch", 5)
    table = rows(tmp_path / "a")
    assert float(table[-1]["valid_loss"]) < 0.8 * float(table[0]["valid_loss"])
    assert load_model(tmp_path / "a/best.pth").architecture["n_blocks"] == 1


def test_a_run_is_never_overwritten(run, tmp_path):
    run("a", "--end_epoch", 1)
    before = (tmp_path / "a/last.pth").read_bytes()
    assert "already contains a run" in run("a", "--end_epoch", 1, ok=False).stderr
    assert (tmp_path / "a/last.pth").read_bytes() == before
    (tmp_path / "a/last.pth").unlink()
    assert "already contains a run" in run("a", "--end_epoch", 1, ok=False).stderr


def test_resume_refuses_another_recipe_and_an_older_epoch(run, tmp_path):
    run("a", "--end_epoch", 2)
    last = tmp_path / "a/last.pth"
    for option, value, was in (
        ("--channels", 9, 8),
        ("--seed", 1, 0),
        ("--batchSize", 4, 8),
        ("--init_lr", 1e-4, 0.001),
    ):
        error = run("a", "--end_epoch", 3, "--resume", last, option, value, ok=False).stderr
        assert f"was trained with {option} {was}; use the same" in error
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    error = run("a", "--end_epoch", 3, "--resume", tmp_path / "a/net_1epoch.pth", ok=False).stderr
    assert "is at iteration 4, but" in error
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before
    # into another folder it goes on, with a best of its own, even if it never comes near the old one
    checkpoint = torch.load(tmp_path / "a/net_1epoch.pth", weights_only=True)
    torch.save({**checkpoint, "best": 0.0}, tmp_path / "other.pth")
    run("b", "--end_epoch", 3, "--resume", tmp_path / "other.pth")
    assert [row["epoch"] for row in rows(tmp_path / "b")] == ["2", "3"]
    assert (tmp_path / "b/best.pth").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    model, good = DRCR(channels=8, n_blocks=0), a_batch()
    train(model, FixedEpochs([good]), [good], settings(tmp_path, init_lr=1e-3, end_epoch=1))
    before = (tmp_path / "last.pth").read_bytes()
    bad = FixedEpochs([good, (good[0], good[1] * 0)])
    args, checkpoint = settings(tmp_path, init_lr=1e-3, end_epoch=2), read_checkpoint(tmp_path / "last.pth")
    with pytest.raises(DataError, match=r"iteration 3 is not finite \(inf\).* scene1;.*last\.pth.*kept"):
        train(model, bad, [good], args, checkpoint)
    assert (tmp_path / "last.pth").read_bytes() == before
    assert len(rows(tmp_path)) == 1


def test_training_and_validation_need_the_same_floor(fails, prepared_once, tmp_path):
    folders = (DATA / "Dataset/Valid_spectral", DATA / "Dataset/Valid_RGB")
    prepare(*folders, tmp_path / "floored", floor=0.01)
    options = ("--train_data_path", prepared_once[0], "--valid_data_path", tmp_path / "floored")
    fails("train/main.py", *options, names="floored: prepared with --non_positive floor 0.01")
    assert not (tmp_path / "RealWorldResults").exists()


def test_resume_wants_the_data_it_was_trained_on(script, fails, prepared, tmp_path):
    options = ("--train_data_path", prepared[0], "--valid_data_path", prepared[1], "--channels", 8, "--n_blocks", 0)
    script("train/main.py", *options, "--end_epoch", 1)
    prepare(DATA / "Dataset/Train_spectral", DATA / "Dataset/Train_RGB", prepared[0], 16, 4)
    resume = (*options, "--end_epoch", 2, "--resume", "RealWorldResults/last.pth")
    fails("train/main.py", *resume, names="its train data had another stride")


def test_files_that_are_not_a_runs_are_left_alone(run, tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("best.pth", "curves.png", "loss.csv", "train.log"):
        path = tmp_path / "a" / name
        path.write_text("precious")
        for resume in ((), ("--resume", "auto")):
            error = run("a", "--end_epoch", 1, *resume, ok=False).stderr
            assert str(path) in error.splitlines()[-1]
        assert path.read_text() == "precious"
        assert [path.name for path in (tmp_path / "a").iterdir()] == [name]
        path.unlink()


def test_curves_of_a_run_are_drawn_again(run, tmp_path):
    run("a", "--end_epoch", 1)
    before = (tmp_path / "a/curves.png").read_bytes()
    run("a", "--end_epoch", 2, "--resume", "auto")
    assert (tmp_path / "a/curves.png").read_bytes() != before


def test_the_next_command_can_be_pasted(run, tmp_path):
    last_line = run("my run", "--end_epoch", 1).stdout.splitlines()[-1]
    words = last_line.split("python ")[1]
    assert shlex.split(words) == ["test.py", "--model_dir", str((tmp_path / "my run/best.pth").resolve())]


def test_l1_is_the_mean_absolute_error_and_validation_stays_mrae(tmp_path):
    model, batch = DRCR(channels=8, n_blocks=0), a_batch()
    expected = (model(batch[0]) - batch[1]).abs().mean().item()
    train(model, FixedEpochs([batch]), [batch], settings(tmp_path, init_lr=1e-9, end_epoch=1, loss="l1"))
    row = rows(tmp_path)[0]
    assert float(row["train_loss"]) == pytest.approx(expected, rel=1e-5)
    relative = ((model(batch[0]) - batch[1]).abs() / batch[1]).mean().item()
    assert float(row["valid_loss"]) == pytest.approx(relative, rel=1e-5)


def test_a_loss_that_is_not_finite_ends_it_at_once(tmp_path):
    """The 6th is the first; it is read when the 7th has begun, for which the host need not wait."""
    good, drawn = a_batch(), []

    class Counted(list):
        def __iter__(self):
            for batch in super().__iter__():
                drawn.append(batch)
                yield batch

    class CountedEpochs(FixedEpochs):
        def batches(self, epoch, iteration, skip=0):
            return Counted(super().batches(epoch, iteration, skip))

    bad = CountedEpochs([good] * 5 + [(good[0], good[1] * 0)] * 10)
    with pytest.raises(DataError, match="iteration 6 is not finite"):
        train(DRCR(channels=8, n_blocks=0), bad, [good], settings(tmp_path, init_lr=1e-3, end_epoch=1))
    assert len(drawn) == 7
    assert not list(tmp_path.glob("*.pth"))


def test_a_delayed_reading_is_the_number_before():
    reading = DelayedReading()
    assert [reading.exchange(torch.tensor(value)) for value in (1.0, 2.0, 3.0)] == [None, 1.0, 2.0]


def gradients(model, rgb, cube, precision):
    """Return the gradients of one training step, in a row."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    loop.training_step(model, optimizer, mrae, rgb, cube, precision)
    return torch.cat([parameter.grad.double().flatten() for parameter in model.parameters()])


@needs_bf16
@pytest.mark.parametrize("trained", [True, False])
def test_gradients_in_bf16_are_those_in_fp32_to_its_precision(trained):
    """Measured, as a part of their norm: 0.006-0.017 trained, 0.004-0.005 new; a bfloat16 is off by up to 0.004."""
    torch.manual_seed(0)
    plain = load_model(ROOT / "test/model/model.pth") if trained else DRCR(channels=32, n_blocks=1)
    rgb, cube = torch.rand(2, 3, 32, 32), torch.rand(2, 31, 32, 32) + 0.1
    ours = [for_training(copy.deepcopy(plain), CPU) for _ in range(2)]
    expected = gradients(plain, rgb, cube, "fp32")
    fp32, bf16 = (gradients(model, rgb, cube, name) for model, name in zip(ours, ("fp32", "bf16"), strict=True))
    assert (fp32 - expected).norm() < 1e-4 * expected.norm()
    assert 1e-3 * expected.norm() < (bf16 - expected).norm() < 0.03 * expected.norm()
    assert torch.cosine_similarity(bf16, expected, 0) > 0.9998


@needs_bf16
def test_in_bf16_loss_weights_and_optimiser_are_float32():
    model = for_training(DRCR(channels=8, n_blocks=1), CPU)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    inside, measured = [], []
    model.blocks.register_forward_hook(lambda _m, _x, result: inside.append(result.dtype))

    def criterion(output, truth):
        measured.append((output.dtype, truth.dtype, torch.is_autocast_enabled("cpu")))
        return mrae(output, truth)

    loss = loop.training_step(model, optimizer, criterion, *a_batch(), "bf16")
    assert inside == [torch.bfloat16]
    assert measured == [(torch.float32, torch.float32, False)]
    assert loss.dtype == torch.float32
    assert not loss.requires_grad
    tensors = [value for state in optimizer.state.values() for value in state.values()]
    tensors += [tensor for parameter in model.parameters() for tensor in (parameter, parameter.grad)]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


@needs_bf16
def test_checkpoints_of_a_run_in_bf16_are_float32(run, tmp_path):
    run("a", "--end_epoch", 1, "--precision", "bf16")
    last = tmp_path / "a/last.pth"
    checkpoint = read_checkpoint(last)
    moments = [value for state in checkpoint["optimizer"]["state"].values() for value in state.values()]
    assert {tensor.dtype for tensor in (*checkpoint["state_dict"].values(), *moments)} == {torch.float32}
    error = run("a", "--end_epoch", 2, "--resume", last, ok=False).stderr
    assert "was trained with --precision bf16; use the same" in error
    run("a", "--end_epoch", 2, "--resume", last, "--precision", "bf16")
    assert load_model(last)(torch.rand(1, 3, 8, 8)).dtype == torch.float32


def test_precisions_that_a_machine_lacks(fails, monkeypatch):
    fails("train/main.py", "--precision", "tf32", names="--precision tf32: ")
    monkeypatch.setattr("drcr.compute.device.native_bf16", lambda device: False)
    with pytest.raises(DataError, match="bfloat16"):
        choose_device("bf16")


def test_tf32_is_used_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    flags = []
    for precision in ("tf32", "fp32"):
        assert choose_device(precision).type == "cuda"
        flags.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
    assert flags == [(True, True), (False, False)]


@needs_compiler
@pytest.mark.slow
def test_a_compiled_run_is_the_same_run(run, tmp_path):
    size = ("--n_blocks", 0, "--batchSize", 15, "--end_epoch", 1)
    run("plain", *size)
    run("compiled", *size, "--compile")
    plain, compiled = (read_checkpoint(tmp_path / name / "last.pth")["state_dict"] for name in ("plain", "compiled"))
    assert list(plain) == list(compiled)
    for name, weight in plain.items():
        torch.testing.assert_close(compiled[name], weight, rtol=0, atol=1e-4)
    losses = [float(rows(tmp_path / name)[0]["train_loss"]) for name in ("plain", "compiled")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_compiling_without_a_compiler(fails, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    fails("train/main.py", "--compile", names="--compile: needs a C++ compiler")


def test_a_batch_that_cannot_fit_is_refused_with_one_that_does(fails, tmp_path):
    """10,000 patches of 128 x 128 take some 1,000 GB in 64 channels; from such a patch to the next is a pixel."""
    folders = make_scenes(tmp_path, 1, size=(256, 256))
    prepare(*folders, tmp_path / "dataset/Train", 128, 1)
    prepare(*folders, tmp_path / "dataset/Valid")
    options = "--channels", 64, "--n_blocks", 2, "--end_epoch", 1, "--max_iter", 1
    message = fails("train/main.py", *options, "--batchSize", 10000, names="RealWorldResults")
    assert "10000 patches of 128 x 128 in fp32 need" in message
    fitting = int(re.search(r"--batchSize (\d+) --precision fp32", message)[1])
    assert 1 < fitting < 10000
    assert "--resume" not in message
    assert not (tmp_path / "RealWorldResults").exists()  # what is tried next finds no run there


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=[needs_bf16, pytest.mark.slow])])
def test_activations_are_half_or_more_of_what_a_step_takes(precision):
    """What passes through in the backward pass is the rest; in a process of its own, for its peak."""
    code = (
        "import resource, sys, torch\n"
        "from drcr.compute.memory import activation_bytes\n"
        "from drcr.model import DRCR\n"
        "model, count, precision = DRCR(channels=32, n_blocks=3), 40, sys.argv[1]\n"
        "estimate = count * activation_bytes(model, torch.device('cpu'), 64, precision)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "rgb = torch.rand(count, 3, 64, 64).to(memory_format=torch.channels_last)\n"
        "with torch.autocast('cpu', torch.bfloat16, enabled=precision == 'bf16'):\n"
        "    output = model(rgb)\n"
        "output.float().abs().mean().backward()\n"
        "taken = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        "print(estimate / taken)"
    )
    small = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]], check=True)"
    command = [sys.executable, "-c", small, code, precision]
    part = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0.5 < part < 1


def test_gradients_are_clipped_where_the_recipe_says_so(tmp_path):
    norms = {}
    for recipe in ("released", "clip"):
        torch.manual_seed(0)
        model, norms[recipe] = DRCR(channels=8, n_blocks=0), []
        # as the optimizer finds them
        hook = register_optimizer_step_pre_hook(
            lambda *_, model=model, norms=norms[recipe]: norms.append(
                torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm().item()
            )
        )
        batch = a_batch(scale=0.01, offset=0.001)
        args = settings(tmp_path / recipe, init_lr=1e-5, end_epoch=1, recipe=recipe)
        train(model, FixedEpochs([batch] * 3), [batch], args)
        hook.remove()
    assert min(norms["released"]) > 2
    np.testing.assert_allclose(norms["clip"], 1, rtol=1e-4)


def test_tensorboard_gets_the_numbers_of_loss_csv(run, tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard, an optional install, is not there")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = ("--batchSize", 2, "--tensorboard", "--resume", "auto")
    run("run", "--end_epoch", 1, *options)
    run("run", "--end_epoch", 2, *options)
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    written = {event.step: event.value for event in events.Scalars("loss/validation, MRAE")}
    table = {int(row["iteration"]): float(row["valid_loss"]) for row in rows(tmp_path / "run")}
    assert written == pytest.approx(table, rel=1e-6)
    assert len(written) == 2
    assert {"learning rate", "loss/training", "loss/training, mean of the epoch"} <= set(events.Tags()["scalars"])


def test_a_batch_for_fewer_than_the_processes_is_refused():
    args = train_main.build_parser().parse_args(["--batchSize", "1"])
    with pytest.raises(DataError, match=r"--batchSize 1: is the total over all processes; use at least 2"):
        train_main.check_options(args, World(1, 2))


def test_training_needs_no_plotting_library():
    """Both take a second to import, in each process of a run."""
    code = (
        "import sys, drcr.training.loop, drcr.metrics, drcr.data, drcr.checkpoint\n"
        "print(*({'matplotlib', 'skimage', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not done.stdout.split()


def test_a_signal_before_the_first_iteration_is_not_lost(run, tmp_path, monkeypatch):
    """A flag is set: an exception, raised within a callback, would be printed and forgotten."""
    measured = train_main.activation_bytes

    def interrupted(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return measured(*args)

    monkeypatch.setattr(train_main, "activation_bytes", interrupted)
    done = run("a", "--end_epoch", 3, ok=False)
    assert done.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM in epoch 1, after iteration 1" in done.stdout
    assert read_checkpoint(tmp_path / "a/last.pth")["iter"] == 1


def test_the_rate_and_the_time_left_are_logged(script, prepared_once, monkeypatch, tmp_path):
    monkeypatch.setattr("drcr.training.loop.PACE_SECONDS", 0)
    for folder, options, expected in (("a", (), True), ("b", ("--quiet",), False)):
        script("train/main.py", *run_options(prepared_once, tmp_path / folder, "--end_epoch", 1, *options))
        assert ("hours left" in (tmp_path / folder / "train.log").read_text()) == expected
