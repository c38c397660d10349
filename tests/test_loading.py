"""Loading of training data: the same patches in the same order, wherever they are kept and whoever cuts them."""

from pathlib import Path

import pytest
import torch
from helpers import make_scenes, rows
from torch.utils.data import DataLoader, RandomSampler

from drcr.compute.memory import free_memory, memory_for
from drcr.data import TrainPatches
from drcr.preparation.prepare import prepare
from drcr.training.batches import Epochs, read_into_memory
from drcr.utils.cli import Stop
from drcr.utils.files import DataError

FORKED = {"num_workers": 2, "multiprocessing_context": "fork", "prefetch_factor": 4}


@pytest.fixture
def folder(prepared_once):
    """Return the golden data set, prepared for training: 30 patches."""
    return prepared_once[0]


def two_epochs(patches, **loading):
    """Return two epochs of batches, of 8 and at the end 6 patches, as train/main.py draws them."""
    epochs = Epochs(patches, 8, seed=0, **loading)
    return [batch[:2] for epoch in (1, 2) for batch in epochs.batches(epoch, 4 * (epoch - 1))]


def same(ours, theirs):
    return all(
        torch.equal(a, b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_batches_do_not_depend_on_cache_and_workers(folder):
    expected = two_epochs(TrainPatches(folder))
    assert [len(rgb) for rgb, _ in expected] == [8, 8, 8, 6] * 2
    assert not torch.equal(expected[0][1], expected[4][1])  # another order in each epoch
    assert same(two_epochs(TrainPatches(folder), **FORKED), expected)
    assert same(two_epochs(TrainPatches(folder, cache=True)), expected)
    assert same(two_epochs(TrainPatches(folder, cache=True), **FORKED), expected)


def test_the_order_is_the_one_that_a_random_sampler_draws(folder):
    patches = TrainPatches(folder)
    torch.manual_seed(1000 * 3 + 2)
    expected = list(DataLoader(patches, 8, sampler=RandomSampler(patches)))
    assert same([batch[:2] for batch in Epochs(patches, 8, seed=3).batches(2, 0)], expected)


def test_what_is_left_of_an_epoch(folder):
    epochs = Epochs(TrainPatches(folder), 8, seed=3, max_iter=10)
    whole, rest = list(epochs.batches(2, 4)), list(epochs.batches(2, 6, skip=2))
    assert [len(batch.rgb) for batch in whole] == [8, 8, 8, 6]
    assert same([batch[:2] for batch in whole[2:]], [batch[:2] for batch in rest])
    assert [batch.positions for batch in whole] == [list(range(8))] * 3 + [list(range(6))]
    assert list(epochs.batches(2, 8, skip=4)) == []
    assert len(epochs.batches(3, 8)) == len(list(epochs.batches(3, 8))) == 2  # --max_iter is reached
    # 15 patches of the third scene come after 15 of the first; the second is skipped, it has a zero
    assert {name for batch in whole for name in batch.scenes} == {"ARAD_1K_0001", "ARAD_1K_0003"}


def test_batches_are_the_single_patches(folder):
    patches = TrainPatches(folder)
    indices = [29, 3, 3, 17]
    assert same(patches.__getitems__(indices), [patches[i] for i in indices])
    with pytest.raises(IndexError):
        patches.__getitems__([30])


def test_cubes_are_copied_once_into_the_batch(folder):
    """Until then they are windows of the file's map; a single patch is its owner's to change."""
    patches = TrainPatches(folder)
    window = patches.__getitems__([4])[0][1]
    assert not window.is_contiguous()
    assert window.data_ptr() == patches.__getitems__([4])[0][1].data_ptr()
    before = patches[4][1].clone()
    patches[4][1].zero_()
    assert torch.equal(patches[4][1], before)


def test_cached_scenes_are_read_at_the_start(prepared):
    folder = prepared[0]
    expected, patches = two_epochs(TrainPatches(folder)), TrainPatches(folder)
    read_into_memory(patches, Stop())
    for path in folder.glob("*.h5"):
        path.write_bytes(bytes(path.stat().st_size))
    assert same(two_epochs(patches), expected)


class Private(TrainPatches):
    """Whose batches tell how much memory their process has of its own, in MB."""

    def __getitems__(self, indices):
        super().__getitems__(indices)
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return [sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1000]


@pytest.mark.parametrize("cache", [False, True])
def test_workers_share_what_is_read(tmp_path, cache):
    """Of 15 scenes of 5 MB, 76 MB: a worker's copy of them would show."""
    prepare(*make_scenes(tmp_path, 15, size=(200, 200)), tmp_path / "out", 100, 50)
    patches = Private(tmp_path / "out", cache)
    loading = {"num_workers": 1, "multiprocessing_context": "fork", "collate_fn": max}
    private = list(DataLoader(patches, 9, **loading))
    assert len(private) == 15
    assert max(private) - private[0] < 20
    assert private[0] < 76


def test_what_does_not_fit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    """31 MB of files: with 35 free, less than a fifth would be left to the training."""
    prepare(*make_scenes(tmp_path, 6, size=(200, 200)), tmp_path / "out", 100, 50)
    monkeypatch.setattr("drcr.training.batches.free_memory", lambda device: 42_000_000)
    read_into_memory(TrainPatches(tmp_path / "out"), Stop())
    monkeypatch.setattr("drcr.training.batches.free_memory", lambda device: 35_000_000)
    monkeypatch.setattr("numpy.fromfile", lambda *_: pytest.fail("it was read"))
    with pytest.raises(DataError, match=r"needs 0\.04 GB of free memory, .* 0\.0[34] GB are free; use --cache none"):
        read_into_memory(TrainPatches(tmp_path / "out"), Stop())


def test_reading_ends_when_the_user_asks(folder, monkeypatch):
    stop = Stop()
    stop.asked = 15
    monkeypatch.setattr("numpy.fromfile", lambda *_: pytest.fail("it was read"))
    with pytest.raises(SystemExit, match="143"):
        read_into_memory(TrainPatches(folder), stop)


def test_cache_on_the_command_line(script, prepared_once, tmp_path):
    paths = ("--train_data_path", prepared_once[0], "--valid_data_path", prepared_once[1])
    options = (*paths, "--channels", 8, "--n_blocks", 0, "--batchSize", 8, "--end_epoch", 2)
    tables = []
    for name, cache in (("none", ()), ("ram", ("--cache", "ram")), ("workers", ("--num_workers", 2))):
        script("train/main.py", *options, *cache, "--outf", name)
        tables.append([{**row, "seconds": ""} for row in rows(tmp_path / name)])
    assert len(tables[0]) == 2
    assert tables[0] == tables[1] == tables[2]


def test_what_is_said_when_memory_runs_out():
    with pytest.raises(DataError, match="take a smaller one"), memory_for("take a smaller one"):
        torch.empty(2**50)
    with pytest.raises(RuntimeError, match="shapes"), memory_for("take a smaller one"):  # a fault, not memory
        torch.ones(2, 3) @ torch.ones(2, 3)
    for fault in ("CUDA error: an illegal memory access was encountered", "refers to a single memory location"):
        with pytest.raises(RuntimeError, match=fault), memory_for("take a smaller one"):
            raise RuntimeError(fault)


def test_free_memory_where_the_system_does_not_say(monkeypatch, tmp_path):
    said = free_memory(torch.device("cpu"))
    monkeypatch.setattr("drcr.compute.memory.MEMINFO", tmp_path / "nothing")
    assert said / 100 < free_memory(torch.device("cpu")) < 1e15
