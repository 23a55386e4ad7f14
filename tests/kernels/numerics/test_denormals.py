"""Denormals are zeros in every part of a kernel that a thread takes, and nowhere else."""

import ast

import numpy as np
import pytest
from helpers import ROOT
from numba import prange

from npgpt import kernels, layers
from npgpt.core.threads import threads
from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.numerics.denormals import (
    FLUSH,
    flush_denormals,
    read_register,
    restore_denormals,
)

# Integers alone are computed there.
WITHOUT = {"numerics/bfloat16.py"}
TINY = 1e-39  # a denormal in float32


@jit
def register():
    return read_register()


@jit(parallel=True)
def halve(x, registers):
    for i in prange(len(x)):
        mode = flush_denormals()
        registers[i] = read_register()
        for j in range(x.shape[1]):
            x[i, j] *= np.float32(0.5)
        restore_denormals(mode)


def test_they_are_zeros_in_every_thread_and_as_before_after_it():
    before = register() & FLUSH
    x, registers = np.full((64, 100), TINY, np.float32), np.zeros(64, np.int64)
    with threads():
        halve(x, registers)
    if FLUSH:
        assert (x == 0).all() and (registers & FLUSH == FLUSH).all()
    assert register() & FLUSH == before
    assert np.float32(TINY) * np.float32(0.5) > 0  # in NumPy


def test_a_layer_takes_them_for_zeros():
    x = np.full((2, 8, 32), TINY, np.float32)
    out = kernels.residual_add(x, x)
    assert (layers.residual_add(x, x) > 0).all()
    assert (out == 0).all() or not FLUSH


def loops(tree):
    """The pranges of a file: the first and the last statement of each."""
    for node in ast.walk(tree):
        if isinstance(node, ast.For) and ast.unparse(node.iter).startswith("prange("):
            yield ast.unparse(node.body[0]), ast.unparse(node.body[-1])


# Those that begin and end so themselves, as they are called without a loop over threads too.
BLOCKS = "forward_block(", "add_block("
FIRST_AND_LAST = "mode = flush_denormals()", "restore_denormals(mode)"
FILES = sorted(
    path
    for path in (ROOT / "kernels").rglob("*.py")
    if "prange(" in path.read_text("utf-8")
    and path.relative_to(ROOT / "kernels").as_posix() not in WITHOUT
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_loop_over_threads_begins_and_ends_so(path):
    found = loops(ast.parse(path.read_text("utf-8")))
    found = [pair for pair in found if not pair[1].startswith(BLOCKS)]
    assert found == [FIRST_AND_LAST] * len(found)


def test_a_loop_that_does_not_is_found():
    text = "for i in prange(3):\n    mode = flush_denormals()\n    x[i] = 0\n"
    assert list(loops(ast.parse(text))) != [FIRST_AND_LAST]
    assert len(FILES) > 10
