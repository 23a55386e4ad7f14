"""No code from data: nothing that could run what a file holds is called anywhere in the source."""

import ast

import pytest
from helpers import ROOT

FOLDERS = ("npgpt", "kernels", "bench", "scripts", "doc", ".ci")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
NAMES = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {("os", "system"), ("os", "popen"), ("torch", "load"), ("yaml", "load")}


def dangers(text):
    """What a source has that could run what a file holds: each as text."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            yield from (name for name in names if name.split(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            function, options = node.func, {option.arg: option.value for option in node.keywords}
            if isinstance(function, ast.Name) and function.id in NAMES:
                yield ast.unparse(node)
            elif isinstance(function, ast.Attribute):
                owner = getattr(function.value, "id", None)
                safe = "weights_only" in options and ast.unparse(options["weights_only"]) == "True"
                if (owner, function.attr) in ATTRIBUTES and not safe:
                    yield ast.unparse(node)
            for name in ("shell", "allow_pickle"):
                if name in options and ast.unparse(options[name]) != "False":
                    yield ast.unparse(node)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_what_a_file_holds(path):
    assert list(dangers(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import dill as d",
        "eval(text)",
        "exec(open(path).read())",
        "import os\nos.system(f'rm {path}')",
        "subprocess.run(command, shell=True)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
    ],
)
def test_what_does_is_found(text):
    assert len(list(dangers(text))) == 1


def test_what_does_not_is_not():
    text = "import pickletools\nnp.load(path)\ntorch.load(path, weights_only=True)\nmodel.eval()"
    assert list(dangers(text)) == []
    assert len(SOURCES) > 100
