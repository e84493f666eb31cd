"""Intervals: against brute force, and where there is little or nothing to go by."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from mlcicd.core.errors import ConfigError
from mlcicd.evaluation import calibration
from mlcicd.evaluation.drawn import Draws
from mlcicd.evaluation.intervals import MetricResult, estimate
from mlcicd.evaluation.predictions import Predictions
from mlcicd.evaluation.uncertainty import Normal, SkewedMean, p_value, student_quantile


def world(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(-z))).astype(int)
    candidate, champion = (1 / (1 + np.exp(-(z + s * rng.normal(size=n)))) for s in (0.5, 0.8))
    return y, candidate.round(3), champion.round(3)


SCORED = {
    "accuracy": lambda y, p, w: np.average((p >= 0.5) == y, weights=w),
    "f1": lambda y, p, w: sk.f1_score(y, p >= 0.5, sample_weight=w),
    "matthews_corrcoef": lambda y, p, w: sk.matthews_corrcoef(y, p >= 0.5, sample_weight=w),
    "specificity": lambda y, p, w: sk.recall_score(y, p >= 0.5, pos_label=0, sample_weight=w),
    "roc_auc": lambda y, p, w: sk.roc_auc_score(y, p, sample_weight=w),
    "average_precision": lambda y, p, w: sk.average_precision_score(y, p, sample_weight=w),
    "log_loss": lambda y, p, w: sk.log_loss(y, p, sample_weight=w),
    "brier": lambda y, p, w: sk.brier_score_loss(y, p, sample_weight=w),
}


@pytest.mark.parametrize("weighted", [False, True])
def test_widths_are_those_of_a_brute_force_bootstrap(weighted: bool) -> None:
    n, repeats = 1500, 400
    y, candidate, champion = world(n, 5)
    rng = np.random.default_rng(9)
    weight = rng.gamma(1.0, 1.0, n) if weighted else np.ones(n)
    brute: dict[str, list[tuple[float, float]]] = {name: [] for name in SCORED}
    for _ in range(repeats):
        pick = rng.integers(0, n, n)
        w = weight[pick]
        for name, function in SCORED.items():
            one, other = (function(y[pick], p[pick], w) for p in (candidate, champion))
            brute[name].append((one, one - other))
    results = estimate(
        "binary",
        list(SCORED),
        y,
        Predictions(scores=candidate),
        Predictions(scores=champion),
        sample_weight=weight if weighted else None,
    )
    for result in results:
        single, difference = np.array(brute[result.name]).T
        for interval, draws in (
            (result.candidate_interval, single),
            (result.difference_interval, difference),
        ):
            assert interval is not None
            # 400 repeats know a standard deviation to 3.5 %; five of those either way.
            assert (interval[1] - interval[0]) / (2 * 1.96 * draws.std()) == pytest.approx(1, abs=0.18), result.name
            middle = (interval[0] + interval[1]) / 2
            assert middle == pytest.approx(draws.mean(), abs=0.35 * draws.std()), result.name


def test_regression_widths_are_those_of_a_brute_force_bootstrap() -> None:
    rng = np.random.default_rng(2)
    n = 1500
    y = rng.normal(size=n)
    candidate, champion = y + 0.5 * rng.normal(size=n), y + 0.6 * rng.normal(size=n)
    functions = {
        "mae": sk.mean_absolute_error,
        "rmse": sk.root_mean_squared_error,
        "r2": sk.r2_score,
        "median_absolute_error": sk.median_absolute_error,
    }
    brute: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for _ in range(600):
        pick = rng.integers(0, n, n)
        for name, function in functions.items():
            one, other = (function(y[pick], p[pick]) for p in (candidate, champion))
            brute[name].append((one, one - other))
    for result in estimate("regression", list(functions), y, Predictions(candidate), Predictions(champion)):
        single, difference = np.array(brute[result.name]).T
        for interval, draws in (
            (result.candidate_interval, single),
            (result.difference_interval, difference),
        ):
            assert interval is not None
            slack = 0.25 if result.name == "median_absolute_error" else 0.15
            assert (interval[1] - interval[0]) / (2 * 1.96 * draws.std()) == pytest.approx(1, abs=slack), result.name


def test_the_variance_of_roc_auc_is_delongs_with_ties() -> None:
    y, candidate, champion = world(300, 1)
    candidate, champion = candidate.round(1), champion.round(1)

    def components(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pos, neg = p[y == 1], p[y == 0]
        wins = (pos[:, None] > neg[None, :]) + 0.5 * (pos[:, None] == neg[None, :])
        return wins.mean(axis=1), wins.mean(axis=0)

    (v10, v01), (w10, w01) = components(candidate), components(champion)
    variance = np.var(v10 - w10, ddof=1) / v10.size + np.var(v01 - w01, ddof=1) / v01.size
    result = estimate("binary", ["roc_auc"], y, Predictions(scores=candidate), Predictions(scores=champion))[0]
    assert isinstance(result.difference_uncertainty, Normal)
    assert result.difference_uncertainty.se == pytest.approx(math.sqrt(variance), rel=1e-9)


def test_influences_are_derivatives_by_a_rows_weight() -> None:
    from mlcicd.evaluation import ranking

    y, scores, _ = world(80, 3)
    scores = scores.round(1)
    step = 1e-6
    for function, reference in (
        (ranking.average_precision, sk.average_precision_score),
        (ranking.roc_auc, sk.roc_auc_score),
    ):
        ranked = ranking.rank(y == 1, scores, None)
        _, influence = function(ranked)
        m, n = ranked.counts
        for row in range(0, 80, 7):
            w = np.ones(80)
            w[row] += step
            slope = (reference(y, scores, sample_weight=w) - reference(y, scores)) / step
            count = m if y[row] == 1 or function is ranking.average_precision else n
            assert influence[row] == pytest.approx(slope * math.sqrt(count / (count - 1)), abs=1e-5)


def one(name: str, y: object, *models: Predictions, task: str = "binary", **rest: object) -> MetricResult:
    return estimate(task, [name], y, *models, **rest)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["accuracy", "roc_auc", "log_loss", "brier", "ece", "f1", "average_precision"])
def test_no_rows_is_a_reason(name: str) -> None:
    empty = Predictions(labels=np.array([]), scores=np.array([]), classes=(0, 1))
    result = one(name, np.array([]), empty, empty)
    assert result.reason == "the holdout has no rows"
    assert math.isnan(result.candidate)
    assert result.candidate_interval is None


def test_a_nan_among_the_scores_spoils_what_needs_scores_and_nothing_else() -> None:
    y = np.array([0, 1, 0, 1] * 20)
    scores = np.linspace(0, 1, 80)
    scores[3] = np.nan
    candidate = Predictions(labels=y, scores=scores)
    good = Predictions(labels=y, scores=np.linspace(0, 1, 80))
    results = {r.name: r for r in estimate("binary", ["accuracy", "roc_auc", "log_loss"], y, candidate, good)}
    assert results["accuracy"].candidate == 1.0
    for name in ("roc_auc", "log_loss"):
        assert results[name].reason == "1 of its 80 scores are not finite"
        assert math.isnan(results[name].candidate)
        assert results[name].champion is not None
        assert math.isfinite(results[name].champion or math.nan)
    turned = one("roc_auc", y, good, candidate)
    assert not turned.reason
    assert "not finite" in turned.champion_reason
    assert turned.difference_interval is None


def test_scores_that_are_no_probabilities_and_missing_labels() -> None:
    y = np.array([0, 1, 0, 1])
    assert "not probabilities" in one("brier", y, Predictions(scores=np.array([-1.0, 2, 0.5, 3]))).reason
    assert one("roc_auc", y, Predictions(scores=np.array([-1.0, 2, 0.5, 3]))).candidate == 1.0
    assert one("roc_auc", y, Predictions(labels=y)).reason == "it gave no scores"
    assert "no label" in one("accuracy", np.array([0, 1, np.nan, 1]), Predictions(labels=y)).reason
    missing = Predictions(labels=np.array([0, None, 0, 1], dtype=object))
    assert "labels are missing" in one("accuracy", y, missing).reason


def test_two_rows_claim_nothing() -> None:
    y = np.array([0, 1])
    perfect, wrong = Predictions(scores=np.array([0.0, 1.0])), Predictions(scores=np.array([1.0, 0.0]))
    assert one("roc_auc", y, perfect, wrong).candidate_interval == (0.0, 1.0)
    assert one("roc_auc", y, perfect, wrong).difference_interval == (-1.0, 1.0)
    for name in ("accuracy", "brier", "f1", "ece"):
        low, high = one(name, y, perfect, wrong).candidate_interval or (math.nan, math.nan)
        assert high - low > 0.5, name
    low, high = one("mae", y, Predictions(y), Predictions(1 - y), task="regression").candidate_interval or (
        0,
        0,
    )
    assert high == math.inf


@pytest.mark.parametrize("name", ["accuracy", "roc_auc", "average_precision", "f1", "brier"])
def test_a_perfect_sample_is_not_certainty(name: str) -> None:
    y = np.tile([0, 1], 50)
    result = one(name, y, Predictions(scores=y.astype(float)), Predictions(scores=y * 0.8 + 0.1))
    low, high = result.candidate_interval or (math.nan, math.nan)
    assert 0.005 < high - low < 0.15
    assert result.candidate in (low, high)


def test_constant_scores() -> None:
    y = np.tile([0, 1, 1], 100)
    constant = Predictions(scores=np.full(300, 0.5))
    results = {r.name: r for r in estimate("binary", ["roc_auc", "brier", "ece", "matthews_corrcoef"], y, constant)}
    assert results["roc_auc"].candidate == 0.5
    assert results["brier"].candidate == 0.25
    assert results["matthews_corrcoef"].candidate == 0.0
    assert results["ece"].candidate == pytest.approx(1 / 6, abs=0.02)
    assert all(r.candidate_interval[0] < r.candidate_interval[1] for r in results.values() if r.candidate_interval)


def test_identical_models_differ_by_nothing() -> None:
    y, scores, _ = world(200, 0)
    for name in ("roc_auc", "log_loss", "accuracy", "ece"):
        result = one(name, y, Predictions(scores=scores), Predictions(scores=scores.copy()))
        assert result.identical
        assert result.difference_interval == (0.0, 0.0)
    labels = (scores > 0.5).astype(int)
    agreeing = one("accuracy", y, Predictions(labels=labels), Predictions(labels=labels.copy()))
    assert not agreeing.identical  # agreement of labels on 200 rows is no proof
    low, high = agreeing.difference_interval or (0, 0)
    assert low < 0 < high


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
def test_a_calibrated_champion_has_the_champions_order(name: str) -> None:
    y, scores, other = world(400, 0)
    calibrated = one(name, y, Predictions(scores=0.5 * scores**2), Predictions(scores=scores))
    assert calibrated.identical
    assert calibrated.difference_interval == (0.0, 0.0)
    assert not one("brier", y, Predictions(scores=0.5 * scores**2), Predictions(scores=scores)).identical
    # Scores that were rounded are equal where they were not: another order.
    assert not one(name, y, Predictions(scores=scores.round(1)), Predictions(scores=scores)).identical
    assert not one(name, y, Predictions(scores=other), Predictions(scores=scores)).identical


def test_the_same_seed_gives_the_same_intervals_whatever_else_is_asked() -> None:
    y, candidate, champion = world(500, 4)
    models = Predictions(scores=candidate), Predictions(scores=champion)
    alone = estimate("binary", ["f1"], y, *models, seed=7)[0]
    among = estimate("binary", ["ece", "roc_auc", "f1", "accuracy"], y, *models, seed=7)[2]
    assert alone == among
    assert estimate("binary", ["f1"], y, *models, seed=8)[0] != alone


def test_rows_of_weight_zero_are_not_there() -> None:
    y, candidate, _ = world(400, 6)
    weight = np.where(np.arange(400) < 300, 1.0, 0.0)
    asked = ["f1", "roc_auc", "log_loss", "ece"]
    zeroed = estimate("binary", asked, y, Predictions(scores=candidate), sample_weight=weight)
    shorter = estimate("binary", asked, y[:300], Predictions(scores=candidate[:300]))
    assert zeroed == shorter
    assert zeroed[0].n == 300


def test_confidence_orders_intervals_and_is_checked() -> None:
    y, candidate, champion = world(400, 6)
    for name in ("f1", "roc_auc", "log_loss", "ece"):
        result = one(name, y, Predictions(scores=candidate), Predictions(scores=champion))
        for part in (result.uncertainty, result.difference_uncertainty):
            assert part is not None
            (a, b), (c, d) = part.interval(0.8), part.interval(0.99)
            # A calibration error may well be zero at both.
            assert c <= a <= b < d if name == "ece" else c < a < b < d
    with pytest.raises(ConfigError, match="between 0 and 1"):
        one("f1", y, Predictions(scores=candidate), confidence=95)


@pytest.mark.parametrize("df", [1, 2, 3, 5, 12, 31, 60, 61, 200, 1e6])
@pytest.mark.parametrize("p", [0.6, 0.9, 0.975, 0.9995])
def test_students_quantiles(df: float, p: float) -> None:
    assert student_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=2e-5)
    assert student_quantile(1 - p, df) == pytest.approx(-stats.t.ppf(p, df), rel=2e-5)


def test_p_values_invert_intervals() -> None:
    normal = Normal(0.0, 1.0, 1e9)
    assert p_value(normal, 1.96, side="below") == pytest.approx(0.025, rel=1e-3)
    assert p_value(normal, -1.96, side="above") == pytest.approx(0.025, rel=1e-3)
    assert p_value(normal, -0.1, side="below") == 1.0
    assert p_value(normal, 50.0, side="below") < 1e-8
    draws = Draws(0.0, np.random.default_rng(0).normal(size=2000))
    assert p_value(draws, 1.645, side="below") == pytest.approx(0.05, abs=0.02)
    assert 1e-9 < p_value(draws, 4.5, side="below") < 1e-4


def test_halls_interval_leans_as_the_data_do() -> None:
    right = SkewedMean(1.0, 0.1, 2.0, 100)
    low, high = right.interval(0.95)
    assert high - 1 > 1 - low
    assert SkewedMean(1.0, 0.1, 0.0, 100).interval(0.95) == pytest.approx(
        (1 - 0.1 * stats.t.ppf(0.975, 99), 1 + 0.1 * stats.t.ppf(0.975, 99))
    )


def test_debiased_ece_of_a_calibrated_model_is_smaller_than_the_plain_one() -> None:
    rng = np.random.default_rng(0)
    plain, debiased = [], []
    for _ in range(50):
        p = rng.random(400)
        y = rng.random(400) < p
        curve = calibration.reliability(y, p)
        plain.append(float(curve.weight @ np.abs(curve.rate - curve.score)))
        debiased.append(calibration.ece(y, p))
    assert np.mean(plain) > 0.05
    assert np.mean(debiased) < 0.65 * np.mean(plain)
    biased = calibration.ece(rng.random(50_000) < 0.3, np.full(50_000, 0.5))
    assert biased == pytest.approx(0.2, abs=0.01)


def test_brier_parts_add_up() -> None:
    y, p, _ = world(2000, 8)
    parts = calibration.brier_parts(y == 1, p)
    assert parts.brier == pytest.approx(sk.brier_score_loss(y, p))
    assert parts.reliability - parts.resolution + parts.uncertainty + parts.remainder == pytest.approx(parts.brier)
    assert abs(parts.remainder) < 0.005
    assert parts.uncertainty == pytest.approx(y.mean() * (1 - y.mean()))


def test_skewed_losses_lean_to_their_long_tail() -> None:
    errors = np.random.default_rng(0).exponential(size=200)
    result = one("mae", np.zeros(200), Predictions(errors), task="regression")
    low, high = result.candidate_interval or (0, 0)
    assert high - result.candidate > 1.1 * (result.candidate - low)
    # the champion's errors are the skewed ones now, so the difference leans the other way
    mirrored = one("mae", np.zeros(200), Predictions(np.full(200, 1.0)), Predictions(errors), task="regression")
    low, high = mirrored.difference_interval or (0, 0)
    assert (mirrored.difference or 0) - low > 1.1 * (high - (mirrored.difference or 0))


def test_a_sample_that_is_all_wrong_holds_its_estimate() -> None:
    y = np.tile([0, 1], 50)
    low, high = one("accuracy", y, Predictions(labels=1 - y)).candidate_interval or (1, 1)
    assert low == 0.0
    assert 0.005 < high < 0.1
