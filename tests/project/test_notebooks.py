"""The notebooks: each runs from top to bottom with its solutions, and names a wrong formula."""

import ast
import os
import re
import resource
import signal
import threading
import time

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

# In the solution of a notebook: a mistake in the place of a piece, and what the check says of it.
MISTAKES = {
    "01_encoder": ("np.add.at(dwte, tokens, dout)", "dwte[tokens] += dout", "dwte is wrong at ["),
    "02_layernorm": (
        "(g - through_mean - through_variance)",
        "(g - through_variance)",
        "dx is wrong at [",
    ),
    "03_matmul": (
        "dw = dout.T @ x.reshape(-1, C)",
        "dw = x.reshape(-1, C).T @ dout",
        "dw is wrong: backward returned shape (4, 5), and it must be (5, 4).",
    ),
    "04_attention": (
        "dpreatt = att * (datt - (att * datt).sum(-1, keepdims=True))",
        "dpreatt = att * datt",
        "dq is wrong at [",
    ),
    "05_gelu": ("(1 + 3 * CUBIC * x**2)", "(1 + CUBIC * x**2)", "dx is wrong at ["),
    "06_crossentropy": ("dlogits *= dloss / len(counted)", "dlogits *= dloss", "dx is wrong at ["),
    "07_adamw": ("v / (1 - beta2**t)", "v", "after step 1, p is wrong at ["),
    "08_training": ("return dx + dbranch  #", "return dbranch  #", "dx is wrong at ["),
}
YOURS = [
    "adamw_update",
    "attention_backward",
    "crossentropy_backward",
    "encoder_backward",
    "gelu_backward",
    "gelu_forward",
    "layernorm_backward",
    "matmul_backward",
    "matmul_forward",
]
COMPILING = r"(compiling kernels.*\s*)+"


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


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def up_to(notebook, last, *sources):
    """The cells of a notebook up to and with one, and cells of code after it."""
    at = notebook.cells.index(last) + 1
    cells = [*notebook.cells[:at], *map(nbformat.v4.new_code_cell, sources)]
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")


def with_id(notebook, name):
    (cell,) = [cell for cell in notebook.cells if cell.id == name]
    return cell


def execute(notebook, folder):
    """Run all cells, in a process that starts in folder -> the seconds of processor time it took.

    That is not the time on the clock, which on a busy machine is any number.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    client_of(notebook, folder).execute(env=environment())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_DISABLE_JIT": "0"}


def client_of(notebook, folder):
    return nbclient.NotebookClient(
        notebook, timeout=20 * 60, kernel_name="python3", resources={"metadata": {"path": folder}}
    )


def warnings(notebook):
    """What the cells have written to stderr, except that kernels are compiled, where it is hidden.

    The site hides it in cells with the tag remove-stderr.
    """
    texts = []
    for cell in code_cells(notebook):
        hidden = "remove-stderr" in cell.metadata.get("tags", [])
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                compiling = re.fullmatch(COMPILING, output.text)
                texts += [] if hidden and compiling else [output.text]
    return texts


@pytest.mark.parametrize("path", NOTEBOOKS[8:], ids=lambda path: path.stem)
def test_it_runs_in_time_and_leaves_no_file(path, tmp_path):
    whole = with_solutions(read(path))
    assert execute(whole, tmp_path) < SECONDS
    assert warnings(whole) == []
    assert list(tmp_path.iterdir()) == []


def test_the_first_seven_run_with_their_solutions_in_time_and_leave_no_file(tmp_path):
    """All in one process, since to start one takes longest; each begins without the other's names.

    The eighth runs below, with the reader's layers.
    """
    wholes = [with_solutions(read(path)) for path in NOTEBOOKS[:7]]
    all_seven = notebook()
    for whole in wholes:
        all_seven.cells += [*whole.cells, *notebook("%reset -f").cells]
    assert execute(all_seven, tmp_path) < SECONDS
    assert list(tmp_path.iterdir()) == []
    for path, whole in zip(NOTEBOOKS[:7], wholes, strict=True):
        assert warnings(whole) == [], path.stem
        for check in tagged(whole, "check"):
            assert "is right. What follows uses it." in printed(check), path.stem
            assert "npgpt's own" not in printed(check), path.stem


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_without_outputs_and_can_fail(path):
    source = read(path)
    nbformat.validate(source)
    assert (source.nbformat, source.nbformat_minor) == (4, 5)
    assert source.metadata.kernelspec.name == "python3"
    assert outputs(source) == []
    assert asserts(source)


@pytest.mark.parametrize("name", MISTAKES)
def test_the_reader_writes_a_function_where_its_formulas_are(name):
    source = read(ROOT / "notebooks" / f"{name}.ipynb")
    (exercise,), (check,) = tagged(source, "exercise"), tagged(source, "check")
    kinds = [cell.cell_type for cell in source.cells]
    at = source.cells.index(exercise)
    assert "raise NotImplementedError" in exercise.source
    assert "$$" in "".join(
        cell.source for cell in source.cells[:at] if cell.cell_type == "markdown"
    )
    assert "<summary>A solution</summary>" in source.cells[at + 1].source
    assert kinds[at : at + 3] == ["code", "markdown", "code"] and source.cells[at + 2] is check
    defined = set(re.findall(r"^def (my_\w+)\(", exercise.source, re.M))
    solved = set(re.findall(r"^def (my_\w+)\(", source.cells[at + 1].source, re.M))
    assert defined == solved and all(f"{function}, " in check.source for function in defined)


def test_what_is_not_written_is_taken_from_npgpt_to_the_end(tmp_path):
    source = read(ROOT / "notebooks" / "06_crossentropy.ipynb")
    (check,) = tagged(source, "check")
    assigned = re.findall(r"^(\w+) = check_\w+\(", check.source, re.M)
    own = "\n".join(f"assert {each} is not my_{each}" for each in assigned)
    source.cells.insert(source.cells.index(check) + 1, nbformat.v4.new_code_cell(own))
    execute(source, tmp_path)
    said = "is not written yet.\nWhat follows uses npgpt's own"
    assert printed(check).count(said) == len(assigned)
    assert list(tmp_path.iterdir()) == []


def with_mistake(name):
    """The cells of a notebook up to its check, with a mistake in the solution; the check's cell."""
    right, wrong, _ = MISTAKES[name]
    whole = with_solutions(read(ROOT / "notebooks" / f"{name}.ipynb"))
    (check,) = tagged(whole, "check")
    solution = whole.cells[whole.cells.index(check) - 1]
    assert solution.source.count(right) == 1
    solution.source = solution.source.replace(right, wrong)
    assigned = re.findall(r"^(\w+) = check_\w+\(", check.source, re.M)[-1]
    return up_to(whole, check, f"assert {assigned} is not my_{assigned}").cells, check


def test_a_mistake_in_the_readers_function_is_named_and_the_function_not_used(tmp_path):
    """In each notebook; all in one process, since to start one takes longest."""
    all_mistakes, checks = notebook(), {}
    for name in MISTAKES:
        cells, checks[name] = with_mistake(name)
        all_mistakes.cells += cells
    execute(all_mistakes, tmp_path)
    for name, (_, _, sentence) in MISTAKES.items():
        text = printed(checks[name])
        assert sentence in text, name
        assert text.endswith("What follows uses npgpt's own function.\n"), name
        assert ("NOT OK" in text) == (name != "07_adamw"), name


def keep_all(folder):
    """Write my_layers.py to a folder, as the first seven notebooks with their solutions do."""
    keeping = "from npgpt.checks.exercises import keep_exercises\nkeep_exercises()"
    all_seven, checks = notebook(keeping), []
    for path in NOTEBOOKS[:7]:
        whole = with_solutions(read(path))
        checks += tagged(whole, "check")
        all_seven.cells += up_to(whole, checks[-1]).cells
    execute(all_seven, folder)
    assert ["my_layers.py keeps it" in printed(check) for check in checks] == [True] * 7


def test_a_model_learns_with_all_of_the_readers_functions_and_a_wrong_one_stops_it(tmp_path):
    keep_all(tmp_path)
    whole = with_solutions(read(ROOT / "notebooks" / "08_training.ipynb"))
    assert execute(whole, tmp_path) < SECONDS
    assert warnings(whole) == []
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["my_layers.py"]
    yours = re.findall(r"^yours: (\w+)$", printed(with_id(whole, "yours-code")), re.M)
    assert sorted(yours) == YOURS
    assert "my_block_backward is right" in printed(with_id(whole, "block-check"))
    pictures = [output for output in with_id(whole, "train-code").outputs if "data" in output]
    assert len(pictures) == 1 and "image/png" in pictures[0].data  # drawn anew in one place
    written = (tmp_path / "my_layers.py").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^def my_(\w+)\(", written, re.M)) == sorted(
        [*YOURS, "block_backward"]
    )

    right, wrong, _ = MISTAKES["02_layernorm"]
    assert written.count(right) == 1
    (tmp_path / "my_layers.py").write_text(written.replace(right, wrong), encoding="utf-8")
    source = read(ROOT / "notebooks" / "08_training.ipynb")
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="AssertionError"):
        execute(up_to(source, with_id(source, "whole-code")), tmp_path)
    assert with_id(source, "whole-code").execution_count is not None


# The cell that trains; what makes it train for ever; the last cell after it that is run; tokens.
INTERRUPTED = {
    "08_training": ("train-code", "STEPS = 450", "free-code", "asked[:, :-1]"),
    "09_inside": ("task-code", "updates=300", "attention-code", "tokens"),
}


@pytest.mark.parametrize("name", INTERRUPTED)
def test_interrupting_the_training_leaves_a_model_that_the_next_cells_use(name, tmp_path):
    training, steps, last, tokens = INTERRUPTED[name]
    source = read(ROOT / "notebooks" / f"{name}.ipynb")
    trains = with_id(source, training)
    assert trains.source.count(steps) == 1
    trains.source = trains.source.replace(steps, re.sub(r"\d+", "1_000_000", steps))
    usable = f"assert np.isfinite(model.forward({tokens})).all()"
    part = up_to(source, with_id(source, last), usable)
    client = client_of(part, tmp_path)
    with client.setup_kernel(env=environment()):
        for number, cell in enumerate(part.cells):
            if cell is trains:
                threading.Thread(target=interrupt, args=(client, cell), daemon=True).start()
            client.execute_cell(cell, number)
    assert re.search(r"Interrupted (at|after) update \d+: the cells below take", printed(trains))
    assert part.cells[-1].execution_count is not None


def interrupt(client, cell):
    """Interrupt the kernel once the cell has shown something, and then something else."""
    shown = set()
    while len(shown) < 2:
        time.sleep(0.05)
        if cell.outputs:
            shown.add(repr(cell.outputs))
    os.kill(client.km.provisioner.pid, signal.SIGINT)


def test_there_is_a_notebook_for_each_layer():
    layers = {path.stem for path in (ROOT / "npgpt" / "layers").glob("*.py")}
    layers -= {"__init__", "grads", "residual"}
    layers -= {"dropout", "muon"}  # have a page in doc/ alone: GPT-2 can do without them
    assert {name[3:] for name in MISTAKES} - {"training"} == layers


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


def test_kernels_may_be_compiled_only_where_the_site_hides_what_they_say(tmp_path):
    line = "compiling kernels for this machine ..."
    source = notebook(*[f"import sys\nprint({line!r}, file=sys.stderr)"] * 2)
    source.cells[0].metadata.tags = ["remove-stderr"]
    execute(source, tmp_path)
    assert warnings(source) == [f"{line}\n"]


def test_outputs_and_a_lack_of_assertions_are_noticed(tmp_path):
    source = notebook("print(1)")
    assert outputs(source) == [] and asserts(source) == []
    execute(source, tmp_path)
    assert outputs(source)
