"""Ratios of means, and draws of groups of unequal size, against brute force."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

from mlcicd.evaluation import losses
from mlcicd.evaluation.drawn import Draws, Weighed
from mlcicd.evaluation.intervals import MetricResult, estimate
from mlcicd.evaluation.predictions import Predictions, Structure
from mlcicd.evaluation.ratios import Moments, RatioOfMeans
from mlcicd.evaluation.settled import weighed
from mlcicd.evaluation.uncertainty import SkewedMean, p_value, variance_degrees

Floats = NDArray[np.float64]


def heavy(n: int = 400) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(4)
    x = rng.normal(size=n)
    y = 5 + np.exp(0.5 * x + 0.5 * rng.normal(size=n))
    return y, 5 + np.exp(0.5 * x), 5 + np.exp(0.4 * x + 0.1 * rng.normal(size=n))


def r2(y: Floats, *answers: Floats, structure: Structure | None = None) -> MetricResult:
    predictions = [Predictions(a) for a in answers]
    return estimate("regression", ["r2"], y, *predictions, structure=structure)[0]


def crossing(above: Floats, spread: Floats, found: RatioOfMeans, side: int) -> float:
    """The ratio at which one end of the interval of the mean of above - ratio spread is 0, by root finding."""

    def interval_end(ratio: float) -> float:
        rows = above - ratio * spread
        mean = losses.from_influence(float(rows.mean()), losses.centred(rows, None), -math.inf, math.inf)
        return replace(mean, df=found.df).interval(0.9)[side]

    return float(optimize.brentq(interval_end, found.estimate - 2, found.estimate + 2, xtol=1e-12))


def test_the_ends_of_r2_are_where_the_combination_is_a_mean_that_is_just_not_zero() -> None:
    y, candidate, champion = heavy()
    result = r2(y, candidate, champion)
    squared = [(y - a) ** 2 for a in (candidate, champion)]
    spread = (y - y.mean()) ** 2
    for found, above in (
        (result.uncertainty, spread - squared[0]),
        (result.difference_uncertainty, squared[1] - squared[0]),
    ):
        assert isinstance(found, RatioOfMeans)

        ends = [crossing(above, spread, found, side) for side in (0, 1)]
        assert found.interval(0.9) == pytest.approx(tuple(ends), abs=1e-9)
        assert found.interval(0.9)[0] < found.estimate < found.interval(0.9)[1]


def test_moments_of_a_combination_are_those_of_its_contributions() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=50) ** 3, rng.exponential(size=50)
    a, b = a - a.mean(), b - b.mean()
    for ratio in (-1.3, 0.0, 0.7):
        square, skewness = Moments.of(a, b).combined(ratio)
        assert square == pytest.approx(float(((a - ratio * b) ** 2).sum()))
        assert skewness == pytest.approx(float(stats.skew(a - ratio * b)))


def test_a_difference_of_r2_leaves_zero_out_where_that_of_the_squared_errors_does() -> None:
    y, candidate, champion = heavy()
    one = r2(y, candidate, champion).difference_uncertainty
    other = estimate("regression", ["mse"], y, Predictions(candidate), Predictions(champion))[0].difference_uncertainty
    assert isinstance(one, RatioOfMeans)
    assert isinstance(other, SkewedMean)
    # At the ratio 0 both are the same test. The degrees of freedom are those of the tails at the estimate.
    alike = replace(one, df=other.df)
    side = ("above", "below") if one.estimate > 0 else ("below", "above")
    assert p_value(alike, 0.0, side=side[0]) == pytest.approx(p_value(other, 0.0, side=side[1]), rel=1e-6)


def test_r2_of_groups_is_found_over_groups_and_constant_or_perfect_answers_are_no_error() -> None:
    y, candidate, champion = heavy()
    alone = r2(y, candidate, champion).candidate_interval
    # Each row four times over is no more evidence, when the four are one group.
    four = [np.repeat(v, 4) for v in (y, candidate, champion)]
    grouped = r2(*four, structure=Structure(np.repeat(np.arange(400), 4), "patient")).candidate_interval
    assert alone is not None
    assert grouped == pytest.approx(alone, rel=1e-3)
    perfect = r2(y, y).candidate_interval
    assert perfect is not None
    assert perfect == (1.0, 1.0)
    assert "constant" in r2(np.ones(50), np.arange(50.0)).reason
    low, high = r2(np.array([0.0, 1.0, 3.0]), np.array([0.2, 0.9, 3.0])).candidate_interval or (0.0, 0.0)
    assert (low, high) == (-math.inf, 1.0)


def test_draws_of_weighed_groups_are_as_wide_as_the_jackknife() -> None:
    rng = np.random.default_rng(2)
    size = rng.integers(1, 40, 30).astype(float)
    total = size * rng.normal(1, 0.3, 30)
    ratio = total.sum() / size.sum()
    without = (total.sum() - total) / (size.sum() - size)
    weights = rng.standard_exponential((20_000, 30))
    draws = (weights @ total) / (weights @ size)
    found = weighed(ratio, draws, 30, without)
    assert isinstance(found, Weighed)
    jackknife = math.sqrt(29 / 30 * float(((without - without.mean()) ** 2).sum()))
    assert float(draws.std()) < 0.97 * jackknife
    assert found.stretch == pytest.approx(jackknife / float(draws.std()))
    low, high = found.interval(0.95)
    below, above = replace(found, stretch=1.0).interval(0.95)
    assert (high - low) / (above - below) == pytest.approx(found.stretch, rel=0.01)
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, found.units - 1) * jackknife, rel=0.06)


def test_draws_by_exponential_weights_are_read_at_the_levels_of_their_own_skewness() -> None:
    draws = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    assert Weighed(0.0, draws, 0.0, 1e9).interval(0.95) == pytest.approx((-1.96, 1.96), abs=2e-3)
    # z + 2 z_0 - a at both ends: a bias of 0.2 standard errors, and an acceleration of 0.1.
    assert Weighed(0.2, draws, 0.1, 1e9).interval(0.95) == pytest.approx((-1.66, 2.26), abs=4e-3)
    # Nothing beyond what was drawn is claimed by the stretch: levels move, and the draws stay.
    assert Weighed(0.9, np.minimum(draws / 20 + 0.9, 1.0), 0.0, 1e9, 1.3).interval(0.95)[1] == 1.0


def test_skewed_groups_lean_as_halls_interval_does() -> None:
    """Both are right to the second order: BCa as it stands would lean half again as far, of exponential weights."""
    rng = np.random.default_rng(3)
    rows = rng.exponential(size=200)
    draws = rng.dirichlet(np.ones(200), 20_000) @ rows
    found = weighed(float(rows.mean()), draws, 200, (rows.sum() - rows) / 199)
    hall = losses.from_influence(float(rows.mean()), losses.centred(rows, None), -math.inf, math.inf)
    se = float(rows.std()) / math.sqrt(200)
    for ours, other in zip(found.interval(0.95), hall.interval(0.95), strict=True):
        assert (ours - rows.mean()) / se == pytest.approx((other - rows.mean()) / se, abs=0.08)


def test_few_draws_miss_as_much_as_they_say() -> None:
    draws = np.arange(1.0, 100.0)
    # Of 99 values and one more, each place of the one is equally likely: 5 of 100 are outside of 2.5 to 97.5.
    assert Draws(50.0, draws).interval(0.95) == pytest.approx((2.5, 97.5))


def test_excess_kurtosis_takes_degrees_off_and_skewness_gives_some_back() -> None:
    assert variance_degrees(100, 0.0, 0.0) == 100
    assert variance_degrees(100, -1.2, 0.0) == 100
    assert variance_degrees(100, 3.0, 0.0) == 25
    assert variance_degrees(100, 6.0, 2.0) == 20
    # The terms of the expansion that the excess stands in, for z of 1.96 and 1,000 rows, and Student's own.
    z, excess, n = 1.96, 20.0, 1000
    widened = stats.t.ppf(stats.norm.cdf(z), variance_degrees(n, excess, 0.0)) - stats.t.ppf(stats.norm.cdf(z), n)
    assert widened == pytest.approx(excess * z * (3 * z * z + 5) / (12 * n), rel=0.2)
