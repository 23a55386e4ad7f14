"""The tutorials: their Python runs, and what they include, show and link to is there."""

import ast
import json
import os
import re
import subprocess
import sys

import pytest
from helpers import ROOT, blocks_as_script, run_blocks

pytestmark = pytest.mark.slow

PAGES = sorted(ROOT.glob("doc/*/*.md"))
LINKING = [*ROOT.glob("*.md"), *ROOT.glob("doc/**/*.md"), *ROOT.glob("notebooks/*.[im]*")]

each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}"
)


def gradient_rows(text):
    """The rows of gradcheck's tables, without the errors where all is OK: those are rounding."""
    rows = re.findall(r"^d\w+ +\(.*OK.*$", text, re.MULTILINE)
    return [row if "NOT" in row else re.sub(r"\d\.\de[+-]\d+", "#", row) for row in rows]


def not_printed(text, out):
    """The rows that a page shows and that its blocks do not print, or not in this order."""
    printed = iter(gradient_rows(out))
    return [row for row in gradient_rows(text) if row not in printed]


def includes(text):
    """The literalincludes of a page: pairs of a path and a dict of options."""
    found = re.findall(r"^```\{literalinclude\} +(\S+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [
        (path, dict(re.findall(r"^:([\w-]+): *(.*)$", options, re.M))) for path, options in found
    ]


def defines(source, name):
    """Whether a Python file's text defines name, or Class.method."""
    body = ast.parse(source).body
    for part in name.split("."):
        named = [node for node in body if getattr(node, "name", None) == part]
        if not named:
            return False
        body = named[0].body
    return True


def what_is_wrong(path, options):
    """What a literalinclude of the file at path asks for in vain."""
    if not path.is_file():
        return [f"no file {path}"]
    source = path.read_text(encoding="utf-8")
    marks = [
        options[key]
        for key in ("start-at", "start-after", "end-at", "end-before")
        if key in options
    ]
    wrong = [f"no line with {mark!r} in {path}" for mark in marks if mark not in source]
    if "pyobject" in options and not defines(source, options["pyobject"]):
        wrong.append(f"no {options['pyobject']} in {path}")
    return wrong


def links(path):
    """The files that a page or a notebook links to or shows, as written, without their #parts."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    text = re.sub(r"^```.*?^```$|`[^`\n]+`", "", text, flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [t.split("#")[0] for t in targets if not re.match(r"\w+:|#", t)]


@each_page
def test_its_blocks_run_as_one_script(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    assert re.search(r"^ *(assert|np\.testing\.assert)", blocks_as_script(text), re.MULTILINE)
    ran = run_blocks(text, tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert not_printed(text, ran.stdout) == []


def test_a_gradient_that_is_not_the_one_printed_is_noticed():
    right = "dw         (4, 4)           1.4e-09   2.1e-10  OK"
    wrong = "dx         (3)              4.5e+00   6.3e-01  NOT OK at [1]: 4.7, by differences 0.2"
    page = f"```text\n{wrong}\n{right}\n```\n"
    assert not_printed(page, f"{right}\n{wrong}\n{right}\n") == []
    assert not_printed(page, f"{wrong}\n{right.replace('1.4e-09', '2.0e-09')}\n") == []
    assert not_printed(page, f"{wrong}\n") == [right.replace("1.4e-09   2.1e-10", "#   #")]
    assert not_printed(page, f"{wrong.replace('4.7', '4.8')}\n{right}\n")[0] == wrong


def test_a_wrong_assertion_is_caught_and_its_line_named(tmp_path):
    text = "# A page\n\n```python\nx = 1\n```\n\nAnd so\n\n```python\nassert x == {}\n```\n"
    assert run_blocks(text.format(1), tmp_path).returncode == 0
    ran = run_blocks(text.format(2), tmp_path)
    assert ran.returncode == 1
    assert "line 10" in ran.stderr and "AssertionError" in ran.stderr


def test_text_blocks_and_directives_are_not_run(tmp_path):
    text = "```text\nnot Python\n```\n\n```{literalinclude} x.py\n:pyobject: f\n```\n"
    assert blocks_as_script(text).strip() == ""


@each_page
def test_it_includes_code_that_is_there(page):
    included = includes(page.read_text(encoding="utf-8"))
    assert included, "the layer's code is to be included from its source"
    assert [
        w for path, options in included for w in what_is_wrong(page.parent / path, options)
    ] == []


def test_an_include_of_what_is_not_there_is_caught():
    source = ROOT / "npgpt" / "model" / "gpt2.py"
    assert what_is_wrong(source, {"pyobject": "GPT2.loss", "start-at": "def loss"}) == []
    assert what_is_wrong(source, {"pyobject": "block_sideways"}) == [
        f"no block_sideways in {source}"
    ]
    assert what_is_wrong(source, {"pyobject": "GPT2.block_forward"})
    assert what_is_wrong(source, {"end-before": "no such line"})
    assert what_is_wrong(source / "x.py", {})


@each_page
def test_its_pictures_are_there_and_made_by_a_script_beside_it(page):
    scripts = "".join(path.read_text(encoding="utf-8") for path in page.parent.glob("*.py"))
    for alt, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        picture = page.parent / target
        assert len(alt) > 20, f"{target}: say what is seen"
        assert picture.is_file(), target
        assert picture.parent == page.parent and picture.stem in scripts, target
        assert picture.stat().st_size < 100_000, target


@pytest.mark.parametrize("script, section", [("steps.py", 0), ("steps_dots.py", 1)])
def test_the_steps_of_bf16_hardware_are_named_as_the_script_names_them(script, section):
    folder = ROOT / "doc" / "amx"
    parts = re.split("## Without tiles|## One row", (folder / "amx.md").read_text("utf-8"))
    shown = re.findall(r"^\| (.+) \| \d+ \| \d+ to \d+ \|$", parts[section], re.M)
    (cases,) = (
        node.value
        for node in ast.walk(ast.parse((folder / script).read_text("utf-8")))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "cases"
    )
    assert len(shown) > 5
    assert [row.replace("`", "") for row in shown] == [key.value for key in cases.keys]


@pytest.mark.parametrize("script", ["steps", "steps_dots"])
def test_the_scripts_for_bf16_hardware_find_what_they_import(script):
    """Everywhere, also on a CPU that cannot run them."""
    command = [sys.executable, "-c", f"import {script}; {script}.main"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=ROOT / "doc" / "amx", env=environment, check=True)


@pytest.mark.parametrize("path", LINKING, ids=lambda path: str(path.relative_to(ROOT)))
def test_its_links_resolve(path):
    assert [target for target in links(path) if not (path.parent / target).exists()] == []


def test_the_models_tutorial_leads_to_all_others():
    page = ROOT / "doc" / "gpt2" / "gpt2.md"
    linked = {(page.parent / target).resolve() for target in links(page)}
    assert set(PAGES) - linked == {page}


def test_links_are_found_where_they_are(tmp_path):
    text = "[a](b.md#c) ![d](e.png) [f](http://g) [h](#i)\n`[j](k)`\n\n```text\n[l](m)\n```\n"
    page, notebook = tmp_path / "page.md", tmp_path / "notebook.ipynb"
    page.write_text(text, encoding="utf-8")
    cells = [
        {"cell_type": "markdown", "source": [text]},
        {"cell_type": "code", "source": ["[n](o)"]},
    ]
    notebook.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert links(page) == links(notebook) == ["b.md", "e.png"]
