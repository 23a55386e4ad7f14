"""The benches' arithmetic and pictures; what they time is not run here."""

import sys
import time

import numpy as np
import pytest

from bench import step
from bench.machine import cpu, operands, products
from bench.profile import Clock


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


def test_a_cpu_is_named_with_the_units_that_it_has():
    one = "model name\t: One\nflags\t\t: fpu avx2 {}avx512f amx_bf16\n"
    assert cpu(one.format("avx512_bf16 ") * 2) == "One avx2 avx512f avx512_bf16 amx_bf16"
    assert cpu(one.format("avx512_vnni ")) == "One avx2 avx512f amx_bf16"
    assert cpu("flags: avx2").endswith("avx2")


def test_a_clock_counts_time_inside_another_function_once():
    clock = Clock()
    inner = clock.timed("inner", lambda: time.sleep(0.02))
    clock.timed("outer", inner)()
    assert clock.seconds["inner"] >= 0.02
    assert clock.seconds["outer"] < 0.01


RUNS = {
    "npgpt": [{"first": 9.0, "seconds": [1.0, 3.0], "peak": 10**9}],
    "PyTorch, eager": [{"first": 2.0, "seconds": [4.0, 2.0, 6.0], "peak": 2 * 10**9}],
}


def test_the_table_compares_medians():
    results = {system: step.summary(runs) for system, runs in RUNS.items()}
    lines = step.table(results, 4, 64, limit=1.0)
    assert lines[2] == "| npgpt | 2.00 (1.00 to 3.00) | 128 | 1.00 GB | 1.00 |"
    assert lines[3] == "| PyTorch, eager | 4.00 (2.00 to 6.00) | 64 | 2.00 GB | 2.00 |"
    assert lines[4].endswith("| 1.00 | | | 0.50 |")


def test_the_chart_is_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    results = {system: step.summary(runs) for system, runs in RUNS.items()}
    step.chart(tmp_path / "a.png", results, {"matrix products": 3.0, "the rest": 1.0}, 4, 64)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--length", "0"], "--length must be at least 1, not 0"),
        (["--systems", "PyTorch, eager"], "--systems must have npgpt among them"),
        (["--systems", "TensorFlow"], "invalid choice"),
    ],
)
def test_bad_settings_are_refused(words, message, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["bench.step", "--out", str(tmp_path), *words])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(SystemExit) as stopped:
        step.main()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_precision_that_the_cpu_has_not_got_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["bench.step", "--out", str(tmp_path), "--precision", "bf16"])
    monkeypatch.setattr("npgpt.precision.granted", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        step.main()
    assert stopped.value.code == 2
    assert "precision bf16 takes a CPU with AMX tiles" in capsys.readouterr().err


def test_the_growth_is_that_of_the_precision(monkeypatch, tmp_path):
    asked = []
    run = {"first": 1.0, "seconds": [1.0], "peak": 1}
    monkeypatch.setattr(step, "child", lambda module, system, *options: asked.append(system) or run)
    monkeypatch.setattr("npgpt.precision.granted", lambda: True)
    for precision in ("fp32", "bf16"):
        words = ["--out", str(tmp_path), "--lengths", "--precision", precision]
        monkeypatch.setattr(sys, "argv", ["bench.step", *words])
        step.main()
    assert asked == ["npgpt"] * 5 + ["npgpt, bf16"] * 5


def test_what_is_missing_is_named_with_the_command(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["bench.step", "--out", str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        step.main()
    assert "matplotlib is missing: pip install -e '.[bench]'" in capsys.readouterr().err
