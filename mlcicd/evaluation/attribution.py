"""Which parts of the holdout the difference between candidate and champion comes from.

A metric that is a mean over rows differs by the mean of the rows' differences. Summed up within the parts of any
partition and divided by the weight of all rows, these are contributions that add up to the whole difference, exactly: a
small part that became much worse and a large one that became a little worse stand side by side on one scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcicd.evaluation.clusters import summed
from mlcicd.evaluation.estimators import Estimator
from mlcicd.evaluation.losses import centred, from_influence
from mlcicd.evaluation.metrics import Family, Metric, base_name, get_metric, is_metric
from mlcicd.evaluation.problem import Problem
from mlcicd.evaluation.slices import binned, codes_of
from mlcicd.evaluation.uncertainty import Interval, normal_quantile
from mlcicd.evaluation.usable import lacking

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

OTHERS = "(others)"
_FEWEST_ROWS = 30
# Numbers of more distinct values than this are cut into ranges.
_MOST_NUMBERS = 10
_DEFAULT = {
    "binary": ("log_loss", "accuracy"),
    "multiclass": ("log_loss", "accuracy"),
    "multilabel": ("hamming_loss",),
    "regression": ("mae",),
    "quantile": ("pinball", "mae"),
    "forecast": ("mae", "pinball"),
}
# Functions of means, which no sum over rows gives.
_NOT_A_SUM = ("r2", "rmse")


@dataclass(frozen=True)
class Part:
    """The rows of one value: how much of the whole difference they make up.

    Attributes:
        value: of the column, as text; `(others)` for values of few rows together.
        n, share: rows, and their share of the weight.
        contribution: in the metric's own unit and direction; those of all parts add up to the whole difference.
        interval: 95 %, of the contribution.
    """

    value: str
    n: int
    share: float
    contribution: float
    interval: Interval


@dataclass(frozen=True)
class Attribution:
    """The difference candidate - champion of one metric, by the values of one column, largest contribution first.

    Attributes:
        unevenness: how much more the parts' mean differences vary than equal ones would, as a standard normal quantile.
    """

    metric: str
    by: str
    difference: float
    parts: tuple[Part, ...]
    unevenness: float

    def uneven(self, looked_at: int = 1) -> bool:
        """Whether the parts differ by more than chance (5 %, Bonferroni over the columns that were looked at)."""
        return self.unevenness > normal_quantile(1 - 0.05 / max(looked_at, 1))


def attributed_metric(problem: Problem, gated: Iterable[str]) -> Metric | None:
    """The first gated metric that is a mean over rows and that both models have; else the task's usual loss.

    Returns:
        None for a ranking, without a champion, or where neither model's answers give one.
    """
    if problem.champion is None or problem.reason:
        return None
    for name in (*gated, *_DEFAULT.get(problem.task, ())):
        if not is_metric(name, problem.task):
            continue
        metric = get_metric(name, problem.task)
        summable = metric.family is Family.MEAN and base_name(metric) not in _NOT_A_SUM
        if not summable and base_name(metric) != "accuracy":
            continue
        if not any(lacking(view, metric) for view in (problem.candidate, problem.champion)):
            return metric
    return None


def row_differences(problem: Problem, metric: Metric) -> Floats:
    """(n,) differences candidate - champion whose (weighted) mean is the metric's difference."""
    assert problem.champion is not None
    views = (problem.candidate, problem.champion)
    if base_name(metric) == "accuracy":
        right = [np.asarray(view.labels) == problem.y for view in views]
        candidate, champion = (r.all(axis=1) if r.ndim == 2 else r for r in right)
        return np.asarray(candidate, dtype=np.float64) - np.asarray(champion, dtype=np.float64)
    estimator = Estimator(problem, 100, 0)
    difference: Floats = estimator.row_losses(metric, views[0]) - estimator.row_losses(metric, views[1])
    return difference


def attribute(
    problem: Problem, metric: Metric, differences: Floats, by: str, column: Any, most: int = 8
) -> Attribution:
    """Splits a difference among the values of a column.

    Args:
        differences: as of `row_differences`.
        column: (n,) text, categories, booleans or numbers, of which many distinct ones are cut at their quartiles.
        most: values that stand alone, those of the most rows; the others are put together.

    Raises:
        InputError: a column of another length.
    """
    n = problem.n
    names, codes = _few(*codes_of(by, _ranges(column), n), most)
    weight = np.ones(n) if problem.weight is None else problem.weight
    share = np.bincount(codes, weights=weight, minlength=len(names)) / weight.sum()
    rows = np.bincount(codes, minlength=len(names))
    sums = np.bincount(codes, weights=weight * differences, minlength=len(names)) / weight.sum()
    parts = [
        Part(
            name,
            int(rows[i]),
            float(share[i]),
            float(sums[i]),
            _interval(problem, np.where(codes == i, differences, 0.0), float(sums[i])),
        )
        for i, name in enumerate(names)
    ]
    whole = float(weight @ differences / weight.sum())
    ordered = sorted(parts, key=lambda part: -abs(part.contribution))
    return Attribution(metric.name, by, whole, tuple(ordered), _unevenness(differences, codes, rows, problem.weight))


def most_uneven(
    problem: Problem, metric: Metric, differences: Floats, columns: Mapping[str, Any]
) -> Attribution | None:
    """The one of many columns whose parts differ the most, if by more than chance; None with rows that hang together.

    Columns with a value a row (keys, texts) tell nothing, and are left out.
    """
    if problem.cluster is not None or problem.n < 2 * _FEWEST_ROWS:
        return None
    found = []
    for name, column in columns.items():
        one = attribute(problem, metric, differences, name, column)
        if len(one.parts) > 1 and sum(p.share for p in one.parts if p.value == OTHERS) < 0.5:
            found.append(one)
    best = max(found, key=lambda one: one.unevenness, default=None)
    return best if best is not None and best.uneven(len(columns)) else None


def _ranges(column: Any) -> Any:
    values = np.asarray(column)
    if values.dtype.kind not in "iuf" or np.unique(values).size <= _MOST_NUMBERS:
        return values
    return binned(values)


def _few(names: list[str], codes: Ints, most: int) -> tuple[list[str], Ints]:
    """The values of the most rows, and one for all others."""
    rows = np.bincount(codes, minlength=len(names))
    largest = np.argsort(-rows, kind="stable")[:most]
    kept = [int(i) for i in largest if rows[i] >= _FEWEST_ROWS]
    if len(kept) == len(names):
        return names, codes
    place = np.full(len(names), len(kept))
    place[kept] = np.arange(len(kept))
    return [*(names[i] for i in kept), OTHERS], place[codes]


def _interval(problem: Problem, contributions: Floats, value: float) -> Interval:
    influence = centred(contributions, problem.weight)
    units = problem.clusters if problem.cluster is not None else problem.n
    if units < 2:
        return -math.inf, math.inf
    gathered = summed(influence, problem.cluster, problem.clusters)
    return from_influence(value, gathered, -math.inf, math.inf).interval(0.95)


def _unevenness(differences: Floats, codes: Ints, rows: NDArray[np.int64], weight: Floats | None) -> float:
    """Cochran's Q of the parts' (weighted) means, by Wilson and Hilferty's transformation of chi squared to a normal
    quantile."""
    w = np.ones(differences.size) if weight is None else weight

    def total(values: Floats) -> Floats:
        found: Floats = np.bincount(codes, weights=values, minlength=rows.size).astype(np.float64)
        return found

    # Kish's effective rows: as many equal ones would tell a mean as well as these unequal ones do.
    worth = total(w) ** 2 / np.maximum(total(w * w), 1e-300)
    # A variance of a few rows would tell of unevenness by itself.
    told = (rows >= _FEWEST_ROWS) & (worth >= _FEWEST_ROWS)
    if told.sum() < 2:
        return -math.inf
    worth, heavy = worth[told], total(w)[told]
    means = total(w * differences) / total(w).clip(1e-300)
    # Of a ratio of sums, linearised: unequal weights are no repeated rows.
    variance = total((w * (differences - means[codes])) ** 2)[told] / heavy**2 * worth / (worth - 1)
    mean = means[told]
    if not (variance > 0).all():
        # Parts that no model moved have no spread of their own: that of all rows stands for it.
        all_rows = float(np.average((differences - np.average(differences, weights=w)) ** 2, weights=w))
        variance = np.maximum(variance, all_rows / worth)
    if not (variance > 0).all():
        return -math.inf
    centre = float((mean / variance).sum() / (1 / variance).sum())
    freedom = int(told.sum()) - 1
    q = float(((mean - centre) ** 2 / variance).sum())
    spread = 2 / (9 * freedom)
    return float(((q / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread))
