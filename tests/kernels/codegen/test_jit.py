"""How kernels are compiled: late, at addresses, with or without a cache, anew after an edit."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import numba
import numpy as np
import pytest
from numba import types

from npgpt.kernels.codegen.function_pointers import address_of, kernel_at
from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.codegen.vectors import AVX512

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


MAKERS = {"empty", "zeros", "ones", "full", "array", "arange", "copy", "empty_like", "zeros_like"}


def kernels_that_make_arrays(tree):
    """The functions of a file that are compiled without makes_arrays and make some."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    compiled = {  # jit(f, ...), jit(f if x else g, ...)
        name.id
        for call in calls if ast.unparse(call.func) == "jit" and call.args
        for name in ast.walk(call.args[0]) if isinstance(name, ast.Name)
    }  # fmt: skip
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        how = [ast.unparse(each) for each in node.decorator_list]
        if node.name in compiled or (any(each.startswith("jit") for each in how)):
            made = {
                call.func.attr
                for call in ast.walk(node)
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
            }
            if made & MAKERS and not any("makes_arrays=True" in each for each in how):
                yield node.name


def test_kernels_that_make_arrays_say_so():
    """Also those that only other CPUs compile."""
    found = {}
    for path in (ROOT / "kernels").rglob("*.py"):
        names = [*kernels_that_make_arrays(ast.parse(path.read_text("utf-8")))]
        found |= {path.name: names} if names else {}
    assert found == {}


def test_a_kernel_that_makes_arrays_and_does_not_say_so_is_found():
    text = "@jit\ndef f(x):\n    return np.empty(3)\n\ndef g():\n    x.copy()\n\njit(g if a else f)"
    assert [*kernels_that_make_arrays(ast.parse(text))] == ["f", "g"]
    with pytest.raises(numba.core.errors.TypingError):
        jit(lambda n: np.empty(n).sum())(3)
    assert jit(lambda n: np.zeros(n).sum(), makes_arrays=True)(3) == 0


@pytest.mark.slow
@pytest.mark.skipif(not AVX512, reason="the tiles of these kernels are AVX-512's")
def test_bf16_kernels_compile_for_a_cpu_with_amx(tmp_path):
    """On any CPU with AVX-512: LLVM makes the code, and nobody runs it."""
    code = (
        "from npgpt.kernels.heads import bf16\n"
        "import numpy as np\n"
        "from npgpt.kernels.products import amx, gemm_bf16, product, shared_pack_bf16\n"
        "amx.available = lambda: True\n"
        "for use_amx in (True, False):\n"
        "    bf16.compiled_forward(use_amx), bf16.compiled_backward(use_amx)\n"
        "    shared_pack_bf16.kernels_for(use_amx)\n"
        "for gemm in (gemm_bf16.gemm_bf16, gemm_bf16.gemm_bf16x3, gemm_bf16.gemm_bf16_avx512):\n"
        "    gemm_bf16.compiled(gemm)\n"
        "product.product_for(np.dtype('f4'), product.bf16_product_on_threads)\n"
        "print('compiled')\n"
    )
    features = f"{llvm.get_host_cpu_features().flatten()},+avx512bf16,+amx-tile,+amx-bf16"
    settings = {
        "NUMBA_CPU_NAME": "sapphirerapids", "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(tmp_path),
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **settings}, cwd=ROOT,
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.stdout == "compiled\n", run.stderr
