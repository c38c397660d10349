"""Learning rate schedules."""

import math


def poly_lr(init_lr: float, iteration: int, max_iter: int, power: float) -> float:
    """Return the polynomial decay init_lr * (1 - iteration / max_iter) ** power.

    Parameters
    ----------
    init_lr : float
        The learning rate at iteration 0.
    iteration : int
        0, 1, 2, ...
    max_iter : int
        The iteration at which the learning rate reaches 0. It stays 0 afterwards (the released code fails there: a
        negative base with a fractional exponent).
    power : float
        Exponent; 1.5 in the released recipe.
    """
    return init_lr * max(0.0, 1 - iteration / max_iter) ** power


def cosine_lr(init_lr: float, iteration: int, max_iter: int, warm_up: float = 0.02) -> float:
    """Return a linear warm-up to init_lr, then a cosine decay to 0.

    Warm-up as in Goyal et al. (2017), cosine as in Loshchilov and Hutter (ICLR 2017).

    Parameters
    ----------
    init_lr : float
        The highest learning rate.
    iteration : int
        0, 1, 2, ...
    max_iter : int
        The iteration at which the learning rate reaches 0.
    warm_up : float
        The fraction of the iterations that the warm-up takes.
    """
    warm = warm_up * max_iter
    if iteration < warm:
        return init_lr * (iteration + 1) / (warm + 1)
    return init_lr * (1 + math.cos(math.pi * min(1, (iteration - warm) / (max_iter - warm)))) / 2
