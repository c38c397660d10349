"""The learning rate's schedule."""


def poly_lr(init_lr: float, iteration: int, max_iter: int, power: float) -> float:
    """Return init_lr * (1 - iteration / max_iter) ** power: the rate of iteration 0, 1, 2, ...

    Past `max_iter` it is 0 (the released code fails there: a negative base with a broken exponent).
    """
    return init_lr * max(0.0, 1 - iteration / max_iter) ** power
