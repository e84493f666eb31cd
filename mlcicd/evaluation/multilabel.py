"""Multi-label tasks: rows with any number of labels, as an indicator matrix.

Averages over labels count every label, as scikit-learn does with indicator matrices; a label that is neither true nor
predicted on any row counts 0 (`zero_division=0`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcicd.core.errors import InputError
from mlcicd.evaluation.encoding import floats, listed
from mlcicd.evaluation.problem import Array, Predictions, View

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

SEPARATOR = "|"
Sums = tuple[Floats, Floats, Floats]


def indicator(values: Any, labels: Iterable[Any] | None = None) -> tuple[NDArray[np.bool_], list[str]]:
    """((n, k) booleans, the k labels as text) of a column of label sets.

    Args:
        values: (n,) text of labels with `|` between them (empty: none), or lists of labels; or (n, k) zeros and ones.
        labels: the labels in the order of the columns; None: those found, sorted.

    Raises:
        InputError: a missing value, a label that is not among `labels`, a matrix of something else.
    """
    column = np.asarray(values)
    if column.ndim == 2:
        return _matrix(column), list(map(str, labels)) if labels is not None else list(map(str, range(column.shape[1])))
    seen = [_labels_of(row, number) for number, row in enumerate(column.tolist())]
    names = list(map(str, labels)) if labels is not None else sorted({name for row in seen for name in row})
    place = {name: number for number, name in enumerate(names)}
    out = np.zeros((len(seen), len(names)), dtype=bool)
    for number, row in enumerate(seen):
        for name in row:
            if name not in place:
                raise InputError(
                    f"row {number + 1} of the holdout has the label {name!r}, which is not one of {', '.join(names)}",
                    remedy="name all labels in model.labels",
                )
            out[number, place[name]] = True
    return out, names


def _labels_of(row: Any, number: int) -> list[str]:
    if isinstance(row, str):
        return [part.strip() for part in row.split(SEPARATOR) if part.strip()]
    if isinstance(row, list | tuple | set | np.ndarray):
        return [str(part) for part in row if part is not None]
    if row is None or row != row:  # noqa: PLR0124 (NaN is not itself)
        raise InputError(
            f"row {number + 1} of the holdout has no labels: write an empty text for none",
            why="A row that was never labelled is not a row without labels.",
        )
    return [str(row)]


def _matrix(values: Array) -> NDArray[np.bool_]:
    numbers, missing = floats(values)
    if missing or not np.isin(numbers, (0.0, 1.0)).all():
        raise InputError("the labels of a multi-label task must be zeros and ones, one column a label")
    matrix: NDArray[np.bool_] = numbers == 1
    return matrix


def multilabel_view(predictions: Predictions, k: int, names: list[str]) -> View:
    """Labels and scores of one model, their columns in the holdout's order."""
    order = _order(predictions, names)
    scores, scores_reason = None, "it gave no scores"
    if predictions.scores is not None:
        scores, missing = floats(_shaped(predictions.scores, k, "scores")[:, order])
        scores_reason = f"{missing} of its {scores.size} scores are not finite" if missing else ""
    labels: Array | None = None
    labels_reason = scores_reason or "it gave neither labels nor scores"
    if predictions.labels is not None:
        numbers, missing = floats(_shaped(predictions.labels, k, "labels")[:, order])
        bad = int((~np.isin(numbers, (0.0, 1.0))).sum())
        labels = None if bad else numbers == 1
        labels_reason = f"{bad} of its {numbers.size} labels are neither 0 nor 1" if bad else ""
    elif scores is not None and not scores_reason:
        labels, labels_reason = scores >= 0.5, ""
    return View(labels, scores, labels_reason, scores_reason)


def _order(predictions: Predictions, names: list[str]) -> list[int]:
    if predictions.classes is None:
        return list(range(len(names)))
    own = list(map(str, predictions.classes))
    if sorted(own) != sorted(names):
        raise InputError(
            f"the model knows the labels {listed(np.array(own))}, and the holdout {listed(np.array(names))}",
            remedy="name all labels, in the order of the model's columns, in model.labels",
        )
    return [own.index(name) for name in names]


def _shaped(values: Any, k: int, what: str) -> Array:
    matrix = np.asarray(values)
    if matrix.ndim != 2 or matrix.shape[1] != k:
        raise InputError(
            f"{what} of a task of {k} labels have shape {matrix.shape}: one column a label is needed",
            remedy="name all labels, in the order of the model's columns, in model.labels",
        )
    return matrix


def label_sums(y: NDArray[np.bool_], answer: NDArray[np.bool_], group: tuple[Ints, int], weight: Floats | None) -> Sums:
    """(groups, k) sums of weights: right answers, true rows, predicted rows; `group` as of `macro.deal`."""
    numbers, groups = group

    def add(mask: NDArray[np.bool_]) -> Floats:
        columns = []
        for column in mask.T:
            rows = np.flatnonzero(column)
            counted = None if weight is None else weight[rows]
            columns.append(np.bincount(numbers[rows], weights=counted, minlength=groups).astype(np.float64))
        return np.stack(columns, axis=1)

    return add(y & answer), add(y), add(answer)


def _ratio(a: Floats, b: Floats) -> Floats:
    out: Floats = np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b > 0)
    return out


def _precision(right: Floats, _true: Floats, said: Floats) -> Floats:
    return _ratio(right, said)


def _recall(right: Floats, true: Floats, _said: Floats) -> Floats:
    return _ratio(right, true)


def _f1(right: Floats, true: Floats, said: Floats) -> Floats:
    return _ratio(2 * right, true + said)


def _jaccard(right: Floats, true: Floats, said: Floats) -> Floats:
    return _ratio(right, true + said - right)


_ONE_LABEL = {"precision": _precision, "recall": _recall, "f1": _f1}


def averaged(name: str) -> Callable[[Floats, Floats, Floats], Floats]:
    """The function of (..., k) sums that `f1_macro`, `recall_micro`, `f1_weighted` ... names."""
    base, _, average = name.rpartition("_")
    score = _ONE_LABEL[base]

    def function(right: Floats, true: Floats, said: Floats) -> Floats:
        if average == "micro":
            return score(right.sum(axis=-1), true.sum(axis=-1), said.sum(axis=-1))
        values = score(right, true, said)
        if average == "macro":
            mean: Floats = values.mean(axis=-1)
            return mean
        return _ratio((values * true).sum(axis=-1), true.sum(axis=-1))

    return function


def row_score(name: str, y: NDArray[np.bool_], answer: NDArray[np.bool_]) -> Floats:
    """(n,) values whose (weighted) mean is `hamming_loss`, `f1_samples`, `precision_samples`, `jaccard_samples` ..."""
    if name == "hamming_loss":
        wrong: Floats = (y != answer).mean(axis=1)
        return wrong
    right, true, said = ((m.sum(axis=1).astype(np.float64)) for m in (y & answer, y, answer))
    base = name.removesuffix("_samples")
    return _jaccard(right, true, said) if base == "jaccard" else _ONE_LABEL[base](right, true, said)
