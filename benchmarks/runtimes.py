"""Other ways to run the network, for comparison: ONNX Runtime and OpenVINO, both optional."""

import importlib.util
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measuring import Run, Way

from drcr.compute.export import export_onnx
from drcr.compute.memory import free_memory
from drcr.correction import Network
from drcr.utils.parallel import available_cores

NEEDED = {
    "ONNX Runtime": ("onnxruntime", "onnx", "onnxscript"),
    "OpenVINO": ("openvino", "onnx", "onnxscript"),
}
MAPS_IN_MEMORY = {"ONNX Runtime": 41, "OpenVINO": 10}
"""Feature maps of the image's size whose memory they take at most, measured with the full-size network."""


def onnx_runtime(file: Path, image: np.ndarray) -> Run:
    """Return ONNX Runtime on the network of an ONNX file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    rgb = as_input(image)
    return lambda: as_cube(np.asarray(session.run(["cube"], {"rgb": rgb})[0]))


def openvino(file: Path, image: np.ndarray) -> Run:
    """Return OpenVINO on the network of an ONNX file, compiled for the size of the image."""
    from openvino import Core  # pyright: ignore[reportMissingImports], an optional install

    rgb = as_input(image)
    core = Core()
    network = core.read_model(file)
    network.reshape(rgb.shape)
    options = {"INFERENCE_NUM_THREADS": available_cores(), "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(network, "CPU", options)
    return lambda: as_cube(compiled(rgb)[0])


def as_input(image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) as (1, 3, H, W)."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None])


def as_cube(output: np.ndarray) -> np.ndarray:
    """Return an output (1, bands, H, W) as (H, W, bands)."""
    return output[0].transpose(1, 2, 0)


def runtimes(model: Network, image: np.ndarray, file: Path, operations: float) -> list[Way]:
    """Return the installed runtimes as ways, and print which are skipped; the network is written to `file`."""
    ways = []
    for name, setup in (("ONNX Runtime", onnx_runtime), ("OpenVINO", openvino)):
        missing = [package for package in NEEDED[name] if importlib.util.find_spec(package) is None]
        if missing:
            print(f"skipped {name}: pip install {' '.join(missing)}", flush=True)
            continue
        height, width, _ = image.shape
        needed = MAPS_IN_MEMORY[name] * height * width * model.architecture["channels"] * 4
        if needed > free_memory(torch.device("cpu")):
            print(f"skipped {name}: it takes about {needed / 1e9:.0f} GB of memory", flush=True)
            continue
        if not file.exists():
            export_onnx(model, file)
        ways.append(Way(f"{name}, fp32", partial(setup, file, image), operations=operations))
    return ways
