"""The site: it builds without a warning, can be read offline, and its links lead somewhere."""

import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from helpers import ROOT

pytestmark = pytest.mark.slow

for module in ("sphinx", "myst_nb", "furo", "latex2mathml"):
    pytest.importorskip(module, reason="needs the extra `doc`")

SOURCES = [
    *ROOT.glob("doc/*/*.md"),
    *(ROOT / "doc" / name for name in ("guide.md", "figures.md")),
    *ROOT.glob("notebooks/README.md"),
    *ROOT.glob("notebooks/*.ipynb"),
]


def sphinx(*arguments):
    command = [sys.executable, "-m", "sphinx", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built by the guide's command but for the folder, its notebooks not executed.

    test_notebooks executes them.
    """
    guide = (ROOT / "doc" / "guide.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"sphinx-build (.+ site)\n", guide)
    folder = tmp_path_factory.mktemp("built") / "site"
    built = sphinx("-D", "nb_execution_mode=off", *shlex.split(command)[:-1], folder)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


class Page(HTMLParser):
    """A page's ids, the addresses it links to and loads from, and how many formulas it has."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads, self.formulas = set(), [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        self.formulas += tag == "math"
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        self.loads += [
            value
            for name, value in attributes.items()
            if value and (name in ("src", "srcset", "data") or (tag, name) == ("link", "href"))
        ]

    handle_startendtag = handle_starttag


def pages(folder):
    return {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}


def remote(folder):
    """What the pages and their styles load from elsewhere."""
    loaded = [address for page in pages(folder).values() for address in page.loads]
    for path in folder.rglob("*.css"):
        loaded += re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')]+)", path.read_text("utf-8"))
    return [address for address in loaded if re.match(r"https?:|//", address)]


def dead(folder):
    """The links and files that lead nowhere, as pairs of page and address."""
    found = pages(folder)
    wrong = []
    for path, page in found.items():
        for address in page.links + page.loads:
            parts = urlsplit(address)
            if parts.scheme or address == "#":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            part = unquote(parts.fragment)
            ok = target.is_file() and (not part or target not in found or part in found[target].ids)
            wrong += [] if ok else [(path.name, address)]
    return wrong


def test_it_has_every_page(site):
    for source in SOURCES:
        assert (site / source.relative_to(ROOT)).with_suffix(".html").is_file(), source
    for page in ("index.html", "doc/index.html", "doc/api.html"):
        assert (site / page).is_file()


def test_it_loads_nothing_from_elsewhere(site):
    assert remote(site) == []


def test_its_links_lead_somewhere(site):
    assert dead(site) == []


def test_its_formulas_are_all_there(site):
    for source in ROOT.glob("doc/*/*.md"):
        text = re.sub(r"^```.*?^```$|`[^`]+`", "", source.read_text("utf-8"), flags=re.S | re.M)
        shown = pages(site / source.relative_to(ROOT).parent)
        page = shown[(site / source.relative_to(ROOT)).with_suffix(".html")]
        formulas = re.findall(r"\$\$.+?\$\$|\$[^$]+\$", text, re.DOTALL)
        assert page.formulas == len(formulas), source


def test_the_reference_shows_the_docstrings_as_they_stand(site):
    shown = (site / "doc" / "api.html").read_text(encoding="utf-8")
    for name in ("npgpt.GPT2.update", "npgpt.train", "npgpt.layers.layernorm_backward"):
        assert f'id="{name}"' in shown
    assert "dout (B, T, C) -&gt; dx (B, T, C), dw (C,), db (C,)." in shown
    assert "<code" in shown and "`" not in re.sub(r"<[^>]+>", "", shown).split("©")[0]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (r"$\hat x$ and $\nosuch x$", r"latex2mathml leaves \nosuch"),
        (r"$\begin{gathered} a \\ b \end{gathered}$", "latex2mathml leaves linebreak"),
        ("$x_1_2$", "no LaTeX"),
        ("[a page](nowhere.md)", "nowhere.md"),
        ("```{literalinclude} nowhere.py\n```", "nowhere.py"),
    ],
)
def test_a_mistake_in_a_page_is_an_error(tmp_path, text, warning):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "index.md").write_text(f"# A page\n\n{text}\n", encoding="utf-8")
    ours = ["-D", "root_doc=index", "-D", "include_patterns=index.md"]
    built = sphinx("-q", "-W", "-n", "-c", ROOT / "doc", *ours, source, out)
    assert built.returncode != 0
    assert warning in built.stderr


def test_what_is_loaded_from_elsewhere_and_dead_links_are_found(tmp_path):
    page = '<p id="b"><a href="#b"><a href="#c"><a href="x.html"><script src="https://a/b.js"></script>'
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    (tmp_path / "page.css").write_text("a { background: url(//a/b.png) }", encoding="utf-8")
    assert remote(tmp_path) == ["https://a/b.js", "//a/b.png"]
    assert dead(tmp_path) == [("page.html", "#c"), ("page.html", "x.html")]
