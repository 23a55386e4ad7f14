"""What the programs of bench share, and bench.step; what they time is not run here."""

import json
import time

import numpy as np
import pytest

from bench import lengths, step, turns
from bench.machine import cpu_name, operands, products
from bench.profile import Clock
from npgpt import NpgptError
from npgpt.wording import install_extra


def test_the_products_of_a_step_are_six_flops_a_weight_and_position():
    weights = 12 * 12 * 768**2 + 50257 * 768
    work = sum(2 * M * K * N * count for _, M, K, N, count in products(4, 64))
    assert work == 6 * weights * 4 * 64


@pytest.mark.parametrize("kind", ["x @ w.T", "dout @ w", "dout.T @ x"])
def test_operands_can_be_multiplied_and_lie_as_a_steps_do(kind):
    x, y, out = operands(kind, 3, 4, 5)
    np.matmul(x, y, out=out)
    assert x.flags.c_contiguous == (kind != "dout.T @ x")
    assert y.flags.c_contiguous == (kind != "x @ w.T")


def test_a_cpu_has_its_name():
    assert cpu_name("model name\t: One (R)\nflags\t\t: fpu avx2\n" * 2) == "One (R)"
    assert cpu_name("")


def test_a_clock_counts_time_inside_another_function_once():
    clock = Clock()
    inner = clock.timed("inner", lambda: time.sleep(0.02))
    clock.timed("outer", inner)()
    assert clock.seconds["inner"] >= 0.02
    assert clock.seconds["outer"] < 0.01


RUN = {"first": 2.0, "seconds": [1.0, 3.0], "peak": 10**9}
LIMIT = {"sgemm": 0.5, "adamw": 0.1, "memory": 1e10}


@pytest.fixture
def children(monkeypatch):
    """What is asked of children, none of which is run; and a profile that takes no time."""
    asked = []

    def child(module, *options):
        asked.append((module, *options))
        return LIMIT if module == "bench.machine" else RUN

    for module in (step, lengths):
        monkeypatch.setattr(module, "child", child)
    monkeypatch.setattr(step, "profile", lambda *options: {"matrix products": 3.0, "the rest": 1.0})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("bench.machine.find_spec", lambda name: None)
    return asked


def the_result(folder):
    (path,) = folder.glob("*/*.json")
    return path.name, json.loads(path.read_text(encoding="utf-8"))


def test_every_round_begins_with_the_next_system():
    asked = []
    runs = turns.take_turns(["a", "b"], 2, lambda name: asked.append(name) or len(asked))
    assert asked == ["a", "b", "b", "a"]
    assert runs == {"a": [1, 4], "b": [2, 3]}


def test_a_child_that_fails_is_named():
    with pytest.raises(NpgptError, match="-m bench.systems none failed with status 2"):
        turns.child("bench.systems", "none")


def test_a_step_is_measured_and_written(children, tmp_path, capsys):
    words = ["--systems", "npgpt", "npgpt, recompute", "--seq-len", "8", "--rounds", "2"]
    assert step.main([*words, "--steps", "2", "--out", str(tmp_path)]) == 0
    assert ("bench.systems", "npgpt", "-B", 4, "-T", 8, "--steps", 2) in children
    assert children.count(("bench.machine", 4, 8)) == 2
    name, result = the_result(tmp_path)
    assert name == "step_4x8.json" and (result["B"], result["T"]) == (4, 8)
    merged = {"seconds": [1.0, 3.0] * 2, "first": [2.0] * 2, "peak": 10**9}
    assert result["systems"] == {"npgpt": merged, "npgpt, recompute": merged}
    assert result["limit"]["sgemm"] == [0.5, 0.5]
    assert "| npgpt, recompute | 2.00 (1.00 to 3.00) | 16 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-T", "0"], "-T/--T/--seq-len: must be at least 1, not 0"),
        (["--batch-size", "four"], "-B/--B/--batch-size: invalid count value: 'four'"),
        (["--systems", "npgpt, recompute"], "--systems must have npgpt among them"),
        (["--systems", "TensorFlow"], "must be one of "),
        ([], f"torch is missing: {install_extra('bench')}"),
    ],
)
def test_bad_settings_are_refused(words, message, children, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        step.main(["--out", str(tmp_path), *words])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not children


def test_a_precision_that_the_cpu_has_not_got_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("npgpt.kernels.products.precision.has_bf16_hardware", lambda: False)
    for program in (step, lengths):
        assert program.main(["--out", str(tmp_path), "--precision", "bf16"]) == 2
        assert "error: precision bf16 needs a CPU" in capsys.readouterr().err


@pytest.mark.parametrize(("precision", "system"), [("fp32", "npgpt"), ("bf16", "npgpt, bf16")])
def test_the_lengths_are_those_of_the_precision(precision, system, monkeypatch, children, tmp_path):
    monkeypatch.setattr("npgpt.kernels.products.precision.has_bf16_hardware", lambda: True)
    assert lengths.main(["--out", str(tmp_path), "--precision", precision]) == 0
    assert [(asked[1], asked[5]) for asked in children] == [(system, T) for T in lengths.LENGTHS]
    name, result = the_result(tmp_path)
    assert name == f"lengths_4_{precision}.json"
    assert result["lengths"]["1024"] == RUN
