"""The network as an ONNX file, for programs without PyTorch: C++, browsers, MATLAB (importNetworkFromONNX)."""

import copy
import logging
import warnings
from pathlib import Path
from typing import Any

import torch

from drcr.networks import title_of
from drcr.utils.extras import missing
from drcr.utils.files import DataError, write_atomically


def export_onnx(model: Any, path: str | Path) -> None:
    """Write a network as an ONNX file with input `rgb` and output `cube`.

    `rgb` is (1, 3, H, W), float32, RGB divided by its largest value, for any H and W of at least 4; `cube` is
    (1, bands, H, W), float32, not clipped. The metadata has `wavelengths` (nm, a comma-separated list, one per band;
    missing if they are not known), `input_encoding` ("linear", or "stored": values as image files store them) and
    `input_scaling`.

    Raises
    ------
    DataError
        If `onnx` or `onnxscript`, which PyTorch's exporter needs, is not installed.
    """
    for name in ("onnx", "onnxscript"):
        if line := missing(name, "export", f"{path}: ONNX"):
            raise DataError(line)
    metadata = {"input_encoding": model.input_encoding, "input_scaling": "divided by the largest value of the image"}
    if model.wavelengths is not None:
        metadata["wavelengths"] = ",".join(f"{nm:g}" for nm in model.wavelengths)

    # a size that is no multiple of 4: the graph then has the padding before NPM's pooling
    example = torch.zeros(1, model.architecture["in_channels"], 37, 42)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        logger.setLevel(logging.ERROR)  # which tells of torchvision's operators that this network does not use
        try:
            program = torch.onnx.export(
                copy.deepcopy(model).eval().float().cpu(),
                (example,),
                input_names=["rgb"],
                output_names=["cube"],
                dynamic_shapes=({2: "height", 3: "width"},),
                dynamo=True,
                verbose=False,
            )
        finally:
            logger.setLevel(level)
    assert program is not None  # None is returned only where a file was asked for
    proto = program.model_proto
    proto.graph.doc_string = f"{title_of(model.architecture)}: RGB image to hyperspectral cube"
    for name, value in metadata.items():
        proto.metadata_props.add(key=name, value=value)
    write_atomically(path, lambda file: file.write(proto.SerializeToString()))
