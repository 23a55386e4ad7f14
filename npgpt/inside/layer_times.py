"""The time of each layer in a training step, for the NumPy layers and the kernels."""

import statistics
import time
from types import SimpleNamespace

from npgpt.errors import ArgumentError
from npgpt.model.backend import BACKENDS
from npgpt.model.gpt2 import GPT2
from npgpt.model.quantization import float_parameters

PAUSE = 0.3  # seconds: idle threads of the previous backend may spin that long and slow the next


def layer_times(model, tokens, targets, rounds=5):
    """Time each layer over a training step, all its calls summed, in both backends.

    Returns: {backend: {layer: (forward seconds, backward seconds)}}, medians over `rounds`. In each
    round both backends do one forward_backward(tokens, targets), without recompute; a first round,
    which compiles the kernels, is discarded. `model` is not changed.
    """
    if rounds < 1:
        raise ArgumentError(f"rounds must be at least 1, not {rounds!r}")
    timed_models = {backend: TimedModel(model, backend) for backend in BACKENDS}
    measured = {backend: [] for backend in BACKENDS}
    for _ in range(rounds + 1):
        for backend, timed_model in timed_models.items():
            time.sleep(PAUSE)
            measured[backend].append(timed_model.step(tokens, targets))
    return {backend: medians(steps[1:]) for backend, steps in measured.items()}


def medians(steps):
    """The per-layer medians of a list of {layer: (forward, backward)}."""
    return {
        name: tuple(map(statistics.median, zip(*(step[name] for step in steps), strict=True)))
        for name in steps[0]
    }


class TimedModel:
    """A GPT2 that shares a model's parameters and times its layers."""

    def __init__(self, model, backend):
        precision = model.precision if backend == "numba" else "fp32"
        params = float_parameters(model.params)
        self.model = GPT2(model.config, backend=backend, params=params, precision=precision)
        self.seconds = {}  # of the current step
        own = self.model.layers
        self.model.layers = SimpleNamespace(
            **{name: self.timed(name, getattr(own, name)) for name in own.__all__}
        )

    def timed(self, name, function):
        """function, adding its time to self.seconds[layer][forward or backward]."""
        layer, _, direction = name.rpartition("_")

        def wrapper(*args, **kwargs):
            start = time.perf_counter()
            result = function(*args, **kwargs)
            seconds = time.perf_counter() - start
            # residual_add serves both passes; after the loss it is the backward pass's
            after_loss = direction == "add" and "crossentropy" in self.seconds
            in_backward = direction == "backward" or after_loss
            self.seconds.setdefault(layer, [0.0, 0.0])[in_backward] += seconds
            return result

        return wrapper

    def step(self, tokens, targets):
        """One forward_backward -> {layer: (seconds forward, seconds backward)}."""
        self.seconds = {}
        self.model.forward_backward(tokens, targets)
        return {layer: tuple(seconds) for layer, seconds in self.seconds.items()}
