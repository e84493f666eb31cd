"""Curves of one model, thinned to at most a hundred points, and the figures a report draws of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcicd.evaluation.calibration import rate_variance, reliability
from mlcicd.evaluation.intervals import MetricResult
from mlcicd.evaluation.multilabel import label_sums
from mlcicd.evaluation.predictions import Predictions, Problem, View, prepare
from mlcicd.evaluation.problem import CLASSES
from mlcicd.evaluation.ranking import rank
from mlcicd.evaluation.uncertainty import normal_quantile

Floats = NDArray[np.float64]
Figure = dict[str, Any]

POINTS = 100
_MANY_CLASSES = 12


def thin(x: Floats, y: Floats, points: int = POINTS) -> tuple[Floats, Floats]:
    """At most `points` of the curve's own points, evenly spread along its length; both ends stay."""
    if x.size <= points:
        return x, y
    length = _steps(x) + _steps(y)
    along = np.concatenate([[0.0], np.cumsum(length)])
    picks = np.searchsorted(along, np.linspace(0, along[-1], points - 1))
    picks = np.unique(np.concatenate([[0], np.minimum(picks, x.size - 1), [x.size - 1]]))
    return x[picks], y[picks]


def _steps(values: Floats) -> Floats:
    """Steps from point to point, as shares of the whole range."""
    steps: Floats = np.abs(np.diff(values)) / max(float(np.ptp(values)), 1e-300)
    return steps


def roc_curve(y: NDArray[np.bool_], scores: Floats, weight: Floats | None = None) -> tuple[Floats, Floats]:
    """(false positive rate, true positive rate), ascending, from (0, 0) to (1, 1). Needs both classes."""
    positive, negative = rank(y, scores, weight).sums
    tpr = np.concatenate([[0.0], np.cumsum(positive) / positive.sum()])
    fpr = np.concatenate([[0.0], np.cumsum(negative) / negative.sum()])
    return thin(fpr, tpr)


def precision_recall_curve(y: NDArray[np.bool_], scores: Floats, weight: Floats | None = None) -> tuple[Floats, Floats]:
    """(recall, precision), recall ascending. Needs positives."""
    positive, negative = rank(y, scores, weight).sums
    found, wrong = np.cumsum(positive), np.cumsum(negative)
    return thin(found / found[-1], found / (found + wrong))


def confusion(problem: Problem, view: View) -> NDArray[np.float64]:
    """(k, k) weights by [true class, predicted class]."""
    k = max(len(problem.classes), 2)
    code = problem.y.astype(np.intp) * k + np.asarray(view.labels).astype(np.intp)
    counted = np.bincount(code, weights=problem.weight, minlength=k * k)
    return counted.astype(np.float64).reshape(k, k)


def figures(
    task: str,
    y: Any,
    candidate: Predictions,
    champion: Predictions | None = None,
    *,
    sample_weight: Any = None,
    results: Sequence[MetricResult] = (),
) -> list[Figure]:
    """The figures of an evaluation, as the report draws them; none that the predictions do not support.

    Args:
        results: of `intervals.estimate`: their differences to the champion become a figure of intervals.

    Returns:
        dictionaries of `kind` (`lines`, `bars`, `intervals`), `title`, `x_label`, `y_label`, `series` (each with
        `name`, `x`, `y`, and `lo`, `hi` or None), `reference` (`y`, `label`) or None, and `log_y`; or of `kind`
        `matrix`, with `classes` and `matrices` (each with `name`, `counts`). At most a hundred points a series,
        finite numbers only.

    Raises:
        ConfigError, InputError: as `intervals.estimate`.
    """
    if task == "ranking":
        return [*_differences(results)]
    problem = prepare(task, y, candidate, champion, sample_weight)
    found = [*_differences(results)]
    if problem.reason:
        return found
    views = {"candidate": problem.candidate}
    if problem.champion is not None:
        views["champion"] = problem.champion
    if task not in CLASSES:
        usable = {n: v for n, v in views.items() if v.scores is not None and not v.scores_reason}
        return [*found, *_residuals(problem, usable), *_levels(problem, views)]
    labelled = {n: v for n, v in views.items() if v.labels is not None and not v.labels_reason}
    if task == "multilabel":
        return [*found, *_by_label(problem, labelled)]
    scored = {n: v for n, v in views.items() if v.scores is not None and not v.scores_reason}
    if task == "binary" and 0 < int(problem.y.sum()) < problem.n:
        found.extend(_ranking(problem, scored))
    found.extend(_reliability(problem, scored))
    found.extend(_confusions(problem, labelled))
    return found


def _figure(
    kind: str,
    title: str,
    labels: tuple[str, str],
    series: list[dict[str, Any]],
    reference: Figure | None = None,
) -> Figure:
    return {
        "kind": kind,
        "title": title,
        "x_label": labels[0],
        "y_label": labels[1],
        "series": series,
        "reference": reference,
        "log_y": False,
    }


def _series(name: str, x: Any, y: Any, lo: Any = None, hi: Any = None) -> dict[str, Any]:
    def plain(values: Any) -> list[Any] | None:
        return None if values is None else [v if isinstance(v, str) else float(v) for v in values]

    return {"name": name, "x": plain(x), "y": plain(y), "lo": plain(lo), "hi": plain(hi)}


def _ranking(problem: Problem, views: dict[str, View]) -> list[Figure]:
    if not views:
        return []
    roc = [_series(n, *roc_curve(problem.y, np.asarray(v.scores), problem.weight)) for n, v in views.items()]
    pr = [
        _series(n, *precision_recall_curve(problem.y, np.asarray(v.scores), problem.weight)) for n, v in views.items()
    ]
    chance = _series("chance", [0, 1], [0, 1])
    base = float(np.average(problem.y, weights=problem.weight))
    return [
        _figure("lines", "ROC curve", ("false positive rate", "true positive rate"), [*roc, chance]),
        _figure(
            "lines",
            "Precision and recall",
            ("recall", "precision"),
            pr,
            {"y": base, "label": "share of positives"},
        ),
    ]


def _reliability(problem: Problem, views: dict[str, View]) -> list[Figure]:
    series = []
    for name, view in views.items():
        scores, truth = np.asarray(view.scores), problem.y
        if scores.min() < 0 or scores.max() > 1:
            continue
        if scores.ndim == 2:
            top = np.argmax(scores, axis=1)
            truth, scores = top == problem.y, scores[np.arange(top.size), top]
        curve = reliability(truth, scores, problem.weight)
        reach = normal_quantile(0.975) * np.sqrt(rate_variance(curve.rate, curve.rows))
        low, high = np.maximum(curve.rate - reach, 0), np.minimum(curve.rate + reach, 1)
        series.append(_series(name, curve.score, curve.rate, low, high))
    if not series:
        return []
    diagonal = _series("calibrated", [0, 1], [0, 1])
    said = "mean score" if problem.task == "binary" else "mean score of the top class"
    seen = "share of positives" if problem.task == "binary" else "share of right answers"
    return [_figure("lines", "Reliability", (said, seen), [*series, diagonal])]


def _confusions(problem: Problem, views: dict[str, View]) -> list[Figure]:
    """The confusion matrices, and the share of right answers by true class; of many classes the most frequent ones."""
    if not views:
        return []
    k = max(len(problem.classes), 2)
    rows = np.bincount(problem.y.astype(np.intp), minlength=k)
    shown = sorted(int(i) for i in np.argsort(-rows, kind="stable")[:_MANY_CLASSES] if rows[i])
    names = [str(problem.classes[i]) for i in shown]
    matrices = {name: confusion(problem, view) for name, view in views.items()}
    series = [_series(name, names, [m[i, i] / m[i].sum() for i in shown]) for name, m in matrices.items()]
    bars = _figure("bars", "Right answers by true class", ("true class", "share right"), series)
    return [*_matrix(problem, matrices, rows), bars]


def _matrix(problem: Problem, matrices: dict[str, NDArray[np.float64]], rows: NDArray[np.intp]) -> list[Figure]:
    """Counts (sums of weights) by true and answered class; classes beyond the most frequent ones are one."""
    k = rows.size
    named = [str(name) for name in problem.classes] if len(problem.classes) == k else []
    if not named:
        return []
    kept = sorted(np.argsort(-rows, kind="stable")[:_MANY_CLASSES].tolist())
    place = np.full(k, len(kept), dtype=np.intp)
    place[kept] = np.arange(len(kept))
    names = [named[i] for i in kept] + ([f"{k - len(kept)} others"] if k > len(kept) else [])
    tables = []
    for name, matrix in matrices.items():
        folded = np.zeros((len(names), len(names)))
        np.add.at(folded, (place[:, None], place[None, :]), matrix)
        tables.append({"name": name, "counts": folded.tolist()})
    said = {"title": "Confusion matrix", "x_label": "answered", "y_label": "true"}
    return [{"kind": "matrix", **said, "classes": names, "matrices": tables}]


def _residuals(problem: Problem, views: dict[str, View]) -> list[Figure]:
    """Quantiles of the residuals: where the whole curve is flat at 0, there is no error."""
    levels = np.linspace(0.01, 0.99, 99)
    series = [_series(n, levels, np.quantile(problem.y - np.asarray(v.scores), levels)) for n, v in views.items()]
    if not series:
        return []
    labels = ("quantile level", "label - prediction")
    return [_figure("lines", "Residuals", labels, series, {"y": 0.0, "label": "no error"})]


def _levels(problem: Problem, views: dict[str, View]) -> list[Figure]:
    """How many values lie below each predicted quantile: on the diagonal, as many as there should."""
    series = []
    for name, view in views.items():
        if view.quantiles is not None and not np.isnan(view.quantiles).any():
            below = np.average(problem.y[:, None] <= view.quantiles, axis=0, weights=problem.weight)
            series.append(_series(name, view.levels, below))
    if not series:
        return []
    diagonal = _series("calibrated", [0, 1], [0, 1])
    labels = ("quantile level", "share of values below the quantile")
    return [_figure("lines", "Coverage of quantiles", labels, [*series, diagonal])]


def _by_label(problem: Problem, views: dict[str, View]) -> list[Figure]:
    """F1 by label; of many labels the most frequent ones."""
    if not views:
        return []
    rows = problem.y.sum(axis=0)
    shown = sorted(np.argsort(-rows, kind="stable")[:_MANY_CLASSES].tolist())
    names = [str(problem.classes[i]) for i in shown]
    one_group = (np.zeros(problem.n, dtype=np.intp), 1)
    series = []
    for name, view in views.items():
        right, true, said = label_sums(
            problem.y[:, shown], np.asarray(view.labels)[:, shown], one_group, problem.weight
        )
        below = np.maximum(true + said, 1e-300)
        series.append(_series(name, names, (2 * right / below)[0]))
    return [_figure("bars", "F1 by label", ("label", "F1"), series)]


def _differences(results: Sequence[MetricResult]) -> list[Figure]:
    """Gains over the champion, turned so that more is better."""
    rows = []
    for r in results:
        if r.difference is None or r.difference_interval is None or not math.isfinite(r.difference):
            continue
        sign = 1 if r.direction == "higher" else -1
        low, high = sorted(sign * e for e in r.difference_interval)
        if math.isfinite(low) and math.isfinite(high):
            rows.append((r.name, sign * r.difference, low, high))
    if not rows:
        return []
    names, gains, lows, highs = zip(*rows, strict=True)
    return [
        _figure(
            "intervals",
            "Gain over the champion",
            ("metric", "gain (more is better)"),
            [_series("candidate", names, gains, lows, highs)],
            {"y": 0.0, "label": "champion"},
        )
    ]
