"""The gaps that the upper end of the expected calibration error's interval is taken from."""

from __future__ import annotations

import numpy as np

from mlcicd.evaluation.calibration import _evened


def test_gaps_that_are_noise_are_evened_and_certain_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    weight = np.full(15, 1 / 15)
    seen = 0.05 + 0.04 * rng.normal(size=15)
    evened = _evened(seen, np.full(15, 0.04), weight)
    assert np.array_equal(np.sign(evened), np.sign(seen))
    assert np.isclose(weight @ np.abs(evened), weight @ np.abs(seen))
    assert np.ptp(np.abs(evened)) < 0.7 * np.ptp(np.abs(seen))
    assert np.allclose(_evened(seen, np.full(15, 1e-6), weight), seen)
