"""Traces that several tests of comparisons write."""

import numpy as np

from npgpt import GPT2Config
from npgpt.tracing.files import dtype_of, open_trace_writer
from npgpt.tracing.names import shape_of
from npgpt.tracing.record import Updates
from npgpt.tracing.seeded import random_batch, random_parameters

CONFIG = GPT2Config(block_size=10, vocab_size=29, n_layer=2, n_head=2, n_embd=8)
MODEL = (random_parameters(CONFIG, 9), *random_batch(9, 2, 7, 29))
UPDATES = Updates(2, 1e-3, 0.1)

# Of the limit: how near to it a right float32 trace comes; doc/porting/porting.md says so.
NEAREST = 0.6


def write_trace(recorder, path, dtype="<f8"):
    """Write all that a Recorder hands out -> the path."""
    B, T = recorder.tokens.shape
    tensors = {
        name: (dtype_of(name, dtype), shape_of(name, recorder.params.config, B, T))
        for name in recorder.names
    }
    with open_trace_writer(path, tensors) as out, np.errstate(all="ignore"):
        recorder.run(out)
    return path


def traced(recorder):
    """All that a Recorder hands out, by name."""
    found = {}
    with np.errstate(all="ignore"):
        recorder.run(lambda name, array: found.update({name: np.array(array)}))
    return found
