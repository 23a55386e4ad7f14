"""The site: it builds without a warning, can be read offline, and its links lead somewhere."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from helpers import ROOT

pytestmark = pytest.mark.slow

for module in ("sphinx", "myst_nb", "furo", "latex2mathml", "sphinx_copybutton"):
    pytest.importorskip(module, reason="needs the extra `doc`")

NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
SOURCES = [*ROOT.glob("doc/**/*.md"), ROOT / "notebooks" / "README.md", *NOTEBOOKS]


def sphinx(*arguments):
    command = [sys.executable, "-m", "sphinx", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built by the guide's command in another folder, without executing the notebooks.

    test_notebooks executes them. NPGPT_SITE names one that is built already.
    """
    if "NPGPT_SITE" in os.environ:
        return Path(os.environ["NPGPT_SITE"])
    guide = (ROOT / "doc" / "guide.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"sphinx-build (.+ site)\n", guide)
    folder = tmp_path_factory.mktemp("built") / "site"
    built = sphinx(
        "-D", "run_notebooks=0", "-D", "explore_steps=10", *shlex.split(command)[:-1], folder
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


class Page(HTMLParser):
    """A page's ids, the addresses it links to, offers and loads, and how many formulas it has."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.downloads, self.loads, self.formulas = set(), [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        inline = tag == "math" and attributes["display"] == "inline"
        self.formulas += inline or (tag, attributes.get("class")) == ("div", "math")
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
            self.downloads += [attributes["href"]] if "download" in attributes else []
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


def page_of(site, source):
    return (site / source.relative_to(ROOT)).with_suffix(".html")


def parsed(site, source):
    return Page(page_of(site, source).read_text(encoding="utf-8"))


def bare_tables(text):
    """How many of a page's Markdown tables would make it as wide as they are, and do not scroll."""
    wrapped = re.findall(r'(<div class="table-wrapper[^>]*>\s*)?<table class="[^"]*docutils', text)
    return wrapped.count("")


def side_by_side(text):
    """The number of equations in each displayed formula of a page."""
    formulas = text.split('<div class="math">')[1:]
    return [formula.count('<div class="equation">') for formula in formulas]


def search_index(folder):
    """What the search knows: word -> the pages that have it in their text or in a heading."""
    text = (folder / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    pages = defaultdict(set)
    for kind in ("terms", "titleterms"):
        for word, found in index[kind].items():
            found = [found] if isinstance(found, int) else found
            pages[word] |= {index["docnames"][i] for i in found}
    return dict(pages)


@pytest.fixture
def extension(monkeypatch):
    """Imports a module of doc/ by its name, as Sphinx does."""
    monkeypatch.syspath_prepend(ROOT / "doc")
    return importlib.import_module


def test_it_has_every_page(site):
    for source in SOURCES:
        assert page_of(site, source).is_file(), source
    assert (site / "index.html").is_file()


def test_code_can_be_copied(site):
    for source in SOURCES:
        loads = {Path(urlsplit(address).path).name for address in parsed(site, source).loads}
        assert {"clipboard.min.js", "copybutton.js"} <= loads, source
    script = (site / "_static" / "copybutton.js").read_text(encoding="utf-8")
    assert "div.highlight pre" in script
    assert '<div class="highlight"><pre>' in (site / "doc" / "guide.html").read_text("utf-8")


def test_notebooks_can_be_downloaded_as_they_are_committed(site):
    for source in SOURCES:
        page = parsed(site, source)
        expected = [source.name] if source.suffix == ".ipynb" else []
        offered = [name for name in page.downloads if name.endswith(".ipynb")]
        assert offered == expected, source
        for name in offered:
            assert (page_of(site, source).parent / name).read_bytes() == source.read_bytes()


def test_each_page_links_to_its_source(site):
    for source in SOURCES:
        links = [link for link in parsed(site, source).links if "/_sources/" in link]
        (link,) = links
        assert (page_of(site, source).parent / link).read_bytes() == source.read_bytes()


def test_its_search_needs_no_server_and_finds_words(site):
    index = search_index(site)
    assert "doc/layernorm/layernorm" in index["layernorm"]
    assert "notebooks/02_layernorm" in index["layernorm"]
    assert "nosuchword" not in index
    for name in set().union(*index.values()):
        assert (site / f"{name}.html").is_file()
    # A script, which a page may load from a disk too, where it may not read another file.
    search = pages(site)[site / "search.html"]
    assert any(urlsplit(address).path == "searchindex.js" for address in search.loads)


def test_equations_that_stand_side_by_side_can_be_wrapped(site):
    shown = (site / "doc" / "crossentropy" / "crossentropy.html").read_text(encoding="utf-8")
    assert max(side_by_side(shown)) > 1
    for source in ROOT.glob("doc/*/*.md"):
        counts = side_by_side(page_of(site, source).read_text(encoding="utf-8"))
        assert 0 not in counts, source


def test_a_formula_is_parted_between_its_equations_alone(extension):
    equations = extension("mathml").equations
    assert equations(r"a = 1") == ["a = 1"]
    assert equations(r"a = 1 \qquad b = 2 \qquad c") == ["a = 1 ", " b = 2 ", " c"]
    for whole in (
        r"\text{a \qquad b}",
        r"\begin{aligned} a &= 1 \qquad b \end{aligned}",
        r"\left( a \qquad b \right)",
        r"\{ \frac{a}{b \qquad c} \}",
    ):
        assert equations(whole) == [whole]
        assert equations(rf"{whole}\qquad{whole}") == [whole, whole]
    assert equations(r"\{ a \qquad b \leftarrow c") == [r"\{ a ", r" b \leftarrow c"]


def test_wide_tables_scroll_by_themselves(site):
    tables = 0
    for source in SOURCES:
        text = page_of(site, source).read_text(encoding="utf-8")
        tables += text.count('<table class="docutils')
        assert bare_tables(text) == 0, source
    assert tables > 10


def test_a_table_that_is_not_wrapped_is_noticed():
    wrapped = '<div class="table-wrapper docutils container">\n<table class="docutils">'
    assert bare_tables(wrapped) == 0
    assert bare_tables(wrapped + '</table></div><p><table class="docutils">') == 1


def test_the_contents_of_a_page_show_where_furo_would_hide_them(site):
    """site.css undoes Furo's rules for this width: another width there would need another here."""
    furo = (site / "_static" / "styles" / "furo.css").read_text(encoding="utf-8")
    assert re.search(r"@media\s*\(max-width:\s*82em\)\{\.toc-content-icon", furo)
    ours = (site / "_static" / "site.css").read_text(encoding="utf-8")
    assert "@media (min-width: 78em) and (max-width: 82em)" in ours  # 1280 pixels are 80em


def test_it_loads_nothing_from_elsewhere(site):
    assert remote(site) == []


def test_its_links_lead_somewhere(site):
    assert dead(site) == []


def test_its_formulas_are_all_there(site):
    for source in ROOT.glob("doc/*/*.md"):
        text = re.sub(r"^```.*?^```$|`[^`]+`", "", source.read_text("utf-8"), flags=re.S | re.M)
        formulas = re.findall(r"\$\$.+?\$\$|\$[^$]+\$", text, re.DOTALL)
        assert parsed(site, source).formulas == len(formulas), source


def test_the_reference_shows_the_docstrings_as_they_stand(site):
    shown = (site / "doc" / "api.html").read_text(encoding="utf-8")
    for name in ("npgpt.GPT2.update", "npgpt.train", "npgpt.layers.layernorm_backward"):
        assert f'id="{name}"' in shown
    assert "dout (B, T, C) -&gt; dx (B, T, C), dw (C,), db (C,)." in shown
    assert "<code" in shown and "`" not in re.sub(r"<[^>]+>", "", shown).split("©")[0]


MISTAKES = {  # in a page -> in its warning
    r"$\hat x$ and $\nosuch x$": r"latex2mathml leaves \nosuch",
    r"$\begin{gathered} a \\ b \end{gathered}$": "latex2mathml leaves linebreak",
    "$x_1_2$": "no LaTeX",
    "[a page](nowhere.md)": "nowhere.md",
    "```{literalinclude} nowhere.py\n```": "nowhere.py",
    "Nothing is wrong here.": None,
}


def test_a_mistake_in_a_page_is_an_error(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    names = [f"p{number}" for number in range(len(MISTAKES))]
    contents = "# All\n\n```{toctree}\n" + "\n".join(names) + "\n```\n"
    (source / "index.md").write_text(contents, encoding="utf-8")
    for name, text in zip(names, MISTAKES, strict=True):
        (source / f"{name}.md").write_text(f"# A page\n\n{text}\n", encoding="utf-8")
    ours = ["-D", "root_doc=index", "-D", "include_patterns=*.md"]
    built = sphinx("-q", "-W", "--keep-going", "-n", "-c", ROOT / "doc", *ours, source, out)
    assert built.returncode != 0
    for name, (text, warning) in zip(names, MISTAKES.items(), strict=True):
        said = [line for line in built.stderr.splitlines() if f"{name}.md" in line]
        if warning is None:
            assert said == []
        else:
            assert any(warning in line for line in said), (text, built.stderr)


@pytest.fixture
def build_notebook(tmp_path):
    """Builds a site of notebooks, a, b ..., from the sources of the cells of each -> it, page a."""
    nbformat = pytest.importorskip("nbformat")
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()

    def build(*notebooks):
        for name, cells in zip("abc", notebooks, strict=False):
            cells = [nbformat.v4.new_markdown_cell("# A"), *map(nbformat.v4.new_code_cell, cells)]
            nbformat.write(nbformat.v4.new_notebook(cells=cells), source / f"{name}.ipynb")
        ours = ["-D", "root_doc=a", "-D", "include_patterns=*.ipynb"]
        built = sphinx("-W", "--keep-going", "-n", "-c", ROOT / "doc", *ours, source, out)
        page = out / "a.html"
        return built, page.read_text(encoding="utf-8") if page.is_file() else ""

    return build


COMPILE = "import sys; print('compiling kernels for this machine ...', file=sys.stderr)"


def test_a_notebook_is_executed_without_a_word_of_compiling(build_notebook):
    built, page = build_notebook([COMPILE, "print(6 * 7, 'is the answer')"])
    assert built.returncode == 0, built.stderr
    assert "executing a; 0 to come" in built.stdout
    assert "42 is the answer" in page
    assert page.count("compiling kernels") == 1  # in the code
    assert "output stderr" not in page


def test_a_notebook_that_warns_is_an_error(build_notebook):
    """Each of two in its own words; both in one build, since to start one takes longest."""
    written = f"{COMPILE}; print('an odd line', file=sys.stderr)"
    built, _ = build_notebook(["import warnings; warnings.warn('a warning')"], [written])
    assert built.returncode != 0
    for name, message in (("a", "a warning"), ("b", "an odd line")):
        said = built.stderr.split(f"{name}.ipynb: WARNING: a cell writes to stderr: ")[1]
        assert message in said.split("ipynb: WARNING")[0]


def test_a_notebook_that_fails_is_an_error(build_notebook):
    built, _ = build_notebook(["assert 1 == 2"])
    assert built.returncode != 0
    assert "assert 1 == 2" in built.stderr


def test_what_is_loaded_from_elsewhere_and_dead_links_are_found(tmp_path):
    page = '<p id="b"><a href="#b"><a href="#c"><a href="x.html"><script src="https://a/b.js"></script>'
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    (tmp_path / "page.css").write_text("a { background: url(//a/b.png) }", encoding="utf-8")
    assert remote(tmp_path) == ["https://a/b.js", "//a/b.png"]
    assert dead(tmp_path) == [("page.html", "#c"), ("page.html", "x.html")]
