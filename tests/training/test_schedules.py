"""Learning rates: where each schedule starts, passes through and ends."""

import math

import pytest

from npgpt.errors import ArgumentError
from npgpt.training.schedules import SCHEDULES, learning_rate
from npgpt.training.settings import make_settings


def rates(schedule, steps=100, warmup=10, **options):
    return [learning_rate(i, steps, 2.0, warmup, schedule, **options) for i in range(steps)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_rises_in_a_line_to_lr(schedule):
    assert rates(schedule)[:11] == pytest.approx([0.2 * k for k in range(1, 11)] + [2.0])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_after_warm_up_it_never_rises(schedule):
    after = rates(schedule, final_lr_fraction=0.1)[10:]
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
    assert learning_rate(30, 100, 2.0, 10, "cosine", final_lr_fraction=0.1) == pytest.approx(
        expected
    )


def test_wsd_falls_by_a_root_over_its_last_part():
    stay = rates("wsd", wsd_decay=0.4)[10:61]
    assert set(stay) == {2.0}
    half = learning_rate(70, 100, 2.0, 10, "wsd", wsd_decay=0.4)
    assert half == pytest.approx(2 * (1 - 0.5))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_it_ends_at_the_final_part_of_lr(schedule):
    assert learning_rate(100, 100, 2.0, 10, schedule, final_lr_fraction=0.25) == pytest.approx(0.5)
    assert learning_rate(150, 100, 2.0, 10, schedule, final_lr_fraction=0.25) == pytest.approx(0.5)


def test_a_warm_up_as_long_as_the_run_is_no_division_by_zero():
    assert rates("cosine", steps=10, warmup=10)[-1] == 2.0
    assert learning_rate(10, 10, 2.0, 10, "linear") == 2.0


@pytest.mark.parametrize("name", ["cos", "", None, "Cosine"])
def test_an_unknown_schedule_is_refused(name):
    message = f"schedule must be one of cosine, linear, constant, wsd, not {name!r}"
    with pytest.raises(ArgumentError, match=message):
        learning_rate(0, 100, 1e-3, 0, name)
    with pytest.raises(ArgumentError, match=message):
        learning_rate(0, 100, 1e-3, 5, name)  # in the warm-up, too


@pytest.mark.parametrize("lr", [3e-4, 0.1, 1 / 3, 6e-5])
@pytest.mark.parametrize("final_fraction", [0.0, 0.1, 1.0])
def test_a_constant_rate_is_lr_to_the_bit(lr, final_fraction):
    after = [
        learning_rate(step, 50, lr, 7, "constant", final_lr_fraction=final_fraction)
        for step in range(7, 60)
    ]
    assert set(after) == {lr}


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_min_lr_is_the_rate_that_it_falls_to(schedule):
    s = make_settings({"lr": 6e-4, "min_lr": 6e-5, "steps": 100, "warmup": 10})
    assert s.effective_final_lr_fraction == pytest.approx(0.1)
    final = s.effective_final_lr_fraction
    last = learning_rate(100, s.steps, s.lr, s.warmup, schedule, final, s.wsd_decay)
    assert last == pytest.approx(6e-5, rel=1e-12)
    same = make_settings({"lr": 6e-4, "final_lr_fraction": 0.1})
    finals = final, same.effective_final_lr_fraction
    for step in range(101):
        a, b = (learning_rate(step, 100, 6e-4, 10, schedule, final) for final in finals)
        assert a == pytest.approx(b, rel=1e-12)


def test_a_fraction_is_one_of_lr_and_none_is_nothing():
    assert make_settings({"final_lr_fraction": 0.25}).effective_final_lr_fraction == 0.25
    assert make_settings({}).effective_final_lr_fraction == 0.0
    assert make_settings({"lr": 1e-3, "min_lr": 1e-3}).effective_final_lr_fraction == 1.0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_of_the_table_goes_from_lr_to_its_fraction(schedule):
    fraction = SCHEDULES[schedule]
    assert fraction(0.0, 0.2) == 1.0
    assert fraction(1.0, 0.2) == pytest.approx(1.0 if schedule == "constant" else 0.2)
