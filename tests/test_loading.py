"""Loading of training data: the same patches in the same order, wherever they are kept and whoever cuts them."""

from pathlib import Path

import pytest
import torch
from helpers import DATA, make_scenes
from torch.utils.data import DataLoader, RandomSampler

from drcr.compute.memory import memory_for
from drcr.data import PatchesOnDevice, TrainPatches
from drcr.preparation.prepare import prepare
from drcr.utils.files import DataError

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """Return the golden data set, prepared for training: 30 patches."""
    prepare(DATA / "Dataset/Train_spectral", DATA / "Dataset/Train_RGB", tmp_path / "prepared", 16, 8)
    return tmp_path / "prepared"


def epochs(patches, **loading):
    """Return two epochs of batches, of 8 and at the end 6 patches, drawn as train/main.py draws them."""
    batches = DataLoader(patches, 8, sampler=RandomSampler(patches), **loading)
    drawn = []
    for epoch in (1, 2):
        torch.manual_seed(epoch)
        drawn += list(batches)
    return drawn


def same(ours, theirs):
    return all(
        torch.equal(a, b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_batches_do_not_depend_on_cache_and_workers(folder):
    expected = epochs(TrainPatches(folder))
    assert [len(rgb) for rgb, _ in expected] == [8, 8, 8, 6] * 2
    assert not torch.equal(expected[0][1], expected[4][1])  # another order in each epoch
    forked = {"num_workers": 2, "multiprocessing_context": "fork", "prefetch_factor": 4}
    assert same(epochs(TrainPatches(folder), **forked), expected)
    assert same(epochs(TrainPatches(folder, cache=True)), expected)
    assert same(epochs(TrainPatches(folder, cache=True), **forked), expected)
    on_device = PatchesOnDevice(TrainPatches(folder), CPU)
    assert len(on_device) == 30
    assert same(epochs(on_device, collate_fn=PatchesOnDevice.collate), expected)


def test_batches_are_the_single_patches(folder):
    patches = TrainPatches(folder)
    indices = [29, 3, 3, 17]
    rgb, cube = PatchesOnDevice(patches, CPU).__getitems__(indices)
    assert same(zip(rgb, cube, strict=True), [patches[i] for i in indices])
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


def test_cached_scenes_are_read_at_the_start(folder):
    expected = epochs(TrainPatches(folder))
    patches, on_device = TrainPatches(folder, cache=True), PatchesOnDevice(TrainPatches(folder), CPU)
    for path in folder.glob("*.h5"):
        path.write_bytes(bytes(path.stat().st_size))
    assert same(epochs(patches), expected)
    assert same(epochs(on_device, collate_fn=PatchesOnDevice.collate), expected)


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


@pytest.mark.parametrize("kept", ["ram", "gpu"])
def test_what_does_not_fit_is_refused_before_it_is_read(tmp_path, monkeypatch, kept):
    """31 MB of files, 33 of scenes: with 35 free, less than a fifth would be left to the training."""
    prepare(*make_scenes(tmp_path, 6, size=(200, 200)), tmp_path / "out", 100, 50)
    patches = TrainPatches(tmp_path / "out")
    keep = {"ram": lambda: TrainPatches(tmp_path / "out", cache=True), "gpu": lambda: PatchesOnDevice(patches, CPU)}
    monkeypatch.setattr("drcr.data.free_memory", lambda device: 42_000_000)
    keep[kept]()
    monkeypatch.setattr("drcr.data.free_memory", lambda device: 35_000_000)
    monkeypatch.setattr("numpy.fromfile", lambda *_: pytest.fail("it was read"))
    with pytest.raises(DataError, match=r"needs 0\.04 GB of memory, .* 0\.0[34] GB are free; take --cache none"):
        keep[kept]()


def test_cache_on_the_command_line(script, fails, prepared, tmp_path):
    paths = ("--train_data_path", prepared[0], "--valid_data_path", prepared[1])
    options = (*paths, "--channels", 8, "--n_blocks", 0, "--batchSize", 8, "--end_epoch", 2)
    tables = []
    for name, cache in (("none", ()), ("ram", ("--cache", "ram")), ("workers", ("--num_workers", 2))):
        script("train/main.py", *options, *cache, "--outf", name)
        rows = [line.split(",") for line in (tmp_path / name / "loss.csv").read_text().splitlines()]
        tables.append([row[:2] + row[3:] for row in rows])  # without the seconds
    assert len(tables[0]) == 3
    assert tables[0] == tables[1] == tables[2]
    if not torch.cuda.is_available():
        fails("train/main.py", *options, "--cache", "gpu", "--outf", "gpu", names="--cache gpu: needs CUDA")
        assert not (tmp_path / "gpu").exists()


def test_what_is_said_when_memory_runs_out():
    with pytest.raises(DataError, match="take a smaller one"), memory_for("take a smaller one"):
        torch.empty(2**50)
    with pytest.raises(RuntimeError, match="shapes"), memory_for("take a smaller one"):  # a fault, not memory
        torch.ones(2, 3) @ torch.ones(2, 3)
