"""What the page shows, against npgpt.trace, npgpt.inside and the model itself."""

import json

import numpy as np
import pytest

import npgpt
from npgpt.core.parameters import TENSOR_NAMES
from npgpt.data.tokenizer import CharsTokenizer
from npgpt.errors import ArgumentError
from npgpt.explore import passes
from npgpt.explore.session import MOST_TOKENS, PROMPT, Session
from npgpt.explore.tasks import Characters, Source
from npgpt.explore.views import patterns
from npgpt.explore.wire import to_json, unpacked
from npgpt.inside import head, logit_lens, look, replace, scale
from npgpt.kernels import matmul_forward

TEXT = "she sells sea shells"


@pytest.fixture(scope="module")
def batch(session):
    tokens = session.encode(TEXT)
    return tokens[None], np.append(tokens[1:], -1)[None]


@pytest.fixture(scope="module")
def traced(session, batch):
    return npgpt.trace(session.model, *batch)


def test_the_products_of_a_large_model_are_the_kernels(session, monkeypatch):
    small = session.picture(TEXT), session.backward(TEXT)
    called = []

    def counted(*arguments):
        called.append(arguments)
        return matmul_forward(*arguments)

    monkeypatch.setattr(passes, "LARGE", 0)
    monkeypatch.setattr(passes.kernels, "matmul_forward", counted)
    large = Session.named("tiny")
    for before, now in zip(small, (large.picture(TEXT), large.backward(TEXT)), strict=True):
        for name, value in before.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_allclose(now[name], value, rtol=1e-4, atol=1e-5)
    assert len(called) == (2 * 4 + 1) + 2 * 4  # 4 a block, and in the forward pass the logits


def test_the_picture_is_the_traces(session, batch, traced):
    shown = session.picture(TEXT)
    np.testing.assert_array_equal(shown["att"], [block.att[0] for block in traced.blocks])
    np.testing.assert_allclose(shown["norms"], look(session.model, batch[0]).norms[:, 0], rtol=1e-6)
    for name, base in (("attention_norms", "attproj"), ("mlp_norms", "fcproj")):
        expected = [np.linalg.norm(getattr(b, base)[0], axis=-1) for b in traced.blocks]
        np.testing.assert_allclose(shown[name], expected, rtol=1e-6)
    np.testing.assert_allclose(shown["losses"], traced.losses[0], rtol=1e-5)
    assert shown["loss"] == pytest.approx(float(traced.loss), rel=1e-6)
    assert [token["label"] for token in shown["tokens"]][:5] == ["<eot>", "s", "h", "e", "␣"]


def test_every_logit_of_a_position_is_the_models(session, batch):
    for p in (0, 7):
        shown = session.position(TEXT, p)
        expected = session.model.forward(batch[0])[0, p]
        np.testing.assert_allclose(shown["logits"], expected, atol=1e-5)
        assert shown["top"][0]["id"] == expected.argmax()
        assert shown["token"]["id"] == expected.argmax()


def test_the_logit_lens_is_insides(session, batch):
    lens = logit_lens(session.model, look(session.model, batch[0]).residual)
    for p in (0, 7):
        shown = session.position(TEXT, p)["lens"]
        assert [place["top"][0]["id"] for place in shown] == list(lens.tokens[:, 0, p])
        probs = [place["top"][0]["prob"] for place in shown]
        np.testing.assert_allclose(probs, lens.probs[:, 0, p], rtol=1e-5)
    assert shown[-1]["rank"] == 1


@pytest.mark.parametrize("token", [None, 3, 200])
def test_what_the_parts_add_is_the_logit(session, token):
    shown = session.position(TEXT, 6, token)
    parts = shown["parts"]
    logit = shown["logits"][shown["token"]["id"]]
    assert parts["logit"] == pytest.approx(float(logit))
    assert sum(parts["by"].values()) == pytest.approx(float(logit), abs=1e-5)
    assert list(parts["by"]) == [
        "embedding", "attention 0", "mlp 0", "attention 1", "mlp 1", "bias",
    ]  # fmt: skip
    bias = session.model.params.attprojb
    for i in range(2):  # an attention is the sum of its heads and its bias
        rest = parts["by"][f"attention {i}"] - parts["heads"][i].sum()
        assert abs(rest) < 1e-5 if not bias.any() else rest != 0


def test_what_a_head_adds_is_what_is_missing_without_it(session):
    """Only the last block's: what an earlier one adds is read by later blocks, too."""
    before = session.position(TEXT, 6)
    off = [{"off": "head", "block": 1, "head": 2}]
    tensors = session.forward(session.encode(TEXT), ())
    edited = session.forward(session.encode(TEXT), off)
    difference = tensors["attproj.1"][6] - edited["attproj.1"][6]
    params = session.model.params
    direction = params.lnfw * params.wte[before["token"]["id"]]
    direction = (direction - direction.mean()) * tensors["lnf_rstd"][6]
    assert before["parts"]["heads"][1][2] == pytest.approx(float(difference @ direction), abs=1e-5)


def test_what_a_block_adds(session, traced):
    shown = session.block(TEXT, 1, 4)
    block = traced.blocks[1]
    assert shown["norms"]["mlp"] == pytest.approx(float(np.linalg.norm(block.fcproj[0, 4])))
    assert shown["norms"]["after"] == pytest.approx(float(np.linalg.norm(block.residual3[0, 4])))
    model, probs = session.model, []
    for x in (traced.blocks[0].residual3, block.residual3):
        lens = logit_lens(model, x[None, :, 4:5])
        logits = npgpt.inside.early_logits(model, x[:, 4:5])[0, 0].astype(float)
        probs.append(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum())
        assert lens.tokens[0, 0, 0] == probs[-1].argmax()
    change = probs[1] - probs[0]
    assert shown["raised"][0]["id"] == change.argmax()
    assert shown["lowered"][0]["id"] == change.argmin()
    assert shown["raised"][0]["after"] == pytest.approx(float(probs[1][change.argmax()]), rel=1e-4)


def test_patterns_name_the_head_that_looks_there():
    tokens = np.array([1, 2, 3, 1, 2])
    T = len(tokens)
    att = np.zeros((1, 4, T, T))
    for h, keys in enumerate(([0, 0, 1, 2, 3], [0, 0, 0, 0, 0], [0, 1, 2, 3, 4], [0, 0, 0, 1, 2])):
        att[0, h, np.arange(T), keys] = 1
    found = patterns(att, tokens)
    for h, name in enumerate(("previous", "first", "self", "induction")):
        assert found[name][0].argmax() == h
        assert found[name][0, h] == 1
    assert patterns(att[..., :3, :3], tokens[:3])["induction"] is None
    assert patterns(att[..., :1, :1], tokens[:1])["previous"] is None


def test_the_backward_picture_is_the_traces(session, traced):
    shown = session.backward(TEXT)
    assert shown["loss"] == pytest.approx(float(traced.loss))
    names = ["dencoded", "dresidual2.0", "dresidual3.0", "dresidual2.1", "dresidual3.1"]
    for norms, name in zip(shown["norms"], names, strict=True):
        np.testing.assert_array_equal(norms, np.linalg.norm(traced[name][0], axis=-1))
    np.testing.assert_array_equal(shown["datt"], [block.datt[0] for block in traced.blocks])
    assert shown["tokens"].sum() == pytest.approx(1)
    of_blocks = [
        np.sqrt(sum((getattr(block, f"d{n}").astype(float) ** 2).sum() for n in TENSOR_NAMES[2:-2]))
        for block in traced.blocks
    ]
    np.testing.assert_allclose(shown["blocks"], np.array(of_blocks) / sum(of_blocks), rtol=1e-5)
    assert shown["targets"][-1] is None


def test_the_gradient_of_one_target(session):
    tokens = session.encode(TEXT)
    targets = np.full(len(tokens), -1)
    targets[4] = 9
    traced = npgpt.trace(session.model, tokens[None], targets[None])
    shown = session.backward(TEXT, 4, 9)
    assert shown["loss"] == pytest.approx(float(traced.loss))
    expected = np.linalg.norm(traced.dencoded[0], axis=-1)
    np.testing.assert_allclose(shown["tokens"], expected / expected.sum(), rtol=1e-6)
    assert shown["tokens"][5:].max() == 0  # nothing after the target's position takes part


def test_switched_off_and_replaced_as_by_edits_of_inside(session, batch):
    other = "the sea"
    model, values = session.model, session.forward(session.encode(other), ())
    here = (np.arange(len(TEXT) + 1) == 5)[:, None]
    cases = [
        ({"off": "head", "block": 0, "head": 3}, {"atty.0": scale(0, head(model, 3))}),
        ({"off": "mlp", "block": 1}, {"fcproj.1": scale(0)}),
        (
            {"patch": "residual3.0", "position": 5, "text": other, "from": 2},
            {"residual3.0": replace(values["residual3.0"][2], here)},
        ),
        (
            {"patch": "encoded", "position": 5, "text": other, "from": 6},
            {"encoded": replace(values["encoded"][6], here)},
        ),
    ]
    plain = session.picture(TEXT)
    for edit, edits in cases:
        traced = npgpt.trace(model, *batch, edits=edits)
        shown = session.picture(TEXT, [edit])
        np.testing.assert_allclose(shown["losses"], traced.losses[0], rtol=1e-5)
        assert shown["loss"] != plain["loss"], edit
        shown = session.backward(TEXT, edits=[edit])
        expected = np.linalg.norm(traced.dencoded[0], axis=-1)
        np.testing.assert_allclose(shown["norms"][0], expected, rtol=1e-5)
    assert session.picture(TEXT)["loss"] == plain["loss"]


def test_several_edits_behind_one_tensor_all_count(session, batch):
    edits = [{"off": "head", "block": 0, "head": h} for h in (0, 1)]
    both = scale(0, head(session.model, 0) | head(session.model, 1))
    traced = npgpt.trace(session.model, *batch, edits={"atty.0": both})
    np.testing.assert_allclose(session.picture(TEXT, edits)["losses"], traced.losses[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ("off", "edits must be a list"),
        ([1], "must switch off"),
        ([{"off": "head", "block": 9, "head": 0}], "block must be from 0 to 1, not 9"),
        ([{"off": "head", "block": 0, "head": 4}], "head must be from 0 to 3, not 4"),
        ([{"off": "mlp", "block": 0, "more": 1}], "must switch off"),
        ([{"patch": "ln1.0", "position": 0, "text": "a", "from": 0}], "must be one of encoded,"),
        ([{"patch": "encoded", "position": 99, "text": "a", "from": 0}], "from 0 to 20, not 99"),
        ([{"patch": "encoded", "position": 0, "text": "a", "from": 2}], "from 0 to 1, not 2"),
        ([{"patch": "encoded", "position": 0, "text": 5, "from": 1}], "must be a string, not int"),
    ],
)
def test_edits_that_cannot_be_are_told(session, edits, words):
    with pytest.raises(ArgumentError, match=words):
        session.picture(TEXT, edits)


def test_answers_are_json_and_keep_every_bit(session):
    for answer in (
        session.describe(), session.picture(TEXT), session.position(TEXT, 3), session.code("ln1"),
        session.block(TEXT, 0, 3), session.backward(TEXT), session.numbers(TEXT, "qkv.0", [3]),
        session.explain(TEXT, "qkv.0", [3, 4]), session.check(TEXT, "qkv.0"),
    ):  # fmt: skip
        read = json.loads(to_json(answer))
        assert read.keys() == answer.keys()
        for name, value in answer.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(unpacked(read[name]), value.astype(np.float32))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x" * 40, "the model reads at most 40 tokens, and this text has 41: shorten it"),
        ("x" * 1_000_000, "a text can have 20,000 characters here, not 1,000,000"),
        ("a 🙂", "'🙂', which is not among the tokenizer's 250 characters"),
        (5, "the text must be a string, not int"),
        ("\ud800", "which is not among"),
    ],
)
def test_texts_that_cannot_be_shown_are_told(session, text, words):
    with pytest.raises(ArgumentError, match=words):
        session.picture(text)


def test_emoji_are_bytes_and_a_text_may_be_empty():
    config = npgpt.GPT2Config(16, 257, 1, 2, 8)
    tokenizer = npgpt.get_tokenizer("bytes")
    session = Session(Source("b", lambda: npgpt.Parameters.init(config), tokenizer, None, PROMPT))
    assert len(session.picture("a 🙂")["tokens"]) == 7
    assert [token["label"] for token in session.picture("")["tokens"]] == ["<eot>"]
    with pytest.raises(ArgumentError, match="not a character"):
        session.picture("\ud800")


def test_a_model_without_an_end_of_text_needs_a_text():
    config = npgpt.GPT2Config(16, 3, 1, 2, 8)
    tokenizer = CharsTokenizer("abc")  # its end-of-text is number 3
    session = Session(Source("c", lambda: npgpt.Parameters.init(config), tokenizer, None, "a"))
    assert len(session.picture("ab")["tokens"]) == 2
    with pytest.raises(ArgumentError, match="no end-of-text to begin with"):
        session.picture("")


def test_tokens_beyond_the_vocabulary_are_told(session):
    for call in (
        lambda: session.position(TEXT, 0, 251),
        lambda: session.backward(TEXT, 0, -1),
        lambda: session.position(TEXT, 21),
        lambda: session.position(TEXT, True),
    ):
        with pytest.raises(ArgumentError, match="must be from 0 to"):
            call()
    learnt = Session.of_task(Characters("abc " * 50))
    with pytest.raises(ArgumentError, match="'é', which is not among the tokenizer's 4 characters"):
        learnt.picture("abé")


def test_a_token_that_the_tokenizer_lacks_has_its_number(session):
    """A model whose wte is padded."""
    config = npgpt.GPT2Config(8, 300, 1, 2, 8)
    source = Source("padded", lambda: npgpt.Parameters.init(config), npgpt.get_tokenizer("bytes"),
                    None, PROMPT)  # fmt: skip
    assert Session(source).labels(299) == "#299"


def test_one_token_has_a_picture_and_no_loss(session):
    shown = session.picture("")
    assert shown["loss"] is None
    with pytest.raises(ArgumentError, match="no next token"):
        session.backward("")
    assert session.backward("", 0, 5)["loss"] > 0


def test_the_page_shows_a_bounded_number_of_tokens():
    config = npgpt.GPT2Config(1024, 257, 1, 2, 8)
    source = Source("long", lambda: npgpt.Parameters.init(config), npgpt.get_tokenizer("bytes"),
                    None, PROMPT)  # fmt: skip
    session = Session(source)
    assert len(session.picture("x" * (MOST_TOKENS - 1))["tokens"]) == MOST_TOKENS
    with pytest.raises(ArgumentError, match=f"the page shows at most {MOST_TOKENS} tokens"):
        session.picture("x" * MOST_TOKENS)


def test_find_token(session):
    (h,) = session.source.tokenizer.encode("h")
    assert session.find_token("hello") == {"id": h, "label": "h"}
    with pytest.raises(ArgumentError, match="at least one character"):
        session.find_token("")
