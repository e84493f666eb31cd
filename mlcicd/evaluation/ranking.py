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
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Row and group numbers, of 32 bits where these hold them: half the memory.
Places = NDArray[Any]


@dataclass(frozen=True)
class Ranked:
    """Rows in the descending order of a score, in groups of ties.

    Attributes:
        order: (n,) row numbers.
        group: (n,) tie group of each ranked row, from 0.
        truth: (n,) whether each ranked row is positive.
        weight: (n,) weight of each ranked row; None: all weigh the same.
    """

    order: Places
    group: Places
    truth: NDArray[np.bool_]
    weight: Floats | None

    @property
    def sums(self) -> tuple[Floats, Floats]:
        """(groups,) weights of the positives and negatives in each tie group."""
        groups = int(self.group[-1]) + 1
        total = np.bincount(self.group, weights=self.weight, minlength=groups).astype(np.float64)
        counted = None if self.weight is None else self.weight[self.truth]
        positive = np.bincount(self.group[self.truth], weights=counted, minlength=groups).astype(np.float64)
        if self.weight is None:
            return positive, total - positive
        # Not by difference: what is left of a sum without positives must be exactly nothing.
        negative = np.bincount(self.group[~self.truth], weights=self.weight[~self.truth], minlength=groups)
        return positive, negative.astype(np.float64)

    @cached_property
    def counts(self) -> tuple[float, float]:
        """(positives, negatives) as effective numbers of rows (Kish)."""
        if self.weight is None:
            positives = int(np.count_nonzero(self.truth))
            return float(positives), float(self.truth.size - positives)
        return _effective(self.weight[self.truth]), _effective(self.weight[~self.truth])

    def spread(self, positive: Floats, negative: Floats) -> Floats:
        """(n,) values in the rows' own order, from (groups,) values of positive and of negative rows."""
        values = np.where(self.truth, positive[self.group], negative[self.group])
        if self.weight is not None:
            values *= self.weight
        out = np.empty_like(values)
        out[self.order] = values
        return out


def rank(y: NDArray[np.bool_], scores: Floats, weight: Floats | None) -> Ranked:
    """Sorts once for all ranking metrics of a model."""
    small = np.int32 if scores.size < 2**31 else np.int64
    order = np.argsort(scores)[::-1].astype(small)
    ordered = scores[order]
    group = np.zeros(ordered.size, dtype=small)
    np.cumsum(ordered[1:] != ordered[:-1], out=group[1:])
    return Ranked(order, group, y[order], None if weight is None else weight[order])


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
    of_positive = (neg_below / total_neg - area) / total_pos * _unbiased(m)
    of_negative = (pos_above / total_pos - area) / total_neg * _unbiased(n)
    return area, ranked.spread(of_positive, of_negative)


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
    unbiased = _unbiased(ranked.counts[0])
    return value, ranked.spread(((precision - value) / total_pos + by_tp) * unbiased, by_fp * unbiased)
