"""Training a step at a time, and taking it back: what was done, and the weights before it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from npgpt.errors import ArgumentError
from npgpt.explore.passes import LARGE
from npgpt.layers.crossentropy import IGNORED
from npgpt.model.optimizer import AdamW

SNAPSHOT_BYTES = 100_000_000  # of all weights and moments that are kept to be restored
MOST_STEPS = 100_000


@dataclass
class Action:
    """Steps that were asked for at once: on which text, None for the task's batches; how many.

    before: weights and moments as they were, or None where they are too large to be kept; losses:
    how many losses there were.
    """

    text: str | None
    lr: float
    steps: int
    before: Any
    losses: int


class Learning:
    """The training of a model: the loss of each step, and the actions that led here.

    reset() puts the model back to its first weights, for actions whose weights were not kept: the
    others are then done again, which gives the same weights bit for bit.
    """

    def __init__(self, session, reset):
        self.session, self.model, self.reset = session, session.model, reset
        self.actions: list[Action] = []
        self.losses: list[float] = []
        self.updates = 0
        self.changes = 0  # of the weights or gradients, there and back

    def steps(self, steps, lr, text=None) -> Iterator[None]:
        """Take steps, a yield after each; steps None: until the generator is closed.

        It ends early where the loss is NaN or infinite. The arguments are checked here, not at the
        first step.
        """
        if steps is not None and not (isinstance(steps, int) and 1 <= steps <= MOST_STEPS):
            raise ArgumentError(f"steps must be from 1 to {MOST_STEPS:,}, not {steps!r}")
        if not (isinstance(lr, int | float) and 0 < lr <= 10):
            raise ArgumentError(f"the learning rate must be above 0 and at most 10, not {lr!r}")
        if text is None and self.session.source.task is None:
            raise ArgumentError("this model has no batches of its own: it learns from the text")
        if text is not None and (self._row(text)[1] == IGNORED).all():
            raise ArgumentError("this text has no next token to learn from: write more")
        return self._steps(steps, lr, text)

    def _steps(self, steps, lr, text):
        action = Action(text, lr, 0, self._snapshot(), len(self.losses))
        self.actions.append(action)
        while steps is None or action.steps < steps:
            if text is None:
                tokens, targets = self.session.source.task.batch(self.updates)
            else:
                tokens, targets = self._row(text)
            self.changes += 1
            loss = self.model.forward_backward(tokens, targets)
            self.losses.append(loss)
            if not math.isfinite(loss):
                return
            self.model.update(lr)
            self.updates += 1
            action.steps += 1
            yield

    def _row(self, text):
        """A text as a batch of one row: tokens and targets (1, T)."""
        tokens = self.session.encode(text)
        return tokens[None], self.session.next_targets(tokens)[None]

    def undo(self) -> Iterator[None]:
        """Take the last action back, a yield after each step that has to be done again."""
        if not self.actions:
            raise ArgumentError("there is nothing to undo: no step was taken")
        return self._undo()

    def _undo(self):
        last = self.actions.pop()
        self.changes += 1
        if last.before is not None:
            self._restore(last.before)
            del self.losses[last.losses :]
            return
        earlier, self.actions, self.losses, self.updates = self.actions, [], [], 0
        self.model.optimizer = None
        self.reset()
        for action in earlier:
            if action.steps:
                yield from self._steps(action.steps, action.lr, action.text)

    def suggested_rates(self):
        """Learning rates that suit the model: on a text alone, and on its task's batches."""
        of_text = 1e-4 if self.model.params.flat.size > LARGE else 1e-3
        return {"text": of_text, "task": 3e-3}

    def diverged(self):
        """Whether the last step's loss was NaN or infinite."""
        return bool(self.losses) and not math.isfinite(self.losses[-1])

    def _snapshot(self):
        """Weights and moments, where all that are kept fit into SNAPSHOT_BYTES; or None."""
        size = 3 * self.model.params.flat.nbytes
        if size > SNAPSHOT_BYTES:
            return None
        kept = [action for action in self.actions if action.before is not None]
        if size * (len(kept) + 1) > SNAPSHOT_BYTES:
            kept[0].before = None
        optimizer = self.model.optimizer
        buffers = [self.model.params.flat]
        if isinstance(optimizer, AdamW) and optimizer.m is not None:
            buffers += [optimizer.m.flat, optimizer.v.flat]
        return self.updates, [np.copy(buffer) for buffer in buffers]

    def _restore(self, snapshot):
        self.updates, (flat, *moments) = snapshot
        self.model.params.flat[:] = flat
        optimizer = self.model.optimizer
        if not moments:
            self.model.optimizer = None
            return
        optimizer.m.flat[:], optimizer.v.flat[:] = moments
        optimizer.updates = self.updates
