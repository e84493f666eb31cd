"""The metrics a gate can name: what each needs, which direction is better, and how its interval is found."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from mlcicd.core.errors import ConfigError

Direction = Literal["higher", "lower"]
BINARY, MULTICLASS, MULTILABEL = "binary", "multiclass", "multilabel"
REGRESSION, QUANTILE, FORECAST, RANKING = "regression", "quantile", "forecast", "ranking"


class Family(StrEnum):
    """How a metric's sampling distribution is found."""

    COUNTS = "counts"  # a function of the joint contingency table
    MACRO = "macro"  # a function of per-class sums
    MEAN = "mean"  # a mean of per-row losses, or a smooth function of means
    RANKING = "ranking"  # a function of the order of the scores
    CALIBRATION = "calibration"  # a function of per-bin sums
    QUANTILE = "quantile"  # a quantile of per-row errors
    QUERY = "query"  # a mean of what each query's order is worth


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: scikit-learn's short name where it has one.
        direction: which way is better.
        needs: `labels`, `scores` or `quantiles`: what must be there and finite.
        tasks: the tasks it is defined for.
        family: how its interval is found.
        low, high: its range; an interval is cut to it.
        probabilities: its scores must be probabilities, within [0, 1].
        parameter: the level of `pinball@0.9` or `absolute_error@0.95`, the cut-off of `ndcg@10`.
        pairwise: it is about both models at once, and has no value without a champion.
    """

    name: str
    direction: Direction
    needs: Literal["labels", "scores", "quantiles"]
    tasks: frozenset[str]
    family: Family
    low: float = 0.0
    high: float = 1.0
    probabilities: bool = False
    parameter: float = 0.5
    pairwise: bool = False

    @property
    def base(self) -> str:
        """The name without its parameter."""
        return self.name.partition("@")[0]

    @property
    def level(self) -> float:
        """The level that was asked for, 0 when none was."""
        return self.parameter if "@" in self.name else 0.0

    def oriented(self, difference: float) -> float:
        """A difference candidate - champion, so that more is better."""
        return difference if self.direction == "higher" else -difference


def _tasks(*tasks: str) -> frozenset[str]:
    return frozenset(tasks)


_BOTH = _tasks(BINARY, MULTICLASS)
_BIN = _tasks(BINARY)
_MULTI = _tasks(MULTICLASS)
_LABELS = _tasks(MULTILABEL)
_EVERY = _tasks(BINARY, MULTICLASS, MULTILABEL)
_REG = _tasks(REGRESSION, QUANTILE, FORECAST)
_QUANT = _tasks(QUANTILE, FORECAST)
_FORE = _tasks(FORECAST)
_RANK = _tasks(RANKING)
_INF = math.inf

_METRICS = (
    Metric("accuracy", "higher", "labels", _EVERY, Family.COUNTS),
    Metric("balanced_accuracy", "higher", "labels", _BOTH, Family.COUNTS),
    Metric("precision", "higher", "labels", _BIN, Family.COUNTS),
    Metric("recall", "higher", "labels", _BIN, Family.COUNTS),
    Metric("specificity", "higher", "labels", _BIN, Family.COUNTS),
    Metric("f1", "higher", "labels", _BIN, Family.COUNTS),
    Metric("matthews_corrcoef", "higher", "labels", _BOTH, Family.COUNTS, low=-1.0),
    Metric("negative_flip_rate", "lower", "labels", _EVERY, Family.COUNTS, pairwise=True),
    Metric("f1_macro", "higher", "labels", _MULTI | _LABELS, Family.MACRO),
    Metric("f1_weighted", "higher", "labels", _MULTI | _LABELS, Family.MACRO),
    Metric("precision_macro", "higher", "labels", _MULTI | _LABELS, Family.MACRO),
    Metric("recall_macro", "higher", "labels", _MULTI | _LABELS, Family.MACRO),
    Metric("f1_micro", "higher", "labels", _LABELS, Family.MACRO),
    Metric("precision_micro", "higher", "labels", _LABELS, Family.MACRO),
    Metric("recall_micro", "higher", "labels", _LABELS, Family.MACRO),
    Metric("precision_weighted", "higher", "labels", _LABELS, Family.MACRO),
    Metric("recall_weighted", "higher", "labels", _LABELS, Family.MACRO),
    Metric("hamming_loss", "lower", "labels", _LABELS, Family.MEAN),
    Metric("f1_samples", "higher", "labels", _LABELS, Family.MEAN),
    Metric("precision_samples", "higher", "labels", _LABELS, Family.MEAN),
    Metric("recall_samples", "higher", "labels", _LABELS, Family.MEAN),
    Metric("jaccard_samples", "higher", "labels", _LABELS, Family.MEAN),
    Metric("roc_auc", "higher", "scores", _EVERY, Family.RANKING),
    Metric("average_precision", "higher", "scores", _BIN | _LABELS, Family.RANKING),
    Metric("log_loss", "lower", "scores", _BOTH, Family.MEAN, high=_INF, probabilities=True),
    Metric("brier", "lower", "scores", _BOTH, Family.MEAN, high=2.0, probabilities=True),
    Metric("ece", "lower", "scores", _BOTH, Family.CALIBRATION, probabilities=True),
    Metric("mae", "lower", "scores", _REG, Family.MEAN, high=_INF),
    Metric("mse", "lower", "scores", _REG, Family.MEAN, high=_INF),
    Metric("rmse", "lower", "scores", _REG, Family.MEAN, high=_INF),
    Metric("r2", "higher", "scores", _REG, Family.MEAN, low=-_INF),
    Metric("mape", "lower", "scores", _REG, Family.MEAN, high=_INF),
    Metric("pinball", "lower", "scores", _REG, Family.MEAN, high=_INF),
    Metric("median_absolute_error", "lower", "scores", _REG, Family.QUANTILE, high=_INF),
    Metric("absolute_error", "lower", "scores", _REG, Family.QUANTILE, high=_INF),
    Metric("mase", "lower", "scores", _FORE, Family.MEAN, high=_INF),
    Metric("smape", "lower", "scores", _FORE, Family.MEAN, high=2.0),
    Metric("interval_coverage", "higher", "quantiles", _QUANT, Family.COUNTS, parameter=0.8),
    Metric("interval_score", "lower", "quantiles", _QUANT, Family.MEAN, high=_INF, parameter=0.8),
    Metric("interval_width", "lower", "quantiles", _QUANT, Family.MEAN, low=-_INF, high=_INF, parameter=0.8),
    Metric("quantile_crossing", "lower", "quantiles", _QUANT, Family.MEAN),
    Metric("ndcg", "higher", "scores", _RANK, Family.QUERY, parameter=_INF),
    Metric("map", "higher", "scores", _RANK, Family.QUERY, parameter=_INF),
    Metric("mrr", "higher", "scores", _RANK, Family.QUERY, parameter=_INF),
)
_REGISTRY = {m.name: m for m in _METRICS}
_ALIASES = {
    "brier_score_loss": "brier",
    "expected_calibration_error": "ece",
    "mcc": "matthews_corrcoef",
    "auc": "roc_auc",
    "roc_auc_ovr": "roc_auc",
    "pr_auc": "average_precision",
    "mean_absolute_error": "mae",
    "mean_squared_error": "mse",
    "root_mean_squared_error": "rmse",
    "r2_score": "r2",
    "mean_absolute_percentage_error": "mape",
    "mean_pinball_loss": "pinball",
    "accuracy_score": "accuracy",
    "f1_score": "f1",
    "precision_score": "precision",
    "recall_score": "recall",
    "balanced_accuracy_score": "balanced_accuracy",
    "ndcg_score": "ndcg",
    "mean_average_precision": "map",
    "mean_reciprocal_rank": "mrr",
    "mean_absolute_scaled_error": "mase",
}
_WITH_LEVEL = ("pinball", "absolute_error", "interval_coverage", "interval_score", "interval_width")
_WITH_CUTOFF = ("ndcg", "map", "mrr")


def names(task: str | None = None) -> list[str]:
    """The names of all metrics (of a task), without aliases."""
    return [m.name for m in _METRICS if task is None or task in m.tasks]


def get_metric(name: str, task: str | None = None) -> Metric:
    """The metric of a name, an alias, or a name with a level (`pinball@0.9`, `absolute_error@0.95`).

    The result keeps the asked name, so that a gate finds its own metric again.

    Raises:
        ConfigError: no such metric, not for this task, or a level outside (0, 1).
    """
    base, at, level = name.partition("@")
    if name == "f1_micro" and task == MULTICLASS:
        # Of single labels every wrong answer is one false positive and one false negative.
        return replace(_REGISTRY["accuracy"], name=name)
    metric = _REGISTRY.get(_ALIASES.get(base, base))
    if metric is None:
        known = [*names(task), *_ALIASES]
        near = difflib.get_close_matches(base, known, n=1, cutoff=0.4)
        raise ConfigError(
            f"unknown metric {name!r}" + (f": did you mean {near[0]!r}?" if near else ""),
            remedy=f"use one of {', '.join(names(task))}",
        )
    if task is not None and task not in metric.tasks:
        raise ConfigError(
            f"the metric {name!r} is not defined for a {task} task",
            remedy=f"use one of {', '.join(names(task))}",
        )
    return (
        replace(metric, name=name, parameter=_level(metric, name, at, level)) if at or name != metric.name else metric
    )


def is_metric(name: str, task: str) -> bool:
    """Whether a name (an alias, a name with a level) is a metric of a task."""
    try:
        get_metric(name, task)
    except ConfigError:
        return False
    return True


def base_name(metric: Metric) -> str:
    """The registry's name of a metric asked for by an alias."""
    if metric.base == "f1_micro" and metric.family is Family.COUNTS:
        return "accuracy"
    return _ALIASES.get(metric.base, metric.base)


def _level(metric: Metric, name: str, at: str, text: str) -> float:
    if not at:
        return metric.parameter
    if metric.name in _WITH_CUTOFF:
        return _cutoff(metric, name, text)
    if metric.name not in _WITH_LEVEL:
        raise ConfigError(f"the metric {metric.name!r} has no level, and {name!r} gives one", remedy=metric.name)
    try:
        level = float(text)
    except ValueError:
        level = math.nan
    if not 0 < level < 1:
        raise ConfigError(f"the level of {name!r} is not between 0 and 1", remedy=f"e.g. {metric.name}@0.9")
    return level


def _cutoff(metric: Metric, name: str, text: str) -> float:
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(
            f"the cut-off of {name!r} is not a whole number of at least 1", remedy=f"e.g. {metric.name}@10"
        )
    return float(text)
