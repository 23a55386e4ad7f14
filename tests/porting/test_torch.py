"""The oracle against PyTorch in float64, and PyTorch's float32 against the oracle."""

import runpy

import numpy as np
import pytest
from helpers import ROOT, TINY_MODEL, TINY_STATE, run_here
from porting.traces import NEAREST, write_trace

from npgpt.formats.debug_state import read_debug_state
from npgpt.formats.llmc import read_checkpoint
from npgpt.porting.compare import CAUSAL, PER_TARGET
from npgpt.porting.reference import make_pair, write_reference
from npgpt.porting.report import make_report
from npgpt.porting.sources import Expected, Mine
from npgpt.tracing.names import split_name
from npgpt.tracing.record import Recorder, Updates

pytestmark = pytest.mark.reference
SCRIPT = ROOT / "scripts" / "trace_gpt2.py"
UPDATES = Updates(3, 1e-3, 0.1)
PAIRS = ("tiny", "odd", "ignored", "loud")


@pytest.fixture(params=PAIRS)
def traces(request, tmp_path):
    """EXPECTED by the oracle, and a function from a dtype to PyTorch's trace."""
    pytest.importorskip("torch")
    model, state = TINY_MODEL, TINY_STATE
    if request.param != "tiny":
        pair = make_pair(request.param)
        (model, state, _), _ = write_reference(tmp_path, "pair", *pair, Updates(1, 0.0, 0.0))
    params = read_checkpoint(model)
    batch = read_debug_state(state, params)
    recorder = Recorder(params, batch.x, batch.y, updates=UPDATES)
    expected = Expected(write_trace(recorder, tmp_path / "expected.safetensors"))

    def mine(dtype):
        path = tmp_path / f"{dtype}.npz"
        run_here(
            SCRIPT, "--model", model, "--state", state, "--dtype", dtype, "--steps", 3,
            "--lr", 1e-3, "--weight-decay", 0.1, "--out", path,
        )  # fmt: skip
        return Mine(path, expected)

    return expected, mine


def test_every_tensor_is_pytorchs_in_float64_within_1e_12(traces):
    expected, mine = traces
    theirs = mine("float64")
    compared, counted = 0, expected.read("targets") != -1
    for name in expected.names:
        if name in theirs and not name.startswith("step_"):
            right, found = expected.read(name), theirs.read(name)
            if split_name(name)[0] in CAUSAL:
                right, found = np.tril(right), np.tril(found)
            if name in PER_TARGET:
                right, found = right * counted, found * counted
            assert np.abs(found - right).max() <= 1e-12 * np.abs(right).max(), name
            compared += 1
    assert compared > 70
    assert not make_report(expected, theirs).wrong


def test_nothing_is_found_in_pytorchs_float32(traces):
    expected, mine = traces
    report = make_report(expected, mine("float32"))
    assert not report.wrong, str(report)
    assert max(finding.excess for finding in report.findings) < NEAREST
    absent = {finding.name for finding in report.of("absent")}
    assert absent == {"config", "tokens", "targets", "step_settings"}
    assert report.dtype == "float32"


def test_the_script_says_what_it_cannot_read(tmp_path, capsys):
    pytest.importorskip("torch")
    script = runpy.run_path(str(SCRIPT))
    content, state = TINY_MODEL.read_bytes(), TINY_STATE.read_bytes()
    path = tmp_path / "damaged.bin"
    for data, words in (
        (bytes(1024), "not a GPT-2"), (b"", "truncated: 0 bytes"), (content[:1023], "truncated"),
        (content[:-4], "by its header it must have"), (content + bytes(4), "by its header"),
        (content[:20] + bytes(4) + content[24:], "the sizes in its header are damaged"),
    ):  # fmt: skip
        path.write_bytes(data)
        assert words in refused(script["read_model"], path, capsys=capsys)
    for data, words in (
        (content, "not a debug state"), (b"", "truncated: 0 bytes"),
        (state[:1100], "truncated: 1100 bytes"),
        (state[:8] + b"\xff" * 4 + state[12:], "B is -1"),
        (state[:12] + b"\x29\0\0\0" + state[16:], "T is 41, with a block_size of 40"),
        (state[:1024] + b"\xff" * 4 + state[1028:], "tokens must be from 0 to 250"),
    ):  # fmt: skip
        path.write_bytes(data)
        assert words in refused(script["read_batch"], path, 40, 251, capsys=capsys)
    options = ["--state", str(TINY_STATE), "--out", str(tmp_path / "t.npz")]
    for model, words in ((tmp_path / "none.bin", "No such file"), (path, "not a GPT-2")):
        said = run_here(SCRIPT, "--model", model, *options, status=2)
        assert said.count("\n") == 1 and words in said
    assert not (tmp_path / "t.npz").exists()


def refused(read, *arguments, capsys):
    """The one sentence with which a function of the script ends the program, with status 2."""
    with pytest.raises(SystemExit) as ended:
        read(*arguments)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1
    return said
