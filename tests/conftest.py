"""The fixtures that several test files share: the tiny pair, bf16 hardware, the real text."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from helpers import ROOT, TINY_MODEL, TINY_STATE

import npgpt
from npgpt.kernels.products import amx, avx512_bf16
from npgpt.kernels.products.precision import has_bf16_hardware
from npgpt.training import loop


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--full-size", action="store_true", help="also run GPT-2 124M (some minutes)")


def pytest_configure():
    # The tests' processes share the cores: one's threads that wait must not keep them from another.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--full-size"):
        skip = pytest.mark.skip(reason="GPT-2 124M runs with --full-size only")
        for item in items:
            if item.get_closest_marker("full_size"):
                item.add_marker(skip)
    named = any("::" in argument for argument in config.args)
    if not (named or config.getoption("--slow")):
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)


@pytest.fixture(autouse=True)
def no_picture(request, monkeypatch):
    """Runs draw no loss.png, which takes longer than their steps, but in tests that ask for it."""
    if "picture" not in request.fixturenames:
        monkeypatch.setattr(loop, "draw_loss_curve", lambda run, progress: None)


@pytest.fixture
def picture():
    """Runs of this test draw their loss.png."""
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")


@pytest.fixture(scope="session")
def compiled():
    """The kernels of float32 are compiled, by a process of its own.

    A process that compiles a kernel computes other last digits than those that load it, so a test
    that compares bits between processes needs this.
    """
    code = (
        "import npgpt, numpy as np; x = np.zeros((2, 40), int);"
        "m = npgpt.GPT2(npgpt.GPT2Config(40, 7, 1, 2, 32)); m.forward_backward(x, x);"
        "m.forward_backward(x, x, add=True); m.update(1e-3, clip=1.0, decayed_params='matrices');"
        "m.generate(x[:, :1], 2); m.generate(x, 2); m.loss(x[:1, :2], x[:1, :2])"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL, cwd=ROOT)


@pytest.fixture
def bf16_hardware():
    """Skips the test where the CPU or the system has no bf16 hardware."""
    if not has_bf16_hardware():
        pytest.skip("this CPU or system has neither AMX tiles nor AVX-512 instructions for bf16")


def multiply_by(hardware, monkeypatch):
    """On AMX tiles, or without them by AVX-512; skip the test where there are none."""
    if hardware == "amx":
        if not amx.available():
            pytest.skip("this CPU or system has no AMX tiles for bf16")
        return
    if not avx512_bf16.available():
        pytest.skip("this CPU has no AVX-512 instructions for bf16")
    monkeypatch.setattr(amx, "available", lambda: False)


@pytest.fixture(params=["amx", "avx512"])
def hardware(request, monkeypatch):
    """Both ways to multiply in bf16."""
    multiply_by(request.param, monkeypatch)


@pytest.fixture(params=["bf16 on amx", "bf16x3 on amx", "bf16 on avx512"])
def coarse(request, monkeypatch):
    """The precisions that are not float32, on each hardware; bf16x3 by AVX-512 would be."""
    name, _, hardware = request.param.split()
    multiply_by(hardware, monkeypatch)
    return name


@pytest.fixture
def numba_threads():
    """Sets the number of Numba's threads, two at most; after the test they are what they were."""
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("Numba has one thread here, and there is nothing to compare")
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def params():
    """The tiny model's weights, fresh for each test."""
    return npgpt.read_checkpoint(TINY_MODEL)


@pytest.fixture
def state(params):
    """The tiny model's debug state, fresh for each test."""
    return npgpt.read_debug_state(TINY_STATE, params)


@pytest.fixture
def shared_data():
    """The real tinyshakespeare and tiktoken's files, which are not part of the project."""
    beside = ROOT.parent / "shared" / "data"
    folder = Path(os.environ.get("NPGPT_TEST_DATA", beside))
    if not (folder / "tinyshakespeare.txt").exists():
        pytest.skip("set NPGPT_TEST_DATA to a folder with tinyshakespeare.txt and tiktoken/")
    return folder
