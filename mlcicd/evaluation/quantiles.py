"""Quantiles of per-row errors (median or p95 absolute error): order statistics instead of densities.

The share of rows whose error is below the true quantile is a binomial; drawing that share and reading the
empirical quantile at the level it implies gives the classical order-statistic interval. For two models the
two shares are drawn together, from the joint 2 x 2 table of (candidate's error below its quantile,
champion's below its own).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Standard errors of a share on either side that its slope is taken over: wider, and the tail's bend counts as slope.
_REACH = 1.5
_FEWEST, _DISTINCT = 8, 0.8  # values there, and how many of them must differ


class Sorted:
    """Errors of one model, sorted, with their cumulated weights."""

    def __init__(self, errors: Floats, weight: Floats | None) -> None:
        self._weighted = weight is not None
        order = np.argsort(errors) if weight is not None else None
        self.values: Floats = np.sort(errors) if order is None else errors[order]
        if weight is not None and order is not None:
            total = np.cumsum(weight[order])
            self._levels = (total - weight[order] / 2) / total[-1]

    def quantile(self, level: float | Floats) -> Floats:
        """Linear between order statistics (numpy's default), or between the mid-points of weights."""
        levels = np.clip(level, 0.0, 1.0)
        if not self._weighted:
            place = levels * (self.values.size - 1)
            low = np.floor(place).astype(np.intp)
            high = np.minimum(low + 1, self.values.size - 1)
            out: Floats = self.values[low] + (place - low) * (self.values[high] - self.values[low])
            return out
        between: Floats = np.interp(levels, self._levels, self.values)
        return between

    def slope(self, level: float, reach: float) -> float:
        """How fast the quantile grows with its level around one; NaN where values repeat."""
        low, high = max(level - reach, 0.0), min(level + reach, 1.0)
        ends = np.array([float(self.quantile(low)), float(self.quantile(high))])
        first, last = np.searchsorted(self.values, ends, side="left")
        inside = self.values[first : last + 1]
        if inside.size < _FEWEST or np.unique(inside).size < _DISTINCT * inside.size:
            return math.nan
        return float(ends[1] - ends[0]) / (high - low)


@dataclass(frozen=True, eq=False)
class DrawnQuantiles:
    """One or two models' error quantiles.

    Attributes:
        estimates: of the models.
        draws: (resamples,) of each, drawn jointly.
        difference: (resamples,) draws of the difference; None of one model.
    """

    estimates: list[float]
    draws: list[Floats]
    difference: Floats | None


def draw_quantiles(
    errors: list[Floats],
    level: float,
    weight: Floats | None,
    tables_of: Callable[[list[NDArray[np.bool_]]], Floats],
) -> DrawnQuantiles:
    """Error quantiles of one or two models, drawn jointly.

    Reading the empirical quantile at a drawn level is exact for one model. In the difference of two it counts the gaps
    between neighbouring errors twice over, and the interval comes out too wide; there a drawn share is turned into
    errors by the quantiles' slope (Bahadur's representation, Ann. Math. Stat. 37, 1966), where errors are continuous.

    Args:
        tables_of: draws (resamples, 2, 2) joint tables of two (n,) masks.
    """
    ranked = [Sorted(e, weight) for e in errors]
    estimates = [float(r.quantile(level)) for r in ranked]
    below = [e <= q for e, q in zip(errors, estimates, strict=True)]
    pair = below if len(below) == 2 else [below[0], below[0]]
    tables = tables_of(pair)
    whole = tables.sum(axis=(1, 2))
    shifts = []
    for which in range(len(errors)):
        drawn = tables.sum(axis=2 if which == 0 else 1)[:, 1] / whole
        # Where the true quantile may lie among the observed errors, with the binomial's own skewness.
        shifts.append(drawn - drawn.mean())
    draws = [r.quantile(level + shift) for r, shift in zip(ranked, shifts, strict=True)]
    if len(errors) == 1:
        return DrawnQuantiles(estimates, draws, None)
    slopes = [r.slope(level, _REACH * float(shift.std())) for r, shift in zip(ranked, shifts, strict=True)]
    if any(math.isnan(slope) for slope in slopes):
        return DrawnQuantiles(estimates, draws, draws[0] - draws[1])
    # The draws are as wide as the share's own error; no degrees of freedom are taken off for the slope's, which errs to
    # either side and made differences of far quantiles cover 98 % and more.
    apart: Floats = slopes[0] * shifts[0] - slopes[1] * shifts[1] + (estimates[0] - estimates[1])
    return DrawnQuantiles(estimates, draws, apart)
