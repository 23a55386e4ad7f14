"""How many threads there are, and that nothing changes for others."""

import os
import subprocess
import sys

import numba
import numpy as np
import pytest

import npgpt
from npgpt.core import threads
from npgpt.errors import ArgumentError

LIMIT = numba.config.NUMBA_NUM_THREADS
CONFIG = npgpt.GPT2Config(block_size=16, vocab_size=30, n_layer=2, n_head=2, n_embd=32)


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    for name, value in (("_count", None), ("_found", None), ("_sharers", 1)):
        monkeypatch.setattr(threads, name, value)


def test_set_threads_is_what_the_kernels_get_and_others_do_not():
    before = numba.get_num_threads()
    for n in (1, min(2, LIMIT)):
        npgpt.set_threads(n)
        assert npgpt.get_threads() == n
        with threads.threads():
            assert numba.get_num_threads() == n
        assert numba.get_num_threads() == before


def test_more_threads_than_there_can_be_are_as_many_as_there_can_be():
    npgpt.set_threads(10_000)
    assert npgpt.get_threads() == LIMIT


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", True, None])
def test_a_bad_number_is_refused(n):
    with pytest.raises(ArgumentError, match="must be an integer of at least 1, not"):
        npgpt.set_threads(n)


def test_the_environment_says_how_many():
    code = "import npgpt; print(npgpt.get_threads())"
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        done = subprocess.run(
            [sys.executable, "-c", code], env={name: "1"}, capture_output=True, text=True
        )
        assert done.stdout == "1\n", done.stderr


def test_without_a_word_they_are_the_physical_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("loky.cpu_count", lambda only_physical_cores: 1)
    assert npgpt.get_threads() == 1


def test_several_processes_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("loky.cpu_count", lambda only_physical_cores: 2 * LIMIT)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 2 * LIMIT)
    found = []
    for n in (1, 2, 2 * LIMIT, 3 * LIMIT):
        threads.share_cores(n)
        found.append(npgpt.get_threads())
    assert found == [2 * LIMIT, LIMIT, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    threads.share_cores(2)
    assert npgpt.get_threads() == 2


def test_little_work_takes_fewer_threads():
    npgpt.set_threads(LIMIT)
    for grains, count in ((0, 1), (0.5, 1), (1.5, 1), (2.5, min(2, LIMIT)), (1e9, LIMIT)):
        with threads.threads(grains * threads.FLOPS_PER_THREAD):
            assert numba.get_num_threads() == count


def test_a_small_model_computes_on_one_thread(rng, monkeypatch):
    npgpt.set_threads(LIMIT)
    model = npgpt.GPT2(CONFIG)
    seen = []
    for name in ("encoder_forward", "adamw_update", "gradient_norm"):
        right = getattr(model.layers, name)

        def counted(*args, right=right, **kwargs):
            seen.append(numba.get_num_threads())
            return right(*args, **kwargs)

        monkeypatch.setattr(model.layers, name, counted)

    def step():
        model.forward(rng.integers(0, 30, (2, 8)))
        model.forward_backward(*rng.integers(0, 30, (2, 2, 8)))
        model.update(1e-3, clip=1.0)

    step()
    assert seen == [1] * 4
    monkeypatch.setattr(threads, "FLOPS_PER_THREAD", 1.0)
    step()
    assert seen[4:] == [LIMIT] * 4


def test_training_is_the_same_on_any_number_of_threads(rng, monkeypatch):
    monkeypatch.setattr(threads, "FLOPS_PER_THREAD", 1.0)
    tokens, targets = rng.integers(0, 30, (2, 3, 16))
    runs = []
    for n in (1, 2):
        npgpt.set_threads(n)
        model = npgpt.GPT2(CONFIG, seed=3)
        for _ in range(3):
            loss = model.forward_backward(tokens, targets)
            model.update(1e-2, weight_decay=0.1, clip=1.0)
        runs.append((loss, model.params.flat))
    assert runs[0][0] == runs[1][0]
    np.testing.assert_array_equal(runs[0][1], runs[1][1])


def test_a_step_starts_no_thread_of_blas_and_changes_none(rng):
    pytest.importorskip("threadpoolctl")
    from threadpoolctl import threadpool_info

    def blas():
        return [lib for lib in threadpool_info() if lib["user_api"] == "blas"]

    before = blas()
    model = npgpt.GPT2(CONFIG)
    model.forward_backward(*rng.integers(0, 30, (2, 3, 16)))
    model.update(1e-3)
    assert blas() == before


USE = """
import multiprocessing, os, sys, threading
import numpy as np
import npgpt

model = npgpt.GPT2(npgpt.GPT2Config(16, 30, 2, 2, 32), backend="numba")
x = np.arange(32).reshape(2, 16) % 30
"""


def python(code, **env):
    done = subprocess.run(
        [sys.executable, "-c", USE + code], env={**os.environ, **env}, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_gets_a_sentence_and_a_pool_does_not_hang():
    out = python("""
model.forward(x)
def child(_):
    return model.forward(x).shape
with multiprocessing.get_context("fork").Pool(1) as pool:
    try:
        pool.map(child, [1])
    except npgpt.NpgptError as error:
        print(error)
model.forward(x)
print("the parent goes on")
""")
    assert out.startswith("this process was forked from one that had used npgpt's kernels")
    assert out.endswith("the parent goes on\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_forked_before_the_first_use_computes():
    out = python("""
def child(_):
    return model.forward(x).shape
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.map(child, [1]))
""")
    assert out == "[(2, 16, 30)]\n"


@pytest.mark.parametrize("layer", ["workqueue", pytest.param("omp", marks=pytest.mark.slow)])
def test_models_in_several_python_threads_compute_the_same(layer):
    out = python(
        """
expected = model.forward(x)
found = []
def compute():
    mine = npgpt.GPT2(npgpt.GPT2Config(16, 30, 2, 2, 32), backend="numba")
    for _ in range(50):
        found.append(np.array_equal(mine.forward(x), expected))
threads = [threading.Thread(target=compute) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
import numba
print(numba.threading_layer(), len(found), all(found))
""",
        NUMBA_THREADING_LAYER=layer,
    )
    assert out == f"{layer} 200 True\n"
