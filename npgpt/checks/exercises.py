"""Check the functions that a reader of the notebooks writes, and say in words what is wrong.

Each check takes the reader's function and the textbook's, prints what it has found, and returns the
one to go on with: the reader's if it is right, else the textbook's.
"""

import ast
import inspect
import traceback
from pathlib import Path

import numpy as np

from npgpt.checks.gradcheck import gradcheck
from npgpt.errors import ArgumentError

KEPT = "my_layers.py"  # in the working directory, which is the notebooks' folder in JupyterLab
HEADER = '''"""The functions that you have written in the notebooks, for notebook 8."""

import math

import numpy as np

EPS = 1e-5  # of layernorm
SCALE, CUBIC = math.sqrt(2 / math.pi), 0.044715  # of gelu
'''


def check_backward(mine, textbook, forward, *arguments, call=None):
    """Compare a backward pass with central differences of its forward pass, by gradcheck.

    call, if given, makes the function that gradcheck calls from the reader's.
    """

    def find_fault():
        report = gradcheck(forward, mine if call is None else call(mine), *arguments)
        print(report)
        return "\n".join(in_words(row) for row in report.rows if not row.ok)

    return right_one(mine, textbook, find_fault)


def in_words(row):
    """What is wrong with one of gradcheck's rows, a sentence."""
    if row.note.startswith("at "):
        where, found = row.note.split(": ", 1)
        found = found.replace("by differences", "and by differences of the forward pass")
        return f"{row.argument} is wrong {where}: yours is {found}."
    return f"{row.argument} is wrong: {row.note}, and it must be {row.shape}."


def check_forward(mine, textbook, *arguments):
    """Compare a forward pass, its output and its cache, with the textbook's."""

    def find_fault():
        out, cache = mine(*arguments)
        expected, expected_cache = textbook(*arguments)
        fault = difference("out", out, expected)
        parts, expected_parts = (
            c if isinstance(c, tuple) else (c,) for c in (cache, expected_cache)
        )
        if not fault and len(parts) != len(expected_parts):
            fault = f"the cache has {len(parts)} entries, and must have {len(expected_parts)}."
        for i, pair in enumerate(zip(parts, expected_parts, strict=False)):
            fault = fault or difference(f"entry {i} of the cache", *pair)
        return fault

    return right_one(mine, textbook, find_fault)


def check_update(mine, textbook):
    """Compare three steps of AdamW on eight parameters with the textbook's."""

    def find_fault():
        rng = np.random.default_rng(0)
        ours = [rng.standard_normal(8), np.zeros(8), np.zeros(8)]  # p, m and v
        theirs = [a.copy() for a in ours]
        for t in (1, 2, 3):
            g = rng.standard_normal(8) * 10.0 ** np.arange(-6, 2)
            for update, (p, m, v) in ((mine, ours), (textbook, theirs)):
                update(p, g, m, v, t, 0.1, 0.9, 0.99, 1e-4, 0.5, 0.7)
            for name, i in (("m", 1), ("v", 2), ("p", 0)):
                fault = difference(f"after step {t}, {name}", ours[i], theirs[i])
                if fault:
                    return fault
        return ""

    return right_one(mine, textbook, find_fault)


def difference(name, actual, expected):
    """How an array differs from the expected one, a sentence, or nothing."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        return f"{name} has the shape {actual.shape}, and must have {expected.shape}."
    off = ~np.isclose(actual, expected, rtol=1e-9, atol=1e-12)
    if not off.any():
        return ""
    error = np.where(off, np.nan_to_num(np.abs(actual - expected), nan=np.inf), -1)
    worst = np.unravel_index(np.argmax(error), off.shape)
    at = f" at {[*map(int, worst)]}" if worst else ""
    return (
        f"{name} is wrong{at}: yours is {actual[worst]:.6g}, and it must be {expected[worst]:.6g}."
    )


def right_one(mine, textbook, find_fault):
    """Print what find_fault says of the reader's function -> that function, or the textbook's."""
    try:
        fault = find_fault()
    except NotImplementedError:
        fault = f"{mine.__name__} is not written yet."
    except ArgumentError as error:  # gradcheck's: the number of gradients, or an argument changed
        fault = f"{mine.__name__}: {error}."
    except Exception as error:
        fault = f"{mine.__name__} stops{line_of(mine, error)}: {type(error).__name__}: {error}"
    if fault:
        print(f"{fault}\nWhat follows uses npgpt's own function.")
        return textbook
    kept = keep(mine)
    print(f"{mine.__name__} is right. What follows uses it{kept}.")
    return mine


def line_of(function, error):
    """The line of the function at which the error came up, as words."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.name == function.__name__:
            return f" at `{frame.line}`"
    return ""


def keep_exercises():
    """Create my_layers.py, which from now on receives every function that passes its check."""
    path = Path(KEPT)
    if not path.exists():
        path.write_text(HEADER, encoding="utf-8")
    print(f"what is right is kept in {path.resolve()}")


def keep(function):
    """Write the function's source to my_layers.py, if there is one -> words that say so."""
    path = Path(KEPT)
    if not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8")
    source = inspect.getsource(function).rstrip() + "\n"
    lines = text.splitlines(keepends=True)
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == function.__name__:
            lines[node.lineno - 1 : node.end_lineno] = [source]
            break
    else:
        lines += ["\n\n", source]
    path.write_text("".join(lines), encoding="utf-8")
    return f", and {KEPT} keeps it"
