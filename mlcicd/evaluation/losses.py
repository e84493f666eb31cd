"""Per-row losses, and the smooth functions of their means, with each row's influence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcicd.evaluation.uncertainty import SkewedMean, variance_degrees

Floats = NDArray[np.float64]

# scikit-learn clips probabilities at the machine epsilon of their type.
EPSILON = float(np.finfo(np.float64).eps)

# Of fewer rows, the largest few are no tail.
_FEWEST_FOR_A_TAIL = 400
_ONE_ROW = 0.1
_ONE_SIDED = 1.645


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
    squared: Floats = influence * influence
    squares = float(squared.sum())
    se = math.sqrt(squares * n / (n - 1)) if n > 1 else math.inf
    if squares <= 0:
        return SkewedMean(estimate, se, 0.0, n, low, high)
    skewness = math.sqrt(n) * float(squared @ influence) / squares**1.5
    # Groups of unequal size, and contributions of heavy tails: both make the variance less certain, so both count.
    own = variance_degrees(n, n * float(squared @ squared) / squares**2 - 3, skewness)
    degrees = own if not units else 1 / max(1 / units + 1 / own - 1 / n, 1 / n)
    return SkewedMean(estimate, se, skewness, n, low, high, df=max(1.0, degrees - 1))


def known(influence: Floats) -> float:
    """How many normal contributions would tell a variance as well as these (n,) do: 2 n / (kurtosis - 1).

    A variance of few or heavy-tailed contributions is known less well than Student's quantile of their number allows
    for.
    """
    squared: Floats = influence * influence
    squares = float(squared.sum())
    n = influence.size
    return 2 * n / max(n * float(squared @ squared) / squares**2 - 1, 2.0) if squares > 0 else float(n)


def wild(influence: Floats) -> str:
    """Why no interval of a mean with these (n,) influences can be trusted, or empty.

    No method gives valid intervals for means of any distribution whatever (Bahadur & Savage, Ann. Math. Stat. 27,
    1956): the tails must be such that there is a variance. Two signs that there is none have to agree: one row makes
    up much of the sum of squares, a share that vanishes with more rows where the variance is finite (Embrechts,
    Klueppelberg & Mikosch, Modelling Extremal Events, 1997, sec. 6.2.6), and Hill's estimate of the tail's index
    (Ann. Stat. 3, 1975) is below 2 by more than its own error.
    """
    n = influence.size
    if n < _FEWEST_FOR_A_TAIL:
        return ""
    size = np.abs(influence)
    largest = float(size.max()) ** 2 / max(float(size @ size), 1e-300)
    if largest < _ONE_ROW:
        return ""
    beyond = max(10, math.isqrt(n))
    top = np.partition(size, n - beyond - 1)[n - beyond - 1 :]
    edge = max(float(top[0]), 1e-300)
    slope = float(np.log(np.maximum(top[1:], edge) / edge).mean())
    if slope <= 0 or (1 + _ONE_SIDED / math.sqrt(beyond)) / slope >= 2:
        return ""
    return (
        f"one row is {largest:.0%} of the variance, and the largest contributions fall off so slowly (tail index "
        f"{1 / slope:.2g}, below 2) that no interval of a mean can be trusted"
    )


@dataclass(frozen=True)
class Explained:
    """R^2 of one model, a ratio of means: (variance - MSE) / variance.

    Attributes:
        value: R^2.
        variance: of the labels.
        above, below: (n,) influences of the rows on the numerator and on the variance.
    """

    value: float
    variance: float
    above: Floats
    below: Floats

    @property
    def influence(self) -> Floats:
        """(n,) influences of the rows, or of what they are gathered into, by the delta method."""
        out: Floats = (self.above - self.value * self.below) / self.variance
        return out


def r2(y: Floats, squared: Floats, weight: Floats | None) -> Explained | None:
    """R^2 from (n,) squared errors; None if the labels are constant."""
    spread = (y - mean(y, weight)) ** 2
    mse, variance = mean(squared, weight), mean(spread, weight)
    if variance <= 0:
        return None
    below = centred(spread, weight)
    return Explained(1 - mse / variance, variance, below - centred(squared, weight), below)
