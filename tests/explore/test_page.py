"""The page in headless Chromium: every view acted on, its numbers those of the Python API."""

import json

import numpy as np
import pytest
from browsing import SETTLED, number, tab_of

import npgpt
from npgpt.core.parameters import TENSOR_NAMES
from npgpt.explore.export import write_page
from npgpt.explore.session import Session
from npgpt.explore.tasks import Sums
from npgpt.model.generation import filtered_weights
from npgpt.tracing.names import BLOCK_SHAPES, SHAPES

pytestmark = pytest.mark.slow

pytest.importorskip("starlette", reason="needs the extra `explore`")

from serving import served  # noqa: E402

TEXT = "she sells sea shells"


def test_forward_shows_the_sessions_numbers(tab, session):
    tab.open(p=7)
    expected, picture = session.position(TEXT, 7), session.picture(TEXT)
    assert tab.text("#tokens").split() == [t["label"] for t in picture["tokens"]]
    first = expected["top"][0]
    assert tab.text("#next li:first-child .bar-name") == first["label"]
    probs = np.exp(expected["logits"] - expected["logits"].max())
    probs /= probs.sum()
    shown = number(tab.text("#next li:first-child .bar-value"))
    assert shown == pytest.approx(100 * probs[first["id"]], abs=0.51)
    assert number(tab.text("#logit")) == pytest.approx(expected["parts"]["logit"], rel=1e-3)
    assert number(tab.text("#loss-now").split()[-1]) == pytest.approx(picture["loss"], rel=1e-3)
    lens = tab.page.locator(".lens-token").all_inner_texts()
    places = [expected["lens"][i]["top"][0]["label"] for i in (0, 2, 4)]
    assert lens == places


@pytest.mark.parametrize(
    ("temperature", "k", "top"), [(1, 0, 1), (0.5, 0, 1), (1, 5, 1), (1, 0, 0.3), (1.7, 20, 0.6)]
)
def test_sampling_is_as_generate_samples(tab, session, temperature, k, top):
    tab.open(p=7)
    logits = session.position(TEXT, 7)["logits"]
    weights = filtered_weights(logits[None], temperature, k or None, top)[0]
    expected = weights / weights.sum()
    shown = tab.value(f"[...probabilities(data.position.logits, {temperature}, {k}, {top})]")
    np.testing.assert_allclose(shown, expected, atol=1e-6)
    assert [p > 0 for p in shown] == [w > 0 for w in expected]


def test_the_sliders_move_the_distribution(tab):
    tab.open(p=7)
    before = tab.text("#next .bars")
    tab.page.focus("#top-k")
    tab.page.keyboard.press("ArrowRight")
    tab.page.keyboard.press("ArrowRight")
    assert tab.text("#next .bars") != before
    assert tab.page.locator("#next li:not(.muted)").count() == 2
    tab.settled()
    assert "k=2" in tab.page.url
    assert tab.page.get_attribute("#top-k", "aria-valuetext") == "2"


def test_hovering_a_token_says_what_it_looks_at(tab, session):
    tab.open(block=1, head=2)
    tab.page.hover("#tokens button:nth-child(6)")
    att = session.picture(TEXT)["att"][1, 2, 5]
    best = int(att.argmax())
    said = tab.text("#readout")
    label = session.picture(TEXT)["tokens"][best]["label"]
    assert f"looks at “{label}” {round(100 * att[best])}%" in said.replace(".0%", "%")
    assert "block 1, head 2" in said


def test_clicking_a_number_shows_its_formula_and_what_it_is_made_of(tab, session):
    tab.open(p=3, block=1, tensor="qkv")
    tab.click("#row-of-numbers [data-key^='largest']")
    channel = tab.value("state.channel")
    expected = session.explain(TEXT, "qkv.1", [3, channel])
    assert number(tab.text("#value")) == pytest.approx(expected["stored"], rel=1e-3)
    assert tab.text(".formula") == expected["formula"]
    rows = tab.page.locator("#explanation tr").all_inner_texts()
    assert len(rows) == 1 + 8 + 1
    assert number(rows[1].split("\t")[-1]) == pytest.approx(expected["terms"][0][3], rel=1e-3)
    marked = tab.page.locator(".line.marked").all_inner_texts()
    assert marked and all(line.strip().startswith("out ") for line in marked)
    assert tab.text("#code p code") == "npgpt/layers/matmul.py"


def test_each_tensor_is_said_in_words(tab):
    tab.open(view="backward", tensor="dfcb", block=1)
    names = {*BLOCK_SHAPES, *SHAPES, *TENSOR_NAMES} - {"loss"}
    assert set(tab.value("Object.keys(WORDS)")) == names
    words = "dfcb.1: the gradient of the biases of the MLP's first linear layer in block 1."
    assert tab.text("#row-of-numbers p").startswith(f"{words} Shape (192);")


def test_backward_shows_the_traces_numbers(tab, session):
    tab.open(view="backward")
    tokens = session.encode(TEXT)
    traced = npgpt.trace(session.model, tokens[None], np.append(tokens[1:], -1)[None])
    norms = np.linalg.norm(traced.dencoded[0], axis=-1)
    shown = tab.value("[...data.backward.tokens]")
    np.testing.assert_allclose(shown, norms / norms.sum(), rtol=1e-5)
    assert number(tab.text("#loss-now").split(",")[0].split()[-1]) == pytest.approx(
        float(traced.loss), rel=1e-3
    )
    shares = [number(text) for text in tab.page.locator("#rows .share small").all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=1)


def test_the_target_can_be_chosen_by_click_and_by_typing(tab, session):
    tab.open(view="backward", p=5)
    tab.click("[data-key='target one']")
    expected = session.backward(TEXT, 5)
    assert tab.value("data.backward.loss") == pytest.approx(expected["loss"])
    tab.page.fill("#target", "z")
    tab.click("#aim form button")
    (z,) = session.source.tokenizer.encode("z")
    assert tab.text("#target-now") == "“z”"
    assert tab.value("data.backward.loss") == pytest.approx(session.backward(TEXT, 5, z)["loss"])
    tab.page.fill("#target", "🙂")
    tab.click("#aim form button")
    assert "not among the tokenizer's" in tab.text("#aim .failed")


def test_the_gradient_check_runs_on_a_click(tab):
    tab.open(view="backward", tensor="dfcw", block=1)
    tab.click("[data-key=check]")
    assert tab.text("#verdict") == "OK: matmul_backward agrees with central differences."
    assert tab.page.locator("#check tbody tr").count() == 3


def test_edits_are_those_of_inside(tab, session):
    tab.open(view="edit", block=1, p=6)
    tab.click("[data-key='switch 2']")
    off = [{"off": "head", "block": 1, "head": 2}]
    plain, edited = session.picture(TEXT)["loss"], session.picture(TEXT, off)["loss"]
    shown = list(map(number, tab.text("#loss-edited").split(" → ")))
    assert shown == pytest.approx([plain, edited], rel=1e-3)
    assert tab.page.get_attribute("[data-key='switch 2']", "aria-checked") == "false"
    tab.click("#tab-forward")
    assert tab.text("#edits-now span") == "Edited: block 1, head 2 is off."
    tab.click("#tab-edit")
    assert not tab.page.is_visible("#edits-now")
    tab.click("[data-key='switch mlp']")
    for text, words in (("🙂", "not among the tokenizer's"), ("", "from 0 to 0, not 6")):
        tab.page.fill("#patch-text", text)
        tab.click("#patch form button")
        assert words in tab.text("#patch .failed")
        assert len(tab.value("state.edits")) == 2
    tab.page.fill("#patch-text", "the sea")
    tab.page.fill("#patch-from", "2")
    tab.click("#patch form button")
    patch = {"patch": "residual3.1", "position": 6, "text": "the sea", "from": 2}
    edits = [*off, {"off": "mlp", "block": 1}, patch]
    assert tab.value("state.edits") == edits
    assert tab.value("data.picture.loss") == pytest.approx(session.picture(TEXT, edits)["loss"])
    logits = tab.value("[...data.position.logits]")
    np.testing.assert_allclose(logits, session.position(TEXT, 6, None, edits)["logits"], atol=1e-5)
    tab.click("[data-key='remove all edits']")
    assert tab.value("data.picture.loss") == pytest.approx(plain)


def test_a_link_restores_the_view(tab, browser, server):
    edits = json.dumps([{"off": "mlp", "block": 0}])
    tab.open(view="forward", text="sea", p=2, block=1, head=1, tensor="att", channel=1, edits=edits)
    assert tab.page.input_value("#text") == "sea"
    tab.click("[data-key='block 0']")
    url, shown = tab.page.url, tab.text("#panel")
    with tab_of(browser, server) as other:
        other.page.goto(url)
        other.page.wait_for_selector("#panel section")
        other.settled()
        assert other.text("#panel") == shown
        assert other.value("state.edits") == [{"off": "mlp", "block": 0}]


def test_a_link_opens_its_model_where_nothing_is_lost(browser):
    with served(Session.of_task(Sums())) as server, tab_of(browser, server) as tab:
        tab.open(model="tiny", view="learn", text="sea", lr=-3)
        assert tab.value("data.model.name") == "tiny" and "model=tiny" in tab.page.url
        assert tab.text("#tokens").split() == ["<eot>", "s", "e", "a"]
        tab.click("[data-key='steps 1']")
        tab.open(model="addition", text="1+1")
        assert tab.value("data.model.name") == "tiny"
        assert "steps that were taken here would be lost" in tab.text("#problem")


@pytest.mark.parametrize(
    "address", ["p=x&block=99&head=-4&row=3&edits=7&view=no", "p=1e9&channel=-5&text=%00", "&&=&"]
)
def test_a_link_that_means_nothing_is_no_error(tab, address):
    tab.page.goto(f"{tab.server.address}#{address}")
    tab.page.wait_for_selector("#panel section, #problem:not([hidden])")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x" * 1_000_000, "20,000 characters here, not 1,000,000"),
        ("🙂", "not among the tokenizer's 250 characters"),
        ("x" * 41, "at most 40 tokens, and this text has 42"),
    ],
    ids=["a megabyte", "emoji", "too long"],
)
def test_texts_that_cannot_be_shown_are_told(tab, text, words):
    tab.open()
    tab.page.evaluate("text => set({ text })", text)
    tab.settled()
    assert words in tab.text("#problem")
    tab.page.fill("#text", "sea")
    tab.settled()
    assert not tab.page.is_visible("#problem")
    assert tab.page.locator("#tokens button").count() == 4


def test_an_empty_text_has_a_picture(tab):
    tab.open()
    tab.page.fill("#text", "")
    tab.settled()
    assert tab.text("#tokens") == "<eot>"
    assert not tab.page.is_visible("#problem")


def test_the_five_questions(browser, session):
    """By clicking alone, as someone would who has only the page."""
    with served() as server, tab_of(browser, server) as tab:
        tab.open()
        tab.click("[data-question=previous]")
        scores = session.picture(TEXT)["patterns"]["previous"]
        block, head = np.unravel_index(scores.argmax(), scores.shape)
        assert tab.text("#pattern-found button").startswith(f"block {block}, head {head}: ")
        tab.click("#pattern-found button")
        assert tab.text("#looks-title") == f"Block {block}, head {head}"

        tab.click("[data-question=adds]")
        expected = session.block(TEXT, 1, len(session.encode(TEXT)) - 1)
        assert tab.text("#adds ul:first-of-type .bar-name") == expected["raised"][0]["label"]

        tab.click("[data-question=likely]")
        parts = session.position(TEXT, len(session.encode(TEXT)) - 1)["parts"]["by"]
        shown = [number(t) for t in tab.page.locator("#why .bar-value").all_inner_texts()]
        assert shown == pytest.approx(list(parts.values()), rel=1e-3, abs=1e-6)

        tab.click("[data-question=bias]")
        gradient = session.numbers(TEXT, f"dfcb.{tab.value('state.block')}", [])["values"]
        largest = gradient[abs(gradient).argmax()]
        assert number(tab.text("#value")) == pytest.approx(float(largest), rel=1e-3)

        tab.click("[data-question=step]")
        was, now = map(number, tab.text("#loss-moved").split(" → "))
        assert was == pytest.approx(session.picture(TEXT)["loss"], rel=1e-3) and now < was


def test_the_exported_page_works_from_the_file_system(browser, session, tmp_path):
    path = write_page(session, TEXT, tmp_path / "page")
    context = browser.new_context(viewport={"width": 390, "height": 900})
    page, asked, wrong = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector("#panel section")
    expected = session.position(TEXT, len(session.encode(TEXT)) - 1)
    page.wait_for_selector("#next li")
    assert page.inner_text("#next li:first-child .bar-name") == expected["top"][0]["label"]
    for view in ("backward", "learn", "edit", "forward"):
        page.click(f"#tab-{view}")
    page.click("[data-key='head 1 1']")
    page.click("#row-of-numbers [data-key^='largest']")
    page.wait_for_selector("#value")
    att = session.picture(TEXT)["att"][1, 1, -1]
    assert number(page.inner_text("#value")) == pytest.approx(float(att.max()), rel=1e-3)
    page.click("#tab-learn")
    losses = []
    for frame in (1, 2, 3):
        page.click(f"[data-key='frame {frame}']")
        page.wait_for_selector(f"[data-key='frame {frame}'][aria-pressed=true]")
        page.wait_for_selector("#loss-moved")
        page.wait_for_function(SETTLED)
        was, now = map(number, page.inner_text("#loss-moved").split(" → "))
        assert was == pytest.approx(session.picture(TEXT)["loss"], rel=1e-3)
        losses.append(now)
    assert was > losses[0] > losses[1] > losses[2]
    page.click("#tab-edit")  # one at a time, of the model before the steps
    for block, n in ((1, 0), (0, 2)):
        page.click(f"[data-key='block {block}']")
        page.click(f"[data-key='switch {n}']")
        page.wait_for_selector(f"[data-key='switch {n}'][aria-checked=false]")
        page.wait_for_selector("#loss-edited")
        page.wait_for_function(SETTLED)
        off = [{"off": "head", "block": block, "head": n}]
        shown = list(map(number, page.inner_text("#loss-edited").split(" → ")))
        assert shown == pytest.approx([was, session.picture(TEXT, off)["loss"]], rel=1e-3)
    page.click("#tab-learn")
    page.click("[data-key='frame 2']")
    page.wait_for_selector("#loss-moved")
    assert page.evaluate("state.edits.length") == 0
    page.click("[data-key='frame 0']")
    page.wait_for_selector("#moved .hint")
    page.click("[data-key='block 1']")
    page.click("[data-question=bias]")
    page.wait_for_selector("#value")
    gradient = session.numbers(TEXT, "dfcb.1", [])["values"]
    assert abs(number(page.inner_text("#value"))) == pytest.approx(abs(gradient).max(), rel=1e-3)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert wrong == []
    context.close()
