"""The order of the house: which room may import which, no program imported, no circle of files.

Imports are read from the source, those inside of functions too, and so are strings that name a
module, which is how importlib is asked for one.
"""

import ast
import os
import tomllib
from pathlib import Path

import pytest
from helpers import ROOT

# From bottom to top: what a room may import besides itself. Rooms of the ground are files.
MAY_IMPORT = {
    "errors": set(),
    "wording": set(),
    "layers": set(),
    "files": {"errors", "wording"},
    "cli": {"errors", "wording"},
    "core": {"errors"},
    "kernels": {"errors", "core", "layers"},
    "data": {"errors", "wording", "files", "layers", "core"},
    "formats": {"errors", "wording", "files", "core", "data"},
    "model": {"errors", "wording", "layers", "core", "kernels", "data", "formats"},
    "tracing": {"errors", "files", "layers", "core", "data", "model"},
    "porting": {"errors", "wording", "files", "layers", "core", "formats", "tracing"},
    "parallel": {"errors", "wording", "core", "kernels", "model"},
    "evaluation": {"errors", "wording", "files", "layers", "data", "model", "parallel"},
    "inside": {"errors", "wording", "layers", "core", "data", "model"},
    "checks": {"errors", "layers", "core", "model"},
    "explore": {
        "errors", "wording", "files", "layers", "core", "kernels", "data", "formats", "model",
        "tracing", "inside", "checks",
    },
    "training": {
        "errors", "wording", "files", "layers", "core", "data", "formats", "model", "parallel",
        "evaluation", "inside",
    },
}  # fmt: skip
# The same inside kernels/, whose files at the top are the twins.
TWINS = "the twins"
KERNELS_MAY_IMPORT = {
    "codegen": set(),
    "numerics": {"codegen"},
    "memory": {"codegen"},
    "products": {"codegen", "numerics", "memory"},
    "heads": {"codegen", "numerics", "memory", "products"},
    TWINS: {"codegen", "numerics", "memory", "products", "heads"},
    "decode": {"codegen", "numerics", "memory", "products", "heads", TWINS},
}
ORDER = list(MAY_IMPORT)
PROGRAMS = "the programs"


def modules(package):
    """The modules of a package's folder, with those that are behind links: dotted name -> path."""
    found = {}
    for folder, _, names in os.walk(package, followlinks=True):
        for name in names:
            if name.endswith(".py"):
                path = Path(folder) / name
                parts = path.relative_to(package.parent).with_suffix("").parts
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name, path, known, at_load=False):
    """The modules among the known ones that a file imports; at_load: not by functions or types."""
    found, stack = set(), [ast.parse(path.read_text(encoding="utf-8"))]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            found |= {nearest(alias.name, known) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            found |= {nearest(f"{base}.{alias.name}", known) for alias in node.names}
        elif isinstance(node, ast.Constant) and not at_load and node.value in known:
            found.add(node.value if "." in node.value else None)
        if at_load and (is_function(node) or is_for_types(node)):
            continue
        stack += ast.iter_child_nodes(node)
    return found - {None, name}


def nearest(dotted, known):
    """The known module that a.b.c names: itself or, where c is what a.b defines, a.b; or None."""
    if dotted in known:
        return dotted
    above = dotted.rpartition(".")[0]
    return above if above in known else None


def is_function(node):
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def is_for_types(node):
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def has_main(path):
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(is_function(node) and node.name == "main" for node in body)


def room_of(name, path):
    """The room of a module: a folder, a file of the ground, PROGRAMS, or "" for the public face."""
    parts = name.split(".")
    if len(parts) == 1:
        return ""
    at_top = len(parts) == 2 and path.name != "__init__.py"
    return PROGRAMS if at_top and parts[1] not in ORDER and has_main(path) else parts[1]


def out_of_order(package):
    """What breaks the rules of the rooms, a sentence each."""
    known, wrong = modules(package), []
    rooms = {name: room_of(name, path) for name, path in known.items()}
    for room in sorted({*rooms.values()} - {*ORDER, PROGRAMS, ""}):
        wrong.append(f"{room} has no main and is no room that the order knows")
    for name, path in sorted(known.items()):
        room = rooms[name]
        for target in sorted(imports(name, path, known)):
            to = rooms[target]
            if to == PROGRAMS:
                if path.name != "__main__.py":  # the one that starts them
                    wrong.append(f"{name} imports the program {target}")
            elif to == "":
                if room != PROGRAMS:
                    wrong.append(f"{name} imports the public names, and not where they are from")
            elif room in ORDER and to != room and to not in MAY_IMPORT[room]:
                wrong.append(f"{name} imports {target}: {room} may not import {to}")
    return wrong


def kernels_out_of_order(package):
    """What breaks the order of the rooms inside kernels, a sentence each."""
    known = {n: p for n, p in modules(package).items() if n.startswith("npgpt.kernels.")}
    wrong = []
    for name, path in sorted(known.items()):
        for target in sorted(imports(name, path, known)):
            room, to = kernels_room(name), kernels_room(target)
            if to != room and to not in KERNELS_MAY_IMPORT[room]:
                wrong.append(f"{name} imports {target}: {room} may not import {to}")
    return wrong


def kernels_room(name):
    part = name.split(".")[2]
    return part if part in KERNELS_MAY_IMPORT else TWINS


def circle(package):
    """The modules of a circle of imports while they are loaded, the first one again at its end."""
    known = modules(package)
    after = {name: imports(name, path, known, at_load=True) for name, path in known.items()}
    done, way = set(), []

    def walk(name):
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        way.append(name)
        found = next(filter(None, map(walk, sorted(after[name]))), [])
        way.pop()
        done.add(name)
        return found

    return next(filter(None, map(walk, sorted(after))), [])


def test_the_table_goes_from_bottom_to_top():
    for room, lower in MAY_IMPORT.items():
        assert lower <= {*ORDER[: ORDER.index(room)]}, room
    assert "layers" not in MAY_IMPORT["core"] and "core" not in MAY_IMPORT["layers"]
    for beside in ("evaluation", "inside", "checks"):
        assert not MAY_IMPORT[beside] & {"evaluation", "inside", "checks"}
    assert all("cli" not in lower for lower in MAY_IMPORT.values())


def test_every_room_imports_lower_ones_alone():
    assert out_of_order(ROOT / "npgpt") == []


def test_kernels_has_the_textbooks_twins_at_its_top_and_rooms_below():
    found = modules(ROOT / "npgpt")
    assert kernels_out_of_order(ROOT / "npgpt") == []
    top = {path.stem for path in (ROOT / "kernels").glob("*.py")}
    assert top <= {path.stem for path in (ROOT / "npgpt" / "layers").glob("*.py")}
    below = {name.split(".")[2] for name in found if name.startswith("npgpt.kernels.")} - top
    assert below == {*KERNELS_MAY_IMPORT} - {TWINS}


@pytest.mark.parametrize(
    ("name", "text", "n_wrong"),
    [
        ("heads/a.py", "from npgpt.kernels.products import gemm", 0),
        ("decode/a.py", "from npgpt.kernels.gelu import f", 0),
        ("products/a.py", "from npgpt.kernels import gelu", 1),
        ("codegen/a.py", "from npgpt.kernels.memory import buffers", 1),
        ("gelu.py", "from npgpt.kernels.decode import blocks", 1),
    ],
)
def test_what_is_out_of_order_in_kernels_is_found(name, text, n_wrong, tmp_path):
    rooms = ("products/gemm.py", "memory/buffers.py", "decode/blocks.py", "gelu.py")
    files = {f"kernels/{path}": "" for path in rooms} | {f"kernels/{name}": text}
    assert len(kernels_out_of_order(house(tmp_path, files))) == n_wrong


def test_every_room_of_the_table_is_there():
    found = modules(ROOT / "npgpt")
    assert {room_of(name, path) for name, path in found.items()} == {*ORDER, PROGRAMS, ""}
    assert "npgpt.kernels.matmul" in found  # behind the link
    named = imports("npgpt.__main__", found["npgpt.__main__"], found)  # and those in strings
    programs = {n for n, path in found.items() if room_of(n, path) == PROGRAMS}
    assert programs - {"npgpt.__main__"} <= named


def test_no_files_import_each_other_in_a_circle():
    assert circle(ROOT / "npgpt") == []


def house(folder, files):
    """A package npgpt of these files, by path -> its folder."""
    ground = dict.fromkeys(["__init__.py", "errors.py", "files.py", "cli.py"], "")
    for name, text in {**ground, **files}.items():
        path = folder / "npgpt" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "npgpt"


def test_a_house_in_order_is_found_to_be_so(tmp_path):
    package = house(tmp_path, {
        "__init__.py": "from npgpt.model.gpt2 import GPT2\n",
        "layers/gelu.py": "import math\n\nimport numpy\n",
        "core/config.py": "from npgpt.errors import ArgumentError\n",
        "model/__init__.py": "",
        "model/gpt2.py": "from npgpt.core import config\nimport npgpt.layers.gelu\n",
        "model/other.py": "from . import gpt2\nfrom .gpt2 import f\nfrom ..core.config import g\n",
        "sample.py": "import npgpt\nfrom npgpt.model.gpt2 import GPT2\ndef main(): pass\n",
        "__main__.py": "import importlib\nX = 'npgpt.sample'\ndef main(): importlib.f(X)\n",
    })  # fmt: skip
    assert out_of_order(package) == []
    assert circle(package) == []


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("core/a.py", "from npgpt.layers import gelu", "core may not import layers"),
        ("layers/a.py", "import npgpt.core.config", "layers may not import core"),
        ("layers/a.py", "from npgpt import errors", "layers may not import errors"),
        ("data/a.py", "from npgpt.formats.llmc import f", "data may not import formats"),
        ("kernels/a.py", "from npgpt.model import gpt2", "kernels may not import model"),
        ("kernels/b/a.py", "from npgpt.model import gpt2", "kernels may not import model"),
        ("formats/a.py", "from ..model.gpt2 import f", "formats may not import model"),
        ("model/a.py", "from npgpt.training import loop", "model may not import training"),
        ("inside/a.py", "from npgpt.evaluation import loss", "inside may not import evaluation"),
        ("checks/a.py", "from npgpt.inside import look", "checks may not import inside"),
        ("training/a.py", "from npgpt.cli import Parser", "training may not import cli"),
        ("files.py", "from npgpt.cli import Parser", "files may not import cli"),
        ("errors.py", "from npgpt.files import open_for_reading", "errors may not import files"),
        (
            "model/a.py",
            "def f():\n    from npgpt.training import loop",
            "may not import training",
        ),
        ("model/a.py", "def f():\n    g('npgpt.training.loop')", "may not import training"),
        ("model/a.py", "class A:\n    import npgpt.training.loop as b", "may not import training"),
        ("model/a.py", "from npgpt.sample import main", "imports the program npgpt.sample"),
        ("model/a.py", "import_module('npgpt.sample')", "imports the program npgpt.sample"),
        ("plot.py", "import npgpt.sample\ndef main(): pass", "imports the program npgpt.sample"),
        ("model/a.py", "import npgpt", "imports the public names"),
        ("model/a.py", "from npgpt import GPT2", "imports the public names"),
        ("attic/a.py", "", "attic has no main and is no room"),
        ("gpt2.py", "", "gpt2 has no main and is no room"),
    ],
)
def test_what_is_out_of_order_is_found(name, text, words, tmp_path):
    rooms = {
        "layers/gelu.py": "", "core/config.py": "", "formats/llmc.py": "", "model/gpt2.py": "",
        "evaluation/loss.py": "", "inside/look.py": "", "training/loop.py": "",
        "sample.py": "def main(): pass",
    }  # fmt: skip
    (wrong,) = out_of_order(house(tmp_path, {**rooms, name: text}))
    assert words in wrong


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"data/a.py": "from npgpt.data import a2", "data/a2.py": "import npgpt.data.a"}, True),
        (
            {
                "data/a.py": "import npgpt.data.b",
                "data/b.py": "from npgpt.data.c import f",
                "data/c.py": "try:\n    from .a import g\nexcept ImportError:\n    pass",
            },
            True,
        ),
        ({"data/__init__.py": "from .a import f", "data/a.py": "from npgpt.data import f"}, True),
        (
            {
                "data/a.py": "import npgpt.data.b",
                "data/b.py": "def f():\n    import npgpt.data.a",
            },
            False,
        ),
        (
            {
                "data/a.py": "import npgpt.data.b",
                "data/b.py": "if TYPE_CHECKING:\n    from npgpt.data.a import A",
            },
            False,
        ),
    ],
)  # fmt: skip
def test_a_circle_is_found(files, found, tmp_path):
    way = circle(house(tmp_path, files))
    assert bool(way) == found
    if found:
        assert way[0] == way[-1] and len({*way}) == len(way) - 1 >= 2


def test_the_wheel_has_every_room():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rooms = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for path in [*ROOT.glob("npgpt/*/__init__.py"), *ROOT.glob("kernels/**/__init__.py")]
    }
    rooms = {name.replace("kernels", "npgpt.kernels") if name[0] == "k" else name for name in rooms}
    assert set(settings["tool"]["setuptools"]["packages"]) == rooms | {"npgpt"}
