"""The time of each layer in a training step, in the textbook and in the kernels."""

import statistics
import time
from types import SimpleNamespace

from npgpt.errors import ArgumentError
from npgpt.model.backend import BACKENDS
from npgpt.model.gpt2 import GPT2

PAUSE = 0.3  # seconds: so long the threads of one backend can spin on, in the other one's way


def layer_times(model, tokens, targets, rounds=5):
    """The time that each layer takes of a step, all its calls together, in textbook and kernels.

    -> {backend: {layer: (seconds forward, seconds backward)}}, medians over so many rounds. In each
    the two backends do one forward_backward(tokens, targets) of the GPT2 in turn; a first round,
    which compiles the kernels, does not count. `model` itself is left as it is.
    """
    if rounds < 1:
        raise ArgumentError(f"rounds must be at least 1, not {rounds!r}")
    clocks = {backend: Clock(model, backend) for backend in BACKENDS}
    measured = {backend: [] for backend in BACKENDS}
    for _ in range(rounds + 1):
        for backend, clock in clocks.items():
            time.sleep(PAUSE)
            measured[backend].append(clock.step(tokens, targets))
    return {backend: medians(steps[1:]) for backend, steps in measured.items()}


def medians(steps):
    """A list of {layer: (forward, backward)} -> one, of medians."""
    return {
        name: tuple(map(statistics.median, zip(*(step[name] for step in steps), strict=True)))
        for name in steps[0]
    }


class Clock:
    """A GPT2 on another one's parameters whose layers are timed."""

    def __init__(self, model, backend):
        precision = model.precision if backend == "numba" else "fp32"
        self.model = GPT2(model.config, backend=backend, params=model.params, precision=precision)
        own = self.model.layers
        self.model.layers = SimpleNamespace(
            **{name: self.timed(name, getattr(own, name)) for name in own.__all__}
        )

    def timed(self, name, function):
        layer, _, way = name.rpartition("_")

        def wrapper(*args, **kwargs):
            start = time.perf_counter()
            result = function(*args, **kwargs)
            seconds = time.perf_counter() - start
            behind_loss = way == "add" and "crossentropy" in self.seconds  # of residual_add
            self.seconds.setdefault(layer, [0.0, 0.0])[way == "backward" or behind_loss] += seconds
            return result

        return wrapper

    def step(self, tokens, targets):
        """One forward_backward -> {layer: (seconds forward, seconds backward)}."""
        self.seconds = {}
        self.model.forward_backward(tokens, targets)
        return {layer: tuple(seconds) for layer, seconds in self.seconds.items()}
