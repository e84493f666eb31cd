"""Bootstrap draws, and the intervals that are read from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mlcicd.evaluation.uncertainty import Interval, student_quantile

Floats = NDArray[np.float64]

_NORMAL = NormalDist()


@dataclass(frozen=True, eq=False)
class Draws:
    """Percentile interval of (B,) bootstrap draws; it always holds the estimate.

    Attributes:
        units: how many independent units were drawn. The plug-in variance of few of them is too small, and so is the
            normal's quantile: the tails are taken so that the interval of a mean is Student's (the expanded percentile
            interval; Hesterberg, Am. Stat. 69, 2015). Infinite where the drawing allows for it.
    """

    estimate: float
    draws: Floats
    units: float = math.inf

    def interval(self, confidence: float) -> Interval:
        tail = expanded_tail((1 - confidence) / 2, self.units)
        return min(self.at(tail), self.estimate), max(self.at(1 - tail), self.estimate)

    def at(self, level: float) -> float:
        """The quantile of a level; beyond what B draws resolve, the normal's tail goes on where they end."""
        level = min(max(level, 1e-300), 1 - 1e-16)
        # Between order statistics at k / (B + 1), where B + 1 exchangeable values have them on average: at numpy's
        # default, k / (B - 1), an interval of 1,000 draws that is to miss 5 % misses 5.2 %.
        value = float(np.quantile(self.draws, level, method="weibull"))
        if level * self.draws.size < 1:
            return min(value, self.estimate + _NORMAL.inv_cdf(level) * float(self.draws.std()))
        if (1 - level) * self.draws.size < 1:
            return max(value, self.estimate - _NORMAL.inv_cdf(1 - level) * float(self.draws.std()))
        return value


def expanded_tail(tail: float, units: float) -> float:
    """The tail of draws that gives the interval of a mean of so few units Student's width."""
    if not 2 <= units < 1e6:
        return tail
    reach = student_quantile(1 - tail, units - 1) * math.sqrt(units / (units - 1))
    return max(_NORMAL.cdf(-reach), 1e-300)


@dataclass(frozen=True, eq=False)
class Accelerated:
    """Bootstrap draws whose percentiles are corrected for bias and skewness (BCa; Efron, J. Am. Stat. Assoc. 82, 1987).

    Attributes:
        draws: (B,) B >= 100.
        acceleration: a sixth of the skewness of the units' contributions, by the jackknife.
        units: as of `Draws`.
    """

    estimate: float
    draws: Floats
    acceleration: float
    units: float = math.inf

    def interval(self, confidence: float) -> Interval:
        z = -_NORMAL.inv_cdf(expanded_tail((1 - confidence) / 2, self.units))
        low, high = (Draws(self.estimate, self.draws).at(self._level(end)) for end in (-z, z))
        return min(low, self.estimate), max(high, self.estimate)

    def _level(self, z: float) -> float:
        """The share of draws below the end of the interval that the normal has at z."""
        bias = _bias(self.estimate, self.draws)
        shift = bias + z
        # Beyond its pole the correction says nothing: a skewness that large is the sample's, not the population's.
        return _NORMAL.cdf(bias + shift / max(1 - self.acceleration * shift, 0.3))


@dataclass(frozen=True, eq=False)
class Weighed:
    """Draws by Exp(1) weights of units, corrected for bias and skewness, and as wide as the jackknife says.

    Exponential weights have a third cumulant of 2 where counts of draws with replacement have 1, so that such draws are
    twice as skewed as BCa takes them for, and their median is off by twice as much. With a the acceleration and z_0 the
    bias that is seen, Efron's level z + 2 (z_0 - a) + a z^2, less the a (z^2 - 1) that the draws have too much, is
    z + 2 z_0 - a, to the order at which BCa is correct itself (P. Hall, The Bootstrap and Edgeworth Expansion, 1992,
    ch. 3).

    Attributes:
        draws, acceleration, units: as of `Accelerated`.
        stretch: standard error by the jackknife, by that of the draws. Of few units of unequal size the bootstrap of a
            ratio is too narrow, and the jackknife is not (Wu, Ann. Stat. 14, 1986; Bell & McCaffrey, Survey Methodology
            28, 2002). It moves the tails that the draws are read at, so that ends stay within a metric's range.
    """

    estimate: float
    draws: Floats
    acceleration: float
    units: float
    stretch: float = 1.0

    def interval(self, confidence: float) -> Interval:
        z = student_quantile((1 + confidence) / 2, max(self.units - 1, 1.0)) * self.stretch
        middle = 2 * _bias(self.estimate, self.draws) - self.acceleration
        low, high = (Draws(self.estimate, self.draws).at(_NORMAL.cdf(middle + end)) for end in (-z, z))
        return min(low, self.estimate), max(high, self.estimate)


def _bias(estimate: float, draws: Floats) -> float:
    """The normal's quantile of the share of draws below the estimate."""
    size = draws.size
    below = float((draws < estimate).sum() + (draws == estimate).sum() / 2)
    return _NORMAL.inv_cdf(min(max(below, 0.5), size - 0.5) / size)
