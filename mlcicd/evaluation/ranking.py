"""ROC AUC and average precision with each row's influence, in O(n log n).

The influence of a row is its weight times the derivative of the metric by that weight. The sum of squared
influences is the variance (the infinitesimal jackknife; for ROC AUC exactly DeLong, DeLong &
Clarke-Pearson, Biometrics 44, 1988, computed from ranks as in Sun & Xu, IEEE Signal Proc. Lett. 21, 2014),
and of the difference of two models it is the sum of squared differences of influences, which is what
pairing means.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranked:
    """Rows in the descending order of a score, in groups of ties.

    Attributes:
        order: (n,) row numbers.
        group: (n,) tie group of each ranked row, from 0.
        positive, negative: (n,) weight of each ranked row if it is positive (negative), else 0.
        counts: (positives, negatives) as effective numbers of rows (Kish).
    """

    order: NDArray[np.intp]
    group: NDArray[np.intp]
    positive: Floats
    negative: Floats
    counts: tuple[float, float]

    @cached_property
    def sums(self) -> tuple[Floats, Floats]:
        """(groups,) weights of the positives and negatives in each tie group."""
        starts = np.flatnonzero(np.diff(self.group, prepend=-1))
        return np.add.reduceat(self.positive, starts), np.add.reduceat(self.negative, starts)


def rank(y: NDArray[np.bool_], scores: Floats, weight: Floats | None) -> Ranked:
    """Sorts once for all ranking metrics of a model."""
    order = np.argsort(-scores)
    ordered = scores[order]
    group = np.zeros(ordered.size, dtype=np.intp)
    np.cumsum(ordered[1:] != ordered[:-1], out=group[1:])
    truth = y[order]
    w = np.ones(ordered.size) if weight is None else weight[order]
    positive, negative = np.where(truth, w, 0.0), np.where(truth, 0.0, w)
    return Ranked(order, group, positive, negative, (_effective(positive), _effective(negative)))


def _effective(w: Floats) -> float:
    squares = float(w @ w)
    return float(w.sum()) ** 2 / squares if squares else 0.0


def roc_auc(ranked: Ranked) -> tuple[float, Floats]:
    """(area, (n,) influences in the rows' own order). Needs both classes."""
    pos, neg = ranked.sums
    total_pos, total_neg = pos.sum(), neg.sum()
    neg_below = total_neg - np.cumsum(neg) + neg / 2  # a tie counts a half
    pos_above = np.cumsum(pos) - pos / 2
    area = float((pos * neg_below).sum() / (total_pos * total_neg))
    m, n = ranked.counts
    influence = ranked.positive * (neg_below / total_neg - area)[ranked.group] / total_pos * _unbiased(m)
    influence += ranked.negative * (pos_above / total_pos - area)[ranked.group] / total_neg * _unbiased(n)
    return area, _unsort(influence, ranked)


def _unbiased(count: float) -> float:
    """DeLong divides by m - 1, the plain sum of squares by m."""
    return float(np.sqrt(count / (count - 1))) if count > 1 else 1.0


def average_precision(ranked: Ranked) -> tuple[float, Floats]:
    """(scikit-learn's average precision, (n,) influences in the rows' own order). Needs positives."""
    pos, neg = ranked.sums
    total_pos = pos.sum()
    tp, fp = np.cumsum(pos), np.cumsum(neg)
    found = tp + fp
    precision = tp / found
    value = float((pos * precision).sum() / total_pos)
    share = pos / total_pos
    # A row moves the precision at its own threshold and at every lower one.
    by_tp = np.cumsum((share * fp / found**2)[::-1])[::-1]
    by_fp = -np.cumsum((share * tp / found**2)[::-1])[::-1]
    influence = ranked.positive * ((precision - value) / total_pos + by_tp)[ranked.group]
    influence += ranked.negative * by_fp[ranked.group]
    return value, _unsort(influence * _unbiased(ranked.counts[0]), ranked)


def _unsort(values: Floats, ranked: Ranked) -> Floats:
    out = np.empty_like(values)
    out[ranked.order] = values
    return out
