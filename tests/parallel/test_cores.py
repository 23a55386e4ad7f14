"""The cores of a host, divided among its ranks; the launcher's variables; the limit of silence."""

import pytest
from ranks import in_ranks

from npgpt.core import threads
from npgpt.errors import ArgumentError
from npgpt.parallel import cores, start
from npgpt.parallel.communicator import ALONE, Alone
from npgpt.parallel.launcher import launched_as


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in (("_count", None), ("_found", None), ("_sharers", 1)):
        monkeypatch.setattr(threads, name, value)


def test_ranks_of_a_host_share_its_cores(monkeypatch):
    monkeypatch.setattr("loky.cpu_count", lambda only_physical_cores: 6)
    shared = []
    monkeypatch.setattr(cores, "share_cores", shared.append)
    monkeypatch.setattr(cores, "get_threads", lambda: 2)
    assert in_ranks(3, cores.divide_cores) == [[], [], []]
    assert shared == [3, 3, 3]
    assert cores.divide_cores(ALONE) == [] and shared[-1] == 1


def test_ranks_that_are_bound_to_cores_of_their_own_share_none(monkeypatch):
    bound = iter([{0}, {1}])
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: next(bound), raising=False)
    shared = []
    monkeypatch.setattr(cores, "share_cores", shared.append)
    monkeypatch.setattr(cores, "get_threads", lambda: 1)
    monkeypatch.setattr(cores, "physical_cores", lambda: 1)
    in_ranks(2, cores.divide_cores)
    assert shared == [1, 1]


def test_more_threads_than_cores_are_told():
    ranks = [["a", [0, 1], 1, 2], ["a", [0, 1], 1, 2], ["b", [0, 1], 2, 2], ["b", [0, 1], 1, 2]]
    assert cores.oversubscribed(ranks) == [
        "b: 2 ranks with 3 threads in all share 2 cores: fewer would be faster"
    ]


def test_cpus_with_other_instructions_are_told(monkeypatch):
    assert in_ranks(2, cores.unlike_cpus) == [[], []]
    names = iter(["znver4", "haswell"])
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_name", lambda: next(names))
    for notes in in_ranks(2, cores.unlike_cpus):
        assert len(notes) == 1 and "not all the same instructions (haswell, znver4)" in notes[0]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (0, 1)),
        ({"PMI_RANK": "3", "PMI_SIZE": "4"}, (3, 4)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMIX_RANK": "1"}, (1, 2)),
        ({"PMIX_RANK": "5", "SLURM_NTASKS": "8"}, (5, 8)),
        ({"SLURM_NTASKS": "8"}, (0, 1)),  # a batch job that started no ranks
        ({"PMI_RANK": "x", "PMI_SIZE": "4"}, (0, 1)),
    ],
)
def test_the_launcher_says_which_rank_this_is(environ, expected):
    assert launched_as(environ) == expected


def test_a_process_alone_has_no_mpi(monkeypatch):
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    assert type(start.communicator()) is Alone


@pytest.mark.parametrize("text", ["2", "never", "-5", "nan", "1e9"])
def test_a_limit_of_silence_that_cannot_be_is_refused(monkeypatch, text):
    monkeypatch.setenv("NPGPT_RANK_TIMEOUT", text)
    with pytest.raises(ArgumentError, match="NPGPT_RANK_TIMEOUT must be seconds from 3 to 86400"):
        start.silence_limit()


def test_the_limit_of_silence_is_the_environment_s_or_20(monkeypatch):
    monkeypatch.delenv("NPGPT_RANK_TIMEOUT", raising=False)
    assert start.silence_limit() == 20
    monkeypatch.setenv("NPGPT_RANK_TIMEOUT", "4.5")
    assert start.silence_limit() == 4.5
