"""The model as an object: a GPT-2 with its parameters and gradients, and what to do with them."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npgpt.core.config import GPT2Config
from npgpt.core.parameters import Parameters
from npgpt.data.tokenizer import Tokenizer, tokenizer_from
from npgpt.errors import ArgumentError
from npgpt.formats.llmc import read_checkpoint
from npgpt.formats.models import load_model
from npgpt.model.backend import make_backend
from npgpt.model.decoder import Decoder
from npgpt.model.generation import stream
from npgpt.model.inputs import checked_batch, checked_ids
from npgpt.model.optimizer import AdamW, clip_scale, gradient_norm
from npgpt.model.passes import body_forward, gpt2_forward_backward, gpt2_loss
from npgpt.model.quantization import quantize_weights


class GPT2:
    """A GPT-2 with its parameters and, from their first use on, its gradients and an optimizer.

    A training step is `forward_backward(tokens, targets)` and `update(lr)`. It computes in the
    dtype of its parameters.

    Attributes:
        config: the GPT2Config.
        params: the Parameters.
        grads: their gradients, Parameters, None before the first forward_backward.
        optimizer: the AdamW of `update`, None before its first call.
        backend: the backend, whose `layers` are the layer functions that it computes with.
        precision: how the backend multiplies matrices.
        weight_format: the format that the weight matrices are rounded to.
        recompute: whether the backward pass makes cheap activations again.
        tokenizer: the tokenizer that it goes with, where that is known, or None.
    """

    def __init__(
        self,
        config: GPT2Config,
        seed: int = 0,
        backend: str = "numba",
        params: Parameters | None = None,
        recompute: bool = False,
        precision: str = "fp32",
        weight_format: str = "fp32",
    ):
        """A model with new weights, or on Parameters at hand.

        Args:
            config: the sizes.
            seed: of the new weights.
            backend: "numba", the compiled kernels, or "numpy", the textbook.
            params: the Parameters to compute with, instead of new ones.
            recompute: compute the outputs of gelu and of the layernorms before the matmuls again in
                the backward pass instead of keeping them: saves 3/8 of the activations kept.
            precision: of matrix products: "fp32" or, on CPUs with bf16 hardware, "bf16" (operands
                rounded to 8 significant bits instead of 24) or "bf16x3" (each operand the sum of
                two bf16; without AMX tiles: float32). Everything else is float32.
            weight_format: what the weight matrices are rounded to, for inference: "fp32" leaves
                them; "bf16" and "int8" (one scale per row) round those of params in place. Every
                pass computes with the rounded weights; single tokens read them in that format.

        Raises:
            ArgumentError: an option that is unknown, or that this machine has no hardware for.
        """
        if params is not None and params.config != config:
            raise ArgumentError(f"params must be of the model's {config}, not of {params.config}")
        self.config = config
        self.backend = make_backend(backend, precision, weight_format)
        self.recompute, self.precision, self.weight_format = recompute, precision, weight_format
        # Kernels keep memory from step to step, for all models. With this one it goes; another
        # one takes what it needs anew.
        weakref.finalize(self, self.backend.free_memory)
        self.params: Parameters = Parameters.init(config, seed) if params is None else params
        self._quantized = quantize_weights(self.params, weight_format)
        self.grads: Parameters | None = None
        self.optimizer: AdamW | None = None
        self.tokenizer: Tokenizer | None = None

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str], **options: Any) -> GPT2:
        """Read an llm.c model file; raises FileError where it is none or is damaged.

        The options are those of GPT2: backend, recompute, precision and weight_format.
        """
        params = read_checkpoint(path)
        return cls(params.config, params=params, **options)

    @classmethod
    def from_pretrained(cls, where: str | os.PathLike[str], **options: Any) -> GPT2:
        """A model with its tokenizer, where that is known.

        where is a published name (gpt2, gpt2-medium, ...; downloaded once), an llm.c model file, a
        Hugging Face folder or .safetensors file, or the folder of a training run. The options are
        those of GPT2: backend, recompute, precision and weight_format. Raises FileError where
        there is no model or it is damaged.
        """
        params, description = load_model(where)
        model = cls(params.config, params=params, **options)
        model.tokenizer = None if description is None else tokenizer_from(description)
        return model

    @property
    def layers(self) -> Any:
        """The layer functions that it computes with: npgpt.layers, npgpt.kernels, or your own."""
        return self.backend.layers

    @layers.setter
    def layers(self, layers: Any) -> None:
        self.backend.layers = layers

    def computing(self, flops_per_parameter: float) -> AbstractContextManager[None]:
        """Inside, kernels compute in this model's precision, on threads for so much work."""
        flops = flops_per_parameter * self.params.flat.size
        return self.backend.computing(flops, self.precision)

    def decoder(self) -> Decoder:
        """What takes new tokens through the model, given the keys and values of those before."""
        return self.backend.decoder(self.params, self._quantized)

    def forward(self, tokens: ArrayLike) -> NDArray[np.floating]:
        """tokens (B, T) of integers, T up to block_size -> logits (B, T, V)."""
        config = self.config
        ids = checked_ids("tokens", tokens, config.vocab_size, longest=config.block_size)
        with self.computing(2 * ids.size):
            lnf, _ = body_forward(ids, self.params, self.layers, keep=False)
            logits, _ = self.layers.matmul_forward(lnf, self.params.wte)
        return logits

    def loss(self, tokens: ArrayLike, targets: ArrayLike) -> float:
        """tokens and targets (B, T) -> the mean cross-entropy in nats.

        Targets of -1 are left out of the mean. No gradients: that is `forward_backward`.
        """
        x, y = checked_batch(tokens, targets, self.config)
        with self.computing(2 * x.size):
            return gpt2_loss(x, y, self.params, self.layers)

    def forward_backward(
        self, tokens: ArrayLike, targets: ArrayLike, dloss: float = 1.0, add: bool = False
    ) -> float:
        """As `loss`, and leaves dloss times the loss's gradients in `grads`, over what was there.

        With add, they are added to what was there: call it with dloss=1/n for n micro-batches, with
        add from the second one on.
        """
        x, y = checked_batch(tokens, targets, self.config)
        if self.grads is None:
            if add:
                raise ArgumentError("add=True comes after a first forward_backward without it")
            self.grads = self.params.zeros_like()
        with self.computing(6 * x.size):
            return gpt2_forward_backward(
                x, y, self.params, self.grads, self.layers, dloss, add, self.recompute
            )

    def gradient_norm(self) -> float:
        """The Euclidean norm of all that is in `grads`."""
        return gradient_norm(self._grads("gradient_norm"), self.backend)

    def update(
        self,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        clip: float | None = None,
        decayed_params: str = "all",
    ) -> float | None:
        """One step of AdamW on every parameter, with the gradients in `grads`.

        Given clip, the gradients count as scaled down to that norm, all together, where theirs is
        larger, and their norm is returned. decayed_params is what weight_decay applies to: "all",
        or "matrices" without biases and layernorms.
        """
        grads = self._grads("update")
        if self.weight_format != "fp32":
            raise ArgumentError(f"a model in weight_format {self.weight_format} cannot be updated")
        if clip is not None and not clip > 0:
            raise ArgumentError(f"clip must be a number above 0, not {clip!r}")
        if self.optimizer is None:
            self.optimizer = AdamW(self.backend)
        self.optimizer.configure(betas, eps, weight_decay, decayed_params)
        norm, scale = None, 1.0
        if clip is not None:
            norm = self.gradient_norm()
            scale = clip_scale(norm, clip)
        self.optimizer.update(self.params, grads, lr, scale)
        return norm

    def generate(
        self,
        tokens: ArrayLike,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float = 1.0,
        stop: int | None = None,
        seed: int | Sequence[int] | None = None,
        cache: bool = True,
    ) -> NDArray[np.int64]:
        """Continue tokens (B, T) -> (B, T + max_new_tokens), fewer where all rows have ended.

        Each new token is drawn from the softmax of logits / temperature, among the top_k likeliest
        and among the fewest whose probabilities add up to top_p; temperature 0 takes the likeliest.
        The logits of the tokens that a row has are divided by repetition_penalty or, below 0,
        multiplied (Keskar et al. 2019). A row that has drawn stop goes on with it to the end. The
        same seed draws the same tokens; several samples are rows that begin alike.

        The model sees all tokens while they fit into block_size; when they have outgrown it, it
        goes on with its last half of them. The keys and values of what it sees are kept; without
        cache, each token costs a forward pass over all of it. Products are at least as exact as in
        bf16x3, so that a greedy text is the same with cache and without. Raises ArgumentError where
        the logits are not finite: the model has diverged.
        """
        options = temperature, top_k, top_p, repetition_penalty, stop, seed, cache
        new = stream(self, tokens, max_new_tokens, *options)
        return np.column_stack([np.asarray(tokens, np.int64), *new])

    def _grads(self, what: str) -> Parameters:
        if self.grads is None:
            raise ArgumentError(f"{what}() comes after forward_backward()")
        return self.grads
