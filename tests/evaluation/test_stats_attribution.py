"""Where a difference comes from: contributions that add up to it, and a column found by itself where there is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcicd.evaluation.attribution import (
    OTHERS,
    attribute,
    attributed_metric,
    most_uneven,
    row_differences,
)
from mlcicd.evaluation.intervals import estimate
from mlcicd.evaluation.metrics import get_metric
from mlcicd.evaluation.predictions import Predictions, Structure, prepare
from mlcicd.evaluation.problem import Problem


def world(n: int, seed: int, *, worse: Any = None, **more: Any) -> tuple[Problem, np.ndarray, tuple[Any, ...]]:
    """Regression of two models; the candidate's errors are three times as large where `worse` says so."""
    rng = np.random.default_rng(seed)
    carrier = rng.choice(["AA", "DL", "UA", "WN"], n, p=[0.4, 0.3, 0.2, 0.1])
    y = rng.normal(size=n)
    spread = np.where(worse(carrier), 3.0, 1.0) if worse else 1.0
    models = tuple(Predictions(scores=y + s * rng.normal(size=n)) for s in (spread, 1.0))
    return prepare("regression", y, *models, **more), carrier, (y, models)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["mae", "mse", "pinball@0.9"]), st.booleans(), st.booleans())
def test_contributions_add_up_to_the_metrics_difference(
    seed: int, name: str, weighted: bool, grouped: bool
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    n = 200
    weight = rng.integers(1, 5, n).astype(float) if weighted else None
    structure = Structure(rng.integers(0, 20, n), "user") if grouped else None
    problem, carrier, (y, models) = world(n, seed, sample_weight=weight, structure=structure)
    metric = get_metric(name, "regression")
    found = attribute(problem, metric, row_differences(problem, metric), "carrier", carrier)
    told = estimate("regression", [name], y, *models, sample_weight=weight, structure=structure, resamples=100)[0]
    assert told.difference is not None
    assert sum(part.contribution for part in found.parts) == pytest.approx(told.difference, abs=1e-12)
    assert found.difference == pytest.approx(told.difference, abs=1e-12)
    assert sum(part.n for part in found.parts) == n
    assert sum(part.share for part in found.parts) == pytest.approx(1)
    # A contribution is the part's own difference times its share.
    rows = carrier == found.parts[0].value
    if rows.any():
        inside = estimate(
            "regression", [name], y[rows], *(Predictions(m.scores[rows]) for m in models), resamples=100,
            sample_weight=None if weight is None else weight[rows],
        )[0]  # fmt: skip
        assert inside.difference is not None
        assert found.parts[0].contribution == pytest.approx(inside.difference * found.parts[0].share, abs=1e-12)


def test_intervals_of_contributions_cover() -> None:
    metric = get_metric("mae", "regression")
    truth, hits, draws = 0.2 * 2 * (2 / np.pi) ** 0.5, 0, 300
    for seed in range(draws):
        problem, carrier, _ = world(400, seed, worse=lambda c: c == "UA")
        found = attribute(problem, metric, row_differences(problem, metric), "carrier", carrier)
        low, high = next(part.interval for part in found.parts if part.value == "UA")
        hits += low <= truth <= high
    # Standard error over 300 draws: 0.013.
    assert 0.91 <= hits / draws <= 0.99


def test_the_column_that_tells_most_is_found_and_chance_is_not() -> None:
    metric = get_metric("mae", "regression")
    problem, carrier, _ = world(2000, 1, worse=lambda c: c == "WN")
    rng = np.random.default_rng(2)
    columns = {"hour": rng.normal(size=2000), "carrier": carrier, "key": np.arange(2000).astype(str)}
    found = most_uneven(problem, metric, row_differences(problem, metric), columns)
    assert found is not None
    assert found.by == "carrier"
    assert found.parts[0].value == "WN"
    assert found.parts[0].contribution > 0.6 * found.difference
    named = 0
    for seed in range(100):
        problem, carrier, _ = world(400, seed)
        columns = {"carrier": carrier, **{f"x{i}": rng.normal(size=400) for i in range(4)}}
        named += most_uneven(problem, metric, row_differences(problem, metric), columns) is not None
    # Nominally 5 of 100, standard error 2.2.
    assert named <= 12


def test_values_of_few_rows_stand_together_and_numbers_are_cut_into_ranges() -> None:
    metric = get_metric("mae", "regression")
    problem, _, _ = world(1000, 3)
    differences = row_differences(problem, metric)
    many = np.array([f"v{i % 40}" for i in range(1000)])
    parts = attribute(problem, metric, differences, "many", many, most=5).parts
    assert [part.value for part in parts].count(OTHERS) == 1
    assert OTHERS in [part.value for part in parts]
    ranges = attribute(problem, metric, differences, "number", np.linspace(0, 1, 1000)).parts
    assert len(ranges) == 4
    assert all(part.n == 250 for part in ranges)


def test_the_first_gated_mean_is_taken_else_the_tasks_loss() -> None:
    rng = np.random.default_rng(0)
    y = rng.random(100) < 0.5
    scores = Predictions(scores=rng.random(100), classes=(False, True))
    labels = Predictions(labels=rng.random(100) < 0.5, classes=(False, True))

    def name(candidate: Predictions, champion: Predictions | None, gated: list[str]) -> str | None:
        metric = attributed_metric(prepare("binary", y, candidate, champion), gated)
        return metric.name if metric else None

    assert name(scores, scores, ["roc_auc", "brier", "accuracy"]) == "brier"
    assert name(scores, scores, ["roc_auc", "latency_p95_ms"]) == "log_loss"
    assert name(labels, labels, ["roc_auc", "log_loss"]) == "accuracy"
    assert name(scores, None, ["brier"]) is None


def test_a_few_odd_rows_are_no_unevenness() -> None:
    # Two rows of a third value have a variance of next to nothing, by chance, in many of such columns.
    found = 0
    for seed in range(60):
        problem, _, _ = world(1000, seed)
        random = np.random.default_rng(seed)
        columns = {f"c{i}": random.permutation(np.repeat(["a", "b", "rare"], [500, 498, 2])) for i in range(10)}
        metric = get_metric("mae")
        found += most_uneven(problem, metric, row_differences(problem, metric), columns) is not None
    assert found <= 9


def test_unevenness_is_that_of_the_weighted_rows() -> None:
    metric = get_metric("mae")
    rng = np.random.default_rng(5)
    carrier = rng.choice(["AA", "DL", "WN"], 3000)
    y, noise = rng.normal(size=3000), rng.normal(size=3000)
    # The candidate is worse in a third of one carrier's rows.
    bad = (carrier == "WN") & (rng.random(3000) < 0.3)
    models = Predictions(scores=y + np.where(bad, 4, 1) * noise), Predictions(scores=y + noise[::-1])

    def found(of_bad_rows: float) -> bool:
        problem = prepare("regression", y, *models, np.where(bad, of_bad_rows, 1.0))
        return most_uneven(problem, metric, row_differences(problem, metric), {"carrier": carrier}) is not None

    assert found(1.0) and found(3.0)
    # Rows that stand for next to nobody make no part uneven.
    assert not found(0.001)


def test_unequal_weights_alone_are_no_unevenness() -> None:
    metric, named = get_metric("mae"), 0
    for seed in range(100):
        rng = np.random.default_rng(seed + 1000)
        problem, carrier, _ = world(600, seed, sample_weight=rng.lognormal(sigma=1.0, size=600))
        columns = {"carrier": carrier, **{f"x{i}": rng.normal(size=600) for i in range(4)}}
        named += most_uneven(problem, metric, row_differences(problem, metric), columns) is not None
    # Nominally 5 of 100, standard error 2.2.
    assert named <= 12
