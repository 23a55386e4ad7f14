"""The kernels' own exp: how close it is, and what becomes of numbers that it cannot take."""

import numpy as np

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.numerics.exponential import exp


@jit
def exponentials(x, out):
    for i in range(x.size):
        out[i] = exp(x[i])


def test_exp_is_as_close_as_it_says():
    x = np.linspace(-87, 88, 1_000_001).astype(np.float32)
    out = np.empty_like(x)
    exponentials(x, out)
    expected = np.exp(x.astype(np.float64))
    assert (abs(out / expected - 1) <= 4e-7).all()
    x = np.array([0, np.nan, -1000, 1000], np.float32)
    exponentials(x, out[:4])
    assert out[0] == 1
    assert np.isnan(out[1])
    assert 0 <= out[2] < 1e-37
    assert out[3] > 1e38
