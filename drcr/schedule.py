"""The learning rate's schedules."""

import math


def poly_lr(init_lr: float, iteration: int, max_iter: int, power: float) -> float:
    """Return init_lr * (1 - iteration / max_iter) ** power: the rate of iteration 0, 1, 2, ...

    Past `max_iter` it is 0 (the released code fails there: a negative base with a broken exponent).
    """
    return init_lr * max(0.0, 1 - iteration / max_iter) ** power


def cosine_lr(init_lr: float, iteration: int, max_iter: int, warm_up: float = 0.02) -> float:
    """Return the rate of iteration 0, 1, 2, ...: up to init_lr in a line, then down to 0 at `max_iter` as a cosine.

    The line takes the part `warm_up` of the iterations (Loshchilov and Hutter, ICLR 2017; Goyal et al., 2017).
    """
    warm = warm_up * max_iter
    if iteration < warm:
        return init_lr * (iteration + 1) / (warm + 1)
    return init_lr * (1 + math.cos(math.pi * min(1, (iteration - warm) / (max_iter - warm)))) / 2
