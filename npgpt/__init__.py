"""GPT-2 by hand in NumPy and Numba: layers, model, files and the check against PyTorch."""

from npgpt.core.config import PUBLISHED, GPT2Config
from npgpt.core.parameters import Parameters
from npgpt.core.threads import get_threads, set_threads
from npgpt.data.tokenizer import get_tokenizer
from npgpt.errors import ArgumentError, FileError, NpgptError, TrainingError
from npgpt.formats.debug_state import DebugState, read_debug_state, write_debug_state
from npgpt.formats.llmc import read_checkpoint, write_checkpoint
from npgpt.model.gpt2 import GPT2
from npgpt.model.memory import Estimate, estimate

__version__ = "0.1.0"

__all__ = [
    "PUBLISHED",
    "ArgumentError",
    "DebugState",
    "Estimate",
    "FileError",
    "GPT2",
    "GPT2Config",
    "NpgptError",
    "Parameters",
    "TrainingError",
    "estimate",
    "get_threads",
    "get_tokenizer",
    "read_checkpoint",
    "read_debug_state",
    "set_threads",
    "trace",
    "train",
    "write_checkpoint",
    "write_debug_state",
]


def __getattr__(name):
    """Load the trainer and the tracer when first asked for: they are half of what there is."""
    if name == "train":
        from npgpt.training.train import train

        return train
    if name == "trace":
        from npgpt.tracing.tree import trace

        return trace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
