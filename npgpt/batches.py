"""Batches: which tokens a training step sees, in which order, and how to go on where it stopped."""

import numpy as np

from npgpt.errors import ArgumentError
from npgpt.layers.crossentropy import IGNORED
from npgpt.tokenizer import tokenizer_from

ORDERS = {
    "sequence": "one after the other, as in llm.c, and from the beginning again",
    "random": "from random places",
    "shuffle": "in epochs, each of which sees every window of T tokens once",
    "documents": "one document a row, in epochs, each of which sees every document once",
}
CHUNK = 1 << 20


class Batches:
    """An endless stream of batches from Tokens, in one of ORDERS.

    A row is T + 1 tokens: x is all but the last, y all but the first. In the order `documents` a
    row is end-of-text and what follows, up to the next end-of-text, cut at T; x is filled up with
    end-of-text and y with -1. eot is end-of-text, if not that of the tokens' own tokenizer. `rows`
    is how many an epoch has, `longest` how many tokens the longest of them predicts.
    """

    def __init__(self, tokens, B, T, order="sequence", seed=0, eot=None):
        for name, value, lowest in (("B", B, 1), ("T", T, 1), ("seed", seed, 0)):
            if not is_integer(value) or value < lowest:
                raise ArgumentError(f"{name} must be an integer from {lowest}, not {value!r}")
        if order not in ORDERS:
            raise ArgumentError(f"order must be one of {', '.join(ORDERS)}, not {order!r}")
        needed = 1 if order == "documents" else B * T + 1 if order == "sequence" else T + 1
        if len(tokens) < needed:
            raise ArgumentError(
                f"the order {order} takes {needed} tokens or more at B={B} and T={T}, not"
                f" {len(tokens)}"
            )
        self.tokens, self.B, self.T, self.order = tokens, int(B), int(T), order
        self._padding = 0
        if order == "sequence":
            self._position = 0
        elif order == "random":
            self._generator = np.random.default_rng(seed)
        else:
            self._seed, self._epoch, self._place = int(seed), 0, 0
            if order == "shuffle":
                self._starts = T * np.arange((len(tokens) - 1) // T)
                self._counts = np.full(len(self._starts), T + 1)
            else:
                self._padding = end_of_text(tokens, eot)
                self._starts, self._counts = find_documents(tokens, self._padding, T)
            self.rows, self.longest = len(self._starts), int(self._counts.max()) - 1
            self._permute()

    def next(self):
        """The next batch -> x, y int64 (B, T)."""
        x = np.full((self.B, self.T), self._padding, np.int64)
        y = np.full((self.B, self.T), IGNORED, np.int64)
        for i, (start, count) in enumerate(self._rows()):
            row = self.tokens.read(start, count)  # (count,), up to T + 1
            x[i, : count - 1] = row[:-1]
            y[i, : count - 1] = row[1:]
        return x, y

    def _rows(self):
        """Where the rows of the next batch start and how many tokens they have."""
        if self.order == "sequence":
            if self._position + self.B * self.T + 1 > len(self.tokens):
                self._position = 0
            starts = range(self._position, self._position + self.B * self.T, self.T)
            self._position += self.B * self.T
            return [(start, self.T + 1) for start in starts]
        if self.order == "random":
            starts = self._generator.integers(0, len(self.tokens) - self.T, self.B)
            return [(start, self.T + 1) for start in starts.tolist()]
        rows = []
        while len(rows) < self.B:  # a batch goes on in the next epoch where one ends
            if self._place == len(self._starts):
                self._epoch, self._place = self._epoch + 1, 0
                self._permute()
            chosen = self._permutation[self._place : self._place + self.B - len(rows)]
            rows += zip(self._starts[chosen].tolist(), self._counts[chosen].tolist(), strict=True)
            self._place += len(chosen)
        return rows

    def _permute(self):
        generator = np.random.default_rng([self._seed, self._epoch])
        self._permutation = generator.permutation(len(self._starts))

    def state(self):
        """Where the stream is, as a dict that JSON can hold; `restore` goes on from there."""
        if self.order == "sequence":
            where = {"position": self._position}
        elif self.order == "random":
            where = {"generator": self._generator.bit_generator.state}
        else:
            where = {"seed": self._seed, "epoch": self._epoch, "place": self._place}
        return {"order": self.order, **where}

    def restore(self, state):
        """Go on, bit for bit, where another stream of this order over these tokens was."""
        order = state.get("order") if isinstance(state, dict) else None
        if order != self.order:
            raise ArgumentError(f"the state must be of the order {self.order}, not {order}")
        if self.order == "sequence":
            self._position = self._whole(state, "position", len(self.tokens))
        elif self.order == "random":
            generator = np.random.default_rng()
            try:
                generator.bit_generator.state = state.get("generator")
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise ArgumentError("the state's generator is damaged") from error
            self._generator = generator
        else:
            seed = self._whole(state, "seed")
            epoch = self._whole(state, "epoch")
            place = self._whole(state, "place", len(self._starts))
            self._seed, self._epoch, self._place = seed, epoch, place
            self._permute()

    def _whole(self, state, name, highest=None):
        value = state.get(name)
        if not is_integer(value) or value < 0 or (highest is not None and value > highest):
            limit = "0 or more" if highest is None else f"from 0 to {highest} with these tokens"
            raise ArgumentError(f"the state's {name} must be {limit}, not {value!r}")
        return value


def is_integer(value):
    """Whether it counts as a whole number: True and False do not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def end_of_text(tokens, eot):
    """eot, or else that of the tokens' own tokenizer."""
    if eot is None and tokens.tokenizer is not None:
        eot = tokenizer_from(tokens.tokenizer).eot
    if eot is None:
        raise ArgumentError("the order documents takes eot, as the tokens come with no tokenizer")
    if not is_integer(eot) or eot < 0:
        raise ArgumentError(f"eot must be an integer from 0, not {eot!r}")
    return eot


def find_documents(tokens, eot, T):
    """Where the documents start, and how many tokens a row takes of each: two int64 (N,).

    A row ends with the next end-of-text, or with the last token, or after T + 1.
    """
    found = []
    for i in range(0, len(tokens), CHUNK):
        piece = tokens.read(i, min(CHUNK, len(tokens) - i))
        found.append(i + np.flatnonzero(piece == eot))
    starts = np.concatenate(found)  # (N,)
    counts = np.minimum(np.diff(starts, append=len(tokens) - 1) + 1, T + 1)  # (N,)
    whole = counts > 1  # an end-of-text at the very end has nothing to predict
    if not whole.any():
        raise ArgumentError(
            f"the order documents takes end-of-text, which is {eot}, before a document, but there"
            f" is none among the {len(tokens)} tokens"
        )
    return starts[whole], counts[whole]
