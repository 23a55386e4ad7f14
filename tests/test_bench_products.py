"""The bench of products: every system computes the product, and its table; large ones not here."""

import json
import sys

import numpy as np
import pytest

from bench import products as bench
from bench.machine import operands

SIZES = ("x @ w.T", 5, 7, 9, 2), ("dout.T @ x", 4, 3, 8, 1)


@pytest.mark.parametrize("system", bench.SYSTEMS)
@pytest.mark.parametrize("kind", ["x @ w.T", "dout @ w", "dout.T @ x"])
def test_every_system_computes_the_product(system, kind, request):
    if "PyTorch" in system:
        pytest.importorskip("torch")
    if "npgpt, bf16" in system:
        request.getfixturevalue("bf16_hardware")
    x, y, out = operands(kind, 33, 40, 50)
    result = bench.SYSTEMS[system](x, y, out)()
    result = result.float().numpy() if "PyTorch" in system else out
    error = np.linalg.norm(result - x.astype(float) @ y) / np.linalg.norm(x.astype(float) @ y)
    assert error < (1e-2 if system.endswith(("bf16", "casts")) else 1e-4)


def test_the_table_has_speeds_their_ratios_and_the_sum_of_a_step(monkeypatch):
    monkeypatch.setattr(bench, "products", lambda B, T: SIZES)
    seconds = {system: [1e-9, 4e-9] for system in bench.SYSTEMS}
    seconds["npgpt"] = [2e-9, 2e-9]
    lines = bench.table(seconds, 4, 64)
    first, second, whole = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:])
    assert first[:4] == ["x @ w.T: (5, 7) @ (7, 9)", "630", "630", "315"]
    assert first[-3:] == ["0.50", "1.00", "1.00"]
    assert second[1:4] == ["48", "48", "96"] and second[-3] == "2.00"
    assert whole[1] == f"{1452 / 6:.0f}" and whole[-3] == f"{6 / 6:.2f}"


def test_the_systems_take_turns_and_what_they_did_is_written(
    monkeypatch, capsys, tmp_path, bf16_hardware
):
    order = []

    def child(module, only, name, *options):
        order.append(name)
        assert options == ("--batch", 4, "--length", 8)
        return [float(order.count(name))] * 15

    monkeypatch.setattr(bench, "child", child)
    monkeypatch.setattr(bench, "describe", lambda: {"cpu": "one"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    words = ["--length", "8", "--rounds", "3", "--out", str(tmp_path / "new")]
    monkeypatch.setattr(sys, "argv", ["bench.products", *words])
    bench.main()
    assert order == [*bench.SYSTEMS] * 3
    written = json.loads((tmp_path / "new" / "products_4x8.json").read_text())
    assert written["seconds"]["npgpt"] == [2.0] * 15  # the median of the rounds
    assert "| all of a step |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "0"], "--rounds must be at least 1, not 0"),
        (["--only", "MATLAB"], "invalid choice"),
    ],
)
def test_bad_settings_are_refused(words, message, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["bench.products", "--out", str(tmp_path), *words])
    with pytest.raises(SystemExit) as stopped:
        bench.main()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_cpu_without_bf16_hardware_is_refused_in_a_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["bench.products", "--out", str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("npgpt.precision.granted", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        bench.main()
    assert stopped.value.code == 2
    assert "error: precision bf16 takes a CPU" in capsys.readouterr().err


def test_what_is_missing_is_named_with_the_command(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["bench.products", "--out", str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        bench.main()
    assert "torch is missing: pip install -e '.[bench]'" in capsys.readouterr().err
