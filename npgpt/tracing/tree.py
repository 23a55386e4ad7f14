"""The tensors of a pass as a tree: trace(model, tokens, targets).blocks[0].qkv."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npgpt.model.gpt2 import GPT2
from npgpt.model.quantization import float_parameters
from npgpt.tracing.names import INPUTS, block_of, select, split_name
from npgpt.tracing.record import Recorder

Edit = tuple[Callable[[Any], tuple[Any, Any]], Callable[[Any, Any], Any]]


class Trace(SimpleNamespace):
    """Every tensor of a forward and a backward pass, by llm.c's names.

    `blocks[i]` has those of block i: ln1_mean, ln1_rstd, ln1, qkv, preatt, att, atty, attproj,
    residual2, ln2_mean, ln2_rstd, ln2, fch, fch_gelu, fcproj and residual3. The others are encoded,
    lnf_mean, lnf_rstd, lnf, logits, probs, losses and loss. A d in front is a gradient, of these
    and of the parameters: dwte, blocks[0].dqkvw. trace["qkv.0"] is blocks[0].qkv.
    """

    blocks: list[SimpleNamespace]

    def __getitem__(self, name: str) -> NDArray[Any]:
        base, block = split_name(name)
        return getattr(self if block is None else self.blocks[block], base)

    def __repr__(self) -> str:
        return f"Trace of {len(self.blocks)} blocks, loss {float(self.loss):.6f}"


def trace(
    model: GPT2,
    tokens: ArrayLike,
    targets: ArrayLike,
    edits: Mapping[str, Edit] | None = None,
    backend: str = "numpy",
    only: list[str] | None = None,
) -> Trace:
    """Run a forward and a backward pass of a model on a batch, and keep every tensor.

    Args:
        model: the GPT2; neither its parameters nor its gradients are changed.
        tokens: integers (B, T).
        targets: integers (B, T), -1 where there is none.
        edits: {name: (forward, backward)}, for activations that are replaced on their way:
            forward(x) -> out, cache and backward(dout, cache) -> dx, as a layer's. npgpt.inside has
            `replace` and `scale`, which make such pairs.
        backend: "numpy", the textbook; "oracle", the textbook in float64; or "numba", the kernels,
            which have no arrays of preatt, att, losses, dlosses, dlogits, dpreatt and datt.
        only: the names or patterns of those to keep, such as ["att", "d*w"]; default: all.

    Returns:
        a Trace.

    Raises:
        ArgumentError: tokens or targets are not what the model takes, the backend is unknown, or a
            name in edits or only is none.
    """
    recorder = Recorder(float_parameters(model.params), tokens, targets, backend, edits=edits)
    wanted = {*select(recorder.names, only)} - {*INPUTS}
    found = Trace(blocks=[SimpleNamespace() for _ in range(model.config.n_layer)])

    def see(name, array):
        if name in wanted:
            block = block_of(name)
            place = found if block is None else found.blocks[block]
            setattr(place, split_name(name)[0], np.array(array))

    recorder.run(see)
    return found
