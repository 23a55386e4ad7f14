"""Generation: one token after another, drawn from the model's logits for the tokens so far.

The keys and values of the past are kept: a new token costs one pass over the weights, and attention
to the past, instead of a forward pass over all of it.
"""

import numpy as np

from npgpt.core.precision import at_least_bf16x3
from npgpt.core.threads import FLOPS_PER_BYTE
from npgpt.errors import ArgumentError
from npgpt.model.inputs import checked_ids


def stream(
    model, tokens, max_new_tokens, temperature=1.0, top_k=None, top_p=None,
    repetition_penalty=1.0, stop=None, seed=None, cache=True,
):  # fmt: skip
    """Continue tokens (B, T): an iterator over the next token of each row, (B,) at a time.

    The arguments are GPT2.generate's. What is wrong with them is raised here, not at the first
    token.
    """
    V = model.config.vocab_size
    if not 0 <= temperature < float("inf"):
        raise ArgumentError(f"temperature must be a finite number from 0, not {temperature!r}")
    if top_k is not None and top_k < 1:
        raise ArgumentError(f"top_k must be at least 1, not {top_k!r}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ArgumentError(f"top_p must be above 0 and at most 1, not {top_p!r}")
    if not 0 < repetition_penalty < float("inf"):
        raise ArgumentError(
            f"repetition_penalty must be a finite number above 0, not {repetition_penalty!r}"
        )
    if max_new_tokens < 0:
        raise ArgumentError(f"max_new_tokens must be at least 0, not {max_new_tokens!r}")
    if stop is not None and stop not in range(V):
        raise ArgumentError(f"stop must be a token from 0 to {V - 1}, not {stop!r}")
    try:
        rng = np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"seed must be an integer from 0, not {seed!r}") from error
    tokens = checked_ids("tokens", tokens, V)

    def choose(logits, seen):
        logits = penalised(logits, seen, repetition_penalty)
        return draw(logits, temperature, top_k, top_p, rng)

    return steps(model, tokens, max_new_tokens, choose, stop, cache)


def steps(model, tokens, count, choose, stop, cache):
    """The tokens (B,) that `stream` gives; choose makes them of the logits and what is seen."""
    B, T = tokens.shape
    L, NH, C = model.config.n_layer, model.config.n_head, model.config.n_embd
    longest = model.config.block_size
    kv = np.empty((L, 2, B, NH, min(T + count, longest), C // NH), model.params.flat.dtype)
    seen = np.zeros((B, model.config.vocab_size), bool)  # the tokens that a row has
    np.put_along_axis(seen, tokens, True, axis=-1)
    ended = np.zeros(B, bool)
    context, at = tokens, 0  # what the model sees, and how much of it is in kv
    decoder = model.decoder()
    for _ in range(count):
        if context.shape[1] > longest:  # each token gets another position: kv has to be made anew
            context, at = context[:, -((longest + 1) // 2) :], 0
        unseen = context[:, at:]  # (B, N)
        # Weights are read, and used. In bf16 a prompt's products would round activations, which
        # single tokens, computed otherwise, do not: a text would depend on what is in kv.
        with model.computing(4 * FLOPS_PER_BYTE + 2 * unseen.size), at_least_bf16x3():
            logits = decoder.step(unseen, kv, at)  # (B, V)
        at = context.shape[1] if cache else 0
        new = choose(logits, seen)  # (B,)
        if stop is not None:
            new[ended] = stop
            ended |= new == stop
        yield new
        if ended.all():
            return
        np.put_along_axis(seen, new[:, None], True, axis=-1)
        context = np.column_stack([context, new])


def penalised(logits, seen, penalty):
    """logits (B, V), those of the seen (B, V) tokens made smaller by the factor penalty."""
    if penalty == 1:
        return logits
    logits = logits.astype(np.float64)
    return np.where(seen, np.where(logits > 0, logits / penalty, logits * penalty), logits)


def draw(logits, temperature, top_k, top_p, rng):
    """Draw one token a row: logits (B, V) -> tokens (B,)."""
    if not np.isfinite(logits).all():
        raise ArgumentError("the model's logits must be finite: it has diverged")
    if temperature == 0:
        return logits.argmax(-1)
    cumulated = weigh(logits, temperature, top_k, top_p).cumsum(-1)  # (B, V)
    point = rng.random((len(logits), 1)) * cumulated[:, -1:]  # (B, 1), below the whole
    return (cumulated <= point).sum(-1)


def weigh(logits, temperature, top_k, top_p):
    """Logits (B, V) -> weights (B, V) in proportion to which tokens are drawn; 0: never."""
    logits = logits.astype(np.float64)
    with np.errstate(over="ignore"):  # at a tiny temperature: the weight is 0, as it should be
        weights = np.exp((logits - logits.max(-1, keepdims=True)) / temperature)  # (B, V)
    if top_k is not None and top_k < logits.shape[-1]:
        beyond = np.argpartition(-logits, top_k - 1, axis=-1)[:, top_k:]  # (B, V - top_k)
        np.put_along_axis(weights, beyond, 0, axis=-1)
    if top_p is not None and top_p < 1:
        order = np.argsort(-weights, axis=-1)  # (B, V), the likeliest first
        ordered = np.take_along_axis(weights, order, axis=-1)
        likelier = ordered.cumsum(-1) - ordered  # what all before it weigh together
        ordered[likelier >= top_p * ordered.sum(-1, keepdims=True)] = 0
        np.put_along_axis(weights, order, ordered, axis=-1)
    return weights
