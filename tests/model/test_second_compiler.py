"""A second process compiles the kernels of a step that a first one comes to last."""

import os
import subprocess
import sys

import numpy as np
import pytest

import npgpt
from npgpt.kernels.products.precision import has_bf16_hardware
from npgpt.model import second_compiler

POPEN = subprocess.Popen

STEP = """
import json
import numpy as np
import npgpt
from npgpt.kernels.codegen.jit import kernels

tokens = np.zeros((2, 1, 256), int)
model = npgpt.GPT2(npgpt.GPT2Config(256, 300, 1, 2, 64), precision={precision!r})
model.forward_backward(*tokens)
model.update(1e-3, clip=1.0)
print(json.dumps([kernel.py_func.__name__ for kernel in kernels if kernel.stats.cache_misses]))
"""


@pytest.fixture
def processes(monkeypatch):
    """The commands of the processes that are started, none of which runs."""
    commands = []

    class Process:
        def __init__(self, command, **_):
            commands.append(command)

        def kill(self):
            pass

        wait = kill

    monkeypatch.setattr(second_compiler, "_started", False)
    monkeypatch.setattr(second_compiler.subprocess, "Popen", Process)
    monkeypatch.setattr(second_compiler, "get_threads", lambda: 2)
    monkeypatch.setattr(second_compiler, "missing_on_disk", lambda kernel: True)
    return commands


def test_it_is_started_once(processes):
    for _ in range(2):
        second_compiler.start("float32", "fp32")
    ((python, _, code),) = processes
    assert python == sys.executable and code.endswith("compile_from_the_last('float32', 'fp32')")


@pytest.mark.parametrize(
    "name, value", [("get_threads", lambda: 1), ("missing_on_disk", lambda kernel: False)]
)
def test_it_is_not_started_without_a_core_or_where_kernels_are_compiled(
    name, value, processes, monkeypatch
):
    monkeypatch.setattr(second_compiler, name, value)
    second_compiler.start("float32", "fp32")
    assert not processes


def test_it_is_started_for_bf16_where_float32_is_compiled(processes, monkeypatch, bf16_hardware):
    monkeypatch.setattr(
        second_compiler, "missing_on_disk", lambda kernel: kernel is second_compiler.backward_heads
    )
    second_compiler.start("float32", "fp32")
    assert not processes
    second_compiler.start("float32", "bf16")
    assert len(processes) == 1


def test_what_is_not_python_is_not_started(processes, monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    second_compiler.start("float32", "fp32")
    assert not processes


def test_where_it_cannot_be_started_this_process_goes_on(processes, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setattr(second_compiler.subprocess, "Popen", POPEN)
    second_compiler.start("float32", "fp32")


def test_it_looks_where_this_process_does(processes, monkeypatch):
    monkeypatch.setattr(sys, "path", ["/elsewhere"])
    second_compiler.start("float32", "fp32")
    assert processes[0][2].startswith("import sys; sys.path[:] = ['/elsewhere']; ")


def test_the_first_step_of_a_model_asks_for_it(monkeypatch):
    asked = []
    monkeypatch.setattr(second_compiler, "start", lambda *of: asked.append(of))
    model, tokens = npgpt.GPT2(npgpt.GPT2Config(8, 16, 1, 1, 8)), np.zeros((1, 4), int)
    for _ in range(2):
        model.forward_backward(tokens, tokens)
    assert asked == [(np.float32, "fp32")]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_compiles_none_of_what_the_second_process_has_compiled(precision, tmp_path):
    if precision == "bf16" and not has_bf16_hardware():
        pytest.skip("this CPU has no hardware for bf16")
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    work = f"from {second_compiler.__name__} import compile_from_the_last as f"
    work += f"; f('float32', {precision!r})"
    subprocess.run([sys.executable, "-c", work], env=env, check=True, capture_output=True)
    code = STEP.format(precision=precision)
    step = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True)
    assert step.stdout.decode().strip() == '["embed"]'
