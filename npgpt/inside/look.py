"""Look inside a model: attention, residual stream, logit lens, norms.

A forward pass of the textbook keeps all that its backward pass needs, and `look` hands it out.
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
    config = model.config
    tokens = checked_ids("tokens", tokens, config.vocab_size, longest=config.block_size)
    _, cache = body_forward(tokens, model.params, layers)
    residual, att = [], []
    for block in cache.blocks:
        residual += [block.ln1[0], block.ln2[0]]  # what a layernorm is given is the stream there
        att.append(block.att[1])
    residual.append(cache.lnf[0])
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
