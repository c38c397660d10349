"""The training state in a checkpoint: what it holds beside the network, so that its run can go on."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from drcr.checkpoint import find_fault, is_plain, skeleton
from drcr.correction import Correction, Network, network_of
from drcr.data import PROVENANCE
from drcr.training.recipe import parts_of
from drcr.utils.files import DataError

STATE = {"run", "epoch", "iter", "best", "recipe", "data", "losses", "seconds", "random", "optimizer"}
"""What a checkpoint holds beside the network, so that its run can go on."""
RECIPE = ("batchSize", "loss", "init_lr", "decay_power", "max_iter", "seed", "precision", "freeze", "recipe")
"""The options that a resumed run must share."""


def make_optimizer(model: nn.Module, lr: float) -> torch.optim.Adam:
    """Return the optimizer of a network's parameters, without those that are frozen."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.Adam(parameters, lr=lr, betas=(0.9, 0.999), eps=1e-8, fused=True)


def freeze_all_but_tail(model: Network) -> None:
    """Freeze a network for --freeze: only its last two convolutions are trained."""
    model.requires_grad_(False)
    network_of(model).tail.requires_grad_(True)


def check_state(checkpoint: dict[str, Any], path: Path) -> None:
    """Raise DataError if a checkpoint does not hold all that a run needs to go on, in the types that a run writes.

    `checkpoint` is what `read_checkpoint` returned. Tensors are compared with the network's before any is used.
    """
    if not checkpoint.keys() >= STATE:
        raise DataError(f"{path}: contains no training state; --resume needs a checkpoint such as OUTF/last.pth")
    for part, is_valid in _CHECKS.items():
        if not is_valid(checkpoint):
            raise DataError(f"{path}: its training state ({part}) is damaged or was changed; use another one")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _has_valid_numbers(checkpoint: dict[str, Any]) -> bool:
    numbers = [checkpoint["best"], checkpoint["seconds"]]
    return (
        _is_count(checkpoint["epoch"])
        and _is_count(checkpoint["iter"])
        and all(type(number) in (int, float) and number >= 0 for number in numbers)
        and checkpoint["seconds"] < math.inf
    )


def _has_valid_recipe(checkpoint: dict[str, Any]) -> bool:
    recipe = checkpoint["recipe"]
    return (
        isinstance(recipe, dict)
        and recipe.keys() == set(RECIPE)
        and all(type(value) in (bool, int, float, str) for value in recipe.values())
    )


def _has_valid_data(checkpoint: dict[str, Any]) -> bool:
    data = checkpoint["data"]
    if data is None:  # of a program that calls `train` itself
        return True
    if not isinstance(data, dict) or data.keys() != {"train", "valid"}:
        return False
    return all(
        isinstance(part, dict) and part.keys() == set(PROVENANCE) and _is_simple(part) for part in data.values()
    )


def _is_simple(part: dict[str, Any]) -> bool:
    scenes = part["scenes"]
    others = [part[name] for name in PROVENANCE if name != "scenes"]
    if not all(value is None or type(value) in (int, float, str) for value in others):
        return False
    return isinstance(scenes, list) and all(isinstance(name, str) for name in scenes)


def _has_valid_losses(checkpoint: dict[str, Any]) -> bool:
    losses = checkpoint["losses"]
    return _is_moment(losses) and losses.ndim == 1 and len(losses) <= checkpoint["iter"]


def _is_moment(values: object, shape: Iterable[int] | None = None) -> bool:
    """Return whether `values` is a plain tensor of finite float32, of this shape."""
    if not isinstance(values, Tensor) or not is_plain(values) or values.dtype != torch.float32:
        return False
    return (shape is None or tuple(values.shape) == tuple(shape)) and bool(values.isfinite().all())


def _has_valid_random_states(checkpoint: dict[str, Any]) -> bool:
    random = checkpoint["random"]
    if not isinstance(random, dict) or random.keys() != {"cpu", "cuda"} or not isinstance(random["cuda"], list):
        return False
    states = [random["cpu"], *random["cuda"]]
    if not all(isinstance(state, Tensor) and is_plain(state) and state.dtype == torch.uint8 for state in states):
        return False
    try:
        torch.Generator().set_state(random["cpu"])
    except RuntimeError:
        return False
    return all(state.shape == (16,) for state in random["cuda"])  # a seed and an offset, of 8 bytes each


def _has_valid_weights(checkpoint: dict[str, Any]) -> bool:
    """Return whether all weights are float32, and those that are trained are there if they are averaged ("ema")."""
    networks = [checkpoint["state_dict"]]
    if ("trained" in checkpoint) != ("ema" in parts_of(str(checkpoint["recipe"]["recipe"]))):
        return False
    if "trained" in checkpoint:
        if find_fault(checkpoint["trained"], checkpoint["architecture"]) is not None:
            return False
        networks.append(checkpoint["trained"])
    return all(tensor.dtype == torch.float32 for network in networks for tensor in network.values())


def _has_valid_optimizer(checkpoint: dict[str, Any]) -> bool:
    """Return whether the optimizer's state is that of the network's parameters, after `iter` iterations."""
    stored, model = checkpoint["optimizer"], skeleton(checkpoint["architecture"])
    if "correction" in checkpoint:
        model = Correction(model, checkpoint["wavelengths"])
    if checkpoint["recipe"]["freeze"]:
        freeze_all_but_tail(model)
    fresh = make_optimizer(model, lr=1.0)
    if not isinstance(stored, dict) or stored.keys() != {"state", "param_groups"}:
        return False
    groups, state = stored["param_groups"], stored["state"]
    if not isinstance(groups, list) or len(groups) != 1 or not isinstance(groups[0], dict):
        return False
    for name, expected in fresh.state_dict()["param_groups"][0].items():
        value = groups[0].get(name, expected)  # earlier versions of PyTorch have fewer settings
        if type(value) is not type(expected) or (name != "lr" and value != expected):
            return False
    parameters = fresh.param_groups[0]["params"]
    if not isinstance(state, dict) or state.keys() != set(range(len(parameters)) if checkpoint["iter"] else ()):
        return False
    return all(_is_state(state[i], parameter, checkpoint["iter"]) for i, parameter in enumerate(parameters) if state)


def _is_state(values: Any, parameter: Tensor, iteration: int) -> bool:
    """Return whether these are Adam's moments of a parameter, after so many iterations."""
    if not isinstance(values, dict) or values.keys() != {"step", "exp_avg", "exp_avg_sq"}:
        return False
    return (
        _is_moment(values["step"], ())
        and values["step"].item() == min(iteration, 2**24)  # where float32 stops counting
        and all(_is_moment(values[name], parameter.shape) for name in ("exp_avg", "exp_avg_sq"))
        and bool((values["exp_avg_sq"] >= 0).all())
    )


_CHECKS = {
    "run": lambda checkpoint: isinstance(checkpoint["run"], str),
    "epoch, iter, best, seconds": _has_valid_numbers,
    "recipe": _has_valid_recipe,
    "data": _has_valid_data,
    "losses": _has_valid_losses,
    "random": _has_valid_random_states,
    "weights": _has_valid_weights,
    "optimizer": _has_valid_optimizer,
}
