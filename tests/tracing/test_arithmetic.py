"""The oracle's arithmetic: exact products, and the same bits however NumPy and BLAS are set."""

import math
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from helpers import ROOT

from npgpt.tracing.arithmetic import Exact, Number, exact, exp, log, product, tanh, total


def test_a_product_is_nearer_to_the_exact_one_than_blas(rng):
    a, b = rng.standard_normal((2, 5, 300)) * 10.0 ** rng.integers(-6, 6, (2, 5, 300))
    ours, blas = product(a, b.T), a @ b.T
    for i in range(5):
        for j in range(5):
            true = sum(Fraction(x) * Fraction(y) for x, y in zip(a[i], b[j], strict=True))
            size = max(abs(a[i])) * max(abs(b[j]))
            assert abs(Fraction(float(ours[i, j])) - true) <= 2.0**-50 * size
            assert abs(Fraction(float(blas[i, j])) - true) <= 2.0**-40 * size


def test_a_product_does_not_depend_on_the_order_of_its_terms(rng):
    a, b = rng.standard_normal((4, 700)), rng.standard_normal((700, 6))
    order = rng.permutation(700)
    np.testing.assert_array_equal(product(a, b), product(a[:, order], b[order]))
    assert (a @ b != a[:, order] @ b[order]).any()  # BLAS does


def test_products_in_pieces_and_in_batches_are_those_of_whole_matrices(rng, monkeypatch):
    a, b = rng.standard_normal((2, 3, 7, 10)), rng.standard_normal((2, 3, 10, 9))
    whole = product(a, b)
    np.testing.assert_allclose(whole, a @ b, rtol=1e-13, atol=1e-14)
    monkeypatch.setattr("npgpt.tracing.arithmetic.CHUNK", 4)
    np.testing.assert_allclose(product(a, b), whole, rtol=1e-14, atol=1e-15)
    assert product(np.zeros((2, 3)), np.ones((3, 2))).tolist() == [[0, 0], [0, 0]]


def test_sums_along_any_axes_are_numpys(rng):
    x = rng.standard_normal((3, 4, 5))
    for axis in (None, 0, 1, -1, (0, 1), (0, 2)):
        for keepdims in (False, True):
            expected = x.sum(axis=axis, keepdims=keepdims) if axis is not None else x.sum()
            found = total(x, axis, keepdims=keepdims and axis is not None)
            np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14)
    assert exact(x).mean(-1, keepdims=True).shape == (3, 4, 1)


def test_functions_are_the_librarys_to_the_last_digits():
    x = np.linspace(-700, 700, 30001)
    np.testing.assert_allclose(exp(x), np.exp(x), rtol=1e-15 * 4)
    near = np.linspace(-20, 20, 30001)
    np.testing.assert_allclose(tanh(near), np.tanh(near), atol=4e-16)
    positive = np.exp(np.linspace(-300, 300, 30001))
    np.testing.assert_allclose(log(positive), np.log(positive), rtol=1e-15, atol=1e-15)
    assert exp(np.array([-np.inf, -800.0])).tolist() == [0, 0]
    assert exp(np.array(800.0)) == np.inf and math.isnan(exp(np.array(math.nan)))
    assert Number(0.9) ** 3 == 0.9 * 0.9 * 0.9


def test_what_differs_between_machines_is_refused(rng):
    x = exact(rng.standard_normal((3, 3)))
    for compute in (
        lambda: np.sin(x), lambda: x**1.5, lambda: np.dot(x, x), lambda: x.dot(x),
        lambda: np.einsum("ij,jk", x, x), lambda: np.add.accumulate(x), lambda: np.linalg.norm(x),
    ):  # fmt: skip
        with pytest.raises(TypeError, match="not the same on every machine"):
            compute()
    assert all(isinstance(y, Exact) for y in (x + 1, x @ x, x.T, np.exp(x), x.sum(0), x[0]))


SCRIPT = """
import hashlib, numpy as np
from npgpt.core.config import GPT2Config
from npgpt.tracing.record import Recorder, Updates
from npgpt.tracing.seeded import random_batch, random_parameters
config = GPT2Config(16, 61, 2, 3, 48)
hashes = []
for backend in ("oracle", "numpy"):
    digest = hashlib.sha256()
    recorder = Recorder(random_parameters(config, 1), *random_batch(1, 3, 16, 61), backend,
                        updates=Updates(2, 1e-3, 0.1))
    recorder.run(lambda name, array: digest.update(np.ascontiguousarray(array).tobytes()))
    hashes.append(digest.hexdigest())
print(*hashes)
"""
# Another machine's sums, one thread, and NumPy without this machine's instructions.
MACHINES = (
    {"OPENBLAS_CORETYPE": "Prescott"},
    {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "1"},
    {"NPY_DISABLE_CPU_FEATURES": "{features}"},
)


def hashes(**settings):
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=ROOT, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **settings},
    )  # fmt: skip
    return ran.stdout.split()


@pytest.mark.slow
def test_every_tensor_has_the_same_bits_whatever_blas_and_numpy_use():
    found = np._core._multiarray_umath.__cpu_dispatch__
    features = " ".join(name for name in found if np._core._multiarray_umath.__cpu_features__[name])
    all_hashes = [
        hashes(**{name: value.format(features=features) for name, value in machine.items()})
        for machine in ({}, *MACHINES)
    ]
    oracle, plain = zip(*all_hashes, strict=True)
    assert len({*oracle}) == 1
    assert len({*plain}) > 1  # without the oracle's arithmetic they differ, so the check can fail
