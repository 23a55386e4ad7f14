"""The fixtures that the tests of explore share: a session, its server, and a tab of a browser."""

import os
import shutil

import pytest
from browsing import tab_of

from npgpt.explore.session import Session

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    """A Chromium: one that is installed, or playwright's own."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright and a Chromium"
    )
    found = os.environ.get("NPGPT_CHROMIUM") or next(
        filter(None, map(shutil.which, BROWSERS)), None
    )
    with playwright.sync_playwright() as p:
        try:
            running = p.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error:
            pytest.skip("there is no Chromium here: set NPGPT_CHROMIUM to one")
        yield running
        running.close()


@pytest.fixture(scope="module")
def session():
    """A Session of the bundled tiny model, of which the tests change nothing."""
    return Session.named("tiny")


@pytest.fixture
def server():
    """A server of the bundled tiny model's page."""
    pytest.importorskip("starlette", reason="needs the extra `explore`")
    from serving import served

    with served() as running:
        yield running


@pytest.fixture
def tab(browser, server):
    """A tab that shows the server's page."""
    with tab_of(browser, server) as opened:
        yield opened
