"""Batches: which tokens a training step sees, in which order, and how to resume where it stopped.

Each order is a class; ORDERS is the table of them.
"""

import numpy as np

from npgpt.data.tokenizer import tokenizer_from
from npgpt.errors import ArgumentError
from npgpt.layers.crossentropy import IGNORED

CHUNK = 1 << 20


class Batches:
    """An endless stream of batches from Tokens.

    A row is T + 1 tokens or fewer: x is all but the last, y all but the first. Subclasses say where
    rows start (`next_rows`), and what of their place `state` and `restore` keep.
    """

    name = ""  # in ORDERS
    help = ""
    padding = 0  # of x, where a row has less than T + 1 tokens

    def __init__(self, tokens, B, T, seed=0, eot=None):
        for name, value, lowest in (("B", B, 1), ("T", T, 1), ("seed", seed, 0)):
            if not is_integer(value) or value < lowest:
                raise ArgumentError(f"{name} must be an integer from {lowest}, not {value!r}")
        self.tokens, self.B, self.T, self.seed = tokens, int(B), int(T), int(seed)
        if len(tokens) < self.fewest_tokens:
            raise ArgumentError(
                f"the order {self.name} takes {self.fewest_tokens} tokens or more at B={B} and"
                f" T={T}, not {len(tokens)}"
            )

    @property
    def fewest_tokens(self):
        """How many tokens there have to be."""
        return self.T + 1

    def next(self):
        """The next batch -> x, y int64 (B, T); y is -1 where x is filled up."""
        x = np.full((self.B, self.T), self.padding, np.int64)
        y = np.full((self.B, self.T), IGNORED, np.int64)
        for i, (start, count) in enumerate(self.next_rows()):
            row = self.tokens.read(start, count)  # (count,), up to T + 1
            x[i, : count - 1] = row[:-1]
            y[i, : count - 1] = row[1:]
        return x, y

    def next_rows(self):
        """Where the B rows of the next batch start, and how many tokens they have."""
        raise NotImplementedError

    def state(self):
        """Where the stream is, as a dict that JSON can hold; `restore` goes on from there."""
        return {"order": self.name}

    def restore(self, state):
        """Go on, bit for bit, where another stream of this order over these tokens was."""
        order = state.get("order") if isinstance(state, dict) else None
        if order != self.name:
            raise ArgumentError(f"the state must be of the order {self.name}, not {order}")


class SequenceBatches(Batches):
    name = "sequence"
    help = "one after the other, as in llm.c, and from the beginning again"

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.position = 0

    @property
    def fewest_tokens(self):
        return self.B * self.T + 1

    def next_rows(self):
        if self.position + self.B * self.T + 1 > len(self.tokens):
            self.position = 0
        starts = range(self.position, self.position + self.B * self.T, self.T)
        self.position += self.B * self.T
        return [(start, self.T + 1) for start in starts]

    def state(self):
        return {**super().state(), "position": self.position}

    def restore(self, state):
        super().restore(state)
        self.position = whole_number(state, "position", len(self.tokens))


class RandomBatches(Batches):
    name = "random"
    help = "from random places"

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.generator = np.random.default_rng(self.seed)

    def next_rows(self):
        starts = self.generator.integers(0, len(self.tokens) - self.T, self.B)
        return [(start, self.T + 1) for start in starts.tolist()]

    def state(self):
        return {**super().state(), "generator": self.generator.bit_generator.state}

    def restore(self, state):
        super().restore(state)
        generator = np.random.default_rng()
        try:
            generator.bit_generator.state = state.get("generator")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ArgumentError("the state's generator is damaged") from error
        self.generator = generator


class ShuffleBatches(Batches):
    """`rows` is how many an epoch has, `longest` how many tokens the longest of them predicts."""

    name = "shuffle"
    help = "in epochs, each of which sees every window of T tokens once"

    def __init__(self, *args, eot=None, **options):
        super().__init__(*args, **options)
        self.epoch = self.place = 0
        self.starts, self.counts = self.find_rows(eot)  # of an epoch, each (rows,)
        self.rows, self.longest = len(self.starts), int(self.counts.max()) - 1
        self.permute()

    def find_rows(self, eot):
        """Where an epoch's rows start, and how many tokens they have: two int64 (rows,)."""
        starts = self.T * np.arange((len(self.tokens) - 1) // self.T)
        return starts, np.full(len(starts), self.T + 1)

    def permute(self):
        generator = np.random.default_rng([self.seed, self.epoch])
        self.permutation = generator.permutation(self.rows)

    def next_rows(self):
        rows = []
        while len(rows) < self.B:  # a batch goes on in the next epoch where one ends
            if self.place == self.rows:
                self.epoch, self.place = self.epoch + 1, 0
                self.permute()
            chosen = self.permutation[self.place : self.place + self.B - len(rows)]
            rows += zip(self.starts[chosen].tolist(), self.counts[chosen].tolist(), strict=True)
            self.place += len(chosen)
        return rows

    def state(self):
        where = {"seed": self.seed, "epoch": self.epoch, "place": self.place}
        return {**super().state(), **where}

    def restore(self, state):
        super().restore(state)
        seed, epoch = whole_number(state, "seed"), whole_number(state, "epoch")
        place = whole_number(state, "place", self.rows)
        self.seed, self.epoch, self.place = seed, epoch, place
        self.permute()


class DocumentBatches(ShuffleBatches):
    """A row is end-of-text and what follows, up to the next end-of-text, cut at T + 1 tokens.

    x is filled up with end-of-text. eot is end-of-text, if not that of the tokens' own tokenizer.
    """

    name = "documents"
    help = "one document a row, in epochs, each of which sees every document once"
    fewest_tokens = 1

    def find_rows(self, eot):
        self.padding = end_of_text(self.tokens, eot)
        return find_documents(self.tokens, self.padding, self.T)


ORDERS = {
    order.name: order for order in (SequenceBatches, RandomBatches, ShuffleBatches, DocumentBatches)
}


def make_batches(tokens, B, T, order="sequence", seed=0, eot=None):
    """The Batches of this order (a name in ORDERS) over Tokens; ArgumentError for another."""
    if order not in ORDERS:
        raise ArgumentError(f"order must be one of {', '.join(ORDERS)}, not {order!r}")
    return ORDERS[order](tokens, B, T, seed=seed, eot=eot)


def is_integer(value):
    """Whether it counts as a whole number: True and False do not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def whole_number(state, name, highest=None):
    """A field of a state that must be a whole number from 0, up to highest where that is given."""
    value = state.get(name)
    if not is_integer(value) or value < 0 or (highest is not None and value > highest):
        limit = "0 or more" if highest is None else f"from 0 to {highest} with these tokens"
        raise ArgumentError(f"the state's {name} must be {limit}, not {value!r}")
    return value


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
