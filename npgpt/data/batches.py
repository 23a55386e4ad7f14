"""Batches: which tokens a training step sees, in which order, and how to resume where it stopped.

Each order is a subclass of Batches; ORDERS maps its name to it.
"""

import numpy as np

from npgpt.core.config import is_integer
from npgpt.data.descriptions import tokenizer_from_description
from npgpt.errors import ArgumentError, StateError
from npgpt.layers.crossentropy import IGNORED
from npgpt.wording import counted

CHUNK = 1 << 20  # tokens
ROUND = 16  # lengths of batches are multiples of it: few sizes, whose memory is used again


class Batches:
    """An endless stream of batches from Tokens.

    A row has up to T + 1 tokens: x is all but the last, y all but the first. Subclasses implement
    `next_rows`, and extend `state` and `restore` by their position in the stream. Of `size` ranks
    that train together each has the same stream, of `global_B` = size * B rows at a time, and this
    one, `rank`, takes the B rows from rank * B on. `n_targets` counts those of the last batch, of
    all ranks.
    """

    name = ""  # in ORDERS
    help = ""
    is_padded = False  # whether its rows differ in length; validation then goes row by row, too
    pad_token = 0  # fills x where a row has fewer than T + 1 tokens
    remedy = "make T smaller, or bring more text"  # for too few tokens

    def __init__(self, tokens, B, T, seed=0, eot=None, rank=0, size=1):
        for name, value, lowest in (("B", B, 1), ("T", T, 1), ("seed", seed, 0)):
            if not is_integer(value) or value < lowest:
                raise ArgumentError(
                    f"{name} must be an integer of at least {lowest}, not {value!r}"
                )
        self.tokens, self.B, self.T, self.seed = tokens, int(B), int(T), int(seed)
        self.rank, self.global_B, self.n_targets = rank, size * int(B), 0
        if len(tokens) < self.min_tokens:
            ranks = "" if size == 1 else f" and {size} ranks"
            raise ArgumentError(
                f"too few tokens: {len(tokens):,}, but order {self.name} needs"
                f" {self.min_tokens:,} at B={B}, T={T}{ranks}: {self.remedy}"
            )

    @property
    def min_tokens(self):
        """The fewest tokens that this order can be made from."""
        return self.T + 1

    def next(self):
        """The next batch, this rank's rows -> x, y int64 (B, T); y is -1 where x is padded.

        It is as long as the longest row of all ranks, rounded up to a multiple of ROUND.
        """
        rows = self.next_rows()
        self.n_targets = sum(count - 1 for _, count in rows)
        longest = max(1, *(count - 1 for _, count in rows))
        T = min(self.T, -(-longest // ROUND) * ROUND)
        x = np.full((self.B, T), self.pad_token, np.int64)
        y = np.full((self.B, T), IGNORED, np.int64)
        own = rows[self.rank * self.B : (self.rank + 1) * self.B]
        for i, (start, count) in enumerate(own):
            row = self.tokens.read(start, count)  # (count,), up to T + 1
            x[i, : count - 1] = row[:-1]
            y[i, : count - 1] = row[1:]
        return x, y

    def next_rows(self):
        """The next batch's rows, of all ranks: global_B pairs (start, count of tokens)."""
        raise NotImplementedError

    def state(self):
        """The position in the stream, as a JSON-serializable dict, for `restore`."""
        return {"order": self.name}

    def restore(self, state):
        """Continue exactly where another stream of the same order over the same tokens was."""
        order = state.get("order") if isinstance(state, dict) else None
        if order != self.name:
            raise ArgumentError(
                f"the state is of order {order}, but these batches are of order {self.name}"
            )


class SequenceBatches(Batches):
    """Consecutive windows, as in llm.c; the remainder is dropped at the end.

    The windows come in groups of `group`, the rows of a batch of all ranks, and the remainder is
    what is too short for a group. A stream that is restored with other batches keeps its groups,
    and so its order; `left` rows of the present group are still to come.
    """

    name = "sequence"
    help = "consecutive windows, as in llm.c, starting over at the end"
    remedy = "make B or T smaller, or bring more text"

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.position, self.group, self.left = 0, self.global_B, 0

    @property
    def min_tokens(self):
        return self.global_B * self.T + 1

    def next_rows(self):
        rows = []
        while len(rows) < self.global_B:
            if not self.left:
                if self.position + self.group * self.T + 1 > len(self.tokens):
                    self.position = 0
                self.left = self.group
            rows.append((self.position, self.T + 1))
            self.position += self.T
            self.left -= 1
        return rows

    def state(self):
        where = {"position": self.position, "group": self.group, "left": self.left}
        return {**super().state(), **where}

    def restore(self, state):
        super().restore(state)
        end = len(self.tokens)
        state = {"group": self.global_B, "left": 0, **state}  # in 0.1.0 it has neither
        position = integer_from_state(state, "position", end)
        group = integer_from_state(state, "group", (end - 1) // self.T, lowest=1)
        room = max(0, (end - 1 - position) // self.T)
        left = integer_from_state(state, "left", min(group, room))
        self.position, self.group, self.left = position, group, left


class RandomBatches(Batches):
    """Windows at uniformly random positions, drawn with replacement."""

    name = "random"
    help = "windows at random positions"

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.generator = np.random.default_rng(self.seed)

    def next_rows(self):
        starts = self.generator.integers(0, len(self.tokens) - self.T, self.global_B)
        return [(start, self.T + 1) for start in starts.tolist()]

    def state(self):
        return {**super().state(), "generator": self.generator.bit_generator.state}

    def restore(self, state):
        super().restore(state)
        generator = np.random.default_rng()
        try:
            generator.bit_generator.state = state.get("generator")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise StateError("the state's generator is damaged") from error
        self.generator = generator


class ShuffleBatches(Batches):
    """Every row once per epoch, in a new random order for each.

    `n_rows` is the rows of an epoch, `max_targets` the most targets in a row.
    """

    name = "shuffle"
    help = "every window of T tokens once per epoch, in random order"

    def __init__(self, *args, eot=None, **options):
        super().__init__(*args, **options)
        self.epoch = self.cursor = 0  # cursor: rows of this epoch already used
        self.starts, self.counts = self.epoch_rows(eot)  # of an epoch, each (n_rows,)
        self.n_rows, self.max_targets = len(self.starts), int(self.counts.max()) - 1
        self.permute()

    def epoch_rows(self, eot):
        """The starts and token counts of an epoch's rows: two int64 (n_rows,)."""
        starts = self.T * np.arange((len(self.tokens) - 1) // self.T)
        return starts, np.full(len(starts), self.T + 1)

    def permute(self):
        """Draw the order of this epoch's rows from (seed, epoch)."""
        generator = np.random.default_rng([self.seed, self.epoch])
        self.permutation = generator.permutation(self.n_rows)

    def next_rows(self):
        rows = []
        while len(rows) < self.global_B:  # a batch may span two epochs
            if self.cursor == self.n_rows:
                self.epoch, self.cursor = self.epoch + 1, 0
                self.permute()
            chosen = self.permutation[self.cursor : self.cursor + self.global_B - len(rows)]
            rows += zip(self.starts[chosen].tolist(), self.counts[chosen].tolist(), strict=True)
            self.cursor += len(chosen)
        return rows

    def state(self):
        where = {"seed": self.seed, "epoch": self.epoch, "place": self.cursor}  # place: as in 0.1.0
        return {**super().state(), **where}

    def restore(self, state):
        super().restore(state)
        seed, epoch = integer_from_state(state, "seed"), integer_from_state(state, "epoch")
        cursor = integer_from_state(state, "place", self.n_rows)
        self.seed, self.epoch, self.cursor = seed, epoch, cursor
        self.permute()


class DocumentBatches(ShuffleBatches):
    """One document per row: from its end-of-text through the next one, cut at T + 1 tokens.

    The rest of a longer document, and tokens before the first end-of-text, are never seen. x is
    padded with end-of-text; eot overrides that of the tokens' own tokenizer.
    """

    name = "documents"
    help = "one document per row, cut at T + 1 tokens, each once per epoch"
    is_padded = True

    @property
    def min_tokens(self):
        return 1

    def epoch_rows(self, eot):
        self.pad_token = end_of_text(self.tokens, eot)
        return find_documents(self.tokens, self.pad_token, self.T)


ORDERS = {
    order.name: order for order in (SequenceBatches, RandomBatches, ShuffleBatches, DocumentBatches)
}


def make_batches(tokens, B, T, order="sequence", seed=0, eot=None, rank=0, size=1):
    """The Batches of this order, a name in ORDERS, over Tokens; raises ArgumentError.

    rank and size: for one of several processes, as in Batches.
    """
    if order not in ORDERS:
        raise ArgumentError(f"order must be one of {', '.join(ORDERS)}, not {order!r}")
    return ORDERS[order](tokens, B, T, seed=seed, eot=eot, rank=rank, size=size)


def integer_from_state(state, name, highest=None, lowest=0):
    """state[name], checked to be an integer from lowest to highest (None: no upper limit)."""
    value = state.get(name)
    if not is_integer(value) or value < lowest or (highest is not None and value > highest):
        limit = "at least 0" if highest is None else f"from {lowest} to {highest} with these tokens"
        raise StateError(f"the state's {name} must be {limit}, not {value!r}")
    return value


def end_of_text(tokens, eot):
    """eot or, if None, the end-of-text of the tokens' own tokenizer."""
    if eot is None and tokens.tokenizer_description is not None:
        eot = tokenizer_from_description(tokens.tokenizer_description).eot
    if eot is None:
        raise ArgumentError("order documents needs eot: these token files come without a tokenizer")
    if not is_integer(eot) or eot < 0:
        raise ArgumentError(f"eot must be an integer of at least 0, not {eot!r}")
    return eot


def find_documents(tokens, eot, T):
    """The start of each document, and the token count of its row: two int64 (N,).

    A row ends with the next end-of-text, the last token, or its (T + 1)th token.
    """
    found = []
    for i in range(0, len(tokens), CHUNK):
        chunk = tokens.read(i, min(CHUNK, len(tokens) - i))
        found.append(i + np.flatnonzero(chunk == eot))
    starts = np.concatenate(found)  # (N,)
    counts = np.minimum(np.diff(starts, append=len(tokens) - 1) + 1, T + 1)  # (N,)
    has_targets = counts > 1  # an end-of-text at the very end has nothing to predict
    if not has_targets.any():
        raise ArgumentError(
            f"order documents needs end-of-text ({eot}) before each document, but none starts"
            f" in the {counted(len(tokens), 'token')}"
        )
    return starts[has_targets], counts[has_targets]
