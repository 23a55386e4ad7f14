"""Optimizers: each has its hyperparameters and moments, updates parameters, and can be resumed."""

from npgpt.core.parameters import Parameters, count_parameters
from npgpt.core.threads import FLOPS_PER_BYTE
from npgpt.errors import ArgumentError

DECAYED_PARAMS = ("matrices", "all")


class AdamW:
    """AdamW (Loshchilov and Hutter 2019): running means m of the gradients and v of their squares.

    m and v are Parameters, None before the first update; `updates` counts those done.
    decayed_params is what weight_decay applies to: "all", or "matrices" without biases and
    layernorms.
    """

    MOMENTS = ("m", "v")  # the Parameters of its state

    def __init__(
        self, backend, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decayed_params="all"
    ):
        self.backend = backend
        self.m = self.v = None
        self.updates = 0
        self.configure(betas, eps, weight_decay, decayed_params)

    @classmethod
    def from_settings(cls, backend, s):
        """As the settings of a run ask for."""
        return cls(backend, (s.beta1, s.beta2), s.eps, s.weight_decay, s.decayed_params)

    def configure(self, betas, eps, weight_decay, decayed_params):
        """Go on with these hyperparameters."""
        if decayed_params not in DECAYED_PARAMS:
            raise ArgumentError(
                f"decayed_params must be one of {', '.join(DECAYED_PARAMS)}, not {decayed_params!r}"
            )
        self.betas, self.eps = betas, eps
        self.weight_decay, self.decayed_params = weight_decay, decayed_params

    def update(self, params, grads, lr, scale=1.0):
        """One step at learning rate lr against scale times grads; params change in place."""
        if self.m is None:
            self.m, self.v = params.zeros_like(), params.zeros_like()
        self.updates += 1
        buffers = params.flat, grads.flat, self.m.flat, self.v.flat
        spans = [(slice(None), True)] if self.decayed_params == "all" else params.spans()
        with self.backend.computing(28 * FLOPS_PER_BYTE * params.flat.size):
            for span, decayed in spans:
                self.backend.layers.adamw_update(
                    *(buffer[span] for buffer in buffers), self.updates, lr, *self.betas,
                    self.eps, self.weight_decay if decayed else 0.0, scale,
                )  # fmt: skip

    def state(self, config):
        """What it takes to go on from here: the number of updates, and the moments of a model.

        Returns: {"updates": int, "m": Parameters, "v": Parameters}; zeros before the first update.
        """
        m, v = (Parameters(config) if a is None else a for a in (self.m, self.v))
        return {"updates": self.updates, "m": m, "v": v}

    def restore(self, state):
        """Go on from what `state` gave, which may be among other entries."""
        self.updates, self.m, self.v = state["updates"], state["m"], state["v"]

    @staticmethod
    def state_bytes(config):
        """The bytes that m and v take, in float32."""
        return 2 * 4 * count_parameters(config)


OPTIMIZERS = {"adamw": AdamW}


def gradient_norm(grads, backend):
    """The Euclidean norm of all gradients together (Parameters), as a float."""
    with backend.computing(4 * FLOPS_PER_BYTE * grads.flat.size):
        return float(backend.layers.gradient_norm(grads.flat))


def clip_scale(norm, clip):
    """What gradients of this norm are multiplied by for one of at most clip, as PyTorch does."""
    return 1.0 if norm + 1e-6 <= clip else clip / (norm + 1e-6)
