"""Each planted bug is found where it is, and its cause named; and none in a right model."""

import numpy as np
import pytest
from porting.planted import CATALOGUE, Buggy

from npgpt.core.config import GPT2Config
from npgpt.porting.causes import find_cause
from npgpt.porting.compare import compare
from npgpt.porting.sources import Expected, Mine
from npgpt.tracing.files import dtype_of, open_trace_writer
from npgpt.tracing.names import shape_of
from npgpt.tracing.record import Recorder, Updates
from npgpt.tracing.seeded import random_batch, random_parameters

CONFIG = GPT2Config(block_size=12, vocab_size=37, n_layer=2, n_head=3, n_embd=12)
B, T, STEPS = 3, 9, 2
UPDATES = Updates(STEPS, lr=1e-3, weight_decay=0.3)


def write(recorder, path, dtype):
    B, T = recorder.tokens.shape
    tensors = {
        name: (dtype_of(name, dtype), shape_of(name, recorder.params.config, B, T))
        for name in recorder.names
    }
    with open_trace_writer(path, tensors) as out, np.errstate(all="ignore"):
        recorder.run(out)
    return path


@pytest.fixture(scope="module")
def model():
    return random_parameters(CONFIG, 5), *random_batch(5, B, T, CONFIG.vocab_size)


@pytest.fixture(scope="module")
def expected(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("oracle") / "oracle.safetensors"
    return Expected(write(Recorder(*model, updates=UPDATES), path, "<f8"))


@pytest.mark.parametrize("bug", CATALOGUE, ids=lambda bug: bug.name)
def test_the_first_wrong_tensor_and_its_cause_are_found(bug, model, expected, tmp_path):
    path = write(
        Buggy(bug, *model, backend="numpy", updates=UPDATES), tmp_path / "mine.safetensors", "<f4"
    )
    findings, _ = compare(expected, Mine(path, expected))
    wrong = [finding for finding in findings if finding.status != "right"]
    assert wrong and wrong[0].name == bug.first, wrong[:3]
    cause = find_cause(wrong[0].case)
    assert (cause and cause[0]) == bug.cause, cause
