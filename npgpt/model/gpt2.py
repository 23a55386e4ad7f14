"""The GPT2 class: a model with its parameters, gradients and optimizer."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npgpt.core.config import GPT2Config
from npgpt.core.parameters import Parameters, count_parameters
from npgpt.data.descriptions import tokenizer_from_description
from npgpt.data.tokenizer import Tokenizer
from npgpt.errors import ArgumentError
from npgpt.formats.llmc import read_checkpoint
from npgpt.formats.models import load_model
from npgpt.model.backend import make_backend
from npgpt.model.decoder import Decoder
from npgpt.model.generation import stream_tokens
from npgpt.model.inputs import checked_batch, checked_ids
from npgpt.model.optimizer import AdamW, Optimizer, clip_scale, gradient_norm
from npgpt.model.passes import (
    body_forward,
    check_recompute,
    gpt2_forward_backward,
    gpt2_loss,
    make_dropout,
)
from npgpt.model.quantization import params_factory, quantize_weights


class GPT2:
    """A GPT-2 with its parameters and, from their first use on, its gradients and an optimizer.

    A training step is `forward_backward(tokens, targets)` and `update(lr)`. It computes in the
    dtype of its parameters.

    Attributes:
        config: the GPT2Config.
        params: the Parameters; of a quantized model QuantizedParameters.
        grads: their gradients, Parameters, None before the first forward_backward.
        optimizer: the AdamW of `update`, None before its first call, or that of the run that has
            trained the model.
        backend: the backend, which provides the layer functions (`layers`).
        precision: the precision of matrix products.
        weight_format: the format that the weight matrices are quantized to.
        recompute: what the backward pass computes again (activation checkpointing): False, True
            (what is cheap) or "blocks".
        tokenizer: the model's Tokenizer, or None if unknown.
    """

    def __init__(
        self,
        config: GPT2Config,
        seed: int = 0,
        backend: str = "numba",
        params: Parameters | None = None,
        recompute: bool | str = False,
        precision: str = "fp32",
        weight_format: str = "fp32",
    ):
        """Create a model with new weights, or on existing Parameters.

        Args:
            config: the sizes.
            seed: the seed of the new weights; unused with params.
            backend: "numba", the compiled kernels, or "numpy", the reference.
            params: the Parameters to compute with, instead of new ones.
            recompute: True: recompute the outputs of gelu and of the layernorms before the matmuls
                in the backward pass instead of keeping them; saves 3/8 of the kept activations.
                "blocks": recompute each block from its input; saves 15/16, for up to a fifth
                more time. Both need a matmul's cache to be its arguments, as npgpt's layers have
                it.
            precision: of matrix products: "fp32" or, on CPUs with bf16 hardware, "bf16" (operands
                rounded to 8 significant bits instead of 24) or "bf16x3" (each operand the sum of
                two bf16; without AMX tiles: float32). Everything else is float32.
            weight_format: for inference: "fp32", or quantize the matrices to "bf16", "int8" (one
                scale per row) or "int4" (one per 32 weights of a row; wte in int8; n_embd must be
                a multiple of 32). The model then has QuantizedParameters of its own, and keeps no
                reference to params; params that are QuantizedParameters already are used as they
                are.

        Raises:
            ArgumentError: an option is unknown, or not supported by this machine or model.
        """
        if params is not None and params.config != config:
            raise ArgumentError(f"params must be of the model's {config}, not of {params.config}")
        check_recompute(recompute)
        self.config = config
        self.backend = make_backend(backend, precision, weight_format)
        self.recompute, self.precision, self.weight_format = recompute, precision, weight_format
        self._free_memory_when_collected()
        if params is None:
            params = Parameters.init(config, seed)
        self.params: Parameters = quantize_weights(params, weight_format)
        self.grads: Parameters | None = None
        self.optimizer: Optimizer | None = None
        self.tokenizer: Tokenizer | None = None

    def _free_memory_when_collected(self) -> None:
        # Kernels reuse buffers across steps and models. They are freed for all models: another one
        # allocates what it needs anew.
        weakref.finalize(self, self.backend.free_memory)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Complete a copy, by copy.deepcopy or pickle."""
        self.__dict__.update(state)
        self._free_memory_when_collected()

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str], **options: Any) -> GPT2:
        """Load an llm.c model file; raises FileError where it is damaged or of another kind.

        The model has no tokenizer: `from_pretrained` reads that, too. The options are those of
        GPT2: backend, recompute, precision and weight_format.
        """
        params = read_checkpoint(path, checked_factory(**options))
        return cls(params.config, params=params, **options)

    @classmethod
    def from_pretrained(cls, where: str | os.PathLike[str], **options: Any) -> GPT2:
        """Load a model and, where it is known, its tokenizer.

        where is a published name (gpt2, gpt2-medium, ...; downloaded once), an llm.c model file, a
        Hugging Face folder or .safetensors file, or the folder of a training run. The options are
        those of GPT2: backend, recompute, precision and weight_format. Raises FileError where
        there is no model or it is damaged.
        """
        params, description = load_model(where, checked_factory(**options))
        model = cls(params.config, params=params, **options)
        model.tokenizer = None if description is None else tokenizer_from_description(description)
        return model

    @property
    def layers(self) -> Any:
        """The backend's layer functions: npgpt.layers, npgpt.kernels, or your own."""
        return self.backend.layers

    @layers.setter
    def layers(self, layers: Any) -> None:
        self.backend.layers = layers

    def _layers_for_params(self) -> Any:
        # The layer functions, which take the matrices as they are in the parameters.
        if self.weight_format == "fp32":
            return self.layers
        from npgpt.model.quantized_layers import QuantizedLayers

        return QuantizedLayers(self.layers)

    def computing(self, flops_per_parameter: float) -> AbstractContextManager[None]:
        """Context with this model's precision, and as many threads as this work is worth.

        The work is in flops per parameter; Backend.computing takes all flops.
        """
        flops = flops_per_parameter * count_parameters(self.config)
        return self.backend.computing(flops, self.precision)

    def decoder(self) -> Decoder:
        """A Decoder, which runs new tokens through the model with a key-value cache."""
        return self.backend.decoder(self.params, self._layers_for_params())

    def forward(self, tokens: ArrayLike) -> NDArray[np.floating]:
        """Compute the logits of tokens (B, T), T up to block_size.

        Returns: logits (B, T, V), in the dtype of the parameters.
        Raises: ArgumentError where tokens are not integers in the vocabulary, or not of this shape.
        """
        config = self.config
        ids = checked_ids("tokens", tokens, config.vocab_size, longest=config.block_size)
        layers = self._layers_for_params()
        with self.computing(2 * ids.size):
            lnf, _ = body_forward(ids, self.params, layers, keep=False)
            logits, _ = layers.matmul_forward(lnf, self.params.wte)
        return logits

    def loss(self, tokens: ArrayLike, targets: ArrayLike) -> float:
        """The mean cross-entropy in nats of tokens and targets (B, T); no gradients.

        Targets of -1 are ignored. Raises ArgumentError as forward does, also for targets.
        """
        x, y = checked_batch(tokens, targets, self.config)
        with self.computing(2 * x.size):
            return gpt2_loss(x, y, self.params, self._layers_for_params())

    def forward_backward(
        self,
        tokens: ArrayLike,
        targets: ArrayLike,
        dloss: float = 1.0,
        add: bool = False,
        dropout: float = 0.0,
        seed: int | Sequence[int] = 0,
        before: int = 0,
        block_done: Callable[[int], None] | None = None,
    ) -> float:
        """Compute the loss, and overwrite `grads` with dloss times its gradients.

        With add they are added to `grads` instead: for n micro-batches of equally many targets,
        call it with dloss=1/n, and with add from the second one on. dropout is the fraction of
        activations to drop out; the same seed, an integer of at least 0 or several, drops the same
        ones, so pass another one each time. Of a batch that is computed in parts, `before` is the
        number of sequences before this part: so its parts drop what the whole would. block_done(l)
        is called as soon as the gradients of block l are in `grads`, from the last block to the
        first. Raises ArgumentError as loss does, with add where there are no gradients yet, and for
        a dropout that is not from 0 to below 1, or no such seed.
        """
        x, y = checked_batch(tokens, targets, self.config)
        drops = make_dropout(dropout, seed, before)
        if self.grads is None:
            if add:
                raise ArgumentError(
                    "add=True needs gradients to add to: call forward_backward without it first"
                )
            self.grads = Parameters(self.config, dtype=self.params.wpe.dtype)
            self.backend.prepare_training(self.grads.flat.dtype, self.precision)
        with self.computing(6 * x.size):
            return gpt2_forward_backward(
                x, y, self.params, self.grads, self._layers_for_params(), dloss, add,
                self.recompute, drops, block_done,
            )  # fmt: skip

    def gradient_norm(self) -> float:
        """The global L2 norm of `grads`; raises ArgumentError before the first forward_backward."""
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

        With clip, gradients are clipped to that global norm, and their norm before clipping is
        returned; otherwise None is returned. decayed_params is what weight_decay applies to: "all",
        or "matrices" without biases and layernorms. The defaults are PyTorch's, except that
        weight_decay is 0; `train` has others. Raises ArgumentError before the first
        forward_backward, for a quantized model, and for a clip that is not above 0.
        """
        grads = self._grads("update")
        if self.weight_format != "fp32":
            raise ArgumentError(f"a model in weight_format {self.weight_format} cannot be updated")
        if clip is not None and not clip > 0:
            raise ArgumentError(f"clip must be a number above 0, not {clip!r}")
        if type(self.optimizer) is not AdamW:  # not Muon, which is one, too
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
        Logits of tokens already in the row are divided by repetition_penalty if positive, else
        multiplied (Keskar et al. 2019). A row that has drawn `stop`, a token, is padded with it.
        The same seed draws the same tokens; for several samples, repeat the prompt as rows.

        A context longer than block_size is cut to its last (block_size + 1) // 2 tokens. With
        cache=False no keys and values are kept, and every token costs a full forward pass.
        Precision is at least bf16x3: with `cache` or without, logits differ by float32's rounding
        alone, and greedy texts are the same unless two tokens are as close as that. Raises
        ArgumentError where an argument is out of its range, or the logits are not finite: the model
        has diverged.
        """
        new = stream_tokens(
            self, tokens, max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
            repetition_penalty=repetition_penalty, stop=stop, seed=seed, cache=cache,
        )  # fmt: skip
        return np.column_stack([np.asarray(tokens, np.int64), *new])

    def _grads(self, what: str) -> Parameters:
        if self.grads is None:
            raise ArgumentError(f"call forward_backward() before {what}()")
        return self.grads


def checked_factory(
    backend: str = "numba", precision: str = "fp32", weight_format: str = "fp32", **_: Any
) -> Callable[[GPT2Config], Any]:
    """As params_factory, after the check that these options of GPT2 are supported.

    So they are refused before a file is read.
    """
    make_backend(backend, precision, weight_format)
    return params_factory(weight_format)
