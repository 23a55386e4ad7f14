"""One update of a training run, and its validation: the owner of model, optimizer and batches."""

import math
import sys
import time
from contextlib import contextmanager
from functools import cached_property
from typing import NamedTuple

import numpy as np

from npgpt.data.batches import make_batches
from npgpt.errors import ArgumentError, FileError, TrainingError
from npgpt.evaluation.loss import bits_per_byte, count_bytes, mean_loss, token_bytes
from npgpt.layers.crossentropy import IGNORED
from npgpt.model.optimizer import OPTIMIZERS, clip_scale
from npgpt.model.text import encode_prompt, generate_text
from npgpt.parallel.communicator import ALONE
from npgpt.parallel.exchange import Exchange, SharedExchange
from npgpt.parallel.sharded import SHARDED
from npgpt.training.outliers import Outliers
from npgpt.wording import counted


class Update(NamedTuple):
    """The metrics of one update; norm is the gradients' global norm before clipping."""

    step: int
    loss: float
    lr: float
    norm: float
    seconds: float
    skipped: bool


@contextmanager
def naming(option):
    """Context whose ArgumentErrors begin with the option, and its value, that they are about."""
    try:
        yield
    except ArgumentError as error:
        raise ArgumentError(f"{option}: {error}") from error


class ValSize(NamedTuple):
    """How many tokens a validation predicts, and the bytes of their text."""

    n_tokens: int
    n_bytes: int


class Trainer:
    """A model, its optimizer and batches, and the progress; `step` counts the updates done."""

    def __init__(self, model, settings, data, comm=ALONE):
        """Prepare to train the GPT2 with these Settings on TrainingData, as a rank of comm."""
        self.model, self.settings, self.data, self.comm = model, settings, data, comm
        s = settings
        self.optimizer, self.exchange = self._optimizer_and_exchange()
        model.optimizer = self.optimizer  # model.update() continues with its moments
        eot = model.tokenizer and model.tokenizer.eot
        B, self.grad_accum_steps = s.share(comm.size)
        with naming(f"--train {s.train}"):
            self.batches = make_batches(
                data.train, B, s.T, s.order, s.seed, eot, comm.rank, comm.size
            )
        if data.val and self.batches.is_padded:
            with naming(f"--val {s.val}"):
                self.val_batches = make_batches(data.val, s.B, s.T, s.order, eot=eot)
            self.val_start = self.val_batches.state()
        elif data.val and len(data.val) < 2:
            raise ArgumentError(
                f"--val {s.val}: has {counted(len(data.val), 'token')}, but predicting one needs 2:"
                " bring more text, or leave out --val"
            )
        if s.sample_every:
            if model.tokenizer is None:
                raise ArgumentError("sample_every needs a tokenizer, but the token files name none")
            with naming(f"--sample-prompt {s.sample_prompt!r}"):
                encode_prompt(s.sample_prompt, model)
        if s.overfit_one_batch:
            self.fixed_batches = self._next_batches()
        self.step = 0
        self.updates_whole = True  # no update has been broken off while it changed this state
        self.weights_finite = True  # as far as it is known: the loss of these weights was finite
        self.losses, self.norms = Outliers(), Outliers()
        self.val_loss = self.best_val_loss = None
        self.validations_since_best = 0

    def _optimizer_and_exchange(self):
        s, model, comm = self.settings, self.model, self.comm
        if s.in_shards(comm.size):
            optimizer = SHARDED[s.optimizer].of_rank(model.config, comm, model.backend, s)
        else:
            optimizer = OPTIMIZERS[s.optimizer].from_settings(model.backend, s)
        if comm.size == 1:
            return optimizer, Exchange(model)
        return optimizer, SharedExchange(model, comm, not s.shard_optimizer, s.wire)

    def state(self):
        """The training state, besides the model's parameters, as a dict for a checkpoint.

        What has pieces are the optimizer's moments, which all ranks must ask for; JSON can hold the
        rest.
        """
        return {
            "step": self.step,
            "tokens": len(self.data.train),
            "data": self.data.train.fingerprint,
            "val_loss": self.val_loss,
            "best": self.best_val_loss,  # this key and the next: as in 0.1.0
            "worse": self.validations_since_best,
            "batches": self.batches.state(),
            "losses": list(self.losses.values),
            "norms": list(self.norms.values),
            **self.optimizer.state(self.model.config),
        }

    def restore(self, state):
        """Restore what `state` returned, on the same data."""
        self.data.check_unchanged(state["tokens"], state.get("data"))
        for name in ("losses", "norms"):
            if not all(isinstance(value, float) for value in state[name]):
                raise TypeError(f"{name} must be numbers")
        self.step, self.val_loss = state["step"], state["val_loss"]
        self.best_val_loss, self.validations_since_best = state["best"], state["worse"]
        self.batches.restore(state["batches"])
        self.losses, self.norms = Outliers(state["losses"]), Outliers(state["norms"])
        self.optimizer.restore(state)

    def update(self):
        """Do one update -> Update.

        Raises TrainingError, with the weights unchanged, where loss or norm is not finite. If one
        is an outlier (skip_loss_z, skip_norm_z), the weights stay, too, but the step counts.
        """
        s, start = self.settings, time.perf_counter()
        lr = s.learning_rate(self.step)
        batches_state = self.batches.state()
        try:
            loss, norm = self.exchange.finish(self._forward_backward())
        except BaseException:  # interrupted, or out of memory: the weights are those of before
            self.batches.restore(batches_state)
            raise
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.weights_finite = math.isfinite(loss)
            self.batches.restore(batches_state)
            what = f"loss is {loss}" if not math.isfinite(loss) else f"gradients' norm is {norm}"
            raise TrainingError(f"the {what} in step {self.step + 1}: stopped before the update")
        self.updates_whole = False
        loss_z, norm_z = self.losses.z(loss), self.norms.z(norm)
        skipped = 0 < s.skip_loss_z < loss_z or 0 < s.skip_norm_z < norm_z
        if not skipped:
            scale = clip_scale(norm, s.clip) if s.clip else 1.0
            self.optimizer.update(self.model.params, self.model.grads, lr, scale)
        self.step += 1
        self.val_loss, self.updates_whole = None, True
        return Update(self.step, loss, lr, norm, time.perf_counter() - start, skipped)

    def _forward_backward(self):
        """This rank's part of the loss of the next update, with its gradients -> a float."""
        s = self.settings
        batches, n_targets = self.fixed_batches if s.overfit_one_batch else self._next_batches()
        loss = 0.0
        for i, (x, y) in enumerate(batches):
            # each target of the update counts alike, whichever rank has it
            weight = float(np.count_nonzero(y != IGNORED) / n_targets)
            loss += weight * self.model.forward_backward(
                x, y, dloss=weight, add=i > 0, dropout=s.dropout, seed=[s.seed, self.step],
                before=(i * self.comm.size + self.comm.rank) * len(x),  # sequences of the update
                block_done=self.exchange.block_done if i + 1 == len(batches) else None,
            )  # fmt: skip
        return loss

    def _next_batches(self):
        """The batches of an update, and how many targets it has at all ranks."""
        batches, n_targets = [], 0
        for _ in range(self.grad_accum_steps):
            batches.append(self.batches.next())
            n_targets += self.batches.n_targets
        return batches, n_targets

    def validate(self):
        """Measure the loss on the validation tokens -> a float; remember whether it is the best."""
        s = self.settings
        if self.batches.is_padded:
            val_loss = self._padded_loss()
        else:
            batches = s.val_batches or None
            val_loss = mean_loss(self.model, self.data.val, s.B, s.T, batches, self.comm)
        if not math.isfinite(val_loss):
            self.weights_finite = False
            raise TrainingError(f"the validation loss is {val_loss} after step {self.step}")
        self.val_loss = val_loss
        if self.best_val_loss is None or val_loss < self.best_val_loss:
            self.best_val_loss, self.validations_since_best = val_loss, 0
        else:
            self.validations_since_best += 1
        return val_loss

    @property
    def bits_per_byte(self):
        """The last validation's loss in bits per byte; None where the bytes are not known."""
        size = self.val_size
        return bits_per_byte(self.val_loss, *size) if size.n_bytes else None

    @cached_property
    def val_size(self):
        """What a validation predicts -> ValSize; its n_bytes are 0 where no tokenizer is known."""
        s, tokenizer = self.settings, self.model.tokenizer
        try:
            lengths = tokenizer and token_bytes(tokenizer, self.model.config.vocab_size)
        except FileError:  # GPT-2's files, which can be neither found nor downloaded
            lengths = None
        if lengths is None:
            return ValSize(0, 0)
        if self.batches.is_padded:
            targets = np.concatenate([y[y != IGNORED] for _, y in self._padded_batches()])
            return ValSize(targets.size, int(lengths[targets].sum()))
        count = min(len(self.data.val) - 1, (s.val_batches or sys.maxsize) * s.B * s.T)
        return ValSize(count, count_bytes(self.data.val, 1, count + 1, lengths))

    def sample(self):
        """Generate a text from the settings' prompt, a str; seed and step seed it."""
        s = self.settings
        try:
            return generate_text(self.model, s.sample_prompt, s.sample_tokens, [s.seed, self.step])
        except ArgumentError as error:  # its logits are not finite
            self.weights_finite = False
            raise TrainingError(f"no sample after step {self.step}: {error}") from error

    def _padded_batches(self):
        """Yield the x and y (B, T), the last of fewer rows, of a validation on documents."""
        B, batches = self.settings.B, self.val_batches
        batches.restore(self.val_start)
        for start in range(0, batches.n_rows, B)[: self.settings.val_batches or None]:
            x, y = (ids[: batches.n_rows - start] for ids in batches.next())
            yield x, y

    def _padded_loss(self):
        totals, count = [], 0
        for i, (x, y) in enumerate(self._padded_batches()):
            targets = np.count_nonzero(y != IGNORED)
            own = i % self.comm.size == self.comm.rank
            totals.append(targets * self.model.loss(x, y) if own else 0.0)
            count += targets
        return sum(self.comm.sum(totals).tolist()) / count

    @property
    def done(self):
        """Whether all steps are done, or patience is exhausted."""
        s = self.settings
        return self.step >= s.steps or 0 < s.patience <= self.validations_since_best
