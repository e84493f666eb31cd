"""How far two distributions are apart. Each definition has a name and a version, because peers differ under
one name.

- `psi/1`: population stability index, sum of (q - p) ln(q / p) over ten equal-mass bins of the reference
  (each value by itself where there are at most 50), shares floored at 1e-4.
- `js/1`: Jensen-Shannon distance, the square root of the divergence in bits, over 32 such bins; 0 to 1.
- `ks/1`: largest difference of the cumulative distributions; for categories, half the sum of absolute
  differences (total variation).
- `wasserstein/1`: area between the cumulative distributions, divided by the reference's population standard
  deviation; not defined for categories.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFINITIONS = {"psi": "psi/1", "js": "js/1", "ks": "ks/1", "wasserstein": "wasserstein/1"}
PSI_BINS = 10
JS_BINS = 32
_SINGLE_VALUES = 50
_PSI_FLOOR = 1e-4
# Cells that whole numbers can have to themselves (:mod:`mlcicd.data.histogram`), of either sign.
_WHOLE_NUMBERS = 2 * 2048 + 1
_STANDS_OUT = 4


def equal_mass_bins(reference: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """The bin of each cell (int64, same shape), from the reference's counts in ascending order of value.

    A cell belongs where the middle of its mass lies; a cell the reference does not have, where it would have
    stood.
    """
    import numpy as np

    if len(reference) <= _SINGLE_VALUES:
        return np.arange(len(reference))
    cumulative = np.cumsum(reference)
    middle = (cumulative - reference / 2) / cumulative[-1]
    index: NDArray[np.int64] = np.minimum((middle * bins).astype(np.int64), bins - 1)
    return index


def binned(counts: NDArray[np.float64], index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Counts summed by bin."""
    import numpy as np

    return np.bincount(index, weights=counts).astype(np.float64)


def divisible_cells(reference: NDArray[np.float64], *, wide: bool) -> NDArray[np.bool_]:
    """Which cells hold more than one value, as far as the reference's counts tell (same shape).

    Args:
        reference: counts in ascending order of value (float64, shape (cells,)).
        wide: the cells are those of a stored profile: whole numbers that had cells of their own have none there.
    """
    import numpy as np

    if wide or len(reference) <= _WHOLE_NUMBERS:
        return np.full(len(reference), wide)
    # More than whole numbers alone can fill. A cell that stands out from its neighbours, or has none, may still be one
    # value that many rows share.
    beside = np.minimum(np.append(reference[1:], 0.0), np.insert(reference[:-1], 0, 0.0))
    continuous: NDArray[np.bool_] = reference <= _STANDS_OUT * beside
    return continuous


def equal_mass_counts(
    reference: NDArray[np.float64], current: NDArray[np.float64], bins: int, *, divisible: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Counts of both in the reference's equal-mass bins (float64, the same shape, without bins that both leave empty).

    Args:
        reference, current: counts in the same cells, in ascending order of value (float64, shape (cells,)).
        divisible: of each cell (same shape): if it holds less than a bin's mass and lies across the border of two, it
            is divided between them, both sides in the proportion of the reference.
    """
    import numpy as np

    if len(reference) <= _SINGLE_VALUES or not divisible.any():
        index = equal_mass_bins(reference, bins)
        counts = binned(reference, index), binned(current, index)
    else:
        borders = np.arange(1, bins) / bins * reference.sum()
        ends = np.cumsum(reference)
        cell = np.minimum(np.searchsorted(ends, borders), len(reference) - 1)
        before, mass = ends[cell] - reference[cell], reference[cell]
        part = (borders - before) / np.where(mass > 0, mass, 1.0)
        # A value that many rows have is one value, however wide its cell: it stays whole, where its middle lies.
        part = np.where(divisible[cell] & (mass * bins < reference.sum()), np.clip(part, 0.0, 1.0), part > 0.5)
        counts = _between(reference, cell, part), _between(current, cell, part)
    some = (counts[0] > 0) | (counts[1] > 0)
    return counts[0][some], counts[1][some]


def _between(counts: NDArray[np.float64], cell: NDArray[np.int64], part: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts between borders, each of which leaves so large a part of its cell below it."""
    import numpy as np

    below = np.cumsum(counts)[cell] - (1 - part) * counts[cell]
    # Differences of long sums: what is less than nothing is nothing.
    return np.maximum(np.diff(np.concatenate([[0.0], below, [counts.sum()]])), 0.0)


def psi(reference: NDArray[np.float64], current: NDArray[np.float64]) -> float:
    """Population stability index of counts in the same bins (`psi/1`)."""
    import numpy as np

    p = np.maximum(reference / reference.sum(), _PSI_FLOOR)
    q = np.maximum(current / current.sum(), _PSI_FLOOR)
    return float(np.sum((q - p) * np.log(q / p)))


def js_divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Jensen-Shannon divergence in bits of shares along the last axis, in [0, 1]."""
    import numpy as np

    middle = (p + q) / 2
    terms = np.zeros(np.broadcast_shapes(p.shape, q.shape))
    for share in (p, q):
        ratio = np.divide(share, middle, out=np.ones_like(middle), where=(share > 0) & (middle > 0))
        terms = terms + share * np.log2(ratio) / 2
    divergence: NDArray[np.float64] = np.clip(terms.sum(axis=-1), 0.0, 1.0)
    return divergence


def js(reference: NDArray[np.float64], current: NDArray[np.float64]) -> float:
    """Jensen-Shannon distance of counts in the same bins (`js/1`)."""
    return math.sqrt(float(js_divergence(reference / reference.sum(), current / current.sum())))


def ks(reference: NDArray[np.float64], current: NDArray[np.float64]) -> float:
    """Largest difference of the cumulative shares of counts in ascending order of value (`ks/1`)."""
    import numpy as np

    difference = np.cumsum(reference) / reference.sum() - np.cumsum(current) / current.sum()
    return float(np.max(np.abs(difference)))


def total_variation(reference: NDArray[np.float64], current: NDArray[np.float64]) -> float:
    """Half the sum of absolute differences of shares (`ks/1` of categories)."""
    import numpy as np

    return float(np.abs(reference / reference.sum() - current / current.sum()).sum() / 2)


def wasserstein(
    values: NDArray[np.float64],
    reference: NDArray[np.float64],
    current: NDArray[np.float64],
    deviation: float,
) -> float:
    """Area between the cumulative distributions over the reference's deviation (`wasserstein/1`).

    Infinite where the reference is a constant that the current data has left.
    """
    import numpy as np

    difference = np.cumsum(reference) / reference.sum() - np.cumsum(current) / current.sum()
    area = float(np.sum(np.abs(difference[:-1]) * np.diff(values)))
    if area == 0.0:
        return 0.0
    return area / deviation if deviation > 0 else math.inf


def wasserstein_noise(
    values: NDArray[np.float64], pooled: NDArray[np.float64], deviation: float, scale: float
) -> float:
    """What `wasserstein/1` reaches in 95 % of two samples of one distribution, `scale` being 1/n + 1/m.

    The area's mean is sqrt(2/pi) sqrt(scale) times the integral of sqrt(F (1 - F)) (del Barrio, Gine and Matran
    1999); its 95 % quantile is taken as 1.85 means, as for the area under a Brownian bridge.
    """
    import numpy as np

    share = np.cumsum(pooled) / pooled.sum()
    spread = np.sqrt(np.clip(share * (1 - share), 0.0, None))
    area = float(np.sum(spread[:-1] * np.diff(values)))
    return 1.85 * math.sqrt(2 / math.pi * scale) * area / deviation if deviation > 0 else 0.0


def chi_square_quantile(share: float, degrees: int) -> float:
    """Quantile of the chi-square distribution (Wilson and Hilferty 1931; within 1 % from 3 degrees on)."""
    from statistics import NormalDist

    spread = 2 / (9 * degrees)
    return float(degrees * max(1 - spread + NormalDist().inv_cdf(share) * math.sqrt(spread), 0.0) ** 3)
