"""Evidence on event rates, gathered window by window: against the champion, and against a fixed limit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from mlcicd.rollout.eprocess import Array, bernoulli_log_factors, grid, log_mixture, rate_log_factors
from mlcicd.rollout.spec import GuardSpec, MetricSpec


def bell(thetas: Array, centre: float, width: float, rest: float) -> Array:
    """Log weights, normalised: a bell over the logarithm of theta on a floor."""
    weights = np.exp(-0.5 * (np.log(thetas / centre) / width) ** 2) + rest
    return np.asarray(np.log(weights / weights.sum()))


# How many times worse than tolerated the canary may be, with weights: most of what is worth stopping is 1.5
# to 6 times as bad, and a canary ten times as bad is found in a few errors whatever its weight.
HARM_THETAS = grid(1.15, 20.0, 16)
HARM_LOG_WEIGHTS = bell(HARM_THETAS, centre=4.0, width=1.3, rest=0.1)
GOOD_THETAS = grid(0.05, 0.9, 10)


@lru_cache(maxsize=64)
def good_alternatives(margin: float) -> tuple[Array, Array]:
    """Ratios below the margin, with log weights; half the weight is on a canary exactly like its champion."""
    thetas = np.concatenate([[1.0 / margin], GOOD_THETAS])
    weights = np.concatenate([[0.5], np.full(len(GOOD_THETAS), 0.5 / len(GOOD_THETAS))])
    return thetas, np.log(weights)


def limit_alternatives(limit: float, thetas: Array) -> Array:
    """Rates whose odds are `thetas` times those of the limit: always between 0 and 1."""
    odds = thetas * limit / (1.0 - limit)
    return np.asarray(odds / (1.0 + odds))


# Before anything is known of a champion whose evidence is to be tempered, it is taken to vary by a third:
# bursts do most of their harm in the first minutes, when there is nothing yet to estimate them from.
_PRIOR_SQUARED_VARIATION = 0.1
_PRIOR_PAIRS = 3


@dataclass
class Dispersion:
    """How much more than by chance the champion's rate moves from one block of windows to the next.

    Successive differences (von Neumann 1941) rather than a variance: a slow drift, which both arms share and
    which the test allows for anyway, hardly counts. A block is longer than a window because bursts are.
    """

    block: int = 6
    windows: int = 0
    x: float = 0.0
    n: float = 0.0
    last_rate: float = -1.0
    last_n: float = 0.0
    squares: float = 0.0
    inverses: float = 0.0
    pairs: int = 0
    events: float = 0.0
    trials: float = 0.0

    def add(self, x: int, n: int) -> None:
        if n == 0:
            return
        self.windows, self.x, self.n = self.windows + 1, self.x + x, self.n + n
        self.events, self.trials = self.events + x, self.trials + n
        if self.windows < self.block:
            return
        rate = self.x / self.n
        if self.last_rate >= 0:
            self.squares += (rate - self.last_rate) ** 2
            self.inverses += 1 / self.n + 1 / self.last_n
            self.pairs += 1
        self.last_rate, self.last_n = rate, self.n
        self.windows, self.x, self.n = 0, 0.0, 0.0

    def exponent(self, n_a: int, n_b: int) -> float:
        """The power, in (0, 1], to which the next window's factor is to be taken.

        With coefficient of variation c in each arm, the variance of the log ratio of two counts of means m_a
        and m_b is 1/m_a + 1/m_b + 2 c^2 where chance alone gives 1/m_a + 1/m_b.
        """
        if n_a == 0 or n_b == 0:
            return 1.0
        rate = (self.events + 1) / (self.trials + 200)
        excess = (self.squares - rate * self.inverses) / (2 * rate * rate)
        squared = max((excess + _PRIOR_PAIRS * _PRIOR_SQUARED_VARIATION) / (self.pairs + _PRIOR_PAIRS), 0.0)
        expected = self.block * rate * n_a * n_b / (n_a + n_b)
        return 1.0 / (1.0 + 2.0 * squared * expected)


@dataclass
class RateEvidence:
    """Canary against champion: is its rate worse than tolerated? Is it surely within the promotion margin?"""

    spec: MetricSpec
    temper: bool = False
    harm: Array = field(default_factory=lambda: np.zeros(len(HARM_THETAS)))
    harm_floor: Array = field(default_factory=lambda: np.zeros(len(HARM_THETAS)))
    good: Array = field(default_factory=lambda: np.zeros(len(GOOD_THETAS) + 1))
    good_floor: Array = field(default_factory=lambda: np.zeros(len(GOOD_THETAS)))
    counts: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    dispersion: Dispersion = field(default_factory=Dispersion)

    def update(self, x_a: int, n_a: int, x_b: int, n_b: int) -> None:
        """Takes one window's events and trials of champion (a) and canary (b)."""
        power = self.dispersion.exponent(n_a, n_b) if self.temper else 1.0
        # "Higher is better" is the same test with the arms exchanged: is the champion's rate more than r
        # times the canary's?
        arms = (x_a, n_a, x_b, n_b) if self.spec.sense == "lower" else (x_b, n_b, x_a, n_a)
        self.harm = self.harm + power * rate_log_factors(*arms, self.spec.tolerance, HARM_THETAS)
        if self.spec.margin is not None:
            thetas, _ = good_alternatives(self.spec.margin)
            self.good = self.good + power * rate_log_factors(*arms, self.spec.margin, thetas)
        if self.spec.floor > 0:
            floor = self.spec.floor
            worse, better = limit_alternatives(floor, HARM_THETAS), limit_alternatives(floor, GOOD_THETAS)
            self.harm_floor = self.harm_floor + power * bernoulli_log_factors(x_b, n_b, floor, worse)
            self.good_floor = self.good_floor + power * bernoulli_log_factors(x_b, n_b, floor, better)
        if self.temper:
            self.dispersion.add(x_a, n_a)
        self.counts = [total + new for total, new in zip(self.counts, (x_a, n_a, x_b, n_b), strict=True)]

    @property
    def log_harm(self) -> float:
        """Against "no worse than tolerated"; with a floor, the lesser of that and "below the floor"."""
        log_e = float(log_mixture(self.harm, HARM_LOG_WEIGHTS))
        if self.spec.floor > 0:
            log_e = min(log_e, float(log_mixture(self.harm_floor, HARM_LOG_WEIGHTS)))
        return log_e

    @property
    def log_good(self) -> float | None:
        """Evidence against "worse than the margin (and than the floor)"; None when nothing is asked."""
        if self.spec.margin is None:
            return None
        log_e = float(log_mixture(self.good, good_alternatives(self.spec.margin)[1]))
        if self.spec.floor > 0:
            # Both are e-processes when the canary is worse than margin and floor, and so is their mean.
            floor = float(log_mixture(self.good_floor, np.full(len(GOOD_THETAS), -math.log(len(GOOD_THETAS)))))
            log_e = float(np.logaddexp(log_e, floor)) - math.log(2)
        return log_e

    @property
    def trials(self) -> tuple[int, int]:
        return self.counts[1], self.counts[3]

    def observed(self) -> dict[str, float]:
        x_a, n_a, x_b, n_b = self.counts
        return {"champion": x_a / n_a if n_a else math.nan, "canary": x_b / n_b if n_b else math.nan}

    def state(self) -> dict[str, Any]:
        return {
            "harm": self.harm.tolist(),
            "harm_floor": self.harm_floor.tolist(),
            "good": self.good.tolist(),
            "good_floor": self.good_floor.tolist(),
            "counts": list(self.counts),
            "dispersion": vars(self.dispersion).copy(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.harm = _same_length(state["harm"], self.harm)
        self.harm_floor = _same_length(state["harm_floor"], self.harm_floor)
        self.good = _same_length(state["good"], self.good)
        self.good_floor = _same_length(state["good_floor"], self.good_floor)
        x_a, n_a, x_b, n_b = (int(count) for count in state["counts"])
        self.counts = [x_a, n_a, x_b, n_b]
        self.dispersion = Dispersion(**state["dispersion"])


@dataclass
class CountGuard:
    """Evidence that the canary's share of events is beyond a fixed one."""

    spec: GuardSpec
    harm: Array = field(default_factory=lambda: np.zeros(len(HARM_THETAS)))
    counts: list[int] = field(default_factory=lambda: [0, 0])

    def _take(self, x: int, n: int, limit: float, thetas: Array) -> None:
        self.harm = self.harm + bernoulli_log_factors(x, n, limit, limit_alternatives(limit, thetas))
        self.counts = [self.counts[0] + x, self.counts[1] + n]

    @property
    def log_harm(self) -> float:
        return float(log_mixture(self.harm, HARM_LOG_WEIGHTS))

    @property
    def log_good(self) -> float | None:
        return None

    @property
    def trials(self) -> tuple[int, int]:
        return 0, self.counts[1]

    def observed(self) -> dict[str, float]:
        x, n = self.counts
        return {"canary": x / n if n else math.nan}

    def state(self) -> dict[str, Any]:
        return {"harm": self.harm.tolist(), "counts": list(self.counts)}

    def load(self, state: dict[str, Any]) -> None:
        self.harm = _same_length(state["harm"], self.harm)
        x, n = (int(count) for count in state["counts"])
        self.counts = [x, n]


class RateGuard(CountGuard):
    """The canary's rate against a fixed limit."""

    def update(self, x: int, n: int) -> None:
        """Takes one window's events and trials of the canary."""
        self._take(x, n, self.spec.limit, HARM_THETAS if self.spec.direction == "lower" else 1.0 / HARM_THETAS)


def _same_length(values: list[float], like: Array) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != like.shape or not np.all(np.isfinite(array)):
        raise ValueError(f"expected {like.shape} finite numbers, found {array.shape}")
    return array
