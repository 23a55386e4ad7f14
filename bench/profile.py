"""Where a training step of npgpt's spends its time."""

import statistics
import time
from types import SimpleNamespace

import numpy as np

WORK = {
    "matrix products": ["product"],
    "attention": ["attention_forward", "attention_backward"],
    "softmax and loss": ["crossentropy_forward", "crossentropy_backward"],
    "layernorm": ["layernorm_forward", "layernorm_backward"],
    "gelu": ["gelu_forward", "gelu_backward"],
    "bias gradients and allocation": ["matmul_forward", "matmul_backward"],
    "residuals": ["residual_add"],
    "encoder": ["encoder_forward", "encoder_backward"],
    "AdamW": ["adamw_update"],
}


def profile(config, B, T, steps=5, precision="fp32"):
    """Kind of work -> seconds of a step, a median over the steps; "the rest" is all other work."""
    import npgpt
    from npgpt import kernels

    model = npgpt.GPT2(config, precision=precision)
    clock = Clock()
    model.layers = SimpleNamespace(
        **{name: clock.timed(name, getattr(kernels, name)) for name in kernels.__all__}
    )
    right = kernels.matmul.product
    for module in (kernels.matmul, kernels.crossentropy):
        module.product = clock.timed("product", right)
    tokens, targets = np.random.default_rng(0).integers(0, config.vocab_size, (2, B, T))
    rows = []
    for _ in range(steps + 1):
        clock.seconds.clear()
        start = time.perf_counter()
        model.forward_backward(tokens, targets)
        model.update(1e-4)
        whole = time.perf_counter() - start
        row = {
            work: sum(clock.seconds.get(name, 0) for name in names) for work, names in WORK.items()
        }
        rows.append({**row, "the rest": whole - sum(row.values())})
    for module in (kernels.matmul, kernels.crossentropy):
        module.product = right
    return {work: statistics.median(row[work] for row in rows[1:]) for work in rows[0]}


class Clock:
    """Adds up the time of functions by their names; that of one inside another counts once."""

    def __init__(self):
        self.seconds = {}
        self.inner = [0.0]

    def timed(self, name, function):
        def wrapper(*args, **kwargs):
            self.inner.append(0.0)
            start = time.perf_counter()
            result = function(*args, **kwargs)
            whole = time.perf_counter() - start
            own = whole - self.inner.pop()
            self.inner[-1] += whole
            self.seconds[name] = self.seconds.get(name, 0.0) + own
            return result

        return wrapper
