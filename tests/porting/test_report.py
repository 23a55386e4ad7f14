"""What a report says: which tensor, which number, why, and what it could not compare."""

import gc
import warnings
from dataclasses import fields

import numpy as np
import pytest
from porting.planted import CATALOGUE, Bug, Buggy
from porting.traces import CONFIG, MODEL, UPDATES, traced, write_trace

from npgpt import FileError, GPT2Config
from npgpt.porting.findings import Case
from npgpt.porting.page import page
from npgpt.porting.pictures import DOTS, LARGEST
from npgpt.porting.reference import make_pair
from npgpt.porting.report import make_report
from npgpt.porting.sources import Expected, Mine
from npgpt.tracing.names import parameter_names
from npgpt.tracing.record import Recorder
from npgpt.tracing.seeded import random_batch, random_parameters

SCORES = ("preatt", "att", "datt", "dpreatt")  # what a fused attention has no arrays of


def report_on(expected, arrays, folder):
    np.savez(folder / "mine.npz", **arrays)
    return make_report(expected, Mine(folder / "mine.npz", expected))


def planted(name):
    (bug,) = (bug for bug in CATALOGUE if bug.name == name)
    return traced(Buggy(bug, *MODEL, backend="numpy", updates=UPDATES))


def without(arrays, *bases):
    return {name: a for name, a in arrays.items() if name.split(".")[0] not in bases}


def test_a_mistake_in_what_mine_lacks_is_one_mistake(expected, tmp_path):
    """Of a forward mistake in scores that are not there, the gradients are wrong as well."""
    report = report_on(expected, without(planted("no mask"), *SCORES), tmp_path)
    found = {finding.name: finding for finding in report.wrong}
    assert [*found] == ["atty.0", "atty.1", "dqkv.1", "dqkv.0"]
    assert found["atty.0"].suspects == ("preatt.0", "att.0") and not found["atty.1"].shared
    assert found["dqkv.1"].shared == ("preatt.1", "att.1")
    text = str(report)
    assert (
        "  no cause was recognised\n  or the mistake is in preatt.0, att.0, which MINE does not"
        " have: write them, too, to see where it is\n" in text
    )
    assert "\nwrong, perhaps by the same mistake, in preatt, att: dqkv\n" in text
    assert "  dqkv.1 (" not in text  # not by itself


def test_what_has_led_to_right_tensors_is_no_suspect(expected, tmp_path):
    """Where atty is right, so are the scores that it is made of."""
    report = report_on(expected, without(planted("softmax's sum missing"), *SCORES), tmp_path)
    assert report.wrong[0].name == "dqkv.1" and report.wrong[0].suspects == ("datt.1", "dpreatt.1")
    assert "or it is in datt.0, dpreatt.0, which MINE does not have" in str(report)


def test_the_same_tensors_say_the_cause_where_mine_has_them(expected, tmp_path):
    report = report_on(expected, planted("no mask"), tmp_path)
    assert (report.wrong[0].name, report.wrong[0].cause) == ("att.0", "mask")
    assert "which MINE does not have" not in str(report)


@pytest.mark.parametrize(
    ("right_text", "wrong_text", "first", "words"),
    [
        ("(np.sqrt(vi / (1 - beta2**t)) + eps)", "(np.sqrt(vi / (1 - 0.9 * beta2**t)) + eps)"
         " if t > 1 else lr / (1 - beta1) * mi / (np.sqrt(vi / (1 - beta2)) + eps)",
         "step_params.2", "does t in 1 - beta^t count the updates"),
        ("mi *= beta1", "mi *= 0.5", "step_m.2", "is m kept from update to update"),
        ("vi *= beta2", "vi *= 0.5", "step_v.2", "is v kept from update to update"),
    ],
)  # fmt: skip
def test_a_mistake_that_the_second_update_shows_has_a_hint(
    right_text, wrong_text, first, words, expected, tmp_path
):
    bug = Bug("", "adamw", right_text, wrong_text, first, None)
    report = report_on(
        expected, traced(Buggy(bug, *MODEL, backend="numpy", updates=UPDATES)), tmp_path
    )
    assert report.wrong[0].name == first and words in str(report)


def test_a_loss_of_before_the_update_is_recognised(expected, right, tmp_path):
    for step, loss in ((1, right["loss"]), (2, right["step_loss.1"])):
        (wrong,) = report_on(expected, {**right, f"step_loss.{step}": loss}, tmp_path).wrong
        assert (wrong.name, wrong.cause) == (f"step_loss.{step}", "loss before")


def test_norms_after_updates_are_named_by_their_tensors(expected, right, tmp_path):
    norms = right["step_params.1"].copy()
    norms[4] *= 1.01
    report = report_on(expected, {**right, "step_params.1": norms}, tmp_path)
    assert "  at [4] (qkvw): " in str(report)
    assert "  1 of 16 numbers is wrong, only at qkvw\n" in str(report)


def test_right_numbers_in_another_shape_are_recognised(expected, right, tmp_path):
    heads = right["atty.1"].reshape(2, 7, 2, 4)
    for name, array, words in (
        ("dqkvw.1", right["dqkvw.1"].T, "(8, 24), and must be (24, 8); its numbers are right, but"
         " transposed"),
        ("wte", right["wte"].T, "its numbers are right, but transposed"),
        ("atty.1", heads, "and in the right order: it is only to be reshaped"),
        ("atty.1", heads.swapaxes(1, 2), "with the axes in the order [0, 2, 1, 3]"),
        ("preatt.0", right["preatt.0"][0], "(2, 7, 7), and must be (2, 2, 7, 7)"),
    ):  # fmt: skip
        (wrong,) = report_on(expected, {**right, name: array}, tmp_path).wrong
        assert (wrong.name, wrong.status) == (name, "shape")
        assert wrong.sentence.endswith(words), wrong.sentence
    other = 1.01 * right["dqkvw.1"].T
    (wrong,) = report_on(expected, {**right, "dqkvw.1": other}, tmp_path).wrong
    assert "right" not in wrong.sentence


def test_a_padded_vocabulary_without_a_shape(expected, right, tmp_path):
    C, V = CONFIG.n_embd, CONFIG.vocab_size
    for rows in (64, 128):
        columns = ((0, 0), (0, 0), (0, rows - V))
        padded = {
            "logits": np.pad(right["logits"], columns, constant_values=9).reshape(-1),
            "dlogits": np.pad(right["dlogits"], columns).reshape(-1),
            "dwte": np.pad(right["dwte"], ((0, rows - V), (0, 0))).reshape(-1),
        }
        assert not report_on(expected, {**right, **padded}, tmp_path).wrong
    other = np.pad(right["dwte"], ((0, 3), (0, 0))).reshape(-1)
    (wrong,) = report_on(expected, {**right, "dwte": other}, tmp_path).wrong
    assert wrong.sentence == (
        f"it has {C * (V + 3)} numbers, and must have {C * V}, of ({V}, {C}); is it another pair's?"
    )
    longer = np.pad(right["losses"], ((0, 0), (0, 1)))  # which has no vocabulary
    (wrong,) = report_on(expected, {**right, "losses": longer}, tmp_path).wrong
    assert wrong.status == "shape"


def test_names_that_are_none_are_reported(expected, right, tmp_path):
    arrays = without(right, "attproj", "ln2", "qkv")
    arrays |= {"atproj.0": right["attproj.0"], "ln2.2": right["ln2.0"], "step_m.3": np.ones(16)}
    report = report_on(expected, arrays, tmp_path)
    assert (
        "not compared, under names that are none: atproj.0 (attproj.0?), ln2.2 (the last block is"
        " 1), step_m.3 (EXPECTED has 2 updates)" in str(report)
    )
    assert "not in MINE: qkv, attproj, ln2\n" in str(report)  # of no block
    arrays["qkv.1"] = right["qkv.1"]
    report = report_on(expected, arrays, tmp_path)
    assert "not in MINE: qkv.0, attproj, ln2\n" in str(report)
    assert report.as_json()["unknown"][0] == "atproj.0 (attproj.0?)"
    with pytest.raises(FileError, match=r"it holds qvk.0 \(qkv.0\?\), ..."):
        report_on(expected, {"qvk.0": right["qkv.0"]}, tmp_path)


def test_files_that_are_none_are_reported(expected, right, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    right["encoded"].tofile(raw / "encoded.f4")
    right["ln1.0"].tofile(raw / "ln1.0.bin")
    right["qkv.0"].tofile(raw / "qvk.0.f4")
    text = str(make_report(expected, Mine(raw, expected)))
    assert "names that are none: qvk.0 (qkv.0?), ln1.0.bin (ln1.0?)" in text
    (raw / "manifest.txt").write_text("encoded f4 encoded.f4 2 7 8\n")
    text = str(make_report(expected, Mine(raw, expected)))
    assert "names that are none: ln1.0.bin (ln1.0?), qvk.0.f4 (qkv.0?)" in text


def test_the_heads_are_not_taken_for_positions(expected, right, tmp_path):
    later = np.roll(right["ln1.0"], 1, 1)
    first = report_on(expected, {**right, "ln1.0": later}, tmp_path).wrong[0]
    assert (first.cause, first.sentence) == ("shifted", "position t has what belongs to t - 1")
    turned = {**right, "preatt.1": right["preatt.1"][:, ::-1]}
    first = report_on(expected, turned, tmp_path).wrong[0]
    assert first.name == "preatt.1" and first.cause != "shifted"


def test_a_bug_in_a_wide_layer_is_not_taken_for_coarse_numbers(tmp_path):
    config = GPT2Config(block_size=4, vocab_size=9, n_layer=1, n_head=2, n_embd=256)
    model = (random_parameters(config, 1), *random_batch(1, 2, 4, 9))
    wide = Expected(write_trace(Recorder(*model), tmp_path / "wide.safetensors"))
    mine = traced(Recorder(*model, backend="numpy"))
    off = mine["qkv.0"].copy()
    off[1, 2, 5] += 0.5
    shifted = mine["qkv.0"] + np.float32(0.05)
    noisy = mine["qkv.0"] * (1 + 0.05 * np.sin(np.arange(off.size)).reshape(off.shape))
    for array in (off, shifted, noisy.astype("<f4")):
        first = report_on(wide, {**mine, "qkv.0": array}, tmp_path).wrong[0]
        assert (first.name, first.cause) == ("qkv.0", ""), first
    half = mine["qkv.0"].astype("<f2").astype("<f4")
    first = report_on(wide, {**mine, "qkv.0": half}, tmp_path).wrong[0]
    assert first.cause == "coarse precision"
    assert first.sentence.startswith("it may have been computed in float16, ")


def test_a_report_keeps_no_whole_arrays(expected, right, tmp_path):
    arrays = {name: a if a.dtype.kind == "i" else 2 * a for name, a in right.items()}
    report = report_on(expected, arrays, tmp_path)
    assert len(report.wrong) > 50
    gc.collect()
    assert not any(type(each) is Case for each in gc.get_objects())
    drawn = [finding.picture for finding in report.findings if finding.picture]
    assert 0 < len(drawn) <= 8
    for picture in drawn:
        assert max(picture.value.size, picture.mine.size) <= LARGEST**2
        assert picture.points.size <= 2 * DOTS
        arrays = [getattr(picture, field.name) for field in fields(picture)]
        assert all(a.base is None or a.base.size <= a.size for a in arrays if hasattr(a, "base"))
    assert page(report).count("<img") == 3 * len(drawn)


def test_the_padding_of_a_model_file_that_is_not_skipped_is_recognised(expected, right, tmp_path):
    c = CONFIG
    pad = np.zeros((128 - c.vocab_size) * c.n_embd, "<f4")
    names = list(parameter_names(c.n_layer))
    rest = [right[name].reshape(-1) for name in names[1:]]
    in_file = np.concatenate([right["wte"].reshape(-1), pad, *rest])
    read, at = {}, 0
    for name in names:
        size = right[name].size
        read[name] = in_file[at : at + size].reshape(right[name].shape)
        at += size
    first, *later = report_on(expected, {**right, **read}, tmp_path).wrong
    assert (first.name, first.cause) == ("wpe", "padding") and len(later) > 20
    forgotten = {**right, "wpe": np.zeros_like(right["wpe"])}
    assert report_on(expected, forgotten, tmp_path).wrong[0].cause == "not written"


def test_big_endian_numbers_are_recognised_and_nothing_else_is_said(expected, right, tmp_path):
    swapped = {name: a if a.dtype.kind == "i" else a.byteswap() for name, a in right.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = report_on(expected, swapped, tmp_path)
    assert (report.wrong[0].name, report.wrong[0].cause) == ("wte", "byte order")
    off = {**right, "qkv.0": (right["qkv.0"] * np.float32(1.01)).byteswap()}
    assert report_on(expected, off, tmp_path).wrong[0].cause != "byte order"


def test_a_nan_of_any_bits_gives_no_warning(expected, right, tmp_path):
    broken = right["ln1.0"].copy()
    broken.view("<u4")[0, 0, 0] = 0x7F800001  # which signals
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = report_on(expected, {**right, "ln1.0": broken}, tmp_path)
    assert [(f.name, f.cause) for f in report.wrong] == [("ln1.0", "not finite")]


def test_files_of_another_pair_are_asked_about(expected, right, tmp_path):
    short = {**right, "encoded": right["encoded"].reshape(-1)[:-8]}
    (wrong,) = report_on(expected, short, tmp_path).wrong
    assert wrong.sentence == (
        "it has 104 numbers, and must have 112, of (2, 7, 8); is it another pair's?"
    )


def test_targets_of_another_batch_are_recognised(tmp_path):
    """Of pairs whose models are the same, one of which lacks a third of the targets."""
    traces = {}
    for pair in ("plain", "ignored"):
        recorder = Recorder(*make_pair(pair))
        path = write_trace(recorder, tmp_path / f"{pair}.safetensors")
        traces[pair] = without(traced(recorder), "tokens", "targets", "config"), Expected(path)
    first = report_on(traces["plain"][1], traces["ignored"][0], tmp_path).wrong[0]
    assert (first.name, first.cause) == ("losses", "targets")
    assert first.sentence.endswith("as if their targets were -1: is it another pair's?")
    first = report_on(traces["ignored"][1], traces["plain"][0], tmp_path).wrong[0]
    assert (first.name, first.cause) == ("loss", "loss mean")
    assert first.sentence == "positions without a target, y = -1, have a loss and are counted"


def test_the_layernorm_gradient_of_another_input_is_recognised_in_every_block(
    expected, right, tmp_path
):
    for block, x in ((0, "encoded"), (1, "residual3.0")):
        mean, rstd = (right[f"ln1_{each}.{block}"][..., None] for each in ("mean", "rstd"))
        taken = (right[f"residual2.{block}"] - mean) * rstd
        wrong_sum = (right[f"dln1.{block}"] * taken).sum((0, 1))
        first = report_on(expected, {**right, f"dln1w.{block}": wrong_sum}, tmp_path).wrong[0]
        assert (first.name, first.cause) == (f"dln1w.{block}", "wrong input")
        assert first.sentence == f"it is made of residual2.{block} in the place of {x}"
