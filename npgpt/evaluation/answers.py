"""How many documents a model finishes exactly, such as sums of which it is given all up to `=`."""

import numpy as np

from npgpt.data.batches import DocumentBatches
from npgpt.errors import ArgumentError


def count_exact(model, tokens, after, B=64, eot=None):
    """The documents whose part behind the first token `after` is what the model writes greedily.

    Given the right answer so far, it has to find each next token of it the likeliest: so it writes
    the whole. Documents begin with eot, if not with the end-of-text of the tokens' own tokenizer,
    and are cut at block_size. -> correct, documents with such a token.
    """
    from tqdm import tqdm

    T = model.config.block_size
    T = min(T, DocumentBatches(tokens, B, T, eot=eot).longest)
    batches = DocumentBatches(tokens, B, T, eot=eot)
    correct = count = 0
    for start in tqdm(range(0, batches.rows, B), unit="batch", leave=False, disable=None):
        x, y = (ids[: batches.rows - start] for ids in batches.next())  # (B, T), the last fewer
        answer = (x == after).cumsum(-1) > 0  # (B, T): where y is part of an answer
        answer &= y >= 0
        wrong = answer & (model.forward(x).argmax(-1) != y)
        asked = answer.any(-1)  # (B,)
        correct += int(np.count_nonzero(asked & ~wrong.any(-1)))
        count += int(np.count_nonzero(asked))
    if not count:
        raise ArgumentError(f"no document has the token {after} that answers come after")
    return correct, count
