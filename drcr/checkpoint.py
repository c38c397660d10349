"""Checkpoints: ours, which store their architecture, and the authors', where it follows from the tensors."""

import io
import math
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from drcr.compute.device import exact_fp32
from drcr.correction import Correction, Network, network_of
from drcr.cube import WAVELENGTHS
from drcr.images import InputEncoding
from drcr.model import DRCR
from drcr.networks import rebuild
from drcr.utils.files import BROKEN, DataError, is_out_of_memory, write_atomically

# The authors' names (tests/data/released_state_dict.csv) -> ours. The quarter scale's own two kernels,
# denosing.conv4_33 and conv4_11, are in every released checkpoint, but the network never uses them: they are dropped.
_RELEASED_NAMES = [
    (r"input_conv2D\.conv2d", "stem.0"),
    (r"input_prelu2D", "stem.1"),
    (r"head_conv2D\.conv2d", "stem.2"),
    (r"denosing\.conv0_(\d)\d", r"npm.kernels.0.conv\1x\1"),
    (r"denosing\.conv2_(\d)\d", r"npm.kernels.1.conv\1x\1"),
    (r"denosing\.conv4_(\d)\d", None),
    (r"denosing\.conv_0_cat", "npm.merge.0"),
    (r"denosing\.conv_2_cat", "npm.merge.1"),
    (r"denosing\.conv_4_cat", "npm.merge.2"),
    (r"denosing\.conv_cat", "npm.fuse"),
    (r"backbone\.(\d+)\.conv(\d)\.conv2d", r"blocks.\1.conv\2"),
    (r"backbone\.(\d+)\.se(\d)\.fc\.(\d)", r"blocks.\1.crm\2.gate.\3"),
    (r"tail_conv2D\.conv2d", "tail.0"),
    (r"output_prelu2D", "tail.1"),
    (r"output_conv2D\.conv2d", "tail.2"),
]


def rename_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the authors' state dict, with or without `module.`, under this project's names.

    Other names are kept as they are.
    """
    renamed = {}
    for name, tensor in state.items():
        name = name.removeprefix("module.")
        for released, ours in _RELEASED_NAMES:
            match = re.fullmatch(released + r"\.(weight|bias)", name)
            if match:
                name = None if ours is None else f"{match.expand(ours)}.{match.groups()[-1]}"
                break
        if name is not None:
            renamed[name] = tensor
    return renamed


def _read_architecture(state: dict[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of DRCR that follow from the shapes of its tensors."""
    stem, tail = state["stem.0.weight"], state["tail.2.weight"]
    return {
        "in_channels": stem.shape[1],
        "out_channels": tail.shape[0],
        "channels": stem.shape[0],
        "n_blocks": len({name.split(".")[1] for name in state if name.startswith("blocks.")}),
        "npm": "paper" if "npm.kernels.2.conv3x3.weight" in state else "released",
    }


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file, ours or the authors', onto the CPU. Nothing in it is executed (`weights_only`).

    Returned is what the file holds, and in any case: `state_dict`, under this project's names, which `build_model`
    compares with the network; `architecture`, the arguments of `DRCR` or, for another network, what
    `drcr.networks.create` made; `wavelengths` of the bands in nm, None if they are not known; `input_encoding`.

    Raises DataError if the file is missing, truncated, not a checkpoint of this project, or a pickle with code in it;
    if its tensors, architecture and wavelengths do not agree.
    """
    path = Path(path)
    if not path.is_file():
        problem = "a folder" if path.exists() else "no such file"
        raise DataError(f"{path}: {problem}; give a checkpoint (.pth) of train/main.py, or one of the authors'")
    stored = _load(path)
    try:
        state = rename_released(stored.get("state_dict", stored))
        architecture = stored["architecture"] if "network" in stored.get("architecture", ()) else None
        if architecture is None:
            architecture = _read_architecture(state)
            if stored.get("architecture", architecture) != architecture:
                raise ValueError("its architecture is not that of its tensors")
        # the authors' checkpoints hold none of these
        wavelengths = WAVELENGTHS.tolist() if architecture["out_channels"] == len(WAVELENGTHS) else None
        checkpoint = {"wavelengths": wavelengths, "input_encoding": "linear"}
        checkpoint |= (stored if "state_dict" in stored else {}) | {"architecture": architecture, "state_dict": state}
        if (nm := checkpoint["wavelengths"]) is not None:
            checkpoint["wavelengths"] = [float(value) for value in nm]
            if len(nm) != architecture["out_channels"] or not all(0 < value < math.inf for value in nm):
                raise ValueError("its wavelengths are not those of its bands")
        if checkpoint["input_encoding"] not in get_args(InputEncoding):
            raise ValueError("its input encoding is damaged")
    except BROKEN as error:
        why = f": {error}" if type(error) is ValueError else ""
        raise DataError(f"{path}: a PyTorch file, but not a checkpoint of DRCR Net{why}") from error
    return checkpoint


def _check_tensors(stored: Any, path: Path) -> None:
    """Raise DataError unless all tensors in a file's lists and dicts are dense, and the file is as large as they.

    A tensor in a file can state more values than are stored; to train on would write beyond them.
    """
    parts, n_bytes = [stored], 0
    while parts:
        part = parts.pop()
        if isinstance(part, Tensor):
            plain = part.layout == torch.strided and part.device.type == "cpu"
            if not plain or part.is_nested or part.is_quantized or part.nbytes > part.untyped_storage().nbytes():
                raise DataError(f"{path}: holds a tensor that is not a plain one; use another checkpoint")
            n_bytes += part.nbytes
        elif isinstance(part, (dict, list, tuple)):
            parts += part.values() if isinstance(part, dict) else part
    if n_bytes > path.stat().st_size:
        raise DataError(f"{path}: its tensors state more values than the file holds; use another checkpoint")


def _load(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:  # PyTorch itself does not compare the checksums
                if sum(entry.file_size for entry in file.infolist()) > path.stat().st_size:
                    raise DataError(f"{path}: is compressed, or damaged; save it again with torch.save")
                if file.testzip() is not None:
                    raise DataError(f"{path}: damaged; copy or download it again")
        stored = torch.load(path, map_location="cpu", weights_only=True)
        _check_tensors(stored, path)
        return stored
    except (DataError, PermissionError):
        raise
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: refused: not a file of plain tensors (a checkpoint of another program, or a pickle with code "
            "in it, which is never run)"
        ) from error
    except BROKEN as error:
        if is_out_of_memory(error):
            raise DataError(f"{path}: does not fit into memory") from error
        raise DataError(f"{path}: truncated, or not a checkpoint; copy or download it again") from error


def build_model(checkpoint: dict[str, Any], path: str | Path) -> Network:
    """Return the network of a checkpoint that `read_checkpoint` read from `path`, with its weights.

    Raises DataError if the tensors are not those of the network, if it does not fit into memory, or if it is a class
    in a file and that file was not given, or has changed.
    """
    architecture, state = checkpoint["architecture"], checkpoint["state_dict"]
    try:
        if "network" not in architecture:  # of a wrong size? before memory is taken
            with torch.device("meta"):
                DRCR(**architecture).load_state_dict(state, assign=True)
        model = rebuild(architecture)
        model.load_state_dict(state)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except BROKEN as error:
        if is_out_of_memory(error):
            raise DataError(f"{path}: does not fit into memory") from error
        words = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: its tensors are not those of its network: {words}") from error
    model.wavelengths, model.input_encoding = checkpoint["wavelengths"], checkpoint["input_encoding"]
    if "correction" not in checkpoint:
        return model
    corrected = Correction(model, model.wavelengths or [0.0] * model.architecture["out_channels"])
    try:
        corrected.load_own_state(checkpoint["correction"])
    except ValueError as error:
        raise DataError(f"{path}: {error}; use another checkpoint") from error
    return corrected


def load_model(path: str | Path, device: str | torch.device = "cpu") -> Network:
    """Load a trained network onto a device, ready to run, in exact fp32 and evaluation mode.

    `path` is a checkpoint, ours or the authors', with or without `module.`, which has the architecture. The
    network maps RGB (N, 3, H, W) in [0, 1] to (N, bands, H, W).

    Raises
    ------
    DataError
        One line that names the file and what is wrong with it.
    """
    exact_fp32()
    return build_model(read_checkpoint(path), path).to(device).eval()


def load_rgb_model(path: str | Path, device: str | torch.device = "cpu") -> Network:
    """Load a trained network as `load_model` does. Raises DataError, too, if its input is not RGB."""
    model = load_model(path, device)
    if model.architecture["in_channels"] != 3:
        raise DataError(f"{path}: takes {model.architecture['in_channels']} channels, not RGB")
    return model


def fitting_network(model_path: Path | None, is_photograph: bool) -> Path:
    """Return the checkpoint for an image: `model_path` (--model_dir), or without it the one in test/model that fits.

    One network there is trained for photographs, the other for linear images; each is better at its own kind
    (test/model/README.md).
    """
    return model_path or SHIPPED / ("model.pth" if is_photograph else "linear.pth")


SHIPPED = Path(__file__).resolve().parent.parent / "test/model"
"""The networks that come with the project: found from any folder."""


MODEL_HELP = (
    "checkpoint, ours or the authors' (default: in test/model the one that fits an image: model.pth for photographs, "
    "linear.pth for images that are linear)"
)


def save_checkpoint(path: str | Path, model: Network, **fields: Any) -> None:
    """Write a network with architecture and wavelengths, completely or not at all; a file of this name is replaced.

    `fields`: what else to store: tensors, numbers, strings, lists and dicts of them.
    """
    buffer = io.BytesIO()  # in memory first: torch.save does not recover from a disk that fills up
    contents = {
        "architecture": model.architecture,
        "wavelengths": model.wavelengths,
        "input_encoding": model.input_encoding,
        "state_dict": network_of(model).state_dict(),
    }
    if isinstance(model, Correction):
        contents["correction"] = model.own_state()
    torch.save(contents | fields, buffer)
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))
