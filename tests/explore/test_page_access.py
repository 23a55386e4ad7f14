"""The page for everyone, in headless Chromium: keyboard, names, widths, contrast, rest."""

import pytest
from browsing import tab_of

pytestmark = pytest.mark.slow

WIDTHS, THEMES = (1280, 390), ("light", "dark")


def test_everything_is_reached_by_keyboard(tab):
    tab.open()
    tab.page.focus("#tokens [aria-selected=true]")
    tab.page.keyboard.press("Home")
    tab.page.keyboard.press("ArrowRight")
    tab.settled()
    assert tab.value("positionNow()") == 1
    assert tab.value("document.activeElement.dataset.token") == "1"
    tab.page.focus("[data-key='head 0 0']")
    for key in ("ArrowRight", "ArrowDown"):
        tab.page.keyboard.press(key)
        tab.settled()
    assert (tab.value("state.block"), tab.value("state.head")) == (1, 1)
    assert tab.value("document.activeElement.dataset.key") == "head 1 1"
    tab.page.focus("#tab-forward")
    tab.page.keyboard.press("ArrowRight")
    tab.settled()
    assert tab.value("state.view") == "backward"
    assert tab.value("document.activeElement.id") == "tab-backward"


def test_everything_that_can_be_used_has_a_name(tab):
    for view in ("forward", "backward", "learn", "edit"):
        tab.open(view=view, block=1, head=1, target="one")
        nameless = tab.value(
            """[...document.querySelectorAll('button, input, select, textarea')].filter((e) =>
              e.offsetParent && !e.getAttribute('aria-label') && !e.getAttribute('aria-labelledby')
              && !e.textContent.trim() && !(e.labels && e.labels.length)
              ).map((e) => e.outerHTML.slice(0, 90))"""
        )
        assert nameless == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", THEMES)
def test_it_fits_and_can_be_read(browser, server, width, theme):
    """No sideways scrolling, and a contrast of 4.5 for what is read."""
    options = {"viewport": {"width": width, "height": 900}, "color_scheme": theme}
    with tab_of(browser, server, **options) as tab:
        for view in ("forward", "backward", "learn", "edit"):
            tab.open(view=view, block=1, head=0, tensor="att", channel=1)
            wider = tab.value("document.documentElement.scrollWidth - innerWidth")
            assert wider <= 0, view
            assert tab.value(LOW_CONTRAST) == []


LOW_CONTRAST = """(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll('main *, header *, footer *')) {
    const text = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!e.offsetParent || !text || e.closest(':disabled')) continue;
    const style = getComputedStyle(e), a = light(rgb(style.color)), b = light(behind(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${e.className || e.tagName} ${e.textContent} ${ratio}`);
  }
  return found.slice(0, 5);
})()"""


def test_nothing_moves_for_those_who_ask_for_that(browser, server):
    with tab_of(browser, server, reduced_motion="reduce") as tab:
        tab.open()
        moving = tab.value(
            "[...document.querySelectorAll('*')].filter((e) => ['', '::before', '::after'].some((p)"
            " => getComputedStyle(e, p || null).transitionDuration !== '0s')).length"
        )
        assert moving == 0
