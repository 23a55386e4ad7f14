"""What several test files share and is no fixture: paths, damaged and made files, scripts run."""

import io
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.resources import files
from pathlib import Path

import numpy as np

from npgpt.core.precision import PRECISIONS, use_bf16_terms
from npgpt.files import pack_header

ROOT = Path(__file__).resolve().parents[1]
TINY_MODEL = files("npgpt") / "assets" / "tiny.bin"
TINY_STATE = files("npgpt") / "assets" / "tiny_debug_state.bin"


def changed(source, target, word, value):
    """A copy of a file with one int32 changed."""
    content = bytearray(source.read_bytes())
    content[4 * word : 4 * word + 4] = np.array(value, "<i4").tobytes()
    target.write_bytes(content)
    return target


def highest(tokens):
    """The largest of Tokens, of all their files."""
    return max(largest for _, largest in tokens.max_token_by_file())


def words_of(index, example):
    """A HellaSwag Example as the words of the file."""
    words = [index, example.label, len(example.completions)]
    for part in (example.context, *example.completions):
        words += [len(part), *part]
    return [65535, 2 * (len(words) + 2), *words]


def write_hellaswag(path, examples, **changed):
    """Write a HellaSwag file of examples, with some words of the header changed -> its path."""
    stream = [words_of(i, example) for i, example in enumerate(examples)]
    longest = max(map(len, stream)) * 2
    words = {"magic": 20240522, "version": 1, "count": len(stream), "longest": longest, **changed}
    path.write_bytes(pack_header(*words.values()) + np.array(sum(stream, []), "<u2").tobytes())
    return path


def token_losses(model, context, completion):
    """By the logits: the loss of each token of the completion, the row cut to the block_size."""
    row = np.concatenate([context, completion])[-(model.config.block_size + 1) :]
    logits = model.forward(row[None, :-1])[0].astype(np.float64)  # (n, V)
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    losses = -np.log(probs[np.arange(len(row) - 1), row[1:]])
    return losses[-len(completion) :]


def run(script, *arguments, options=(), path=(), **env):
    """Run a script as a reader does; the folders in path come first in what it can import."""
    path = os.pathsep.join(map(str, [*path, ROOT]))
    return subprocess.run(
        [sys.executable, *options, script, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "NUMBA_DISABLE_JIT": "0", **env},
    )


def run_here(script, *arguments, status=0):
    """Run a script in this process, to import PyTorch once -> what it printed, of both streams."""
    before, printed, code = sys.argv, io.StringIO(), 0
    sys.argv = [str(script), *map(str, arguments)]
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as stopped:
        code = stopped.code
    finally:
        sys.argv = before
    assert code == status, printed.getvalue()
    return printed.getvalue()


def blocks_as_script(text):
    """The Python blocks of a page, each on its own lines, so that errors name the line."""
    lines, inside = [], False
    for line in text.splitlines():
        fence = line.startswith("```")
        lines.append(line if inside and not fence else "")
        inside = line == "```python" or (inside and not fence)
    return "\n".join(lines) + "\n"


def run_blocks(text, folder):
    """Run the Python blocks of a page as one script."""
    script = folder / "page.py"
    script.write_text(blocks_as_script(text), encoding="utf-8")
    return run(script, options=["-W", "error"])


def computing_in(precision):
    """Context in which kernels multiply in the precision of this name."""
    return use_bf16_terms(PRECISIONS[precision].n_terms)
