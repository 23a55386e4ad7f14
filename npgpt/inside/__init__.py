"""What goes on inside a model: attention, residual stream, norms, times; edits and pictures."""

from npgpt.inside.edits import head, replace, scale
from npgpt.inside.layer_times import layer_times
from npgpt.inside.look import (
    Inside,
    Lens,
    early_logits,
    logit_lens,
    look,
    tensor_norms,
    token_labels,
)

__all__ = [
    "Inside",
    "Lens",
    "early_logits",
    "head",
    "layer_times",
    "logit_lens",
    "look",
    "replace",
    "scale",
    "tensor_norms",
    "token_labels",
]
