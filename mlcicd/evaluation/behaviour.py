"""What a model does when its input changes: how many rows change their answer, and how much a metric loses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlcicd.core.verdict import CheckStatus
from mlcicd.evaluation.intervals import MetricResult, estimate
from mlcicd.evaluation.predictions import Predictions, Structure, prepare
from mlcicd.evaluation.proportions import Share
from mlcicd.evaluation.uncertainty import Interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Violations:
    """Rows that did what they must not.

    Attributes:
        row: the worst one's number among the rows that were tried.
        size: how far its answer went.
    """

    k: int
    n: int
    row: int
    size: float

    @property
    def share(self) -> Share:
        return Share(self.k, self.n)


def answers(task: str, y: Any, predictions: Predictions, structure: Structure | None = None) -> tuple[Floats, bool]:
    """((n,) or (n, k) finite answers that can be compared, whether they are labels).

    Scores where the model gives them, else labels: 0 and 1, class numbers, or values.

    Raises:
        ValueError: there are none, or some are not finite; the message says so.
    """
    problem = prepare(task, y, predictions, structure=structure)
    view = problem.candidate
    if problem.reason:
        raise ValueError(problem.reason)
    if view.scores is not None and not view.scores_reason:
        return view.scores, False
    if view.scores is not None:
        raise ValueError(view.scores_reason)
    if view.labels is None or view.labels_reason:
        raise ValueError(view.labels_reason or "the model gave no answers")
    return view.labels.astype(np.float64), True


def changed(before: Floats, after: Floats, tolerance: float) -> Violations:
    """Rows whose answer moved by more than the tolerance (any class's score)."""
    size = np.abs(after - before)
    return _violations(size if size.ndim == 1 else size.max(axis=1), tolerance)


def moved(before: Floats, after: Floats, direction: Literal["not_lower", "not_higher"], tolerance: float) -> Violations:
    """Rows whose answer went the wrong way by more than the tolerance."""
    return _violations(before - after if direction == "not_lower" else after - before, tolerance)


def _violations(size: Floats, tolerance: float) -> Violations:
    # Not `size > tolerance`: what is not a number has not obeyed.
    bad = ~(size <= tolerance)
    worst = int(np.argmax(np.where(np.isnan(size), np.inf, size)))
    return Violations(int(bad.sum()), size.size, worst, float(size[worst]))


def judge_share(found: Violations, allowed: float, confidence: float) -> tuple[CheckStatus, Interval]:
    """Whether few enough rows violate, by Wilson's interval.

    Where none may, the rows that were tried decide by themselves: no number of good rows proves that there is no bad
    one, and the interval says how many there may be.
    """
    interval = found.share.interval(confidence)
    if found.k > allowed * found.n:
        return CheckStatus.FAILED, interval
    if allowed == 0 or interval[1] <= allowed:
        return CheckStatus.PASSED, interval
    return CheckStatus.INCONCLUSIVE, interval


@dataclass(frozen=True)
class Drop:
    """What a metric loses; `reason` says why it can not be told."""

    value: float
    interval: Interval | None
    before: float
    after: float
    direction: str
    reason: str = ""


def metric_drop(
    task: str,
    metric: str,
    y: Any,
    before: Predictions,
    after: Predictions,
    *,
    confidence: float,
    resamples: int = 2000,
    sample_weight: Any = None,
    structure: Structure | None = None,
) -> Drop:
    """Loss of a metric between the plain rows and the changed ones, with its paired interval; positive is worse.

    Raises:
        ConfigError: an unknown metric.
    """
    (found,) = estimate(
        task,
        [metric],
        y,
        after,
        before,
        sample_weight=sample_weight,
        confidence=confidence,
        resamples=resamples,
        structure=structure,
    )
    reason = _unmeasured(found)
    if reason or found.difference is None or found.champion is None:
        return Drop(math.nan, None, math.nan, found.candidate, found.direction, reason or "it has no value")
    low, high = found.difference_interval or (found.difference, found.difference)
    sign = -1.0 if found.direction == "higher" else 1.0
    ends = sorted((sign * low, sign * high))
    return Drop(sign * found.difference, (ends[0], ends[1]), found.champion, found.candidate, found.direction)


def _unmeasured(found: MetricResult) -> str:
    if found.reason or not math.isfinite(found.candidate):
        return found.reason or f"it is {found.candidate} on the changed rows"
    if found.champion_reason or found.champion is None or not math.isfinite(found.champion):
        return f"on the plain rows: {found.champion_reason or 'it has no value'}"
    if found.difference is None or not math.isfinite(found.difference):
        return "its difference has no value"
    return ""


def judge_drop(drop: Drop, allowed: float) -> CheckStatus:
    """Non-inferiority of the changed rows with a margin, as a gate against the champion."""
    if drop.interval is None or not math.isfinite(drop.value):
        return CheckStatus.FAILED
    low, high = drop.interval
    if low == high == drop.value == 0 or high < allowed:
        return CheckStatus.PASSED
    return CheckStatus.FAILED if low > allowed else CheckStatus.INCONCLUSIVE
