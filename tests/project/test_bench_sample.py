"""The sampling bench's arithmetic, its table and what it refuses; GPT-2 124M is not run here."""

import json
import sys

import numpy as np
import pytest

from bench import sample


def fake():
    """A system that takes no time but counts what it is asked for."""
    asked = []

    def system(prompt):
        def generate(count):
            asked.append(count)
            return np.zeros((1, prompt.shape[1] + count), int)

        return generate

    return system, asked


def test_a_run_is_timed_after_a_warm_up(monkeypatch):
    system, asked = fake()
    clock = iter([0.0, 2.0, 10.0, 14.0])
    monkeypatch.setitem(sample.SYSTEMS, "npgpt", system)
    monkeypatch.setattr(sample.time, "perf_counter", lambda: next(clock))
    assert sample.run_one("npgpt", 5, 8, 2) == {"tokens_per_second": [4.0, 2.0]}
    assert asked == [sample.WARM_UP, 8, 8]


def test_a_system_that_stops_early_is_found(monkeypatch):
    monkeypatch.setitem(sample.SYSTEMS, "npgpt", lambda prompt: lambda count: prompt)
    with pytest.raises(AssertionError):
        sample.run_one("npgpt", 5, 8, 1)


RUNS = {
    "npgpt": [[60.0, 50.0], [70.0]],
    "npgpt, bf16": [[90.0, 90.0], [90.0]],
    "npgpt, int8": [[120.0, 120.0], [120.0]],
    "transformers": [[30.0, 40.0], [20.0]],
    "transformers, bf16": [[45.0, 45.0], [45.0]],
    "limit": [[80.0], [80.0]],
}


def test_the_table_compares_medians():
    results = {
        name: sample.summary([{"tokens_per_second": speeds} for speeds in runs])
        for name, runs in RUNS.items()
    }
    lines = sample.table(results, 64, 32)
    assert lines[0].startswith("| 32 tokens after 64, greedy |")
    assert lines[2] == "| npgpt | 60.0 (50.0 to 70.0) | 1.00 | 1.50 | 2.00 |"
    assert lines[5] == "| transformers | 30.0 (20.0 to 40.0) | 2.00 | 3.00 | 4.00 |"
    assert lines[7] == "| limit | 80.0 (80.0 to 80.0) | 0.75 | 1.12 | 1.50 |"


def test_the_systems_take_turns_and_what_they_did_is_written(monkeypatch, capsys, tmp_path):
    order = []

    def child(module, only, name, *options):
        order.append(name)
        assert options == ("--length", 5, "--tokens", 7, "--runs", 2)
        return {"tokens_per_second": RUNS[name][order.count(name) - 1]}

    monkeypatch.setattr(sample, "child", child)
    monkeypatch.setattr(sample, "version", lambda name: "1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(sample, "describe", lambda: {"cpu": "one"})
    words = "--length 5 --tokens 7 --rounds 2 --runs 2".split()
    monkeypatch.setattr(sys, "argv", ["bench.sample", *words, "--out", str(tmp_path / "new")])
    sample.main()
    names = list(RUNS)
    assert order == [*names, *names[1:], names[0]]
    written = json.loads((tmp_path / "new" / "sample_5x7.json").read_text())
    assert written["results"]["npgpt"] == {"median": 60.0, "least": 50.0, "most": 70.0}
    assert written["machine"] == {"cpu": "one", "transformers": "1"}
    assert "| npgpt | 60.0 (50.0 to 70.0) | 1.00 | 1.50 | 2.00 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tokens", "0"], "--tokens must be at least 1, not 0"),
        (["--length", "1000"], "--length and --tokens must be at most 1024 together"),
        (["--only", "llama"], "invalid choice"),
    ],
)
def test_bad_settings_are_refused(words, message, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["bench.sample", "--out", str(tmp_path), *words])
    with pytest.raises(SystemExit) as stopped:
        sample.main()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_one_system_alone_prints_a_line_of_json(monkeypatch, capsys):
    monkeypatch.setitem(sample.SYSTEMS, "npgpt", fake()[0])
    monkeypatch.setattr(sys, "argv", ["bench.sample", "--only", "npgpt", "--runs", "3"])
    sample.main()
    assert len(json.loads(capsys.readouterr().out)["tokens_per_second"]) == 3


def test_what_is_missing_is_named_with_the_command(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["bench.sample", "--out", str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        sample.main()
    assert "torch is missing: pip install -e '.[reference]'" in capsys.readouterr().err
