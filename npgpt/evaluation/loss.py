"""The mean loss of a model on a stream of tokens, in nats a token and in bits a byte."""

import math

import numpy as np

from npgpt.errors import ArgumentError
from npgpt.layers.crossentropy import IGNORED
from npgpt.parallel.communicator import ALONE

CHUNK = 1 << 20  # tokens


def mean_loss(model, tokens, B, T, batches=None, comm=ALONE):
    """The mean loss in nats of all tokens but the first, in batches of B windows of T, a float.

    tokens are Tokens or an array (N,). The last window may be shorter, so that each token counts
    once, whatever B is. With `batches`, only that many are computed, the first ones. The ranks of
    comm share them, and each has the result, the same bits as one alone.
    """
    from tqdm import tqdm

    N = len(tokens) - 1  # targets
    if N < 1:
        raise ArgumentError(f"tokens must be at least 2, to predict one, not {len(tokens)}")
    starts = range(0, N, B * T)[:batches]
    totals, counted = np.zeros(len(starts)), min(N, len(starts) * B * T)
    own = tqdm(
        range(comm.rank, len(starts), comm.size),
        desc="loss", unit="batch", leave=False, disable=True if comm.rank else None,
    )  # fmt: skip
    for i in own:
        start = starts[i]
        count = min(B * T, N - start)
        window = tokens[start : start + count + 1]  # (count + 1,)
        rows = math.ceil(count / T)
        x = np.zeros(rows * T, np.int64)
        y = np.full(rows * T, IGNORED, np.int64)  # what follows the last token does not count
        x[:count], y[:count] = window[:-1], window[1:]
        totals[i] = count * model.loss(x.reshape(rows, T), y.reshape(rows, T))
    return sum(comm.sum(totals).tolist()) / counted


def token_bytes(tokenizer, vocab_size):
    """The bytes of the text of each token -> (vocab_size,); of end-of-text, which is none, 0."""
    lengths = np.zeros(vocab_size, np.int64)
    for token in range(min(vocab_size, tokenizer.vocab_size)):
        lengths[token] = len(tokenizer.decode_bytes([token]))
    lengths[tokenizer.eot : tokenizer.eot + 1] = 0
    return lengths


def count_bytes(tokens, start, stop, lengths):
    """The bytes of the text of tokens[start:stop], of Tokens or an array, by token_bytes."""
    pieces = range(start, stop, CHUNK)
    return sum(int(lengths[tokens[i : min(i + CHUNK, stop)]].sum()) for i in pieces)


def bits_per_byte(loss, n_tokens, n_bytes):
    """The bits that the model takes for a byte of the text: comparable between tokenizers.

    loss is the mean in nats of n_tokens, whose text has n_bytes.
    """
    return loss / math.log(2) * n_tokens / n_bytes
