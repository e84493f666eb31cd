"""The gaps that the upper end of the expected calibration error's interval is taken from."""

from __future__ import annotations

import numpy as np

from mlcicd.evaluation.calibration import _evened
from mlcicd.evaluation.intervals import estimate
from mlcicd.evaluation.predictions import Predictions


def test_gaps_that_are_noise_are_evened_and_certain_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    weight = np.full(15, 1 / 15)
    seen = 0.05 + 0.04 * rng.normal(size=15)
    evened = _evened(seen, np.full(15, 0.04), weight)
    assert np.array_equal(np.sign(evened), np.sign(seen))
    assert np.isclose(weight @ np.abs(evened), weight @ np.abs(seen))
    assert np.ptp(np.abs(evened)) < 0.7 * np.ptp(np.abs(seen))
    assert np.allclose(_evened(seen, np.full(15, 1e-6), weight), seen)


def test_an_interval_stays_within_what_the_error_can_be() -> None:
    y = np.r_[np.ones(50), 0.0]
    scores = np.where(y == 1, 0.02, 0.98)
    result = next(r for r in estimate("binary", ["ece"], y, Predictions(scores=scores)) if r.name == "ece")
    assert result.candidate_interval is not None
    assert result.candidate_interval[0] <= result.candidate <= result.candidate_interval[1] <= 1.0
