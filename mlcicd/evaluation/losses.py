"""Per-row losses, and the smooth functions of their means, with each row's influence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcicd.evaluation.uncertainty import SkewedMean

Floats = NDArray[np.float64]

# scikit-learn clips probabilities at the machine epsilon of their type.
EPSILON = float(np.finfo(np.float64).eps)


def row_loss(name: str, y: NDArray[Any], scores: Floats, level: float = 0.5) -> Floats:
    """(n,) losses whose (weighted) mean is the metric.

    Args:
        name: `log_loss`, `brier`, `mae`, `mse` (also for `rmse` and `r2`), `mape`, `pinball`.
        y: (n,) bool, class numbers or values, as the task has them.
        scores: (n,) or (n, k).
        level: the quantile of `pinball`.
    """
    if name == "log_loss":
        return _log_loss(y, scores)
    if name == "brier":
        return _brier(y, scores)
    error: Floats = y - scores
    if name == "mae":
        error = np.abs(error)
    elif name == "mape":
        error = np.abs(error) / np.maximum(np.abs(y), EPSILON)
    elif name == "pinball":
        error = np.where(error >= 0, level * error, (level - 1) * error)
    else:
        error = error * error
    return error


def _log_loss(y: NDArray[Any], scores: Floats) -> Floats:
    if scores.ndim == 1:
        chosen = np.where(y, scores, 1 - scores)
    else:
        # scikit-learn divides by the row's sum, after clipping.
        clipped = np.clip(scores, EPSILON, 1 - EPSILON)
        chosen = clipped[np.arange(y.size), y] / clipped.sum(axis=1)
    loss: Floats = np.clip(chosen, EPSILON, 1 - EPSILON, out=chosen)
    np.log(loss, out=loss)
    return np.negative(loss, out=loss)


def _brier(y: NDArray[Any], scores: Floats) -> Floats:
    if scores.ndim == 1:
        squared: Floats = scores - y
        squared *= squared
        return squared
    # sum_k (p_k - [k = y])^2 without building the indicator matrix
    summed: Floats = (scores * scores).sum(axis=1) - 2 * scores[np.arange(y.size), y] + 1
    return summed


def mean(values: Floats, weight: Floats | None) -> float:
    """The weighted mean."""
    return float(values.mean()) if weight is None else float(weight @ values / weight.sum())


def centred(values: Floats, weight: Floats | None) -> Floats:
    """(n,) influences of the rows on the weighted mean of `values`."""
    if weight is None:
        out: Floats = values - values.mean()
        out /= values.size
        return out
    total = weight.sum()
    weighted: Floats = weight * (values - weight @ values / total) / total
    return weighted


def from_influence(estimate: float, influence: Floats, low: float, high: float, units: int = 0) -> SkewedMean:
    """The uncertainty that (n,) influences, which add up to zero, amount to.

    Args:
        units: how many units of equal size they are worth, for Student's quantile; 0: as many as there are.
    """
    n = influence.size
    squares = float(influence @ influence)
    se = math.sqrt(squares * n / (n - 1)) if n > 1 else math.inf
    cubes = float((influence * influence) @ influence)
    skewness = math.sqrt(n) * cubes / squares**1.5 if squares > 0 else 0.0
    if not units or squares <= 0:
        return SkewedMean(estimate, se, skewness, n, low, high)
    # A variance of few, heavy-tailed sums is known less well than Student's quantile of their number allows for: its
    # own degrees of freedom are 2 n / (kurtosis - 1).
    fourth = float((influence * influence) @ (influence * influence))
    known = 2 * n / max(n * fourth / squares**2 - 1, 2.0)
    return SkewedMean(estimate, se, skewness, n, low, high, df=max(1.0, min(units, known) - 1))


def r2(y: Floats, squared: Floats, weight: Floats | None) -> tuple[float, Floats]:
    """(R^2, (n,) influences): 1 - MSE / variance, by the delta method. NaN if the labels are constant."""
    spread = (y - mean(y, weight)) ** 2
    mse, variance = mean(squared, weight), mean(spread, weight)
    if variance <= 0:
        return math.nan, np.zeros_like(y)
    influence: Floats = (mse / variance * centred(spread, weight) - centred(squared, weight)) / variance
    return 1 - mse / variance, influence
