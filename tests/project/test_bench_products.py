"""The bench of products: every system computes the product; large ones are not run here."""

import json

import numpy as np
import pytest

from bench import choose
from bench import products as bench
from bench.machine import operands
from npgpt import GPT2Config
from npgpt.kernels.products import blas
from npgpt.wording import install_extra

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("has_bf16", [True, False])
def test_the_systems_take_turns_and_what_they_did_is_written(
    has_bf16, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr("npgpt.kernels.products.precision.has_bf16_hardware", lambda: has_bf16)
    asked, systems = [], [name for name in bench.SYSTEMS if has_bf16 or "bf16" not in name]

    def child(module, only, name, *options):
        asked.append(name)
        assert options == ("--size", "124M", "-B", 4, "-T", 8)
        return [float(asked.count(name))] * 15

    monkeypatch.setattr(bench, "child", child)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("bench.machine.find_spec", lambda name: None)
    assert bench.main(["--seq-len", "8", "--rounds", "3", "--out", str(tmp_path / "new")]) == 0
    assert sorted(asked) == sorted(systems * 3)
    (path,) = (tmp_path / "new").glob("*/products_4x8.json")
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["systems"]["npgpt"] == [[1.0] * 15, [2.0] * 15, [3.0] * 15]
    assert written["products"][0] == ["x @ w.T", 32, 768, 2304, 12]
    out = capsys.readouterr().out
    assert f"| all of a step {'| 1.00 ' * (4 if has_bf16 else 2)}|\n" in out
    assert ("with casts they are" in out) == has_bf16


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "0"], "--rounds: must be at least 1, not 0"),
        (["--only", "MATLAB"], "must be one of "),
        ([], f"torch is missing: {install_extra('bench')}"),
    ],
)
def test_bad_settings_are_refused(words, message, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stopped:
        bench.main(["--out", str(tmp_path), *words])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("default", "seconds", "said"),
    [
        ("kernel", {"kernel": 1.0, "blas": 2.0, "blas, sleeping": 1.5}, "Nothing to set: npgpt's"),
        ("kernel", {"kernel": 1.0, "blas": 0.97, "blas, sleeping": 1.5}, "Nothing to set: npgpt's"),
        ("kernel", {"kernel": 1.0, "blas": 0.5, "blas, sleeping": 0.6},
         "NumPy's BLAS: 2.00 times as fast as the default here. Set NPGPT_PRODUCTS=blas\n"),
        ("kernel", {"kernel": 1.0, "blas": 2.0, "blas, sleeping": 0.8},
         "Set NPGPT_PRODUCTS=blas OMP_WAIT_POLICY=PASSIVE OPENBLAS_THREAD_TIMEOUT=4\n"),
        ("blas", {"kernel": 1.0, "blas": 0.5, "blas, sleeping": 0.5}, "Nothing to set: NumPy's B"),
        ("blas", {"kernel": 0.5, "blas": 1.0, "blas, sleeping": 1.0},
         "npgpt's kernel: 2.00 times as fast as the default here. Set NPGPT_PRODUCTS=kernel\n"),
    ],
)  # fmt: skip
def test_the_fastest_way_and_its_variables_are_said(default, seconds, said, monkeypatch, capsys):
    asked = []

    def child(*words, **env):
        asked.append((words, env))
        way = next(way for way, found in choose.WAYS.items() if found.env == env)
        return seconds[way]

    monkeypatch.setattr(choose, "child", child)
    monkeypatch.setattr(choose, "default_way", lambda: default)
    assert bench.main(["--choose", "--size", "L4_C256", "-T", "9", "--rounds", "2"]) == 0
    assert len(asked) == 6
    assert asked[0][0] == ("bench.choose", "--size", "L4_C256", "-B", 16, "-T", 9)
    out = capsys.readouterr().out
    assert f"| npgpt's kernel | {1000 * seconds['kernel']:.0f}" in out and said in out


@pytest.mark.parametrize("way", ["kernel", "blas"])
def test_the_ways_are_those_of_the_products(way, monkeypatch):
    monkeypatch.setenv("NPGPT_PRODUCTS", way)
    taken = []
    right = blas.product_blas
    monkeypatch.setattr(blas, "product_blas", lambda *of: taken.append(1) or right(*of))
    assert choose.seconds_of_products(GPT2Config(8, 9, 1, 1, 16), 2, 8) > 0
    assert bool(taken) == (way == "blas")
    assert {found.env["NPGPT_PRODUCTS"] for found in choose.WAYS.values()} == set(blas.WAYS)
