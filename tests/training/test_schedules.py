"""Learning rates: where each schedule starts, passes through and ends."""

import math

import pytest

from npgpt.training.schedules import SCHEDULES, learning_rate


def rates(schedule, steps=100, warmup=10, **options):
    return [learning_rate(i, steps, 2.0, warmup, schedule, **options) for i in range(steps)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_rises_in_a_line_to_lr(schedule):
    assert rates(schedule)[:11] == pytest.approx([0.2 * k for k in range(1, 11)] + [2.0])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_after_warm_up_it_never_rises(schedule):
    after = rates(schedule, final=0.1)[10:]
    assert all(a >= b for a, b in zip(after, after[1:], strict=False))
    assert (after[-1] < after[0]) == (schedule != "constant")


@pytest.mark.parametrize(
    "schedule, halfway",
    [("cosine", 1.0), ("linear", 1.0), ("constant", 2.0), ("wsd", 2.0)],
)
def test_halfway(schedule, halfway):
    assert learning_rate(55, 100, 2.0, 10, schedule) == pytest.approx(halfway)


def test_a_cosine_is_the_formula_of_loshchilov_and_hutter():
    gone = (30 - 10) / (100 - 10)
    expected = 0.2 + (2.0 - 0.2) * (1 + math.cos(math.pi * gone)) / 2
    assert learning_rate(30, 100, 2.0, 10, "cosine", final=0.1) == pytest.approx(expected)


def test_wsd_falls_by_a_root_over_its_last_part():
    stay = rates("wsd", decay=0.4)[10:61]
    assert set(stay) == {2.0}
    assert learning_rate(70, 100, 2.0, 10, "wsd", decay=0.4) == pytest.approx(2 * (1 - 0.5))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_it_ends_at_the_final_part_of_lr(schedule):
    assert learning_rate(100, 100, 2.0, 10, schedule, final=0.25) == pytest.approx(0.5)
    assert learning_rate(150, 100, 2.0, 10, schedule, final=0.25) == pytest.approx(0.5)


def test_a_warm_up_as_long_as_the_run_is_no_division_by_zero():
    assert rates("cosine", steps=10, warmup=10)[-1] == 2.0
    assert learning_rate(10, 10, 2.0, 10, "linear") == 2.0
