"""A tab of a browser that shows the page of `npgpt explore`, and what is done in it."""

import time
from contextlib import contextmanager
from urllib.parse import urlsplit

# Nothing is asked any more, the machine waits, and all is drawn.
SETTLED = """
    waiting === 0 && !data.learning && !frame && !addressTimer
    && Object.values(asking).every((key) => !key)
"""


def number(text):
    """A number as the page writes it."""
    return float(text.replace("−", "-").replace("%", "").replace(",", ""))


class Tab:
    """A page that fails the test where it asks another origin, or where a script of it fails."""

    def __init__(self, page, server):
        self.page, self.server, self.wrong = page, server, []
        page.on("request", self.note)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", self.hear)

    def note(self, request):
        parts = urlsplit(request.url)
        if parts.scheme != "data" and parts.netloc != f"127.0.0.1:{self.server.port}":
            self.wrong.append(f"a request to {request.url}")

    def hear(self, message):
        """A question that is answered in words has the status 422, which the browser notes."""
        if message.type == "error" and "status of 422" not in message.text:
            self.wrong.append(message.text)

    def open(self, **state):
        words = "&".join(f"{name}={value}" for name, value in state.items())
        self.page.goto("about:blank")
        self.page.goto(f"{self.server.address}#{words}")
        self.page.wait_for_selector("#panel section")
        self.settled()

    def settled(self):
        """Until nothing is asked any more, and all is drawn."""
        self.until(SETTLED)

    def until(self, expression):
        """Until a JavaScript expression is true; the page's policy forbids wait_for_function."""
        deadline = time.monotonic() + 60
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, expression
            self.page.wait_for_timeout(20)

    def click(self, selector):
        self.page.click(selector)
        self.settled()

    def text(self, selector):
        return self.page.inner_text(selector)

    def value(self, expression):
        return self.page.evaluate(expression)


@contextmanager
def tab_of(browser, server, **options):
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    tab = Tab(context.new_page(), server)
    try:
        yield tab
        assert tab.wrong == []
    finally:
        context.close()
