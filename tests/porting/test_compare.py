"""Judging tensors one by one: what rounding can make passes, anything more does not."""

import numpy as np
import pytest
from porting.traces import traced, write_trace

from npgpt import FileError, GPT2Config
from npgpt.porting.causes import find_cause
from npgpt.porting.compare import ROUNDOFFS, Judge, compare, region
from npgpt.porting.report import make_report
from npgpt.porting.sources import Expected, Mine, read_map
from npgpt.tracing.record import Recorder, Updates
from npgpt.tracing.seeded import random_batch, random_parameters

CONFIG = GPT2Config(block_size=10, vocab_size=29, n_layer=2, n_head=2, n_embd=8)
MODEL = (random_parameters(CONFIG, 9), *random_batch(9, 2, 7, 29))
UPDATES = Updates(2, 1e-3, 0.1)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    path = tmp_path_factory.mktemp("oracle") / "oracle.safetensors"
    return Expected(write_trace(Recorder(*MODEL, updates=UPDATES), path))


@pytest.fixture(scope="module")
def right():
    return traced(Recorder(*MODEL, backend="numpy", updates=UPDATES))


def judged(expected, arrays, folder, names=None, dtype=None):
    np.savez(folder / "mine.npz", **arrays)
    return compare(expected, Mine(folder / "mine.npz", expected, names), dtype)[0]


def statuses(findings):
    return {finding.name: finding.status for finding in findings}


class Changed(Mine):
    """MINE with another array in the place of one."""

    def change(self, name, array):
        self.name, self.array = name, array

    def read(self, name):
        return self.array if name == self.name else super().read(name)


@pytest.mark.slow
def test_every_tensor_that_is_off_by_more_than_rounding_is_named(expected, right, tmp_path):
    """Each by itself, by a thousandth at one place; and nothing before it. Block 1 is enough."""
    np.savez(tmp_path / "mine.npz", **right)
    for name in expected.names:
        if name in ("config", "step_settings") or name.endswith(".0"):
            continue
        array = right[name].astype(np.float64)
        flat = array.reshape(-1)
        at = int(abs(flat).argmax())
        flat[at] += 1 if name in ("tokens", "targets") else max(1e-3 * abs(flat[at]), 1e-6)
        mine = Changed(tmp_path / "mine.npz", expected)
        mine.change(name, array.astype(int) if right[name].dtype.kind == "i" else array)
        judge = Judge(expected, mine)
        judged = (judge.judge(each) for each in expected.names)
        wrong = next(finding for finding in judged if finding.status == "wrong")
        assert wrong.name == name
        assert wrong.index == tuple(map(int, np.unravel_index(at, array.shape)))
        assert wrong.excess > 1 and wrong.n_wrong >= 1
        assert wrong.mine == pytest.approx(float(flat[at]))


def test_a_few_units_in_the_last_place_are_rounding(expected, right, tmp_path, rng):
    noisy = {
        name: array if array.dtype.kind == "i"
        else np.float32(array * (1 + rng.uniform(-3, 3, array.shape) * 2.0**-24))
        for name, array in right.items()
    }  # fmt: skip
    findings = judged(expected, noisy, tmp_path)
    assert {finding.status for finding in findings} == {"right"}
    assert max(finding.excess for finding in findings) > 0.2
    findings = judged(expected, noisy, tmp_path, dtype="float64")
    assert any(finding.status == "wrong" for finding in findings)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_coarser_dtype_has_wider_limits(dtype, expected, right, tmp_path, rng):
    u = ROUNDOFFS[dtype]
    coarse = {
        name: array if array.dtype.kind == "i" or name.startswith("step_")
        else array * (1 + rng.uniform(-1, 1, array.shape) * u)
        for name, array in right.items()
    }  # fmt: skip
    findings = judged(expected, coarse, tmp_path, dtype=dtype)
    assert {f.status for f in findings if not f.name.startswith("step_")} == {"right"}
    findings = judged(expected, coarse, tmp_path, dtype="float32")
    wrong = [finding for finding in findings if finding.status == "wrong"]
    assert wrong[0].name == "wte" and len(wrong) > 50
    name, sentence = find_cause(next(f for f in wrong if f.name == "qkv.0").case)
    assert name == "coarse precision" and "float16" in sentence


def test_what_is_missing_is_computed_on_the_way(expected, right, tmp_path):
    """The logits, the loss and the gradients alone, as a debug state has them."""
    few = {
        name: array for name, array in right.items()
        if name in ("logits", "loss") or name.startswith("d") and name[-1] in "wbe"
        or name.startswith("d") and name.split(".")[0][-1] in "wb"
    }  # fmt: skip
    assert 20 < len(few) < 40
    findings = judged(expected, few, tmp_path)
    assert {*statuses(findings).values()} == {"right", "absent"}
    assert max(finding.excess for finding in findings) < 0.8
    for name in ("logits", "dqkvw.0", "dwte"):
        wrong = {**few, name: few[name] * np.float32(1 + 2e-3)}
        assert statuses(judged(expected, wrong, tmp_path))[name] == "wrong"


def test_what_may_be_anything_is_not_compared(expected, right, tmp_path):
    other = {name: array.copy() for name, array in right.items()}
    future = np.triu(np.ones((7, 7), bool), 1)
    for name, fill in (("preatt.0", -np.inf), ("datt.1", np.nan), ("dpreatt.0", 3.0)):
        other[name][..., future] = fill
    assert {*statuses(judged(expected, other, tmp_path)).values()} == {"right"}
    other["att.0"][..., future] = 0.1
    assert statuses(judged(expected, other, tmp_path))["att.0"] == "wrong"


def test_names_shapes_and_padding_of_others(expected, right, tmp_path):
    C, V = CONFIG.n_embd, CONFIG.vocab_size
    stacked = {
        "qkv": np.stack([right["qkv.0"], right["qkv.1"]]),  # (L, B, T, 3C), as in llm.c
        "ln1": np.stack([right["ln1.0"], right["ln1.1"]]).reshape(-1),  # and without a shape
        "encoded": right["encoded"].reshape(-1),
        "logits": np.pad(right["logits"], ((0, 0), (0, 0), (0, 128 - V))),
        "dwte": np.pad(right["dwte"], ((0, 128 - V), (0, 0))),
        "h0.attn": right["atty.0"], "h1.attn": right["atty.1"],
        "MLP": np.stack([right["fch.0"], right["fch.1"]]),
        "loss": right["loss"].reshape(1),
    }  # fmt: skip
    names = {"atty": "h{block}.attn", "fch": "MLP"}
    findings = judged(expected, stacked, tmp_path, names)
    compared = {name for name, status in statuses(findings).items() if status == "right"}
    assert compared == {
        "qkv.0", "qkv.1", "ln1.0", "ln1.1", "encoded", "logits", "dwte", "atty.0", "atty.1",
        "fch.0", "fch.1", "loss",
    }  # fmt: skip
    assert {finding.own_name for finding in findings if finding.name == "atty.1"} == {"h1.attn"}
    stacked["dwte"] = stacked["dwte"][:, : C - 1]
    finding = next(f for f in judged(expected, stacked, tmp_path, names) if f.name == "dwte")
    assert finding.status == "shape"
    assert finding.sentence == "its shape is (128, 7), and must be (29, 8)"


def test_several_bugs_are_found_at_once_and_what_follows_is_none(expected, right, tmp_path):
    arrays = {**right, "ln2.0": right["ln2.0"] * 2, "dfcb.1": right["dfcb.1"] * 0}
    arrays["step_loss.2"] = right["step_loss.2"] * 2
    found = statuses(judged(expected, arrays, tmp_path))
    assert [name for name, status in found.items() if status == "wrong"] == [
        "ln2.0", "fch.0", "dfcb.1", "dfcw.0",
    ]  # fmt: skip
    assert found["step_loss.2"] == "follows"


def test_numbers_that_are_none(expected, right, tmp_path):
    broken = right["fch.1"].copy()
    broken[1, 2, 3] = np.nan
    finding = next(
        f for f in judged(expected, {**right, "fch.1": broken}, tmp_path) if f.status == "wrong"
    )
    assert finding.name == "fch.1" and finding.index == (1, 2, 3)
    assert find_cause(finding.case)[0] == "not finite"


def test_a_part_of_the_oracles_trace_is_compared_as_it_is(right, tmp_path):
    parts = {"config", "tokens", "targets", "logits", "dwte"}
    whole = traced(Recorder(*MODEL))
    np.savez(tmp_path / "part.npz", **{name: whole[name] for name in parts})
    part = Expected(tmp_path / "part.npz")
    few = {name: right[name] for name in ("logits", "dwte", "wte")}
    found = statuses(judged(part, few, tmp_path))
    assert (found["logits"], found["dwte"], found["wte"]) == ("right", "right", "absent")
    few["logits"] = few["logits"] * np.float32(1.001)
    assert statuses(judged(part, few, tmp_path))["logits"] == "wrong"


def test_regions_in_words():
    wrong = np.zeros((3, 5, 4), bool)
    wrong[1, 2:4] = True
    assert region(wrong, ("b", "t", "channel")) == "b = 1, t = 2 to 3"
    wrong[0, 0, 0] = True
    assert region(wrong, ("b", "t", "channel")) == "b = 0 to 1, 3 of 5 along t"
    assert region(np.ones((2, 2), bool), ("row", "column")) == ""


def test_files_that_cannot_be_compared(expected, right, tmp_path):
    np.savez(tmp_path / "no.npz", x=np.zeros(3))
    with pytest.raises(FileError, match="no tensor has a name of a trace: it holds x"):
        Mine(tmp_path / "no.npz", expected)
    with pytest.raises(FileError, match="not a trace by npgpt trace: it has no tensor config"):
        Expected(tmp_path / "no.npz")
    np.savez(tmp_path / "few.npz", tokens=right["tokens"])
    with pytest.raises(FileError, match="no tensor that can be compared"):
        make_report(expected, Mine(tmp_path / "few.npz", expected))
    for config in ([0, 1, 1, 1, 1], [1, 1], [1, 1, 1 << 30, 1, 1]):
        np.savez(tmp_path / "bad.npz", **{**right, "config": np.array(config, "<i4")})
        with pytest.raises(FileError, match="config|n_layer"):
            Expected(tmp_path / "bad.npz")
    np.savez(tmp_path / "bad.npz", **{**right, "lnf": right["lnf"][:1]})
    with pytest.raises(FileError, match=r"lnf must be \(2, 7, 8\), not \(1, 7, 8\)"):
        Expected(tmp_path / "bad.npz")
    other = np.array([10, 30, 2, 2, 8], "<i4")
    np.savez(tmp_path / "other.npz", **{**right, "config": other})
    with pytest.raises(FileError, match=r"is of another model than .*: .* \[10, 30, 2, 2, 8\]"):
        make_report(expected, Mine(tmp_path / "other.npz", expected))
    np.savez(tmp_path / "own.npz", **right)
    with pytest.raises(FileError, match="no tensor h.0, which the map has for qkv"):
        Mine(tmp_path / "own.npz", expected, {"qkv": "h.0"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("qkv = 3", "qkv must be a name in quotes, not 3"),
        ('querys = "q"', "querys is no name of a trace"),
        ('qkv = "h.{layer}"', "only {block} may be in braces"),
        ('qkv = "h.{block"', "only {block} may be in braces"),
        ("qkv", "not TOML"),
    ],
)
def test_a_map_that_is_none(text, words, tmp_path):
    path = tmp_path / "names.toml"
    path.write_text('qkv = "h.{block}.c_attn"\nwte = "embed"\n')
    assert read_map(path) == {"qkv": "h.{block}.c_attn", "wte": "embed"}
    path.write_text(text)
    with pytest.raises(FileError, match=words):
        read_map(path)


@pytest.mark.parametrize("name", ["tokens", "targets"])
def test_wrong_inputs_are_named_and_computed_with_nowhere(name, expected, right, tmp_path):
    findings = judged(expected, {**right, name: right[name] + 1000.0}, tmp_path)
    assert [finding.name for finding in findings if finding.status == "wrong"] == [name]


def test_all_steps_in_one_array_are_not_taken_for_blocks(expected, right, tmp_path):
    findings = judged(expected, {**right, "step_loss": np.ones(2, np.float32)}, tmp_path)
    assert not [finding for finding in findings if finding.status == "wrong"]
