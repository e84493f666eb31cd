"""A ratio of two means, and its interval by inverting the studentised test of Fieller's linear combination."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlcicd.evaluation.uncertainty import Interval, SkewedMean, Uncertainty, student_quantile, untransformed

Floats = NDArray[np.float64]

# Doublings of a standard error that an end is looked for within, and halvings that place it.
_DOUBLINGS = 40
_HALVINGS = 40


@dataclass(frozen=True)
class Moments:
    """Sums of products of two contributions' powers: all that a test of any linear combination of them needs.

    Attributes:
        squares: sums of a^2, a b, b^2.
        cubes: sums of a^3, a^2 b, a b^2, b^3.
        n: contributions.
    """

    squares: tuple[float, float, float]
    cubes: tuple[float, float, float, float]
    n: int

    @classmethod
    def of(cls, a: Floats, b: Floats) -> Moments:
        """Of (n,) contributions to a numerator and (n,) contributions to a denominator."""
        aa, bb = a * a, b * b
        squares = float(aa.sum()), float(a @ b), float(bb.sum())
        return cls(squares, (float(aa @ a), float(aa @ b), float(a @ bb), float(bb @ b)), a.size)

    def combined(self, ratio: float) -> tuple[float, float]:
        """(sum of squares, skewness) of the contributions a - ratio b."""
        aa, ab, bb = self.squares
        square = aa - 2 * ratio * ab + ratio * ratio * bb
        if square <= 0:
            return 0.0, 0.0
        aaa, aab, abb, bbb = self.cubes
        cube = aaa - 3 * ratio * aab + 3 * ratio**2 * abb - ratio**3 * bbb
        return square, math.sqrt(self.n) * cube / square**1.5


@dataclass(frozen=True)
class RatioOfMeans:
    """A ratio a / b of two means (or smooth functions of means), e.g. R^2.

    A ratio r is kept where a - r b, whose true value is 0 at the true ratio, is no further from 0 than Student's
    quantile, corrected for skewness as `SkewedMean` is (Fieller, J. R. Statist. Soc. B 16, 1954). The delta method
    takes the standard error at the estimate; where tails are heavy, it is small just where the estimate is off.

    Attributes:
        over: the denominator, b > 0.
        moments: of the contributions of rows (or groups of rows) to a and to b.
        df: degrees of freedom of the standard error.
        low, high: the ratio's range; an end that no data bound is the range's.
    """

    estimate: float
    over: float
    moments: Moments
    df: float
    low: float = -math.inf
    high: float = math.inf

    def interval(self, confidence: float) -> Interval:
        t = student_quantile((1 + confidence) / 2, self.df)
        lower = self._end(lambda r: self._pivot(r) <= self._reach(r, t), -1.0)
        upper = self._end(lambda r: self._pivot(r) >= self._reach(r, -t), 1.0)
        return max(lower, self.low), min(upper, self.high)

    def _pivot(self, ratio: float) -> float:
        return (self.estimate - ratio) * self.over

    def _reach(self, ratio: float, t: float) -> float:
        """How far a - ratio b may be from 0, on the side of t's sign."""
        square, skewness = self.moments.combined(ratio)
        n = self.moments.n
        se = math.sqrt(square * n / (n - 1))
        return se * untransformed(t, skewness, n)

    def _end(self, kept: Callable[[float], bool], side: float) -> float:
        """The first ratio on one side of the estimate that is not kept; infinite where all are."""
        square, _ = self.moments.combined(self.estimate)
        step = math.sqrt(square) / self.over
        inside, outside = self.estimate, self.estimate + side * step
        for _ in range(_DOUBLINGS):
            if not kept(outside):
                break
            step *= 2
            inside, outside = outside, self.estimate + side * step
        else:
            return side * math.inf
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if kept(middle) else (inside, middle)
        return (inside + outside) / 2


def ratio_of(linear: Uncertainty, over: float, above: Floats, below: Floats) -> Uncertainty:
    """The ratio whose delta-method approximation is known, by the contributions of its parts.

    Args:
        linear: by the delta method: gives the estimate, the range and the degrees of freedom. What showed no
            variation stays as it is.
        over: the denominator, above 0.
        above, below: (n,) contributions of rows (or groups) to the numerator and to the denominator.
    """
    if not isinstance(linear, SkewedMean) or linear.se <= 0:
        return linear
    moments = Moments.of(above, below)
    return RatioOfMeans(linear.estimate, over, moments, linear.df or linear.n - 1, linear.low, linear.high)
