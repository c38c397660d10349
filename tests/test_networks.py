"""Networks other than DRCR Net: by name, or from a file."""

import pickle
import shutil
from argparse import Namespace

import numpy as np
import pytest
import torch
from helpers import DATA, begin, ended, finish, load_script, run_options, same_run, wait_for_saves

from drcr import networks
from drcr.checkpoint import load_model, read_checkpoint, save_checkpoint
from drcr.compute.export import export_onnx
from drcr.compute.tiles import peak_bytes
from drcr.correction import Correction
from drcr.cube import WAVELENGTHS
from drcr.data import ValidImages
from drcr.formats.mat import read_cube
from drcr.images import normalise_rgb, read_rgb
from drcr.inference import Reconstructor
from drcr.networks import HSCNNPlus, OtherNetwork, PixelMLP, create
from drcr.utils.files import DataError

# takes multiples of 8 alone, has buffers, and draws random numbers in training
EIGHTS = """
import torch
from torch import nn


class Eights(nn.Module):
    def __init__(self, planes=31, width=8):
        super().__init__()
        self.down = nn.Conv2d(3, width, 8, 8)
        self.norm = nn.Sequential(nn.BatchNorm2d(width), nn.Dropout(0.1))
        self.up = nn.ConvTranspose2d(width, planes, 8, 8)

    def forward(self, x):
        if x.shape[2] % 8 or x.shape[3] % 8:
            raise ValueError("multiples of 8 only")
        return torch.sigmoid(self.up(self.norm(self.down(x))))
"""


@pytest.fixture
def eights(tmp_path, monkeypatch):
    """Return FILE.py:Class of a user's network; what was offered before is forgotten."""
    monkeypatch.setattr(networks, "_offered", {})
    (tmp_path / "eights.py").write_text(EIGHTS)
    return f"{tmp_path / 'eights.py'}:Eights"


@pytest.mark.parametrize("name", ["HSCNN+", "MLP"])
def test_networks_by_name_take_any_size_and_number_of_bands(name):
    arguments = {"n_blocks": 2} if name == "HSCNN+" else {}
    model = create(name, arguments, bands=7)
    assert model.architecture["multiple"] == 1
    assert model(torch.rand(2, 3, 9, 13)).shape == (2, 7, 9, 13)


def test_hscnn_is_dense():
    """Each block reads the outputs of all before it, as published: 38 blocks, 16 more features by each."""
    model = HSCNNPlus(n_blocks=38)
    assert [block[0].in_channels for block in model.blocks] == [64 + 16 * i for i in range(38)]
    assert model.last.in_channels == 64 + 16 * 38


def test_a_pixel_network_sees_no_neighbours():
    model, rgb = PixelMLP(), torch.rand(1, 3, 6, 6)
    expected = model(rgb)
    rgb[..., 3:] = 0
    assert torch.equal(model(rgb)[..., :3], expected[..., :3])


def test_the_multiple_that_a_network_needs_is_found(eights):
    model = create(eights, {"planes": 5}, bands=5).eval()
    assert model.architecture["multiple"] == 8
    rgb = torch.rand(1, 3, 11, 20)
    padded = torch.nn.functional.pad(rgb, (0, 4, 0, 5), mode="replicate")
    assert torch.equal(model(rgb), model.network(padded)[..., :11, :20])


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        ("nothing", {}, "FILE.py:Class"),
        ("missing.py:Net", {}, "missing.py"),
        ("eights.py:Other", {}, "Other"),
        ("eights.py:torch", {}, "torch"),
        ("eights.py:Eights", {"depth": 3}, "depth"),
        ("eights.py:Eights", {"planes": 4}, "(1, 4,"),
        ("broken.py:Net", {}, "no_such_module"),
        ("MLP", {"channels": "many"}, "MLP"),
    ],
)
def test_what_is_no_network_is_one_line(eights, tmp_path, monkeypatch, spec, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("import no_such_module")
    with pytest.raises(DataError) as error:
        create(spec, arguments, bands=31)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_network_of_a_file_is_trained_stopped_resumed_and_used(eights, prepared_once, script, fails, tmp_path):
    options = ("--network", eights, "--network_args", "width=4")
    script("train/main.py", *run_options(prepared_once, tmp_path / "whole", *options))
    process = begin(prepared_once, tmp_path / "killed", *options, cwd=tmp_path)
    wait_for_saves(tmp_path / "killed/last.pth", 6, ended(process))
    process.kill()
    process.communicate()
    finish(begin(prepared_once, tmp_path / "killed", *options, "--resume", "auto", cwd=tmp_path))
    assert same_run(tmp_path / "whole", tmp_path / "killed")

    checkpoint = tmp_path / "killed/best.pth"
    stored = read_checkpoint(checkpoint)["architecture"]
    assert stored["network"] == "eights.py:Eights"
    assert stored["arguments"] == {"width": 4}
    photos, cubes = DATA / "Dataset/Valid_RGB", DATA / "Dataset/Valid_spectral"
    given = ("--model_dir", checkpoint, *options[:2])
    prepared = ("--train_data_path", prepared_once[0], "--valid_data_path", prepared_once[1])
    script("train/calibrate_confidence.py", *prepared, *given)
    script("test/test.py", "--RGB_dir", photos, "--result_dir", "rec", "--confidence", *given)
    assert read_cube(tmp_path / "rec/ARAD_1K_0901.mat").shape == (38, 48, 31)
    assert "mrae is" in script("test/compute_mrae.py", "--path_rec", "rec", "--path_gt", cubes).stdout
    shown = ("--path_rec", "Eights=rec", "--path_gt", cubes, "--RGB_dir", photos)
    script("test/report.py", *shown, "--num_workers", 0, "--out", "a.html")
    assert "Eights" in (tmp_path / "a.html").read_text()
    script("train/export.py", *given, "--format", "onnx", "--out", "a.onnx")
    rgb = normalise_rgb(read_rgb(photos / "ARAD_1K_0901.jpg"))
    session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "a.onnx")
    onnx = session.run(["cube"], {"rgb": rgb.transpose(2, 0, 1)[None]})[0][0].transpose(1, 2, 0)
    np.testing.assert_allclose(onnx, read_cube(tmp_path / "rec/ARAD_1K_0901.mat"), atol=1e-6)

    again = run_options(prepared_once, tmp_path / "killed", "--resume", "auto")
    assert "width=4" in fails("train/main.py", *again, *options[:2], names="last.pth")
    networks._offered.clear()
    fails("train/main.py", *again, "--network", "MLP", names="--network eights.py:Eights")


def test_stress_test_and_page_take_a_network_of_a_file(eights, prepared_once, tmp_path):
    pytest.importorskip("starlette", reason="needs pip install 'drcr[app]'")
    from drcr.app.server import LINEAR, Progress, Work

    model, checkpoint = create(eights, {}, bands=31), tmp_path / "a.pth"
    model.wavelengths = WAVELENGTHS.tolist()
    save_checkpoint(checkpoint, model)
    networks.offer(eights)
    args = Namespace(model_dir=checkpoint, preset="real-world", encoding="linear", max_side=64, sessions=1)
    rgb_path = DATA / "Dataset/Valid_RGB/ARAD_1K_0901.jpg"
    expected = Reconstructor(model.eval())(normalise_rgb(read_rgb(rgb_path)))
    scene = Work(args, tmp_path).reconstruct(rgb_path, LINEAR, Progress())
    assert (scene.cube == expected).all()

    data = ValidImages(prepared_once[0], drop_rows=0)
    methods = load_script("test/stress_test.py").load_methods(args, data, WAVELENGTHS)
    name, network = next(iter(methods.items()))
    assert name == "eights.py:Eights"
    sent = pickle.dumps(network)
    networks._offered.clear()  # as in a process of its own
    assert (pickle.loads(sent)(normalise_rgb(read_rgb(rgb_path))) == expected).all()


def test_a_checkpoint_brings_no_code_and_a_changed_file_is_refused(eights, tmp_path, prepared_once, script, fails):
    script("train/main.py", *run_options(prepared_once, tmp_path / "run", "--network", eights, "--end_epoch", 1))
    checkpoint, file = tmp_path / "run/best.pth", tmp_path / "eights.py"
    networks._offered.clear()
    with pytest.raises(DataError, match=r"best\.pth: needs the file .*--network eights\.py:Eights"):
        load_model(checkpoint)
    moved = tmp_path / "elsewhere.py"  # the file counts, not its name
    shutil.copy(file, moved)
    networks.offer(f"{moved}:Eights")
    assert isinstance(load_model(checkpoint), OtherNetwork)
    networks._offered.clear()
    file.write_text(EIGHTS + "\nopen('ran', 'w')")
    photos = DATA / "Dataset/Valid_RGB"
    fails("test/test.py", "--RGB_dir", photos, "--model_dir", checkpoint, "--network", eights, names=file)
    assert not (tmp_path / "ran").exists()


def test_tiles_of_a_local_network_change_nothing_and_say_so():
    """HSCNN+ with one block sees 3 pixels far: tiles that overlap by 32 give the whole image's values."""
    model = create("HSCNN+", {"n_blocks": 1}, bands=31).eval()
    rgb = np.random.default_rng(0).random((150, 90, 3), np.float32)
    whole, tiled = Reconstructor(model), Reconstructor(model, tile=40)
    np.testing.assert_allclose(tiled(rgb), whole(rgb), atol=1e-5)
    assert whole.remark is None
    assert "0.00%" in tiled.remark


def test_tiles_of_a_network_that_sees_the_whole_image_say_what_they_change(eights, tmp_path):
    (tmp_path / "mean.py").write_text(
        "from torch import nn\n"
        "class Mean(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.one = nn.Conv2d(3, 31, 1)\n"
        "    def forward(self, x):\n"
        "        return self.one(x) * x.mean((1, 2, 3), keepdim=True)\n"
    )
    model = create(f"{tmp_path / 'mean.py'}:Mean", {}, bands=31).eval()
    rgb = np.random.default_rng(0).random((150, 90, 3), np.float32)
    rgb *= np.linspace(0, 1, 150, dtype=np.float32)[:, None, None]
    tiled, done = Reconstructor(model, tile=40), []
    tiled(rgb, advance=done.append)
    assert sum(done) == 150 * 90
    assert float(tiled.remark.split("%")[0].split()[-1]) > 1


def test_an_image_is_tiled_where_memory_is_short(monkeypatch):
    monkeypatch.setattr("drcr.compute.tiles.free_memory", lambda device: 40e6)
    model = create("HSCNN+", {"n_blocks": 2}, bands=31).eval()
    tiled = Reconstructor(model)
    tiled(np.ones((300, 300, 3), np.float32))
    assert tiled.remark is not None


def test_memory_is_counted():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 1), torch.nn.Conv2d(64, 8, 1), torch.nn.Conv2d(8, 8, 1))
    with torch.inference_mode():
        assert peak_bytes(model, torch.zeros(1, 3, 50, 50)) == 4 * 2500 * 72


@pytest.mark.parametrize("tile", ["auto", 16])
@torch.inference_mode()
def test_any_network_corrects_a_base_map(tmp_path, tile):
    model = Correction(create("MLP", {"channels": 8}, bands=31), [400.0 + 10 * i for i in range(31)])
    model.set_camera("sRGB")
    model.base.fill_(0.02)
    save_checkpoint(tmp_path / "a.pth", model)
    loaded = load_model(tmp_path / "a.pth")
    rgb = np.random.default_rng(0).random((30, 20, 3), np.float32)
    expected = model.eval()(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    torch.testing.assert_close(torch.from_numpy(Reconstructor(loaded, tile=tile)(rgb)), expected)


def test_onnx_of_a_user_s_network_takes_any_size(eights, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = create(eights, {}, bands=31).eval()
    export_onnx(model, tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    for size in ((37, 42), (64, 48), (11, 20)):
        rgb = torch.rand(1, 3, *size)
        with torch.inference_mode():
            np.testing.assert_allclose(session.run(["cube"], {"rgb": rgb.numpy()})[0], model(rgb), atol=1e-6)
