"""Each planted bug is found where it is, and its cause named; and none in a right model."""

import pytest
from porting.planted import CATALOGUE, QUIET, Buggy
from porting.traces import NEAREST, write_trace

from npgpt.core.config import GPT2Config
from npgpt.porting.causes import CAUSES
from npgpt.porting.compare import compare
from npgpt.porting.reference import PAIR_UPDATES, PAIRS, make_pair
from npgpt.porting.report import make_report
from npgpt.porting.sources import Expected, Mine
from npgpt.tracing.record import Recorder, Updates
from npgpt.tracing.seeded import random_batch, random_parameters

CONFIG = GPT2Config(block_size=12, vocab_size=37, n_layer=2, n_head=3, n_embd=12)
MODEL = (random_parameters(CONFIG, 5), *random_batch(5, 3, 9, 37))
UPDATES = Updates(2, lr=1e-3, weight_decay=0.3)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    path = tmp_path_factory.mktemp("oracle") / "oracle.safetensors"
    return Expected(write_trace(Recorder(*MODEL, updates=UPDATES), path))


@pytest.mark.parametrize("bug", CATALOGUE, ids=lambda bug: bug.name)
def test_the_first_wrong_tensor_and_its_cause_are_found(bug, expected, tmp_path):
    recorder = Buggy(bug, *MODEL, backend="numpy", updates=UPDATES)
    path = write_trace(recorder, tmp_path / "mine.safetensors", "<f4")
    report = make_report(expected, Mine(path, expected))
    first = next(finding for finding in report.findings if finding.status != "right")
    assert first.name == bug.first, first
    assert (first.cause or None) == bug.cause, first


@pytest.mark.parametrize("bug", QUIET, ids=lambda bug: bug.name)
def test_a_mistake_that_one_pair_shows_is_found_there(bug, tmp_path):
    words = {"overflows": "loud", "-1": "ignored", "ignored": "ignored", "always": "ignored"}
    pair = next((name for word, name in words.items() if word in bug.name.split()), "plain")
    model = make_pair(pair)
    expected = Expected(write_trace(Recorder(*model), tmp_path / "oracle.safetensors"))
    path = write_trace(Buggy(bug, *model, backend="numpy"), tmp_path / "mine.safetensors", "<f4")
    first = make_report(expected, Mine(path, expected)).wrong[0]
    assert (first.name, first.cause or None) == (bug.first, bug.cause), first


def test_the_catalogue_is_large_and_most_causes_are_known():
    assert len({bug.name for bug in CATALOGUE}) == len(CATALOGUE) >= 40
    assert sum(bug.cause is not None for bug in CATALOGUE) >= 30
    assert {bug.cause for bug in CATALOGUE} - {None} <= {cause.name for cause in CAUSES}
    assert len({bug.name for bug in (*CATALOGUE, *QUIET)}) == len(CATALOGUE) + len(QUIET)


@pytest.mark.parametrize("backend", ["oracle", "numpy", "numba"])
@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_nothing_is_found_in_a_right_model(backend, dtype, expected, tmp_path):
    if dtype == "<f8" and backend != "oracle":
        pytest.skip("they compute in float32")
    recorder = Recorder(*MODEL, backend=backend, updates=UPDATES)
    path = write_trace(recorder, tmp_path / "mine.npz", dtype)
    findings, judge = compare(expected, Mine(path, expected))
    assert {finding.status for finding in findings} <= {"right", "absent"}
    assert judge.dtype == {"<f4": "float32", "<f8": "float64"}[dtype]
    assert 0.01 < max(finding.excess for finding in findings) < 0.5


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_nothing_is_found_in_a_right_pair(name, backend, tmp_path):
    model, updates = make_pair(name), PAIR_UPDATES._replace(steps=2)
    path = write_trace(Recorder(*model, updates=updates), tmp_path / "oracle.safetensors")
    expected = Expected(path)
    recorder = Recorder(*model, backend=backend, updates=updates)
    path = write_trace(recorder, tmp_path / "mine.safetensors", "<f4")
    findings, _ = compare(expected, Mine(path, expected))
    assert {finding.status for finding in findings} <= {"right", "absent"}
    assert 0.01 < max(finding.excess for finding in findings) < NEAREST
