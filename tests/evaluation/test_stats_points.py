"""Point values are scikit-learn's, on whatever inputs."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.evaluation.intervals import MetricResult, estimate
from mlcicd.evaluation.metrics import get_metric, names
from mlcicd.evaluation.predictions import Predictions

LABEL_METRICS = {
    "accuracy": sk.accuracy_score,
    "balanced_accuracy": sk.balanced_accuracy_score,
    "precision": lambda y, p, **k: sk.precision_score(y, p, zero_division=0, **k),
    "recall": lambda y, p, **k: sk.recall_score(y, p, zero_division=0, **k),
    "specificity": lambda y, p, **k: sk.recall_score(y, p, pos_label=0, zero_division=0, **k),
    "f1": lambda y, p, **k: sk.f1_score(y, p, zero_division=0, **k),
    "matthews_corrcoef": sk.matthews_corrcoef,
}
SCORE_METRICS = {
    "roc_auc": sk.roc_auc_score,
    "average_precision": sk.average_precision_score,
    "log_loss": lambda y, p, **k: sk.log_loss(y, p, labels=[0, 1], **k),
    "brier": sk.brier_score_loss,
}
REGRESSION = {
    "mae": sk.mean_absolute_error,
    "mse": sk.mean_squared_error,
    "rmse": sk.root_mean_squared_error,
    "r2": sk.r2_score,
    "mape": sk.mean_absolute_percentage_error,
    "pinball@0.9": lambda y, p, **k: sk.mean_pinball_loss(y, p, alpha=0.9, **k),
    "median_absolute_error": sk.median_absolute_error,
}
MULTI = {
    "accuracy": sk.accuracy_score,
    "balanced_accuracy": sk.balanced_accuracy_score,
    "matthews_corrcoef": sk.matthews_corrcoef,
    "f1_macro": lambda y, p, **k: sk.f1_score(y, p, average="macro", zero_division=0, **k),
    "f1_weighted": lambda y, p, **k: sk.f1_score(y, p, average="weighted", zero_division=0, **k),
    "precision_macro": lambda y, p, **k: sk.precision_score(y, p, average="macro", zero_division=0, **k),
    "recall_macro": lambda y, p, **k: sk.recall_score(y, p, average="macro", zero_division=0, **k),
}

# Few distinct scores: ties everywhere; constant scores and scores of exactly 0 and 1 happen.
ROW = st.tuples(
    st.integers(0, 1),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]),
    st.sampled_from([0.5, 1.0, 3.0]),
)


def found(task: str, asked: list[str], y: object, candidate: Predictions, **rest: object) -> dict[str, MetricResult]:
    return {r.name: r for r in estimate(task, asked, y, candidate, resamples=100, **rest)}  # type: ignore[arg-type]


@settings(deadline=None, max_examples=150)
@given(rows=st.lists(ROW, min_size=2, max_size=60), weighted=st.booleans())
def test_binary_points_are_those_of_scikit_learn(rows: list[tuple[int, float, float]], weighted: bool) -> None:
    y, scores, weight = (np.array(column) for column in zip(*rows, strict=True))
    labels = (scores >= 0.5).astype(int)
    extra = {"sample_weight": weight} if weighted else {}
    results = found(
        "binary",
        [*LABEL_METRICS, *SCORE_METRICS],
        y,
        Predictions(scores=scores, classes=(0, 1)),
        **extra,
    )
    for name, reference in {**LABEL_METRICS, **SCORE_METRICS}.items():
        result = results[name]
        if result.reason:
            assert "single class" in result.reason
            assert math.isnan(result.candidate)
            assert len(set(y.tolist())) == 1
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns where classes are missing
            expected = reference(y, labels if name in LABEL_METRICS else scores, **extra)
        assert result.candidate == pytest.approx(expected, abs=1e-9), name
        low, high = result.candidate_interval or (math.nan, math.nan)
        assert low <= result.candidate + 1e-12, name
        assert result.candidate <= high + 1e-12, name


@settings(deadline=None, max_examples=60)
@given(data=st.data(), weighted=st.booleans())
def test_regression_points_are_those_of_scikit_learn(data: st.DataObject, weighted: bool) -> None:
    numbers = st.floats(-100, 100, width=32).map(lambda v: round(v, 2))
    rows = data.draw(st.lists(st.tuples(numbers, numbers, st.sampled_from([1.0, 2.0])), min_size=2, max_size=40))
    y, p, weight = (np.array(column) for column in zip(*rows, strict=True))
    asked = [m for m in REGRESSION if not (weighted and m == "median_absolute_error")]
    extra = {"sample_weight": weight} if weighted else {}
    results = found("regression", asked, y, Predictions(labels=p), **extra)
    for name in asked:
        if results[name].reason:
            assert name == "r2"
            assert np.ptp(y) == 0
            continue
        assert results[name].candidate == pytest.approx(REGRESSION[name](y, p, **extra), rel=1e-7, abs=1e-9), name


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([1.0, 2.5])), min_size=2, max_size=60
    ),
    weighted=st.booleans(),
)
def test_multiclass_points_are_those_of_scikit_learn(rows: list[tuple[int, int, float]], weighted: bool) -> None:
    y, p, weight = (np.array(column) for column in zip(*rows, strict=True))
    extra = {"sample_weight": weight} if weighted else {}
    results = found("multiclass", list(MULTI), y, Predictions(labels=p, classes=range(4)), **extra)
    for name, reference in MULTI.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = reference(y, p, **extra)
        assert results[name].candidate == pytest.approx(expected, abs=1e-9), name


def test_multiclass_scores_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, 200)
    scores = rng.dirichlet([1, 1, 1], 200)
    names_ = np.array(["b", "c", "a"])  # columns in the model's own order
    results = found("multiclass", ["log_loss", "brier", "roc_auc"], names_[y], Predictions(None, scores, names_))
    ordered = scores[:, np.argsort(names_)]
    assert results["log_loss"].candidate == pytest.approx(sk.log_loss(names_[y], ordered))
    assert results["brier"].candidate == pytest.approx(np.mean(((np.eye(3)[y] - scores) ** 2).sum(axis=1)))
    auc = sk.roc_auc_score(names_[y], ordered, multi_class="ovr")
    assert results["roc_auc"].candidate == pytest.approx(auc)


def test_weighted_quantiles_of_errors_agree_with_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    y, p, w = rng.normal(size=4000), np.zeros(4000), rng.integers(1, 4, 4000)
    weighted = found("regression", ["absolute_error@0.9"], y, Predictions(p), sample_weight=w)
    repeated = found("regression", ["absolute_error@0.9"], np.repeat(y, w), Predictions(np.repeat(p, w)))
    one, other = weighted["absolute_error@0.9"], repeated["absolute_error@0.9"]
    assert one.candidate == pytest.approx(other.candidate, rel=1e-3)


@pytest.mark.parametrize(
    ("y", "labels", "scores", "classes"),
    [
        (["no", "yes", "yes", "no"], ["no", "yes", "no", "no"], [0.1, 0.9, 0.4, 0.2], ["no", "yes"]),
        ([False, True, True, False], [0, 1, 0, 0], [0.1, 0.9, 0.4, 0.2], None),
        ([-1, 1, 1, -1], [-1, 1, -1, -1], [0.1, 0.9, 0.4, 0.2], None),
        (np.array(["n", "p", "p", "n"], dtype=object), None, [0.1, 0.9, 0.4, 0.2], None),
        ([0, 1, 1, 0], None, [[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.8, 0.2]], [0, 1]),
        ([0, 1, 1, 0], None, [[0.1, 0.9], [0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], [1, 0]),
    ],
)
def test_classes_of_any_type_and_order(y: object, labels: object, scores: object, classes: object) -> None:
    positive_last = classes != [1, 0]
    results = found("binary", ["accuracy", "recall", "roc_auc"], y, Predictions(labels, scores, classes))  # type: ignore[arg-type]
    assert results["accuracy"].candidate == 0.75
    assert results["recall"].candidate == (0.5 if positive_last else 1.0)
    assert results["roc_auc"].candidate == 1.0


def test_every_metric_of_every_task_has_a_value_and_an_interval() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 300)
    many = rng.integers(0, 3, 300)
    answers = {
        "binary": (y, *(Predictions(scores=rng.random(300)) for _ in range(2))),
        "multiclass": (many, *(Predictions(scores=rng.dirichlet([1, 1, 1], 300)) for _ in range(2))),
        "regression": (rng.normal(size=300), *(Predictions(rng.normal(size=300)) for _ in range(2))),
    }
    for task, (truth, candidate, champion) in answers.items():
        for result in estimate(task, names(task), truth, candidate, champion, resamples=100):
            metric = get_metric(result.name)
            low, high = result.candidate_interval or (math.nan, math.nan)
            assert metric.low <= low <= result.candidate <= high <= metric.high, result.name
            assert result.method
            if not metric.pairwise:
                apart = result.difference_interval or (math.nan, math.nan)
                assert apart[0] < (result.difference or 0) < apart[1], result.name


def test_unknown_names_say_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'accuracy'"):
        get_metric("acuracy", "binary")
    with pytest.raises(ConfigError, match="not defined for a binary task"):
        get_metric("mae", "binary")
    with pytest.raises(ConfigError, match="not between 0 and 1"):
        get_metric("pinball@1.5", "regression")
    with pytest.raises(ConfigError, match="has no level"):
        get_metric("mae@0.5", "regression")
    with pytest.raises(ConfigError, match="unknown task"):
        estimate("survival", ["ndcg"], [0, 1], Predictions([0, 1]))
    assert get_metric("brier_score_loss", "binary").direction == "lower"


def test_arrays_that_do_not_fit_are_input_errors() -> None:
    with pytest.raises(InputError, match="have 3 rows, and the holdout has 2"):
        estimate("binary", ["accuracy"], [0, 1], Predictions(np.array([0, 1, 1])))
    with pytest.raises(InputError, match="different kinds"):
        estimate("binary", ["accuracy"], np.array(["0", "1"]), Predictions(np.array([0, 1]), None, (0, 1)))
    with pytest.raises(InputError, match=r"class 2\.0"):
        estimate("binary", ["accuracy"], np.array([0, 2]), Predictions(np.array([0, 1]), None, (0, 1)))
    with pytest.raises(InputError, match="not negative"):
        estimate("binary", ["accuracy"], [0, 1], Predictions(np.array([0, 1])), sample_weight=[1, -1])
    with pytest.raises(InputError, match="different classes"):
        estimate(
            "binary", ["accuracy"], [0, 1], Predictions(np.array([0, 1]), None, (0, 1)),
            Predictions(np.array([0, 1]), None, (0, 2)),
        )  # fmt: skip


@pytest.mark.parametrize("many", [False, True])
def test_text_classes_are_encoded_alike_in_any_order(many: bool) -> None:
    rng = np.random.default_rng(0)
    k = 30 if many else 5
    classes = rng.permutation([f"class {i:02}" for i in range(k)])
    y, p = classes[rng.integers(0, k, 400)], classes[rng.integers(0, k, 400)]
    p = np.where(rng.random(400) < 0.5, y, p)
    for truth, labels in ((y, p), (y.astype(object), p.astype(object))):
        for named in (None, classes):
            results = found("multiclass", ["accuracy", "f1_macro"], truth, Predictions(labels, None, named))
            assert results["accuracy"].candidate == pytest.approx((y == p).mean())
            assert results["f1_macro"].candidate == pytest.approx(sk.f1_score(y, p, average="macro"))
    strange = found("multiclass", ["accuracy"], y, Predictions(np.append(p[1:], "other"), None, classes))
    assert "predicts the class 'other'" in strange["accuracy"].reason
