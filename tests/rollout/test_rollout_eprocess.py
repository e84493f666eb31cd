"""Exact enumeration: no factor may be worth more than 1 on average when its null hypothesis holds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcicd.rollout.eprocess import (
    bernoulli_log_factors,
    distribution_log_factors,
    grid,
    location_tilts,
    log_mixture,
    mean_interval,
    mean_log_e,
    normal_scores,
    rate_log_factors,
    sample_ratio_log_e,
)
from mlcicd.rollout.histograms import HistogramEvidence
from mlcicd.rollout.rates import GOOD_THETAS, HARM_THETAS, Dispersion, RateEvidence, limit_alternatives
from mlcicd.rollout.spec import MetricSpec
from mlcicd.rollout.windows import Histogram

EXACT = 1.0 + 1e-12
probability = st.floats(0.0, 1.0)


def binomial(n: int, p: float) -> np.ndarray:
    return np.array([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])


def rate_expectation(n_a: int, p_a: float, n_b: int, p_b: float, ratio: float, thetas: np.ndarray) -> np.ndarray:
    x_a, x_b = np.meshgrid(np.arange(n_a + 1), np.arange(n_b + 1), indexing="ij")
    factors = np.exp(rate_log_factors(x_a, n_a, x_b, n_b, ratio, thetas))
    chance = np.outer(binomial(n_a, p_a), binomial(n_b, p_b))
    return np.einsum("ij,ijk->k", chance, factors)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 12),
    st.integers(0, 12),
    probability,
    st.floats(0.0, 1.0),
    st.sampled_from([1.0, 1.1, 1.25, 2.0]),
)
def test_harm_factor_is_worth_at_most_one_under_its_null(n_a, n_b, p_a, part, ratio):
    p_b = min(1.0, part * ratio * p_a)
    assert np.all(rate_expectation(n_a, p_a, n_b, p_b, ratio, HARM_THETAS) <= EXACT)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), probability, probability, st.sampled_from([1.0, 1.5, 2.0]))
def test_promotion_factor_is_worth_at_most_one_under_its_null(n_a, n_b, p_a, part, ratio):
    least = min(1.0, ratio * p_a)
    if least < ratio * p_a:
        p_a = least / ratio
    p_b = least + part * (1.0 - least)
    assert np.all(rate_expectation(n_a, p_a, n_b, p_b, ratio, GOOD_THETAS) <= EXACT)


def test_the_bound_on_the_harm_factor_is_nearly_attained_for_rare_events():
    worth = rate_expectation(12, 0.01, 12, 0.01, 1.0, HARM_THETAS)
    assert np.all(worth > 0.95)


def test_harm_factor_is_worth_more_than_one_when_the_canary_is_worse():
    worth = rate_expectation(12, 0.02, 12, 0.2, 1.0, np.array([5.0]))
    assert worth[0] > 1.5


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 15), st.floats(0.001, 0.999), probability)
def test_one_sample_factor_is_worth_at_most_one_under_its_null(n, limit, part):
    x = np.arange(n + 1)
    worse = np.exp(bernoulli_log_factors(x, n, limit, limit_alternatives(limit, HARM_THETAS)))
    better = np.exp(bernoulli_log_factors(x, n, limit, limit_alternatives(limit, GOOD_THETAS)))
    assert np.all(binomial(n, limit * part) @ worse <= EXACT)
    assert np.all(binomial(n, limit + part * (1 - limit)) @ better <= EXACT)


def outcomes(n: int, p: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Every histogram of `n` draws from `p`, with its probability."""
    found = []
    for counts in itertools.product(range(n + 1), repeat=len(p)):
        if sum(counts) == n:
            ways = math.factorial(n) / math.prod(math.factorial(c) for c in counts)
            found.append((np.array(counts, dtype=float), ways * float(np.prod(p ** np.array(counts)))))
    return found


distribution = st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3).filter(lambda v: sum(v) > 0.1)


@settings(max_examples=60, deadline=None)
@given(distribution, st.lists(st.floats(-4, 4), min_size=3, max_size=3), st.integers(1, 4), st.integers(1, 4))
def test_distribution_factor_is_worth_at_most_one_under_any_common_distribution(weights, tilt, n_a, n_b):
    p = np.array(weights) / sum(weights)
    worth = sum(
        pa * pb * math.exp(distribution_log_factors(a, b, np.array([tilt]))[0])
        for (a, pa), (b, pb) in itertools.product(outcomes(n_a, p), outcomes(n_b, p))
    )
    assert worth <= EXACT


@settings(max_examples=60, deadline=None)
@given(distribution, distribution, st.floats(0.05, 3.0))
def test_rising_tilt_is_a_one_sided_test(champion, other, shift):
    p_a = np.array(champion) / sum(champion)
    p = np.array(other) / sum(other)
    beyond = np.minimum(np.cumsum(p_a[::-1])[::-1], np.cumsum(p[::-1])[::-1])
    p_b = beyond - np.append(beyond[1:], 0.0)
    tilt = location_tilts(normal_scores(np.full(3, 1 / 3)), np.full(3, 1 / 3), np.array([shift]))
    worth = sum(
        pa * pb * math.exp(distribution_log_factors(a, b, tilt)[0])
        for (a, pa), (b, pb) in itertools.product(outcomes(3, p_a), outcomes(2, np.clip(p_b, 0, 1)))
    )
    assert worth <= EXACT + 1e-9


@pytest.mark.parametrize("sense", ["lower", "higher", "same"])
@pytest.mark.parametrize("tolerance", [1.0, 1.5])
def test_histogram_evidence_over_two_windows_is_worth_at_most_one(sense, tolerance):
    """With everything it adapts: the second window's tilts, thresholds and shape come from the first."""
    p = np.array([0.6, 0.3, 0.1])
    spec = MetricSpec("m", "histogram", "latency", direction=sense, tolerance=tolerance)
    draws = list(itertools.product(outcomes(2, p), outcomes(2, p)))
    worth = 0.0
    for first, second in itertools.product(draws, draws):
        evidence, chance = HistogramEvidence(spec), 1.0
        for (a, p_a), (b, p_b) in (first, second):
            evidence.update(as_histogram(a), as_histogram(b))
            chance *= p_a * p_b
        worth += chance * math.exp(evidence.log_harm)
    assert (0.7 if tolerance == 1.0 or sense == "same" else 0.1) < worth <= EXACT


def test_tolerance_covers_a_canary_that_much_slower():
    """Values multiplied by the tolerance, whatever the bins, are no evidence of harm."""
    edges = (1.0, 1.3, 2.0, 2.6)
    values, p = np.array([0.8, 1.2, 1.9, 2.2]), np.array([0.4, 0.3, 0.2, 0.1])
    spec = MetricSpec("m", "histogram", "latency", tolerance=1.4)
    worth = 0.0
    for (a, p_a), (b, p_b) in itertools.product(outcomes(3, p), outcomes(3, p)):
        evidence = HistogramEvidence(spec)
        evidence.update(histogram(edges, values, a), histogram(edges, values * 1.4, b))
        worth += p_a * p_b * math.exp(evidence.log_harm)
    assert worth <= EXACT


@pytest.mark.parametrize("temper", [False, True])
@pytest.mark.parametrize("sense", ["lower", "higher"])
def test_rate_evidence_over_windows_is_worth_at_most_one(temper, sense):
    spec = MetricSpec("m", direction=sense, margin=2.0)
    rates, trials = [0.1, 0.4], ((3, 2), (2, 3))
    harm = good = 0.0
    for xs in itertools.product(range(4), range(3), range(3), range(4)):
        evidence, chance, chance_good = RateEvidence(spec, temper), 1.0, 1.0
        if temper:
            evidence.dispersion = Dispersion(block=1, pairs=5, squares=2.0, events=5, trials=20)
        for i, (n_a, n_b) in enumerate(trials):
            x_a, x_b = xs[2 * i : 2 * i + 2]
            evidence.update(x_a, n_a, x_b, n_b)
            chance *= binomial(n_a, rates[i])[x_a] * binomial(n_b, rates[i])[x_b]
            worse = rates[i] * 2 if sense == "lower" else rates[i] / 2
            chance_good *= binomial(n_a, rates[i])[x_a] * binomial(n_b, worse)[x_b]
        harm += chance * math.exp(evidence.log_harm)
        good += chance_good * math.exp(evidence.log_good)
    assert 0.5 < harm <= EXACT
    assert 0.5 < good <= EXACT


def test_floor_makes_harmless_what_is_rare_and_promotes_without_any_event():
    plain, floored = (
        RateEvidence(MetricSpec("m", margin=2.0)),
        RateEvidence(MetricSpec("m", margin=2.0, floor=0.01)),
    )
    for _ in range(20):
        plain.update(0, 900, 0, 100)
        floored.update(0, 900, 0, 100)
    assert plain.log_good == pytest.approx(0.0, abs=1e-12)
    assert floored.log_good > math.log(100)
    for evidence in (plain, floored):
        for _ in range(5):
            evidence.update(0, 900, 1, 100)
    assert plain.log_harm > math.log(100) > floored.log_harm


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.floats(0.01, 0.99))
def test_sample_ratio_is_worth_exactly_one_under_its_null(n, share):
    worth = sum(chance * math.exp(sample_ratio_log_e(n - k, k, share)) for k, chance in enumerate(binomial(n, share)))
    assert worth == pytest.approx(1.0, rel=1e-9)


def test_sample_ratio_notices_a_broken_split():
    assert sample_ratio_log_e(9000, 1000, 0.1) < 0
    assert sample_ratio_log_e(8600, 1400, 0.1) > math.log(1000)


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(21, 60), st.integers(21, 60))
def test_one_more_canary_error_never_lowers_the_evidence(x_a, x_b, n_a, n_b):
    def evidence(x_a: int, x_b: int) -> np.ndarray:
        return rate_log_factors(x_a, n_a, x_b, n_b, 1.0, HARM_THETAS)

    assert np.all(evidence(x_a, x_b + 1) > evidence(x_a, x_b))
    assert np.all(evidence(x_a + 1, x_b) < evidence(x_a, x_b))


@settings(deadline=None)
@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_grouping_windows_of_one_share_changes_nothing(x_a, y_a, x_b, y_b):
    apart = rate_log_factors(x_a, 90, x_b, 10, 1.0, HARM_THETAS) + rate_log_factors(y_a, 180, y_b, 20, 1.0, HARM_THETAS)
    together = rate_log_factors(x_a + y_a, 270, x_b + y_b, 30, 1.0, HARM_THETAS)
    np.testing.assert_allclose(apart, together, atol=1e-9)


def test_an_empty_arm_says_nothing():
    for counts in ((0, 0, 3, 10), (3, 10, 0, 0), (0, 0, 0, 0)):
        assert not rate_log_factors(*counts, 1.0, HARM_THETAS).any()
    assert not distribution_log_factors(np.zeros(3), np.array([1.0, 2, 3]), np.ones((2, 3))).any()


def test_mixture_of_huge_terms_does_not_overflow():
    assert float(log_mixture(np.array([5000.0, 10.0]), np.log([0.5, 0.5]))) == pytest.approx(5000 - math.log(2))


def test_normal_scores_have_mean_zero_and_follow_the_order():
    p = np.array([0.1, 0.2, 0.4, 0.2, 0.1])
    scores = normal_scores(p)
    assert float(p @ scores) == pytest.approx(0.0, abs=1e-12)
    assert np.all(np.diff(scores) > 0)
    np.testing.assert_allclose(scores, -scores[::-1], atol=1e-12)


def test_confidence_sequence_is_what_the_mean_test_has_not_rejected():
    total, weight, variance, rho, alpha = 30.0, 400.0, 90.0, 0.05, 0.01
    low, high = mean_interval(total, weight, variance, rho, alpha)
    for edge in (low, high):
        assert mean_log_e(total - edge * weight, variance, rho) == pytest.approx(math.log(1 / alpha))
    assert mean_interval(0.0, 0.0, 0.0, rho, alpha) == (-math.inf, math.inf)


def test_mean_test_errs_at_most_alpha_though_asked_after_every_window():
    rng = np.random.default_rng(5)
    false = 0
    for _ in range(400):
        differences = rng.normal(0, math.sqrt(1 / 50 + 1 / 450), 100)
        weights = np.full(100, 45.0)
        sums, variances = np.cumsum(weights * differences), np.cumsum(weights)
        false += any(mean_log_e(s, v, 0.01) >= math.log(20) for s, v in zip(sums, variances, strict=True))
    assert false / 400 <= 0.05


def test_grid_is_geometric():
    values = grid(1.0, 16.0, 5)
    np.testing.assert_allclose(values, [1, 2, 4, 8, 16])


def as_histogram(counts: np.ndarray) -> Histogram:
    return Histogram((1.0, 2.0), tuple(int(c) for c in counts))


def histogram(edges: tuple[float, ...], values: np.ndarray, counts: np.ndarray) -> Histogram:
    bins = [0] * (len(edges) + 1)
    for value, count in zip(values, counts, strict=True):
        bins[int(np.searchsorted(edges, value, side="right"))] += int(count)
    return Histogram(edges, tuple(bins))
