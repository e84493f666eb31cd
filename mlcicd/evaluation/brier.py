"""The Brier score's reliability and resolution as gates: without the bias of few rows, and with intervals.

Murphy's parts, taken from bins, are biased: chance moves the observed rates away from what was said (reliability looks
worse) and from each other (resolution looks better). Ferro & Fricker (Q. J. R. Meteorol. Soc. 138, 2012) subtract what
chance adds. The interval is a bootstrap of the table of bins by outcomes; a resample has its sample's noise and its
own, so the correction is taken off twice there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlcicd.evaluation.calibration import BINS, assign_bins
from mlcicd.evaluation.drawn import Draws

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationParts:
    """Brier = reliability - resolution + uncertainty, up to what varies inside a bin."""

    reliability: Draws
    resolution: Draws
    uncertainty: float


def calibration_parts(
    y: NDArray[np.bool_], scores: Floats, *, resamples: int = 2000, seed: int = 0, bins: int = BINS
) -> CalibrationParts:
    """The bias-corrected parts.

    Args:
        y: (n,) outcomes; n >= 2.
        scores: (n,) probabilities of the positive class.
    """
    bin_, count = assign_bins(scores, bins)
    cell = bin_ * 2 + y
    rows = np.bincount(cell, minlength=2 * count).astype(np.float64)
    said = np.bincount(cell, weights=scores, minlength=2 * count) / np.maximum(rows, 1)
    n = scores.size
    rng = np.random.default_rng([seed, 11])
    drawn = rng.multinomial(n, rows / n, size=resamples).astype(np.float64)
    reliability, resolution, uncertainty = _parts(rows[None], said, 1)
    drawn_reliability, drawn_resolution, _ = _parts(drawn, said, 2)
    return CalibrationParts(
        Draws(float(reliability[0]), drawn_reliability),
        Draws(float(resolution[0]), drawn_resolution),
        float(uncertainty[0]),
    )


def _parts(tables: Floats, said: Floats, times: int) -> tuple[Floats, Floats, Floats]:
    """Parts of (draws, 2 * bins) tables; `times` is how often chance is taken off."""
    by_bin = tables.reshape(tables.shape[0], -1, 2)
    rows = by_bin.sum(axis=2)
    n = rows.sum(axis=1, keepdims=True)
    at_least = np.maximum(rows, 1)
    rate = by_bin[:, :, 1] / at_least
    mean = (by_bin * said.reshape(1, -1, 2)).sum(axis=2) / at_least
    base = by_bin[:, :, 1].sum(axis=1, keepdims=True) / n
    share = rows / n
    # A bin of one row has no variance that could be seen, so nothing is taken off for it.
    chance = np.where(rows > 1, share * rate * (1 - rate) / np.maximum(rows - 1, 1), 0.0).sum(axis=1)
    whole = (base * (1 - base))[:, 0]
    of_base = whole / (n[:, 0] - 1)
    reliability = (share * (mean - rate) ** 2).sum(axis=1) - times * chance
    resolution = (share * (rate - base) ** 2).sum(axis=1) - times * (chance - of_base)
    return np.maximum(reliability, 0.0), np.maximum(resolution, 0.0), whole + of_base
