"""npgpt trace: a model and a batch from anywhere, written by name."""

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, TINY_MODEL, TINY_STATE

from npgpt import PUBLISHED, write_checkpoint
from npgpt.data.token_files import write_tokens
from npgpt.trace_gpt2 import main
from npgpt.tracing.files import TraceFile
from npgpt.tracing.seeded import random_parameters

TINY = ["--model", str(TINY_MODEL)]


def run(path, *options):
    assert main([*TINY, *options, "--out", str(path)]) == 0
    return TraceFile(path)


def test_the_trace_of_a_debug_state_has_its_results(state, tmp_path, capsys):
    trace = run(tmp_path / "t.safetensors", "--state", str(TINY_STATE))
    said = capsys.readouterr().out
    assert "127 tensors" in said and "B 4, T 30, by oracle, loss 7.441306" in said
    np.testing.assert_allclose(trace.read("logits"), state.logits, atol=1e-5)
    np.testing.assert_allclose(trace.read("dwte"), state.grads.wte, rtol=1e-3, atol=1e-6)
    assert trace.dtype("logits") == "<f8" and trace.dtype("wte") == "<f4"


def test_tokens_from_a_file_or_a_seed(tmp_path):
    write_tokens(tmp_path / "tokens.bin", range(50))
    trace = run(tmp_path / "a.npz", "--tokens", str(tmp_path / "tokens.bin"), "-B", "2", "-T", "8")
    assert trace.read("tokens").tolist() == np.arange(16).reshape(2, 8).tolist()
    assert trace.read("targets")[1, -1] == 16
    seeded = [run(tmp_path / f"{n}.npz", "-B", "1", "--seed", s) for n, s in enumerate("778")]
    first, same, other = (each.read("tokens").tolist() for each in seeded)
    assert first == same != other and len(first[0]) == 40


def test_a_part_of_a_trace_and_steps(tmp_path):
    options = "-B 1 -T 4 --backend numpy --only qkv d*w loss step_* --blocks 1 --steps 2 --lr 0.01"
    trace = run(tmp_path / "raw", *options.split())
    assert [*trace.shapes] == [
        "config", "tokens", "targets", "qkv.1", "loss", "dlnfw", "dfcprojw.1", "dfcw.1", "dln2w.1",
        "dattprojw.1", "dqkvw.1", "dln1w.1", "step_settings", "step_m.1", "step_v.1",
        "step_params.1", "step_loss.1", "step_m.2", "step_v.2", "step_params.2", "step_loss.2",
    ]  # fmt: skip
    assert trace.dtype("qkv.1") == "<f4" and trace.read("step_settings").tolist() == [
        pytest.approx(0.01), 0
    ]  # fmt: skip
    lines = (tmp_path / "raw" / "manifest.txt").read_text().splitlines()
    assert "qkv.1 f4 qkv.1.f4 1 4 144" in lines and "config i4 config.i4 5" in lines


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-T 41", "-T must be at most the block_size, 40, not 41"),
        ("-B 0", "-B must be at least 1, not 0"),
        ("--seed -1", "seed must be an integer from 0"),
        (f"--state {TINY_STATE} -B 2", "-B does not go with --state"),
        ("--steps -1", "--steps must be at least 0, not -1"),
        ("--weight-decay inf", "--weight-decay must be a finite number"),
        ("--precision bf16", "--precision bf16 needs --backend numba"),
        ("--only querys", "--only: no tensor of a trace is called querys"),
        ("--backend numba --only att", "--only: no tensor of a trace is called att"),
        ("--blocks 2", "--blocks: there are 0 to 1, and no 2"),
        ("--tokens none.bin", "none.bin"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_written(options, words, tmp_path, capsys):
    assert main([*TINY, *options.split(), "--out", str(tmp_path / "t.npz")]) == 2
    assert words in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_an_ending_that_is_no_format_is_told_before_anything_is_computed(tmp_path, capsys):
    assert main([*TINY, "--out", str(tmp_path / "t.pt")]) == 2
    assert "t.pt: must end in .safetensors or .npz" in capsys.readouterr().err


@pytest.mark.full_size
@pytest.mark.parametrize("backend", ["oracle", "numpy"])
def test_gpt2_124m_is_written_as_it_is_computed(backend, tmp_path):
    """In less memory than its 1.5 GB of tensors and 1 GB of float64 weights and gradients ask."""
    write_checkpoint(tmp_path / "m.bin", random_parameters(PUBLISHED["124M"], 0))
    options = ["--model", "m.bin", "-B", "4", "-T", "64", "--dtype", "float32", "--out", "t"]
    script = (
        "import sys, resource; from npgpt.trace_gpt2 import main; status = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, *options, "--backend", backend], cwd=tmp_path, text=True,
        capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True,
    )  # fmt: skip
    kilobytes = int(ran.stdout.split()[-1])
    assert kilobytes < {"oracle": 4e6, "numpy": 2e6}[backend]
    trace = TraceFile(tmp_path / "t")
    assert len(trace.shapes) == 647 and trace.read("loss") == pytest.approx(31.48388, abs=1e-4)
