"""How long the page of `npgpt explore` takes to show GPT-2 124M's picture, and a step of training.

python -m bench.explore

A headless Chromium types texts of 63 tokens into the page, and clicks. A text is shown when its
picture is; a step when picture, position and loss are those after it. Beside it a new model learns
to add on the same page. Needs the extra `explore`, playwright and a Chromium: its path in
NPGPT_CHROMIUM, or playwright's own.
"""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from bench import tables
from bench.machine import describe
from bench.options import make_parser
from bench.results import write_result
from npgpt.cli import program
from npgpt.explore.server import libraries

WORDS = "the old man who lived by the river told us that he had seen it all before, and then "
TOKENS = 63
LEARNS = 10  # seconds in which the steps of learning to add are counted
# Each act begins at once, and the seconds are those until its result is drawn.
ACT = """async ([kind, text]) => {
  const until = async (done) => {
    while (!done()) await new Promise((later) => setTimeout(later, 10));
    return (performance.now() - start) / 1000;
  };
  const losses = data.progress.losses.length;
  const start = performance.now();
  if (kind === "picture") {
    byId("text").value = text;
    byId("text").dispatchEvent(new Event("input"));
    return until(() => data.pictureText === text && !frame);
  }
  document.querySelector("[data-key='steps 1']").click();
  const seconds = await until(() =>
    data.progress.losses.length > losses && !asking.picture && !asking.position && !frame);
  await until(() => waiting === 0 && !data.learning);
  return seconds;
}"""


@contextmanager
def page(*where):
    """The page of `npgpt explore` in a tab of a browser, and the server's process."""
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "npgpt", "explore", *where, "--port", "0", "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().split()[0]
        wait_for(address)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=os.environ.get("NPGPT_CHROMIUM"), args=["--no-sandbox"]
            )
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.goto(address)
            tab.wait_for_selector("#panel section", timeout=120_000)
            yield tab, server.pid
            browser.close()
    finally:
        server.terminate()
        server.wait()


def wait_for(address):
    """Until the server answers."""
    while True:
        try:
            return urlopen(Request(f"{address}api/status", b"")).read()
        except URLError:
            time.sleep(0.1)


def text_of(tokenizer, number):
    """A text of TOKENS tokens, a different one for each number."""
    tokens = tokenizer.encode(f"{number} {WORDS * 4}")[:TOKENS]
    return tokenizer.decode(tokens)


def times(tab, rounds):
    """Seconds of `rounds` pictures and steps, after one of each that does not count."""
    from npgpt.data.tokenizer import get_tokenizer

    tokenizer = get_tokenizer("gpt2")
    seconds = {}
    for kind, view in (("picture", "forward"), ("step", "learn")):
        tab.click(f"#tab-{view}")
        seconds[kind] = []
        for number in range(rounds + 1):
            tab.wait_for_timeout(500)
            seconds[kind].append(tab.evaluate(ACT, [kind, text_of(tokenizer, number)]))
        del seconds[kind][0]
    return seconds


def steps_per_second(tab):
    """Steps a second of the model that learns to add, as the page counts them."""
    tab.click("#tab-learn")
    tab.click("[data-key='train']")
    tab.wait_for_timeout(3000)
    counts = []
    for _ in range(2):
        counts.append((tab.evaluate("data.progress.updates"), time.perf_counter()))
        tab.wait_for_timeout(1000 * LEARNS)
    (first, start), (last, end) = counts
    return (last - first) / (end - start)


def peak(pid):
    """The largest resident size of a process, in bytes."""
    (line,) = [x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmHWM" in x]
    return 1024 * int(line.split()[1])


@program
def main(argv=None, prog=None):
    """Measure all, write the result and print its table."""
    parser = make_parser(prog, __doc__, rounds=10)
    args = parser.parse_args(argv)
    libraries()
    if find_spec("playwright") is None:
        parser.error("playwright is missing: pip install playwright && playwright install chromium")
    import npgpt

    config = npgpt.PUBLISHED["124M"]
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder) / "gpt2_124M.bin")
        npgpt.write_checkpoint(model, npgpt.GPT2(config, seed=0).params)
        with page(model) as (tab, pid):
            seconds, memory = times(tab, args.rounds), peak(pid)
        estimated = npgpt.estimate(config, 1, TOKENS + 1).total
    with page() as (tab, _):
        rate = steps_per_second(tab)
    content = {
        "tokens": TOKENS, "rounds": args.rounds, "seconds": seconds, "peak": memory,
        "estimate": estimated, "addition_steps_per_second": rate,
    }  # fmt: skip
    result, path = write_result("explore", "explore", describe(), content, args.out)
    print(tables.text(result), f"wrote {path}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
