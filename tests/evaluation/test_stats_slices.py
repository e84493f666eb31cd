"""Slices, weakest slices, flips and figures."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn import metrics as sk

from mlcicd.core.errors import InputError
from mlcicd.evaluation.curves import figures, precision_recall_curve, roc_curve, thin
from mlcicd.evaluation.flips import flips
from mlcicd.evaluation.intervals import estimate
from mlcicd.evaluation.predictions import Predictions
from mlcicd.evaluation.slices import MISSING, binned, by_values
from mlcicd.evaluation.weakest import weakest_slices
from mlcicd.report.matrix import draw_matrix, parse_matrix


def world(n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(-2 * z))).astype(int)
    return y, 1 / (1 + np.exp(-2 * z)), 1 / (1 + np.exp(-2 * z + rng.normal(size=n))), rng.integers(0, 3, n)


def test_a_slice_is_its_rows_alone() -> None:
    y, candidate, champion, group = world()
    names = np.array(["AA", "DL", "UA"])[group]
    models = Predictions(scores=candidate), Predictions(scores=champion)
    asked = ["accuracy", "roc_auc"]
    for slice_ in by_values("binary", asked, y, *models, by="carrier", column=names):
        rows = names == slice_.value
        alone = estimate("binary", asked, y[rows], *(Predictions(scores=m.scores[rows]) for m in models))
        assert slice_.n == rows.sum()
        assert list(slice_.results) == alone


def test_missing_values_small_slices_and_one_class() -> None:
    y, candidate, _, _ = world(300)
    column = np.array(["a"] * 200 + [None] * 80 + [float("nan")] * 10 + ["b"] * 10, dtype=object)
    found = by_values("binary", ["roc_auc"], y, Predictions(scores=candidate), by="c", column=column, min_rows=50)
    assert [(s.value, s.n, bool(s.results)) for s in found] == [
        ("a", 200, True),
        (MISSING, 90, True),
        ("b", 10, False),
    ]
    positive = by_values("binary", ["roc_auc"], y, Predictions(scores=candidate), by="y", column=y)
    assert all("single class" in s.results[0].reason for s in positive)
    with pytest.raises(InputError, match="'c' has shape"):
        by_values("binary", ["roc_auc"], y, Predictions(scores=candidate), by="c", column=column[:5])


def test_numbers_can_be_binned() -> None:
    values = np.append(np.arange(100.0), np.nan)
    names = binned(values)
    assert names[-1] == MISSING
    assert len(set(names.tolist())) == 5
    assert set(binned(np.ones(5)).tolist()) == {"1"}
    assert set(binned(np.full(3, np.nan)).tolist()) == {MISSING}


def test_the_planted_weak_slice_is_found_and_noise_is_not() -> None:
    y, candidate, _, group = world(6000)
    rng = np.random.default_rng(5)
    carrier, x = np.array(["AA", "DL", "UA"])[group], rng.normal(size=6000)
    x[::40] = np.nan
    features = {"carrier": carrier, "x": x, "noise": rng.normal(size=6000)}
    assert weakest_slices("binary", y, Predictions(scores=candidate), features) == []
    bad = (carrier == "UA") & (x > 0.3)
    broken = np.where(bad, rng.integers(0, 2, 6000), y)
    found = weakest_slices("binary", broken, Predictions(scores=candidate), features)
    assert found[0].conditions[0] == "carrier = UA"
    assert found[0].conditions[1].startswith("x > ")
    assert float(found[0].conditions[1].split()[2]) == pytest.approx(0.3, abs=0.15)
    assert found[0].loss > found[0].rest
    assert found[0].gap_interval[0] > 0


def test_weakest_slices_hold_their_level_on_pure_noise() -> None:
    rng = np.random.default_rng(0)
    alarms = 0
    for seed in range(60):
        y = rng.integers(0, 2, 800)
        features = {f"x{i}": rng.normal(size=800) for i in range(8)}
        labels = Predictions(labels=rng.integers(0, 2, 800), classes=(0, 1))
        alarms += bool(weakest_slices("binary", y, labels, features, min_rows=50, seed=seed))
    assert alarms <= 9  # 5 % of 60 is 3; more than 9 has a probability below 0.001


def test_too_few_rows_or_no_features_find_nothing() -> None:
    y, candidate, _, _ = world(300)
    assert weakest_slices("binary", y, Predictions(scores=candidate), {"x": candidate}) == []
    assert weakest_slices("binary", y, Predictions(scores=candidate), {}, min_rows=10) == []


def test_flips_are_counted_overall_and_by_slice() -> None:
    y = np.array([0, 0, 1, 1, 1, 0])
    champion = Predictions(labels=np.array([0, 0, 1, 1, 0, 1]))
    candidate = Predictions(labels=np.array([1, 0, 0, 1, 1, 1]))
    where = np.array(["a", "a", "a", "b", "b", "b"])
    whole, *parts = flips("binary", y, candidate, champion, by="where", column=where)
    assert (whole.negative, whole.positive, whole.n, whole.rate) == (2, 1, 6, 2 / 6)
    assert [(p.slice, p.negative, p.positive) for p in parts] == [("where=a", 2, 0), ("where=b", 0, 1)]
    assert parts[1].interval[0] == 0
    assert parts[1].interval[1] > 0.3  # nothing of three rows is not nothing
    metric = estimate("binary", ["negative_flip_rate"], y, candidate, champion)[0]
    assert metric.candidate == whole.rate
    assert flips("regression", y, candidate, champion) == []


def test_multiclass_flips() -> None:
    y = np.array([0, 1, 2, 2])
    champion, candidate = (
        Predictions(labels=np.array([0, 1, 2, 0])),
        Predictions(labels=np.array([0, 2, 1, 2])),
    )
    assert flips("multiclass", y, candidate, champion)[0].negative == 2
    assert estimate("multiclass", ["negative_flip_rate"], y, candidate, champion)[0].candidate == 0.5


def test_curves_are_those_of_scikit_learn_thinned() -> None:
    y, scores, _, _ = world(3000)
    fpr, tpr = roc_curve(y == 1, scores)
    assert fpr.size <= 100
    assert sk.auc(fpr, tpr) == pytest.approx(sk.roc_auc_score(y, scores), abs=0.002)
    recall, precision = precision_recall_curve(y == 1, scores)
    assert recall.size <= 100
    full_precision, full_recall, _ = sk.precision_recall_curve(y, scores)
    points = set(zip(full_recall.round(9), full_precision.round(9), strict=True))
    assert set(zip(recall.round(9), precision.round(9), strict=True)) <= points
    few = roc_curve(y[:20] == 1, scores[:20])
    reference = sk.roc_curve(y[:20], scores[:20], drop_intermediate=False)
    assert few[0] == pytest.approx(reference[0])
    assert few[1] == pytest.approx(reference[1])


def test_thinning_keeps_both_ends() -> None:
    x = np.linspace(0, 1, 5000)
    a, b = thin(x, x**3)
    assert 50 < a.size <= 100
    assert (a[0], a[-1], b[-1]) == (0, 1, 1)


def check_contract(found: list[dict]) -> None:
    json.dumps(found, allow_nan=False)
    for figure in found:
        if figure["kind"] == "matrix":
            draw_matrix(parse_matrix(figure))
            continue
        assert set(figure) == {"kind", "title", "x_label", "y_label", "series", "reference", "log_y"}
        assert figure["kind"] in {"lines", "bars", "intervals"}
        for series in figure["series"]:
            assert set(series) == {"name", "x", "y", "lo", "hi"}
            assert 0 < len(series["x"]) == len(series["y"]) <= 100
            for end in ("lo", "hi"):
                assert series[end] is None or len(series[end]) == len(series["x"])


def test_figures_keep_their_contract() -> None:
    y, candidate, champion, group = world()
    models = Predictions(scores=candidate), Predictions(scores=champion)
    results = estimate("binary", ["roc_auc", "log_loss"], y, *models)
    binary = figures("binary", y, *models, results=results)
    check_contract(binary)
    titles = [f["title"] for f in binary]
    assert titles[:3] == ["Gain over the champion", "ROC curve", "Precision and recall"]
    assert titles[3:] == ["Reliability", "Confusion matrix", "Right answers by true class"]
    gains = binary[0]["series"][0]
    assert gains["y"][1] == pytest.approx(-(results[1].difference or math.nan))
    rng = np.random.default_rng(0)
    many = figures("multiclass", group, Predictions(scores=rng.dirichlet([1, 1, 1], group.size)))
    check_contract(many)
    assert [f["title"] for f in many] == ["Reliability", "Confusion matrix", "Right answers by true class"]
    check_contract(figures("regression", rng.normal(size=50), Predictions(rng.normal(size=50))))


def test_confusion_matrices_are_scikit_learns_and_fold_rare_classes() -> None:
    rng = np.random.default_rng(3)
    y = rng.choice([f"c{i:02}" for i in range(20)], 3000, p=np.arange(1, 21) / 210)
    said = np.where(rng.random(3000) < 0.7, y, rng.permutation(y))
    weight = rng.random(3000)
    found = figures("multiclass", y, Predictions(labels=said), Predictions(labels=y), sample_weight=weight)
    (matrix,) = (f for f in found if f["kind"] == "matrix")
    assert matrix["classes"] == [*(f"c{i:02}" for i in range(8, 20)), "8 others"]
    full = sk.confusion_matrix(y, said, sample_weight=weight)
    counts = np.array(matrix["matrices"][0]["counts"])
    assert counts[:12, :12] == pytest.approx(full[8:, 8:])
    assert counts[12, 12] == pytest.approx(full[:8, :8].sum())
    assert counts.sum() == pytest.approx(weight.sum())
    assert [m["name"] for m in matrix["matrices"]] == ["candidate", "champion"]
    champion = np.array(matrix["matrices"][1]["counts"])
    assert champion[:12, :12] == pytest.approx(np.diag(np.diag(champion))[:12, :12])


def test_figures_of_nothing() -> None:
    empty = Predictions(labels=np.array([]), scores=np.array([]), classes=(0, 1))
    assert figures("binary", np.array([]), empty) == []
    y = np.array([0, 1, 1])
    spoiled = figures("binary", y, Predictions(scores=np.array([0.1, np.nan, 0.3])))
    assert spoiled == []
    check_contract(figures("binary", np.ones(30), Predictions(scores=np.linspace(0, 1, 30), classes=(0, 1))))
