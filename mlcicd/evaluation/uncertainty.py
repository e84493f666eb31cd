"""Estimates that know how uncertain they are: an interval at any confidence, and the p-value inverting it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

Interval = tuple[float, float]

_NORMAL = NormalDist()


class Uncertainty(Protocol):
    """A point estimate and its central confidence intervals."""

    @property
    def estimate(self) -> float: ...

    def interval(self, confidence: float) -> Interval:
        """The central (two-sided) interval, e.g. of confidence 0.95."""
        ...


@dataclass(frozen=True)
class Exact:
    """Known without sampling error: the difference of two models that answered every row alike."""

    estimate: float

    def interval(self, confidence: float) -> Interval:
        return self.estimate, self.estimate


@dataclass(frozen=True)
class Unknown:
    """Too few rows to say anything beyond the metric's range."""

    estimate: float
    low: float
    high: float

    def interval(self, confidence: float) -> Interval:
        return self.low, self.high


@dataclass(frozen=True)
class SkewedMean:
    """A mean (or a smooth function of means), studentised and corrected for skewness.

    Hall's monotone cubic transformation (P. Hall, J. R. Statist. Soc. B 54, 1992, 221-228) of the
    studentised mean: as accurate as the bootstrap-t to second order, without resampling.

    Attributes:
        se: standard error of the estimate.
        skewness: third standardised moment of the rows' contributions.
        n: rows.
        low, high: the metric's range.
        df: degrees of freedom of the standard error; 0: n - 1.
    """

    estimate: float
    se: float
    skewness: float
    n: int
    low: float = -math.inf
    high: float = math.inf
    df: float = 0.0

    def interval(self, confidence: float) -> Interval:
        t = student_quantile((1 + confidence) / 2, self.df or self.n - 1)
        upper = self.estimate - self.se * untransformed(-t, self.skewness, self.n)
        lower = self.estimate - self.se * untransformed(t, self.skewness, self.n)
        return max(lower, self.low), min(upper, self.high)


def untransformed(t: float, skewness: float, n: int) -> float:
    """The studentised mean of n skewed contributions that Hall's transformation (see `SkewedMean`) makes t of."""
    root = math.sqrt(n)
    # A sample's skewness is at most about sqrt(n); far out the transformation says nothing, so it is bounded.
    g = max(min(skewness, 0.5 * root), -0.5 * root)
    if abs(g) < 1e-6:
        return t
    return 3 * root / g * (math.cbrt(1 + g * (t / root - g / (6 * n))) - 1)


def variance_degrees(n: float, excess: float, skewness: float) -> float:
    """Normal contributions as good as n of this excess kurtosis and skewness, for a mean corrected for skewness.

    The skewness is an estimate that hangs together with the mean it corrects. To the order 1/n, this costs a two-sided
    interval what Student's quantile of n / (1 + excess) degrees gives back: the terms in the excess of the expansion
    of Student's ratio and of its skewness's estimation (P. Hall, The Bootstrap and Edgeworth Expansion, 1992, ch. 2
    and 3) add up to excess z (3 z^2 + 5) / (12 n), and Student's to z (z^2 + 1) / 4 a degree. Skewness takes some
    off again. The expansion would take more than half of its square (1.6 times); in samples whose skewness is a few
    rows' that is too much, since the sample's own skewness is then too small (benchmarks/coverage.py, heavy tails).
    """
    return n / max(1 + excess - skewness * skewness / 2, 1.0)


@dataclass(frozen=True)
class LogitNormal:
    """An estimate within (low, high), normal on the logit scale, with Student's quantile for `df`."""

    estimate: float
    se: float
    df: float
    low: float = 0.0
    high: float = 1.0

    def interval(self, confidence: float) -> Interval:
        span = self.high - self.low
        p = (self.estimate - self.low) / span
        reach = student_quantile((1 + confidence) / 2, self.df) * self.se / span / (p * (1 - p))
        middle = math.log(p / (1 - p))
        return self.low + span * _expit(middle - reach), self.low + span * _expit(middle + reach)


@dataclass(frozen=True)
class Normal:
    """An estimate with a standard error: Student's interval, cut to the range of the metric."""

    estimate: float
    se: float
    df: float
    low: float = -math.inf
    high: float = math.inf

    def interval(self, confidence: float) -> Interval:
        reach = student_quantile((1 + confidence) / 2, self.df) * self.se
        return max(self.estimate - reach, self.low), min(self.estimate + reach, self.high)


@dataclass(frozen=True)
class Boundary:
    """No variation was seen (all rows right, perfect ranking): Wilson's interval of a proportion at its
    boundary.

    A resample of a perfect sample is perfect, so a bootstrap would claim certainty from two rows. Wilson's
    interval for 0 of n (or n of n) is [0, z^2 / (n + z^2)] (or its mirror); in the middle of the range, it
    is used both ways.

    Attributes:
        n: rows (of the rarer class, where a metric compares classes).
    """

    estimate: float
    n: float
    low: float = 0.0
    high: float = 1.0

    def interval(self, confidence: float) -> Interval:
        z2 = _NORMAL.inv_cdf((1 + confidence) / 2) ** 2
        reach = (self.high - self.low) * z2 / (self.n + z2)
        return max(self.low, self.estimate - reach), min(self.high, self.estimate + reach)


@dataclass(frozen=True)
class Recovered:
    """Difference interval from two single ones, where none of its own is to be had.

    MOVER (Zou & Donner, Stat. Med. 27, 2008), with the correlation of the two estimates (Zou, Psychol. Methods 12,
    2007).
    """

    candidate: Uncertainty
    champion: Uncertainty
    correlation: float = 0.0

    @property
    def estimate(self) -> float:
        return self.candidate.estimate - self.champion.estimate

    def interval(self, confidence: float) -> Interval:
        (cl, cu), (hl, hu) = self.candidate.interval(confidence), self.champion.interval(confidence)
        c, h = self.candidate.estimate, self.champion.estimate
        return self.estimate - self._reach(c - cl, hu - h), self.estimate + self._reach(cu - c, h - hl)

    def _reach(self, one: float, other: float) -> float:
        if not self.correlation:
            return math.hypot(one, other)
        return math.sqrt(max(one * one + other * other - 2 * self.correlation * one * other, 0.0))


@dataclass(frozen=True)
class RootOf:
    """The square root of an estimate that is not negative, e.g. RMSE of MSE."""

    square: Uncertainty

    @property
    def estimate(self) -> float:
        return math.sqrt(self.square.estimate)

    def interval(self, confidence: float) -> Interval:
        low, high = self.square.interval(confidence)
        return math.sqrt(max(low, 0.0)), math.sqrt(max(high, 0.0))


def p_value(uncertainty: Uncertainty, threshold: float, *, side: str) -> float:
    """One-sided p-value of the hypothesis that the true value is not `below` (or `above`) the threshold.

    It inverts the interval: half of one minus the largest confidence whose interval still leaves the
    threshold out. Returns 1 if the estimate itself is not on that side.
    """
    if side not in ("below", "above"):
        raise ValueError(side)

    def beyond(confidence: float) -> bool:
        low, high = uncertainty.interval(confidence)
        return high < threshold if side == "below" else low > threshold

    # Bisection on the logarithm of the tail, from 1/2 down to 1e-9.
    small, large = math.log(1e-9), math.log(0.5)
    if not beyond(1e-9):
        return 1.0
    for _ in range(40):
        middle = (small + large) / 2
        if beyond(1 - 2 * math.exp(middle)):
            large = middle
        else:
            small = middle
    return math.exp(large)


def student_quantile(p: float, df: float) -> float:
    """Quantile of Student's t with `df` >= 1 degrees of freedom; p in (0, 1).

    Exact (bisection of the finite series of Abramowitz & Stegun 26.7.3-4) up to 60 degrees, and the
    Cornish-Fisher expansion (26.7.5, error below 1e-7 there) beyond.
    """
    if p < 0.5:
        return -student_quantile(1 - p, df)
    z = _NORMAL.inv_cdf(p)
    if df > 60:
        g1 = (z**3 + z) / 4
        g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
        g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
        return z + g1 / df + g2 / df**2 + g3 / df**3
    degrees = max(int(df), 1)
    low, high = 0.0, max(2 * z, 1.0)
    while _student_cdf(high, degrees) < p:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        if _student_cdf(middle, degrees) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _student_cdf(t: float, df: int) -> float:
    theta = math.atan2(t, math.sqrt(df))
    cos2 = math.cos(theta) ** 2
    if df % 2:
        term = total = math.cos(theta) if df > 1 else 0.0
        for k in range(3, df - 1, 2):
            term *= cos2 * (k - 1) / k
            total += term
        area = 2 / math.pi * (theta + math.sin(theta) * total)
    else:
        term = total = 1.0
        for k in range(2, df - 1, 2):
            term *= cos2 * (k - 1) / k
            total += term
        area = math.sin(theta) * total
    return 0.5 + area / 2


def normal_quantile(p: float) -> float:
    """Quantile of the standard normal distribution."""
    return _NORMAL.inv_cdf(p)


def _expit(x: float) -> float:
    if x >= 0:
        return 1 / (1 + math.exp(-min(x, 700.0)))
    e = math.exp(max(x, -700.0))
    return e / (1 + e)
