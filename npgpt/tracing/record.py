"""Run a model's passes and hand out every tensor, in the order of computation."""

from typing import NamedTuple

import numpy as np

from npgpt import layers as textbook
from npgpt.core.parameters import BLOCK_NAMES, TENSOR_NAMES, Parameters
from npgpt.model.backend import NumpyBackend, make_backend
from npgpt.model.inputs import checked_batch
from npgpt.model.optimizer import AdamW
from npgpt.model.passes import body_backward, body_forward
from npgpt.tracing.arithmetic import Number, exact
from npgpt.tracing.names import STEPS, config_numbers, in_order, split_name
from npgpt.tracing.taps import Tap, TextbookTap


class ExactBackend(NumpyBackend):
    """The textbook in float64, in arithmetic that is the same on every machine: the oracle."""

    name = "oracle"


BACKENDS = {
    "oracle": "the textbook in float64, the same bits on every machine",
    "numpy": "the textbook in the model's float32",
    "numba": "the kernels",
}


class Updates(NamedTuple):
    """The updates of a trace: how many, by AdamW with this learning rate and weight decay."""

    steps: int = 0
    lr: float = 1e-4
    weight_decay: float = 0.0


class Recorder:
    """One forward and backward pass of a model on one batch, and some updates.

    `run(see)` hands each tensor to see(name, array) as it is computed; the array may change
    afterwards. `names` are those it will hand out, in order.
    """

    def __init__(self, params, tokens, targets, backend="oracle", precision="fp32", edits=None,
                 updates=None):  # fmt: skip
        self.tokens, self.targets = checked_batch(tokens, targets, params.config)
        self.backend = ExactBackend() if backend == "oracle" else make_backend(backend, precision)
        self.params, self.precision = params, precision
        self.edits, self.updates = edits, updates or Updates()
        self.tap = TextbookTap if self.backend.layers is textbook else Tap
        every = in_order(params.config.n_layer, steps=self.updates.steps)
        self.names = [name for name in every if split_name(name)[0] not in self.tap.HIDDEN]

    def run(self, see, with_gradients=None):
        """Run the passes, handing out every tensor -> the loss.

        with_gradients(Parameters) is called before the updates, if it is given.
        """
        config, params = self.params.config, self.params
        for name, value in zip(
            ("config", "tokens", "targets"),
            (config_numbers(config), self.tokens, self.targets),
            strict=True,
        ):
            see(name, value.astype("<i4"))
        for name, value in params.items():
            parts = [(name, value)]
            if name in BLOCK_NAMES:
                parts = [(f"{name}.{i}", part) for i, part in enumerate(value)]
            for part in parts:
                see(*part)
        if self.backend.name == "oracle":
            params = Parameters(config, exact(params.flat))
        grads = params.zeros_like()
        loss = self.passes(params, grads, see, self.edits)
        if with_gradients is not None:
            with_gradients(grads)
        if self.updates.steps:
            self.update(params, grads, see)
        return loss

    def passes(self, params, grads, see, edits=None):
        """A forward and a backward pass, which writes grads -> the loss."""
        tap = self.tap(self.backend.layers, params.config.n_layer, see, edits)
        with self.backend.computing(6 * self.tokens.size * params.flat.size, self.precision):
            lnf, cache = body_forward(self.tokens, params, tap)
            loss, head_cache = tap.crossentropy_forward(lnf, params.wte, self.targets)
            dlnf, _ = tap.crossentropy_backward(1.0, head_cache, (grads.wte,))
            del head_cache
            body_backward(dlnf, cache, params, grads, False, tap)
        return float(loss)

    def update(self, params, grads, see):
        """Take the steps of AdamW, and hand out the norms and the loss after each."""
        steps, lr, weight_decay = self.updates
        see("step_settings", np.array([lr, weight_decay]))
        optimizer = AdamW(
            self.backend, betas=(Number(0.9), Number(0.999)), weight_decay=weight_decay
        )
        if params is self.params:
            params = Parameters(params.config, params.flat.copy())
        for step in range(1, steps + 1):
            optimizer.update(params, grads, lr)
            for name, tensors in zip(STEPS, (optimizer.m, optimizer.v, params), strict=False):
                see(f"{name}.{step}", norms_of(tensors))
            loss = self.passes(params, grads, lambda name, array: None)
            see(f"step_loss.{step}", np.float64(loss))


def norms_of(parameters):
    """The L2 norm of each of the sixteen tensors (16,)."""
    views = (exact(getattr(parameters, name).reshape(-1)) for name in TENSOR_NAMES)
    return np.array([float(np.sqrt((view * view).sum())) for view in views])
