"""Calibration: the reliability curve, the debiased expected calibration error, the Brier score's parts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlcicd.evaluation.drawn import expanded_tail
from mlcicd.evaluation.uncertainty import normal_quantile

Floats = NDArray[np.float64]

BINS = 15
_SIZES = 30  # of true errors that are tried, below what was seen and above
_erf = np.frompyfunc(math.erf, 1, 1)


@dataclass(frozen=True)
class Reliability:
    """Bins of about equal weight, of (bins,) each: mean score, observed rate, weight and effective rows."""

    score: Floats
    rate: Floats
    weight: Floats
    rows: Floats


@dataclass(frozen=True)
class BrierParts:
    """Brier = reliability - resolution + uncertainty + remainder within bins (Murphy, 1973)."""

    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    remainder: float


def assign_bins(scores: Floats, bins: int = BINS) -> tuple[NDArray[np.intp], int]:
    """(n,) bin numbers by the scores' quantiles, and how many bins there are; equal scores share a bin."""
    wanted = max(1, min(bins, scores.size // 10))
    # Quantiles of a regular sample are exact enough for edges, and much cheaper than of a million rows.
    step = max(1, scores.size // 100_000)
    edges = np.unique(np.quantile(scores[::step], np.linspace(0, 1, wanted + 1)[1:-1]))
    return np.searchsorted(edges, scores, side="right"), edges.size + 1


def reliability(y: NDArray[np.bool_], scores: Floats, weight: Floats | None = None, bins: int = BINS) -> Reliability:
    """The reliability curve: what was said and what happened, bin by bin."""
    bin_, count = assign_bins(scores, bins)
    w = np.ones(scores.size) if weight is None else weight
    total = np.bincount(bin_, weights=w, minlength=count)
    squares = np.bincount(bin_, weights=w * w, minlength=count)
    said = np.bincount(bin_, weights=w * scores, minlength=count)
    seen = np.bincount(bin_, weights=w * y, minlength=count)
    full = total > 0
    total, squares, said, seen = total[full], squares[full], said[full], seen[full]
    return Reliability(said / total, seen / total, total / total.sum(), total * total / squares)


def debiased_ece(gap: Floats, variance: Floats, weight: Floats) -> float:
    """Expected calibration error with the bias of its absolute values taken out.

    With few rows a bin, even a perfectly calibrated model has gaps, and their absolute values add up. Taken is the size
    of true gaps (in the proportions of those seen) of which as large absolute values are to be expected: under
    gap_b ~ N(true_b, variance_b), E|gap_b| is the mean of a folded normal. 0 where chance alone gives as much.

    Args:
        gap, variance, weight: (bins,); weights add up to one.
    """
    sigma = np.sqrt(np.maximum(variance, 1e-300))
    size = np.abs(gap)
    seen = float(weight @ size)
    if seen <= 0:
        return 0.0
    low, high = 0.0, seen
    if float(weight @ _folded(np.zeros_like(size), sigma)) >= seen:
        return 0.0
    for _ in range(50):
        middle = (low + high) / 2
        if float(weight @ _folded(middle / seen * size, sigma)) < seen:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _folded(mean: Floats, sigma: Floats) -> Floats:
    """E|x| of normal x."""
    z = mean / sigma
    erf: Floats = np.asarray(_erf(z / math.sqrt(2)), dtype=np.float64)
    folded: Floats = sigma * math.sqrt(2 / math.pi) * np.exp(-z * z / 2) + mean * erf
    return folded


def ece(y: NDArray[np.bool_], scores: Floats, weight: Floats | None = None, bins: int = BINS) -> float:
    """The debiased expected calibration error of one model."""
    curve = reliability(y, scores, weight, bins)
    return debiased_ece(curve.rate - curve.score, rate_variance(curve.rate, curve.rows), curve.weight)


@dataclass(frozen=True, eq=False)
class CalibrationError:
    """An expected calibration error, whose interval inverts a test.

    A sum of absolute values has no interval of the usual kinds near 0, where it is not differentiable. So for each size
    of true gaps, in the proportions of those seen, the sum that would be observed is drawn; the interval holds the
    sizes for which what was observed is no surprise.

    The same true error, unevenly spread over the bins, gives a larger sum than evenly spread, as |x| is convex. What is
    seen is more uneven than the truth, by its own noise; taken for the truth, it would make the upper end too low. So
    the upper end takes gaps whose spread the noise's variance is taken out of; for the lower one, uneven is cautious.

    Attributes:
        seen: the observed sum of absolute gaps.
        sizes: (k,) true errors, ascending from 0.
        sums: (k, draws) what would be observed of gaps in the proportions of those seen, ascending in each row.
        even: the same, of gaps that are as uneven as is left when their noise is taken out.
        units: as of `Draws`.
    """

    estimate: float
    seen: float
    sizes: Floats
    sums: Floats
    even: Floats
    units: float = math.inf

    def interval(self, confidence: float) -> tuple[float, float]:
        tail = expanded_tail((1 - confidence) / 2, self.units)
        most, least = np.quantile(self.sums, 1 - tail, axis=1), np.quantile(self.even, tail, axis=1)
        if tail * self.sums.shape[1] < 1:
            reach = -normal_quantile(tail)
            most = np.maximum(most, self.sums.mean(axis=1) + reach * self.sums.std(axis=1))
            least = np.minimum(least, self.even.mean(axis=1) - reach * self.even.std(axis=1))
        low = np.interp(self.seen, np.maximum.accumulate(most), self.sizes)
        # Less than a calibrated model's own chance gives is luck, and no proof of anything smaller.
        chance = float(np.median(self.sums[0]))
        high = np.interp(max(self.seen, chance), np.maximum.accumulate(least), self.sizes)
        return min(float(low), self.estimate), min(max(float(high), self.estimate), 1.0)


def calibration_error(
    y: NDArray[np.bool_],
    scores: Floats,
    groups: tuple[NDArray[np.intp], Floats],
    weight: Floats | None = None,
    units: float = math.inf,
) -> tuple[CalibrationError, Floats]:
    """The expected calibration error with its distribution, and (resamples,) draws of it to correlate two models by.

    Args:
        groups: (n,) group numbers, and (resamples, groups) weights of the groups: a Bayesian bootstrap.
        units: how many independent units were drawn, where they are few.
    """
    curve = reliability(y, scores, weight)
    gap, variance = curve.rate - curve.score, rate_variance(curve.rate, curve.rows)
    noise = _gap_noise(y, scores, groups, weight)
    drawn = noise.std(axis=0)
    # Rows of one group move together, which a binomial does not know; a bin of one answer varies, whatever was drawn.
    unseen = drawn < 1e-9
    noise[:, unseen] = np.random.default_rng(0).standard_normal((noise.shape[0], int(unseen.sum())))
    noise *= np.maximum(np.sqrt(variance) / np.where(unseen, 1.0, drawn), np.where(unseen, 0.0, 1.0))
    estimate = debiased_ece(gap, variance, curve.weight)
    seen = float(curve.weight @ np.abs(gap))
    shape = gap / seen if seen > 0 else np.ones_like(gap)
    evened = _evened(gap, noise.std(axis=0), curve.weight) / seen if seen > 0 else shape

    def observed(size: float, proportions: Floats) -> Floats:
        sums: Floats = np.abs(noise + size * proportions) @ curve.weight
        return sums

    reach = seen + 8 * float(observed(seen, shape).std()) + 1e-12
    sizes = np.concatenate([np.linspace(0, seen, _SIZES), np.linspace(seen, reach, _SIZES)[1:]])
    sums, even = (np.sort(np.stack([observed(size, of) for size in sizes]), axis=1) for of in (shape, evened))
    return CalibrationError(estimate, seen, sizes, sums, even, units), observed(estimate, shape)


def _evened(gap: Floats, sigma: Floats, weight: Floats) -> Floats:
    """(bins,) gaps of the same signs and mean size, whose sizes vary by as much less as their noise does.

    Gaps of size |m_b| are seen with the variance of a folded normal around them: what is left of the sizes' variance is
    that of the true ones.
    """
    size = np.abs(gap)
    mean = float(weight @ size)
    spread = float(weight @ (size - mean) ** 2)
    sigma = np.maximum(sigma, 1e-150)
    noise = float(weight @ (size * size + sigma * sigma - _folded(size, sigma) ** 2))
    kept = math.sqrt(max(0.0, 1 - noise / spread)) if spread > 0 else 1.0
    evened: Floats = np.where(gap < 0, -1.0, 1.0) * (mean + kept * (size - mean))
    return evened


def _gap_noise(
    y: NDArray[np.bool_], scores: Floats, groups: tuple[NDArray[np.intp], Floats], weight: Floats | None
) -> Floats:
    """(resamples, bins) how far the gaps of a bootstrap of groups of rows are from their means."""
    numbers, drawn = groups
    bin_, bins = assign_bins(scores)
    code = numbers * bins + bin_
    count = drawn.shape[1]

    def add(values: Floats | None) -> Floats:
        both = values if weight is None else (weight if values is None else weight * values)
        summed = np.bincount(code, weights=both, minlength=count * bins).astype(np.float64)
        total: Floats = drawn @ summed.reshape(count, bins)
        return total

    total, apart = add(None), add(y - scores)
    full = total[0] > 0
    gaps = apart[:, full] / total[:, full]
    noise: Floats = gaps - gaps.mean(axis=0)
    return noise


def rate_variance(rate: Floats, rows: Floats) -> Floats:
    """Variance of an observed rate; a rate of 0 or 1 of few rows is not certain (Laplace's one and one)."""
    shrunk = (rate * rows + 1) / (rows + 2)
    value: Floats = shrunk * (1 - shrunk) / np.maximum(rows, 1)
    return value


def brier_parts(y: NDArray[np.bool_], scores: Floats, weight: Floats | None = None, bins: int = BINS) -> BrierParts:
    """Murphy's decomposition over the reliability bins."""
    w = np.full(scores.size, 1 / scores.size) if weight is None else weight / weight.sum()
    curve = reliability(y, scores, weight, bins)
    base = float(w @ y)
    brier = float(w @ (scores - y) ** 2)
    rel = float(curve.weight @ (curve.score - curve.rate) ** 2)
    res = float(curve.weight @ (curve.rate - base) ** 2)
    unc = base * (1 - base)
    return BrierParts(brier, rel, res, unc, brier - rel + res - unc)
