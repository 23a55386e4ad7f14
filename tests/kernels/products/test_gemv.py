"""Products of few rows: nothing is read beyond the end, and a row is the same among others."""

import ctypes
import mmap
import subprocess
import sys

import numpy as np
import pytest

from npgpt.kernels.numerics.bfloat16 import to_bf16
from npgpt.kernels.numerics.int4 import to_int4
from npgpt.kernels.numerics.int8 import to_int8
from npgpt.kernels.numerics.scaled import Scaled
from npgpt.kernels.products.gemv import DOT_MAX_ROWS, few_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect"),
]

FORMATS = {"float32": np.copy, "bf16": to_bf16, "int8": to_int8, "int4": to_int4}
LENGTHS = 1, 15, 32, 64, 195


def before_a_wall(array):
    """A copy of an array, after whose last byte there is memory that can only be touched to die."""
    page = mmap.PAGESIZE
    size = -(-array.nbytes // page) * page
    memory = mmap.mmap(-1, size + page)
    wall = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + size
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(wall), ctypes.c_size_t(page), 0) == 0
    copy = np.frombuffer(memory, array.dtype, array.size, size - array.nbytes)
    copy = copy.reshape(array.shape)
    copy[...] = array
    return copy


@pytest.mark.parametrize("M", [1, 4, 7, DOT_MAX_ROWS + 1, 40])
@pytest.mark.parametrize(
    ("name", "K"), [(name, K) for name in FORMATS for K in LENGTHS if name != "int4" or K % 32 == 0]
)
def test_nothing_is_read_beyond_the_end(name, K, M, rng):
    x, w = rng.standard_normal((M, K)).astype("f4"), rng.standard_normal((5, K)).astype("f4")
    weights, expected, out = FORMATS[name](w), np.empty((M, 5), "f4"), np.empty((M, 5), "f4")
    few_rows(x, weights, expected)
    walled = (
        Scaled(*map(before_a_wall, weights))
        if isinstance(weights, Scaled)
        else before_a_wall(weights)
    )
    few_rows(before_a_wall(x), walled, out)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_alone_has_the_bits_that_it_has_among_others(name, rng):
    x = rng.standard_normal((DOT_MAX_ROWS, 96)).astype("f4")
    weights = FORMATS[name](rng.standard_normal((9, 96)).astype("f4"))
    together, alone = np.empty((2, DOT_MAX_ROWS, 9), "f4")
    few_rows(x, weights, together)
    for row, out in zip(x, alone, strict=True):
        few_rows(row[None], weights, out[None])
    np.testing.assert_array_equal(alone, together)


def test_what_reads_beyond_the_end_dies():
    text = "import sys; sys.path.insert(0, 'tests/kernels/products'); import numpy as np\n"
    text += "from test_gemv import before_a_wall; x = before_a_wall(np.ones(5, 'f4'))\n"
    text += "print(x.sum()); print(np.lib.stride_tricks.as_strided(x, (6,)).sum())"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.stdout == "5.0\n" and done.returncode < 0
