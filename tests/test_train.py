import argparse
import copy
import csv
import math
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import DATA, ROOT, load_script
from torch.optim.optimizer import register_optimizer_step_pre_hook

from drcr.checkpoint import load_model, read_checkpoint, rename_released
from drcr.compute.device import DelayedReading, choose_device, for_training, native_bf16
from drcr.model import DRCR
from drcr.utils.files import DataError

train_main = load_script("train/main.py")

CPU = torch.device("cpu")
needs_bf16 = pytest.mark.skipif(not native_bf16(CPU), reason="this processor does not compute in bfloat16 itself")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++, a C++ compiler")
SETTINGS = {
    "precision": "fp32",
    "compile": False,
    "freeze": False,
    "quiet": False,
    "save_every": train_main.Every(600, timed=True),
    "keep": 2,
}
TINY = ("--channels", 8, "--n_blocks", 1, "--batchSize", 8, "--init_lr", "1e-3")


def weights(numbers, prefix):
    state = {name[3:]: torch.from_numpy(value) for name, value in numbers.items() if name.startswith(prefix)}
    return rename_released(state)


def rows(folder):
    with open(folder / "loss.csv", newline="") as file:
        return list(csv.DictReader(file))


class Batches(list):
    """Stands for drcr.data.Epochs: the same batches in each epoch."""

    def batches(self, epoch, skip=0):
        return self[skip:]

    def share(self, batch):
        return 1.0

    def positions(self, batch):
        return list(range(len(self[batch][0])))

    def scenes(self, batch):
        return [f"scene{batch}"]


def recipe(outf, **options):
    """Return the options that train() takes, for a short run."""
    defaults = {
        "max_iter": 40,
        "decay_power": 1.5,
        "seed": 0,
        "batchSize": 1,
        "loss": "mrae",
        "recipe": "released",
        "tensorboard": False,
    }
    return argparse.Namespace(**defaults | SETTINGS | {"outf": outf} | options)


@pytest.mark.parametrize("filtered", [False, True])
def test_losses_and_final_weights_equal_the_released_run(golden, tmp_path, monkeypatch, filtered):
    """Convolved directly, as a network so small is, and by F(4, 3), as the full one is on a CPU."""
    if filtered:
        monkeypatch.setattr("drcr.compute.winograd.CHANNELS", 0)
        monkeypatch.setattr("drcr.compute.winograd.WIDTH", 0)
    numbers = golden("training_c8_b1")
    model = DRCR(channels=8, n_blocks=1)
    model.load_state_dict(weights(numbers, "w0"))
    batches = Batches(zip(torch.from_numpy(numbers["rgb"]), torch.from_numpy(numbers["hyper"]), strict=True))
    losses, mrae = [], train_main.mrae

    def recorded(rec, truth):
        loss = mrae(rec, truth)
        if loss.requires_grad:
            losses.append(loss.item())
        return loss

    monkeypatch.setattr(train_main, "mrae", recorded)
    args = recipe(
        tmp_path,
        init_lr=float(numbers["init_lr"]),
        max_iter=int(numbers["max_iter"]),
        decay_power=float(numbers["power"]),
        end_epoch=int(numbers["epochs"]),
        batchSize=2,
    )
    train_main.train(model, batches, batches[:2], args, torch.device("cpu"))

    assert len(losses) == 12
    np.testing.assert_allclose(losses, numbers["losses"], rtol=1e-4)
    final = model.state_dict()
    for name, golden_weight in weights(numbers, "w1").items():
        np.testing.assert_allclose(final[name], golden_weight, rtol=0, atol=1e-4 * golden_weight.abs().max().item())
    table = rows(tmp_path)
    assert float(table[-1]["learning_rate"]) == pytest.approx(numbers["lrs"][-1], rel=1e-12)
    assert float(table[-1]["train_loss"]) == pytest.approx(numbers["losses"][6:].mean(), rel=1e-4)
    assert float(table[-1]["valid_loss"]) == pytest.approx(float(numbers["val"]), rel=1e-4)


@pytest.fixture
def run(script, prepared, tmp_path):
    """Train on the golden data set."""

    def run(out, *options, ok=True):
        paths = ("--train_data_path", prepared[0], "--valid_data_path", prepared[1], "--outf", tmp_path / out)
        return script("train/main.py", *TINY, *paths, *options, ok=ok)

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
    monkeypatch.setattr(train_main, "validate", lambda *_: next(losses))
    args = recipe(tmp_path, init_lr=1e-3, end_epoch=4)
    batch = torch.rand(1, 3, 8, 8), torch.rand(1, 31, 8, 8) + 0.1
    train_main.train(DRCR(channels=8, n_blocks=0), Batches([batch]), [], args, torch.device("cpu"))
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
    assert "has come to the end" in again.stdout
    assert len(rows(tmp_path / "a")) == 2


def test_seed_repeats_a_run(run, tmp_path):
    for out, seed in (("a", 3), ("b", 3), ("c", 4)):
        run(out, "--end_epoch", 1, "--seed", seed)
    losses = [rows(tmp_path / out)[0]["train_loss"] for out in "abc"]
    assert losses[0] == losses[1] != losses[2]


def test_it_learns(run, tmp_path):
    run("a", "--end_epoch", 25)
    table = rows(tmp_path / "a")
    assert float(table[-1]["valid_loss"]) < 0.8 * float(table[0]["valid_loss"])
    assert load_model(tmp_path / "a/best.pth").architecture["n_blocks"] == 1


def test_a_run_is_never_overwritten(run, tmp_path):
    run("a", "--end_epoch", 1)
    before = (tmp_path / "a/last.pth").read_bytes()
    assert "a run is here already" in run("a", "--end_epoch", 1, ok=False).stderr
    assert (tmp_path / "a/last.pth").read_bytes() == before
    (tmp_path / "a/last.pth").unlink()
    assert "a run is here already" in run("a", "--end_epoch", 1, ok=False).stderr


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
        assert f"was trained with {option} {was}; give the same" in error
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    error = run("a", "--end_epoch", 3, "--resume", tmp_path / "a/net_1epoch.pth", ok=False).stderr
    assert "is of iteration 4, but" in error
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before
    # into another folder it goes on, with a best of its own, even if it never comes near the old one
    checkpoint = torch.load(tmp_path / "a/net_1epoch.pth", weights_only=True)
    torch.save({**checkpoint, "best": 0.0}, tmp_path / "other.pth")
    run("b", "--end_epoch", 3, "--resume", tmp_path / "other.pth")
    assert [row["epoch"] for row in rows(tmp_path / "b")] == ["2", "3"]
    assert (tmp_path / "b/best.pth").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    args = recipe(tmp_path, init_lr=1e-3, end_epoch=2)
    model, device = DRCR(channels=8, n_blocks=0), torch.device("cpu")
    good = torch.rand(1, 3, 8, 8), torch.rand(1, 31, 8, 8) + 0.1
    args.end_epoch = 1
    train_main.train(model, Batches([good]), [good], args, device)
    before = (tmp_path / "last.pth").read_bytes()
    args.end_epoch = 2
    bad = Batches([good, (good[0], good[1] * 0)])
    with pytest.raises(DataError, match=r"iteration 3 is not finite \(inf\), .* scenes scene1;.*last\.pth.*kept"):
        train_main.train(model, bad, [good], args, device, read_checkpoint(tmp_path / "last.pth"))
    assert (tmp_path / "last.pth").read_bytes() == before
    assert len(rows(tmp_path)) == 1


def test_training_and_validation_need_the_same_floor(script, prepared, tmp_path):
    options = ("--data_path", DATA / "Dataset", "--non_positive", "floor", 0.01)
    script("train/valid_data_preprocess.py", *options, "--valid_data_path", tmp_path / "floored")
    options = ("--train_data_path", prepared[0], "--valid_data_path", tmp_path / "floored")
    assert "but" in script("train/main.py", *options, ok=False).stderr.splitlines()[-1]
    assert not (tmp_path / "RealWorldResults").exists()


def test_resume_wants_the_data_it_was_trained_on(script, prepared, tmp_path):
    options = ("--train_data_path", prepared[0], "--valid_data_path", prepared[1], "--channels", 8, "--n_blocks", 0)
    script("train/main.py", *options, "--end_epoch", 1)
    again = ("--data_path", DATA / "Dataset", "--patch_size", 16, "--stride", 4, "--train_data_path", prepared[0])
    script("train/train_data_preprocess.py", *again)
    resume = (*options, "--end_epoch", 2, "--resume", "RealWorldResults/last.pth")
    assert "its train data had another stride" in script("train/main.py", *resume, ok=False).stderr


def test_files_that_are_not_a_runs_are_left_alone(script, prepared, tmp_path):
    (tmp_path / "RealWorldResults").mkdir()
    (tmp_path / "RealWorldResults/best.pth").write_text("precious")
    options = ("--train_data_path", prepared[0], "--valid_data_path", prepared[1], "--channels", 8, "--n_blocks", 0)
    assert "best.pth: a run is here already" in script("train/main.py", *options, ok=False).stderr
    assert (tmp_path / "RealWorldResults/best.pth").read_text() == "precious"


def test_l1_is_the_mean_absolute_error_and_validation_stays_mrae(tmp_path):
    model, batch = DRCR(channels=8, n_blocks=0), (torch.rand(1, 3, 8, 8), torch.rand(1, 31, 8, 8) + 0.1)
    expected = (model(batch[0]) - batch[1]).abs().mean().item()
    args = recipe(tmp_path, init_lr=1e-9, end_epoch=1, loss="l1")
    train_main.train(model, Batches([batch]), [batch], args, torch.device("cpu"))
    row = rows(tmp_path)[0]
    assert float(row["train_loss"]) == pytest.approx(expected, rel=1e-5)
    mrae = ((model(batch[0]) - batch[1]).abs() / batch[1]).mean().item()
    assert float(row["valid_loss"]) == pytest.approx(mrae, rel=1e-5)


def test_a_loss_that_is_not_finite_ends_it_at_once(tmp_path):
    """The 6th is the first; it is read when the 7th has begun, for which the host need not wait."""
    good = torch.rand(1, 3, 8, 8), torch.rand(1, 31, 8, 8) + 0.1
    drawn = []

    class Counted(list):
        def __iter__(self):
            for batch in super().__iter__():
                drawn.append(batch)
                yield batch

    class Epochs(Batches):
        def batches(self, epoch, skip=0):
            return Counted(self)

    bad = Epochs([good] * 5 + [(good[0], good[1] * 0)] * 10)
    args = recipe(tmp_path, init_lr=1e-3, end_epoch=1)
    with pytest.raises(DataError, match="iteration 6 is not finite"):
        train_main.train(DRCR(channels=8, n_blocks=0), bad, [good], args, CPU)
    assert len(drawn) == 7
    assert not list(tmp_path.glob("*.pth"))


def test_a_delayed_reading_is_the_number_before():
    reading = DelayedReading()
    assert [reading.exchange(torch.tensor(value)) for value in (1.0, 2.0, 3.0)] == [None, 1.0, 2.0]


def gradients(model, rgb, cube, precision):
    """Return the gradients of one training step, in a row."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    train_main.training_step(model, optimizer, train_main.mrae, rgb, cube, precision)
    return torch.cat([parameter.grad.double().flatten() for parameter in model.parameters()])


@needs_bf16
@pytest.mark.parametrize("trained", [True, False])
def test_gradients_in_bf16_are_those_in_fp32_to_its_precision(trained, monkeypatch):
    """Measured, as a part of their norm: 0.006-0.017 trained, 0.004-0.005 new; a bfloat16 is off by up to 0.004."""
    torch.manual_seed(0)
    direct = load_model(ROOT / "test/model/model.pth") if trained else DRCR(channels=32, n_blocks=1)
    rgb, cube = torch.rand(2, 3, 32, 32), torch.rand(2, 31, 32, 32) + 0.1
    monkeypatch.setattr("drcr.compute.winograd.CHANNELS", 0)
    monkeypatch.setattr("drcr.compute.winograd.WIDTH", 0)
    fp32, other, own = (for_training(copy.deepcopy(direct), CPU, precision) for precision in ("fp32", "fp32", "bf16"))
    expected = gradients(direct, rgb, cube, "fp32")
    assert (gradients(fp32, rgb, cube, "fp32") - expected).norm() < 1e-4 * expected.norm()
    for model in (own, other):  # `other`, by F(4, 3): as on processors without AMX
        bf16 = gradients(model, rgb, cube, "bf16")
        assert 1e-3 * expected.norm() < (bf16 - expected).norm() < 0.03 * expected.norm()
        assert torch.cosine_similarity(bf16, expected, 0) > 0.9998


@needs_bf16
def test_in_bf16_loss_weights_and_optimiser_are_float32():
    model = for_training(DRCR(channels=8, n_blocks=1), CPU, "bf16")
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    inside, measured = [], []
    model.blocks.register_forward_hook(lambda _m, _x, result: inside.append(result.dtype))

    def measure(output, truth):
        measured.append((output.dtype, truth.dtype, torch.is_autocast_enabled("cpu")))
        return train_main.mrae(output, truth)

    loss = train_main.training_step(
        model, optimizer, measure, torch.rand(1, 3, 8, 8), torch.rand(1, 31, 8, 8) + 0.1, "bf16"
    )
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
    assert "was trained with --precision bf16; give the same" in error
    run("a", "--end_epoch", 2, "--resume", last, "--precision", "bf16")
    assert load_model(last)(torch.rand(1, 3, 8, 8)).dtype == torch.float32


def test_an_older_checkpoint_that_names_no_precision_is_resumed_in_fp32(run, tmp_path):
    run("a", "--end_epoch", 1)
    checkpoint = torch.load(tmp_path / "a/last.pth", weights_only=True)
    del checkpoint["recipe"]["precision"]
    checkpoint["optimizer"]["param_groups"][0]["fused"] = None
    torch.save(checkpoint, tmp_path / "older.pth")
    resume = ("--end_epoch", 2, "--resume", tmp_path / "older.pth")
    run("a", *resume)
    assert read_checkpoint(tmp_path / "a/last.pth")["optimizer"]["param_groups"][0]["fused"]
    if native_bf16(CPU):
        assert "with --precision fp32" in run("b", *resume, "--precision", "bf16", ok=False).stderr


def test_precisions_that_a_machine_lacks(fails, monkeypatch):
    if not torch.cuda.is_available():
        fails("train/main.py", "--precision", "tf32", names="--precision tf32: ")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
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


def test_a_batch_that_cannot_fit_is_refused_with_one_that_does(script, fails, tmp_path):
    """10,000 patches of 128 x 128 take some 1,000 GB in 64 channels; from such a patch to the next is a pixel."""
    sizes = "--n_train", 1, "--n_valid", 1, "--size", 256, 256
    script("Dataset/simulate.py", "--out", "data", *sizes)
    script("train/train_data_preprocess.py", "--data_path", "data", "--stride", 1)
    script("train/valid_data_preprocess.py", "--data_path", "data")
    options = "--channels", 64, "--n_blocks", 2, "--end_epoch", 1, "--max_iter", 1
    message = fails("train/main.py", *options, "--batchSize", 10000, names="RealWorldResults")
    assert "10000 patches of 128 x 128 in fp32 need" in message
    fitting = int(re.search(r"--batchSize (\d+) --precision fp32", message)[1])
    assert 1 < fitting < 10000
    assert "--resume" not in message


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
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
    for recipe_name in ("released", "clip"):
        torch.manual_seed(0)
        model, norms[recipe_name] = DRCR(channels=8, n_blocks=0), []
        batch = torch.rand(1, 3, 8, 8), torch.rand(1, 31, 8, 8) * 0.01 + 0.001
        # as the optimiser finds them
        hook = register_optimizer_step_pre_hook(
            lambda *_, model=model, norms=norms[recipe_name]: norms.append(
                torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm().item()
            )
        )
        args = recipe(tmp_path / recipe_name, init_lr=1e-5, end_epoch=1, recipe=recipe_name)
        args.outf.mkdir()
        train_main.train(model, Batches([batch] * 3), [batch], args, CPU)
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


def test_tensorboard_that_is_not_there(fails, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['tensorboard'] = None\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    message = fails("train/main.py", "--tensorboard", names="--tensorboard", env=environment)
    assert "pip install tensorboard" in message
