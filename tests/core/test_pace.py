"""The number of threads while other programs use the cores, on machines that are made up."""

import pytest

from npgpt.core.pace import PASSES, Pace

# What a pass takes on n of four cores, by n: seconds, and the share of the cores that it gets.
IDLE = {1: (4.0, 1.0), 2: (2.0, 1.0), 4: (1.0, 1.0)}
BUSY = {1: (8.0, 0.5), 2: (20.0, 0.5), 4: (80.0, 0.5)}
HALF_BUSY = {1: (8.0, 0.5), 2: (3.0, 0.7), 4: (9.0, 0.5)}
BUSY_BUT_FASTER = {1: (8.0, 0.5), 2: (4.0, 0.5), 4: (2.0, 0.5)}


def passes(pace, machine, count):
    """Do so many passes -> how many threads each took."""
    taken = []
    for _ in range(count):
        n = pace.threads
        seconds, share = machine[n]
        pace.add(seconds, share * n * seconds)
        taken.append(n)
    return taken


def test_on_an_idle_machine_all_passes_take_all_threads():
    assert set(passes(Pace(4), IDLE, 2000)) == {4}


@pytest.mark.parametrize(("machine", "best"), [(BUSY, 1), (HALF_BUSY, 2)])
def test_on_a_busy_one_they_take_what_is_fastest(machine, best):
    taken = passes(Pace(4), machine, 2000)
    assert taken[6 * PASSES :].count(best) > 0.95 * len(taken[6 * PASSES :])


def test_where_fewer_are_no_faster_they_are_seldom_tried():
    taken = passes(Pace(4), BUSY_BUT_FASTER, 2000)
    assert taken.count(4) > 0.95 * len(taken) and taken.count(2) >= PASSES


@pytest.mark.parametrize("busy_for", [100, 5000])
def test_when_the_others_have_ended_all_threads_are_taken_again(busy_for):
    pace = Pace(4)
    assert passes(pace, BUSY, busy_for)[-1] == 1
    assert passes(pace, IDLE, 4000)[-1] == 4


def test_a_first_pass_that_compiles_is_no_sign_of_others():
    pace = Pace(2)
    pace.add(40.0, 40.0)  # on one core of two
    for _ in range(4 * PASSES):
        assert pace.threads == 2
        pace.add(10.0, 19.0)


def test_one_odd_pass_changes_nothing():
    pace = Pace(4)
    for i in range(300):
        pace.add(50.0 if i % 10 == 7 else 1.0, 4.0)
        assert pace.n == 4
