"""The campaigns of bench.reliability: a sample of each, and that they notice what they are for."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import TINY_MODEL

from bench import machine, report, results
from bench.reliability import __main__ as campaign
from bench.reliability import coverage, faults, fuzz, kills, page, repetitions, runs, stress
from bench.reliability.mutations import MUTATIONS, mutate
from bench.reliability.readers import READERS, Reader
from bench.reliability.writers import WRITERS, Writer
from npgpt import FileError
from npgpt.files import open_for_reading

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts by Linux's means")

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused(name):
    count = fuzz.fuzz(name, 150, seed=1, limited=False)
    assert (count.unhandled, count.slow, count.faults) == (0, 0, [])
    assert count.read + count.refused == count.inputs == 150
    assert count.refused > 0 or name in ("tokens", "text", "merges.txt", "run's main.log")


SLOW_READERS = [pytest.param(name, marks=pytest.mark.slow) for name in [*READERS][3:]]


@pytest.mark.parametrize("name", [*[*READERS][:3], *SLOW_READERS])
def test_damage_that_hypothesis_thinks_of_is_read_or_refused(name, tmp_path):
    hypothesis = pytest.importorskip("hypothesis")
    reader = READERS[name]
    reader.makes[0](tmp_path)
    path = tmp_path / reader.file
    whole = path.read_bytes()

    @hypothesis.settings(max_examples=20, deadline=2000, database=None, derandomize=True)
    @hypothesis.given(hypothesis.strategies.randoms(use_true_random=False))
    def damaged(rng):
        count = fuzz.Count(name)
        content = mutate(rng, whole)
        path.write_bytes(content)
        fuzz.give(reader.read, path, content, count)
        assert count.read + count.refused == 1, count.faults

    damaged()


def test_every_mutation_changes_something():
    import random

    for mutation in MUTATIONS:
        changed = [bytearray(b'{"a": 1, "b": "text"}' * 3) for _ in range(20)]
        for i, content in enumerate(changed):
            mutation(random.Random(i), content)
        assert any(content != b'{"a": 1, "b": "text"}' * 3 for content in changed), mutation


def odd(path):
    """A reader that has faults of its own for some of the files."""
    with open_for_reading(path) as (file, _):
        content = file.read()
    if content[:1] == b"a":
        return content
    if content[:1] < b"a":
        raise FileError(f"{path}: not an a")
    raise KeyError("b")


def test_another_exception_is_a_fault():
    reader = Reader("f", [lambda folder: (folder / "f").write_bytes(b"aaaa")], odd)
    count = fuzz.fuzz("odd", 200, readers={"odd": reader}, limited=False)
    assert count.read and count.refused and count.unhandled
    assert count.read + count.refused + count.unhandled == 200
    assert count.faults[0][0] == "KeyError: 'b'" and bytes.fromhex(count.faults[0][1])[:1] > b"a"


def test_a_slow_reader_is_a_fault(monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.01)

    def busy(path):
        until = time.process_time() + 0.02
        while time.process_time() < until:
            pass

    reader = Reader("f", [lambda f: (f / "f").write_bytes(b"a")], busy)
    count = fuzz.fuzz("slow", 2, readers={"slow": reader}, limited=False)
    assert count.slow == 2 and count.slowest >= 0.02


def test_a_reader_that_hangs_is_interrupted(monkeypatch):
    monkeypatch.setattr(fuzz, "HUNG", 0.1)
    count, forever = fuzz.Count("hanging"), lambda path: [None for _ in iter(int, 1)]
    fuzz.give(forever, "", b"", count)
    assert count.unhandled == 1 and count.faults[0][0].startswith("TimeoutError")


def test_more_memory_than_the_file_and_64_mb_is_a_fault():
    code = """
from bench.reliability import fuzz
from bench.reliability.readers import Reader
sizes = iter([1, 40_000_000, 100_000_000])
reader = Reader("f", [lambda f: (f / "f").write_bytes(b"a")], lambda path: len(bytes(next(sizes))))
print(fuzz.fuzz("large", 2, readers={"large": reader}).faults)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("[['MemoryError: '"), done.stdout + done.stderr


def in_place(folder, value):
    """A writer as one writes it first."""
    with open(folder / "f", "w") as file:
        file.write(str(value))
        file.flush()
        file.write("whole")


def read_whole(folder):
    content = (folder / "f").read_text()
    return int(content[0]) if content[1:] == "whole" else content


CARELESS = {"careless": Writer(in_place, read_whole)}


SLOW_WRITERS = [
    pytest.param(name, marks=pytest.mark.slow) for name in WRITERS if name != "debug state"
]


@pytest.mark.parametrize("name", ["debug state", *SLOW_WRITERS])
def test_every_failing_call_is_survived(name):
    counts = faults.inject(name, errors=faults.ERRORS[:1])
    assert counts["faults"] == counts["old"] + counts["new"] + counts["set aside"] > 20
    assert counts["old"] > 0 and counts["full disks"] > 1


def test_a_careless_writer_does_not_survive_a_failing_call(monkeypatch):
    monkeypatch.setattr(faults, "NpgptError", OSError)
    with pytest.raises(
        AssertionError, match="careless: call 1, ENOSPC, lasting: False: .* is found"
    ):
        faults.inject("careless", CARELESS)
    with pytest.raises(AssertionError, match="careless: 0 bytes of disk"):
        faults.full_disks("careless", CARELESS["careless"])


@pytest.fixture
def may_trace():
    try:
        kills.killed(lambda: None, 0)
    except OSError as error:
        pytest.skip(f"this system lets no process trace another: {error}")


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_a_kill_at_any_system_call_is_survived(name, may_trace):
    counts = kills.kill_everywhere(name, step=5)
    assert counts["old"] > 0 and counts["old"] + counts["new"] + counts["told"] > 10


def test_a_careless_writer_does_not_survive_a_kill(may_trace):
    with pytest.raises(KeyError):  # what is found is neither the old nor the new one
        kills.kill_everywhere("careless", CARELESS)


@pytest.mark.slow
def test_runs_that_are_killed_at_random_end_as_if_nothing_had_happened(monkeypatch):
    monkeypatch.setitem(runs.SETTINGS, "steps", 12)
    counts = runs.random_kills(2, seed=1)
    assert counts["kills"] >= 2 and counts["runs"] >= 1


@pytest.mark.slow
def test_two_runs_in_a_folder_and_data_that_is_cut(tmp_path):
    runs.make_data(tmp_path)
    stress.two_in_one_folder(tmp_path)
    stress.cut_data(tmp_path)


@pytest.mark.slow
def test_a_training_has_the_same_bits_on_any_number_of_threads():
    assert repetitions.repeat(16, 8, "fp32") == {
        "precision": "fp32",
        "threads": 8,
        "repetitions": 20,
    }


def test_a_content_that_differs_is_another(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "checkpoints" / "step_00000001").mkdir(parents=True)
    (tmp_path / "main.log").write_text("")
    entry = {"step": 1, "loss": 2.0, "seconds": 1.0}
    (tmp_path / "log.jsonl").write_text(json.dumps(entry))
    before = runs.content(tmp_path)
    (tmp_path / "log.jsonl").write_text(json.dumps({**entry, "seconds": 2.0}))
    assert runs.content(tmp_path) == before
    (tmp_path / "checkpoints" / "step_00000001" / "model.bin").write_bytes(TINY_MODEL.read_bytes())
    assert runs.content(tmp_path) != before


RESULTS = {
    "fuzz": {"readers": [fuzz.asdict(fuzz.Count("tokens", 2000, 1500, 500, 0, 0, 0.0125))]},
    "guided": {
        "readers": [{"reader": "tokens", "inputs": 30_000, "reached": 41}],
        "seconds each": 60,
    },
    "faults": {
        "writers": [
            {"writer": "w", "faults": 90, "old": 79, "new": 10, "set aside": 1, "full disks": 7}
        ]
    },
    "kill_points": {
        "writers": [{"writer": "w", "kill points": 60, "old": 50, "new": 9, "told": 1}]
    },
    "random_kills": {"kills": 1000, "runs": 7},
    "stress": {"stress": {"SIGTERM": "saved"}},
    "repetitions": {"repetitions": [{"precision": "fp32", "threads": 16, "repetitions": 1100}]},
}


def test_the_page_has_what_was_counted(tmp_path):
    odd = {"cpu": "A", "extensions": "avx2", "bf16": "none", "threads": 2, "system": "Linux",
               "versions": {"Python": "3.11"}}  # fmt: skip
    for part, content in RESULTS.items():
        results.write_result(f"reliability_{part}", part, odd, content, tmp_path)
    at = results.commit()
    text = page.page(results.read_results(tmp_path))
    for said in (
        f"| tokens | 2,000 | 1,500 | 500 | 0 | 0 | 12 ms | {at} |",
        "| tokens | 30,000 | 41 |",
        "30,000 damaged files in all, by atheris (libFuzzer), 60 seconds for each",
        "| w | 90 | 79 | 10 | 1 | 7 |",
        "| w | 60 | 50 | 9 | 1 |",
        "killed 1,000 times",
        "| SIGTERM | saved |",
        "- fp32: 1,100 trainings on 1 to 16 threads",
    ):
        assert said in text, said


@pytest.mark.slow
def test_a_campaign_on_one_reader_keeps_the_counts_of_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    before = {"readers": [fuzz.asdict(fuzz.Count(name, 7)) for name in ("tokens", "HellaSwag")]}
    results.write_result(
        "reliability_fuzz", "reliability_fuzz", machine.describe(), before, tmp_path
    )
    args = SimpleNamespace(readers=["tokens"], inputs=8, workers=1)
    found = campaign.fuzz_readers(args)["readers"]
    assert [(count["reader"], count["inputs"]) for count in found] == [
        ("tokens", 16),
        ("HellaSwag", 7),
    ]
    assert all(count["commit"] for count in found)


ATHERIS = """
import sys
from contextlib import nullcontext
from pathlib import Path

def instrument_imports(include):
    assert not [name for name in sys.modules if name.split(".")[0] in include], "too late"
    return nullcontext()

def Setup(arguments, read):
    global prefix
    (prefix,) = [a[17:] for a in arguments if a.startswith("-artifact_prefix=")] or ["./"]
    corpus = Path(arguments[-1])
    for content in [path.read_bytes() for path in corpus.iterdir()] + [b"damaged"]:
        read(content)
    (corpus / "reached").write_bytes(b"damaged")

def Fuzz():
    print("Done 12 runs in 1 second(s)", file=sys.stderr)
"""


@pytest.mark.parametrize("fails", [False, True])
def test_what_coverage_guides_is_counted_and_a_fault_ends_it(fails, tmp_path, monkeypatch):
    """With a stand-in for atheris, which is no extra."""
    fault = "open(prefix + 'crash', 'w').close(); raise IndexError('of the reader')"
    fault = fault if fails else "pass"
    (tmp_path / "atheris.py").write_text(ATHERIS.replace("print(", f"{fault}; print("))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setattr(coverage, "ROOT", tmp_path)
    args = SimpleNamespace(readers=["tokens"], guided_seconds=1, workers=1)
    if fails:
        with pytest.raises(AssertionError, match="tokens: (?s:.*)IndexError: of the reader"):
            campaign.guided(args)
        assert (tmp_path / "crash").exists()  # what was not handled is kept
    else:
        found = campaign.guided(args)
        assert found["readers"] == [{"reader": "tokens", "inputs": 12, "reached": 1}]


def test_without_atheris_one_sentence_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(campaign, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        campaign.main(["--only", "guided"])
    assert ended.value.code == 2
    assert "error: atheris is missing: pip install atheris " in capsys.readouterr().err


def test_the_page_is_the_one_of_the_results():
    found = results.read_results()
    assert (ROOT / "doc" / "reliability.md").read_text(encoding="utf-8") == page.page(found)
    assert report.page(found).count("reliability") == 0
