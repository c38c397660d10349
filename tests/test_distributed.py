"""Training in several processes, started by torchrun as a user starts it."""

import os
import signal
from pathlib import Path

import pytest
import torch
from test_resume import begin, finish, same_run, wait_for_saves
from test_train import rows

from drcr.checkpoint import read_checkpoint
from drcr.data import Epochs, TrainPatches
from drcr.training.distributed import World


@pytest.fixture
def torchrun(prepared_once, tmp_path):
    """Start a run in several processes; returns torchrun's process."""

    def start(n_processes, outf, *options, elastic=()):
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", n_processes, *elastic)
        own = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "start_new_session": True}
        return begin(prepared_once, tmp_path / outf, *options, launcher=launcher, **own)

    return start


@pytest.mark.parametrize(("recipe", "numbers"), [("released", (1, 2, 4)), ("improved", (1, 2))])
def test_one_two_and_four_processes_give_the_same_losses(torchrun, tmp_path, recipe, numbers):
    """The last batch has 6 patches: two of four processes get one, two get two. Validation has 2 images for 4."""
    tables = []
    for n in numbers:
        printed = finish(torchrun(n, str(n), "--end_epoch", 3, "--recipe", recipe))[0]
        assert printed.count("epoch 3, iteration 12") == 1
        tables.append(rows(tmp_path / str(n)))
    for table in tables[1:]:
        for ours, theirs in zip(table, tables[0], strict=True):
            for score in ("train_loss", "valid_loss"):
                assert float(ours[score]) == pytest.approx(float(theirs[score]), rel=1e-5)


def test_processes_share_every_batch(prepared_once):
    patches = TrainPatches(prepared_once[0])
    whole = [cube for _, cube in Epochs(patches, 8, seed=0).batches(1)]
    parts = [Epochs(patches, 8, seed=0, world=World(rank, 3)) for rank in range(3)]
    for batch, *cubes in zip(whole, *(part.batches(1) for part in parts), strict=True):
        mixed = torch.empty_like(batch)
        for rank, (_, cube) in enumerate(cubes):
            mixed[rank::3] = cube
        assert torch.equal(mixed, batch)
    assert sum(part.share(3) for part in parts) == 1
    # where there are more processes than patches, the others' patch does not count
    alone = Epochs(patches, 1, seed=0, world=World(1, 2))
    assert len(next(iter(alone.batches(1)))[0]) == 1
    assert alone.share(0) == 0


def children(process) -> list[int]:
    return list(map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))


def test_a_rank_that_is_killed_brings_the_run_back_by_itself(torchrun, tmp_path):
    finish(torchrun(2, "whole"))
    process = torchrun(2, "killed", elastic=("--max_restarts", 3))
    wait_for_saves(process, tmp_path / "killed/last.pth", 10)
    os.kill(children(process)[-1], signal.SIGKILL)
    finish(process)
    assert same_run(tmp_path / "whole", tmp_path / "killed")


def test_sigterm_to_all_processes_saves_once(torchrun, tmp_path):
    process = torchrun(2, "stopped")
    wait_for_saves(process, tmp_path / "stopped/last.pth", 3)
    for child in children(process):
        os.kill(child, signal.SIGTERM)
    printed = process.communicate(timeout=120)[0]
    assert printed.count("stopped by SIGTERM") == 1
    checkpoint = read_checkpoint(tmp_path / "stopped/last.pth")
    finish(torchrun(1, "stopped", "--resume", "auto", "--end_epoch", checkpoint["epoch"] + 2))
    assert len(rows(tmp_path / "stopped")) == checkpoint["epoch"] + 2


def test_a_batch_for_fewer_than_the_processes_is_refused(torchrun):
    process = torchrun(2, "small", "--batchSize", 1)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode
    assert "error: --batchSize 1: is for all 2 processes together" in errors
