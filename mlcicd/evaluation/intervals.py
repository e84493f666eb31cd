"""Metrics of a candidate and a champion on the same rows, each with its interval, and the paired interval
of their difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlcicd.core.errors import ConfigError
from mlcicd.evaluation.estimators import NO_CHAMPION, Estimator, Found
from mlcicd.evaluation.metrics import Direction, Metric, get_metric
from mlcicd.evaluation.predictions import Predictions, Problem, Structure, prepare
from mlcicd.evaluation.uncertainty import Interval, Uncertainty


@dataclass(frozen=True)
class MetricResult:
    """One metric of one or two models.

    Attributes:
        name: as it was asked for.
        direction: `higher` or `lower` is better.
        n: rows that counted.
        candidate, champion: point estimates; NaN where the metric can not be computed (and `reason` or
            `champion_reason` says why), None where there is no champion.
        candidate_interval, champion_interval: central intervals; None without an estimate.
        difference: candidate - champion, in the metric's own direction (not turned so that more is better).
        difference_interval: its paired interval.
        method: how the intervals were found, in words.
        identical: both models answered every row alike.
        confidence: of the intervals.
        pairwise: the metric compares both models, and `candidate` is the outcome (negative flips).
        units: the independent units that intervals are found over, in words; empty where they are the rows.
        caution, difference_caution: why the candidate's interval, or that of the difference, is not to be trusted, so
            that no gate is decided by it; empty where it is.
        uncertainty, difference_uncertainty: what the intervals were read from; gives them at other
            confidences.
    """

    name: str
    direction: Direction
    n: int
    candidate: float
    candidate_interval: Interval | None = None
    champion: float | None = None
    champion_interval: Interval | None = None
    difference: float | None = None
    difference_interval: Interval | None = None
    method: str = ""
    reason: str = ""
    champion_reason: str = ""
    identical: bool = False
    confidence: float = 0.95
    pairwise: bool = False
    units: str = ""
    caution: str = ""
    difference_caution: str = ""
    uncertainty: Uncertainty | None = field(default=None, repr=False, compare=False)
    difference_uncertainty: Uncertainty | None = field(default=None, repr=False, compare=False)

    @property
    def champion_absent(self) -> bool:
        """There was no champion at all (as opposed to one that can not be measured)."""
        if self.pairwise:
            return self.reason == NO_CHAMPION
        return self.champion is None and not self.champion_reason

    def to_dict(self) -> dict[str, Any]:
        """Everything but the distributions, as JSON-able values (NaN stays a float)."""
        return {
            "name": self.name,
            "direction": self.direction,
            "n": self.n,
            "candidate": self.candidate,
            "candidate_interval": self.candidate_interval,
            "champion": self.champion,
            "champion_interval": self.champion_interval,
            "difference": self.difference,
            "difference_interval": self.difference_interval,
            "method": self.method,
            "reason": self.reason,
            "champion_reason": self.champion_reason,
            "identical": self.identical,
            "confidence": self.confidence,
            "units": self.units,
            "caution": self.caution,
            "difference_caution": self.difference_caution,
        }


def estimate(
    task: str,
    metrics: Sequence[str],
    y: Any,
    candidate: Predictions,
    champion: Predictions | None = None,
    *,
    sample_weight: Any = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    structure: Structure | None = None,
) -> list[MetricResult]:
    """Computes metrics with (paired) confidence intervals.

    Args:
        task: one of `problem.TASKS`.
        metrics: names of `mlcicd.evaluation.metrics`.
        y: (n,) labels or values of the holdout.
        candidate, champion: predictions for the same rows in the same order.
        sample_weight: (n,) weights, finite and not negative.
        confidence: of every interval, in (0, 1).
        resamples: bootstrap draws, where a metric's interval is drawn.
        seed: of the draws: the same input gives the same intervals, whatever other metrics are asked for.
        structure: what rows belong to (a patient, a query, a series) and when they are; intervals are found over that.

    Returns:
        one result a metric, in the order asked for. A metric that can not be computed has a NaN and a reason.

    Raises:
        ConfigError: an unknown task, metric or confidence.
        InputError: arrays that do not fit together.
    """
    problem = prepare(task, y, candidate, champion, sample_weight, structure)
    return estimate_problem(problem, metrics, confidence, resamples, seed)


def estimate_problem(
    problem: Problem, metrics: Sequence[str], confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> list[MetricResult]:
    """As :func:`estimate`, of a holdout that is prepared already."""
    if not 0 < confidence < 1:
        raise ConfigError(f"the confidence {confidence} is not between 0 and 1", remedy="0.95 is usual")
    if resamples < 100:
        raise ConfigError(f"{resamples} resamples are too few for an interval", remedy="take 2000")
    asked = [get_metric(name, problem.task) for name in metrics]
    estimator = Estimator(problem, resamples, seed)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return [_result(m, problem, estimator.find(m), confidence) for m in asked]


def _result(metric: Metric, problem: Problem, found: Found, confidence: float) -> MetricResult:
    candidate, champion, difference = found.candidate, found.champion, found.difference
    has_champion = champion is not None or bool(found.champion_reason)
    return MetricResult(
        name=metric.name,
        direction=metric.direction,
        n=problem.n,
        candidate=math.nan if candidate is None else candidate.estimate,
        candidate_interval=None if candidate is None else candidate.interval(confidence),
        champion=(math.nan if has_champion else None) if champion is None else champion.estimate,
        champion_interval=None if champion is None else champion.interval(confidence),
        difference=(math.nan if has_champion else None) if difference is None else difference.estimate,
        difference_interval=None if difference is None else difference.interval(confidence),
        method=found.method,
        reason=found.reason,
        champion_reason=found.champion_reason,
        identical=found.identical,
        confidence=confidence,
        pairwise=metric.pairwise,
        units=problem.cluster_words,
        caution=found.caution,
        difference_caution=found.difference_caution,
        uncertainty=candidate,
        difference_uncertainty=difference,
    )
