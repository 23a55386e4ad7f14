"""Compare a trace with the oracle's: which tensors are wrong, judged one by one.

Each tensor of MINE is compared with what its rule makes, in float64, of those tensors of MINE that
it is made of. So an error is judged where it is made, by the rounding of one layer, and nothing
that follows from it counts as another. What MINE has no array of is computed on the way, four
times more with the rounding errors that the dtype makes: their spread is added to the tolerance.
The chain begins at EXPECTED's parameters and tokens.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npgpt.core.parameters import TENSOR_NAMES
from npgpt.layers.crossentropy import IGNORED
from npgpt.porting.rules import DIRECT, RULES, Sizes, resolve, rule_of
from npgpt.porting.sources import Cache, is_parameter
from npgpt.tracing.names import BLOCK_SHAPES, INPUTS, SETTINGS, SHAPES, STEPS, split_name

# The unit roundoff of each dtype: 2 to the power of minus its significant bits.
ROUNDOFFS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
KINDS = {"<f8": "float64", "<f4": "float32", "<f2": "float16", "bf16": "bfloat16"}
TIMES = 8  # the noise: an error beyond that is not rounding
SAMPLES = 4  # of rounding errors in what MINE has no array of
SMALLEST = 2.0**-120  # float32 has nothing finer than 2^-149, and kernels flush to 0 below 2^-126
STEP_NOISE = 64  # of norms and losses after updates, in units of each
DRIFTS = 0.5  # TIMES this, the gradients' drift adds to the noise of each update
# The keys' bias has no effect, and so a gradient that is rounding alone; AdamW makes steps of lr of
# it, of either sign. They change the norm of qkvb by about this many times lr.
IDLE_BIAS, IDLE_STEPS = TENSOR_NAMES.index("qkvb"), 0.5
PER_TARGET = ("losses", "dlosses")
CAUSAL = ("preatt", "datt", "dpreatt")  # compared up to the diagonal; att is 0 beyond it


@dataclass
class Finding:
    """What is to say of one tensor.

    status: "right" or "wrong"; "shape" where that is another one; "follows" where it differs from
    EXPECTED's, could not be made of MINE's, and something before it is wrong; "absent" in MINE, or
    in EXPECTED, which has nothing to make it of either.
    """

    name: str
    status: str
    own_name: str = ""
    shape: tuple = ()
    made_of: tuple = ()  # the names of what it was computed from, empty if compared directly
    index: tuple = ()
    mine: float = math.nan
    expected: float = math.nan
    excess: float = 0.0  # the largest difference over its tolerance
    tolerance: float = 0.0  # at this index
    n_wrong: int = 0
    where: str = ""
    cause: str = ""
    sentence: str = ""
    case: Any = field(default=None, repr=False)  # what causes and pictures are made from


class Judge:
    """The tensors of two traces, and what the rules make of them."""

    def __init__(self, expected, mine, dtype=None):
        self.expected, self.mine = expected, mine
        self.dtype = dtype or dtype_of_trace(mine)
        self.u = ROUNDOFFS[self.dtype]
        self.sizes = Sizes(expected.config, expected.B, expected.T, self.u)
        self.all_right = True  # so far
        self._cache, self._rng, self._drift = Cache(), np.random.default_rng(0), None

    def get(self, name):
        """A tensor in float64, and samples of it where its rounding errors are not in MINE.

        Returns: array, samples (SAMPLES of it, or none); array is None where it cannot be had.
        """
        if name in self._cache:
            return self._cache[name]
        if name in INPUTS:  # those of MINE are compared with them, and may be out of range
            return self._cache.keep(name, (self.expected.read(name), ()))
        array = self.mine.read(name) if name in self.mine else None
        if array is not None and array.shape == self.expected.shape(name):
            return self._cache.keep(name, (self.compared(name, array), ()))
        computed = self.compute(name)
        if computed is not None:
            value, noise, samples = computed
            samples = samples or (value,) * SAMPLES
            noise = self.u * noise
            samples = tuple(s + noise * self._rng.standard_normal(np.shape(s)) for s in samples)
            return self._cache.keep(name, (value, samples))
        array = self.expected.read(name) if name in self.expected else None
        return self._cache.keep(name, (array, ()))

    def compared(self, name, array):
        """The tensor with 0 where it may be anything: in the future, and without a target."""
        if split_name(name)[0] in CAUSAL:
            return np.tril(array)
        if name in PER_TARGET:
            return np.where(self.expected.read("targets") == IGNORED, 0.0, array)
        return array

    def drift(self):
        """How far MINE's gradients are from EXPECTED's by rounding: the largest relative norm."""
        if self._drift is None:
            self._drift = 0.0
            for name in self.expected.names:
                if name.startswith("d") and is_parameter(name[1:]) and name in self.expected:
                    (array, samples), right = self.get(name), self.expected.read(name)
                    errors = [array, *samples] if samples else [array]
                    size = np.linalg.norm(right) or 1.0
                    self._drift = max(
                        self._drift, *(float(np.linalg.norm(e - right)) / size for e in errors)
                    )
        return self._drift

    def inputs_of(self, name):
        """The full names of what a tensor is made of; () where there is no rule."""
        L = self.expected.config.n_layer
        rule, block = rule_of(name, L)
        if rule is None:
            return ()
        return tuple(resolve(each, block, L) for each in RULES[rule][1].split())

    def compute(self, name):
        """What its rule makes of a tensor -> value, noise, samples; None where that cannot be."""
        rule, _ = rule_of(name, self.expected.config.n_layer)
        names = self.inputs_of(name)
        if not names:
            return None
        given = [self.get(each) for each in names]
        if any(array is None for array, _ in given):
            return None
        formula = RULES[rule][0]
        value, noise = formula(self.sizes, *(array for array, _ in given))
        samples = ()
        if any(samples for _, samples in given):
            samples = tuple(
                formula(self.sizes, *(s[i] if s else array for array, s in given))[0]
                for i in range(SAMPLES)
            )
        return value, noise, samples

    def judge(self, name):
        """Compare a tensor of MINE -> a Finding, with its `case` where it is wrong."""
        if name not in self.mine:
            return Finding(name, "absent", shape=self.expected.shape(name))
        shape, own = self.expected.shape(name), self.mine.own_name(name)
        array = self.mine.read(name)
        if array.shape != shape:
            return Finding(
                name, "shape", own, array.shape,
                sentence=f"its shape is {array.shape}, and must be {shape}",
            )  # fmt: skip
        made_of = self.inputs_of(name)
        computed = self.compute(name)
        if computed is None:
            made_of, computed = (), self.direct(name)
            if computed is None:
                return Finding(name, "absent", own, shape)
        value, noise, samples = computed
        tolerance = TIMES * (self.u * noise + spread(value, samples)) + SMALLEST
        if name in INPUTS:
            tolerance = np.zeros(shape)
        array, value = self.compared(name, array), self.compared(name, value)
        with np.errstate(invalid="ignore", over="ignore"):
            excess = np.nan_to_num(
                abs(array - value) / np.maximum(tolerance, np.finfo(float).tiny),
                nan=np.inf, posinf=np.inf,
            )  # fmt: skip
        wrong = excess > 1
        at = np.unravel_index(excess.argmax(), shape) if shape else ()
        reference = self.expected.read(name) if name in self.expected else value
        finding = Finding(
            name, "wrong" if wrong.any() else "right", own, shape, made_of,
            tuple(map(int, at)), float(array[at]), float(reference[at]), float(excess[at]),
            float(np.broadcast_to(tolerance, shape)[at]), int(wrong.sum()),
        )  # fmt: skip
        if finding.status == "wrong":
            finding.where = region(wrong, axes_of(name))
            finding.case = Case(self, name, array, value, np.broadcast_to(tolerance, shape))
        return finding

    def direct(self, name):
        """EXPECTED's own tensor, for what has no rule or nothing to make it of."""
        if name not in self.expected:
            return None
        value = self.expected.read(name)
        if is_parameter(name):
            return value, abs(value), ()
        base, step = split_name(name)
        if base not in STEPS:
            return value, np.full(value.shape, DIRECT * abs(value).max()), ()
        drift = self.drift() if self.all_right else 0.0
        noise = (STEP_NOISE + DRIFTS * step * drift / self.u) * abs(value)
        if base == "step_params":
            lr = float(self.expected.read(SETTINGS)[0])
            noise[IDLE_BIAS] += IDLE_STEPS * step * lr / self.u
        return value, noise, ()


@dataclass
class Case:
    """A wrong tensor: mine, the value by its rule and the tolerance, all of one shape."""

    judge: Judge
    name: str
    mine: np.ndarray
    value: np.ndarray
    tolerance: np.ndarray

    def __post_init__(self):
        self.L = self.judge.expected.config.n_layer
        self.rule, self.block = rule_of(self.name, self.L)
        self.sizes = self.judge.sizes
        self.inputs = self.judge.inputs_of(self.name)

    def get(self, name):
        """A tensor that is named as in RULES, seen from this one's block; None if not there."""
        full = resolve(name, self.block, self.L)
        return self.judge.get(full)[0] if full in self.judge.expected.names else None

    def arrays(self):
        """The inputs of its rule."""
        return [self.judge.get(name)[0] for name in self.inputs]

    def make(self, *inputs):
        """What its rule makes of these inputs."""
        return RULES[self.rule][0](self.sizes, *inputs)[0]


def spread(value, samples):
    """The size of the rounding errors in the samples, of each element and of its row."""
    if not samples:
        return 0.0
    square = np.mean([(sample - value) ** 2 for sample in samples], axis=0)
    row = square.mean(-1, keepdims=True) if square.ndim else square
    return np.sqrt(square + row)


def dtype_of_trace(mine):
    """The coarsest dtype among the tensors of MINE that are not its inputs or parameters."""
    names = [n for n in mine.expected.names if n in mine and not is_parameter(n)]
    kinds = {KINDS.get(mine.dtype(name)) for name in names} - {None}
    return max(kinds, key=ROUNDOFFS.__getitem__, default="float32")


def axes_of(name):
    """The letters of a tensor's axes."""
    base = split_name(name)[0]
    letters = {**SHAPES, **BLOCK_SHAPES}.get(base.removeprefix("d"))
    if letters is None:
        return ("row", "column")
    axes = letters.replace("3C", "channel").replace("4C", "channel").replace("C", "channel")
    axes = axes.replace("NH T T", "head t u").replace("B", "b").replace("T", "t").split()
    return tuple(axes)


def region(wrong, axes):
    """Where the wrong elements are, in words: "" if in all places along every axis."""
    words = []
    for axis, letter in zip(range(wrong.ndim), axes, strict=False):
        others = tuple(i for i in range(wrong.ndim) if i != axis)
        (at,) = np.nonzero(wrong.any(others))
        n, first, last = wrong.shape[axis], at[0], at[-1]
        if len(at) == n:
            continue
        if first == last:
            words.append(f"{letter} = {first}")
        elif len(at) == last - first + 1:
            words.append(f"{letter} = {first} to {last}")
        else:
            words.append(f"{len(at)} of {n} along {letter}")
    return ", ".join(words)


def compare(expected, mine, dtype=None):
    """Judge every tensor of MINE, in the order of computation -> a list of Findings, the Judge."""
    judge, findings = Judge(expected, mine, dtype), []
    for name in expected.names:
        finding = judge.judge(name)
        if finding.status == "wrong" and not (judge.all_right or finding.made_of or is_given(name)):
            finding.status, finding.case = "follows", None
        judge.all_right &= finding.status not in ("wrong", "shape")
        findings.append(finding)
    return findings, judge


def is_given(name):
    """Whether a tensor is not computed."""
    return name in (*INPUTS, SETTINGS) or is_parameter(name)
