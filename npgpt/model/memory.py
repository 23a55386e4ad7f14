"""Estimate the memory of a training step before it runs."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from npgpt.core.config import GPT2Config
from npgpt.core.parameters import count_parameters
from npgpt.errors import ArgumentError
from npgpt.model.optimizer import OPTIMIZERS
from npgpt.model.passes import RECOMPUTE, activation_bytes, check_recompute, logit_bytes
from npgpt.wording import size_text

BASE_BYTES = 170_000_000  # Python, NumPy, Numba and the compiled kernels


class Estimate(NamedTuple):
    """Peak bytes of a training step by category; str() gives one line."""

    parameters: int
    gradients: int
    moments: int
    activations: int
    logits: int
    program: int

    @property
    def total(self) -> int:
        """The sum of all categories."""
        return sum(self)

    def __str__(self) -> str:
        parts = (f"{name} {size_text(size)}" for name, size in self._asdict().items())
        return f"{size_text(self.total)}: {', '.join(parts)}"


def estimate(
    config: GPT2Config,
    B: int,
    T: int,
    recompute: bool | str = False,
    optimizer: str = "adamw",
    shards: int = 1,
) -> Estimate:
    """Estimate the bytes of forward_backward and update at B, T, in float32 with the kernels.

    recompute is the option of GPT2, shards the number of ranks that share the moments. With
    compiled kernels, one model and constant B and T, a process's peak is within 10% of the total.
    Raises ArgumentError where B or T is out of range, or recompute or the optimizer unknown.
    """
    if B < 1:
        raise ArgumentError(f"B must be at least 1, not {B}")
    if not 1 <= T <= config.block_size:
        raise ArgumentError(f"T must be from 1 to the block_size {config.block_size}, not {T}")
    if optimizer not in OPTIMIZERS:
        raise ArgumentError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {optimizer!r}")
    check_recompute(recompute)
    weights = 4 * count_parameters(config)
    return Estimate(
        parameters=weights,
        gradients=weights,
        moments=OPTIMIZERS[optimizer].state_bytes(config) // shards,
        activations=activation_bytes(config, B, T, recompute),
        logits=logit_bytes(config, B, T, recompute),
        program=BASE_BYTES,
    )


def check_memory(
    config, B, T, recompute, optimizer, loaded=0, quiet=False, resumed=False, shards=1, ranks_here=1
):
    """Print a step's memory, unless quiet.

    `loaded` bytes of it are allocated already. shards: as in estimate; ranks_here: how many on this
    host need as much. Raises ArgumentError where the rest is not available, with what would take
    less: a resumed run can only change what is recomputed.
    """
    need, free = estimate(config, B, T, recompute, optimizer, shards), available_memory()
    ranks = "" if ranks_here == 1 else f" for each of {ranks_here} ranks"
    if not quiet:
        available = f" (available {size_text(free)})" if free else ""
        print(f"memory of a step{ranks}: {need}{available}")
    if free is not None and need.total > (most := free // ranks_here + loaded):
        if resumed:
            ways = [recomputing_more(config, B, T, recompute)]
        else:
            ways = ways_to_take_less(config, B, T, recompute, from_scratch=not loaded)
        fitting = [first_fitting(way, optimizer, shards, most) for way in ways]
        larger = "a machine with more memory"
        advice = " or ".join(filter(None, fitting)) or (
            larger if resumed else f"a smaller model, or {larger}"
        )
        raise ArgumentError(
            f"a step takes {size_text(need.total)} of memory{ranks}, but {size_text(free)} is"
            f" available: take {advice}"
        )


def ways_to_take_less(config, B, T, recompute, from_scratch):
    """Lists of (options, GPT2Config, B, T, recompute), each from larger to smaller steps."""
    ways = [
        recomputing_more(config, B, T, recompute),
        [(f"-B {b}", config, b, T, recompute) for b in halves(B)],
        [(f"-T {t}", config, B, t, recompute) for t in halves(T)],
    ]
    if from_scratch:
        layers = [replace(config, n_layer=n) for n in halves(config.n_layer)]
        n_head = config.n_head
        narrow = [replace(config, n_embd=n_head * n) for n in halves(config.n_embd // n_head)]
        ways.append([(f"--n-layer {c.n_layer}", c, B, T, recompute) for c in layers])
        ways.append([(f"--n-embd {c.n_embd}", c, B, T, recompute) for c in narrow])
    return ways


def recomputing_more(config, B, T, recompute):
    """As a list of ways_to_take_less: what could be recomputed that is not yet."""
    options = {"--recompute": True, "--recompute-blocks": "blocks"}
    left = RECOMPUTE[RECOMPUTE.index(recompute) + 1 :]
    return [(option, config, B, T, more) for option, more in options.items() if more in left]


def first_fitting(ways, optimizer, shards, most):
    """The first of ways_to_take_less that takes at most so many bytes, with its size, or None."""
    for options, *sizes in ways:
        size = estimate(*sizes, optimizer, shards).total
        if size <= most:
            return f"{options} ({size_text(size)})"
    return None


def halves(number):
    """number // 2, number // 4, ..., 1."""
    return [number >> shift for shift in range(1, number.bit_length())]


def available_memory():
    """Bytes this process can still allocate, by Linux and its control groups; None elsewhere."""
    free = []
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free.append(1024 * int(line.split()[1]))
    for group, names in memory_groups():
        with suppress(OSError, ValueError, KeyError):  # "max": without a limit
            limit, used = (int((group / f"memory.{name}").read_text()) for name in names)
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            total = "" if "total_active_file" not in stat else "total_"  # with the groups below
            # the page cache, which is given back
            cached = int(stat[total + "active_file"]) + int(stat[total + "inactive_file"])
            free.append(limit - used + cached)
    return max(0, min(free)) if free else None


def memory_groups(root=Path("/sys/fs/cgroup"), own=Path("/proc/self/cgroup")):
    """Yield this process's control group for memory and those above it, of version 2 or 1.

    With each comes what its files with the limit and the use are called. Source: Linux's
    admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in lines:
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        names = ("limit_in_bytes", "usage_in_bytes") if controllers else ("max", "current")
        group = top / path.lstrip("/")
        while True:
            yield group, names
            if group == top or top not in group.parents:
                break
            group = group.parent
