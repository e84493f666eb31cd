"""Shares of few rows: their intervals, and those of differences and ratios of two of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcicd.evaluation.uncertainty import Interval, Uncertainty, normal_quantile


@dataclass(frozen=True)
class Share:
    """k of n rows, with Wilson's score interval (Wilson, J. Am. Stat. Assoc. 22, 1927).

    Of rows that have weights, or hang together, both are effective numbers: see :func:`effective_share`.
    """

    k: float
    n: float

    @property
    def estimate(self) -> float:
        return self.k / self.n

    def interval(self, confidence: float) -> Interval:
        z2 = normal_quantile((1 + confidence) / 2) ** 2
        p, n = self.estimate, self.n
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        reach = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
        # Rounding must not put the estimate outside.
        return min(max(0.0, middle - reach), p), max(min(1.0, middle + reach), p)


def effective_share(hit: NDArray[np.bool_], weight: Any = None, group: Any = None) -> Share:
    """The (weighted) share of hits, of as many independent rows as would be as uncertain.

    The variance is the linearised one over groups of rows; rows / variance inflation is the effective number that
    Korn & Graubard put into an interval of a proportion (Survey Methodology 24, 1998).

    Args:
        hit: (n,) n >= 1.
        weight: (n,) not negative, not all 0; None: all alike.
        group: (n,) what a row belongs to; None: each stands alone.
    """
    w = np.ones(hit.size) if weight is None else np.asarray(weight, dtype=np.float64)
    w = w / w.sum()
    p = float(w @ hit)
    codes = np.arange(hit.size) if group is None else np.unique(np.asarray(group).astype(str), return_inverse=True)[1]
    # Without a hit, or without a miss, no variance is seen: then the weights of the groups are what is known.
    known = float(1 / (np.bincount(codes, weights=w) ** 2).sum())
    if 0 < p < 1:
        parts = np.bincount(codes, weights=w * (hit - p))
        variance = float(parts @ parts) * parts.size / max(parts.size - 1, 1)
        known = p * (1 - p) / variance if variance > 0 else known
    n = min(known, float(hit.size))
    return Share(p * n, n)


def ratio_interval(a: Uncertainty, b: Uncertainty, confidence: float) -> Interval:
    """Interval of a / b from the two single ones (MOVER-R: Donner & Zou, Stat. Methods Med. Res. 21, 2012).

    Both are independent and not negative. The upper end is infinite where b may be 0.
    """
    p, q = a.estimate, b.estimate
    (la, ua), (lb, ub) = a.interval(confidence), b.interval(confidence)
    low, high = 0.0, math.inf
    product = p * q
    below = product * product - la * ub * (2 * p - la) * (2 * q - ub)
    divisor = ub * (2 * q - ub)
    if divisor > 0:
        low = (product - math.sqrt(max(below, 0.0))) / divisor
    elif q > 0:
        # The reach of b is longer than b itself: the plain quotient of the ends is wider, and always defined.
        low = la / ub
    above = product * product - ua * lb * (2 * p - ua) * (2 * q - lb)
    divisor = lb * (2 * q - lb)
    if divisor > 0:
        high = (product + math.sqrt(max(above, 0.0))) / divisor
    return max(low, 0.0), high
