"""The training state in a checkpoint: what it holds beside the network, so that its run can go on."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from drcr.checkpoint import read_checkpoint
from drcr.correction import Network, network_of
from drcr.model import DRCR
from drcr.utils.files import BROKEN, DataError

STATE = {"run", "epoch", "iter", "best", "recipe", "data", "losses", "seconds", "random", "optimizer"}
"""What a checkpoint holds beside the network, so that its run can go on."""
RECIPE = ("batchSize", "loss", "init_lr", "decay_power", "max_iter", "seed", "precision", "freeze", "recipe")
"""The options that a resumed run must share."""
SETTINGS = ("betas", "eps", "weight_decay", "amsgrad", "maximize")
"""Of the optimizer: what it computes. The rest is how, or set before every iteration."""


def make_optimizer(model: nn.Module, lr: float) -> torch.optim.Adam:
    """Return the optimizer of a network's parameters, without those that are frozen."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.Adam(parameters, lr=lr, betas=(0.9, 0.999), eps=1e-8, fused=True)


def freeze_all_but_tail(model: Network) -> None:
    """Freeze a network for --freeze: only its last two convolutions are trained. Raises DataError if not DRCR Net."""
    if not isinstance(network_of(model), DRCR):
        raise DataError("--freeze: only DRCR Net has a tail to train alone")
    model.requires_grad_(False)
    network_of(model).tail.requires_grad_(True)


def read_state(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint as `read_checkpoint` does. Raises DataError, too, if a run cannot go on from it."""
    checkpoint = read_checkpoint(path)
    if not checkpoint.keys() >= STATE:
        raise DataError(f"{path}: contains no training state; --resume needs a checkpoint such as OUTF/last.pth")
    if not all(type(checkpoint[name]) is int and checkpoint[name] >= 0 for name in ("epoch", "iter")):
        raise damaged(path)
    return checkpoint


def damaged(path: str | Path) -> DataError:
    """Return the error for a training state that is not as a run writes it."""
    return DataError(f"{path}: its training state is damaged or was changed; use another one")


def check_state(checkpoint: dict[str, Any], model: Network, path: str | Path) -> None:
    """Raise DataError unless a training state has the form of the one that a run of this network writes.

    The form: types, names, and the shapes and types of tensors, which are finite. `model` is frozen as in the run.
    """
    weights = {name: tensor.detach() for name, tensor in network_of(model).state_dict().items()}
    trained = [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]
    moments = [{"step": torch.tensor(0.0), "exp_avg": values, "exp_avg_sq": values} for values in trained]
    settings = make_optimizer(model, 0.0).param_groups[0]
    try:
        form = {
            "run": "",
            "best": 0.0,
            "seconds": 0.0,
            "losses": torch.empty(len(checkpoint["losses"])),
            "random": {
                "cpu": torch.get_rng_state(),
                "cuda": [torch.empty(16, dtype=torch.uint8)] * len(checkpoint["random"]["cuda"]),
            },
            "state_dict": weights,
        }
        valid = all(_same_form(checkpoint[name], like) for name, like in form.items())
        valid &= checkpoint["recipe"].keys() == set(RECIPE) and len(checkpoint["losses"]) <= checkpoint["iter"]
        state, (group,) = checkpoint["optimizer"]["state"], checkpoint["optimizer"]["param_groups"]
        valid &= _same_form(state, dict(enumerate(moments)) if checkpoint["iter"] else {})
        valid &= all(values["step"] == checkpoint["iter"] for values in state.values())
        valid &= all(group[name] == settings[name] for name in SETTINGS) and group["params"] == [*range(len(trained))]
        torch.Generator().set_state(checkpoint["random"]["cpu"])
    except BROKEN as error:
        raise damaged(path) from error
    if not valid:
        raise damaged(path)


def _same_form(value: Any, like: Any) -> bool:
    if isinstance(like, Tensor):
        same = isinstance(value, Tensor) and value.shape == like.shape and value.dtype == like.dtype
        return same and bool(value.isfinite().all())
    if isinstance(like, dict):
        same = isinstance(value, dict) and value.keys() == like.keys()
        return same and all(_same_form(value[name], like[name]) for name in like)
    if isinstance(like, list):
        return isinstance(value, list) and all(map(_same_form, value, like))
    return type(value) is type(like) and value == value  # not NaN
