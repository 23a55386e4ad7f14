"""The notebooks: each runs from top to bottom with its solutions, and stops at a wrong formula."""

import ast
import os
import re
import resource

import pytest
from helpers import ROOT

pytestmark = pytest.mark.slow

why = "the notebooks run with the extra `notebooks`: pip install -e '.[notebooks]'"
nbformat = pytest.importorskip("nbformat", reason=why)
nbclient = pytest.importorskip("nbclient", reason=why)
ipython = pytest.importorskip("IPython.core.inputtransformer2", reason=why)
pytest.importorskip("ipykernel", reason=why)
pytest.importorskip("matplotlib", reason=why)

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS = 120

# A piece of the functions that the reader of a layer's notebook writes, and a mistake instead.
MISTAKES = {
    "01_encoder": ("np.add.at(dwte, tokens, dout)", "dwte[tokens] += dout"),
    "02_layernorm": ("(g - through_mean - through_variance)", "(g - through_variance)"),
    "03_matmul": ("dw = dout.T @ x.reshape(-1, C)", "dw = x.reshape(-1, C).T @ dout"),
    "04_attention": ("dp = a * (da - (a * da).sum(-1, keepdims=True))", "dp = a * da"),
    "05_gelu": ("(1 + 3 * CUBIC * x**2)", "(1 + CUBIC * x**2)"),
    "06_crossentropy": ("dlogits *= dloss / len(counted)", "dlogits *= dloss"),
    "07_adamw": ("v / (1 - beta2**t)", "v"),
}


def read(path):
    return nbformat.read(path, as_version=4)


def notebook(*sources):
    """A notebook of cells of code."""
    return nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, sources)))


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    """What the cells have left: outputs, and counts of how often they have run."""
    cells = code_cells(notebook)
    return [cell for cell in cells if cell.outputs or cell.execution_count is not None]


def asserts(notebook):
    python = ipython.TransformerManager().transform_cell  # a line such as %matplotlib is none
    trees = [ast.parse(python(cell.source)) for cell in code_cells(notebook)]
    return [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Assert)]


def with_solutions(notebook):
    """The notebook with each ```python block of its text as a cell of code behind that text."""
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "markdown":
            blocks = re.findall(r"^```python\n(.*?)^```$", cell.source, flags=re.DOTALL | re.M)
            cells += map(nbformat.v4.new_code_cell, blocks)
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def execute(notebook, folder):
    """Run all cells, in a process that starts in folder -> the seconds of processor time it took.

    That is not the time on the clock, which on a busy machine is any number.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_DISABLE_JIT": "0"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    client = nbclient.NotebookClient(
        notebook, timeout=20 * 60, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    client.execute(env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def warnings(notebook):
    """What the cells have written to stderr, but for what Numba's kernels say of being compiled."""
    texts = [
        output.text
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stderr"
    ]
    return [text for text in texts if not re.fullmatch(r"(compiling kernels.*\s*)+", text)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_with_its_solutions_in_time_and_leaves_no_file(path, tmp_path):
    whole = with_solutions(read(path))
    assert execute(whole, tmp_path) < SECONDS
    assert warnings(whole) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_without_outputs_and_can_fail(path):
    source = read(path)
    nbformat.validate(source)
    assert (source.nbformat, source.nbformat_minor) == (4, 5)
    assert source.metadata.kernelspec.name == "python3"
    assert outputs(source) == []
    assert asserts(source)


@pytest.mark.parametrize("name", MISTAKES)
def test_it_stops_at_a_mistake_in_the_readers_own_functions(name, tmp_path):
    right, wrong = MISTAKES[name]
    source = read(ROOT / "notebooks" / f"{name}.ipynb")
    *_, functions, _ = code_cells(source)[:4]  # behind the set-up and in front of their check
    assert functions.source.count(right) == 1
    functions.source = functions.source.replace(right, wrong)
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="AssertionError"):
        execute(source, tmp_path)
    ran = [cell for cell in code_cells(source) if cell.execution_count is not None]
    assert len(ran) == 4  # it was the check that failed, not some experiment


def test_there_is_a_notebook_for_each_layer():
    layers = {path.stem for path in (ROOT / "npgpt" / "layers").glob("*.py")}
    layers -= {"__init__", "grads", "residual"}
    assert {name[3:] for name in MISTAKES} == layers


def test_a_failing_assertion_is_noticed(tmp_path):
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="AssertionError"):
        execute(notebook("x = 1", "assert x == 2"), tmp_path)


def test_a_failing_solution_is_noticed(tmp_path):
    answer = nbformat.v4.new_markdown_cell("An answer\n\n```python\nassert 1 == 2\n```\n")
    source = nbformat.v4.new_notebook(cells=[answer])
    execute(source, tmp_path)  # as the reader sees it
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="assert 1 == 2"):
        execute(with_solutions(source), tmp_path)


def test_a_warning_a_file_and_much_time_are_noticed(tmp_path):
    source = notebook(
        "import warnings\nwarnings.warn('odd')",
        "open('left', 'w').close()",
        "import time\nwhile time.process_time() < 4: pass",
    )
    assert execute(source, tmp_path) > 4
    (text,) = warnings(source)
    assert "odd" in text
    assert [path.name for path in tmp_path.iterdir()] == ["left"]


def test_outputs_and_a_lack_of_assertions_are_noticed(tmp_path):
    source = notebook("print(1)")
    assert outputs(source) == [] and asserts(source) == []
    execute(source, tmp_path)
    assert outputs(source)
