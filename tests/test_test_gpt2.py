"""The reference check: it passes on PyTorch's tiny pair, and finds whatever is wrong."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import TINY_MODEL, TINY_STATE, changed

from npgpt import layers, write_checkpoint, write_debug_state
from npgpt.core.parameters import TENSOR_NAMES
from npgpt.test_gpt2 import main, print_comparison

LOSSES = TINY_STATE.with_name("tiny_debug_state.losses.json")


@pytest.fixture
def pair(tmp_path):
    """A copy of the tiny pair and its losses: folder with m.bin, m_debug_state.bin."""
    shutil.copy(TINY_MODEL, tmp_path / "m.bin")
    shutil.copy(TINY_STATE, tmp_path / "m_debug_state.bin")
    shutil.copy(LOSSES, tmp_path / "m_debug_state.losses.json")
    return tmp_path


def check(folder, *args):
    return main(["--model", str(folder / "m.bin"), *args])


def not_ok(out):
    """The first word of each line that is NOT OK; of a loss, the step."""
    rows = [line.split() for line in out.splitlines() if "NOT OK" in line]
    return [" ".join(row[:2]) if row[0] == "step" else row[0].rstrip(":") for row in rows]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_tiny_pair_agrees_far_within_the_tolerances(backend, capsys):
    tight = ["logits=2e-5", "loss=5e-6", "grads=5e-6", "losses=2e-5"]
    assert main(["--backend", backend, "--tolerance", *tight]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert "tiny pair" in lines[0]
    assert "gpt2_124M.bin" in lines[1]
    assert sum(line.endswith("OK") for line in lines) == 18
    assert sum(line.startswith("step") and "  OK" in line for line in lines) == 10
    assert lines[-1] == "overall okay: True"


@pytest.mark.slow
def test_the_tiny_pair_agrees_in_other_precisions(coarse, capsys):
    assert main(["--precision", coarse]) == 0
    assert f"backend numba, precision {coarse}\n" in capsys.readouterr().out
    tight = {"bf16x3": "2e-5", "bf16": "1e-3"}[coarse]  # float32's would not be met
    assert main(["--precision", coarse, "--tolerance", f"logits={tight}"]) == 1
    assert not_ok(capsys.readouterr().out) == ["logits"]


def test_it_runs_by_name_in_an_empty_folder(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "npgpt.test_gpt2"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert run.stdout.endswith("overall okay: True\n")


def test_a_pair_in_the_current_folder_is_taken(pair, monkeypatch, capsys):
    (pair / "m.bin").rename(pair / "gpt2_124M.bin")
    (pair / "m_debug_state.bin").rename(pair / "gpt2_124M_debug_state.bin")
    monkeypatch.chdir(pair)
    assert main(["--steps", "2"]) == 0
    assert "from the current folder" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize("model_version", [1, 3])
@pytest.mark.parametrize("state_version", [1, 2])
def test_every_combination_of_versions_agrees(model_version, state_version, pair, params, state):
    write_checkpoint(pair / "m.bin", params, model_version)
    write_debug_state(pair / "m_debug_state.bin", state, state_version)
    assert check(pair) == 0


@pytest.mark.parametrize("name", TENSOR_NAMES)
def test_one_changed_gradient_is_found(name, pair, state, capsys):
    gradient = getattr(state.grads, name)
    at = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
    gradient[at] *= 1.0005
    write_debug_state(pair / "m_debug_state.bin", state)
    assert check(pair) == 1
    out = capsys.readouterr().out
    assert not_ok(out) == [f"d{name}"]
    assert f"NOT OK at {[*map(int, at)]}" in out
    assert out.endswith("overall okay: False\n")


def test_a_changed_gradient_of_the_padding_is_found(pair, state, capsys):
    state.grads.wte_padding[2, 5] = 1e-3
    write_debug_state(pair / "m_debug_state.bin", state)
    assert check(pair) == 1
    assert "padding row 2" in capsys.readouterr().out


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_found(value, pair, state, capsys):
    state.grads.lnfb[3] = value
    state.logits[1, 2, 3] = value
    write_debug_state(pair / "m_debug_state.bin", state)
    assert check(pair) == 1
    assert not_ok(capsys.readouterr().out) == ["logits", "dlnfb"]


def test_a_changed_logit_and_a_changed_loss_are_found(pair, state, capsys):
    state.logits[3, 29, 250] += 0.002
    state.loss += np.float32(2e-4)
    write_debug_state(pair / "m_debug_state.bin", state)
    assert check(pair) == 1
    out = capsys.readouterr().out
    assert not_ok(out) == ["logits", "loss"]
    assert "NOT OK at [3, 29, 250]" in out


@pytest.mark.parametrize("step", range(10))
def test_a_wrong_loss_is_found(step, pair, capsys):
    content = json.loads(LOSSES.read_text())
    content["losses"][step] += 2e-3
    (pair / "m_debug_state.losses.json").write_text(json.dumps(content))
    assert check(pair) == 1
    assert not_ok(capsys.readouterr().out) == [f"step {step}"]


@pytest.mark.parametrize(("name", "factor"), [("lr", 1.01), ("weight_decay", 1.2)])
def test_a_wrong_optimizer_is_found(name, factor, pair, capsys):
    content = json.loads(LOSSES.read_text())
    content[name] *= factor
    (pair / "m_debug_state.losses.json").write_text(json.dumps(content))
    assert check(pair) == 1
    wrong = not_ok(capsys.readouterr().out)
    assert wrong and all(row.startswith("step") for row in wrong)


def test_another_models_weights_are_found(pair, params, capsys):
    params.flat[:] = params.flat[::-1]
    write_checkpoint(pair / "m.bin", params)
    assert check(pair) == 1
    assert len(not_ok(capsys.readouterr().out)) == 28


@pytest.mark.parametrize(
    ("name", "breakage"),
    [
        ("attention_forward", "no mask"),
        ("attention_forward", "no scale"),
        ("attention_forward", "uniform"),
        ("layernorm_backward", "two terms"),
        ("encoder_backward", "overwriting"),
        ("adamw_update", "no bias correction"),
        ("adamw_update", "no decay"),
    ],
)
def test_a_broken_layer_is_found(name, breakage, monkeypatch, capsys):
    right = getattr(layers, name)

    def attention(qkv, NH, scale=1.0, masked=True):
        B, T, C3 = qkv.shape
        q, k, v = qkv.reshape(B, T, 3, NH, C3 // 3 // NH).transpose(2, 0, 3, 1, 4)
        att = np.exp(scale * q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5)
        att = np.tril(att) if masked else att
        att /= att.sum(-1, keepdims=True)
        return (att @ v).swapaxes(1, 2).reshape(B, T, C3 // 3), (qkv, att)

    def two_terms(dout, cache, *out):
        x, w, mean, rstd = cache
        _, dw, db = right(dout, cache, *out)
        dxhat = dout * w
        return rstd * (dxhat - dxhat.mean(-1, keepdims=True)), dw, db

    def overwriting(dout, cache, out, add):
        tokens, wte, wpe = cache
        dwte = np.zeros_like(wte)
        dwte[tokens] = dout
        out[0][:] += dwte
        out[1][: dout.shape[1]] += dout.sum(0)

    broken = {
        "no mask": lambda qkv, NH: attention(qkv, NH, masked=False),
        "no scale": lambda qkv, NH: attention(qkv, NH, scale=1.1),
        "uniform": lambda qkv, NH: attention(qkv, NH, scale=0.0),
        "two terms": two_terms,
        "overwriting": overwriting,
        "no decay": lambda *args: right(*args[:9], 0.0),
        "no bias correction": lambda p, g, m, v, t, *args: right(p, g, m, v, 10**6, *args),
    }
    monkeypatch.setattr(layers, name, broken[breakage])
    assert main(["--backend", "numpy"]) == 1
    assert capsys.readouterr().out.endswith("overall okay: False\n")


def test_a_state_without_losses_is_checked_in_its_first_step_and_says_so(pair, capsys):
    (pair / "m_debug_state.losses.json").unlink()
    assert check(pair) == 0
    out = capsys.readouterr().out
    assert sum("not checked" in line for line in out.splitlines()) == 9
    assert "NOT checked: the last 9 steps, for which no losses are known" in out


def test_more_steps_than_known_losses_are_not_checked_and_fewer_are_fewer(pair, capsys):
    assert check(pair, "--steps", "12") == 0
    assert "NOT checked: the last 2 steps" in capsys.readouterr().out
    assert check(pair, "--steps", "1") == 0
    assert "step 1" not in capsys.readouterr().out


def test_weight_decay_can_be_given(pair, capsys):
    assert check(pair, "--weight-decay", "1") == 1
    assert "weight decay 1;" in capsys.readouterr().out
    content = json.loads(LOSSES.read_text())
    (pair / "m_debug_state.losses.json").write_text(json.dumps({**content, "weight_decay": 1}))
    assert check(pair, "--weight-decay", "0.5") == 0  # what the losses came with


def test_losses_can_be_named(pair, tmp_path, capsys):
    other = pair / "other.json"
    other.write_text(json.dumps({"losses": [1.0], "lr": 1e-3, "weight_decay": 0}))
    assert check(pair, "--losses", str(other)) == 1
    assert not_ok(capsys.readouterr().out) == ["step 0"]


def test_tolerances_can_be_given_one_by_one_or_for_all(pair, capsys):
    assert check(pair, "--tolerance", "grads=1e-9", "--steps", "1") == 1
    wrong = set(not_ok(capsys.readouterr().out))
    assert {"dwte", "dwpe"} <= wrong <= {f"d{name}" for name in TENSOR_NAMES}
    assert check(pair, "--tolerance", "logits=0", "--steps", "1") == 1
    assert not_ok(capsys.readouterr().out) == ["logits"]
    assert check(pair, "--tolerance", "0") == 1
    assert {"logits", "dwte", "dqkvw"} <= set(not_ok(capsys.readouterr().out))
    assert check(pair, "--tolerance", "0", "logits=1", "loss=1", "grads=1", "losses=1") == 0


def test_the_first_loss_has_a_tolerance_of_its_own(pair, capsys):
    content = json.loads(LOSSES.read_text())
    content["losses"][0] += 5e-4  # within `losses`, beyond `loss`
    content["losses"][1] += 5e-4
    (pair / "m_debug_state.losses.json").write_text(json.dumps(content))
    assert check(pair) == 1
    assert not_ok(capsys.readouterr().out) == ["step 0"]


def test_one_element_among_millions_is_found(rng, capsys):
    """Where the norm hardly shows it: the bound on each element is for this."""
    expected = rng.uniform(-1, 1, 1_000_000).astype(np.float32)
    expected[0] = 1
    actual = expected.copy()
    assert print_comparison("dwte", actual, expected, 1e-4, l2=True)
    actual[123_456] += 0.01
    assert not print_comparison("dwte", actual, expected, 1e-4, l2=True)
    row = capsys.readouterr().out.splitlines()[1].split()
    assert float(row[3]) < 1e-4  # the relative L2 norm alone would have passed
    assert "[123456]:" in row


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--steps", "0"], "--steps must be at least 1, not 0"),
        (["--steps", "x"], "--steps: must be a whole number, not 'x'"),
        (["--weight-decay", "-1"], "--weight-decay must be finite and at least 0, not -1.0"),
        (["--weight-decay", "nan"], "--weight-decay must be finite and at least 0, not nan"),
        (["--tolerance", "x"], "--tolerance must be X or NAME=X, X at least 0"),
        (["--tolerance", "nan"], "--tolerance must be X or NAME=X, X at least 0"),
        (["--tolerance", "weights=1"], "NAME one of logits, loss, grads, losses, not weights=1"),
        (["--backend", "cuda"], "--backend: must be one of numpy, numba, not 'cuda'"),
        (["--state", "s.bin"], "--state needs --model"),
        (["--model", "none.bin"], "none.bin: No such file or directory"),
        (["--model", "."], "is a folder"),
        (["--model", str(TINY_STATE)], "not a GPT-2 checkpoint"),
        (["--model", str(TINY_MODEL), "--state", str(TINY_MODEL)], "not a GPT-2 debug state"),
        (["--losses", "none.json"], "none.json: No such file or directory"),
        (["--nonsense"], "there is no option --nonsense"),
    ],
)
def test_bad_usage_is_one_sentence(args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(args)
    except SystemExit as exit:
        status = exit.code
    assert status == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_a_bad_model_is_one_sentence(pair, capsys):
    changed(TINY_MODEL, pair / "m.bin", 3, 252)
    assert check(pair) == 2
    assert capsys.readouterr().err.startswith("error: ")
