"""False-alarm rates are what theory says, and proposed thresholds keep their promise on new holdouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlcicd.core.verdict import Status
from mlcicd.evaluation.false_alarms import against_itself, enough_draws, equal_models, twins
from mlcicd.evaluation.gate_set import GateSet
from mlcicd.evaluation.gates import Gate, SliceGate, VsChampion
from mlcicd.evaluation.intervals import estimate
from mlcicd.evaluation.predictions import Predictions, Structure
from mlcicd.evaluation.saboteurs import exchanged, noisy, on_scale_of
from mlcicd.evaluation.slices import by_values
from mlcicd.evaluation.thresholds import margin, rounded, slice_threshold, threshold

Array = np.ndarray[Any, Any]


def holdout(n: int, seed: int) -> tuple[Array, Predictions]:
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-rng.normal(0, 1.5, n)))
    return (rng.random(n) < p).astype(int), Predictions(scores=p)


def test_champion_far_above_its_threshold_is_never_stopped_and_one_at_it_often() -> None:
    y, good = holdout(1500, 0)
    auc = estimate("binary", ["roc_auc"], y, good)[0].candidate
    far = against_itself(GateSet("binary", y, [Gate("roc_auc", min=auc - 0.1)]), good, draws=60)
    at = against_itself(GateSet("binary", y, [Gate("roc_auc", min=auc)]), good, draws=60)
    assert (far.failed, far.inconclusive) == (0, 0)
    assert 15 <= at.failed <= 45
    assert at.failed_by == {"roc_auc": at.failed}


def test_against_itself_no_comparison_fails() -> None:
    y, good = holdout(500, 1)
    alarms = against_itself(GateSet("binary", y, [Gate("roc_auc", vs_champion=VsChampion(0.0))]), good, draws=40)
    assert alarms.blocked_share.k == 0


@pytest.mark.parametrize("metric", ["roc_auc", "brier"])
def test_equal_models_fail_at_the_nominal_rate_without_a_margin(metric: str) -> None:
    y, good = holdout(1000, 2)
    first, second = twins(good, strength=0.5)
    alarms = equal_models(GateSet("binary", y, [Gate(metric, vs_champion=VsChampion(0.0))]), first, second, draws=400)
    # 2.5 % of 400 are 10; more than 22 would happen once in 2,000 times.
    assert alarms.failed <= 22
    # And no margin at all lets hardly any equal model pass: 2.5 % again.
    assert alarms.inconclusive >= 350


def test_equal_models_of_groups_fail_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(3)
    day = np.repeat(np.arange(60), 20)
    y, good = holdout(1200, 4)
    # Each model errs by days: rows of a day are off together.
    shift = [np.clip(np.asarray(good.scores) + rng.normal(0, 0.1, 60)[day], 0, 1) for _ in range(2)]
    first, second = (Predictions(scores=s) for s in shift)
    gate = Gate("brier", vs_champion=VsChampion(0.0))
    grouped = GateSet("binary", y, [gate], structure=Structure(group=day, group_name="day"))
    assert equal_models(grouped, first, second, draws=300).failed <= 18


def test_exchanged_models_share_every_answer_between_them() -> None:
    _, good = holdout(300, 5)
    other = noisy(good, 0.3, np.random.default_rng(0))
    one, two = exchanged(good, other, np.random.default_rng(1))
    a, b, c, d = (np.asarray(p.scores) for p in (one, two, good, other))
    assert np.array_equal(a + b, c + d)
    assert 0.3 < float((a == c).mean()) < 0.7
    with pytest.raises(ValueError, match="different forms"):
        exchanged(good, Predictions(labels=np.zeros(300)), np.random.default_rng(0))


def test_draws_shrink_with_the_holdout_and_are_as_asked() -> None:
    assert enough_draws(100) > enough_draws(30_000) > 0
    assert enough_draws(50_000_000) == enough_draws(10_000_000)
    assert enough_draws(50_000_000, 7) == 7


def test_proposed_threshold_passes_the_same_model_on_new_holdouts() -> None:
    """One fixed model; holdout after holdout proposes a threshold, and the next one is judged by it."""
    passed = total = 0
    for seed in range(150):
        y, good = holdout(800, 1000 + seed)
        found = threshold(estimate("binary", ["roc_auc"], y, good)[0], gates=1)
        assert found is not None and found.side == "min"
        y, good = holdout(800, 5000 + seed)
        judged = GateSet("binary", y, [Gate("roc_auc", min=found.threshold)]).judge(good, None)
        passed += judged.status is Status.PASSED
        total += 1
    # The promise is 95 %; 130 of 150 or fewer would happen once in 10,000 times.
    assert passed > 130, passed / total


def test_proposed_margin_passes_equal_models_and_fails_the_loss_it_names() -> None:
    y, good = holdout(2000, 6)
    first, second = twins(good, strength=0.3)
    found = margin(estimate("binary", ["brier"], y, first, second)[0], gates=1)
    assert found is not None and found.caught > found.margin > found.half_width
    gates = GateSet("binary", y, [Gate("brier", vs_champion=VsChampion(found.margin))])
    assert equal_models(gates, first, second, draws=200).blocked_share.k <= 22


@pytest.mark.parametrize("columns", [1, 2])
def test_one_model_may_be_surer_of_itself_than_its_equal(columns: int) -> None:
    y, good = holdout(1500, 10)
    first, second = (np.asarray(p.scores) for p in twins(good, strength=0.3))
    # The same order, said with five times the confidence.
    second = 1 / (1 + np.exp(-5 * np.log(second / (1 - second))))
    pair = [Predictions(scores=s if columns == 1 else np.c_[1 - s, s]) for s in (first, second)]
    results = estimate("binary", ["roc_auc"], y, pair[0], pair[1])
    found = margin(results[0], gates=1)
    assert found is not None
    gates = GateSet("binary", y, [Gate("roc_auc", vs_champion=VsChampion(found.margin))])
    assert equal_models(gates, pair[0], pair[1], draws=150).blocked_share.k <= 18
    moved = on_scale_of(pair[1], pair[0])
    assert estimate("binary", ["roc_auc"], y, moved)[0].candidate == pytest.approx(results[0].champion, abs=1e-9)


def test_slice_threshold_is_passed_by_every_slice() -> None:
    y, good = holdout(6000, 7)
    place = np.random.default_rng(8).choice(["a", "b", "c"], 6000)
    slices = by_values("binary", ["roc_auc"], y, good, by="place", column=place, min_rows=50)
    found = slice_threshold("place", "roc_auc", slices, gates=1)
    assert found is not None and found.slices == 3
    gate = SliceGate("place", "roc_auc", min=found.threshold, min_rows=found.min_rows)
    assert GateSet("binary", y, (), [gate], {"place": place}).judge(good, None).status is Status.PASSED


def test_nothing_is_proposed_from_too_little() -> None:
    y, good = holdout(60, 9)
    result = estimate("binary", ["roc_auc"], y, good)[0]
    assert threshold(result, gates=1) is None
    assert margin(estimate("binary", ["roc_auc"], y, good, good)[0], gates=1) is None
    assert slice_threshold("place", "roc_auc", [], gates=1) is None


@pytest.mark.parametrize(
    ("value", "scale", "up", "expected"),
    [
        (0.6674, 0.021, False, 0.667),
        (0.6674, 0.21, False, 0.66),
        (0.1616, 0.0065, True, 0.1616),
        (1234.5, 50, True, 1235),
    ],
)
def test_thresholds_are_rounded_to_what_they_are_known_by(
    value: float, scale: float, up: bool, expected: float
) -> None:
    assert rounded(value, scale, up=up) == pytest.approx(expected)
