"""The page as one file: its scripts, its styles and the answers to what can be asked of one text.

It needs no server and loads nothing. Of a large model the last position has all its numbers, and
the others, before any step, what is said there.
"""

import json
import re
from pathlib import Path
from typing import Any

from npgpt.core.parameters import TENSOR_NAMES
from npgpt.errors import FileError
from npgpt.explore.code import BACKWARD_LINES, FORWARD_LINES
from npgpt.explore.server import page_files
from npgpt.explore.session import Session
from npgpt.explore.wire import to_json
from npgpt.files import atomic_write
from npgpt.tracing.names import BLOCK_SHAPES, SHAPES

SMALL = 1 << 15  # numbers of a tensor of all blocks: then those of all positions are there
EXPLAINED = 3  # the largest numbers of a row have an explanation, of a large model one
TOKENS = 3  # likeliest tokens of a position that are explained
STEPS = (1, 9, 90)  # of training, after each of which the page can show the model


def write_page(session: Session, text: str, folder: Path) -> Path:
    """Write the page of a text to folder/index.html -> its path.

    The model is trained on the text for some steps, which the page shows, and put back.
    """
    from tqdm import tqdm

    session.encode(text)
    learning, taken = session.learning, len(session.learning.losses)
    lr = learning.suggested_rates()["text"]
    with tqdm(total=sum(STEPS), desc="the page's steps", leave=False, delay=1) as bar:
        frames: list[dict[str, Any]] = [{"steps": 0, "answers": answers(session, text)}]
        for steps in STEPS:
            for _ in learning.steps(steps, lr, text):
                bar.update()
            frames.append({"steps": frames[-1]["steps"] + steps, "answers": brief(session, text)})
    saved = {
        "frames": frames,
        "lr": lr,
        "losses": session.progress(taken)["losses"],
        "explained": EXPLAINED if is_small(session, text) else 1,
    }
    for _ in STEPS:
        for _ in learning.undo():
            pass
    path = folder / "index.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be made: {error.strerror}") from error
    with atomic_write(path) as file:
        file.write(one_file(to_json(saved)).encode())
    return path


def one_file(saved):
    """The page with its scripts and styles in it, and the saved answers as JSON."""
    content = {name: data.decode() for name, data in page_files().items()}
    page = content["index.html"].replace(
        '<link rel="stylesheet" href="style.css">', f"<style>\n{content['style.css']}</style>"
    )
    data = saved.replace("<", "\\u003c")  # no text in it ends the script
    first = f'<script type="application/json" id="saved">{data}</script>\n<script src='
    page = page.replace("<script src=", first, 1)
    return re.sub(r'<script src="(\w+\.js)">', lambda found: f"<script>\n{content[found[1]]}", page)


def is_small(session, text):
    """Whether there is room for the numbers of every position."""
    config = session.model.config
    return len(session.encode(text)) * config.n_embd * config.n_layer <= SMALL


def key(name, arguments, edits=()):
    """The key that the page looks an answer up by."""
    words = [
        "" if a is None else ",".join(map(str, a)) if isinstance(a, list) else str(a)
        for a in arguments
    ]
    return "|".join([name, *words, json.dumps(edits, separators=(",", ":")) if edits else ""])


def answers(session, text) -> dict[str, Any]:
    """Every answer of the page as it is opened."""
    T, small = len(session.encode(text)), is_small(session, text)
    positions = range(T) if small else [T - 1]
    found = {key("describe", []): {**session.describe(), "prompt": text}}
    found[key("picture", [])] = session.picture(text)
    add_positions(session, text, range(T), positions, found)
    if T > 1:
        found[key("backward", [None, None])] = session.backward(text)
    for name in tensor_names(session, T > 1):
        found[key("code", [name])] = session.code(name)
        for row in rows(session, name, positions):
            add_row(session, text, name, row, EXPLAINED if small else 1, found)
        if small and T > 1:
            found[key("check", [name, None, None])] = session.check(text, name)
    if small:
        add_edits(session, text, T - 1, found)
    return found


def brief(session, text):
    """The picture and what is said, of a model that has been trained."""
    T = len(session.encode(text))
    positions = range(T) if is_small(session, text) else [T - 1]
    found = {key("picture", []): session.picture(text)}
    add_positions(session, text, positions, positions, found)
    return found


def add_positions(session, text, positions, explained, found):
    """What is said at positions, at those `explained` also why other tokens are, and the blocks."""
    for p in positions:
        add_position(session, text, p, found, others=p in explained)
        for i in range(session.model.config.n_layer):
            found[key("block", [i, p])] = session.block(text, i, p)


def add_position(session, text, p, found, edits=(), others=False):
    """What is said at a position and why; with others, of other likely tokens too."""
    found[key("position", [p, None], edits)] = first = session.position(text, p, None, edits)
    for token in first["top"][:TOKENS] if others else []:
        found[key("position", [p, token["id"]])] = session.position(text, p, token["id"])


def add_row(session, text, name, row, explained, found):
    """A row of a tensor, and how its largest numbers were made."""
    answer = session.numbers(text, name, row)
    found[key("numbers", [name, row, None, None])] = answer
    if name.split(".")[0] in TENSOR_NAMES:
        return
    for channel in answer["largest"][:explained]:
        index = [*answer["row"], channel]
        found[key("explain", [name, index, None, None])] = session.explain(text, name, index)


def add_edits(session, text, p, found):
    """The picture with each head and each MLP switched off, one at a time."""
    config = session.model.config
    for i in range(config.n_layer):
        heads = [{"off": "head", "block": i, "head": h} for h in range(config.n_head)]
        for edit in [*heads, {"off": "mlp", "block": i}]:
            found[key("picture", [], [edit])] = session.picture(text, [edit])
            add_position(session, text, p, found, [edit])


def tensor_names(session, with_gradients):
    """The tensors of the page: activations, parameters and, where there are, gradients."""
    forward = {name for names in FORWARD_LINES.values() for name in names}
    backward = {name for names in BACKWARD_LINES.values() for name in names}
    names = [*forward, *TENSOR_NAMES, *(backward if with_gradients else ())]
    for base in sorted(names):
        plain = base[1:] if base in backward else base
        if plain in SHAPES or plain in ("wte", "wpe", "lnfw", "lnfb"):
            yield base
        else:
            yield from (f"{base}.{i}" for i in range(session.model.config.n_layer))


def rows(session, name, positions):
    """The rows of a tensor that the page can ask for; None: that with the largest number."""
    base = name.split(".")[0]
    plain = base if base in {**BLOCK_SHAPES, **SHAPES} or base in TENSOR_NAMES else base[1:]
    shape = {**BLOCK_SHAPES, **SHAPES}.get(plain, "")
    if plain in ("att", "preatt"):
        return [[h, p] for h in range(session.model.config.n_head) for p in positions]
    if shape.count(" ") == 2:
        return [[p] for p in positions]
    matrix = plain in ("wte", "wpe", "qkvw", "attprojw", "fcw", "fcprojw")
    return [None if matrix else []]
