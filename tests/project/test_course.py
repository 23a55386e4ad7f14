"""The course: one table leads through all tutorials and notebooks, and these lead to each other."""

import json
import re

import pytest
from helpers import ROOT

COURSE = ROOT / "doc" / "course.md"
TUTORIALS = sorted(path for path in ROOT.glob("doc/*/*.md") if path.stem == path.parent.name)
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


def links(text, page):
    """The files that a page's text links to, as paths."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"\]\(([^)\s#]+)[^)\s]*\)", text)
    return [(page.parent / target).resolve() for target in found if ":" not in target]


def rows(text):
    """The table's rows, a list of cells each."""
    found = re.findall(r"^\| *(\d+ \|.*)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in found]


def markdown(path):
    """The text of a page, or of a notebook's cells that are no code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return text


def what_is_wrong(text):
    """What is wrong with the course's text, a sentence each."""
    wrong, table = [], rows(text)
    if [row[0] for row in table] != [str(n + 1) for n in range(len(table))]:
        wrong.append("the steps are not numbered 1, 2, 3 and so on")
    if not all(row[3].isdigit() and row[4] for row in table):
        wrong.append("a step says nothing of its minutes or of what is known before")
    in_table = [links(row[2], COURSE) for row in table]
    if in_table != [[path] for path in NOTEBOOKS]:
        wrong.append("the notebooks are not all there once, in their order")
    tutorials = [path for row in table for path in links(row[1], COURSE)]
    optional = links(text.partition("## Optional")[2], COURSE)
    if sorted(tutorials + [path for path in optional if path in TUTORIALS]) != TUTORIALS:
        wrong.append("the tutorials are not all there once")
    others = sorted({*ROOT.glob("doc/*/*.md")} - {*TUTORIALS})
    if sorted(path for path in optional if path not in TUTORIALS) != others:
        wrong.append("the optional pages are not all there once")
    wrong += [f"no file {path}" for path in links(text, COURSE) if not path.exists()]
    return wrong


def minutes(path):
    """How long a notebook takes, by the estimate that the course names, to the nearest ten."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    text = re.sub(r"<details>.*?</details>", "", markdown(path), flags=re.DOTALL)
    tasks = code.count("raise NotImplementedError") + text.count("## Try it")
    tasks += len(re.findall(r"^\d\. ", text.partition("## Exercises")[2], re.MULTILINE))
    lines = sum(bool(line.strip()) for line in code.splitlines())
    return round((len(text.split()) / 200 + lines / 10 + 8 * tasks) / 10) * 10


def pairs():
    """Each tutorial of the table and its notebook."""
    linked = [links(row[1] + row[2], COURSE) for row in rows(markdown(COURSE))]
    return [pair for pair in linked if len(pair) == 2]


def test_it_leads_to_every_tutorial_and_notebook_once_and_in_order():
    assert what_is_wrong(markdown(COURSE)) == []


@pytest.mark.parametrize(
    "old, new, wrong",
    [
        ("| 3 |", "| 4 |", "numbered"),
        ("../notebooks/03_matmul.ipynb", "../notebooks/02_layernorm.ipynb", "the notebooks"),
        ("../notebooks/03_matmul.ipynb", "../notebooks/03_none.ipynb", "no file"),
        ("(gelu/gelu.md)", "(matmul/matmul.md)", "the tutorials"),
        ("(amx/amx.md)", "(guide.md)", "the tutorials"),
        ("| 80 | steps 1 to 7 |", "| | steps 1 to 7 |", "minutes"),
    ],
)
def test_what_is_wrong_with_it_is_noticed(old, new, wrong):
    text = markdown(COURSE)
    assert text.count(old) == 1
    assert any(wrong in sentence for sentence in what_is_wrong(text.replace(old, new)))


def test_the_notebooks_are_numbered_without_holes_in_their_names_and_titles():
    for number, path in enumerate(NOTEBOOKS, 1):
        assert path.name.startswith(f"{number:02}_")
        assert markdown(path).startswith(f"# {number}. ")


def test_tutorials_and_notebooks_are_paired_by_layer():
    assert len(pairs()) == 8
    for tutorial, notebook in pairs()[:-1]:
        assert notebook.stem[3:] == tutorial.stem
    assert [path.stem for path in pairs()[-1]] == ["gpt2", "08_training"]


def test_the_minutes_are_those_of_the_estimate():
    assert [int(row[3]) for row in rows(markdown(COURSE))] == [minutes(path) for path in NOTEBOOKS]


@pytest.mark.parametrize("tutorial, notebook", pairs(), ids=lambda path: path.stem)
def test_a_tutorial_and_its_notebook_lead_to_each_other(tutorial, notebook):
    assert tutorial in links(markdown(notebook), notebook)
    assert notebook in links(markdown(tutorial), tutorial)


def test_the_models_tutorial_and_the_notebooks_page_lead_to_the_course():
    for page in (ROOT / "doc" / "gpt2" / "gpt2.md", ROOT / "notebooks" / "README.md"):
        assert COURSE in links(markdown(page), page)


def test_the_line_that_starts_the_notebooks_is_the_same_everywhere():
    pages = [COURSE, ROOT / "notebooks" / "README.md"]
    starts = {
        line
        for page in pages
        for line in re.findall(r"^.*jupyter lab .*$", page.read_text("utf-8"), re.M)
        if line.startswith(".venv/bin")
    }
    assert len(starts) == 1
    (line,) = starts
    assert "'.[notebooks]'" in line
