import csv
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import DATA, ROOT

from drcr.checkpoint import load_model, read_checkpoint, save_checkpoint
from drcr.formats.mat import read_cube
from drcr.model import DRCR
from drcr.utils.files import DataError

AUTHORS = DATA / "model_c16_b2.pth"


@torch.inference_mode()
def test_authors_checkpoint_and_its_dataparallel_twin_give_the_same_cube():
    one, several = load_model(AUTHORS), load_model(DATA / "model_c16_b2_dataparallel.pth")
    assert one.architecture == {
        "in_channels": 3,
        "out_channels": 31,
        "channels": 16,
        "n_blocks": 2,
        "npm": "released",
    }
    x = torch.rand(1, 3, 12, 16)
    assert torch.equal(one(x), several(x))


def test_all_206_released_tensors_find_their_place(tmp_path):
    """Each of the full-size checkpoint's tensors, known by its value, arrives where it belongs; four are unused."""
    with open(DATA / "released_state_dict.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 206
    state = {
        f"module.{row['name']}": torch.full([int(n) for n in row["shape"].split("x")], float(row["position"]))
        for row in rows
    }
    torch.save({"epoch": 1, "iter": 1, "state_dict": state, "optimizer": {}}, tmp_path / "net.pth")
    model = load_model(tmp_path / "net.pth")
    assert sum(p.numel() for p in model.parameters()) == 9_378_282
    assert all((p == p.flatten()[0]).all() for p in model.parameters())
    placed = sorted(p.flatten()[0].item() for p in model.parameters())
    assert placed == [
        float(row["position"]) for row in rows if "conv4_33" not in row["name"] and "conv4_11" not in row["name"]
    ]
    # outside the NPM the order of ours is the authors'
    ours = [p.flatten()[0].item() for name, p in model.named_parameters() if not name.startswith("npm.")]
    assert ours == [float(row["position"]) for row in rows if not row["name"].startswith("denosing.")]
    by_name = {row["name"]: float(row["position"]) for row in rows}
    for ours, theirs in {
        model.npm.kernels[0].conv3x3: "conv0_33",
        model.npm.kernels[0].conv1x1: "conv0_11",
        model.npm.kernels[1].conv3x3: "conv2_33",
        model.npm.kernels[1].conv1x1: "conv2_11",
        model.npm.merge[0]: "conv_0_cat",
        model.npm.merge[1]: "conv_2_cat",
        model.npm.merge[2]: "conv_4_cat",
        model.npm.fuse: "conv_cat",
    }.items():
        assert ours.weight.flatten()[0] == by_name[f"denosing.{theirs}.weight"]
        assert ours.bias[0] == by_name[f"denosing.{theirs}.bias"]
    assert model.blocks[7].crm2.gate[4].weight[0, 0] == by_name["backbone.7.se2.fc.4.weight"]


@pytest.mark.parametrize("npm", ["released", "paper"])
@torch.inference_mode()
def test_ours_carry_their_architecture(tmp_path, npm):
    model = DRCR(in_channels=3, out_channels=7, channels=9, n_blocks=3, npm=npm)
    save_checkpoint(tmp_path / "a.pth", model, epoch=5)
    assert read_checkpoint(tmp_path / "a.pth")["epoch"] == 5
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    x = torch.rand(1, 3, 8, 8)
    for name in ("a.pth", "bare.pth"):
        loaded = load_model(tmp_path / name)
        assert loaded.architecture == model.architecture
        assert not loaded.training
        assert torch.equal(loaded(x), model(x))


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def bad_files(folder):
    (folder / "text.pth").write_text("not a checkpoint")
    (folder / "empty.pth").write_bytes(b"")
    for size in (100, 20_000, 60_000, 100_000, 300_000):
        (folder / f"truncated{size}.pth").write_bytes(AUTHORS.read_bytes()[:size])
    (folder / "folder.pth").mkdir()
    torch.save({"state_dict": Bomb(folder / "exploded")}, folder / "code.pth")
    with open(folder / "pickle.pth", "wb") as file:
        pickle.dump(Bomb(folder / "exploded"), file)
    torch.save({"state_dict": {"conv1.weight": torch.zeros(64, 3, 7, 7)}}, folder / "resnet.pth")
    torch.save([1, 2], folder / "list.pth")
    torch.save(torch.zeros(3), folder / "tensor.pth")
    torch.save({"stem.0.weight": torch.tensor(1.0), "tail.2.weight": torch.tensor(1.0)}, folder / "scalars.pth")
    state = torch.load(AUTHORS, weights_only=True)
    state["state_dict"].pop("backbone.1.conv3.conv2d.bias")
    torch.save(state, folder / "incomplete.pth")
    return [*sorted(folder.glob("*.pth")), folder / "missing.pth"]


def test_everything_else_is_refused_in_one_line_and_no_code_runs(tmp_path):
    files = bad_files(tmp_path)
    assert len(files) == 16
    for path in files:
        with pytest.raises(DataError) as error:
            load_model(path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "exploded").exists()
    # the bomb is real: plain pickle sets it off
    pickle.loads((tmp_path / "pickle.pth").read_bytes()).close()
    assert (tmp_path / "exploded").exists()


def test_export_keeps_the_network_in_half_precision(script, fails, tmp_path):
    model = DRCR(out_channels=7, channels=16, n_blocks=1)
    model.wavelengths = [500.0 + 10 * i for i in range(7)]
    save_checkpoint(tmp_path / "whole.pth", model, optimizer={"state": torch.zeros(10**5)})
    script("train/export.py", "--checkpoint", "whole.pth", "--out", "small.pth")
    small = load_model(tmp_path / "small.pth")
    assert small.wavelengths == model.wavelengths
    assert (tmp_path / "small.pth").stat().st_size < 0.5 * (tmp_path / "whole.pth").stat().st_size
    for ours, theirs in zip(small.parameters(), model.parameters(), strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs.half().float())
    script("train/export.py", "--model_dir", "whole.pth")  # a name of its own
    before = (tmp_path / "small.pth").read_bytes()
    assert (tmp_path / "model.pth").read_bytes() == before
    fails("train/export.py", "--checkpoint", "whole.pth", "--out", "small.pth", names="small.pth: exists")
    assert (tmp_path / "small.pth").read_bytes() == before


def test_wavelengths_that_are_none_are_refused(tmp_path):
    model = DRCR(channels=8, n_blocks=0)
    for wavelengths in (["x"] * 31, [400.0] * 30):
        save_checkpoint(tmp_path / "a.pth", model, wavelengths=wavelengths)
        with pytest.raises(DataError, match=r"a\.pth"):
            load_model(tmp_path / "a.pth")


def test_the_network_in_the_repository_takes_any_photograph(script, tmp_path):
    """As the README has it: no --model_dir, in the folder test/. Its model card is beside it."""
    weights = ROOT / "test/model/model.pth"
    assert weights.stat().st_size < 20e6
    assert load_model(weights).wavelengths == [400.0 + 10 * i for i in range(31)]
    assert "Not to be trusted" in (ROOT / "test/model/README.md").read_text()
    photo = min((DATA / "Dataset/Valid_RGB").iterdir())
    command = [sys.executable, "test.py", "--RGB_dir", photo, "--result_dir", tmp_path]
    subprocess.run(command, cwd=ROOT / "test", check=True, capture_output=True)
    cube = read_cube(tmp_path / f"{photo.stem}.mat")
    assert cube.shape == (38, 48, 31)
    assert np.isfinite(cube).all()
    assert cube.min() >= 0.0099  # 0.01 in half precision: the smallest value that it was trained with
    assert cube.std(2).mean() > 0.01 * cube.mean()
