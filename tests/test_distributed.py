"""Training in several processes, started by torchrun as a user starts it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import begin, ended, finish, load_script, rows, run_options, same_run, wait_for_saves

from drcr.checkpoint import read_checkpoint
from drcr.data import TrainPatches
from drcr.training.batches import Epochs
from drcr.training.distributed import World
from drcr.training.recipe import RECIPE_PARTS


def start(prepared, n_processes, outf, *options, elastic=()):
    """Start a run in several processes; return torchrun's process."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", n_processes, *elastic)
    own = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "start_new_session": True}
    return begin(prepared, outf, *options, launcher=launcher, **own)


@pytest.fixture
def torchrun(prepared_once, tmp_path):
    """Start a run in a folder of the test."""
    return lambda n_processes, outf, *options, **kwargs: start(
        prepared_once, n_processes, tmp_path / outf, *options, **kwargs
    )


@pytest.fixture(scope="module")
def by_two(prepared_once, tmp_path_factory):
    """Return the folder of a run by two processes that was never stopped, and what it printed."""
    folder = tmp_path_factory.mktemp("by_two") / "run"
    return folder, finish(start(prepared_once, 2, folder))[0]


def train_here(prepared, outf, *options):
    """Train in this process alone."""
    load_script("train/main.py").main(run_options(prepared, outf, *options))


def check_same_losses(ours, theirs):
    for row, other in zip(ours, theirs, strict=True):
        for score in ("train_loss", "valid_loss"):
            assert float(row[score]) == pytest.approx(float(other[score]), rel=1e-5)


@pytest.mark.slow
def test_one_two_and_four_processes_give_the_same_losses(torchrun, prepared_once, by_two, tmp_path):
    """The last batch has 6 patches: two of four processes get one, two get two. Validation has 2 images for 4."""
    train_here(prepared_once, tmp_path / "one", "--end_epoch", 3)
    printed = finish(torchrun(4, "four", "--end_epoch", 3))[0]
    for text in (by_two[1], printed):
        assert text.count("epoch 3, iteration 12") == 1
    for folder in (by_two[0], tmp_path / "four"):
        check_same_losses(rows(folder)[:3], rows(tmp_path / "one"))


@pytest.mark.slow
def test_a_recipe_does_the_same_to_each_patch_in_any_number_of_processes(torchrun, prepared_once, tmp_path):
    train_here(prepared_once, tmp_path / "one", "--end_epoch", 3, "--recipe", ",".join(RECIPE_PARTS))
    finish(torchrun(2, "two", "--end_epoch", 3, "--recipe", ",".join(RECIPE_PARTS)))
    check_same_losses(rows(tmp_path / "two"), rows(tmp_path / "one"))


def test_processes_share_every_batch(prepared_once):
    patches, parts = TrainPatches(prepared_once[0]), ("flip", "robust")
    whole = list(Epochs(patches, 8, seed=0, parts=parts).batches(1, 0))
    shares = [Epochs(patches, 8, seed=0, parts=parts, world=World(rank, 3)).batches(1, 0) for rank in range(3)]
    for batch, *own in zip(whole, *shares, strict=True):
        mixed = torch.empty_like(batch.cube), torch.empty_like(batch.rgb)
        for rank, share in enumerate(own):
            assert share.positions == batch.positions[rank::3]
            assert share.scenes == batch.scenes
            mixed[0][rank::3], mixed[1][rank::3] = share.cube, share.rgb
        assert torch.equal(mixed[0], batch.cube)
        assert torch.equal(mixed[1], batch.rgb)
        assert sum(share.weight for share in own) == pytest.approx(1)
    # where there are more processes than patches, the others' patch has no weight
    alone = next(iter(Epochs(patches, 1, seed=0, world=World(1, 2)).batches(1, 0)))
    assert len(alone.rgb) == 1
    assert alone.weight == 0


def children(process) -> list[int]:
    return list(map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))


@pytest.mark.slow
def test_a_rank_that_is_killed_brings_the_run_back_by_itself(torchrun, by_two, tmp_path):
    process = torchrun(2, "killed", elastic=("--max_restarts", 3))
    wait_for_saves(tmp_path / "killed/last.pth", 10, ended(process))
    os.kill(children(process)[-1], signal.SIGKILL)
    finish(process)
    assert same_run(by_two[0], tmp_path / "killed")


def test_sigterm_to_all_processes_saves_once(torchrun, prepared_once, tmp_path):
    process = torchrun(2, "stopped")
    wait_for_saves(tmp_path / "stopped/last.pth", 3, ended(process))
    for child in children(process):
        os.kill(child, signal.SIGTERM)
    printed = process.communicate(timeout=120)[0]
    assert printed.count("stopped by SIGTERM") == 1
    checkpoint = read_checkpoint(tmp_path / "stopped/last.pth")
    # the number of processes may change
    train_here(prepared_once, tmp_path / "stopped", "--resume", "auto", "--end_epoch", checkpoint["epoch"] + 2)
    assert len(rows(tmp_path / "stopped")) == checkpoint["epoch"] + 2


def test_no_thread_of_the_group_is_left_when_a_process_leaves(tmp_path):
    """One that is left may abort the process while Python ends."""
    script = tmp_path / "leave.py"
    script.write_text(
        "from pathlib import Path\n"
        "import torch\n"
        "from drcr.model import DRCR\n"
        "from drcr.training.distributed import World\n"
        "from drcr.training.loop import training_step\n"
        "def gloo():\n"
        "    return sum('gloo' in path.read_text() for path in Path('/proc/self/task').glob('*/comm'))\n"
        "world = World.join()\n"
        "model = DRCR(channels=8, n_blocks=0)\n"
        "optimizer = torch.optim.SGD(model.parameters(), 0.1)\n"
        "batch = torch.ones(1, 3, 8, 8), torch.ones(1, 31, 8, 8)\n"
        "training_step(world.wrap(model), optimizer, torch.nn.functional.l1_loss, *batch, 'fp32')\n"
        "before = gloo()\n"
        "world.leave()\n"
        "print(f'{before > 0}, {gloo()} left')\n"
    )
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script)
    ran = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=True)
    assert ran.stdout.count("True, 0 left") == 2, ran.stdout
