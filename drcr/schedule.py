"""The learning rate."""


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
