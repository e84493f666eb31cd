"""Means, ratios and smooth functions of means, of one or two models, from the influences of rows or groups of rows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlcicd.evaluation import losses
from mlcicd.evaluation.ratios import ratio_of
from mlcicd.evaluation.settled import Found, pair_of, settled
from mlcicd.evaluation.uncertainty import Recovered, RootOf, Uncertainty

Floats = NDArray[np.float64]

_HALL = "studentised mean with Hall's correction for skewness"
_FIELLER = "Fieller's interval of a ratio of means, with Hall's correction for skewness"


def means(
    parts: list[tuple[float, Floats]],
    span: tuple[float, float],
    worth: int = 0,
    *,
    rooted: bool = False,
    bounded: bool = True,
) -> Found:
    """Means (or smooth functions of means) of one or two models, by their influences.

    Args:
        parts: (value, (n,) influences that add up to zero) of each model.
        span: the metric's range.
        worth: units of equal size that the influences are worth, for Student's quantile; 0: as many as there are.
        rooted: the metric is the mean's square root.
        bounded: a difference is at most as wide as the range.
    """
    low, high = span
    singles: list[Uncertainty] = [settled(losses.from_influence(v, i, low, high, worth)) for v, i in parts]
    if rooted:
        singles = [RootOf(s) for s in singles]
        parts = [(math.sqrt(v), i / (2 * math.sqrt(v)) if v > 0 else i) for v, i in parts]
    # A mean of bounded values has a variance whatever they are.
    caution = "" if math.isfinite(high - low) else losses.wild(parts[0][1])
    if len(parts) == 1:
        return replace(pair_of(singles, None, _HALL), caution=caution)
    (c, ci), (h, hi) = parts
    bound = high - low if bounded else math.inf
    skewed = losses.from_influence(c - h, ci - hi, -bound, bound, worth)
    difference: Uncertainty = skewed if skewed.se > 0 else Recovered(singles[0], singles[1])
    found = pair_of(singles, difference, _HALL)
    return replace(found, caution=caution, difference_caution="" if math.isfinite(bound) else losses.wild(ci - hi))


def explained(parts: list[losses.Explained], high: float, worth: int = 0) -> Found:
    """R^2 of one or two models: ratios of means, as is their difference (the variance of the labels is one for both).

    Args:
        parts: of each model, with the contributions of rows, or of groups of rows.
        high: the most that R^2 can be.
        worth: as of `means`.
    """
    linear = means([(p.value, p.influence) for p in parts], (-math.inf, high), worth, bounded=False)
    singles: list[Uncertainty] = []
    for part, by_delta in zip(parts, (linear.candidate, linear.champion), strict=False):
        assert by_delta is not None
        singles.append(ratio_of(by_delta, part.variance, part.above, part.below))
    difference = linear.difference
    if len(parts) == 2 and difference is not None:
        difference = ratio_of(difference, parts[0].variance, parts[0].above - parts[1].above, parts[0].below)
    return replace(
        linear,
        candidate=singles[0],
        champion=singles[-1] if len(parts) == 2 else None,
        difference=difference,
        method=_FIELLER,
    )
