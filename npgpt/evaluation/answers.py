"""Exact match: documents that a model completes exactly, such as sums after their `=`."""

import numpy as np

from npgpt.data.batches import DocumentBatches
from npgpt.errors import ArgumentError
from npgpt.parallel.communicator import ALONE


def count_exact(model, tokens, separator, B=64, eot=None, comm=ALONE):
    """Count documents whose tokens after the first `separator` are the model's greedy continuation.

    Checked by teacher forcing: each must be the argmax given the true tokens before it. Documents
    begin with eot (default: that of the tokens' tokenizer), and are cut at block_size + 1 tokens.
    The ranks of comm share them, and each has the result.

    Returns: (correct, documents that contain `separator`).
    """
    from tqdm import tqdm

    T = model.config.block_size
    T = min(T, DocumentBatches(tokens, B, T, eot=eot).max_targets)
    batches = DocumentBatches(tokens, B, T, eot=eot)
    correct = count = 0
    starts = tqdm(
        range(0, batches.n_rows, B), unit="batch", leave=False, disable=True if comm.rank else None
    )
    for i, start in enumerate(starts):
        x, y = (ids[: batches.n_rows - start] for ids in batches.next())  # (B, T), the last fewer
        if i % comm.size != comm.rank:
            continue
        answer = (x == separator).cumsum(-1) > 0  # (B, T): where y is part of an answer
        answer &= y >= 0
        wrong = answer & (model.forward(x).argmax(-1) != y)
        has_answer = answer.any(-1)  # (B,)
        correct += int(np.count_nonzero(has_answer & ~wrong.any(-1)))
        count += int(np.count_nonzero(has_answer))
    correct, count = (int(number) for number in comm.sum([correct, count]))
    if not count:
        raise ArgumentError(f"no document contains the token {separator} that separates answers")
    return correct, count
