"""Metrics of counts: a paired bootstrap over the joint contingency table, whose cost does not grow with the
rows.

The table of (label, champion's answer, candidate's answer) is sufficient for every metric of counts. Its
resampling distribution is drawn cell by cell: giving each row an Exp(1) weight (Rubin's Bayesian bootstrap,
Ann. Statist. 9, 1981) adds up to one Gamma(count) draw a cell, or Gamma((sum w)^2 / sum w^2) scaled alike
when rows have weights. To first order it is the multinomial bootstrap. Unlike that one it has no lattice,
and half a pseudo-row a cell of each model's own table (Jeffreys' prior) keeps an interval from closing to a
point when no error was seen in a few rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PRIOR = 2.0  # pseudo-rows spread over all cells: a half in each of the four cells of one model's table


def table(y: NDArray[np.bool_], answers: list[NDArray[np.bool_]], weight: Floats | None) -> tuple[Floats, Floats]:
    """Sums of weights and of squared weights by cell.

    Args:
        y: (n,) the labels.
        answers: one or two (n,) arrays: the candidate's labels, then the champion's.

    Returns:
        two arrays of shape (2, 2) or (2, 2, 2): [y, candidate, champion].
    """
    code = y.astype(np.int8)
    for answer in answers:
        code = 2 * code + answer
    cells = 4 if len(answers) == 1 else 8
    shape = (2,) * (1 + len(answers))
    if weight is None:
        rows: Floats = np.bincount(code, minlength=cells).astype(np.float64).reshape(shape)
        return rows, rows
    total = np.bincount(code, weights=weight, minlength=cells).astype(np.float64)
    squares = np.bincount(code, weights=weight * weight, minlength=cells).astype(np.float64)
    return total.reshape(shape), squares.reshape(shape)


def draw_tables(total: Floats, squares: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """(resamples, *shape) tables of the Bayesian bootstrap, with the prior's pseudo-rows."""
    scale = np.where(total > 0, squares / np.where(total > 0, total, 1), squares.sum() / total.sum())
    shape = np.where(total > 0, total / scale, 0.0) + PRIOR / total.size
    draws: Floats = rng.standard_gamma(shape, size=(resamples, *total.shape)) * scale
    return draws


def draw_clustered(
    y: NDArray[np.bool_],
    answers: list[NDArray[np.bool_]],
    weight: Floats | None,
    groups: tuple[NDArray[np.intp], Floats],
) -> tuple[Floats, Floats]:
    """Tables of a Bayesian bootstrap of whole groups of rows, (resamples, *shape), and of each group, (groups, *shape).

    Args:
        groups: (n,) group numbers, and (resamples, groups) weights of the groups.
    """
    numbers, drawn = groups
    code = y.astype(np.intp)
    for answer in answers:
        code = 2 * code + answer
    cells = 2 ** (1 + len(answers))
    summed = np.bincount(numbers * cells + code, weights=weight, minlength=drawn.shape[1] * cells)
    own = summed.astype(np.float64).reshape(drawn.shape[1], cells)
    tables: Floats = drawn @ own
    shape = (-1, *(2,) * (1 + len(answers)))
    return tables.reshape(shape), own.reshape(shape)


def one_model(tables: Floats, which: int) -> Floats:
    """(..., 2, 2) tables [y, answer] of the candidate (0) or the champion (1), from joint ones."""
    summed: Floats = tables.sum(axis=-1 if which == 0 else -2)
    return summed


def _ratio(a: Floats, b: Floats) -> Floats:
    """a / b, and 0 where b is 0 (scikit-learn's `zero_division=0`)."""
    out: Floats = np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b > 0)
    return out


def _parts(t: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    return t[..., 0, 0], t[..., 0, 1], t[..., 1, 0], t[..., 1, 1]  # tn, fp, fn, tp


def accuracy(t: Floats) -> Floats:
    tn, fp, fn, tp = _parts(t)
    return _ratio(tp + tn, tp + tn + fp + fn)


def precision(t: Floats) -> Floats:
    _, fp, _, tp = _parts(t)
    return _ratio(tp, tp + fp)


def recall(t: Floats) -> Floats:
    _, _, fn, tp = _parts(t)
    return _ratio(tp, tp + fn)


def specificity(t: Floats) -> Floats:
    tn, fp, _, _ = _parts(t)
    return _ratio(tn, tn + fp)


def balanced_accuracy(t: Floats) -> Floats:
    return (recall(t) + specificity(t)) / 2


def f1(t: Floats) -> Floats:
    _, fp, fn, tp = _parts(t)
    return _ratio(2 * tp, 2 * tp + fp + fn)


def matthews_corrcoef(t: Floats) -> Floats:
    tn, fp, fn, tp = _parts(t)
    # Root by root: the product of four sums of a million rows is beyond 2^63, and near the end of float64.
    below = np.sqrt(tp + fp) * np.sqrt(tp + fn) * np.sqrt(tn + fp) * np.sqrt(tn + fn)
    return _ratio(tp * tn - fp * fn, below)


def negative_flip_rate(t: Floats) -> Floats:
    """Share of rows the champion has right and the candidate wrong; t is (..., y, candidate, champion)."""
    return _ratio(t[..., 0, 1, 0] + t[..., 1, 0, 1], t.sum(axis=(-3, -2, -1)))


COUNT_METRICS: dict[str, Callable[[Floats], Floats]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "precision": precision,
    "recall": recall,
    "specificity": specificity,
    "f1": f1,
    "matthews_corrcoef": matthews_corrcoef,
}
NEEDS_POSITIVES = {"recall", "f1", "balanced_accuracy", "matthews_corrcoef"}
NEEDS_NEGATIVES = {"specificity", "balanced_accuracy", "matthews_corrcoef"}
