"""Every number that can be clicked follows from those that are shown; the code, and its check."""

import inspect

import numpy as np
import pytest

import npgpt
from npgpt import layers
from npgpt.core.parameters import TENSOR_NAMES
from npgpt.errors import ArgumentError
from npgpt.explore.code import BACKWARD_LINES, FORWARD_LINES, code_of
from npgpt.explore.explain import explain
from npgpt.explore.layer_check import check
from npgpt.tracing.names import BACKWARD_BLOCK, BACKWARD_HEAD, BLOCK_SHAPES, FORWARD_HEAD

TEXT = "she sells sea shells"
SCALARS = {"loss"}
ALL = {"encoded", "dencoded", "dwte", "dwpe", "dlnfw", "dlnfb", "dresidual3"}
ALL |= {*BLOCK_SHAPES, *FORWARD_HEAD, *BACKWARD_HEAD, *BACKWARD_BLOCK}


@pytest.fixture(scope="module")
def traced(session):
    tokens = session.encode(TEXT)
    return npgpt.trace(session.model, tokens[None], np.append(tokens[1:], -1)[None])


def full(base, block):
    in_block = base in BLOCK_SHAPES or base in BACKWARD_BLOCK or base == "dresidual3"
    return f"{base}.{block}" if in_block else base


@pytest.mark.parametrize("base", sorted(ALL - SCALARS))
def test_every_number_is_made_again_from_what_is_shown(session, traced, base, rng):
    parameters = {f"d{name}" for name in TENSOR_NAMES}
    for block in (0, 1):
        name = full(base, block)
        array = traced[name] if base in parameters else traced[name][0]
        for _ in range(4):
            index = [int(rng.integers(size)) for size in array.shape]
            if base == "dwte":
                index[0] = int(rng.choice(session.encode(TEXT)))  # both ways into it
            shown = session.explain(TEXT, name, index)
            stored = float(array[tuple(index)])
            assert shown["stored"] == pytest.approx(stored, rel=1e-5, abs=1e-7)
            error = 1e-3 * abs(stored) + 1e-5 * float(np.abs(array).max())
            assert abs(shown["value"] - stored) <= error, (name, index)
            assert not shown["edited"]
            assert shown["formula"]


def test_the_terms_are_the_largest_and_add_up(session, traced):
    shown = session.explain(TEXT, "qkv.1", [3, 5])
    x, w = traced.blocks[1].ln1[0, 3], session.model.params.qkvw[1, 5]
    products = (x.astype(float) * w)[np.argsort(-np.abs(x.astype(float) * w))]
    np.testing.assert_allclose([term[3] for term in shown["terms"]], products[:8], rtol=1e-6)
    assert shown["others"]["count"] == len(products) - 8
    total = sum(term[3] for term in shown["terms"]) + shown["others"]["sum"]
    ((name, bias),) = shown["inputs"]
    assert name == "qkvb[5]"
    assert total + bias == pytest.approx(shown["stored"], rel=1e-5)


def test_the_gradient_of_a_bias_is_a_sum_over_the_positions(session, traced):
    shown = session.explain(TEXT, "dfcb.1", [7])
    column = traced.blocks[1].dfch[0, :, 7]
    assert shown["stored"] == pytest.approx(float(traced.blocks[1].dfcb[7]), rel=1e-5)
    assert shown["terms"][0][3] == pytest.approx(float(column[np.abs(column).argmax()]))


def test_a_wrong_number_is_noticed(session):
    numbers = session._numbers(TEXT, "qkv.1", None, None, ())
    numbers.tensors = {**numbers.tensors, "qkv.1": numbers.tensors["qkv.1"] * 1.01}
    assert explain(numbers, "qkv.1", [3, 5])["edited"]


def test_an_edited_number_is_told(session):
    edits = [{"off": "head", "block": 0, "head": 0}]
    assert session.explain(TEXT, "atty.0", [3, 0], edits=edits)["edited"]
    assert not session.explain(TEXT, "attproj.0", [3, 0], edits=edits)["edited"]


@pytest.mark.parametrize(
    ("name", "index", "words"),
    [
        ("qkv.1", [3], "must be 2 integers"),
        ("qkv.1", [3, 144], r"must be below \[21, 144\]"),
        ("qkv.1", [3, -1], "must be below"),
        ("qkv.1", [3, True], "must be 2 integers"),
        ("qkv.1", 3, "must be a list"),
        ("qkv.2", [0, 0], "no tensor 'qkv.2'"),
        ("qkvw.2", [0, 0], "no tensor 'qkvw.2'"),
        ("nothing", [0], "no tensor 'nothing'"),
        (["qkv"], [0], "no tensor"),
        ("qkvw.1", [0, 0], "is a parameter"),
    ],
)
def test_what_is_no_number_is_told(session, name, index, words):
    with pytest.raises(ArgumentError, match=words):
        session.explain(TEXT, name, index)


def test_rows_of_numbers(session, traced):
    shown = session.numbers(TEXT, "ln2.1", [4])
    values = traced.blocks[1].ln2[0, 4]
    np.testing.assert_array_equal(shown["values"], values)
    assert shown["largest"][0] == np.abs(values).argmax()
    gradient = traced.blocks[0].dfcw
    shown = session.numbers(TEXT, "dfcw.0")
    row = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)[0]
    assert shown["row"] == [row]
    np.testing.assert_allclose(shown["values"], gradient[row], rtol=1e-4, atol=1e-7)
    for row in (3, [1, 2], ["a"]):
        with pytest.raises(ArgumentError):
            session.numbers(TEXT, "ln2.1", row)
    with pytest.raises(ArgumentError, match="no tensor 'loss'"):  # one number, without rows
        session.numbers(TEXT, "loss")


@pytest.mark.parametrize("base", sorted(ALL - SCALARS))
def test_the_marked_lines_are_in_the_file_and_make_it(base):
    name = full(base, 0)
    code = code_of(name)
    source = inspect.getsource(inspect.getmodule(layers_of(code["layer"]))).splitlines()
    marked = []
    for function in code["functions"]:
        for i, words in enumerate(function["lines"]):
            text = "".join(text for _, text in words)
            assert source[function["first"] - 1 + i] == text
            marked += [text.strip()] * (i in function["marked"])
    assert marked, name
    table = FORWARD_LINES[code["layer"]] | BACKWARD_LINES[code["layer"]]
    for beginning in table[base]:
        assert any(line.startswith(beginning) for line in marked), (name, beginning)


def layers_of(layer):
    return layers.residual_add if layer == "residual" else getattr(layers, f"{layer}_forward")


def test_words_of_the_code_have_kinds():
    (attend, *_) = code_of("att.0")["functions"]
    kinds = {kind for line in attend["lines"] for kind, _ in line}
    assert {"keyword", "comment", "string", "number", ""} <= kinds


@pytest.mark.parametrize("base", sorted(ALL - SCALARS))
def test_the_check_of_each_layer_is_ok(session, base):
    report = session.check(TEXT, full(base, 0))
    assert report["ok"], report
    assert report["rows"] and all(row["moved"] >= 8 for row in report["rows"])


def test_the_check_catches_a_wrong_backward_pass(session, rng):
    def wrong(dout, cache):
        dx, dw, db = layers.layernorm_backward(dout, cache)
        return dx * 1.001, dw, db

    x, w, b = rng.standard_normal((3, 8)), rng.standard_normal(8), rng.standard_normal(8)
    dout = rng.standard_normal((3, 8)) * 1e-6  # as small as gradients are
    right, _ = check(layers.layernorm_forward, layers.layernorm_backward, (x, w, b), dout)
    assert right
    report, moved = check(layers.layernorm_forward, wrong, (x, w, b), dout)
    assert [row.ok for row in report.rows] == [False, True, True]
    assert moved == [12, 8, 8]


def test_the_check_uses_this_very_layer(session, monkeypatch):
    right = layers.gelu_backward
    monkeypatch.setattr(layers, "gelu_backward", lambda dout, cache: right(dout, cache) * 1.01)
    assert not session.check(TEXT, "fch_gelu.0")["ok"]
    assert session.check(TEXT, "fch.0")["ok"]
