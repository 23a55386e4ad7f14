"""Look inside a model: attention, residual stream, logit lens, norms.

The NumPy layers keep what their backward pass needs; `look` returns it.
npgpt.inside.pictures draws what these functions compute.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from npgpt import layers
from npgpt.core.parameters import BLOCK_NAMES
from npgpt.data.tokenizer import END_OF_TEXT
from npgpt.model.inputs import checked_ids
from npgpt.model.passes import body_forward
from npgpt.model.quantization import float_parameters

VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\t": "→"})


@dataclass
class Inside:
    """The activations of a forward pass over tokens (B, T).

    att (L, B, NH, T, T): attention weights, query t by key s. residual (P, B, T, C): the residual
    stream at P = 2 L + 1 places: after the embedding, each attention and each MLP.
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
        """The L2 norm of the residual stream at each place and position (P, B, T)."""
        return np.linalg.norm(self.residual, axis=-1)


def look(model, tokens):
    """Run a GPT2 on tokens (B, T) with the NumPy layers -> Inside.

    att takes L * B * NH * T * T numbers; the kernels do not keep it.
    """
    config = model.config
    tokens = checked_ids("tokens", tokens, config.vocab_size, longest=config.block_size)
    _, cache = body_forward(tokens, float_parameters(model.params), layers)
    residual, att = [], []
    for block in cache.blocks:
        residual += [block.ln1[0], block.ln2[0]]  # a layernorm's input is the residual stream
        att.append(block.att[1])
    residual.append(cache.lnf[0])
    return Inside(tokens, np.stack(att), np.stack(residual))


def early_logits(model, x):
    """Final layernorm and lm_head on a residual stream x (B, T, C) -> logits (B, T, V)."""
    return logits_of(x, float_parameters(model.params))


def logits_of(x, p):
    """As early_logits, with Parameters p."""
    lnf, _ = layers.layernorm_forward(x, p.lnfw, p.lnfb)  # (B, T, C)
    logits, _ = layers.matmul_forward(lnf, p.wte)
    return logits


class Lens(NamedTuple):
    """The likeliest token at each place and position, and its probability: both (P, B, T)."""

    tokens: np.ndarray
    probs: np.ndarray


def logit_lens(model, residual):
    """The logit lens of a residual stream (P, B, T, C): top token and probability -> Lens.

    nostalgebraist 2020, https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru
    """
    tokens, probs, params = [], [], float_parameters(model.params)
    for x in residual:
        logits = logits_of(x, params)  # (B, T, V)
        highest = logits.max(-1, keepdims=True)  # (B, T, 1)
        tokens.append(logits.argmax(-1))
        probs.append(1 / np.exp(logits - highest).sum(-1))  # exp(highest - highest) = 1
    return Lens(np.stack(tokens), np.stack(probs))


def tensor_norms(parameters):
    """The L2 norm of each tensor of Parameters: weights, gradients (`model.grads`), moments.

    Returns: {name: norms (L,)}; for wte, wpe, lnfw and lnfb a float.
    """
    norms = {}
    for name, view in float_parameters(parameters).items():
        if name in BLOCK_NAMES:
            norms[name] = np.linalg.norm(view.reshape(len(view), -1), axis=-1)  # (L,)
        else:
            norms[name] = float(np.linalg.norm(view))
    return norms


def token_labels(tokens, tokenizer=None):
    """Axis labels for tokens (T,): their text with visible whitespace, or their ids."""
    if tokenizer is None:
        return [str(token) for token in tokens]
    texts = [tokenizer.decode([token]).translate(VISIBLE) for token in tokens]
    texts = ["<eot>" if text == END_OF_TEXT else text for text in texts]
    return [text if text.isprintable() else ascii(text)[1:-1] for text in texts]
