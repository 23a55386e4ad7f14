"""What goes on inside a model: attention, residual stream, norms, each layer's time; pictures."""

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
    "layer_times",
    "logit_lens",
    "look",
    "tensor_norms",
    "token_labels",
]
