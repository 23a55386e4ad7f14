"""What the programs of bench share, and bench.step; what they time is not run here."""

import json
import threading
import time

import numpy as np
import pytest

from bench import lengths, prepare, step, systems, turns
from bench.machine import cpu_name, describe, operands, products
from bench.profile import Clock
from bench.sizes import SIZES, model_name
from npgpt import GPT2, GPT2Config, NpgptError
from npgpt.wording import install_extra


def test_the_products_of_a_step_are_six_flops_a_weight_and_position():
    weights = 12 * 12 * 768**2 + 50257 * 768
    work = sum(2 * M * K * N * count for _, M, K, N, count in products(4, 64, GPT2Config()))
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


@pytest.mark.parametrize(("features", "hidden"), [({"avx512f"}, False), (set(), True)])
def test_a_machine_whose_avx512_is_hidden_says_so(features, hidden, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("model name : One\nflags : avx2 avx512f\n")
    monkeypatch.setattr("bench.machine.Path", lambda name: tmp_path / "cpuinfo")
    monkeypatch.setattr("npgpt.kernels.codegen.vectors.cpu_features", lambda: features)
    assert describe()["cpu"] == "One" + " as if it had no AVX-512" * hidden


def test_a_clock_counts_time_inside_another_function_once():
    clock = Clock()
    inner = clock.timed("inner", lambda: time.sleep(0.02))
    clock.timed("outer", inner)()
    assert clock.seconds["inner"] >= 0.02
    assert clock.seconds["outer"] < 0.01


@pytest.mark.parametrize(
    ("size", "B", "T", "sizes"),
    [
        ("124M", 4, 64, (1024, 50257, 12, 12, 768)),
        ("124M_T1024", 4, 1024, (1024, 50257, 12, 12, 768)),
        ("nanogpt_cpu", 12, 64, (64, 65, 4, 4, 128)),
        ("L4_C256", 16, 128, (128, 65, 4, 8, 256)),
        ("shakespeare_char", 64, 256, (256, 65, 6, 6, 384)),
    ],
)
def test_a_size_is_a_model_and_its_batch(size, B, T, sizes):
    found = SIZES[size]
    assert (found.B, found.T, found.config) == (B, T, GPT2Config(*sizes))
    assert model_name(size) == "GPT-2 124M" or f"{sizes[2]} layers, {sizes[4]} chan" in model_name(
        size
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", ["nanogpt_cpu", "L4_C256"])  # the others take long
def test_pytorchs_step_is_npgpts(size, rng):
    torch = pytest.importorskip("torch", reason="needs the extra `reference`")
    config = SIZES[size].config
    tokens, targets = rng.integers(0, config.vocab_size, (2, 2, config.block_size))
    ours = systems.npgpt_step(config, tokens, targets)
    theirs = systems.pytorch_step(config, tokens, targets, compiled=False)
    losses = np.array([[ours(), theirs()] for _ in range(5)])
    assert losses[0, 0] - losses[-1, 0] > 0.05
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], atol=1e-4)
    model = systems.pytorch_model(config)
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens)).numpy()
    np.testing.assert_allclose(logits, GPT2(config).forward(tokens), atol=1e-5)


RUN = {"first": 2.0, "seconds": [1.0, 3.0], "losses": [4.0, 3.0], "peak": 10**9}
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


def test_a_child_has_the_variables_that_are_given(tmp_path, monkeypatch):
    (tmp_path / "echo.py").write_text("import os; print(os.environ['NPGPT_PRODUCTS'] == 'blas')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(turns.json, "loads", lambda text: text)
    assert turns.child("echo", NPGPT_PRODUCTS="blas") == "True"


def test_a_step_is_measured_and_written(children, tmp_path, capsys):
    words = ["--systems", "npgpt", "npgpt, recompute", "--seq-len", "8", "--rounds", "2"]
    assert step.main([*words, "--steps", "2", "--out", str(tmp_path)]) == 0
    words = ("--size", "124M", "-B", 4, "-T", 8, "--steps", 2)
    assert ("bench.systems", "npgpt", *words) in children
    assert children.count(("bench.machine", "124M", 4, 8)) == 2
    name, result = the_result(tmp_path)
    assert name == "step_4x8.json" and (result["B"], result["T"]) == (4, 8)
    merged = {"seconds": [1.0, 3.0] * 2, "first": [2.0] * 2, "peak": 10**9}
    assert result["systems"] == {"npgpt": merged, "npgpt, recompute": merged}
    assert result["limit"]["sgemm"] == [0.5, 0.5]
    assert "| npgpt, recompute | 2.00 (1.00 to 3.00) | 16 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sizes", "name"),
    [
        ([], (4, 64, 5), "step_4x64"),
        (["--size", "124M_T1024"], (4, 1024, 2), "step_4x1024"),
        (["--size", "nanogpt_cpu"], (12, 64, 100), "step_nanogpt_cpu_12x64"),
        (["--size", "L4_C256", "-B", "3", "-T", "5"], (3, 5, 20), "step_L4_C256_3x5"),
    ],
)
def test_a_size_has_b_and_t_of_its_own(words, sizes, name, children, tmp_path, capsys):
    assert step.main([*words, "--systems", "npgpt", "--out", str(tmp_path)]) == 0
    size = words[1] if words else "124M"
    assert ("bench.machine", size, *sizes[:2]) in children
    wanted = ("--size", size, "-B", sizes[0], "-T", sizes[1], "--steps", sizes[2])
    assert ("bench.systems", "npgpt", *wanted) in children
    assert the_result(tmp_path)[0] == f"{name}.json"
    title = f"Training step of {model_name(size)}, B={sizes[0]}, T={sizes[1]}, on "
    assert title in capsys.readouterr().out


def test_systems_that_do_not_compute_the_same_are_not_compared():
    runs = {"npgpt": [{"losses": [4.0, 3.0]}], "PyTorch, medium": [{"losses": [4.0, 3.02]}]}
    step.check_losses(runs)  # bf16's tolerance
    runs["PyTorch, eager"] = [{"losses": [4.0, 3.0]}, {"losses": [4.0, 3.02]}]
    with pytest.raises(NpgptError, match="PyTorch, eager .* step 1 must be 3.000000, within 0.001"):
        step.check_losses(runs)
    with pytest.raises(NpgptError, match="but is nan"):
        step.check_losses({**runs, "PyTorch, eager": [{"losses": [float("nan")]}]})


@pytest.mark.parametrize("has", [True, False])
def test_the_default_systems_are_those_of_the_cpus_precisions(has, monkeypatch):
    monkeypatch.setattr("npgpt.kernels.products.precision.has_bf16_hardware", lambda: has)
    fp32 = {"npgpt", "PyTorch, eager", "PyTorch, compiled"}
    found = set(step.default_systems())
    assert fp32 <= found and (found == fp32) == (not has)
    assert ("PyTorch, medium, compiled" in found) == ("npgpt, bf16" in found) == has


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-T", "1025"], "must be at most 1024, the block_size of 124M, not 1025"),
        (
            ["--size", "nanogpt_cpu", "-T", "65"],
            "must be at most 64, the block_size of nanogpt_cpu",
        ),
        (["--size", "125M"], "must be one of 124M, 124M_T1024, nanogpt_cpu, "),
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


def test_token_files_of_a_text_are_timed_beside_tiktoken(
    tmp_path, shared_data, monkeypatch, capsys
):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
    (tmp_path / "text.txt").write_text("The same words again. " * 5000)
    args = ["--text", tmp_path / "text.txt", "--megabytes", 1, "--rounds", 1, "--out", tmp_path]
    assert prepare.main([str(arg) for arg in args]) == 0
    assert "| tiktoken alone |" in capsys.readouterr().out
    (path,) = tmp_path.glob("*/prepare.json")
    result = json.loads(path.read_text())
    assert result["bytes"] == 1_100_000 and list(result["systems"]) == ["npgpt", "tiktoken alone"]
    for run in result["systems"].values():
        assert run["seconds"][0] > 0 and 1e7 < run["peak"][0] < 1e9


def test_tiktoken_alone_keeps_all_threads_busy(tmp_path, monkeypatch):
    """While one thread is at the first piece, the other one goes on to the third."""
    at_the_third = threading.Event()

    class Encoding:
        def encode_to_numpy(self, piece, **options):
            if piece == "c":
                at_the_third.set()
            assert piece != "a" or at_the_third.wait(5)

        encode_ordinary = encode_to_numpy

    monkeypatch.setattr("tiktoken.get_encoding", lambda name: Encoding())
    monkeypatch.setattr(prepare, "get_threads", lambda: 2)
    monkeypatch.setattr(prepare, "PIECE", 1)
    (tmp_path / "text.txt").write_text("abc")
    prepare.by_tiktoken(tmp_path / "text.txt", tmp_path)
    assert at_the_third.is_set()
