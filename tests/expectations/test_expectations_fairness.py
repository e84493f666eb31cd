"""Gaps between groups: fairlearn's values, and intervals that hold for the worst of many pairs."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcicd.config.expectations import FAIRNESS
from mlcicd.evaluation.fairness import fairness_gap
from mlcicd.evaluation.predictions import Predictions, Structure
from mlcicd.evaluation.proportions import Share, ratio_interval


def table(seed: int, n: int, rates: dict[str, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels that are coins, answers that are positive at each group's rate, groups."""
    rng = np.random.default_rng(seed)
    groups = rng.choice(list(rates), n)
    rate = np.array([rates[g] for g in groups])
    return rng.integers(0, 2, n), (rng.random(n) < rate).astype(int), groups


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), groups=st.integers(2, 5), n=st.integers(60, 400))
def test_values_are_fairlearns(seed: int, groups: int, n: int) -> None:
    import fairlearn.metrics as theirs

    rng = np.random.default_rng(seed)
    y, answers, column = table(seed, n, {f"g{i}": float(rng.uniform(0.05, 0.95)) for i in range(groups)})
    for metric in FAIRNESS:
        gap = fairness_gap(metric, "binary", y, Predictions(labels=answers), by="g", column=column, min_rows=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = getattr(theirs, metric)(y, answers, sensitive_features=column)
        if gap.reason:
            # Where a group has no positive (negative) rows, or all rates are 0, fairlearn makes a number up.
            assert math.isnan(gap.estimate)
            assert "no positive" in gap.reason or "no negative" in gap.reason or "are 0" in gap.reason
        else:
            assert gap.interval is not None
            assert gap.estimate == pytest.approx(expected, abs=1e-12)
            assert gap.interval[0] <= gap.estimate <= gap.interval[1]


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_any_metric_has_a_gap(task: str) -> None:
    from sklearn.metrics import accuracy_score, mean_absolute_error

    rng = np.random.default_rng(5)
    y = rng.integers(0, 3, 900)
    column = np.repeat(["a", "b", "c"], 300)
    answers = np.where((column == "c") & (rng.random(900) < 0.5), (y + 1) % 3, y)
    name, theirs = ("accuracy", accuracy_score) if task == "multiclass" else ("mae", mean_absolute_error)
    gap = fairness_gap(name, task, y, Predictions(labels=answers), by="g", column=column)
    each = [theirs(y[column == g], answers[column == g]) for g in "abc"]
    assert gap.estimate == pytest.approx(max(each) - min(each))
    assert "c" in (gap.worst, gap.best)


def test_a_named_group_must_be_there_and_be_large_enough() -> None:
    y, answers, column = table(1, 500, {"a": 0.5, "b": 0.5})
    column = column.astype(object)
    column[:20] = "tiny"
    answer = Predictions(labels=answers)
    for named, words in ((["tiny"], "has 20 rows"), (["nobody"], "is not in the holdout")):
        gap = fairness_gap("accuracy", "binary", y, answer, by="g", column=column, named=named)
        assert words in gap.reason
        assert gap.interval is None
    gap = fairness_gap("accuracy", "binary", y, answer, by="g", column=column)
    assert gap.left_out == {"tiny": 20}
    assert [g.name for g in gap.groups if g.name == "tiny"] == []


@pytest.mark.parametrize("column", [["a"] * 300, [None] * 300, [float("nan")] * 300])
def test_one_group_has_no_gap(column: list[object]) -> None:
    y = np.tile([0, 1], 150)
    gap = fairness_gap("accuracy", "binary", y, Predictions(labels=y), by="g", column=np.array(column, dtype=object))
    assert "a gap is between two" in gap.reason


def test_answers_that_are_missing_have_no_gap() -> None:
    y = np.tile([0.0, 1.0], 150)
    scores = np.where(np.arange(300) == 7, np.nan, 0.4)
    column = np.repeat(["a", "b"], 150)
    for metric in ("demographic_parity_difference", "roc_auc"):
        gap = fairness_gap(metric, "binary", y, Predictions(scores=scores), by="g", column=column)
        assert "not finite" in gap.reason


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["demographic_parity_difference", "demographic_parity_ratio", "accuracy"])
@pytest.mark.parametrize("rates", [(0.5, 0.5, 0.5, 0.5, 0.5), (0.3, 0.5), (0.2, 0.25, 0.3, 0.45)])
def test_the_interval_holds_the_true_gap(metric: str, rates: tuple[float, ...]) -> None:
    """Each end errs at most 2.5 % of the time (so many populations tell 2.5 % from 5 %), also for the worst of ten
    pairs that are all equal, where a bootstrap of the largest difference would always claim a gap."""
    low_errors = high_errors = 0
    populations = 400
    truth = min(rates) / max(rates) if metric.endswith("ratio") else max(rates) - min(rates)
    for seed in range(populations):
        named = {f"g{i}": rate for i, rate in enumerate(rates)}
        y, answers, column = table(seed, 250 * len(rates), named)
        if metric == "accuracy":
            y = np.ones_like(y)
            y[0] = 0
        gap = fairness_gap(
            metric, "binary", y, Predictions(labels=answers), by="g", column=column, min_rows=50, resamples=2000
        )
        assert gap.interval is not None
        low_errors += gap.interval[0] > truth + 1e-9
        high_errors += gap.interval[1] < truth - 1e-9
    # 400 draws of a 2.5 % coin: above 20 twice in a thousand.
    assert max(low_errors, high_errors) <= 20


def test_ratio_of_two_shares_is_never_narrower_than_nothing() -> None:
    for a, b in ((Share(0, 50), Share(10, 50)), (Share(10, 50), Share(1, 50)), (Share(50, 50), Share(50, 50))):
        low, high = ratio_interval(a, b, 0.95)
        assert 0 <= low <= a.estimate / b.estimate <= high
    assert ratio_interval(Share(5, 50), Share(0, 50), 0.95)[1] == math.inf


def test_weights_are_fairlearns_and_rows_of_one_group_are_not_independent() -> None:
    import fairlearn.metrics as theirs

    y, answers, column = table(7, 600, {"a": 0.3, "b": 0.6})
    weight = np.random.default_rng(7).uniform(0.1, 3.0, 600)
    answer = Predictions(labels=answers)
    for metric in FAIRNESS:
        gap = fairness_gap(metric, "binary", y, answer, by="g", column=column, sample_weight=weight)
        expected = getattr(theirs, metric)(y, answers, sensitive_features=column, sample_weight=weight)
        assert gap.estimate == pytest.approx(expected, abs=1e-12)
    # Each row five times over is no new row.
    five = np.repeat(np.arange(600), 5)
    apart, together = (
        fairness_gap(
            FAIRNESS[0],
            "binary",
            y[rows],
            Predictions(labels=answers[rows]),
            by="g",
            column=column[rows],
            structure=structure,
        )
        for rows, structure in ((np.arange(600), None), (five, Structure(group=five)))
    )
    assert apart.interval is not None
    assert together.interval == pytest.approx(apart.interval, abs=0.002)
