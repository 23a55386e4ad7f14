"""What doc/porting/porting.md says, where its own Python blocks do not check it."""

import re

import numpy as np
from helpers import ROOT
from porting.traces import NEAREST, write_trace

from npgpt.porting.reference import make_pair
from npgpt.porting.report import make_report
from npgpt.porting.sources import Expected, Mine
from npgpt.tracing.record import Recorder, Updates

GUIDE = (ROOT / "doc" / "porting" / "porting.md").read_text(encoding="utf-8")


def without_last_digits(text):
    """The text with four digits of each number, which are the same on every machine."""
    return re.sub(r"(\d\.\d{3})\d+", r"\1", text)


def test_the_report_that_it_shows_is_the_one_of_its_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, updates = make_pair("plain"), Updates(3, 5e-3, 0.5)
    write_trace(Recorder(*model, updates=updates), "plain.safetensors")
    write_trace(Recorder(*model, backend="numpy", updates=updates), "mine", "<f4")
    scores = np.fromfile("mine/preatt.1.f4", "<f4")
    (scores * np.float32(np.sqrt(8))).tofile("mine/preatt.1.f4")
    expected = Expected("plain.safetensors")
    made = str(make_report(expected, Mine("mine", expected)))
    (shown,) = re.findall(r"```text\n(expected  .*?)\n```", GUIDE, re.DOTALL)
    assert without_last_digits(shown) == without_last_digits(made)


def test_figures_that_it_states():
    assert f"to {NEAREST} of the limit" in GUIDE
    port = (ROOT / "doc" / "porting" / "gpt2.c").read_text(encoding="utf-8")
    assert "in under 500 lines" in GUIDE and len(port.splitlines()) < 500
