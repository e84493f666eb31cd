"""How far groups are apart: fairlearn's definitions, and the gap of any metric, with intervals that hold for the worst
of many pairs.

A gap is the largest of the differences between all pairs of groups, and the largest of many noisy differences is large
by chance. So its interval is not the bootstrap's, which inherits that bias:

*Upper end*: the largest upper end of the pairs, each at its own confidence. The gap is below a threshold if all pairs
are, which is an intersection-union test (Berger, Technometrics 24, 1982): no correction is needed.

*Lower end*: the largest lower end of the pairs, each at a confidence that Bonferroni's inequality raises by the number
of ordered pairs. The gap is above a threshold if one of the pairs is, and that pair was looked for.

Groups are different rows, so two groups' intervals combine as independent ones (Zou & Donner's MOVER; for two shares
with Wilson's intervals that is Newcombe's method 10, Statist. Med. 17, 1998). Ratios: the same by MOVER-R.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from mlcicd.evaluation.predictions import Predictions, Structure, prepare
from mlcicd.evaluation.proportions import effective_share, ratio_interval
from mlcicd.evaluation.slices import SliceResult, by_values, codes_of
from mlcicd.evaluation.uncertainty import Interval, Recovered, Uncertainty

# What each of fairlearn's metrics compares between groups.
_RATES = {
    "demographic_parity": ("selection rate",),
    "equalized_odds": ("true positive rate", "false positive rate"),
    "equal_opportunity": ("true positive rate",),
}
_MOST_GROUPS = 200


@dataclass(frozen=True)
class Group:
    """One group: its rows, and one value for each thing that is compared."""

    name: str
    n: int
    values: dict[str, Uncertainty]


@dataclass(frozen=True)
class Gap:
    """The distance of the groups that are farthest apart; `reason` says why there is none.

    Attributes:
        estimate, interval: of the largest difference, or of the smallest ratio.
        worst, best: the two groups, lower value first.
        what: what is compared between them.
        groups: the groups that were compared.
        left_out: groups with too few rows.
    """

    estimate: float = math.nan
    interval: Interval | None = None
    worst: str = ""
    best: str = ""
    what: str = ""
    groups: tuple[Group, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    reason: str = ""


def fairness_gap(
    metric: str,
    task: str,
    y: Any,
    predictions: Predictions,
    *,
    by: str,
    column: Any,
    named: Sequence[str] = (),
    min_rows: int = 100,
    confidence: float = 0.95,
    resamples: int = 2000,
    sample_weight: Any = None,
    structure: Structure | None = None,
) -> Gap:
    """The gap of a metric between the groups of a column.

    Args:
        metric: `demographic_parity_difference` and the others of fairlearn, for binary tasks; or a metric of the task.
        column: (n,) the groups.
        named: groups that must be there with `min_rows` rows.

    Raises:
        ConfigError: an unknown metric.
        InputError: a column of another length.
    """
    base, _, kind = metric.rpartition("_")
    rates = base in _RATES and kind in ("difference", "ratio")
    counted = _counts(by, column, np.shape(y)[0])
    for name in named:
        if counted.get(name, 0) < min_rows:
            rows = counted.get(name, 0)
            few = f"has {rows:,} rows, and {min_rows:,} are required" if rows else "is not in the holdout"
            return Gap(reason=f"the group {by}={name} {few}")
    large = [name for name, rows in counted.items() if rows >= min_rows]
    left_out = {name: rows for name, rows in counted.items() if rows < min_rows}
    if len(large) < 2:
        return Gap(
            left_out=left_out, reason=f"{len(large)} groups by {by} have {min_rows:,} rows: a gap is between two"
        )
    if len(large) > _MOST_GROUPS:
        return Gap(reason=f"{by} has {len(large):,} groups: it is no column of groups")
    if rates:
        grouping = structure.group if structure else None
        found = _rates(_RATES[base], task, y, predictions, by, column, large, sample_weight, grouping)
    else:
        slices = by_values(
            task,
            [metric],
            y,
            predictions,
            by=by,
            column=column,
            sample_weight=sample_weight,
            min_rows=min_rows,
            confidence=confidence,
            resamples=resamples,
            structure=structure,
        )
        found = _metrics(metric, [s for s in slices if s.n >= min_rows])
    if isinstance(found, str):
        return Gap(left_out=left_out, reason=found)
    measure = _narrowest if rates and kind == "ratio" else _widest
    return measure(found, left_out, confidence)


def _counts(by: str, column: Any, n: int) -> dict[str, int]:
    names, codes = codes_of(by, column, n)
    return dict(zip(names, np.bincount(codes, minlength=len(names)).tolist(), strict=True))


def _rates(
    what: Sequence[str],
    task: str,
    y: Any,
    predictions: Predictions,
    by: str,
    column: Any,
    large: list[str],
    weight: Any,
    grouping: Any,
) -> list[Group] | str:
    problem = prepare(task, y, predictions)
    if task != "binary":
        return f"rates of positive answers belong to binary tasks, and this one is {task}"
    labels = problem.candidate.labels
    if problem.reason or problem.candidate.labels_reason or labels is None:
        return problem.reason or problem.candidate.labels_reason or "the model gave no labels"
    names, codes = codes_of(by, column, problem.n)
    w = np.ones(problem.n) if weight is None else np.asarray(weight, dtype=np.float64)
    if not np.isfinite(w).all() or (w < 0).any():
        return "the sample weights are not all finite and >= 0"
    groups = []
    for name in large:
        inside = (codes == names.index(name)) & (w > 0)
        values: dict[str, Uncertainty] = {}
        for rate in what:
            among = inside & {"selection rate": True, "true positive rate": problem.y}.get(rate, ~problem.y)
            if not among.any():
                kind = {"selection rate": "", "true positive rate": "positive "}.get(rate, "negative ")
                return f"the group {by}={name} has no {kind}row, so its {rate} is not defined"
            together = None if grouping is None else np.asarray(grouping)[among]
            values[rate] = effective_share(labels[among], w[among], together)
        groups.append(Group(name, int(inside.sum()), values))
    return groups


def _metrics(metric: str, slices: Sequence[SliceResult]) -> list[Group] | str:
    groups = []
    for slice_ in slices:
        (result,) = slice_.results
        if result.reason or result.uncertainty is None or not math.isfinite(result.candidate):
            return f"{metric} of the group {slice_.by}={slice_.value} can not be computed: " + (
                result.reason or f"it is {result.candidate}"
            )
        groups.append(Group(slice_.value, slice_.n, {metric: result.uncertainty}))
    return groups


def _pairs(groups: list[Group]) -> list[tuple[Group, Group, str]]:
    """All pairs of groups, lower value first, and what is compared."""
    return [
        (a, b, what) if a.values[what].estimate <= b.values[what].estimate else (b, a, what)
        for what in groups[0].values
        for a, b in combinations(groups, 2)
    ]


def _widest(groups: list[Group], left_out: dict[str, int], confidence: float) -> Gap:
    pairs = _pairs(groups)
    # Each pair is looked at both ways round.
    strict = 1 - (1 - confidence) / (2 * len(pairs))
    gap, low, high = -math.inf, 0.0, 0.0
    chosen = pairs[0]
    for a, b, what in pairs:
        distance = Recovered(b.values[what], a.values[what])
        if distance.estimate > gap:
            gap, chosen = distance.estimate, (a, b, what)
        plain = distance.interval(confidence)
        high = max(high, plain[1], -plain[0])
        low = max(low, distance.interval(strict)[0])
    worst, best, what = chosen
    return Gap(gap, (min(low, gap), max(high, gap)), worst.name, best.name, what, tuple(groups), left_out)


def _narrowest(groups: list[Group], left_out: dict[str, int], confidence: float) -> Gap:
    """The smallest ratio of two groups' rates, with the interval turned round: its lower end needs no correction."""
    # Two groups of which nobody is chosen have no ratio, and beside a third one they need none.
    pairs = [(a, b, what) for a, b, what in _pairs(groups) if b.values[what].estimate > 0]
    if not pairs:
        return Gap(left_out=left_out, reason=f"the {' and '.join(groups[0].values)} of all groups are 0: no ratio")
    strict = 1 - (1 - confidence) / (2 * len(pairs))
    smallest, low, high = math.inf, 1.0, 1.0
    chosen = pairs[0]
    for a, b, what in pairs:
        small, large = a.values[what], b.values[what]
        if small.estimate / large.estimate < smallest:
            smallest, chosen = small.estimate / large.estimate, (a, b, what)
        low = min(low, ratio_interval(small, large, confidence)[0], ratio_interval(large, small, confidence)[0])
        high = min(high, ratio_interval(small, large, strict)[1])
    worst, best, what = chosen
    interval = (min(low, smallest), max(high, smallest))
    return Gap(smallest, interval, worst.name, best.name, what, tuple(groups), left_out)
