"""The program in C, written by the guide: right on every pair, and its bugs are found."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT
from porting.traces import NEAREST, write_trace

from npgpt.formats.debug_state import read_debug_state
from npgpt.formats.llmc import read_checkpoint
from npgpt.porting.reference import PAIRS, make_pair, write_reference
from npgpt.porting.report import make_report
from npgpt.porting.sources import Expected, Mine
from npgpt.tracing.record import Recorder, Updates

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
SOURCE = (ROOT / "doc" / "porting" / "gpt2.c").read_text(encoding="utf-8")
GUIDE = (ROOT / "doc" / "porting" / "porting.md").read_text(encoding="utf-8")
UPDATES = Updates(3, 5e-3, 0.5)


def compiled(source, folder):
    (folder / "gpt2.c").write_text(source)
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", "gpt2", "gpt2.c", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "gpt2"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return compiled(SOURCE, tmp_path_factory.mktemp("c"))


def report_on(program, name, folder):
    """What a program makes of a pair, compared with the oracle's trace of it -> Report."""
    (model, state, _), _ = write_reference(folder, name, *make_pair(name), Updates(1, 0.0, 0.0))
    params = read_checkpoint(model)
    batch = read_debug_state(state, params)
    recorder = Recorder(params, batch.x, batch.y, updates=UPDATES)
    expected = Expected(write_trace(recorder, folder / "expected.safetensors"))
    options = map(str, (UPDATES.steps, UPDATES.lr, UPDATES.weight_decay))
    subprocess.run([program, model, state, folder / "mine", *options], check=True, timeout=60)
    return make_report(expected, Mine(folder / "mine", expected))


@pytest.mark.parametrize("name", PAIRS)
def test_it_is_right_on_every_pair(name, program, tmp_path):
    report = report_on(program, name, tmp_path)
    assert not report.wrong, str(report)
    assert max(finding.excess for finding in report.findings) < NEAREST
    absent = {finding.name for finding in report.of("absent")}
    assert absent == {"config", "tokens", "targets", "step_settings"}
    assert f"all right: {len(report.of('right'))} tensors, each" in str(report)
    assert "not in MINE" not in str(report)


@pytest.mark.slow
def test_the_loop_of_the_guide_goes_through_all_pairs(program, tmp_path):
    (loop,) = re.findall(r"```sh\n(for pair in .*?done\n)```", GUIDE, re.DOTALL)
    assert set(re.search("in (.*)", loop)[1].split()) == {*PAIRS}
    shutil.copy(program, tmp_path)
    (tmp_path / "npgpt").write_text(f'#!/bin/sh\nexec {sys.executable} -m npgpt "$@"\n')
    (tmp_path / "npgpt").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    command = ["sh", "-c", f"npgpt reference --pairs --out pairs && {loop}"]
    said = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert said.stdout.count("all right: ") == 12, said.stdout + said.stderr
    assert said.stdout.count("all right: 136 tensors") == 9 and "has 136 tensors" in GUIDE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong", "first", "cause"),
    [
        ("1e-5f", "1e-6f", "ln1_rstd.0", "epsilon"),
        ("m += row[c];\n        m /= C;", "m += row[c];", "ln1_mean.0", "scaled"),
        ("p[u] = score * scale;", "p[u] = score / hs; (void)scale;", "preatt.0", "attention scale"),
        ("float sum = b ? b[o] : 0;", "float sum = 0; (void)b;", "qkv.0", "bias missing"),
        ("+ 2 * C + h * hs;\n                    for (int i = 0; i < hs; i++) y[i]",
         "+ C + h * hs;\n                    for (int i = 0; i < hs; i++) y[i]", "atty.0",
         "heads or q, k, v"),
        ("dwpe[t * C + c] += d;", "dwpe[t * C + c] = d;", "dwpe", "embedding gradient"),
        ("if (db) db[o] += d;", "if (db) db[o] = d;", "dfcprojb.1", "overwritten"),
        ("(v == y[n])", "0", "dlogits", "logit gradient"),
        ("d * q[i] * scale;", "d * q[i];", "dqkv.1", "attention gradient"),
        ("float c1 = 1 - powf(0.9f, t)", "float c1 = 1", "step_params.1", None),
    ],
)  # fmt: skip
def test_a_bug_in_it_is_found(right, wrong, first, cause, tmp_path):
    assert SOURCE.count(right) == 1
    broken = compiled(SOURCE.replace(right, wrong), tmp_path)
    report = report_on(broken, "plain", tmp_path)
    assert report.wrong[0].name == first
    if cause:
        assert report.wrong[0].cause == cause


def test_it_says_what_is_wrong_with_a_file(program, tmp_path):
    (tmp_path / "short.bin").write_bytes(b"123")
    for model, words in (("none.bin", "No such file"), ("short.bin", "truncated")):
        command = [program, tmp_path / model, tmp_path / model, tmp_path / "out"]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 2 and words in ran.stderr
