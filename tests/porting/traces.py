"""Traces that several tests of comparisons write."""

import numpy as np

from npgpt.tracing.files import dtype_of, open_trace_writer
from npgpt.tracing.names import shape_of


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
