"""Quantiles of per-row errors (median or p95 absolute error): order statistics instead of densities.

The share of rows whose error is below the true quantile is a binomial; drawing that share and reading the
empirical quantile at the level it implies gives the classical order-statistic interval. For two models the
two shares are drawn together, from the joint 2 x 2 table of (candidate's error below its quantile,
champion's below its own).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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


def draw_quantiles(
    errors: list[Floats],
    level: float,
    weight: Floats | None,
    tables_of: Callable[[list[NDArray[np.bool_]]], Floats],
) -> tuple[list[float], list[Floats]]:
    """(estimates, draws of (resamples,)) of one or two models' error quantiles, drawn jointly.

    Args:
        tables_of: draws (resamples, 2, 2) joint tables of two (n,) masks.
    """
    ranked = [Sorted(e, weight) for e in errors]
    estimates = [float(r.quantile(level)) for r in ranked]
    below = [e <= q for e, q in zip(errors, estimates, strict=True)]
    pair = below if len(below) == 2 else [below[0], below[0]]
    tables = tables_of(pair)
    whole = tables.sum(axis=(1, 2))
    draws = []
    for which in range(len(errors)):
        drawn = tables.sum(axis=2 if which == 0 else 1)[:, 1] / whole
        # Where the true quantile may lie among the observed errors, with the binomial's own skewness.
        draws.append(ranked[which].quantile(level + drawn - drawn.mean()))
    return estimates, draws
