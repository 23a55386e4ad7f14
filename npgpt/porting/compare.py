"""Compare a trace with the oracle's: which tensors are wrong, judged one by one.

Each tensor of MINE is compared with what its rule makes, in float64, of those tensors of MINE that
it is made of. So an error is judged where it is made, by the rounding of one layer, and nothing
that follows from it counts as another. What MINE has no array of is computed on the way, four
times more with the rounding errors that the dtype makes: their spread is added to the tolerance. So
is that of what MINE stores in a coarser dtype than it computes in. The chain begins at EXPECTED's
parameters and tokens.
"""

from collections.abc import Callable

import numpy as np

from npgpt.core.parameters import TENSOR_NAMES
from npgpt.errors import FileError
from npgpt.layers.crossentropy import IGNORED
from npgpt.porting.findings import Case, Finding
from npgpt.porting.places import region
from npgpt.porting.precision import ROUNDOFFS, computed_in, stored_u
from npgpt.porting.rules import DIRECT, RULES, Sizes, resolve, rule_of
from npgpt.porting.sources import Cache, is_parameter
from npgpt.porting.updates import AdamW, norms_after_first, parts_of
from npgpt.tracing.names import INPUTS, SETTINGS, STEPS, split_name

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


class Judge:
    """The tensors of two traces, and what the rules make of them."""

    def __init__(self, expected, mine, dtype=None):
        self.expected, self.mine = expected, mine
        self.dtype = dtype or computed_in(mine)
        self.u = ROUNDOFFS[self.dtype]
        self.sizes = Sizes(expected.config, expected.B, expected.T, self.u)
        self.all_right = True  # so far
        self.order = {name: i for i, name in enumerate(expected.names)}
        self._cache, self._rng, self._drift = Cache(), np.random.default_rng(0), None
        self._u, self._misshapen = {}, set()

    def get(self, name):
        """A tensor in float64, and samples of it where its rounding errors are not in MINE.

        They are not where MINE has no array of it, and where it is stored in less precision than it
        was computed in: what comes after it may have been made of the finer numbers. Returns:
        array, samples (SAMPLES of it, or none); array is None where it cannot be had.
        """
        if name in self._cache:
            return self._cache[name]
        if name in INPUTS:  # those of MINE are compared with them, and may be out of range
            return self._cache.keep(name, (self.expected.read(name), ()))
        array = self.mine.read(name) if name in self.mine else None
        if array is not None and array.shape == self.expected.shape(name):
            array, u = self.compared(name, array), self.u_of(name)
            samples = self.noisy((array,) * SAMPLES, u * abs(array)) if u > self.u else ()
            return self._cache.keep(name, (array, samples))
        if self.inputs_of(name):
            computed = self.compute(name)
            if computed is None:
                return self._cache.keep(name, (None, ()))
            value, noise, samples = computed
            samples = self.noisy(samples or (value,) * SAMPLES, self.u_of(name) * noise)
            return self._cache.keep(name, (value, samples))
        array = self.expected.read(name) if name in self.expected else None
        return self._cache.keep(name, (array, ()))

    def noisy(self, arrays, noise):
        """The arrays, each with random errors of this size."""
        return tuple(a + noise * self._rng.standard_normal(np.shape(a)) for a in arrays)

    def u_of(self, name):
        """The unit roundoff of a tensor: of the dtype that MINE was computed in or, if that is
        coarser, of the one that it is stored in; without an array, that of what it is made of."""
        if name not in self._u:
            us = [self.u]
            if name in self.mine:
                us.append(stored_u(self.mine, name))
            else:
                us += [self.u_of(each) for each in self.inputs_of(name) if not is_given(each)]
            self._u[name] = max(us)
        return self._u[name]

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
                if name.startswith("d") and is_parameter(name[1:]):
                    self.prepare(name)
                    array, samples = self.get(name)
                    if array is None:
                        raise FileError(self.what_is_missing(name))
                    if name not in self.expected:
                        raise FileError(
                            f"{self.expected.path}: a part of a trace, in which {name} is missing:"
                            " the limits of the updates cannot be computed; write it without --only"
                        )
                    right = self.expected.read(name)
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

    def lacking(self, name, known=()):
        """What MINE lacks of that a tensor is made of, and of that this is made of, in order.

        known: names that count as there.
        """
        found, pending = set(), [name]
        while pending:
            for each in self.inputs_of(pending.pop()):
                there = each in self.mine and each not in self._misshapen or each in known
                if not there and each not in found and self.inputs_of(each):
                    found.add(each)
                    pending.append(each)
        return tuple(sorted(found, key=self.order.__getitem__))

    def prepare(self, name):
        """Compute what a tensor is made of in order, so that no recursion gets deep."""
        for each in self.lacking(name, self._cache):
            self.get(each)

    def compute(self, name):
        """What its rule makes of a tensor -> value, noise, samples; None where that cannot be."""
        rule, _ = rule_of(name, self.expected.config.n_layer)
        given = [self.get(each) for each in self.inputs_of(name)]
        if any(array is None for array, _ in given):
            return None
        formula, sizes = RULES[rule][0], self.sizes._replace(u=self.u_of(name))
        samples = ()
        with np.errstate(all="ignore"):  # MINE's numbers may be anything
            value, noise = formula(sizes, *(array for array, _ in given))
            if any(samples for _, samples in given):
                samples = tuple(
                    formula(sizes, *(s[i] if s else array for array, s in given))[0]
                    for i in range(SAMPLES)
                )
        return value, noise, samples

    def judge(self, name):
        """Compare a tensor of MINE -> a Finding, with its `case` where it is wrong."""
        if name not in self.mine:
            return Finding(name, "absent", shape=self.expected.shape(name))
        shape, own = self.expected.shape(name), self.mine.own_name(name)
        array = self.mine.read(name)
        made_of = self.inputs_of(name)
        self.prepare(name)
        computed = self.compute(name) if made_of else self.direct(name)
        made_of = made_of or self.gradients_of(name)
        if computed is None:
            if made_of:
                raise FileError(self.what_is_missing(name))
            return Finding(name, "absent", own, array.shape)
        value, noise, samples = computed
        with np.errstate(all="ignore"):
            tolerance = TIMES * (self.u_of(name) * noise + spread(value, samples)) + SMALLEST
        if name in INPUTS:
            tolerance = np.zeros(shape)
        tolerance = np.broadcast_to(tolerance, shape)
        case = Case(self, name, made_of, self.u_of(name), array, value, tolerance)
        if array.shape != shape:
            self._misshapen.add(name)
            return Finding(name, "shape", own, array.shape, made_of, case=case)
        case.mine, case.value = self.compared(name, array), self.compared(name, value)
        return self.judged(case, own)

    def judged(self, case, own):
        """Compare the numbers of a tensor -> a Finding."""
        name, shape = case.name, case.mine.shape
        # Where what it is made of is not finite, it cannot be judged, unless nothing was wrong yet.
        known = np.isfinite(case.value) & np.isfinite(case.tolerance) | self.all_right
        with np.errstate(invalid="ignore", over="ignore"):
            excess = abs(case.mine - case.value) / np.maximum(case.tolerance, np.finfo(float).tiny)
        excess = np.where(known, np.nan_to_num(excess, nan=np.inf, posinf=np.inf), 0.0)
        wrong = excess > 1
        at = np.unravel_index(excess.argmax(), shape) if shape else ()
        reference = self.expected.read(name) if name in self.expected else case.value
        status = "wrong" if wrong.any() else "right" if known.all() else "follows"
        finding = Finding(
            name, status, own, shape, case.inputs, tuple(map(int, at)), float(case.mine[at]),
            float(reference[at]), float(excess[at]), float(case.tolerance[at]), int(wrong.sum()),
        )  # fmt: skip
        if status == "wrong":
            finding.where = region(name, wrong)
            for part in ("mine", "value", "tolerance"):
                setattr(case, part, np.where(known, getattr(case, part), 0.0))
            finding.case = case
        return finding

    def gradients_of(self, name):
        """What the norms after the first update are computed from where something before is wrong:
        all of MINE's gradients. Otherwise ()."""
        base, step = split_name(name)
        if self.all_right or base not in STEPS[:3] or step > 1 or SETTINGS not in self.expected:
            return ()
        L = self.expected.config.n_layer
        names = [f"d{part}" for each in TENSOR_NAMES for part in parts_of(each, L)]
        there = all(
            each in self.mine and each not in self._misshapen and self.u_of(each) <= self.u
            for each in names
        )
        return tuple(names) if there else ()

    def what_is_missing(self, name):
        """The sentence on what a tensor cannot be computed without."""
        names = [each for lacked in (name, *self.lacking(name)) for each in self.inputs_of(lacked)]
        missing = min(
            (each for each in names if not self.inputs_of(each) and self.get(each)[0] is None),
            key=self.order.__getitem__,
        )
        return (
            f"{self.expected.path}: a part of a trace, without {missing}, of which"
            f" {self.mine.file.path} has none either, so that {name} cannot be judged; write it"
            " whole, or with --only w?e '[!d]*[wb]' for the parameters too"
        )

    def direct(self, name):
        """EXPECTED's own tensor, for what has no rule; None where it has none."""
        if name not in self.expected:
            return None
        value = self.expected.read(name)
        if is_parameter(name):
            return value, abs(value), ()
        base, step = split_name(name)
        if base not in STEPS:
            return value, np.full(value.shape, DIRECT * abs(value).max()), ()
        drift = self.drift() if self.all_right else 0.0
        if self.gradients_of(name):
            lr, decay = map(float, self.expected.read(SETTINGS))
            value = norms_after_first(
                STEPS.index(base), lambda each: self.get(each)[0], self.expected.config.n_layer,
                AdamW(lr, decay),
            )  # fmt: skip
        noise = (STEP_NOISE + DRIFTS * step * drift / self.u_of(name)) * abs(value)
        if base == "step_params":
            lr = float(self.expected.read(SETTINGS)[0])
            noise[IDLE_BIAS] += IDLE_STEPS * step * lr / self.u_of(name)
        return value, noise, ()


def spread(value, samples):
    """The size of the rounding errors in the samples, of each element and of its row."""
    if not samples:
        return 0.0
    square = np.mean([(sample - value) ** 2 for sample in samples], axis=0)
    row = square.mean(-1, keepdims=True) if square.ndim else square
    return np.sqrt(square + row)


def compare(expected, mine, dtype=None, explain: Callable[[Finding], None] = lambda finding: None):
    """Judge every tensor of MINE, in the order of computation -> a list of Findings, the Judge.

    explain(finding) is called for each that is wrong, as long as its arrays are there.
    """
    judge, findings = Judge(expected, mine, dtype), []
    cleared, suspected = set(), set()  # of what MINE lacks: what has led to right tensors, to wrong
    for name in expected.names:
        finding = judge.judge(name)
        if finding.status == "wrong" and not (judge.all_right or finding.made_of or is_given(name)):
            finding.status = "follows"
        if finding.status == "right":
            cleared.update(judge.lacking(name))
        if finding.status in ("wrong", "shape"):
            judge.all_right = False
            suspects = [each for each in judge.lacking(name) if each not in cleared]
            finding.suspects = tuple(suspects)
            finding.shared = tuple(each for each in suspects if each in suspected)
            suspected.update(suspects)
            explain(finding)
        finding.case = None
        findings.append(finding)
    return findings, judge


def is_given(name):
    """Whether a tensor is not computed."""
    return name in (*INPUTS, SETTINGS) or is_parameter(name)
