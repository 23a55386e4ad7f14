"""Mistakes of AdamW: each is made in the textbook, and has to be named by the norms it leaves."""

import numpy as np
import pytest
from porting.planted import Bug, Buggy
from porting.traces import traced, write_trace

from npgpt.model.optimizer import AdamW
from npgpt.porting.reference import make_pair
from npgpt.porting.report import make_report
from npgpt.porting.sources import Expected, Mine
from npgpt.tracing import record
from npgpt.tracing.record import Recorder, Updates

PAIR, UPDATES = make_pair("plain"), Updates(3, 5e-3, 0.5)  # those of the guide
STEP = "pi -= lr / (1 - beta1**t) * mi / (np.sqrt(vi / (1 - beta2**t)) + eps)"


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    path = tmp_path_factory.mktemp("oracle") / "oracle.safetensors"
    return Expected(write_trace(Recorder(*PAIR, updates=UPDATES), path))


def report_on(expected, arrays, folder):
    np.savez(folder / "mine.npz", **arrays)
    return make_report(expected, Mine(folder / "mine.npz", expected))


def planted(right_text, wrong_text):
    bug = Bug("", "adamw", right_text, wrong_text, "", None)
    return traced(Buggy(bug, *PAIR, backend="numpy", updates=UPDATES))


@pytest.mark.parametrize(
    ("right_text", "wrong_text", "first", "words"),
    [
        ("np.sqrt(vi / (1 - beta2**t)) + eps", "np.sqrt(vi / (1 - beta2**t) + eps)",
         "step_params.1", "is under the root"),
        (" + eps)", " + 1e-4)", "step_params.1", "epsilon is 0.0001, not 1e-08"),
        ("pi *= 1 -", "lr *= 3; pi *= 1 -", "step_params.1", "lr is 0.015, 3 times"),
        ("pi *= 1 -", "lr *= 0.37; pi *= 1 -", "step_params.1", "lr is 0.00185, 0.37 times"),
        (STEP, "t += 1; " + STEP, "step_params.1", "t in 1 - beta^t is one ahead"),
        (STEP, "t = 1; " + STEP, "step_params.2", "t in 1 - beta^t stays 1"),
        ("(1 - beta2**t)", "(1 - beta1**t)", "step_params.1", "v is corrected by 1 - beta1^t"),
        ("mi *= beta1", "mi *= 0", "step_m.2", "m is not kept from update to update"),
        ("vi *= beta2", "vi *= 0", "step_v.2", "v is not kept from update to update"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_formula_is_named(
    right_text, wrong_text, first, words, expected, tmp_path
):
    report = report_on(expected, planted(right_text, wrong_text), tmp_path)
    wrong = report.wrong[0]
    assert (wrong.name, wrong.cause) == (first, "AdamW"), wrong
    assert words in wrong.sentence


class Matrices(AdamW):
    def decays(self, name):
        return name in ("wte", "wpe", "qkvw", "attprojw", "fcw", "fcprojw")


class Blocks(AdamW):
    def decays(self, name):
        return name in ("qkvw", "attprojw", "fcw", "fcprojw")


class NotEmbeddings(AdamW):
    def decays(self, name):
        return name not in ("wte", "wpe")


class Summing(AdamW):
    def update(self, params, grads, lr):
        self.sum = getattr(self, "sum", 0) + grads.flat
        grads.flat[:] = self.sum
        super().update(params, grads, lr)


class First(AdamW):
    def update(self, params, grads, lr):
        self.first = getattr(self, "first", grads.flat.copy())
        grads.flat[:] = self.first
        super().update(params, grads, lr)


class Skipping(AdamW):
    def update(self, params, grads, lr):
        before = params.wte.copy()
        super().update(params, grads, lr)
        if self.updates == 2:
            params.wte[:] = before


@pytest.mark.parametrize(
    ("optimizer", "first", "words"),
    [
        (Matrices, "step_params.1", "only matrices decay"),
        (Blocks, "step_params.1", "only the matrices of the blocks decay"),
        (NotEmbeddings, "step_params.1", "wte and wpe do not decay"),
        (Summing, "step_m.2", "the gradients are not set to 0 before each backward pass"),
        (First, "step_m.2", "the gradients are those of the first update"),
        (Skipping, "step_params.2", "not updated: wte"),
    ],
)
def test_a_mistake_around_it_is_named(optimizer, first, words, expected, monkeypatch, tmp_path):
    monkeypatch.setattr(record, "AdamW", optimizer)
    mine = traced(Recorder(*PAIR, backend="numpy", updates=UPDATES))
    wrong = report_on(expected, mine, tmp_path).wrong[0]
    assert (wrong.name, wrong.cause) == (first, "AdamW"), wrong
    assert words in wrong.sentence


def test_the_first_update_is_judged_by_the_gradients_of_mine(expected, tmp_path):
    """Behind a wrong gradient, a mistake of AdamW is seen, and no more than it."""
    bug = Bug("", "matmul", "dout.sum(0)  # (OC,)", "dout[-x.shape[1] :].sum(0)", "", None)
    mine = traced(Buggy(bug, *PAIR, backend="numpy", updates=UPDATES))
    report = report_on(expected, mine, tmp_path)
    found = {finding.name: finding.status for finding in report.findings}
    assert [found[f"step_{each}.1"] for each in ("m", "v", "params")] == ["right"] * 3
    assert found["step_m.2"] == found["step_loss.1"] == "follows"
    mine["step_v.1"] = mine["step_v.1"] * np.float32(50)  # as by beta2 0.95
    wrong = report_on(expected, mine, tmp_path).wrong
    assert wrong[-1].name == "step_v.1" and wrong[-1].mine == mine["step_v.1"][wrong[-1].index]
    del mine["dfcb.0"]
    report = report_on(expected, mine, tmp_path)
    assert "step_v.1" in [finding.name for finding in report.of("follows")]
