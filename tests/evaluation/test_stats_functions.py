"""A metric of the user's own: called in their interpreter, with the intervals and the strictness of the others."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from mlcicd.core.errors import CommandFailed
from mlcicd.evaluation.functions import Place, UserMetric, estimate_function
from mlcicd.evaluation.gates import Gate, VsChampion, judge_gates
from mlcicd.evaluation.intervals import MetricResult, estimate
from mlcicd.evaluation.predictions import Predictions, Structure, prepare

OWN = """\
import os, time
import numpy as np

def mae(y, predictions, sample_weight=None):
    return np.average(np.abs(y - predictions), weights=sample_weight)

def unweighted(y, predictions):
    return np.abs(y - predictions).mean()

def cost(y, predictions, price):
    assert price.shape == y.shape
    return float((price * (predictions != y)).mean())

def text(y, predictions):
    return (y == "yes").mean()

def hit_share(y, predictions, group):
    return np.mean([np.abs(y - predictions)[group == g].min() < 0.3 for g in np.unique(group)])

def nan(y, predictions):
    return float("nan")

def fails(y, predictions):
    raise KeyError("no price")

def sometimes(y, predictions):
    if len(np.unique(y)) < len(y):
        raise ValueError("rows twice")
    return 1.0

def constant(y, predictions):
    return 0.5

def slow(y, predictions):
    time.sleep(0.2)
    return 0.5

def stuck(y, predictions):
    time.sleep(600)

def dies(y, predictions):
    os._exit(9)

def word(y, predictions):
    return "good"
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "own.py").write_text(OWN)
    return Place(sys.executable, dict(os.environ), tmp_path, 60)


def measured(place: Place, function: str, problem: object, **rest: object) -> MetricResult:
    metric = UserMetric("own", f"own:{function}", "lower", seconds=float(rest.pop("seconds", 30)))  # type: ignore[arg-type]
    return estimate_function(metric, problem, place, **{"resamples": 400, **rest})  # type: ignore[arg-type]


def values(n: int = 300, seed: int = 0) -> tuple[np.ndarray, Predictions, Predictions]:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    return y, *(Predictions(y + s * rng.normal(size=n)) for s in (0.5, 0.6))


def assert_alike(one: MetricResult, other: MetricResult, slack: float) -> None:
    assert one.candidate == pytest.approx(other.candidate)
    assert one.champion == pytest.approx(other.champion)
    for a, b in (
        (one.candidate_interval, other.candidate_interval),
        (one.difference_interval, other.difference_interval),
    ):
        assert a is not None
        assert b is not None
        assert a[1] - a[0] == pytest.approx(b[1] - b[0], rel=slack)


@pytest.mark.slow
def test_a_function_has_the_intervals_of_the_built_in_metric(place: Place) -> None:
    y, *models = values()
    weight = np.random.default_rng(1).gamma(2, 1, 300)
    group = Structure(np.repeat(np.arange(30), 10), "user")
    for extra in ({}, {"sample_weight": weight}, {"structure": group}):
        built_in = estimate("regression", ["mae"], y, *models, **extra)[0]  # type: ignore[arg-type]
        own = measured(place, "mae", prepare("regression", y, *models, **extra), resamples=1200)  # type: ignore[arg-type]
        assert_alike(own, built_in, 0.15)
        assert "1200 resamples" in own.method
        assert not judge_gates([Gate("own", max=1.0)], [own])[0].reason
    # fewer draws than percentiles need: a standard error
    assert_alike(
        measured(place, "mae", prepare("regression", y, *models)), estimate("regression", ["mae"], y, *models)[0], 0.2
    )


def test_labels_are_those_of_the_holdout_and_columns_come_along(place: Place) -> None:
    rng = np.random.default_rng(0)
    y = np.array(["no", "yes"])[rng.integers(0, 2, 200)]
    p = np.where(rng.random(200) < 0.8, y, "no")
    problem = prepare("binary", y, Predictions(p), None, None)
    assert measured(place, "text", problem).candidate == pytest.approx((y == "yes").mean())
    price = rng.random(200)
    result = measured(place, "cost", problem, columns={"price": price})
    assert result.candidate == pytest.approx((price * (p != y)).mean())
    assert "price" in measured(place, "cost", problem).reason


def test_groups_are_resampled_whole_and_numbered_anew(place: Place) -> None:
    y, candidate, _ = values(120)
    group = np.repeat(np.arange(12), 10)
    result = measured(place, "hit_share", prepare("regression", y, candidate, structure=Structure(group, "user")))
    expected = np.mean([np.abs(y - candidate.labels)[group == g].min() < 0.3 for g in range(12)])
    assert result.candidate == pytest.approx(expected)
    assert result.units == "12 groups by user"


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("nan", "it returned nan"),
        ("fails", "'no price' (own.py, line 24)"),
        ("sometimes", "it failed on 400 of 400 resamples: ValueError: rows twice"),
        ("absent", "has no attribute 'absent'"),
        ("np", "is not a function"),
        ("dies", "ended with exit code 9"),
        ("word", "could not convert string to float"),
    ],
)
def test_what_goes_wrong_is_a_reason_and_never_a_pass(place: Place, function: str, said: str) -> None:
    y, *models = values(60)
    result = measured(place, function, prepare("regression", y, *models))
    assert said in result.reason
    assert math.isnan(result.candidate)
    checks = judge_gates([Gate("own", max=1e9, vs_champion=VsChampion(1e9))], [result])
    assert [c.status for c in checks] == ["failed", "failed"]


def test_a_function_without_sample_weight_is_refused_where_rows_have_weights(place: Place) -> None:
    y, *models = values(60)
    problem = prepare("regression", y, *models, np.arange(60) + 1.0)
    assert "takes no sample_weight" in measured(place, "unweighted", problem).reason
    assert not measured(place, "mae", problem).reason


def test_no_variation_is_not_certainty_and_slowness_is_said(place: Place) -> None:
    y, *models = values(60)
    still = measured(place, "constant", prepare("regression", y, *models))
    assert still.candidate_interval == (-math.inf, math.inf)
    assert judge_gates([Gate("own", max=0.6)], [still])[0].status == "inconclusive"
    assert "too slow" in measured(place, "slow", prepare("regression", y, models[0]), seconds=0.1).reason
    short = Place(place.python, place.environ, place.cwd, 2)
    with pytest.raises(CommandFailed, match="stopped after 2 s"):
        measured(short, "stuck", prepare("regression", y, *models))


def test_models_that_can_not_be_measured_and_models_that_are_the_same(place: Place) -> None:
    y, candidate, _ = values(60)
    hole = Predictions(np.where(np.arange(60) == 3, np.nan, y))
    assert "not finite" in measured(place, "mae", prepare("regression", y, hole, candidate)).reason
    turned = measured(place, "mae", prepare("regression", y, candidate, hole))
    assert "not finite" in turned.champion_reason
    checks = judge_gates([Gate("own", vs_champion=VsChampion(1.0))], [turned])
    assert checks[0].status == "failed"
    same = measured(place, "mae", prepare("regression", y, candidate, candidate))
    assert same.identical
    assert same.difference_interval == (0.0, 0.0)
    assert "no rows" in measured(place, "mae", prepare("regression", y[:0], Predictions(y[:0]))).reason
