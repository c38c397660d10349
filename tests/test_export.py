"""drcr/compute/export.py and hubconf.py."""

import numpy as np
import pytest
import torch
from helpers import DATA, ROOT

from drcr.checkpoint import load_model
from drcr.compute.export import export_onnx
from drcr.model import DRCR

SIZES = [(40, 48), (37, 33), (4, 5)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, device):
    """Return a network on a device, with weights off their start values, and its ONNX file."""
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name, reason=f"needs {name}: pip install onnx onnxscript")
    torch.manual_seed(0)
    model = DRCR(channels=16, n_blocks=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.input_encoding = "stored"
    model.wavelengths = list(np.arange(400.0, 701.0, 10.0))
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(model.to(device), path)
    return model, path


def compare(model, run, tolerance):
    """Assert that `run` gives the network's cubes on three sizes, within `tolerance` of the largest value."""
    device = next(model.parameters()).device
    for height, width in SIZES:
        rgb = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.inference_mode():
            expected = model(rgb.to(device)).cpu().numpy()
        cube = run(rgb.numpy())
        assert cube.shape == expected.shape
        assert np.abs(cube - expected).max() < tolerance.forward * np.abs(expected).max()


@pytest.mark.slow
def test_onnx_runtime_gives_the_same_cubes(exported, tolerance):
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install onnxruntime")
    model, path = exported
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    compare(model, lambda rgb: session.run(["cube"], {"rgb": rgb})[0], tolerance)


@pytest.mark.slow
def test_openvino_gives_the_same_cubes(exported, tolerance):
    openvino = pytest.importorskip("openvino", reason="needs openvino: pip install openvino")
    model, path = exported
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    compare(model, lambda rgb: compiled(rgb)[0], tolerance)


@pytest.mark.slow
def test_the_metadata_say_what_goes_in_and_comes_out(exported):
    import onnx

    model, path = exported
    proto = onnx.load(path)
    onnx.checker.check_model(proto)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert [float(nm) for nm in metadata["wavelengths"].split(",")] == model.wavelengths
    assert metadata["input_encoding"] == "stored"
    shapes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in proto.graph.input
    ]
    assert shapes == [[1, 3, "height", "width"]]


@pytest.mark.slow
def test_the_command_writes_the_network_of_a_checkpoint(exported, script, fails, tmp_path, tolerance):
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install onnxruntime")
    path = tmp_path / "out/model.onnx"
    options = ("--checkpoint", DATA / "model_c16_b2.pth", "--format", "onnx", "--out", path)
    script("train/export.py", *options)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    compare(load_model(DATA / "model_c16_b2.pth"), lambda rgb: session.run(["cube"], {"rgb": rgb})[0], tolerance)
    fails("train/export.py", *options, names="model.onnx: exists")


@pytest.mark.parametrize("checkpoint", [None, DATA / "model_c16_b2.pth"])
def test_torch_hub_gives_network_and_weights(checkpoint):
    model = torch.hub.load(str(ROOT), "drcr_net", source="local", checkpoint=checkpoint)
    expected = load_model(checkpoint or ROOT / "test/model/model.pth")
    assert type(model) is type(expected)
    assert not model.training
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
