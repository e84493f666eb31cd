"""Distributions of one or two models put together, where little or no variation was seen included."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlcicd.evaluation.drawn import Accelerated, Draws, Weighed
from mlcicd.evaluation.uncertainty import (
    Boundary,
    LogitNormal,
    Normal,
    Recovered,
    SkewedMean,
    Uncertainty,
    Unknown,
    variance_degrees,
)

Floats = NDArray[np.float64]

# Below this, rows without any variation say nothing about a quantity that has no bounds.
FEW = 30
_NOTHING = 1e-12


@dataclass(frozen=True)
class Found:
    """A metric's distributions, or the reasons why there are none.

    `caution`, `difference_caution`: why the candidate's interval, or that of the difference, is not to be trusted.
    """

    candidate: Uncertainty | None = None
    champion: Uncertainty | None = None
    difference: Uncertainty | None = None
    method: str = ""
    reason: str = ""
    champion_reason: str = ""
    identical: bool = False
    caution: str = ""
    difference_caution: str = ""


def pair_of(singles: list[Uncertainty], difference: Uncertainty | None, method: str) -> Found:
    """One or two models' distributions, and that of their difference."""
    return Found(singles[0], singles[1] if len(singles) == 2 else None, difference, method)


def paired(
    points: list[float],
    drawn: list[Floats],
    method: str,
    units: float = math.inf,
    without: list[Floats] | None = None,
) -> Found:
    """Draws of one or two models, made together by exponential weights; `units` are what was drawn, where they are few.

    Args:
        without: (units,) estimates of each model without one unit after the other.
    """
    left = without if without is not None else [None] * len(points)
    singles = [weighed(p, d, units, w) for p, d, w in zip(points, drawn, left, strict=True)]
    gap = None
    if len(points) == 2:
        apart = None if without is None else without[0] - without[1]
        gap = weighed(points[0] - points[1], drawn[0] - drawn[1], units, apart)
    return pair_of(singles, gap, method)


def spread_of(point: float, draws: Floats, units: float, without: Floats | None, of: int = 0) -> Uncertainty:
    """Draws of one quantity; where it is known what leaving units out does, corrected for skewness and heavy tails.

    A bootstrap's spread has the degrees of freedom of the sample's variance (see `variance_degrees`), which few or
    heavy-tailed units make fewer than their number.

    Args:
        without: (units,) estimates without one unit, or one block of units, after the other.
        of: how many units the blocks are made of; 0: each is one unit.
    """
    pulls = None if without is None else _Pulls.of(without, of)
    if pulls is None:
        return Draws(point, draws, units)
    return Accelerated(point, draws, pulls.acceleration, pulls.degrees(units))


def weighed(point: float, draws: Floats, units: float, without: Floats | None) -> Uncertainty:
    """The same of draws by exponential weights of units, each of which was left out in turn."""
    pulls = None if without is None else _Pulls.of(without, 0)
    seen = float(draws.std())
    if pulls is None or seen < _NOTHING:
        return Draws(point, draws, units)
    return Weighed(point, draws, pulls.acceleration, pulls.degrees(units), pulls.se / seen)


@dataclass(frozen=True)
class _Pulls:
    """What leaving units out moves a quantity by: its standard error by the jackknife, and moments of the pulls."""

    se: float
    acceleration: float
    count: int
    excess: float

    @classmethod
    def of(cls, without: Floats, count: int) -> _Pulls | None:
        """None where there are too few, or nothing moves; `count` units are in the blocks (0: one in each)."""
        pull = without.mean() - without
        squares = float(pull @ pull)
        if pull.size < 3 or squares <= 0:
            return None
        blocks, count = pull.size, count or pull.size
        # Sums over blocks are closer to normal than what they are sums of.
        excess = (blocks * float((pull * pull) @ (pull * pull)) / squares**2 - 3) * count / blocks
        se = math.sqrt(squares * (blocks - 1) / blocks)
        return cls(se, float((pull * pull) @ pull) / (6 * squares**1.5), count, excess)

    def degrees(self, units: float) -> float:
        """Of freedom, and one; at most `units`."""
        # The acceleration is a sixth of the skewness of all units' sum.
        found = variance_degrees(self.count, self.excess, 6 * self.acceleration * math.sqrt(self.count))
        return max(2.0, min(units, found))


def unknown(found: Found, low: float, high: float) -> Found:
    """The same estimates, of which nothing more is known than the metric's range."""

    def settle(part: Uncertainty | None, below: float, above: float) -> Uncertainty | None:
        return None if part is None else Unknown(part.estimate, below, above)

    reach = high - low
    return replace(
        found,
        candidate=settle(found.candidate, low, high),
        champion=settle(found.champion, low, high),
        difference=settle(found.difference, -reach, reach),
    )


def without_certainty(found: Found, low: float, high: float, n: int) -> Found:
    """Draws that all agree say that no variation was seen, not that there is none."""

    def settle(part: Uncertainty | None) -> Uncertainty | None:
        return Boundary(part.estimate, n, low, high) if part is not None and _still(part) else part

    candidate, champion = settle(found.candidate), settle(found.champion)
    difference = found.difference
    if difference is not None and _still(difference) and candidate and champion:
        difference = Recovered(candidate, champion)
    return replace(found, candidate=candidate, champion=champion, difference=difference)


def _still(part: Uncertainty) -> bool:
    return isinstance(part, Draws | Accelerated | Weighed) and float(np.ptp(part.draws)) < _NOTHING


def settled(mean: SkewedMean) -> Uncertainty:
    """A mean that may show no variation at all."""
    if mean.n < 2:
        return Unknown(mean.estimate, mean.low, mean.high)
    if mean.se > 0:
        return mean
    if math.isfinite(mean.low) and math.isfinite(mean.high):
        return Boundary(mean.estimate, mean.n, mean.low, mean.high)
    return mean if mean.n >= FEW else Unknown(mean.estimate, mean.low, mean.high)


def area(value: float, se: float, count: float) -> Uncertainty:
    """An area under a curve: normal on the logit scale, `count` rows of the rarer class."""
    if count < 2:
        return Unknown(value, 0.0, 1.0)
    if se < _NOTHING or not _NOTHING < value < 1 - _NOTHING:
        return Boundary(value, count)
    return LogitNormal(value, se, count - 1)


def area_difference(singles: list[Uncertainty], se: float, count: float) -> Uncertainty:
    """The difference of two areas of standard error `se`."""
    gap = singles[0].estimate - singles[1].estimate
    if count < 2:
        return Unknown(gap, -1.0, 1.0)
    if se < _NOTHING:
        return Recovered(singles[0], singles[1])
    return Normal(gap, se, count - 1, -1.0, 1.0)
