"""Reference files without PyTorch: a model, a debug state and losses, the same bytes everywhere.

Weights and tokens are made of integers (npgpt.tracing.seeded), results by the oracle, the textbook
in float64 (npgpt.tracing.arithmetic), and rounded to float32 once.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npgpt.core.config import PUBLISHED, GPT2Config
from npgpt.core.parameters import Parameters
from npgpt.errors import FileError
from npgpt.files import atomic_write
from npgpt.formats.debug_state import DebugState, write_debug_state
from npgpt.formats.llmc import read_checkpoint, write_checkpoint
from npgpt.layers.crossentropy import IGNORED
from npgpt.tracing.record import Recorder, Updates
from npgpt.tracing.seeded import random_batch, random_parameters

SIZES = {"tiny": GPT2Config(block_size=40, vocab_size=251, n_layer=2, n_head=4, n_embd=48)}
SIZES.update(PUBLISHED)


class Pair(NamedTuple):
    """A model of these sizes, a batch, and what is special about them.

    ignored: every third target is -1. few: tokens are 0, 1 and 2 alone. times: the weights of qkv
    are that much larger.
    """

    what: str
    config: GPT2Config
    B: int
    T: int
    ignored: bool = False
    few: bool = False
    times: float = 1.0


# Sizes are block_size, vocab_size, n_layer, n_head, n_embd.
PAIRS = {
    "plain": Pair("two layers, two heads", GPT2Config(16, 60, 2, 2, 16), 2, 8),
    "deep": Pair("five layers", GPT2Config(16, 60, 5, 2, 16), 2, 8),
    "one_token": Pair("one row of one token: no attention yet", GPT2Config(16, 60, 1, 2, 16), 1, 1),
    "one_row": Pair("B = 1", GPT2Config(16, 60, 2, 2, 16), 1, 12),
    "one_head": Pair("one head: no layout of heads yet", GPT2Config(16, 60, 2, 1, 16), 2, 8),
    "narrow_heads": Pair("heads of one channel", GPT2Config(16, 60, 2, 8, 8), 2, 8),
    "odd": Pair("odd sizes throughout", GPT2Config(11, 131, 3, 5, 15), 3, 7),
    "padded": Pair("a row more than 128: 127 of padding", GPT2Config(16, 129, 2, 2, 16), 2, 8),
    "full": Pair("no padding, no position to spare", GPT2Config(8, 128, 2, 2, 16), 2, 8),
    "repeated": Pair("three tokens, again and again", GPT2Config(16, 60, 2, 2, 16), 2, 8, few=True),
    "ignored": Pair("positions without a target", GPT2Config(16, 60, 2, 2, 16), 2, 8, ignored=True),
    "loud": Pair("scores of hundreds", GPT2Config(16, 60, 2, 2, 16), 2, 8, times=20.0),
}
PAIR_UPDATES = Updates(steps=10, lr=3e-3, weight_decay=0.5)


def make_pair(name, seed=0):
    """The model and the batch of one of PAIRS -> Parameters, tokens, targets."""
    pair = PAIRS[name]
    params = random_parameters(pair.config, seed)
    x, y = random_batch(seed, pair.B, pair.T, 3 if pair.few else pair.config.vocab_size)
    if pair.ignored:
        y.reshape(-1)[::3] = IGNORED
    params.qkvw *= np.float32(pair.times)
    return params, x, y


def write_reference(folder, name, params, x, y, updates, version=3):
    """Write NAME.bin, NAME_debug_state.bin and NAME_debug_state.losses.json -> their paths, losses.

    version is that of the model file; of version 5, the results are those of its rounded weights.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be created: {error.strerror or error}") from error
    model, state = folder / f"{name}.bin", folder / f"{name}_debug_state.bin"
    write_checkpoint(model, params, version)
    if version == 5:
        params = read_checkpoint(model)
    # The last of the losses is that before the last update, as llm.c's test prints them.
    recorder = Recorder(params, x, y, updates=updates._replace(steps=updates.steps - 1))
    kept = {}

    def see(tensor, array):
        if tensor in ("logits", "loss") or tensor.startswith("step_loss."):
            kept[tensor] = np.array(array, np.float32 if tensor == "logits" else np.float64)

    def write_state(grads):
        with np.errstate(over="ignore", under="ignore"):
            rounded = Parameters(params.config, grads.flat.astype(np.float32))
        write_debug_state(
            state,
            DebugState(x, y, kept.pop("logits"), np.float32(kept["loss"]), rounded),
            1 if version == 1 else 2,
        )

    recorder.run(see, with_gradients=write_state)
    losses = [float(value) for value in kept.values()]
    content = {"losses": losses, "lr": updates.lr, "weight_decay": updates.weight_decay}
    path = state.with_suffix(".losses.json")
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())
    return (model, state, path), losses
