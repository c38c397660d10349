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
from drcr.utils.files import DataError, is_out_of_memory, write_atomically

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


def skeleton(architecture: dict[str, Any]) -> DRCR:
    """Return a network without memory for its weights: it has their names and shapes."""
    with torch.device("meta"):
        return DRCR(**architecture)


def _expected_shapes(architecture: dict[str, Any]) -> dict[str, torch.Size]:
    """Return the shapes of a network's tensors, by name; built with one block, however many the file states."""
    shapes = {}
    for name, tensor in skeleton({**architecture, "n_blocks": 1}).state_dict().items():
        of_block = name.startswith("blocks.0.")
        for i in range(architecture["n_blocks"] if of_block else 1):
            shapes[name.replace("blocks.0.", f"blocks.{i}.") if of_block else name] = tensor.shape
    return shapes


def find_fault(state: Any, architecture: dict[str, Any]) -> str | None:
    """Return what keeps a state dict from being that of a network, None if nothing does. Nothing is built.

    A tensor in a file can state a size that the file does not hold: plain, dense tensors alone are taken.
    """
    if not isinstance(state, dict):
        return "it is not a state dict"
    expected = _expected_shapes(architecture)
    if different := sorted(map(str, expected.keys() ^ state.keys())):
        return f"{different[0]} is {'missing' if different[0] in expected else 'not part of one'}"
    for name, shape in expected.items():
        tensor = state[name]
        if not isinstance(tensor, Tensor) or not is_plain(tensor) or not tensor.is_floating_point():
            return f"{name} is not a plain tensor of numbers"
        if tensor.shape != shape:
            return f"{name} is {tuple(tensor.shape)}, not {tuple(shape)}"
    return None


def is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is dense, in memory, and has a value in memory for each that it states."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_nested:
        return False
    return tensor.nbytes <= tensor.untyped_storage().nbytes()


def _check_network(checkpoint: dict[str, Any], derived: dict[str, Any], path: Path) -> None:
    """Raise DataError if a checkpoint's parts do not agree: `derived` is the architecture that its tensors have."""
    stored, wavelengths = checkpoint["architecture"], checkpoint["wavelengths"]
    problem = None
    if not isinstance(stored, dict) or any(type(value) not in (int, str) for value in stored.values()):
        problem = "its architecture is damaged"
    elif stored != derived:
        changed = sorted(name for name in derived if stored.get(name) != derived[name]) or sorted(map(str, stored))
        problem = f"its architecture states another {', '.join(changed)} than they have"
    elif wavelengths is not None and not _are_wavelengths(wavelengths, derived["out_channels"]):
        problem = f"its wavelengths are not those of {derived['out_channels']} bands"
    elif checkpoint["input_encoding"] not in get_args(InputEncoding):
        problem = "its input encoding is damaged"
    else:
        try:
            problem = find_fault(checkpoint["state_dict"], derived)
        except (ValueError, RuntimeError) as error:
            problem = " ".join(str(error).split())[:200]
    # tensors may share memory: a file of one kilobyte can state a network of many gigabytes
    if problem is None and sum(tensor.nbytes for tensor in checkpoint["state_dict"].values()) > path.stat().st_size:
        problem = "they state more values than the file holds"
    if problem is not None:
        raise DataError(f"{path}: its tensors do not make a DRCR Net: {problem}")


def _are_wavelengths(values: Any, count: int) -> bool:
    if not isinstance(values, list) or len(values) != count:
        return False
    return all(type(nm) in (int, float) and 0 < nm < math.inf for nm in values)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file, ours or the authors', onto the CPU.

    Nothing in the file is executed (`weights_only`).

    Returns
    -------
    dict
        What the file holds, and in any case: `state_dict`, under this project's names; `architecture`, the arguments
        of `DRCR`; `wavelengths` of the bands in nm, None if they are not known; `input_encoding`.

    Raises
    ------
    DataError
        If the file is missing, truncated, not a checkpoint of DRCR Net, or a pickle with code in it; if its tensors,
        architecture and wavelengths do not agree.
    """
    path = Path(path)
    if not path.is_file():
        problem = "a folder" if path.exists() else "no such file"
        raise DataError(f"{path}: {problem}; give a checkpoint (.pth) of train/main.py, or one of the authors'")
    stored = _load(path)
    not_ours = DataError(f"{path}: a PyTorch file, but not a checkpoint of DRCR Net")
    if not isinstance(stored, dict):
        raise not_ours
    state = stored.get("state_dict", stored)
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise not_ours
    state = rename_released(state)
    if not {"stem.0.weight", "tail.2.weight"} <= state.keys():
        raise not_ours
    try:
        architecture = _read_architecture(state)
    except (IndexError, RuntimeError) as error:
        raise not_ours from error
    # the authors' checkpoints hold none of these
    wavelengths = WAVELENGTHS.tolist() if architecture["out_channels"] == len(WAVELENGTHS) else None
    checkpoint = {"architecture": architecture, "wavelengths": wavelengths, "input_encoding": "linear"}
    if "state_dict" in stored:
        checkpoint |= stored
    checkpoint["state_dict"] = state
    _check_network(checkpoint, architecture, path)
    return checkpoint


def _load(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:  # PyTorch itself does not compare the checksums
                if sum(entry.file_size for entry in file.infolist()) > path.stat().st_size:
                    raise DataError(f"{path}: is compressed, or damaged; save it again with torch.save")
                if file.testzip() is not None:
                    raise DataError(f"{path}: damaged; copy or download it again")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (DataError, PermissionError):
        raise
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: refused: not a file of plain tensors (a checkpoint of another program, or a pickle with code "
            "in it, which is never run)"
        ) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        AttributeError,
        IndexError,
        TypeError,
        RecursionError,
        zipfile.BadZipFile,
        MemoryError,
    ) as error:
        if is_out_of_memory(error):
            raise DataError(f"{path}: does not fit into memory") from error
        raise DataError(f"{path}: truncated, or not a checkpoint; copy or download it again") from error


def build_model(checkpoint: dict[str, Any], path: str | Path) -> Network:
    """Return the network of a checkpoint that `read_checkpoint` read from `path`, with its weights.

    Raises
    ------
    DataError
        If the network does not fit into memory.
    """
    try:
        model = skeleton(checkpoint["architecture"]).to_empty(device="cpu")  # drawing random weights takes time
        model.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise DataError(f"{path}: does not fit into memory") from error
        raise
    if checkpoint["wavelengths"] is not None:
        model.wavelengths = [float(nm) for nm in checkpoint["wavelengths"]]
    model.input_encoding = checkpoint["input_encoding"]
    if "correction" not in checkpoint:
        return model
    corrected = Correction(model, model.wavelengths or [0.0] * model.architecture["out_channels"])
    try:
        corrected.load_own_state(checkpoint["correction"])
    except ValueError as error:
        raise DataError(f"{path}: {error}; use another checkpoint") from error
    return corrected


def load_model(path: str | Path, device: str | torch.device = "cpu") -> Network:
    """Load a trained network, ready to run, in exact fp32.

    Parameters
    ----------
    path : str or Path
        A checkpoint, ours or the authors', with or without `module.`; the architecture is read from the file.
    device : str or torch.device
        Where the network is to run.

    Returns
    -------
    DRCR
        In evaluation mode: (N, 3, H, W) in [0, 1] -> (N, bands, H, W).

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
    """Write a network as a checkpoint, completely or not at all.

    Parameters
    ----------
    path : str or Path
        The file. A file of this name is replaced.
    model : DRCR
        Its weights, architecture and wavelengths are stored.
    **fields
        What else to store: tensors, numbers, strings, lists and dicts of them.
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
