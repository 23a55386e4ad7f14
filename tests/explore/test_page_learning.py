"""The page while it trains, in headless Chromium: steps, undo, divergence, new models."""

import numpy as np
import pytest
from browsing import number, tab_of

from npgpt.explore.session import Session
from npgpt.explore.tasks import Sums

pytestmark = pytest.mark.slow

pytest.importorskip("starlette", reason="needs the extra `explore`")

from serving import served  # noqa: E402

TEXT = "she sells sea shells"


def test_learning_and_undo(tab, server):
    tab.open(view="learn", lr=-3)
    model = Session.named("tiny")
    before = model.picture(TEXT)["loss"]
    for steps in (1, 10):
        tab.click(f"[data-key='steps {steps}']")
        for _ in model.learning.steps(steps, 1e-3, TEXT):
            pass
        assert tab.value("data.progress.losses") == pytest.approx(model.learning.losses)
        assert tab.value("data.picture.loss") == pytest.approx(model.picture(TEXT)["loss"])
    was, now = map(number, tab.text("#loss-moved").split(" → "))
    assert now < was < before * 1.001
    assert tab.page.locator("#panel .curve path").count() == 1
    assert tab.page.locator("#moved .bars").count() == 3
    for loss in (model.learning.losses[1], before):
        tab.click("[data-key=undo]")
        assert tab.value("data.picture.loss") == pytest.approx(loss, rel=1e-5)
    assert tab.page.is_disabled("[data-key=undo]")
    np.testing.assert_array_equal(
        server.api.session.model.params.flat, Session.named("tiny").model.params.flat
    )


def test_only_pictures_of_the_same_text_and_edits_are_compared(tab):
    tab.open(view="learn", lr=-3)
    tab.click("[data-key='steps 1']")
    assert tab.page.locator("#loss-moved").count() == 1
    tab.page.fill("#text", TEXT[::-1])
    tab.settled()
    assert tab.page.locator("#loss-moved").count() == 0
    tab.page.fill("#text", TEXT)
    tab.settled()
    assert tab.page.locator("#loss-moved").count() == 1
    tab.value("set({ edits: [{ off: 'mlp', block: 0 }] })")
    tab.settled()
    assert tab.page.locator("#loss-moved").count() == 0


def test_what_was_done_is_told_once_to_a_screen_reader(tab):
    tab.open(view="learn", lr=-3)
    tab.value(
        """new MutationObserver((all) => (window.told ??= []).push(...all.map((m) =>
          m.target.textContent))).observe(byId("announced"), { childList: true })"""
    )
    tab.click("[data-key='steps 10']")
    *before, last = tab.value("told")
    assert len(before) <= 1 and last.startswith("10 steps taken. The last loss: ")
    live = "[role=status], [role=alert], [aria-live]"
    assert tab.page.locator(f"#panel :is({live}), #below :is({live})").count() == 0


def test_undo_that_fails_leaves_what_is_shown(tab, server):
    tab.open(view="learn", lr=-3)
    tab.click("[data-key='steps 1']")
    shown = tab.text("#updates")
    server.ask("undo")  # of another tab
    tab.click("[data-key=undo]")
    assert "nothing to undo" in tab.text("#panel .failed")
    assert tab.text("#updates") == shown


def test_divergence_is_told(tab):
    tab.open(view="learn", lr=0.5)
    tab.click("[data-key='steps 10']")
    assert "learning rate" in tab.text("#diverged")
    tab.click("[data-key=undo]")
    assert tab.page.locator("#diverged").count() == 0


def test_a_model_is_trained_before_ones_eyes_and_the_page_never_waits(browser):
    with served(Session.of_task(Sums())) as server, tab_of(browser, server) as tab:
        tab.open(view="learn")
        tab.page.click("[data-key=train]")
        tab.until("data.progress.updates > 2")
        tab.until("byId('status').textContent.startsWith('training: step')")
        first = tab.value("data.picture.loss")
        tab.page.click("#tokens button:nth-child(3)")  # while it is trained
        tab.until("data.position && data.position.position === 2")
        tab.until(f"data.picture && data.picture.loss < {first} - 0.3")
        tab.page.click("[data-key=stop]")
        tab.settled()
        assert tab.text("#status") == "ready"
        updates = tab.value("data.progress.updates")
        assert updates == server.api.session.learning.updates
        tab.click("[data-key=undo]")
        assert server.api.session.learning.updates == 0


def test_a_training_is_begun_in_one_click_and_followed_by_another_tab(browser):
    with served(Session.of_task(Sums())) as server, tab_of(browser, server) as tab:
        tab.open(view="backward", target="one", **{"from": "text"})
        tab.page.click("[data-question=learn]")
        tab.until("data.progress.updates > 2")
        assert tab.page.get_attribute("[data-key=batches]", "aria-pressed") == "true"
        assert server.api.session.learning.actions[0].text is None
        with tab_of(browser, server) as other:
            other.page.goto(f"{server.address}#view=learn")
            other.until("data.progress && data.progress.updates > 5")
            other.until("byId('status').textContent.startsWith('training: step')")
            other.page.click("[data-key=stop]")
            other.settled()
        tab.settled()
        updates = server.api.session.learning.updates
        assert tab.value("data.progress.updates") == updates


def test_a_text_of_ones_own_is_learnt(browser):
    with served(Session.of_task(Sums())) as server, tab_of(browser, server) as tab:
        tab.open(view="learn")
        tab.page.click("[data-model=characters]")
        tab.page.fill("#corpus", "the cat sat on the mat. " * 30)
        tab.page.click("#your-text button")
        tab.until("data.model.name === 'characters' && data.picture")
        tab.settled()
        tab.click("[data-key='steps 10']")
        losses = tab.value("data.progress.losses")
        assert len(losses) == 10 and losses[-1] < losses[0]
