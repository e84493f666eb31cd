"""Why a metric can not be computed: of one model's answers, or of the holdout."""

from __future__ import annotations

import numpy as np

from mlcicd.evaluation import counts
from mlcicd.evaluation.forecasts import quantile_reason, scale_reason
from mlcicd.evaluation.metrics import Family, Metric, base_name
from mlcicd.evaluation.problem import Problem, View


def lacking(view: View, metric: Metric) -> str:
    """What a model's answers lack for a metric, or empty."""
    name = base_name(metric)
    if metric.needs == "quantiles":
        return quantile_reason(view, name, metric.parameter if name != "quantile_crossing" else 0.0)
    if name == "pinball" and view.quantiles is not None:
        return quantile_reason(view, name, metric.level)
    if metric.needs == "labels":
        return view.labels_reason if view.labels is None or view.labels_reason else ""
    if view.scores is None or view.scores_reason:
        return view.scores_reason
    low, high = float(view.scores.min()), float(view.scores.max())
    if metric.probabilities and not (low >= 0 and high <= 1):
        return f"its scores are not probabilities: they reach from {low:.4g} to {high:.4g}"
    return ""


def undefined(problem: Problem, metric: Metric) -> str:
    """Why the holdout does not define a metric for any model, or empty."""
    name = base_name(metric)
    if name == "mase":
        return scale_reason(problem.scale)
    if problem.task == "binary":
        return _one_class(problem, name)
    if metric.family is not Family.RANKING:
        return ""
    return _absent(problem, name)


def _absent(problem: Problem, name: str) -> str:
    """The class or label whose area under the curve is not defined, as a reason."""
    if problem.task == "multiclass":
        seen = np.bincount(problem.y, minlength=len(problem.classes))
        absent = [c for c, rows in zip(problem.classes, seen, strict=False) if not rows]
        return f"the holdout has no row of the class {absent[0]!r}, and one-vs-rest needs all" if absent else ""
    true = problem.y.sum(axis=0)
    for label, rows in zip(problem.classes, true, strict=True):
        if not rows:
            return f"no row of the holdout has the label {label!r}, and the mean is over all labels"
        if rows == problem.n and name == "roc_auc":
            return f"every row of the holdout has the label {label!r}, and there is nothing to rank"
    return ""


def _one_class(problem: Problem, name: str) -> str:
    positives = int(problem.y.sum())
    ranked = name in ("roc_auc", "average_precision")
    if positives == 0 and (ranked or name in counts.NEEDS_POSITIVES):
        return f"the {problem.n} rows have a single class: none is positive ({problem.classes[1]!r})"
    if positives == problem.n and (name == "roc_auc" or name in counts.NEEDS_NEGATIVES):
        return f"the {problem.n} rows have a single class: none is negative ({problem.classes[0]!r})"
    return ""
