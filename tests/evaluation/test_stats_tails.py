"""Where intervals are hard: heavy tails, calibration errors near zero, differences of quantiles, skewed functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from mlcicd.core.verdict import Check, CheckStatus
from mlcicd.evaluation import function_runner, losses
from mlcicd.evaluation.drawn import Accelerated
from mlcicd.evaluation.gates import Gate, VsChampion, judge_gates
from mlcicd.evaluation.intervals import MetricResult, estimate
from mlcicd.evaluation.predictions import Predictions
from mlcicd.evaluation.settled import spread_of
from mlcicd.evaluation.uncertainty import Normal, Recovered


def centred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return losses.centred(values, None)


def test_a_tail_without_a_variance_is_seen_and_others_are_not() -> None:
    rng = np.random.default_rng(3)
    assert sum(bool(losses.wild(centred(rng.pareto(1.2, 2000)))) for _ in range(40)) > 35
    for draw in (rng.normal, rng.standard_exponential):
        assert not any(losses.wild(centred(draw(size=2000))) for _ in range(40))
    # Few errors among many zeros are no tail: all of one size, and there are enough of them.
    assert not losses.wild(centred(np.where(np.arange(2000) < 40, 10.0, 0.0)))
    assert losses.wild(centred(rng.pareto(1.2, 399))) == ""


def test_a_variance_of_few_large_errors_is_known_less_well() -> None:
    rng = np.random.default_rng(1)
    assert losses.known(centred(rng.normal(size=20_000))) == pytest.approx(20_000, rel=0.05)
    assert losses.known(centred(rng.standard_t(3, size=20_000))) < 5_000
    few = losses.from_influence(0.0, centred(np.exp(1.5 * rng.normal(size=500))), -math.inf, math.inf)
    assert few.df < 100
    assert losses.from_influence(0.0, centred(np.arange(5.0)), -math.inf, math.inf).df == 4


def heavy() -> tuple[NDArray[np.float64], Predictions, Predictions]:
    """Values whose errors have no variance of their squares."""
    rng = np.random.default_rng(5)
    y = 10 + rng.pareto(1.3, 3000)
    return y, Predictions(np.full(3000, 10.5)), Predictions(np.full(3000, 10.0) + 0.1 * rng.normal(size=3000))


def judged(gate: Gate, results: list[MetricResult]) -> Check:
    (check,) = judge_gates([gate], results)
    return check


def test_no_gate_passes_by_an_interval_that_can_not_be_trusted() -> None:
    y, candidate, champion = heavy()
    results = estimate("regression", ["mse", "median_absolute_error"], y, candidate, champion)
    assert "tail index" in results[0].caution
    assert results[0].to_dict()["caution"] == results[0].caution
    assert results[1].caution == ""
    held = judged(Gate("mse", max=1e9), results)
    assert held.status is CheckStatus.INCONCLUSIVE
    assert "no interval of a mean can be trusted" in held.reason
    assert "median_absolute_error" in held.remedy
    assert "rows_needed" not in held.details
    # An estimate on the wrong side needs no interval to fail.
    assert judged(Gate("mse", max=1e-3), results).status is CheckStatus.FAILED
    assert judged(Gate("median_absolute_error", max=1e3), results).status is CheckStatus.PASSED
    versus = judged(Gate("mse", vs_champion=VsChampion(margin=1e9)), results)
    assert (versus.status, "tail index" in versus.reason) == (CheckStatus.INCONCLUSIVE, True)
    # A clear loss is not made negotiable: what a team may accept undecided would let it through.
    far = estimate("regression", ["mae"], y, Predictions(y + 100 + np.abs(y - 10)), Predictions(y + 1))
    assert far[0].difference_caution
    assert judged(Gate("mae", vs_champion=VsChampion()), far).status is CheckStatus.FAILED
    same = estimate("regression", ["mse"], y, candidate, candidate)
    assert judged(Gate("mse", vs_champion=VsChampion()), same).status is CheckStatus.PASSED


def test_the_calibration_error_of_a_calibrated_model_may_be_zero() -> None:
    rng = np.random.default_rng(2)
    hold, sees = 0, 0
    for seed in range(60):
        p = rng.beta(2, 3, 600)
        y = rng.random(600) < p
        sharp = p**2 / (p**2 + (1 - p) ** 2)
        answers = [Predictions(scores=s, classes=(False, True)) for s in (p, sharp)]
        (result,) = estimate("binary", ["ece"], y, *answers, resamples=400, seed=seed)
        assert result.candidate_interval is not None
        assert result.champion_interval is not None
        hold += result.candidate_interval[0] == 0
        sees += result.champion_interval[0] > 0
    # Nominal 58.5, standard error 1.2; the sharpened scores are off by 0.11.
    assert hold >= 54
    assert sees >= 58


def test_the_difference_of_two_quantiles_is_as_wide_as_it_varies() -> None:
    rng = np.random.default_rng(8)
    seen, widths = [], []
    for seed in range(150):
        x = rng.normal(size=(3, 800))
        y = x[0]
        answers = [Predictions(0.3 * x[i]) for i in (1, 2)]
        (result,) = estimate("regression", ["absolute_error@0.9"], y, *answers, resamples=400, seed=seed)
        assert result.difference_interval is not None
        seen.append(result.difference)
        widths.append(result.difference_interval[1] - result.difference_interval[0])
    # The empirical quantile read at drawn levels gives 1.25 times the width and more.
    assert np.mean(widths) / (2 * 1.96 * np.std(seen)) == pytest.approx(1.05, abs=0.13)


def test_quantiles_of_errors_that_repeat_are_read_from_the_errors() -> None:
    rng = np.random.default_rng(4)
    y = rng.integers(0, 6, 500).astype(float)
    (result,) = estimate(
        "regression", ["absolute_error@0.9"], y, Predictions(np.full(500, 2.0)), Predictions(np.ones(500))
    )
    assert result.difference_interval is not None
    assert all(end == int(end) for end in result.difference_interval)


def test_bca_is_scipys() -> None:
    sample = np.random.default_rng(6).exponential(size=60)
    found = stats.bootstrap(
        (sample,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1), vectorized=True
    )
    without = (sample.sum() - sample) / 59
    ours = spread_of(float(sample.mean()), found.bootstrap_distribution, math.inf, without)
    assert isinstance(ours, Accelerated)
    # The degrees of freedom of so skewed a variance widen ours; without them, it is the same.
    plain = Accelerated(ours.estimate, ours.draws, ours.acceleration)
    assert plain.interval(0.95) == pytest.approx(tuple(found.confidence_interval), rel=2e-3)
    low, high = ours.interval(0.95)
    assert (low < plain.interval(0.95)[0], high > plain.interval(0.95)[1]) == (True, True)


def test_blocks_tell_of_the_units_they_are_made_of() -> None:
    rng = np.random.default_rng(9)
    draws = rng.normal(size=1000)
    rows = np.exp(1.2 * rng.normal(size=2000))
    each = spread_of(0.0, draws, 2000, (rows.sum() - rows) / 1999)
    blocks = rows.reshape(100, 20).sum(axis=1)
    some = spread_of(0.0, draws, 2000, (rows.sum() - blocks) / 1980, 2000)
    assert isinstance(each, Accelerated)
    assert isinstance(some, Accelerated)
    assert some.acceleration == pytest.approx(each.acceleration, rel=0.7)
    assert some.units == pytest.approx(each.units, rel=0.9)
    assert some.units < 500


def test_correlated_estimates_differ_by_less() -> None:
    one, other = Normal(1.0, 0.1, 1e9), Normal(0.8, 0.1, 1e9)
    low, high = Recovered(one, other).interval(0.95)
    assert (low, high) == pytest.approx((0.2 - 1.96 * 0.1 * math.sqrt(2), 0.2 + 1.96 * 0.1 * math.sqrt(2)), abs=1e-4)
    low, high = Recovered(one, other, 0.5).interval(0.95)
    assert (low, high) == pytest.approx((0.2 - 0.196, 0.2 + 0.196), abs=1e-4)


def test_each_unit_is_left_out_once() -> None:
    left = [set(rows.tolist()) for rows, _ in function_runner.left_out(1000, None, 0)]
    assert len(left) == function_runner.BLOCKS
    assert sum(1000 - len(rows) for rows in left) == 1000
    assert set.intersection(*left) == set()
    unit = np.repeat(np.arange(10), 3)
    groups = list(function_runner.left_out(30, unit, 0))
    assert [len(rows) for rows, _ in groups] == [27] * 10
    assert all(set(numbers.tolist()) == set(range(9)) for _, numbers in groups)


def test_the_runner_stops_leaving_out_where_that_fails() -> None:
    def mean(y: NDArray[np.float64], _predictions: NDArray[np.float64]) -> float:
        if len(y) < 200:
            raise ValueError("too few")
        return float(y.mean())

    arrays = {"y": np.arange(200.0), "candidate": np.zeros(200)}
    found = function_runner.run(mean, arrays, 60, 1e9, 0)
    assert (len(found["draws"]), found["jackknife"], found["failed"]) == (60, [], 0)
