"""Checkpoints: ours, which carry their architecture, and the authors', whose sizes are read off the tensors."""

import io
import os
import pickle
import re
import sys
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
# denosing.conv4_33 and conv4_11, are in every released checkpoint and used by none: they go nowhere.
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
    """Return a state dict of the authors' code, with or without `module.`, under this project's names.

    Names that are not the authors' are kept as they are.
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
    """Return DRCR's arguments as the shapes of its tensors tell them."""
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

    Returns the stored dict, its `state_dict` under this project's names, and with `architecture` (arguments of
    `DRCR`) and `wavelengths` (of the bands, in nm; None if they are not known). Raises DataError if the file is
    missing, truncated, no checkpoint of DRCR Net, or a pickle with code in it (nothing is executed:
    `weights_only`).
    """
    path = Path(path)
    if not path.is_file():
        problem = "a folder" if path.exists() else "no such file"
        raise DataError(f"{path}: {problem}; a checkpoint (.pth) is needed, train/main.py's or the authors'")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:  # PyTorch itself does not compare the checksums
                if file.testzip() is not None:
                    raise DataError(f"{path}: damaged; copy or download it again")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: refused: not a file of plain tensors (a checkpoint of something else, or a pickle with "
            "code in it, which is never run)"
        ) from error
    except PermissionError:
        raise
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
        raise DataError(f"{path}: truncated or no checkpoint; copy or download it again") from error

    other = DataError(f"{path}: a file of PyTorch, but no checkpoint of DRCR Net")
    if not isinstance(checkpoint, dict):
        raise other
    state = checkpoint.get("state_dict", checkpoint)
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise other
    state = rename_released(state)
    if not {"stem.0.weight", "tail.2.weight"} <= state.keys():
        raise other
    checkpoint = {**checkpoint, "state_dict": state} if "state_dict" in checkpoint else {"state_dict": state}
    try:
        defaults = {"architecture": _read_architecture(state), "wavelengths": None}
    except (IndexError, AttributeError) as error:
        raise other from error
    if defaults["architecture"]["out_channels"] == len(WAVELENGTHS):
        defaults["wavelengths"] = WAVELENGTHS.tolist()  # the authors' checkpoints say nothing of them
    return defaults | checkpoint


def build_model(checkpoint: dict[str, Any], path: str | Path) -> DRCR:
    """Return the network of a checkpoint that `read_checkpoint` read from `path`, with its weights."""
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
    """Load a trained network from our checkpoint or the authors', ready to run on `device`, in exact fp32.

    Raises DataError (see `read_checkpoint`) with one line that names the file.
    """
    exact_fp32()
    return build_model(read_checkpoint(path), path).to(device).eval()


def load_rgb_model(path: str | Path, device: str | torch.device = "cpu") -> DRCR:
    """Load a trained network as `load_model` does. Raises DataError too if it takes anything but RGB."""
    model = load_model(path, device)
    if model.architecture["in_channels"] != 3:
        raise DataError(f"{path}: takes {model.architecture['in_channels']} channels, not RGB")
    return model


def save_checkpoint(path: str | Path, model: DRCR, **fields: Any) -> None:
    """Write the network and `fields` (epoch, iter, optimizer, ...) as a checkpoint, whole or not at all."""
    buffer = io.BytesIO()  # in memory first: torch.save does not recover from a disk that fills up
    contents = {
        "architecture": model.architecture,
        "wavelengths": model.wavelengths,
        "state_dict": model.state_dict(),
    }
    torch.save(contents | fields, buffer)
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))


def save_last(folder: Path, keep: int, model: DRCR, **fields: Any) -> None:
    """Write `last.pth`; the one before it becomes `last-1.pth` and so on, `keep` in all.

    Killed at any moment, or on a full disk, it leaves what `find_last` finds.
    """
    new = folder / "last-new.pth"
    save_checkpoint(new, model, **fields)
    names = [folder / "last.pth", *(folder / f"last-{i}.pth" for i in range(1, keep))]
    for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
        if newer.exists():
            os.replace(newer, older)
    os.replace(new, names[0])


def find_last(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest checkpoint that `save_last` left in a folder, and its path; None if there is none.

    Damaged ones are passed over with a warning. Raises DataError if all are.
    """
    found, damaged = [], None
    for path in sorted(folder.glob("last*.pth")):
        try:
            found.append((path, read_checkpoint(path)))
        except DataError as error:
            damaged = error
            print(f"warning: {error}", file=sys.stderr)
    if damaged and not found:
        raise damaged
    return max(found, key=lambda named: named[1].get("iter", 0), default=None)
