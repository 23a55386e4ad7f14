"""Generation: one token after another, drawn from the model's logits for the tokens so far.

With a key-value cache a new token costs one pass over the weights, plus attention to the past,
instead of a forward pass over the whole context.
"""

import numpy as np

from npgpt.core.config import is_integer
from npgpt.core.precision import at_least_bf16x3
from npgpt.core.threads import FLOPS_PER_BYTE
from npgpt.errors import ArgumentError
from npgpt.model.inputs import checked_ids


def stream_tokens(
    model, tokens, max_new_tokens, temperature=1.0, top_k=None, top_p=None,
    repetition_penalty=1.0, stop=None, seed=None, cache=True,
):  # fmt: skip
    """Continue tokens (B, T): an iterator over the next token of each row, (B,) at a time.

    The arguments are GPT2.generate's. They are validated here, not at the first token.
    """
    V = model.config.vocab_size
    if not 0 <= temperature < float("inf"):
        raise ArgumentError(f"temperature must be finite and at least 0, not {temperature!r}")
    for name, value, lowest in (("top_k", top_k, 1), ("max_new_tokens", max_new_tokens, 0)):
        if value is None and name == "top_k":
            continue
        if not is_integer(value) or value < lowest:
            raise ArgumentError(f"{name} must be an integer of at least {lowest}, not {value!r}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ArgumentError(f"top_p must be above 0 and at most 1, not {top_p!r}")
    if not 0 < repetition_penalty < float("inf"):
        raise ArgumentError(
            f"repetition_penalty must be a finite number above 0, not {repetition_penalty!r}"
        )
    if stop is not None and stop not in range(V):
        raise ArgumentError(f"stop must be a token from 0 to {V - 1}, not {stop!r}")
    tokens = checked_ids("tokens", tokens, V)
    try:  # a row's numbers are the same whatever number of rows there is
        sequence = np.random.SeedSequence(seed)
        rngs = [np.random.default_rng(s) for s in (sequence, *sequence.spawn(len(tokens) - 1))]
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"seed must be an integer of at least 0, or several, not {seed!r}"
        ) from error

    def sample_next(logits, present):
        logits = apply_repetition_penalty(logits, present, repetition_penalty)
        uniform = np.array([rng.random() for rng in rngs])  # (B,)
        return sample_tokens(logits, temperature, top_k, top_p, uniform)

    return generate_tokens(model, tokens, max_new_tokens, sample_next, stop, cache)


def generate_tokens(model, tokens, count, sample_next, stop, cache):
    """Yield the next token of each row, (B,), by sample_next(logits, present), both (B, V)."""
    B, T = tokens.shape
    L, NH, C = model.config.n_layer, model.config.n_head, model.config.n_embd
    block_size = model.config.block_size
    shape = (L, 2, B, NH, min(T + count, block_size), C // NH)
    kv_cache = np.empty(shape, model.params.wpe.dtype)
    present = np.zeros((B, model.config.vocab_size), bool)  # which tokens each row contains
    np.put_along_axis(present, tokens, True, axis=-1)
    ended = np.zeros(B, bool)
    context, pos = tokens, 0  # how many positions of the context are in kv_cache
    decoder = model.decoder()
    for _ in range(count):
        if context.shape[1] > block_size:  # all positions shift, so kv_cache must be recomputed
            context, pos = context[:, -((block_size + 1) // 2) :], 0
        uncached = context[:, pos:]  # (B, N)
        # Flops per parameter: reading its 4 bytes, and 2 per token. In bf16 a prompt's activations
        # would be rounded and a single token's not: the text would depend on the cache.
        with model.computing(4 * FLOPS_PER_BYTE + 2 * uncached.size), at_least_bf16x3():
            logits = decoder.step(uncached, kv_cache, pos)  # (B, V)
        pos = context.shape[1] if cache else 0
        new = sample_next(logits, present)  # (B,)
        if stop is not None:
            new[ended] = stop
            ended |= new == stop
        yield new
        if ended.all():
            return
        np.put_along_axis(present, new[:, None], True, axis=-1)
        context = np.column_stack([context, new])


def apply_repetition_penalty(logits, present, penalty):
    """Lower the logits (B, V) by the factor penalty where the mask present (B, V) is set."""
    if penalty == 1:
        return logits
    logits = logits.astype(np.float64)
    return np.where(present, np.where(logits > 0, logits / penalty, logits * penalty), logits)


def sample_tokens(logits, temperature, top_k, top_p, uniform):
    """Sample one token per row: logits (B, V), uniform (B,) numbers from 0 to 1 -> tokens (B,)."""
    if not np.isfinite(logits).all():
        raise ArgumentError("the model's logits must be finite: it has diverged")
    if temperature == 0:
        return logits.argmax(-1)
    cumulative = filtered_weights(logits, temperature, top_k, top_p).cumsum(-1)  # (B, V)
    point = uniform[:, None] * cumulative[:, -1:]  # (B, 1), in [0, total)
    return (cumulative <= point).sum(-1)


def filtered_weights(logits, temperature, top_k, top_p):
    """Logits (B, V) -> unnormalized probabilities (B, V) after temperature, top-k and top-p."""
    logits = logits.astype(np.float64)
    with np.errstate(over="ignore"):  # a tiny temperature gives -inf, whose exp is 0, as it should
        weights = np.exp((logits - logits.max(-1, keepdims=True)) / temperature)  # (B, V)
    if top_k is not None and top_k < logits.shape[-1]:
        beyond = np.argpartition(-logits, top_k - 1, axis=-1)[:, top_k:]  # (B, V - top_k)
        np.put_along_axis(weights, beyond, 0, axis=-1)
    if top_p is not None and top_p < 1:
        order = np.argsort(-weights, axis=-1)  # (B, V), the likeliest first
        ordered = np.take_along_axis(weights, order, axis=-1)
        mass_before = ordered.cumsum(-1) - ordered  # the total weight of all likelier tokens
        ordered[mass_before >= top_p * ordered.sum(-1, keepdims=True)] = 0
        np.put_along_axis(weights, order, ordered, axis=-1)
    return weights
