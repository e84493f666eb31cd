"""Calibration: the reliability curve, the debiased expected calibration error, the Brier score's parts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BINS = 15
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


def debiased_ece(gap: Floats, variance: Floats, weight: Floats) -> Floats:
    """Expected calibration error with the bias of its absolute values taken out.

    With few rows a bin, even a perfectly calibrated model has gaps, and their absolute values add up. Under
    gap_b ~ N(gap_b, variance_b), E|gap_b| is the mean of a folded normal, known in closed form; its excess
    over the observed |gap_b| is subtracted (Kumar, Liang & Ma, NeurIPS 2019, who simulate it). Cut at 0.

    Args:
        gap, variance, weight: (..., bins); weights add up to one over the last axis.
    """
    sigma = np.sqrt(np.maximum(variance, 1e-300))
    size = np.abs(gap)
    z = size / sigma
    erf: Floats = np.asarray(_erf(z / math.sqrt(2)), dtype=np.float64)
    folded = sigma * math.sqrt(2 / math.pi) * np.exp(-z * z / 2) + size * erf
    value: Floats = np.maximum((weight * (2 * size - folded)).sum(axis=-1), 0.0)
    return value


def ece(y: NDArray[np.bool_], scores: Floats, weight: Floats | None = None, bins: int = BINS) -> float:
    """The debiased expected calibration error of one model."""
    curve = reliability(y, scores, weight, bins)
    return float(debiased_ece(curve.rate - curve.score, rate_variance(curve.rate, curve.rows), curve.weight))


def ece_draws(
    y: NDArray[np.bool_],
    scores: Floats,
    groups: tuple[NDArray[np.intp], Floats],
    weight: Floats | None = None,
) -> Floats:
    """(resamples,) debiased errors of a bootstrap of groups of rows.

    Args:
        groups: (n,) group numbers, and (resamples, groups) weights of the groups.
    """
    numbers, drawn = groups
    bin_, bins = assign_bins(scores)
    code = numbers * bins + bin_
    count = drawn.shape[1]

    def add(values: Floats | None) -> Floats:
        both = values if weight is None else (weight if values is None else weight * values)
        summed = np.bincount(code, weights=both, minlength=count * bins).astype(np.float64)
        total: Floats = drawn @ summed.reshape(count, bins)
        return total

    total, said, seen = add(None), add(scores), add(y.astype(np.float64))
    full = total[0] > 0
    total, said, seen = total[:, full], said[:, full], seen[:, full]
    rate = seen / total
    variance = rate_variance(rate, reliability(y, scores, weight).rows)
    # A resample carries the sample's noise and its own, so twice the variance is taken out.
    return debiased_ece(rate - said / total, 2 * variance, total / total.sum(axis=1, keepdims=True))


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
