"""Evidence on distributions (latency, scores), gathered window by window from histograms with fixed bins."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcicd.core.errors import InputError
from mlcicd.rollout.eprocess import (
    Array,
    distribution_log_factors,
    grid,
    location_tilts,
    log_mixture,
    mean_interval,
    mean_log_e,
    normal_scores,
    rate_log_factors,
)
from mlcicd.rollout.rates import HARM_THETAS, CountGuard, bell
from mlcicd.rollout.spec import MetricSpec
from mlcicd.rollout.windows import Histogram

# Shifts in the champion's standard deviations (after its values are made normal by rank).
SHIFTS = np.array([0.05, 0.12, 0.25, 0.5, 1.0, 1.8])
# A wider or narrower spread around the same middle: t is proportional to exp(lambda (z^2 - 1)).
SPREADS = np.array([-0.3, -0.1, 0.08, 0.2])
TAIL_LEVELS = (0.5, 0.75, 0.9, 0.95, 0.99, 0.995)

# One-sided: the tails get more than the shifts, because a shift of everything is found so much sooner;
# far levels get more than near ones, which a shift finds, too. A slower tail exceeds a far level some two to
# four times as often.
_TAIL_LEVEL_WEIGHTS = np.array([0.03, 0.07, 0.15, 0.2, 0.3, 0.25])
_ONE_SIDED_LOG_WEIGHTS = np.concatenate(
    [
        np.full(len(SHIFTS), math.log(0.3 / len(SHIFTS))),
        np.add.outer(np.log(0.7 * _TAIL_LEVEL_WEIGHTS), bell(HARM_THETAS, 2.5, 0.8, 0.05)).ravel(),
    ]
)
# Two-sided: shifts up, shifts down, spreads, the shape seen so far, the mean. A weight w costs log(1/w)
# divided by the information per request, so that nearly all of it belongs to the small shifts.
_SHIFT_WEIGHTS = np.array([0.015, 0.33, 0.02, 0.115, 0.01, 0.005])
_TWO_SIDED_WEIGHTS = np.concatenate([_SHIFT_WEIGHTS, _SHIFT_WEIGHTS, np.full(len(SPREADS), 0.005), [0.02], [0.03]])
_TWO_SIDED_LOG_WEIGHTS = np.log(_TWO_SIDED_WEIGHTS / _TWO_SIDED_WEIGHTS.sum())

GOOD_THETAS = grid(0.05, 0.9, 10)
GOOD_LOG_WEIGHTS = np.full(len(GOOD_THETAS), -math.log(len(GOOD_THETAS)))

# Pseudo-requests that the bins (taken as equally likely) or the reference stand for beside what was counted.
_FLAT_PRIOR = 5.0
_REFERENCE_PRIOR = 1000.0
# Scale of the normal mixture for the mean: narrowest around a thousand canary requests.
_RHO_SQUARED = 0.01
# The mean's test is asymptotic: it keeps silent until this many observations are in the smaller arm.
_MEAN_BURN_IN = 40


@dataclass
class HistogramEvidence:
    """Canary against champion: does its distribution differ (in the bad direction) more than tolerated?

    The e-process is a mixture: for `lower` and `higher`, one-sided shifts by rank, and the
    rates at which the champion's p50 ... p99.5 are exceeded; for `same`, shifts both ways, changes of spread,
    the shape seen so far, and the asymptotic test of the mean.
    """

    spec: MetricSpec
    edges: tuple[float, ...] = ()
    past_a: Array = field(default_factory=lambda: np.zeros(0))
    past_b: Array = field(default_factory=lambda: np.zeros(0))
    tilts: Array = field(default_factory=lambda: np.zeros(0))
    tails: Array = field(default_factory=lambda: np.zeros((len(TAIL_LEVELS), len(HARM_THETAS))))
    good: Array = field(init=False)
    # Of the difference of means: weighted sum, sum of weights, estimated variance of the sum.
    mean: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])

    def __post_init__(self) -> None:
        self.good = np.zeros((len(self.spec.levels), len(GOOD_THETAS)))
        self.tilts = np.zeros(2 * len(SHIFTS) + len(SPREADS) + 1 if self.two_sided else len(SHIFTS))

    @property
    def two_sided(self) -> bool:
        return self.spec.sense == "same"

    def check(self, edges: tuple[float, ...]) -> None:
        """Whether a window with these edges can be taken.

        Raises:
            InputError: the edges differ from those of earlier windows, or the reference has other bins.
        """
        if self.edges and edges != self.edges:
            raise InputError(
                f"the bins of {self.spec.name!r} changed between windows",
                why="Evidence gathered on other bins can not be continued.",
                remedy="keep the bins for the whole rollout, or start it again",
            )
        bins = len(edges) + 1
        if self.spec.reference is not None and len(self.spec.reference) != bins:
            raise InputError(f"the reference of {self.spec.name!r} has {len(self.spec.reference)} bins, not {bins}")

    def update(self, champion: Histogram, canary: Histogram) -> None:
        """Takes one window's histograms.

        Raises:
            InputError: as :meth:`check`.
        """
        self.check(champion.edges)
        if not self.edges:
            bins = len(champion.edges) + 1
            self.edges, self.past_a, self.past_b = champion.edges, np.zeros(bins), np.zeros(bins)
        self.take(np.array(champion.counts, dtype=np.float64), np.array(canary.counts, dtype=np.float64))

    def take(self, x_a: Array, x_b: Array) -> None:
        """Takes one window's counts by bin, shape (J,), on the edges already fixed."""
        expected = self._expected()
        tolerated = self._tolerated(x_b)
        self.tilts = self.tilts + distribution_log_factors(x_a, tolerated, self._log_tilts(expected))
        if self.two_sided:
            self._add_means(x_a, x_b)
        else:
            self._add_tails(x_a, tolerated, expected)
            self._add_good(x_a, x_b, expected)
        self.past_a, self.past_b = self.past_a + x_a, self.past_b + x_b

    def _expected(self) -> Array:
        """What the champion's next window should look like, from what came before it: shape (J,), sum 1."""
        bins = len(self.past_a)
        prior = np.full(bins, _FLAT_PRIOR / bins)
        if self.spec.reference is not None:
            reference = np.array(self.spec.reference, dtype=np.float64)
            prior = prior + reference * min(1.0, _REFERENCE_PRIOR / reference.sum())
        return np.asarray((self.past_a + prior) / (self.past_a + prior).sum())

    def _tolerated(self, x_b: Array) -> Array:
        """The canary's counts as they would be with its values divided by the tolerance, in favour of the
        canary.

        A bin's content moves to the bin that holds its lower edge divided by the tolerance: whatever it held
        is then counted as no larger than it may be, so that the test errs on the canary's side. For `higher`
        the mirror image.
        """
        if self.spec.tolerance == 1.0 or self.two_sided:
            return x_b
        moved = np.zeros_like(x_b)
        np.add.at(moved, self._moved_bins(self.spec.tolerance), x_b)
        return moved

    def _moved_bins(self, factor: float) -> NDArray[np.intp]:
        """For each bin, the bin it counts as when values may be `factor` times as bad."""
        edges = np.array(self.edges)
        bins = np.arange(len(edges) + 1)
        if self.spec.sense == "lower":
            lower = np.searchsorted(edges, edges / factor, side="right")
            return np.asarray(np.minimum(bins, np.concatenate([[0], lower])))
        upper = np.searchsorted(edges, edges * factor, side="left")
        return np.asarray(np.maximum(bins, np.concatenate([upper, [len(edges)]])))

    def _log_tilts(self, expected: Array) -> Array:
        scores = normal_scores(expected)
        if not self.two_sided:
            sign = 1.0 if self.spec.sense == "lower" else -1.0
            return location_tilts(scores, expected, sign * SHIFTS)
        canary = self.past_b + 20.0 * expected
        shape = np.log(canary / canary.sum() / expected)
        return np.vstack(
            [
                location_tilts(scores, expected, np.concatenate([SHIFTS, -SHIFTS])),
                location_tilts(np.clip(scores**2 - 1.0, None, 8.0), expected, SPREADS),
                shape,
            ]
        )

    def _bad_side(self, counts: Array) -> Array:
        """How many lie beyond each edge on the bad side; shape (len(edges),)."""
        if self.spec.sense == "higher":
            return np.asarray(np.cumsum(counts)[:-1])
        return np.asarray(counts.sum() - np.cumsum(counts)[:-1])

    def _level_edges(self, expected: Array, levels: tuple[float, ...]) -> Array:
        """The edge (its index) nearest to each quantile of the champion, by the log of what lies beyond."""
        beyond = np.log(np.maximum(self._bad_side(expected), 1e-12))
        wanted = np.log1p(-np.array(levels))
        return np.asarray(np.argmin(np.abs(beyond[None, :] - wanted[:, None]), axis=1))

    def _add_tails(self, x_a: Array, x_b: Array, expected: Array) -> None:
        at = self._level_edges(expected, TAIL_LEVELS)
        beyond_a, beyond_b = self._bad_side(x_a)[at], self._bad_side(x_b)[at]
        self.tails = self.tails + rate_log_factors(beyond_a, x_a.sum(), beyond_b, x_b.sum(), 1.0, HARM_THETAS)

    def _add_good(self, x_a: Array, x_b: Array, expected: Array) -> None:
        """Promotion: does the canary exceed `margin` times a quantile less than the champion exceeds it?"""
        if self.spec.margin is None:
            return
        at = self._level_edges(expected, self.spec.levels)
        edges = np.array(self.edges)
        if self.spec.sense == "lower":
            # The last edge at or below the margin: counts too many rather than too few as beyond it.
            beyond_margin = np.maximum(np.searchsorted(edges, edges[at] * self.spec.margin, side="right") - 1, at)
        else:
            wanted = np.searchsorted(edges, edges[at] / self.spec.margin, side="left")
            beyond_margin = np.minimum(wanted, at)
        beyond_a, beyond_b = self._bad_side(x_a)[at], self._bad_side(x_b)[beyond_margin]
        self.good = self.good + rate_log_factors(beyond_a, x_a.sum(), beyond_b, x_b.sum(), 1.0, GOOD_THETAS)

    def _add_means(self, x_a: Array, x_b: Array) -> None:
        n_a, n_b = float(x_a.sum()), float(x_b.sum())
        if n_a == 0 or n_b == 0:
            return
        values = bin_values(self.edges)
        weight = n_a * n_b / (n_a + n_b)
        total_a, total_b = self.past_a + x_a, self.past_b + x_b
        self.mean[0] += weight * float(x_b @ values / n_b - x_a @ values / n_a)
        self.mean[1] += weight
        self.mean[2] = self.mean[1] * _pooled_variance(total_a, total_b, values)

    def harm_terms(self) -> tuple[Array, Array]:
        """The e-processes that are mixed into one: their logs, and the logs of their weights."""
        if self.two_sided:
            return np.append(self.tilts, self._log_mean(0.0)), _TWO_SIDED_LOG_WEIGHTS
        return np.concatenate([self.tilts, self.tails.ravel()]), _ONE_SIDED_LOG_WEIGHTS

    @property
    def log_harm(self) -> float:
        return float(log_mixture(*self.harm_terms()))

    def _log_mean(self, difference: float) -> float:
        """Log e-value against a given difference of means."""
        total, weight, variance = self.mean
        if min(self.past_a.sum(), self.past_b.sum()) < _MEAN_BURN_IN or variance <= 0:
            return 0.0
        return mean_log_e(total - difference * weight, variance, _RHO_SQUARED * weight / variance)

    @property
    def log_good(self) -> float | None:
        """Evidence against "worse than the margin" at the least convincing level; None when not asked."""
        if self.spec.margin is None:
            return None
        if not self.two_sided:
            return float(np.min(log_mixture(self.good, GOOD_LOG_WEIGHTS)))
        total, weight, _ = self.mean
        if weight == 0 or abs(total / weight) >= self.spec.margin:
            return 0.0
        return min(self._log_mean(self.spec.margin), self._log_mean(-self.spec.margin))

    @property
    def trials(self) -> tuple[int, int]:
        return int(self.past_a.sum()), int(self.past_b.sum())

    def observed(self) -> dict[str, float]:
        """p50 and p95 of both arms (upper edge of their bin); for `same` the means and the 95 % confidence sequence
        of their difference, once there is one."""
        values: dict[str, float] = {}
        for arm, counts in (("champion", self.past_a), ("canary", self.past_b)):
            if self.two_sided:
                values[arm] = float(counts @ bin_values(self.edges) / counts.sum()) if counts.sum() else math.nan
            else:
                values[f"{arm}_p50"] = quantile(self.edges, counts, 0.5)
                values[f"{arm}_p95"] = quantile(self.edges, counts, 0.95)
        if self.two_sided:
            low, high = self.mean_difference(0.05)
            if math.isfinite(low):
                values |= {"difference_low": low, "difference_high": high}
        return values

    def mean_difference(self, alpha: float) -> tuple[float, float]:
        """Confidence sequence (asymptotic) of the canary's mean minus the champion's; `same` only."""
        total, weight, variance = self.mean
        if variance <= 0 or min(self.trials) < _MEAN_BURN_IN:
            return -math.inf, math.inf
        return mean_interval(total, weight, variance, _RHO_SQUARED * weight / variance, alpha)

    def state(self) -> dict[str, Any]:
        return {
            "edges": list(self.edges),
            "past_a": self.past_a.tolist(),
            "past_b": self.past_b.tolist(),
            "tilts": self.tilts.tolist(),
            "tails": self.tails.tolist(),
            "good": self.good.tolist(),
            "mean": list(self.mean),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.edges = tuple(float(edge) for edge in state["edges"])
        bins = (len(self.edges) + 1 if self.edges else 0,)
        self.past_a, self.past_b = _shaped(state["past_a"], bins), _shaped(state["past_b"], bins)
        self.tilts = _shaped(state["tilts"], self.tilts.shape)
        self.tails = _shaped(state["tails"], self.tails.shape)
        self.good = _shaped(state["good"], self.good.shape)
        self.mean = _shaped(state["mean"], (3,)).tolist()


class QuantileGuard(CountGuard):
    """A quantile of the canary against a limit: the share of requests beyond it against 1 - quantile."""

    def check(self, edges: tuple[float, ...]) -> None:
        """Whether a window with these edges can be taken.

        Raises:
            InputError: no edge at or above the limit: what lies beyond it can not be told.
        """
        if edges[-1] < self.spec.limit:
            raise InputError(
                f"guard {self.spec.name!r} asks about {self.spec.limit:g}, the last edge is {edges[-1]:g}",
                remedy=f"give the histogram an edge at {self.spec.limit:g}",
            )

    def update(self, canary: Histogram) -> None:
        """Takes one window's histogram.

        Raises:
            InputError: as :meth:`check`.
        """
        self.check(canary.edges)
        first = int(np.searchsorted(np.array(canary.edges), self.spec.limit, side="left"))
        beyond = sum(canary.counts[first + 1 :])
        self._take(beyond, canary.total, 1.0 - float(self.spec.quantile or 0.0), HARM_THETAS)


def quantile(edges: tuple[float, ...], counts: Array, level: float) -> float:
    """The upper edge of the bin that holds the quantile (infinite for the last bin); NaN without counts."""
    total = counts.sum()
    if total == 0:
        return math.nan
    position = int(np.searchsorted(np.cumsum(counts), level * total, side="left"))
    return edges[position] if position < len(edges) else math.inf


def bin_values(edges: tuple[float, ...]) -> Array:
    """One value per bin: the middle, or the edge for the two open bins. Shape (len(edges) + 1,)."""
    array = np.array(edges)
    return np.concatenate([array[:1], (array[:-1] + array[1:]) / 2, array[-1:]])


def _pooled_variance(x_a: Array, x_b: Array, values: Array) -> float:
    """Variance within the arms, so that a difference between them does not hide itself."""
    squares = 0.0
    for counts in (x_a, x_b):
        mean = float(counts @ values / counts.sum())
        squares += float(counts @ (values - mean) ** 2)
    return squares / max(float(x_a.sum() + x_b.sum()) - 2.0, 1.0)


def _shaped(values: Any, shape: tuple[int, ...]) -> Array:
    array = np.asarray(values, dtype=np.float64).reshape(shape)
    if not np.all(np.isfinite(array)):
        raise ValueError("a number in the state is not finite")
    return array
