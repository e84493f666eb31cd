"""How much of a difference each of two factors makes, when the models of all four combinations are known.

With m(c, d) the metric of the model that code c made from data d, 0 the champion's and 1 the candidate's, the
difference m(1, 1) - m(0, 0) is reached in two orders: code first, by m(1, 0), or data first, by m(0, 1). A factor's
share is the mean of its steps in both orders, its Shapley value (Shapley, Contributions to the Theory of Games II,
1953); the two shares add up to the difference, exactly. Where only one order is known, its steps are the shares, and
add up as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlcicd.evaluation.intervals import MetricResult
from mlcicd.evaluation.uncertainty import Interval


@dataclass(frozen=True)
class Order:
    """The two steps of one order, each as an estimate of a model (`candidate`) beside the one before (`champion`)."""

    code: MetricResult
    data: MetricResult


@dataclass(frozen=True)
class Share:
    """What one factor changed, in the metric's own unit and direction; `interval` None where no step has one."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Split:
    """A difference by code and data, and how many orders (1 or 2) it is the mean of."""

    metric: str
    difference: float
    code: Share
    data: Share
    orders: int


def split(whole: MetricResult, orders: Sequence[Order]) -> Split | None:
    """Splits the difference between candidate and champion.

    A share's interval is from the mean of its steps' lower ends to that of their upper ends. Steps of both orders come
    from the same rows with a correlation that is not looked at: half the sum of two half-widths is the largest
    half-width that their mean can have (the standard deviation of a mean is at most the mean of the standard
    deviations), so the interval covers at least as often as theirs do.

    Args:
        orders: one or two.

    Returns:
        None where a model of a step has no finite value.
    """
    steps = ([order.code for order in orders], [order.data for order in orders])
    values = [step.difference for both in steps for step in both]
    if not orders or whole.difference is None or not all(v is not None and math.isfinite(v) for v in values):
        return None
    code, data = map(_share, steps)
    return Split(whole.name, whole.difference, code, data, len(orders))


def _share(steps: Sequence[MetricResult]) -> Share:
    value = sum(step.difference or 0.0 for step in steps) / len(steps)
    intervals = [(0.0, 0.0) if step.identical else _trusted(step) for step in steps]
    ends = [pair for pair in intervals if pair is not None]
    if len(ends) < len(steps):
        return Share(value, None)
    return Share(value, (sum(low for low, _ in ends) / len(ends), sum(high for _, high in ends) / len(ends)))


def _trusted(step: MetricResult) -> Interval | None:
    return None if step.difference_caution else step.difference_interval
