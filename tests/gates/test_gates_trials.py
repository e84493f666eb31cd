"""Made-up bad models before gates, in arrays: what is caught, and what a blind set of gates lets through."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlcicd.core.verdict import CheckStatus, Status
from mlcicd.evaluation import saboteurs
from mlcicd.evaluation.gate_set import GateSet
from mlcicd.evaluation.gate_trials import ladder, largest_passed, smallest_caught, trials, without_value
from mlcicd.evaluation.gates import Gate, SliceGate, VsChampion
from mlcicd.evaluation.predictions import Predictions, Structure, take

N = 3000


def binary(n: int = N, seed: int = 0) -> tuple[np.ndarray[Any, Any], Predictions, np.ndarray[Any, Any]]:
    """Labels, the probabilities of a model that is as good as it can be, and a column of three values."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 1.5, n)
    p = 1 / (1 + np.exp(-odds))
    return (rng.random(n) < p).astype(int), Predictions(scores=np.c_[1 - p, p], classes=[0, 1]), rng.choice(
        ["a", "b", "c"], n
    )  # fmt: skip


def gates(*found: Gate, **rest: Any) -> tuple[GateSet, Predictions]:
    y, good, column = binary()
    return GateSet("binary", y, found, columns={"place": column}, **rest), good


AUC = Gate("roc_auc", min=0.7, vs_champion=VsChampion(0.02))


def test_good_gates_stop_every_bad_model_and_let_the_same_one_pass() -> None:
    set_, good = gates(AUC, slice_gates=[SliceGate("place", "roc_auc", min=0.7)])
    found = {t.name: t.judged for t in trials(set_, good)}
    assert found.pop("identical").status is Status.PASSED
    assert found["truncated"].refused
    assert all(judged.blocked for judged in found.values()), {k: v.status for k, v in found.items()}
    assert len(found) >= 7


def test_no_gate_stops_nothing() -> None:
    set_, good = gates()
    bad = [t.judged for t in trials(set_, good) if t.kind != "identical" and not t.judged.refused]
    assert bad and not any(judged.blocked for judged in bad)
    assert smallest_caught(ladder(set_, good, strengths=(0.5, 5.0))) is None


def test_accuracy_alone_does_not_notice_a_constant_where_one_class_is_rare() -> None:
    rng = np.random.default_rng(1)
    y = (rng.random(N) < 0.05).astype(int)
    good = Predictions(labels=np.where(rng.random(N) < 0.1, 1 - y, y))
    found = {t.name: t.judged.status for t in trials(GateSet("binary", y, [Gate("accuracy", min=0.8)]), good)}
    assert found["constant"] is Status.PASSED
    assert found["NaN in one row"] is Status.FAILED


def test_only_a_slice_gate_sees_a_loss_that_is_made_up_for_elsewhere() -> None:
    blind, good = gates(AUC)
    sighted, _ = gates(AUC, slice_gates=[SliceGate("place", "roc_auc", min=0.7)])
    hidden = [t for t in trials(blind, good, slices=["place"]) if t.kind == "slice"]
    assert hidden and all(t.judged.status is Status.PASSED for t in hidden)
    for trial in hidden:
        difference = trial.judged.results[0].difference
        assert difference is not None and difference >= 0, "the whole must not show it"
    seen = [t for t in trials(sighted, good) if t.kind == "slice"]
    assert {tuple(t.judged.named(CheckStatus.FAILED)) for t in seen} == {
        (f"roc_auc ({t.name.removeprefix('worse for ')})",) for t in seen
    }


def test_noise_passes_while_faint_and_fails_once_strong() -> None:
    set_, good = gates(AUC)
    rungs = ladder(set_, good)
    assert rungs[0].failed == 0
    assert rungs[-1].failed == 1
    losses = [rung.loss["roc_auc"] for rung in rungs]
    assert losses[0] < 0.005 < losses[-1]
    caught, passed = smallest_caught(rungs), largest_passed(rungs)
    assert caught is not None and passed is not None
    assert passed.loss["roc_auc"] < caught.loss["roc_auc"]
    # A loss below the margin is what the gate was told to allow.
    assert caught.loss["roc_auc"] > 0.02
    assert smallest_caught(rungs, "roc_auc vs champion") is not None


def test_tighter_margin_catches_smaller_losses() -> None:
    def smallest(margin: float) -> float:
        set_, good = gates(Gate("roc_auc", vs_champion=VsChampion(margin)))
        rung = smallest_caught(ladder(set_, good))
        assert rung is not None
        return rung.loss["roc_auc"]

    assert smallest(0.002) < smallest(0.03) < smallest(0.1)


@pytest.mark.parametrize("seed", [0, 1])
def test_same_seed_same_answer(seed: int) -> None:
    set_, good = gates(AUC)
    one, other = (ladder(set_, good, seed=seed, strengths=(0.2, 0.4)) for _ in range(2))
    assert one == other
    assert one != ladder(set_, good, seed=seed + 1, strengths=(0.2, 0.4))


def multiclass() -> tuple[str, np.ndarray[Any, Any], Predictions, Gate]:
    rng = np.random.default_rng(2)
    odds = rng.normal(0, 2, (N, 3))
    p = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    y = np.array(["x", "y", "z"])[(p.cumsum(axis=1) < rng.random((N, 1))).sum(axis=1)]
    return "multiclass", y, Predictions(scores=p, classes=["x", "y", "z"]), Gate("accuracy", min=0.5)


def regression() -> tuple[str, np.ndarray[Any, Any], Predictions, Gate]:
    rng = np.random.default_rng(3)
    y = rng.normal(0, 3, N)
    return "regression", y, Predictions(labels=y + rng.normal(0, 1, N)), Gate("mae", max=1.0)


def labels_only() -> tuple[str, np.ndarray[Any, Any], Predictions, Gate]:
    rng = np.random.default_rng(4)
    y = rng.choice(["no", "yes"], N)
    said = np.where(rng.random(N) < 0.1, np.where(y == "no", "yes", "no"), y)
    return "binary", y, Predictions(labels=said), Gate("f1", min=0.8)


def multilabel() -> tuple[str, np.ndarray[Any, Any], Predictions, Gate]:
    rng = np.random.default_rng(5)
    p = 1 / (1 + np.exp(-rng.normal(0, 2, (N, 2))))
    return "multilabel", (rng.random((N, 2)) < p).astype(int), Predictions(scores=p), Gate("f1_macro", min=0.75)


@pytest.mark.parametrize("make", [multiclass, regression, labels_only, multilabel])
def test_every_task_is_tried(make: Any) -> None:
    task, y, good, gate = make()
    place = np.random.default_rng(6).choice(["a", "b"], N)
    part = SliceGate("place", gate.metric, min=gate.min, max=gate.max)
    set_ = GateSet(task, y, [gate], [part], {"place": place})
    found = {t.name: t.judged for t in trials(set_, good)}
    assert found.pop("identical").status is Status.PASSED
    assert all(judged.blocked for judged in found.values()), {k: v.status for k, v in found.items()}
    rungs = ladder(set_, good, strengths=(0.03, 2.0, 4.0))
    assert rungs[0].failed == 0 and rungs[-1].failed == 1, rungs


def test_saboteurs_leave_what_they_are_made_of_alone() -> None:
    y, good, _ = binary(200)
    before = np.asarray(good.scores).copy()
    rng = np.random.default_rng(0)
    rows = np.arange(50)
    for bad in (
        saboteurs.shuffled(good, rng),
        saboteurs.shuffled(good, rng, rows),
        saboteurs.constant(good, y, "binary"),
        saboteurs.missing(good, rows),
        saboteurs.noisy(good, 0.5, rng),
        saboteurs.sharpened(good, y, 1.0, rng, rows),
    ):
        assert bad.scores is not None and bad.scores.shape == before.shape
        assert not np.array_equal(bad.scores, before, equal_nan=True)
    assert np.array_equal(np.asarray(good.scores), before)


def test_noise_of_probabilities_stays_probable() -> None:
    _, good, _ = binary(500)
    noisy = saboteurs.noisy(good, 3.0, np.random.default_rng(0)).scores
    assert noisy is not None
    assert noisy.min() >= 0 and noisy.max() <= 1
    assert np.allclose(noisy.sum(axis=1), 1)


def test_resampled_groups_stay_whole() -> None:
    y, _, _ = binary(400)
    group = np.repeat(np.arange(100), 4)
    set_ = GateSet("binary", y, [AUC], structure=Structure(group=group, group_name="day"))
    at, rows = set_.resampled(np.random.default_rng(0))
    assert at.units is not None and at.structure is not None
    for unit in np.unique(at.units):
        inside = rows[at.units == unit]
        assert sorted(inside % 4) == [0, 1, 2, 3] and len(set(group[inside])) == 1


def test_name_of_a_slice_gate_loses_its_value() -> None:
    assert without_value("roc_auc (origin=EWR)") == "roc_auc by origin"
    assert without_value("roc_auc vs champion") == "roc_auc vs champion"


def ranking(group_name: str = "query") -> tuple[GateSet, Predictions]:
    """300 queries of ten documents, whose order a model knows well."""
    rng = np.random.default_rng(11)
    z = rng.normal(size=N)
    relevance = np.clip(np.round(z), 0, 3)
    query = np.repeat(np.arange(N // 10), 10)
    place = np.array(["a", "b", "c"])[rng.integers(0, 3, N // 10)[query]]
    set_ = GateSet(
        "ranking",
        relevance,
        [Gate("ndcg", min=0.7, vs_champion=VsChampion(0.02))],
        [SliceGate("place", "ndcg", min=0.7)],
        {"place": place},
        structure=Structure(group=query, group_name=group_name),
    )
    return set_, Predictions(scores=z + 0.2 * rng.normal(size=N))


def test_a_ranking_is_tried_by_its_queries() -> None:
    set_, good = ranking()
    found = {t.name: t.judged for t in trials(set_, good)}
    identical = found.pop("identical")
    assert identical.status is Status.PASSED
    assert identical.results[0].units == "300 groups by query"
    assert all(judged.blocked for judged in found.values()), {k: v.status for k, v in found.items()}
    rungs = ladder(set_, good, strengths=(0.03, 1.0, 3.0))
    assert rungs[0].failed == 0 and rungs[-1].failed == 1, rungs
    # A query that is drawn twice is two queries: not one with every document twice.
    at, rows = set_.resampled(np.random.default_rng(0))
    assert at.judge(take(good, rows), None).results[0].units == "300 groups by query"


def test_rows_that_belong_together_are_judged_as_such() -> None:
    y, good, _ = binary()
    group = np.repeat(np.arange(30), N // 30)
    alone = GateSet("binary", y, [AUC]).judge(good, None).results[0]
    grouped = GateSet("binary", y, [AUC], structure=Structure(group=group, group_name="day")).judge(good, None)
    assert grouped.results[0].units == "30 groups by day"
    assert alone.units == ""
    assert "30 groups by day" in grouped.results[0].method


def test_weights_count_in_trials_as_in_evaluations() -> None:
    rng = np.random.default_rng(12)
    y = rng.integers(0, 2, N)
    heavy = rng.random(N) < 0.5
    right = np.where(heavy, y, 1 - y)
    weight = np.where(heavy, 99.0, 1.0)
    gate = Gate("accuracy", min=0.9)
    part = SliceGate("place", "accuracy", min=0.9)
    place = rng.choice(["a", "b"], N)
    set_ = GateSet("binary", y, [gate], [part], {"place": place}, weight=weight)
    assert set_.judge(Predictions(labels=right), None).status is Status.PASSED
    assert replace(set_, weight=None).judge(Predictions(labels=right), None).status is Status.FAILED
    at, rows = set_.resampled(np.random.default_rng(1))
    assert at.weight is not None and np.array_equal(at.weight, weight[rows])
    assert at.judge(Predictions(labels=right[rows]), None).status is Status.PASSED


def test_quantile_forecasts_keep_their_order_under_noise() -> None:
    rng = np.random.default_rng(13)
    y = rng.normal(size=400)
    columns = y[:, None] + np.array([-1.0, 0.0, 1.0]) + 0.5 * rng.normal(size=(400, 1))
    good = Predictions(scores=columns, classes=(0.1, 0.5, 0.9))
    gate = Gate("pinball", vs_champion=VsChampion(0.01))
    time = np.repeat(np.arange(200), 2)
    set_ = GateSet("forecast", y, [gate], structure=Structure(time=time))
    rungs = ladder(set_, good, strengths=(0.03, 3.0))
    assert rungs[0].failed == 0 and rungs[-1].failed == 1, rungs
    noise = np.asarray(saboteurs.noisy(good, 2.0, rng, spread=1.0).scores)
    assert (np.diff(noise, axis=1) > 0).all()
