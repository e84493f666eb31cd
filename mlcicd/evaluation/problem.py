"""What an evaluation is about: the holdout's rows, and one or two models' answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

TASKS = ("binary", "multiclass", "multilabel", "regression", "quantile", "forecast", "ranking")
# Tasks whose labels are classes, so that an answer is right or wrong.
CLASSES = ("binary", "multiclass", "multilabel")

NO_ROWS = "the holdout has no rows"


@dataclass(frozen=True)
class Predictions:
    """One model's answers, row by row in the holdout's order.

    Attributes:
        labels: (n,) predicted classes (any dtype), or predicted values for regression; (n, k) booleans, one
            column a label, for multi-label; None if the model gave none. Classification labels that are missing
            are derived from the scores: `>= 0.5` for binary and multi-label, the largest column for multi-class.
        scores: (n,) score of the positive class, (n, 2) or (n, k) one column a class, in the order of
            `classes`; None if there are none. For regression and forecasts, (n,) predicted values are accepted
            here, too; for ranking, (n,) scores of documents; for quantiles, (n, q), in the order of `classes`.
        classes: the classes in the order of the score columns; the second of two is the positive one. None:
            the sorted classes found in the holdout and the labels. For quantiles, the q levels.
    """

    labels: Array | None = None
    scores: Array | None = None
    classes: Sequence[Any] | None = None


@dataclass(frozen=True)
class Structure:
    """How the rows of a holdout hang together, beyond being rows.

    Attributes:
        group: (n,) what a row belongs to: a patient, a user, a series; for ranking its query. Rows of one group
            are not independent, so every interval is found over groups. None: each row stands alone.
        group_name: its name in words, e.g. the column's.
        time: (n,) numbers, dates or sortable text, for forecasts. Without enough groups, intervals are found over
            blocks of time.
        scale: (n,) the in-sample error of the naive forecast of the row's series, which MASE divides by.
    """

    group: Any = None
    group_name: str = "group"
    time: Any = None
    scale: Any = None

    def take(self, rows: Array) -> Structure:
        """The structure of some rows: a boolean mask or row numbers."""

        def part(values: Any) -> Any:
            return None if values is None else np.asarray(values)[rows]

        return Structure(part(self.group), self.group_name, part(self.time), part(self.scale))


@dataclass(frozen=True)
class View:
    """A model's answers in the holdout's encoding; a `..._reason` says why a part can not be used.

    Attributes:
        labels: as `Problem.y`.
        scores: (n,) or (n, k).
        quantiles, levels: (n, q) predicted quantiles, and their q levels, ascending.
    """

    labels: Array | None = None
    scores: Array | None = None
    labels_reason: str = ""
    scores_reason: str = ""
    quantiles: Array | None = None
    levels: tuple[float, ...] = ()

    def same_scores(self, other: View) -> bool:
        """Whether both models gave the very same scores (values, for regression) on every row."""
        return _same(self.scores, other.scores) and (
            (self.quantiles is None and other.quantiles is None) or self.same_quantiles(other)
        )

    def same_order(self, other: View) -> bool:
        """Whether both models put the rows into the very same order, equal scores included."""
        one, two = self.scores, other.scores
        if one is None or two is None or one.ndim != 1 or one.shape != two.shape:
            return False
        order = np.argsort(one, kind="stable")
        rises, rises_too = np.diff(one[order]), np.diff(two[order])
        return bool(np.all(rises_too >= 0) and np.array_equal(rises > 0, rises_too > 0))

    def same_quantiles(self, other: View) -> bool:
        """Whether both models gave the very same quantiles on every row."""
        return self.levels == other.levels and _same(self.quantiles, other.quantiles)

    def same_labels(self, other: View) -> bool:
        """Whether both models gave the very same labels on every row."""
        return _same(self.labels, other.labels)


def _same(one: Array | None, other: Array | None) -> bool:
    return one is not None and other is not None and np.array_equal(one, other)


@dataclass(frozen=True)
class Problem:
    """The holdout and one or two models' answers to it, encoded.

    Attributes:
        y: (n,) bool for binary (True is the positive class), class numbers for multi-class, (n, k) bool for
            multi-label, else float64.
        weight: (n,) float64, or None when all rows weigh the same.
        reason: why nothing at all can be computed, or empty.
        cluster: (n,) numbers of the independent units that rows belong to, from 0; None: each row is one.
        clusters: how many units there are.
        cluster_words: what they are, e.g. `120 groups by patient`.
        scale: (n,) errors of the naive forecast.
    """

    task: str
    y: Array
    candidate: View
    champion: View | None
    weight: Array | None
    classes: tuple[Any, ...]
    reason: str = ""
    cluster: Array | None = None
    clusters: int = 0
    cluster_words: str = ""
    scale: Array | None = None

    @property
    def n(self) -> int:
        return int(self.y.shape[0])
