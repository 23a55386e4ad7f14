"""Look inside a model: attention, residual stream, logit lens, norms, and the time of each layer.

A forward pass of the textbook keeps all that its backward pass needs, and `look` hands it out.
npgpt.pictures draws what these functions compute.
"""

import statistics
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from npgpt import layers
from npgpt.errors import ArgumentError
from npgpt.gpt2 import BACKENDS, GPT2, body_forward
from npgpt.parameters import BLOCK_NAMES
from npgpt.tokenizer import END_OF_TEXT

PAUSE = 0.3  # seconds: so long the threads of one backend can spin on, in the other one's way
VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\t": "→"})


@dataclass
class Inside:
    """What a forward pass over tokens (B, T) went through.

    att (L, B, NH, T, T): how much row t of a head looks at column s. residual (P, B, T, C): the
    residual stream at P = 2 L + 1 places, after the embedding and after each attention and MLP.
    """

    tokens: np.ndarray
    att: np.ndarray
    residual: np.ndarray

    @property
    def places(self):
        """The names of the P places: embedding, attention 0, mlp 0, attention 1, ..."""
        blocks = range(len(self.att))
        return ["embedding", *(f"{part} {i}" for i in blocks for part in ("attention", "mlp"))]

    @property
    def norms(self):
        """The Euclidean norm of the residual stream at each place and position (P, B, T)."""
        return np.linalg.norm(self.residual, axis=-1)


def look(model, tokens):
    """Run a GPT2 over tokens (B, T), with the textbook's layers -> Inside.

    The kernels do not keep att. It takes the memory of L * B * NH * T * T numbers.
    """
    tokens = model._check("tokens", tokens, lowest=0)
    _, (_, block_caches, lnf_cache) = body_forward(tokens, model.params, layers)
    residual, att = [], []
    for ln1_cache, _, att_cache, _, ln2_cache, *_ in block_caches:
        residual += [ln1_cache[0], ln2_cache[0]]  # what a layernorm is given is the stream there
        att.append(att_cache[1])
    residual.append(lnf_cache[0])
    return Inside(tokens, np.stack(att), np.stack(residual))


def early_logits(model, x):
    """The logits if the residual stream x (B, T, C) were what the last block gives -> (B, T, V)."""
    lnf, _ = layers.layernorm_forward(x, model.params.lnfw, model.params.lnfb)  # (B, T, C)
    logits, _ = layers.matmul_forward(lnf, model.params.wte)
    return logits


class Lens(NamedTuple):
    """The likeliest token at each place and position, and its probability: both (P, B, T)."""

    tokens: np.ndarray
    probs: np.ndarray


def logit_lens(model, residual):
    """What the model would say at each place of the residual stream (P, B, T, C) -> Lens.

    nostalgebraist 2020, https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru
    """
    tokens, probs = [], []
    for x in residual:
        logits = early_logits(model, x)  # (B, T, V)
        highest = logits.max(-1, keepdims=True)  # (B, T, 1)
        tokens.append(logits.argmax(-1))
        probs.append(1 / np.exp(logits - highest).sum(-1))  # its own exponential is 1
    return Lens(np.stack(tokens), np.stack(probs))


def tensor_norms(parameters):
    """The Euclidean norm of each tensor of Parameters: weights, gradients (`model.grads`), moments.

    -> name: (L,), the norm in each layer, or of wte, wpe, lnfw and lnfb a float.
    """
    norms = {}
    for name, view in parameters.items():
        if name in BLOCK_NAMES:
            norms[name] = np.linalg.norm(view.reshape(len(view), -1), axis=-1)  # (L,)
        else:
            norms[name] = float(np.linalg.norm(view))
    return norms


def token_labels(tokens, tokenizer=None):
    """How to write tokens (T,) beside a picture: their text, its spaces visible, or their ids."""
    if tokenizer is None:
        return [str(token) for token in tokens]
    texts = [tokenizer.decode([token]).translate(VISIBLE) for token in tokens]
    texts = ["<eot>" if text == END_OF_TEXT else text for text in texts]
    return [text if text.isprintable() else ascii(text)[1:-1] for text in texts]


def layer_times(model, tokens, targets, rounds=5):
    """The time that each layer takes of a step, all its calls together, in textbook and kernels.

    -> {backend: {layer: (seconds forward, seconds backward)}}, medians over so many rounds. In each
    the two backends do one forward_backward(tokens, targets) of the GPT2 in turn; a first round,
    which compiles the kernels, does not count. `model` itself is left as it is.
    """
    if rounds < 1:
        raise ArgumentError(f"rounds must be at least 1, not {rounds!r}")
    clocks = {backend: Clock(model, backend) for backend in BACKENDS}
    measured = {backend: [] for backend in BACKENDS}
    for _ in range(rounds + 1):
        for backend, clock in clocks.items():
            time.sleep(PAUSE)
            measured[backend].append(clock.step(tokens, targets))
    return {backend: medians(steps[1:]) for backend, steps in measured.items()}


def medians(steps):
    """A list of {layer: (forward, backward)} -> one, of medians."""
    return {
        name: tuple(map(statistics.median, zip(*(step[name] for step in steps), strict=True)))
        for name in steps[0]
    }


class Clock:
    """A GPT2 on another one's parameters whose layers are timed."""

    def __init__(self, model, backend):
        precision = model.precision if backend == "numba" else "fp32"
        self.model = GPT2(model.config, backend=backend, params=model.params, precision=precision)
        own = self.model.layers
        self.model.layers = SimpleNamespace(
            **{name: self.timed(name, getattr(own, name)) for name in own.__all__}
        )

    def timed(self, name, function):
        layer, _, way = name.rpartition("_")

        def wrapper(*args, **kwargs):
            start = time.perf_counter()
            result = function(*args, **kwargs)
            seconds = time.perf_counter() - start
            behind_loss = way == "add" and "crossentropy" in self.seconds  # of residual_add
            self.seconds.setdefault(layer, [0.0, 0.0])[way == "backward" or behind_loss] += seconds
            return result

        return wrapper

    def step(self, tokens, targets):
        """One forward_backward -> {layer: (seconds forward, seconds backward)}."""
        self.seconds = {}
        self.model.forward_backward(tokens, targets)
        return {layer: tuple(seconds) for layer, seconds in self.seconds.items()}
