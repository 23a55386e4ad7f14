"""A small model's traces: by the oracle, and by the textbook in float32."""

import pytest
from porting.traces import MODEL, UPDATES, traced, write_trace

from npgpt.porting.sources import Expected
from npgpt.tracing.record import Recorder


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    path = tmp_path_factory.mktemp("oracle") / "oracle.safetensors"
    return Expected(write_trace(Recorder(*MODEL, updates=UPDATES), path))


@pytest.fixture(scope="module")
def right():
    return traced(Recorder(*MODEL, backend="numpy", updates=UPDATES))
