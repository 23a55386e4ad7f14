"""GPT-2 by hand in NumPy and Numba: layers, model, files and the check against PyTorch."""

from npgpt.checkpoint import read_checkpoint, write_checkpoint
from npgpt.config import PUBLISHED, GPT2Config
from npgpt.debug_state import DebugState, read_debug_state, write_debug_state
from npgpt.errors import ArgumentError, FileError, NpgptError
from npgpt.estimate import Estimate, estimate
from npgpt.gpt2 import GPT2
from npgpt.parameters import Parameters
from npgpt.threads import get_threads, set_threads
from npgpt.tokenizer import get_tokenizer

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
    "estimate",
    "get_threads",
    "get_tokenizer",
    "read_checkpoint",
    "read_debug_state",
    "set_threads",
    "train",
    "write_checkpoint",
    "write_debug_state",
]


def __getattr__(name):
    """Load the trainer when it is first asked for: it is half of what there is to import."""
    if name == "train":
        from npgpt.training import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
