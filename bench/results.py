"""Results as JSON files, each of which says what measured it, where, when and at which commit."""

import json
import re
import subprocess
from datetime import date
from pathlib import Path

from npgpt.errors import FileError

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
GENERATED = tuple(f":(exclude){name}" for name in ("bench/results", "doc", "README.md"))
REQUIRED = "program", "machine", "commit", "date"


def write_result(program, name, machine, content, folder=RESULTS):
    """Write the result of a program to folder/MACHINE/NAME.json -> the result, the path."""
    result = {
        "program": program, "machine": machine, "commit": commit(),
        "date": date.today().isoformat(), **content,
    }  # fmt: skip
    path = Path(folder) / slug(machine) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return read_result(path), path


def read_result(path):
    """Read a result. Raises FileError where it does not say what REQUIRED names."""
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: not a result: {error}") from error
    missing = [key for key in REQUIRED if not isinstance(result, dict) or not result.get(key)]
    if missing:
        raise FileError(f"{path}: not a result: it has no {' and no '.join(missing)}")
    return result


def read_results(folder=RESULTS):
    """Path -> result of all files under a folder, by machine and name."""
    return {path: read_result(path) for path in sorted(Path(folder).glob("*/*.json"))}


def slug(machine):
    """The folder's name for a kind of machine, such as intel-amx, amd-avx512bf16 or apple."""
    words = re.findall("[a-z0-9]+", machine["cpu"].lower()) or ["unknown"]
    vendor = next((name for name in ("intel", "amd") if name in words), words[0])
    extensions = machine["extensions"].split()[-1:]  # the widest, without LLVM's hyphen: amx-bf16
    return "-".join([vendor, *(name.removesuffix("-bf16") for name in extensions)])


def commit(root=ROOT):
    """The commit of the checkout, without git unknown.

    "-dirty" where it differs in more than results and the pages that are made of them.
    """
    if not (root / ".git").exists():
        return "unknown"
    try:
        name = git(root, "rev-parse", "--short", "HEAD")
        changed = git(root, "status", "--porcelain", "--", ".", *GENERATED)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name + "-dirty" * bool(changed)


def git(root, *arguments):
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
