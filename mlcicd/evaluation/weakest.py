"""The weakest slices of a holdout, found by a shallow tree on the candidate's loss, and checked on other
rows.

A tree that looks for the worst corner of the data always finds one, by chance if not by fact. So the rows
are split in two: one half grows the tree (Athey & Imbens' honest trees, PNAS 113, 2016), and the other
half, which it has not seen, says how bad each leaf is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcicd.core.errors import InputError
from mlcicd.evaluation.losses import centred, from_influence, mean, row_loss
from mlcicd.evaluation.multilabel import row_score
from mlcicd.evaluation.predictions import Predictions, Problem, Structure, prepare
from mlcicd.evaluation.problem import CLASSES
from mlcicd.evaluation.slices import MISSING, codes_of
from mlcicd.evaluation.uncertainty import Interval, p_value

Floats = NDArray[np.float64]

# Trees need no more rows than this to find coarse slices.
_ENOUGH = 200_000
_SHOWN_VALUES = 4


@dataclass(frozen=True)
class WeakSlice:
    """A part of the holdout where the candidate does worse than on the rest.

    Attributes:
        conditions: in words, to be read as joined by `and`.
        n, share: rows of the slice in the checking half, and their share of it.
        loss, rest: mean loss in the slice, and outside of it.
        gap_interval: of loss - rest, 95 %.
        p: one-sided, that the slice is not worse than the rest, Holm-corrected over the tree's leaves.
    """

    conditions: tuple[str, ...]
    n: int
    share: float
    loss: float
    rest: float
    gap_interval: Interval
    p: float

    @property
    def name(self) -> str:
        return " and ".join(self.conditions)


@dataclass(frozen=True)
class _Feature:
    """A column as the tree sees it: a number, or a category's rank by its mean loss in the growing half."""

    name: str
    values: Floats
    ordered: tuple[str, ...] | None  # categories by rank

    def say(self, low: float, high: float) -> str:
        if self.ordered is None:
            above = f"{self.name} > {low:.4g}" if math.isfinite(low) else ""
            below = f"{self.name} <= {high:.4g}" if math.isfinite(high) else ""
            return f"{low:.4g} < {below}" if above and below else above or below
        inside = [c for rank, c in enumerate(self.ordered) if low < rank <= high]
        if len(inside) == 1:
            return f"{self.name} = {inside[0]}"
        shown = ", ".join(inside[:_SHOWN_VALUES])
        more = len(inside) - _SHOWN_VALUES
        return f"{self.name} in {{{shown}{f' and {more} more' if more > 0 else ''}}}"


def losses_of(problem: Problem) -> tuple[Floats | None, str]:
    """((n,) losses of the candidate, which loss it is): log loss, else wrong answers; absolute errors."""
    view = problem.candidate
    if problem.reason:
        return None, problem.reason
    if problem.task not in CLASSES:
        return _absolute_errors(problem)
    if problem.task == "multilabel":
        return _wrong_labels(problem)
    usable = view.scores is not None and not view.scores_reason
    if usable and view.scores is not None and view.scores.min() >= 0 and view.scores.max() <= 1:
        return row_loss("log_loss", problem.y, view.scores), "log loss"
    if view.labels is None or view.labels_reason:
        return None, view.labels_reason
    return (view.labels != problem.y).astype(np.float64), "share of wrong answers"


def _absolute_errors(problem: Problem) -> tuple[Floats | None, str]:
    view = problem.candidate
    if view.scores_reason or view.scores is None:
        return None, view.scores_reason
    return row_loss("mae", problem.y, view.scores), "absolute error"


def _wrong_labels(problem: Problem) -> tuple[Floats | None, str]:
    view = problem.candidate
    if view.labels_reason or view.labels is None:
        return None, view.labels_reason
    return row_score("hamming_loss", problem.y, view.labels), "share of wrong labels"


def weakest_slices(
    task: str,
    y: Any,
    candidate: Predictions,
    features: Mapping[str, Any],
    *,
    min_rows: int = 100,
    depth: int = 2,
    most: int = 5,
    seed: int = 0,
    structure: Structure | None = None,
) -> list[WeakSlice]:
    """The parts of the holdout where the candidate's loss is higher than elsewhere, worst first.

    Args:
        features: (n,) columns by name: numbers, text, booleans; missing values are allowed.
        min_rows: the smallest slice, in rows of the whole holdout.
        depth: conditions a slice may have.
        most: slices returned; only those worse than the rest on rows that the search has not seen.

    Returns:
        none if there are no features, no losses, or fewer than four times `min_rows` rows.

    Raises:
        InputError: a feature of another length; arrays that do not fit together.
    """
    if task == "ranking":
        return []
    loss, _ = losses_of(prepare(task, y, candidate, structure=structure))
    n = np.shape(y)[0]
    if loss is None or not features or n < 4 * min_rows:
        return []
    rng = np.random.default_rng([seed, 7])
    order = rng.permutation(n)
    grow, check = order[: min(n // 2, _ENOUGH)], order[n // 2 :]
    table = [_feature(name, column, loss, grow, n) for name, column in features.items()]
    leaves = _leaves(table, loss, grow, depth=depth, smallest=max(2, min_rows * grow.size // n), seed=seed)
    found = [_judge(table, leaf, loss, check) for leaf in leaves]
    worse = [s for s in found if s is not None and s.loss > s.rest]
    worse.sort(key=lambda s: s.p)
    corrected, running = [], 0.0
    for step, slice_ in enumerate(worse):
        running = max(running, min(1.0, slice_.p * (len(leaves) - step)))
        corrected.append((running, slice_))
    kept = [_with_p(s, p) for p, s in corrected if p <= 0.05]
    return sorted(kept, key=lambda s: -(s.loss - s.rest))[:most]


def _with_p(slice_: WeakSlice, p: float) -> WeakSlice:
    return WeakSlice(slice_.conditions, slice_.n, slice_.share, slice_.loss, slice_.rest, slice_.gap_interval, p)


def _feature(name: str, column: Any, loss: Floats, grow: NDArray[np.intp], n: int) -> _Feature:
    values = np.asarray(column)
    if values.shape != (n,):
        raise InputError(f"the feature {name!r} has shape {values.shape}, and the holdout has {n} rows")
    if values.dtype.kind in "iuf":
        return _Feature(name, values.astype(np.float64), None)
    names, codes = codes_of(name, values, n)
    counted = np.bincount(codes[grow], minlength=len(names))
    total = np.bincount(codes[grow], weights=loss[grow], minlength=len(names))
    overall = float(loss[grow].mean())
    # Shrunk, so that a category of three rows is not the worst by chance.
    expected = (total + 20 * overall) / (counted + 20)
    ranked = np.argsort(expected, kind="stable")
    rank = np.empty(len(names))
    rank[ranked] = np.arange(len(names))
    return _Feature(name, rank[codes], tuple(names[i] for i in ranked))


_Leaf = dict[int, tuple[float, float, bool]]  # feature -> (above, up to, whether missing values are in it)


def _leaves(
    table: list[_Feature], loss: Floats, grow: NDArray[np.intp], *, depth: int, smallest: int, seed: int
) -> list[_Leaf]:
    from sklearn.tree import DecisionTreeRegressor

    x = np.column_stack([f.values[grow] for f in table])
    x[np.isinf(x)] = np.nan
    model = DecisionTreeRegressor(max_depth=depth, min_samples_leaf=smallest, random_state=seed)
    tree = model.fit(x, loss[grow]).tree_
    leaves: list[_Leaf] = []

    def walk(node: int, bounds: _Leaf) -> None:
        if tree.children_left[node] < 0:
            if bounds:
                leaves.append(bounds)
            return
        feature, threshold = int(tree.feature[node]), float(tree.threshold[node])
        low, high, missing = bounds.get(feature, (-math.inf, math.inf, True))
        goes_left = bool(tree.missing_go_to_left[node])
        walk(tree.children_left[node], {**bounds, feature: (low, threshold, missing and goes_left)})
        walk(tree.children_right[node], {**bounds, feature: (threshold, high, missing and not goes_left)})

    walk(0, {})
    return leaves


def _judge(table: list[_Feature], leaf: _Leaf, loss: Floats, check: NDArray[np.intp]) -> WeakSlice | None:
    inside = np.ones(check.size, dtype=bool)
    conditions = []
    for number, (low, high, missing) in sorted(leaf.items()):
        values = table[number].values[check].astype(np.float32)  # the tree compares in single precision
        hollow = ~np.isfinite(values)
        inside &= np.where(hollow, missing, (values > low) & (values <= high))
        said = table[number].say(low, high)
        conditions.append(f"{said} or {MISSING}" if missing and hollow.any() else said)
    n = int(inside.sum())
    if n < 2 or n > check.size - 2:
        return None
    within, outside = loss[check][inside], loss[check][~inside]
    gap = mean(within, None) - mean(outside, None)
    influence = np.concatenate([centred(within, None), -centred(outside, None)])
    spread = from_influence(gap, influence, -math.inf, math.inf)
    if spread.se == 0:
        return None
    return WeakSlice(
        tuple(conditions),
        n,
        n / check.size,
        mean(within, None),
        mean(outside, None),
        spread.interval(0.95),
        p_value(spread, 0.0, side="above"),
    )
