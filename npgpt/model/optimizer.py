"""Optimizers, and the table of them."""

from typing import Any, ClassVar, Protocol

import numpy as np

from npgpt.core.config import is_integer
from npgpt.core.parameters import (
    HIDDEN_MATRICES,
    MATRICES,
    TENSOR_NAMES,
    Parameters,
    count_parameters,
)
from npgpt.core.threads import FLOPS_PER_BYTE
from npgpt.errors import ArgumentError, StateError
from npgpt.layers.muon import ITERATIONS

DECAYED_PARAMS = ("matrices", "all")
# Bytes of memory traffic per parameter, float32: p, g, m and v are read, p, m and v written.
BYTES_PER_PARAMETER = 28


class Optimizer(Protocol):
    """What a run asks of an optimizer; OPTIMIZERS maps names to classes of this kind."""

    MOMENTS: ClassVar[tuple[str, ...]]  # names of the Parameters in its state

    @classmethod
    def from_settings(cls, backend: Any, s: Any) -> "Optimizer":
        """Create the optimizer that the Settings of a run ask for."""

    def update(
        self, params: Parameters, grads: Parameters, lr: float, grad_scale: float = 1.0
    ) -> None:
        """Update params in place with grad_scale * grads at learning rate lr."""

    def state(self, config: Any) -> dict[str, Any]:
        """The state for a checkpoint: MOMENTS as Parameters, and what JSON can hold."""

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned; other keys of the dict are ignored."""

    @staticmethod
    def state_bytes(config: Any) -> int:
        """The bytes that its moments take, in float32."""


class AdamW:
    """AdamW (Loshchilov and Hutter 2019): moving averages m of the gradients, v of their squares.

    m and v are Parameters, None before the first update; `updates` counts those done.
    decayed_params is what weight_decay applies to: "all", or "matrices" without biases and
    layernorms.
    """

    MOMENTS: ClassVar[tuple[str, ...]] = ("m", "v")

    def __init__(
        self, backend, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decayed_params="all"
    ):
        self.backend = backend
        self.m = self.v = None
        self.updates = 0
        self.configure(betas, eps, weight_decay, decayed_params)

    @classmethod
    def from_settings(cls, backend, s):
        """Create the optimizer that the Settings of a run ask for."""
        return cls(backend, (s.beta1, s.beta2), s.eps, s.weight_decay, s.decayed_params)

    def configure(self, betas, eps, weight_decay, decayed_params):
        """Set the hyperparameters, for the next update on."""
        if decayed_params not in DECAYED_PARAMS:
            raise ArgumentError(
                f"decayed_params must be one of {', '.join(DECAYED_PARAMS)}, not {decayed_params!r}"
            )
        self.betas, self.eps = betas, eps
        self.weight_decay, self.decayed_params = weight_decay, decayed_params

    def update(self, params, grads, lr, grad_scale=1.0):
        """Update params in place with grad_scale * grads at learning rate lr."""
        if self.m is None:
            self.m, self.v = params.zeros_like(), params.zeros_like()
        self.updates += 1
        self.update_tensors(TENSOR_NAMES, params, grads, lr, grad_scale)

    def update_tensors(self, names, params, grads, lr, grad_scale):
        """The part of `update` that changes the tensors with these names."""
        buffers = [x.flat for x in (params, grads, self.m, self.v)]
        kinds = params.spans(lambda name: (name in names, self.decays(name)))
        pieces = [
            (*(buffer[span] for buffer in buffers), decays)
            for span, (wanted, decays) in kinds
            if wanted
        ]
        self.update_pieces(pieces, params.flat.size, lr, grad_scale)

    def update_pieces(self, pieces, n_params, lr, grad_scale):
        """Update pieces of n_params parameters in all: tuples p, g, m, v, whether p is decayed."""
        with self.backend.computing(BYTES_PER_PARAMETER * FLOPS_PER_BYTE * n_params):
            for *buffers, decayed in pieces:
                self.backend.layers.adamw_update(
                    *buffers, self.updates, lr, *self.betas,
                    self.eps, self.weight_decay if decayed else 0.0, grad_scale,
                )  # fmt: skip

    def decays(self, name):
        """Whether the tensor with this name is weight-decayed."""
        return self.decayed_params == "all" or name in MATRICES

    def state(self, config):
        """The optimizer's state for a checkpoint: the number of updates and the moments.

        Returns: {"updates": int, "m": Parameters, "v": Parameters}; zeros before the first update.
        """
        m, v = (Parameters(config) if a is None else a for a in (self.m, self.v))
        return {"updates": self.updates, "m": m, "v": v}

    def restore(self, state):
        """Restore what `state` returned; other keys of the dict are ignored.

        Raises StateError for a state that no run can have.
        """
        updates, m, v = state["updates"], state["m"], state["v"]
        if not is_integer(updates) or not 0 <= updates < 2**53:
            raise StateError(f"updates must be an integer from 0, not {updates!r}")
        for name, moment in (("m", m), ("v", v)):
            if not np.isfinite(moment.flat).all():
                raise StateError(f"{name} has numbers that are not finite")
        if v.flat.min(initial=0) < 0:
            raise StateError("v, an average of squares, has negative numbers")
        self.updates, self.m, self.v = updates, m, v

    @staticmethod
    def state_bytes(config):
        """The bytes that m and v take, in float32."""
        return 2 * 4 * count_parameters(config)


class Muon(AdamW):
    """Muon (Jordan et al. 2024) for the matrices of the blocks, AdamW for all other tensors.

    Each layer's matrices are orthogonalized one by one, q, k and v as three. Their learning rate is
    lr_ratio times AdamW's, their weight decay the same. Of v their part stays zero.
    """

    def __init__(
        self, backend, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, decayed_params="matrices",
        momentum=0.95, lr_ratio=1.0, precision="fp32",
    ):  # fmt: skip
        super().__init__(backend, betas, eps, weight_decay, decayed_params)
        self.momentum, self.lr_ratio, self.precision = momentum, lr_ratio, precision

    @classmethod
    def from_settings(cls, backend, s):
        """Create the optimizer that the Settings of a run ask for."""
        adamw = (s.beta1, s.beta2), s.eps, s.weight_decay, s.decayed_params
        return cls(backend, *adamw, s.muon_momentum, s.muon_lr / s.lr, s.precision)

    def update_tensors(self, names, params, grads, lr, grad_scale):
        """As AdamW's, whose learning rate lr is."""
        others = [name for name in names if name not in HIDDEN_MATRICES]
        super().update_tensors(others, params, grads, lr, grad_scale)
        for name in HIDDEN_MATRICES:
            p, g, m = (matrices(name, getattr(x, name)) for x in (params, grads, self.m))
            with self.backend.computing(orthogonalize_flops(*p.shape), self.precision):
                self.backend.layers.muon_update(
                    p, g, m, lr * self.lr_ratio, self.momentum, self.weight_decay, grad_scale
                )


def matrices(name, stack):
    """The matrices (N, rows, cols) of a stacked tensor that are orthogonalized one by one."""
    L, rows, cols = stack.shape
    return stack.reshape(3 * L, rows // 3, cols) if name == "qkvw" else stack


def orthogonalize_flops(N, rows, cols):
    """The flops of Newton-Schulz's iteration on N matrices, of Muon's update the most."""
    n, k = sorted((rows, cols))
    return N * ITERATIONS * (4 * n * n * k + 2 * n**3)


OPTIMIZERS: dict[str, type[Optimizer]] = {"adamw": AdamW, "muon": Muon}


def gradient_norm(grads, backend):
    """The global L2 norm of grads (Parameters), as a float."""
    with backend.computing(4 * FLOPS_PER_BYTE * grads.flat.size):
        return float(backend.layers.gradient_norm(grads.flat))


def clip_scale(norm, clip):
    """The factor that clips gradients of global norm `norm` to `clip`, as in PyTorch."""
    return 1.0 if norm + 1e-6 <= clip else clip / (norm + 1e-6)
