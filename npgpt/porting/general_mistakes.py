"""Mistakes that any tensor can suffer: scaled, transposed, made of the wrong input."""

import math

import numpy as np

from npgpt.porting.places import region, time_axis
from npgpt.porting.precision import ROUNDOFFS
from npgpt.porting.rules import RULES
from npgpt.porting.sources import PADDED_TO, is_parameter
from npgpt.tracing.names import FORWARD_BLOCK, STEPS, parameter_names, split_name

# Parameters that are taken for each other.
ALIKE = {
    "ln1w": ("ln2w", "lnfw", "ln1b"), "ln1b": ("ln2b", "lnfb", "ln1w"),
    "ln2w": ("ln1w", "lnfw", "ln2b"), "ln2b": ("ln1b", "lnfb", "ln2w"),
    "lnfw": ("lnfb",), "lnfb": ("lnfw",), "attprojb": ("fcprojb", "ln1b"),
    "fcprojb": ("attprojb",),
}  # fmt: skip
# Of what is rounded to a dtype: numbers that are too few to tell; the least of the usual error of a
# number and the most of that of the whole tensor, in units of u.
FEW, TYPICAL, MOST = 16, 0.1, 2


def zeros(case):
    if case.value.any():
        yield np.zeros_like(case.value), ""


def unwritten(case):
    """The right values, and zeros where MINE has zeros."""
    holes = (case.mine == 0) & (case.value != 0)
    if holes.any() and not holes.all():
        yield np.where(holes, 0, case.value), region(case.name, holes) or "places"


def padding_read(case):
    """A parameter as it is read where the rows that pad wte in the file are not skipped.

    If it is all zeros, it may as well have been forgotten: the next one that is not has to fit too.
    """
    expected, name, L = case.judge.expected, case.name, case.L
    shift = -expected.config.vocab_size % PADDED_TO[0] * expected.config.n_embd
    names = list(parameter_names(L))
    if not shift or not all(each in expected for each in names):
        return
    read = shifted_parameter(name, expected, shift)
    for later in () if read.any() else names[names.index(name) + 1 :]:
        other = shifted_parameter(later, expected, shift)
        if other.any():
            there = case.judge.mine.read(later) if later in case.judge.mine else np.zeros(0)
            if there.shape != other.shape or not np.allclose(there, other, rtol=1e-6):
                return
            break
    yield read, ""


def shifted_parameter(name, expected, shift):
    """What a parameter gets that is read so many numbers too early in the file."""
    out = np.zeros(math.prod(expected.shape(name)))
    starts, end = {}, 0
    for each in parameter_names(expected.config.n_layer):
        starts[each] = end
        end += math.prod(expected.shape(each))
    begin = starts[name] - shift
    for each, start in starts.items():
        size = math.prod(expected.shape(each))
        low, high = max(begin, start), min(begin + out.size, start + size)
        if each != "wte" and low < high:
            part = expected.read(each).reshape(-1)[low - start : high - start]
            out[low - begin : high - begin] = part
    return out.reshape(expected.shape(name))


def is_byte_swapped(case):
    """Whether MINE's numbers are right once the bytes of each are reversed."""
    kind = case.judge.mine.dtype(case.name)
    if kind not in ("<f4", "<f8", "<f2"):
        return False
    with np.errstate(all="ignore"):
        there = np.isfinite(case.mine)
        swapped = case.mine.astype(kind).byteswap().astype(np.float64)[there]
        error = abs(swapped - case.value[there])
        right = error <= case.tolerance[there]
    return bool(swapped.any() and 2 * swapped.size >= case.mine.size and right.all())


def transposed(case):
    value = case.value
    for i in range(value.ndim):
        for j in range(i + 1, value.ndim):
            if min(value.shape[i], value.shape[j]) > 1:
                axes = f"axes {i} and {j} of {value.shape}"
                turned = value.swapaxes(i, j)
                yield turned.reshape(value.shape), axes
                yield value.reshape(turned.shape).swapaxes(i, j), axes


def scaled(case):
    """The value times the constant that fits best, and what that could be."""
    value, mine = case.value.reshape(-1), case.mine.reshape(-1)
    square = float(value @ value)
    if square > 0:
        factor = float(value @ mine) / square
        named = [
            name
            for name, number in constants(case.sizes)
            if math.isclose(factor, number, rel_tol=1e-4)
        ]
        if named or value.size > 1:
            meaning = f": {' or '.join(named)}" if named else ""
            yield factor * case.value, f"{factor:.6g}{meaning}"


def constants(s):
    """The constants that a factor can be: pairs of a name and a number."""
    c, B, T = s.config, s.B, s.T
    for name, number in (
        ("sqrt(hs)", math.sqrt(s.hs)), ("hs", s.hs), ("sqrt(C)", math.sqrt(c.n_embd)),
        ("C", c.n_embd), ("sqrt(NH)", math.sqrt(c.n_head)), ("NH", c.n_head), ("(B*T)", B * T),
        ("B", B), ("T", T), ("V", c.vocab_size), ("L", c.n_layer), ("2", 2), ("4", 4),
        ("log(2)", math.log(2)), ("sqrt(2)", math.sqrt(2)), ("(B*T - 1)", B * T - 1),
        ("(T - 1)", T - 1), ("(C - 1)", c.n_embd - 1),
    ):  # fmt: skip
        if number not in (0, 1):
            yield name, number
            yield f"1/{name}", 1 / number
            yield f"-{name}", -number


def twice(case):
    yield 2 * case.value, ""


def negated(case):
    yield -case.value, ""


def left_out(case):
    """What comes out where one of the inputs is 0, or 1 for the weight of a layernorm."""
    arrays = case.arrays()
    for i, name in enumerate(case.inputs):
        if arrays[i].dtype.kind == "f":
            fill = np.ones_like if name.startswith("ln") and "w" in name else np.zeros_like
            yield case.make(*arrays[:i], fill(arrays[i]), *arrays[i + 1 :]), name


def other_parameters(case):
    """What comes out with the parameters of another block."""
    own = [is_parameter(name) and split_name(name)[1] is not None for name in case.inputs]
    for block in range(case.L) if sum(own) > 1 else ():
        if block != case.block:
            names = [
                f"{split_name(name)[0]}.{block}" if is_own else name
                for name, is_own in zip(case.inputs, own, strict=True)
            ]
            arrays = [case.judge.get(name)[0] for name in names]
            if all(array is not None for array in arrays):
                yield case.make(*arrays), f"block {block}"


def other_input(case):
    """What comes out where another tensor of the same shape stands in for one of the inputs."""
    arrays = case.arrays()
    for i, name in enumerate(case.inputs):
        for other in candidates(name, case):
            array = case.judge.get(other)[0]
            if array is not None and array.shape == arrays[i].shape:
                what = f"{other} in the place of {name}"
                yield case.make(*arrays[:i], array, *arrays[i + 1 :]), what


def candidates(name, case):
    """The names of tensors, computed before this case's, that could be taken for an input."""
    base, block = split_name(name)
    L, names = case.L, case.judge.expected.names
    near = min(L - 1, case.block if block is None and case.block is not None else block or 0)
    if base in ("tokens", "targets"):
        return ["targets" if base == "tokens" else "tokens"]
    others = [f"{each}.{near}" if each[:3] != "lnf" else each for each in ALIKE.get(base, ())]
    others += [f"{base}.{i}" for i in range(L) if block is not None and i != block]
    if base in (*FORWARD_BLOCK, "encoded", "lnf"):
        others += [f"{each}.{near}" for each in FORWARD_BLOCK]
        others += [f"residual3.{near - 1}" if near else "encoded"]
        if case.block is not None and case.block != near:  # the input of this block, by the last
            others += [f"{each}.{case.block}" for each in FORWARD_BLOCK]
    elif base in RULES:
        others += [f"d{each}.{near}" for each in FORWARD_BLOCK]
        others += [f"dresidual3.{near - 1}" if near else "dencoded", "dlnf"]
    before = set(names[: names.index(case.name)])
    return [each for each in dict.fromkeys(others) if each != name and each in before]


def other_block(case):
    """The same tensor of another block, as EXPECTED has it."""
    base, block = split_name(case.name)
    for i in range(case.L) if block is not None else ():
        if i != block and f"{base}.{i}" in case.judge.expected:
            yield case.judge.expected.read(f"{base}.{i}"), f"{base}.{i}"


def shifted(case):
    """What belongs to the position before or after."""
    axis = time_axis(case.name)
    if axis is not None and case.value.shape[axis] > 1:
        for by, edge, what in ((1, 0, "t - 1"), (-1, -1, "t + 1")):
            rolled = np.roll(case.value, by, axis)
            at = (slice(None),) * axis + (edge,)
            rolled[at] = case.mine[at]
            yield rolled, what


def coarser(case):
    """MINE itself, where its errors are those of numbers rounded to a coarser dtype.

    Those are in most numbers, random, and together u of the whole; a bug makes errors of any size,
    and often in few places.
    """
    at = case.value != 0
    if np.count_nonzero(at) < FEW or split_name(case.name)[0] in STEPS:
        return
    error, value = abs(case.mine - case.value), abs(case.value)
    usual = float(np.median(error[at] / value[at]))
    size, whole = rms(error), rms(value)
    for dtype, u in ROUNDOFFS.items():
        if u > case.u and usual >= TYPICAL * u and size <= MOST * u * whole:
            if (error <= case.tolerance * (u / case.u)).all():
                yield case.mine, dtype
                return


def rms(x):
    return math.sqrt(float((x * x).mean()))
