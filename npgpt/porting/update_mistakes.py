"""Mistakes of the updates: the norms that a wrong AdamW makes of MINE's parameters and gradients.

What a mistake makes of later updates than the first is found by taking them, in small models.
"""

import numpy as np

from npgpt.core.parameters import HIDDEN_MATRICES, MATRICES, TENSOR_NAMES, Parameters
from npgpt.porting.updates import EPS, AdamW, norm, parts_of
from npgpt.tracing.names import STEPS, split_name
from npgpt.tracing.record import Recorder

MOST_WORK = 1 << 28  # parameters times tokens of a model of which more updates are taken
EMBEDDINGS = ("wte", "wpe")
SMALLEST = np.finfo(float).tiny


def mistakes(lr, decay):
    """The mistakes people make: pairs of options of AdamW, and what each is."""
    without = {
        kind: tuple(name for name in TENSOR_NAMES if name not in names)
        for kind, names in (
            ("embeddings", EMBEDDINGS),
            ("biases", [name for name in TENSOR_NAMES if name.endswith("b")]),
            ("layernorms", [name for name in TENSOR_NAMES if name.startswith("ln")]),
        )
    }
    yield {"corrections": None}, "the bias of m and v is not corrected"
    yield {"l2": decay, "decay": 0.0}, "decay is added to the gradient: L2, not AdamW"
    yield {"l2": decay}, "decay is added to the gradient as well"
    yield {"decay": 0.0}, "nothing decays"
    yield {"decayed": MATRICES}, "only matrices decay, biases and layernorms do not"
    yield {"decayed": HIDDEN_MATRICES}, "only the matrices of the blocks decay"
    yield {"decayed": without["embeddings"]}, "wte and wpe do not decay"
    yield {"decayed": without["biases"]}, "biases do not decay"
    yield {"decayed": without["layernorms"]}, "layernorms do not decay"
    yield {"decay": decay / lr if lr else 0.0}, "decay is not multiplied by lr"
    yield {"sign": -1.0}, "the parameters go up the gradient"
    yield {"betas": (0.999, 0.9)}, "beta1 and beta2 are exchanged"
    yield {"betas": (0.9, 0.99)}, "beta2 is 0.99, not 0.999"
    yield {"betas": (0.9, 0.95)}, "beta2 is 0.95, not 0.999"
    yield {"corrections": (0, 0)}, "v is corrected by 1 - beta1^t, not by 1 - beta2^t"
    yield {"corrections": (1, 1)}, "m is corrected by 1 - beta2^t, not by 1 - beta1^t"
    yield {"t_of": "one ahead"}, "t in 1 - beta^t is one ahead: the first update has t = 2"
    yield {"under_root": True}, f"epsilon, {EPS:g}, is under the root, not added to it"
    for eps in (1e-6, 1e-5, 1e-4):
        yield {"eps": eps}, f"epsilon is {eps:g}, not {EPS:g}"


LATER_MISTAKES = (
    ({"t_of": "stuck"}, "t in 1 - beta^t stays 1: it has to count the updates"),
    ({"gradients": "added up"}, "the gradients are not set to 0 before each backward pass"),
    ({"gradients": "old"}, "the gradients are those of the first update: nothing new is computed"),
    ({"kept": (False, True)}, "m is not kept from update to update"),
    ({"kept": (True, False)}, "v is not kept from update to update"),
)


def updates(case):
    """The norms after an update, by another optimizer."""
    settings = case.judge.get("step_settings")[0]
    base, step = split_name(case.name)
    if settings is None or step > 1 and not is_small(case):
        return
    start = parameters_and_gradients(case)
    if start is None:
        return
    lr, decay = map(float, settings)
    which = STEPS.index(base)
    if base == "step_params":
        yield from not_updated(case, start, step)
        if step == 1:
            yield from other_rates(case, start, lr, decay)
    options = [*mistakes(lr, decay), *(LATER_MISTAKES if step > 1 else ())]
    for changed, what in options:
        optimizer = AdamW(**{"lr": lr, "decay": decay, **changed})
        yield norms_after(case, optimizer, start, step)[which], what


def is_small(case):
    expected = case.judge.expected
    n_params = Parameters(expected.config).flat.size
    return n_params * expected.B * expected.T <= MOST_WORK


def norms_after(case, optimizer, start, step):
    """The norms of m, v and the parameters after an update (3, 16)."""
    p, g = start
    m, v = dict.fromkeys(p, 0.0), dict.fromkeys(p, 0.0)
    for t in range(1, step + 1):
        if t > 1 and optimizer.gradients != "old":
            new = gradients_at(case, p)
            is_sum = optimizer.gradients == "added up"
            g = {name: g[name] + new[name] if is_sum else new[name] for name in g}
        norms = []
        for name in TENSOR_NAMES:
            made = optimizer.update(name, p[name], g[name], m[name], v[name], t)
            norms.append([norm([array]) for array in made])
            if t < step:
                m[name], v[name], new_p = made
                p = {**p, name: new_p}
    return np.array(norms).T


def gradients_at(case, p):
    """The gradients of the textbook in float64 at these parameters, by name."""
    expected = case.judge.expected
    flat = np.concatenate([p[name].reshape(-1) for name in TENSOR_NAMES])
    params = Parameters(expected.config, flat)
    tokens, targets = expected.read("tokens"), expected.read("targets")
    grads = params.zeros_like()
    recorder = Recorder(params, tokens, targets, backend="numpy")
    recorder.passes(params, grads, lambda name, array: None)
    return dict(grads.items())


def not_updated(case, start, step):
    """The right norms, but those of before in the place of MINE's that are these."""
    before = np.array([norm([start[0][name]]) for name in TENSOR_NAMES])
    if step > 1:
        if f"step_params.{step - 1}" not in case.judge.expected:
            return
        before = case.judge.expected.read(f"step_params.{step - 1}")
    is_wrong = abs(case.mine - case.value) > case.tolerance
    same = is_wrong & (abs(case.mine - before) <= case.tolerance)
    if same.any():
        names = ", ".join(np.array(TENSOR_NAMES)[same])
        yield np.where(same, before, case.value), f"not updated: {names}"


def other_rates(case, start, lr, decay):
    """The parameters' norms at the learning rate that MINE's say, of which each gives two."""
    p, g = start
    one = AdamW(lr=1.0, decay=decay)
    squares = []  # |p - lr d|^2 = a - 2 b lr + c lr^2
    for name in TENSOR_NAMES:
        d = p[name] - one.update(name, p[name], g[name], 0.0, 0.0, 1)[2]
        squares.append([(p[name] ** 2).sum(), (p[name] * d).sum(), (d**2).sum()])
    a, b, c = np.array(squares).T
    root = np.sqrt(np.maximum(0, b**2 - c * (a - case.mine**2)))
    i = int((root / (case.mine**2 + SMALLEST)).argmax())  # whose rounding changes lr least
    for rate in ((b[i] + root[i]) / c[i], (b[i] - root[i]) / c[i]) if c[i] else ():
        norms = np.sqrt(np.maximum(a - 2 * b * rate + c * rate**2, 0))
        times = f", {rate / lr:.4g} times what it should be" if lr else ""
        yield norms, f"lr is {rate:.4g}{times}"


def losses_before(case):
    """The loss that the update starts from."""
    step = split_name(case.name)[1]
    before = f"step_loss.{step - 1}" if step > 1 else "loss"
    if before in case.judge.expected:
        yield case.judge.expected.read(before), ""


def parameters_and_gradients(case):
    """The sixteen tensors and their gradients by name, each over all blocks; None if not there."""
    found = {}, {}
    for name in TENSOR_NAMES:
        for d, arrays in zip(("", "d"), found, strict=True):
            parts = [case.judge.get(d + part)[0] for part in parts_of(name, case.L)]
            if any(part is None for part in parts):
                return None
            arrays[name] = np.stack(parts) if len(parts) > 1 else parts[0]
    return found
