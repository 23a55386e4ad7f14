"""Judging tensors one by one: what rounding can make passes, anything more does not."""

import json

import numpy as np
import pytest
from porting.traces import CONFIG, MODEL, UPDATES, traced, write_trace

from npgpt import FileError, GPT2Config
from npgpt.porting.compare import Judge, compare
from npgpt.porting.places import index_in_words, region
from npgpt.porting.precision import ROUNDOFFS
from npgpt.porting.reference import make_pair
from npgpt.porting.report import make_report
from npgpt.porting.sources import Expected, Mine, read_map
from npgpt.tracing.names import select
from npgpt.tracing.record import Recorder
from npgpt.tracing.seeded import random_batch, random_parameters

UNUSED = slice(7, None)


def judged(expected, arrays, folder, names=None, dtype=None):
    np.savez(folder / "mine.npz", **arrays)
    return compare(expected, Mine(folder / "mine.npz", expected, names), dtype)[0]


def reported(expected, arrays, folder, **options):
    np.savez(folder / "mine.npz", **arrays)
    return make_report(expected, Mine(folder / "mine.npz", expected), **options)


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
    noisy = {name: array.astype(array.dtype.kind + "8") for name, array in noisy.items()}
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
    wrong = reported(expected, coarse, tmp_path, dtype="float32").wrong
    assert wrong[0].name == "wte" and len(wrong) > 50
    assert wrong[0].cause == "coarse precision"
    assert f"may have been computed in {dtype}" in wrong[0].sentence
    for step in ("step_m.1", "step_params.2"):  # norms say nothing of how they were computed
        off = {**right, step: right[step] * (1 + 2 * u)}
        first = reported(expected, off, tmp_path, dtype="float32").wrong[0]
        assert (first.name, first.cause) != (step, "coarse precision")


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
    np.savez(tmp_path / "mine.npz", **stacked)
    (finding,) = make_report(expected, Mine(tmp_path / "mine.npz", expected, names)).wrong
    assert finding.status == "shape"
    assert finding.sentence == "its shape is (128, 7), and must be (29, 8)"


def test_several_bugs_are_found_at_once_and_what_follows_is_none(expected, right, tmp_path):
    arrays = {**right, "ln2.0": right["ln2.0"] * 2, "dfcb.1": right["dfcb.1"] * 0}
    arrays["step_loss.2"] = right["step_loss.2"] * 2
    found = statuses(judged(expected, arrays, tmp_path))
    assert [name for name, status in found.items() if status == "wrong"] == [
        "ln2.0", "fch.0", "dfcb.1", "dfcw.0", "step_m.1", "step_v.1",
    ]  # fmt: skip  # the moments are not made of MINE's gradients
    assert found["step_loss.2"] == "follows"


def test_numbers_that_are_none(expected, right, tmp_path):
    broken = right["fch.1"].copy()
    broken[1, 2, 3] = np.nan
    (finding,) = reported(expected, {**right, "fch.1": broken}, tmp_path).wrong
    assert finding.name == "fch.1" and finding.index == (1, 2, 3)
    assert finding.cause == "not finite"
    text = str(reported(expected, {**right, "fch.1": broken}, tmp_path))
    assert f"at [1, 2, 3]: nan, expected {finding.expected:.9g}\n" in text
    assert "\nnot to be judged after what is wrong before: fch_gelu.1" in text


def part_of_the_trace(model, patterns, folder):
    """EXPECTED as npgpt trace --only writes it, in float64."""
    whole = traced(Recorder(*model, updates=UPDATES))
    names = select(whole, patterns)
    np.savez(folder / "part.npz", **{name: whole[name] for name in names})
    return Expected(folder / "part.npz")


def test_a_part_of_the_oracles_trace_is_enough_if_the_parameters_are_in_it(right, tmp_path):
    part = part_of_the_trace(MODEL, ["logits", "dwte", "w?e", "[!d]*[wb]"], tmp_path)
    few = {name: right[name] for name in ("logits", "dwte", "wte", "ln1.1", "lnf_mean")}
    found = statuses(judged(part, few, tmp_path))
    assert {found[name] for name in few} == {"right"}
    few["ln1.1"] = few["ln1.1"] * np.float32(1.001)  # which is not in EXPECTED
    found = statuses(judged(part, few, tmp_path))
    wrong = [name for name, status in found.items() if status == "wrong"]
    assert wrong[0] == "ln1.1" and found["wte"] == "right"


def test_a_part_without_what_the_limits_come_from_is_refused(right, tmp_path):
    few = {"logits": right["logits"], "lnf": right["lnf"]}
    part = part_of_the_trace(MODEL, ["lnf", "logits"], tmp_path)
    with pytest.raises(
        FileError, match=r"part.npz: a part of a trace, without wte, .* so that lnf"
    ):
        judged(part, few, tmp_path)
    few["wte"] = right["wte"]
    few["residual3.1"] = right["residual3.1"]
    with pytest.raises(FileError, match=r"wpe, .* so that residual3.1 cannot be judged"):
        judged(part, few, tmp_path)
    part = part_of_the_trace(MODEL, ["lnf", "logits", "wte"], tmp_path)
    with pytest.raises(FileError, match=r"without wpe, .* so that logits cannot be judged"):
        judged(
            part, {"logits": right["logits"]}, tmp_path
        )  # of EXPECTED's lnf, which is not MINE's
    part = part_of_the_trace(MODEL, ["w?e", "lnf?", "step_*"], tmp_path)
    few = {"wte": right["wte"], "encoded": right["encoded"]}
    assert {"right", "absent"} == {*statuses(judged(part, few, tmp_path)).values()}
    few["step_m.1"] = right["step_m.1"]
    with pytest.raises(FileError, match="without ln1w.0, .* so that dlnfw cannot be judged"):
        judged(part, few, tmp_path)
    part = part_of_the_trace(MODEL, ["w?e", "[!d]*[wb]", "step_*"], tmp_path)
    with pytest.raises(FileError, match="dlnfw is missing: the limits of the updates cannot be"):
        judged(part, few, tmp_path)


def test_what_mine_lacks_is_never_taken_from_expected_as_if_it_were_mine(tmp_path):
    """In loud, MINE's own numbers are far from EXPECTED's by rounding alone."""
    model = make_pair("loud")
    mine = traced(Recorder(*model, backend="numpy"))
    part = part_of_the_trace(model, ["lnf", "dlogits", "dwte", "w?e", "[!d]*[wb]"], tmp_path)
    few = {name: mine[name] for name in ("dlogits", "dwte")}
    assert {"right", "absent"} == {*statuses(judged(part, few, tmp_path)).values()}


def test_regions_in_words():
    wrong = np.zeros((3, 5, 4), bool)
    wrong[1, 2:4] = True
    assert region("qkv.0", wrong) == "b = 1, t = 2 to 3"
    wrong[0, 0, 0] = True
    assert region("dln1.0", wrong) == "b = 0 to 1, 3 of 5 along t"
    assert region("wte", np.ones((2, 2), bool)) == ""
    assert region("dwpe", wrong[1]) == "t = 2 to 3"
    norms = np.zeros(16, bool)
    norms[[4, 15]] = True
    assert region("step_m.1", norms) == "qkvw, lnfb"
    assert index_in_words("step_m.1", (4,)) == "[4] (qkvw)"
    assert index_in_words("ln1_mean.0", (4, 2)) == "[4, 2]"


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


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_one_coarse_tensor_does_not_loosen_the_limits_of_others(
    dtype, expected, right, tmp_path, rng
):
    """Others are judged as float32; what is made of it may have been made before it was rounded."""
    before = {finding.name: finding for finding in judged(expected, right, tmp_path)}
    kind = {"float16": "<f2", "bfloat16": "bf16"}[dtype]
    path = write_coarse(tmp_path / "mine.safetensors", right, "qkv.0", kind)
    findings, judge = compare(expected, Mine(path, expected))
    assert {finding.status for finding in findings} == {"right"} and judge.dtype == "float32"
    now = {finding.name: finding for finding in findings}
    for name in ("ln1.0", "attproj.0", "qkv.1", "dqkvw.1", "dlnf"):  # not made of it
        assert now[name].tolerance == pytest.approx(before[name].tolerance, rel=1e-6)
    assert now["preatt.0"].tolerance > 100 * before["preatt.0"].tolerance
    assert str(make_report(expected, Mine(path, expected))).count(f"(float32 and {dtype})") == 1
    wrong = {**right, "attproj.0": right["attproj.0"] * np.float32(1 + 1e-4)}
    path = write_coarse(tmp_path / "mine.safetensors", wrong, "qkv.0", kind)
    found = statuses(compare(expected, Mine(path, expected))[0])
    assert [name for name, status in found.items() if status == "wrong"] == [
        "attproj.0", "residual2.0",
    ]  # fmt: skip


def write_coarse(path, arrays, coarse, kind):
    """A safetensors file in which one tensor is float16 or bfloat16 -> the path."""
    header, parts, end = {}, [], 0
    for name, array in arrays.items():
        dtype = "I32" if array.dtype.kind == "i" else "F32"
        data = array.astype({"I32": "<i4", "F32": "<f4"}[dtype])
        if name == coarse and kind == "<f2":
            dtype, data = "F16", data.astype("<f2")
        elif name == coarse:
            dtype, data = "BF16", ((data.view("<u4") + 0x8000) >> 16).astype("<u2")
        start, end = end, end + data.nbytes
        header[name] = {"dtype": dtype, "shape": [*array.shape], "data_offsets": [start, end]}
        parts.append(data.tobytes())
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
    return path


def test_a_loss_in_float64_is_judged_as_what_it_was_computed_in(expected, right, tmp_path):
    wide = {"loss", "step_loss.1", "step_params.1", "step_m.1", "step_v.1"}
    arrays = {name: right[name].astype("<f8") if name in wide else right[name] for name in right}
    findings, judge = compare_arrays(expected, arrays, tmp_path)
    assert judge.dtype == "float32" and {f.status for f in findings} == {"right"}
    few = {name: arrays[name] for name in (*wide, "logits")}
    findings, judge = compare_arrays(expected, few, tmp_path)
    assert judge.dtype == "float32"
    assert {f.status for f in findings if f.name in few} == {"right"}
    _, judge = compare_arrays(expected, {"loss": np.float64(3)}, tmp_path)
    assert judge.dtype == "float64"


def compare_arrays(expected, arrays, folder):
    np.savez(folder / "mine.npz", **arrays)
    return compare(expected, Mine(folder / "mine.npz", expected))


def test_what_is_made_of_no_number_follows(expected, right, tmp_path):
    """As in a real run: from the first NaN on, all that it reaches is NaN."""
    broken = traced(Recorder(*MODEL, backend="numpy", updates=UPDATES))
    first = list(broken).index("fch.1")
    for name in list(broken)[first:]:
        broken[name] = np.full_like(broken[name], np.nan)
    for backward in ("dlosses", "step_settings"):  # made of no activation
        broken[backward] = right[backward]
    broken["dwpe"][UNUSED] = 0  # positions of which there are none
    found = statuses(judged(expected, broken, tmp_path))
    assert [name for name, status in found.items() if status == "wrong"] == ["fch.1"]
    assert found["fcproj.1"] == found["loss"] == found["dwte"] == found["step_m.1"] == "follows"
    broken["dlosses"] = right["dlosses"] * 2
    found = statuses(judged(expected, broken, tmp_path))
    assert [name for name, status in found.items() if status == "wrong"] == ["fch.1", "dlosses"]


def test_numbers_that_are_not_made_of_a_nan_are_judged(expected, right, tmp_path):
    """A key of head 0 that is NaN reaches the scores for it, and no others."""
    broken, scores = right["qkv.1"].copy(), right["preatt.1"].copy()
    broken[0, 0, CONFIG.n_embd] = np.nan
    scores[0, 0, :, 0] = np.nan
    found = statuses(judged(expected, {**right, "qkv.1": broken, "preatt.1": scores}, tmp_path))
    assert (found["qkv.1"], found["preatt.1"]) == ("wrong", "follows")
    scores[0, 1, 5, 0] += 0.1
    found = judged(expected, {**right, "qkv.1": broken, "preatt.1": scores}, tmp_path)
    (finding,) = (each for each in found if each.name == "preatt.1")
    assert (finding.status, finding.index, finding.n_wrong) == ("wrong", (0, 1, 5, 0), 1)


def test_a_deep_model_of_which_mine_has_the_end_alone(tmp_path):
    config = GPT2Config(block_size=2, vocab_size=3, n_layer=200, n_head=1, n_embd=1)
    model = (random_parameters(config, 1), *random_batch(1, 1, 2, 3))
    deep = Expected(write_trace(Recorder(*model), tmp_path / "deep.safetensors"))
    few = {"loss": np.float32(deep.read("loss")), "dwpe": deep.read("dwpe").astype("<f4")}
    assert {"right", "absent"} == {*statuses(judged(deep, few, tmp_path)).values()}
