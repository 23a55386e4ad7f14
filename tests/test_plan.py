"""The program that predicts, on a machine whose figures are given."""

import pytest

from npgpt import plan
from npgpt.parallel.plan import Machine

MACHINE = Machine(0.1, 0.2, 0.3, 1e-9, copy=1e-10, threads=1)


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    calls = []

    def measure(*arguments):
        calls.append(arguments)
        return MACHINE

    monkeypatch.setattr(plan, "measure_machine", measure)
    monkeypatch.setattr(plan, "physical_cores", lambda: 4)
    return calls


def test_it_prints_step_memory_efficiency_and_time(capsys, measured):
    words = "--model gpt2 --nodes 64 --ranks-per-node 2 --bandwidth 100Gb/s --latency 2us --batch 4"
    assert plan.main([*words.split(), "-T", "128", "--tokens", "1e9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = {line[:13].strip(): line[14:] for line in lines[:7]}
    assert found["parameters"] == "124,439,808"
    assert found["ranks"] == "128, with 2 threads each"
    assert found["update"] == "65,536 tokens"
    assert found["memory a rank"].startswith(
        "1.60 GB: parameters 498 MB, gradients 498 MB, moments 8 MB"
    )
    assert found["step"].startswith("4.08 s: compute 3.95 s, exchange 0.1")
    assert 0.9 < float(found["efficiency"]) < 1.05
    assert found["time"].endswith("hours for 1,000,000,000 tokens")
    nodes = [line.split()[0] for line in lines[10:]]
    assert nodes == ["1", "4", "16", "64", "256", "1,024"]
    at_64 = next(line.split() for line in lines[10:] if line.split()[0] == "64")
    assert float(at_64[3]) == pytest.approx(float(found["efficiency"]), abs=1e-3)
    (call,) = measured
    assert call[1:5] == (4, 128, 2, 2)


@pytest.mark.parametrize(
    ("text", "bytes_per_second"),
    [("100Gb/s", 12.5e9), ("1 Gbit/s", 1.25e8), ("12GB/s", 12e9), ("500Mbps", 62.5e6)],
)
def test_a_rate_in_bits_or_bytes(text, bytes_per_second):
    assert plan.bandwidth(text) == pytest.approx(bytes_per_second)


def test_a_time_in_its_units():
    assert [plan.latency(text) for text in ("2us", "0.1 ms", "1s")] == pytest.approx(
        [2e-6, 1e-4, 1]
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--bandwidth 100", "must be a number with its unit, such as 100Gb/s or 12GB/s, not 100"),
        ("--bandwidth 0Gb/s", "such as 100Gb/s or 12GB/s, not 0Gb/s"),
        ("--bandwidth 1.2.3Gb/s", "not 1.2.3Gb/s"),
        ("--latency 2", "such as 2us or 0.1ms, not 2"),
        ("--nodes 0", "must be a whole number from 1, not 0"),
        ("--tokens nan", "--tokens must be a number above 0, not nan"),
        (
            "--total-batch 100 -T 64",
            "must be a multiple of 256, a micro-batch of all ranks, not 100",
        ),
        ("-T 2000", "T must be from 1 to the block_size 1024, not 2000"),
    ],
)
def test_bad_input_gets_one_sentence(words, message, capsys):
    try:
        status = plan.main(["--model", "gpt2", *words.split()])
    except SystemExit as end:
        status = end.code
    captured = capsys.readouterr()
    assert status == 2 and message in captured.err and captured.err.count("\n") == 1


def test_what_cannot_be_measured_for_want_of_memory_is_told(capsys, monkeypatch):
    monkeypatch.setattr(plan, "available_memory", lambda: 1e9)
    assert plan.main(["--model", "gpt2-xl"]) == 2
    assert "to measure 1 rank takes 4.79 GB" in capsys.readouterr().err


def test_each_published_name_and_depth_has_its_sizes():
    assert plan.planned_config("gpt2-xl").n_embd == plan.planned_config("d48").n_embd == 1600
    assert plan.planned_config("d12") == plan.planned_config("gpt2")
