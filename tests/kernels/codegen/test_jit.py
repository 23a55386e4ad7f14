"""How kernels are compiled: late, at addresses, with or without a cache, anew after an edit."""

import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from numba import types

from npgpt.kernels.codegen.function_pointers import address_of, kernel_at
from npgpt.kernels.codegen.jit import jit

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Compiled kernels are kept in a folder of the test's own.

    Those of this module could not be loaded again, since they name it and it is on no path.
    """
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))


def test_without_a_place_for_the_cache_a_kernel_is_compiled_all_the_same(monkeypatch):
    jit(lambda x: x)(1)  # what Numba itself compiles with a cache, at its first use, is there
    njit = numba.njit

    def no_place(cache=False, **settings):
        if cache:
            raise RuntimeError("no locator available")
        return njit(**settings)

    monkeypatch.setattr(numba, "njit", no_place)
    assert jit(lambda x: x + 1)(2) == 3


def test_importing_npgpt_does_not_load_numba():
    code = "import npgpt, sys; sys.exit('numba' in sys.modules or 'kernels' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_kernel_is_called_at_its_address():
    signature = types.float64(types.float64)
    at = kernel_at(signature)
    double = jit(lambda x: x + x, signature=signature)
    square = jit(lambda x: x * x, signature=signature)

    @jit
    def both(one, other, x):
        return at(one)(x), at(other)(x)

    assert both(address_of(double), address_of(square), 5.0) == (10.0, 25.0)
    assert address_of(len) is len  # what is not compiled is given as it is
    assert at(len) is len


@pytest.mark.slow
def test_an_edit_in_any_source_makes_what_is_on_disk_invalid(tmp_path):
    """Compile a kernel in a copy, edit a file of the textbook's that it takes constants from."""
    shutil.copytree(ROOT / "npgpt", tmp_path / "npgpt", ignore=shutil.ignore_patterns("*cache*"))
    shutil.rmtree(tmp_path / "npgpt" / "kernels")
    shutil.copytree(ROOT / "kernels", tmp_path / "npgpt" / "kernels")
    code = (
        "import numpy as np; from npgpt.kernels import gelu_forward as f;"
        " print(float(f(np.ones(1, np.float32))[0][0]))"
    )

    def run_it():
        return subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
        )

    first = run_it()
    assert float(first.stdout) == pytest.approx(0.841192)
    again = run_it()
    assert again.stdout == first.stdout
    assert "compiling" in first.stderr or (ROOT / "kernels" / "__pycache__").exists()
    assert "compiling" not in again.stderr
    textbook = tmp_path / "npgpt" / "layers" / "gelu.py"
    textbook.write_text(textbook.read_text().replace("SCALE = ", "SCALE = 0 * "))
    edited = run_it()
    assert float(edited.stdout) == 0.5
    assert "compiling" in edited.stderr
