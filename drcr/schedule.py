"""The learning rate."""


def poly_lr(init_lr: float, iteration: int, max_iter: int, power: float) -> float:
    """Return the polynomial decay init_lr * (1 - iteration / max_iter) ** power at iteration 0, 1, 2, ...

    At `max_iter` it is 0 and stays 0 (the released code fails there: a negative base with a fractional exponent). The
    released recipe has the power 1.5.
    """
    return init_lr * max(0.0, 1 - iteration / max_iter) ** power
