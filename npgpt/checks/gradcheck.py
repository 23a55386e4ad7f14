"""Check a backward pass by central differences: (f(x + eps) - f(x - eps)) / (2 eps), in float64.

For any pair `out, cache = forward(*arguments)` and `gradients = backward(dout, cache)`:

    print(gradcheck(layernorm_forward, layernorm_backward, x, w, b))
"""

import inspect
from dataclasses import dataclass

import numpy as np

from npgpt.core.config import GPT2Config
from npgpt.core.parameters import Parameters
from npgpt.errors import ArgumentError
from npgpt.layers.dropout import Drop
from npgpt.model.gpt2 import GPT2
from npgpt.model.passes import gpt2_forward_backward, gpt2_loss, make_dropout


@dataclass
class Row:
    """The analytic and the numeric gradient of one argument, compared.

    `error` is the largest absolute difference, `relative` is that over the largest numeric value;
    `ok`: every element is within rtol or atol; `note` shows the worst element.
    """

    argument: str
    shape: tuple
    error: float
    relative: float
    ok: bool
    note: str = ""

    def __str__(self):
        shape = "(" + ", ".join(map(str, self.shape)) + ")"
        verdict = "OK" if self.ok else f"NOT OK {self.note}"
        return f"{self.argument:<10} {shape:<14} {self.error:9.1e} {self.relative:9.1e}  {verdict}"


@dataclass
class Report:
    """A row per argument that has a gradient; truthy if all are OK."""

    rows: list

    def __bool__(self):
        return all(row.ok for row in self.rows)

    def __str__(self):
        head = f"{'gradient':<10} {'shape':<14} {'abs.err':>9} {'rel.err':>9}"
        return "\n".join([head, *map(str, self.rows)])

    __repr__ = __str__


def gradcheck(forward, backward, *arguments, eps=1e-6, rtol=1e-5, atol=1e-7, seed=0):
    """Compare backward's gradients with central differences of forward -> Report.

    Every float array among the arguments is taken in float64 and each of its elements moved by
    eps, so the arrays should be small; integers (tokens, targets, NH) and None have no gradient.
    The output is weighted with a random dout, drawn from seed, and summed. backward returns the
    gradients in the order of the arguments, a single one without a tuple. Raises ArgumentError
    where forward returns no pair or there is nothing to check, where the number of gradients is not
    that of the arguments, and where an argument is changed in place, which makes the differences
    meaningless.
    """
    arguments = [a.astype(np.float64) if is_float_array(a) else a for a in arguments]
    checked = [i for i, a in enumerate(arguments) if is_float_array(a)]
    if not checked:
        raise ArgumentError("gradcheck needs at least one array of floats among the arguments")
    before = [np.copy(a) for a in arguments]
    returned = forward(*arguments)
    if not isinstance(returned, tuple) or len(returned) != 2:
        kind = type(returned).__name__
        raise ArgumentError(f"forward must return a tuple (out, cache), not {kind}")
    out, cache = returned
    rng = np.random.default_rng([seed, 1])  # not a caller's default_rng(seed), or dout might be x
    dout = rng.standard_normal(np.shape(out))[()]  # a scalar for a scalar
    gradients = backward(np.copy(dout)[()], cache)
    for a, b in zip(arguments, before, strict=True):
        if isinstance(a, np.ndarray) and not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            raise ArgumentError("forward or backward changes one of forward's arguments")
    gradients = gradients if isinstance(gradients, tuple | list) else [gradients]
    gradients = [np.array(g) for g in gradients if g is not None]
    parameters = list(inspect.signature(forward).parameters)
    names = [parameters[i] if i < len(parameters) else f"[{i}]" for i in checked]
    if len(gradients) != len(checked):
        raise ArgumentError(
            f"backward returned {len(gradients)} gradients for {len(checked)} arrays of floats:"
            f" {', '.join(names)}"
        )
    rows = []
    for name, i, gradient in zip(names, checked, gradients, strict=True):
        numeric = differences(lambda: np.sum(dout * forward(*arguments)[0]), arguments[i], eps)
        rows.append(compare_gradients(f"d{name}", gradient, numeric, rtol, atol))
    return Report(rows)


def is_float_array(argument):
    if not isinstance(argument, np.ndarray):
        return False
    return argument.size > 0 and np.issubdtype(argument.dtype, np.floating)


def differences(f, x, eps):
    """Central differences of the scalar f() with respect to x, which is changed in place."""
    numeric = np.empty_like(x)
    for at in np.ndindex(x.shape):
        value = x[at]
        x[at] = value + eps
        above = f()
        x[at] = value - eps
        below = f()
        x[at] = value
        numeric[at] = (above - below) / (2 * eps)
    return numeric


def compare_gradients(name, gradient, numeric, rtol, atol):
    """The Row of a gradient and its numeric one."""
    if gradient.shape != numeric.shape:
        note = f"backward returned shape {gradient.shape}"
        return Row(name, numeric.shape, np.inf, np.inf, False, note)
    error = np.abs(gradient - numeric)
    excess = error / np.maximum(atol, rtol * np.abs(numeric))  # up to 1 is within the bounds
    worst = np.unravel_index(np.argmax(np.nan_to_num(excess, nan=np.inf)), error.shape)
    note = f"at {[*map(int, worst)]}: {gradient[worst]:.6g}, by differences {numeric[worst]:.6g}"
    relative = error.max() / max(np.abs(numeric).max(), np.finfo(float).tiny)
    return Row(name, numeric.shape, error.max(), relative, bool(excess[worst] <= 1), note)


def layer_cases(layers, rng):
    """Yield (name, forward, backward, small but difficult arguments) for each layer.

    Attention has two cases, without and with dropout.

    Tokens repeat, one target is ignored, inputs are far from zero mean and unit variance.
    """
    B, T, C, NH, V = 2, 5, 6, 2, 7
    x = rng.standard_normal((B, T, C)) * 2 + 0.5
    w, b = rng.standard_normal((2, C))
    tokens = rng.integers(0, 3, (B, T))  # 10 tokens of 3 kinds
    targets = rng.integers(0, V, (B, T))
    targets[0, 1] = -1
    wte, wpe = rng.standard_normal((V, C)), rng.standard_normal((T + 2, C))
    ow, ob = rng.standard_normal((4, C)), rng.standard_normal(4)
    qkv = rng.standard_normal((B, T, 3 * C)) * 1.5
    drop = Drop(0.3, 2**63 + 1, 2)
    cases = {
        "encoder": ("encoder", (tokens, wte, wpe)),
        "layernorm": ("layernorm", (x, w, b)),
        "matmul": ("matmul", (x, ow, ob)),
        "attention": ("attention", (qkv, NH)),
        "gelu": ("gelu", (x,)),
        "crossentropy": ("crossentropy", (x, wte, targets)),
        "dropout": ("dropout", (x, drop)),
        "att. dropout": ("attention", (qkv, NH, drop)),
    }
    for name, (layer, values) in cases.items():
        pair = (getattr(layers, f"{layer}_{way}") for way in ("forward", "backward"))
        yield name, *pair, values


def gradcheck_gpt2(model, tokens, targets, dropout=0.0, **bounds):
    """Compare the sixteen gradients of a tiny GPT2 with central differences of its loss -> Report.

    dropout is a rate; bounds are gradcheck's eps, rtol, atol and seed.
    """
    drops = make_dropout(dropout, seed=0)

    def forward(*tensors):
        flat = np.concatenate([tensor.reshape(-1) for tensor in tensors])
        params = Parameters(model.config, flat)
        return gpt2_loss(tokens, targets, params, model.layers, drops), params

    def backward(dloss, params):
        grads = Parameters(model.config, dtype=np.float64)
        gpt2_forward_backward(tokens, targets, params, grads, model.layers, dloss, dropout=drops)
        return [view for _, view in grads.items()]

    names, tensors = zip(*model.params.items(), strict=True)
    report = gradcheck(forward, backward, *tensors, **bounds)
    for name, row in zip(names, report.rows, strict=True):
        row.argument = f"d{name}"
    return report


def tiny_gpt2(backend, rng):
    """A two-layer float64 GPT2 with weights from normal(0, 0.5), so that no gradient is trivial."""
    config = GPT2Config(block_size=6, vocab_size=11, n_layer=2, n_head=2, n_embd=8)
    params = Parameters(config, dtype=np.float64)
    params.flat[:] = rng.standard_normal(params.flat.size) * 0.5
    return GPT2(config, backend=backend, params=params)
