"""Z-scores over a window."""

import numpy as np
import pytest

from npgpt.training.outliers import WINDOW, Outliers


def test_nothing_is_an_outlier_before_the_window_is_full():
    outliers = Outliers()
    assert [outliers.z(x) for x in [1.0] * (WINDOW - 1) + [1e9]] == [0.0] * WINDOW
    assert outliers.z(1e10) > 5


def test_the_score_is_that_of_numpy(rng):
    values = rng.standard_normal(3 * WINDOW).tolist()
    outliers = Outliers()
    scores = [outliers.z(x) for x in values]
    for i in range(WINDOW, len(values)):
        window = np.array(values[i - WINDOW + 1 : i + 1])
        assert scores[i] == pytest.approx((values[i] - window.mean()) / window.std(), abs=1e-9)
    assert outliers.z(100.0) > 10


def test_equal_numbers_have_no_outlier():
    outliers = Outliers()
    assert {outliers.z(2.5) for _ in range(2 * WINDOW)} == {0.0}


def test_it_goes_on_from_its_values(rng):
    values = rng.standard_normal(2 * WINDOW).tolist()
    whole, first = Outliers(), Outliers()
    expected = [whole.z(x) for x in values]
    for x in values[:150]:
        first.z(x)
    second = Outliers(list(first.values))
    assert [second.z(x) for x in values[150:]] == expected[150:]
