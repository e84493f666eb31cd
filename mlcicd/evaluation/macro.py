"""Multi-class metrics of per-class sums: a paired bootstrap over groups of rows.

Each metric is a function of three sums a class (right answers, true rows, predicted rows). Rows are dealt
at random into at most `GROUPS` groups, whose sums are kept; a resample weighs the groups with Exp(1)
weights (the Bayesian bootstrap). Up to `GROUPS` rows a group is a row; beyond, the variance is estimated
from `GROUPS` independent sums, to about 2 % of the interval's width, at a cost that does not grow with the
rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

GROUPS = 1000
FEWEST_GROUPS = 200


def deal(n: int, rng: np.random.Generator, classes: int = 2) -> tuple[Ints, int]:
    """(n,) group numbers, and how many groups there are: fewer with hundreds of classes."""
    most = max(FEWEST_GROUPS, min(GROUPS, 200_000 // max(classes, 1)))
    if n <= most:
        return np.arange(n), n
    return rng.integers(0, most, n), most


def group_weights(groups: int, resamples: int, rng: np.random.Generator) -> Floats:
    """(resamples, groups) Exp(1) weights."""
    weights: Floats = rng.standard_exponential((resamples, groups))
    return weights


def class_sums(
    y: Ints, answer: Ints, classes: int, group: tuple[Ints, int], weight: Floats | None
) -> tuple[Floats, Floats, Floats]:
    """(groups, classes) sums of weights: right answers, true rows, predicted rows; `group` as of `deal`."""
    numbers, groups = group

    def add(label: Ints, counted: Floats | None) -> Floats:
        code = numbers * classes + label
        sums = np.bincount(code, weights=counted, minlength=groups * classes)
        return sums.astype(np.float64).reshape(groups, classes)

    right = (y == answer).astype(np.float64)
    return add(y, right if weight is None else right * weight), add(y, weight), add(answer, weight)


def _ratio(a: Floats, b: Floats) -> Floats:
    out: Floats = np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b > 0)
    return out


def _mean_seen(values: Floats, right: Floats, true: Floats, said: Floats) -> Floats:
    """Mean over classes that are in the labels or the answers, as scikit-learn does."""
    seen = (true + said) > 0
    mean: Floats = (values * seen).sum(axis=-1) / np.maximum(seen.sum(axis=-1), 1)
    return mean


def _f1(right: Floats, true: Floats, said: Floats) -> Floats:
    return _ratio(2 * right, true + said)


def f1_macro(right: Floats, true: Floats, said: Floats) -> Floats:
    return _mean_seen(_f1(right, true, said), right, true, said)


def f1_weighted(right: Floats, true: Floats, said: Floats) -> Floats:
    value: Floats = (_f1(right, true, said) * true).sum(axis=-1) / true.sum(axis=-1)
    return value


def precision_macro(right: Floats, true: Floats, said: Floats) -> Floats:
    return _mean_seen(_ratio(right, said), right, true, said)


def recall_macro(right: Floats, true: Floats, said: Floats) -> Floats:
    return _mean_seen(_ratio(right, true), right, true, said)


def balanced_accuracy(right: Floats, true: Floats, said: Floats) -> Floats:
    """Mean recall over the classes that are in the labels."""
    value: Floats = _ratio(right, true).sum(axis=-1) / np.maximum((true > 0).sum(axis=-1), 1)
    return value


def matthews_corrcoef(right: Floats, true: Floats, said: Floats) -> Floats:
    """Gorodkin's R_K, from the margins and the trace."""
    s = true.sum(axis=-1)
    t, p = true / s[..., None], said / s[..., None]
    c = right.sum(axis=-1) / s
    below = np.sqrt(np.maximum(1 - (p * p).sum(axis=-1), 0))
    below = below * np.sqrt(np.maximum(1 - (t * t).sum(axis=-1), 0))
    return _ratio(c - (t * p).sum(axis=-1), below)


MACRO_METRICS: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "f1_macro": f1_macro,
    "f1_weighted": f1_weighted,
    "precision_macro": precision_macro,
    "recall_macro": recall_macro,
    "balanced_accuracy": balanced_accuracy,
    "matthews_corrcoef": matthews_corrcoef,
}
