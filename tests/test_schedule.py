import numpy as np

from drcr.schedule import poly_lr


def test_equals_the_released_rates(golden):
    numbers = golden("training_c8_b1")
    arguments = float(numbers["init_lr"]), int(numbers["max_iter"]), float(numbers["power"])
    rates = [poly_lr(arguments[0], i, *arguments[1:]) for i in range(12)]
    np.testing.assert_allclose(rates, numbers["lrs"], rtol=1e-12)


def test_ends_at_zero_and_stays_there():
    assert poly_lr(1e-4, 0, 300000, 1.5) == 1e-4
    assert poly_lr(1e-4, 300000, 300000, 1.5) == 0
    assert poly_lr(1e-4, 300001, 300000, 1.5) == 0
