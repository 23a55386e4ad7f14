"""Estimate the memory of a training step before it runs."""

from pathlib import Path
from typing import NamedTuple

from npgpt.core.config import GPT2Config
from npgpt.core.parameters import count_parameters
from npgpt.errors import ArgumentError
from npgpt.model.optimizer import OPTIMIZERS
from npgpt.model.passes import activation_bytes, logit_bytes

BASE_BYTES = 170_000_000  # Python, NumPy, Numba and the compiled kernels


class Estimate(NamedTuple):
    """Peak bytes of a training step by category; str() gives one line in GB."""

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
        parts = ", ".join(
            f"{name} {size / 1e9:.2f}" for name, size in zip(self._fields, self, strict=True)
        )
        return f"{self.total / 1e9:.2f} GB: {parts}"


def estimate(
    config: GPT2Config, B: int, T: int, recompute: bool = False, optimizer: str = "adamw"
) -> Estimate:
    """Estimate the bytes of forward_backward and update at B, T, in float32 with the kernels.

    recompute is the option of GPT2. With compiled kernels, one model and constant B and T, a
    process's peak is within 10% of the total. Raises ArgumentError where B or T is out of range or
    the optimizer unknown.
    """
    if B < 1:
        raise ArgumentError(f"B must be at least 1, not {B}")
    if not 1 <= T <= config.block_size:
        raise ArgumentError(f"T must be from 1 to the block_size {config.block_size}, not {T}")
    if optimizer not in OPTIMIZERS:
        raise ArgumentError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {optimizer!r}")
    weights = 4 * count_parameters(config)
    return Estimate(
        parameters=weights,
        gradients=weights,
        moments=OPTIMIZERS[optimizer].state_bytes(config),
        activations=activation_bytes(config, B, T, recompute),
        logits=logit_bytes(config, B, T),
        program=BASE_BYTES,
    )


def check_memory(config, B, T, recompute, optimizer, loaded=0):
    """Print a step's memory -> Estimate; raises ArgumentError where that is not available.

    `loaded` bytes of it are allocated already.
    """
    need, free = estimate(config, B, T, recompute, optimizer), available_memory()
    print(f"memory of a step: {need}" + (f" (available {free / 1e9:.2f} GB)" if free else ""))
    if free is not None and need.total > free + loaded:
        advice = "" if recompute else " (recompute, or a smaller B or T, takes less)"
        raise ArgumentError(
            f"a step takes {need.total / 1e9:.2f} GB of memory, but {free / 1e9:.2f} GB are"
            f" available{advice}"
        )
    return need


def available_memory():
    """Bytes this process can still allocate, by Linux and its cgroup; None elsewhere."""
    free = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free.append(1024 * int(line.split()[1]))
        group = Path("/sys/fs/cgroup")  # cgroup v2
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        cached = int(stat["active_file"]) + int(stat["inactive_file"])  # page cache, reclaimable
        free.append(limit - used + cached)
    except (OSError, ValueError, KeyError):  # another system, no container, or one without a limit
        pass
    return min(free, default=None)
