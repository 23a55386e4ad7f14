"""The tensors of one text, by the textbook, under the names of a trace and without its batch.

A forward pass alone, or with a backward pass whose gradients of the parameters go into a buffer
that is there already. The linear layers of a large model are the kernels' twins.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np

from npgpt import kernels, layers
from npgpt.core.parameters import TENSOR_NAMES
from npgpt.errors import ArgumentError
from npgpt.layers.crossentropy import IGNORED
from npgpt.model.passes import body_forward
from npgpt.tracing.names import split_name
from npgpt.tracing.record import Recorder
from npgpt.tracing.taps import TextbookTap

Tensors = dict[str, Any]
LARGE = 10_000_000  # parameters: then the kernels' products take a third of the time of NumPy's


class LeanTap(TextbookTap):
    """The textbook's Tap without the encoder's own dwte, which would be another array like wte."""

    def encoder_backward(self, dout, cache, out, add):
        """Add to what is in out, by the encoder's twin."""
        _, _, params = self.called("encoder_backward")
        kernels.encoder_backward(dout, cache, out, add)
        self.see_gradients(params, out)


def layers_of(model):
    """The layers that the passes of a model call."""
    if model.params.flat.size < LARGE:
        return layers
    twins = {name: getattr(kernels, name) for name in ("matmul_forward", "matmul_backward")}
    return SimpleNamespace(**vars(layers) | twins)


def next_tokens(tokens):
    """Each token's next one, -1 behind the last: tokens (T,) -> targets (T,)."""
    return np.append(tokens[1:], IGNORED)


def forward(model, tokens, targets, edits=None) -> Tensors:
    """The tensors of a forward pass over tokens (T,); targets (T,) are -1 where there is none."""
    tensors: Tensors = {}

    def see(name, array):
        tensors[name] = array[0]

    called = layers_of(model)
    tap = TextbookTap(called, model.config.n_layer, see, edits)
    with model.backend.computing(2 * len(tokens) * model.params.flat.size):
        lnf, _ = body_forward(tokens[None], model.params, tap, keep=False)  # (1, T, C)
        logits, _ = called.matmul_forward(lnf, model.params.wte)  # (1, T, V)
    see("logits", logits)
    shifted = logits[0] - logits[0].max(-1, keepdims=True)  # (T, V)
    probs = np.exp(shifted)  # (T, V)
    sums = probs.sum(-1, keepdims=True)  # (T, 1)
    see("probs", (probs / sums)[None])
    at = np.flatnonzero(targets != IGNORED)
    losses = np.zeros_like(sums[:, 0])  # (T,)
    losses[at] = np.log(sums[at, 0]) - shifted[at, targets[at]]
    see("losses", losses[None])
    return tensors


def forward_backward(model, tokens, targets, edits=None) -> Tensors:
    """The tensors of both passes; targets (T,) are -1 where there is none.

    The gradients of the parameters are views of model.grads.
    """
    if (targets == IGNORED).all():
        raise ArgumentError(
            "this text has no next token to learn from: choose a target, or write more"
        )
    if model.grads is None:
        model.grads = model.params.zeros_like()
    tensors: Tensors = {}

    def see(name, array):
        if not is_gradient_of_parameter(name):
            tensors[name] = np.array(array if name == "loss" else array[0])

    model.backend.free_memory()  # what a training step has left
    recorder = Recorder(model.params, tokens[None], targets[None], "numpy")
    recorder.tap = lambda _, *others: LeanTap(layers_of(model), *others)
    with model.backend.computing(6 * len(tokens) * model.params.flat.size):
        recorder.passes(model.params, model.grads, see, edits)
    for name in ("wte", "wpe", "lnfw", "lnfb"):
        tensors[f"d{name}"] = getattr(model.grads, name)
    for i, block in enumerate(model.grads.blocks):
        tensors |= {f"d{name}.{i}": view for name, view in vars(block).items()}
    return tensors


def is_gradient_of_parameter(name):
    """Whether this is the name of a parameter's gradient, as dwte or dqkvw.3."""
    return split_name(name)[0][1:] in TENSOR_NAMES


def parameter(model, name):
    """The parameter of this name, as wte or qkvw.3; None where it is none."""
    base, block = split_name(name)
    if base not in TENSOR_NAMES:
        return None
    if block is None:
        return getattr(model.params, base)
    return getattr(model.params.blocks[block], base) if block < model.config.n_layer else None
