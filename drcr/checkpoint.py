"""Checkpoints: ours, which store their architecture, and the authors', where it follows from the tensors."""

import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drcr.compute.device import exact_fp32
from drcr.matfile import WAVELENGTHS
from drcr.model import DRCR
from drcr.utils.files import DataError, write_atomically

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
    """Read a checkpoint file, ours or the authors', onto the CPU.

    Nothing in the file is executed (`weights_only`).

    Returns
    -------
    dict
        What the file holds, and in any case: `state_dict`, under this project's names; `architecture`, the arguments
        of `DRCR`; `wavelengths` of the bands in nm, None if they are not known.

    Raises
    ------
    DataError
        If the file is missing, truncated, not a checkpoint of DRCR Net, or a pickle with code in it.
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
    except (IndexError, AttributeError) as error:
        raise not_ours from error
    # the authors' checkpoints hold neither
    wavelengths = WAVELENGTHS.tolist() if architecture["out_channels"] == len(WAVELENGTHS) else None
    checkpoint = {"architecture": architecture, "wavelengths": wavelengths}
    if "state_dict" in stored:
        checkpoint |= stored
    return checkpoint | {"state_dict": state}


def _load(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:  # PyTorch itself does not compare the checksums
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
        zipfile.BadZipFile,
    ) as error:
        raise DataError(f"{path}: truncated, or not a checkpoint; copy or download it again") from error


def build_model(checkpoint: dict[str, Any], path: str | Path) -> DRCR:
    """Return the network of a checkpoint that `read_checkpoint` read from `path`, with its weights.

    Raises
    ------
    DataError
        If the tensors do not fit the architecture, or the wavelengths the number of bands.
    """
    try:
        model = DRCR(**checkpoint["architecture"])
        model.load_state_dict(checkpoint["state_dict"])
        if checkpoint["wavelengths"] is not None:
            model.wavelengths = [float(nm) for nm in checkpoint["wavelengths"]]
        if model.wavelengths is not None and len(model.wavelengths) != model.architecture["out_channels"]:
            raise ValueError(f"{len(model.wavelengths)} wavelengths for {model.architecture['out_channels']} bands")
    except (RuntimeError, TypeError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise DataError(f"{path}: its tensors do not make a DRCR Net: {detail[:200]}") from error
    return model


def load_model(path: str | Path, device: str | torch.device = "cpu") -> DRCR:
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


def load_rgb_model(path: str | Path, device: str | torch.device = "cpu") -> DRCR:
    """Load a trained network as `load_model` does. Raises DataError, too, if its input is not RGB."""
    model = load_model(path, device)
    if model.architecture["in_channels"] != 3:
        raise DataError(f"{path}: takes {model.architecture['in_channels']} channels, not RGB")
    return model


def save_checkpoint(path: str | Path, model: DRCR, **fields: Any) -> None:
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
        "state_dict": model.state_dict(),
    }
    torch.save(contents | fields, buffer)
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))
