"""How well one feature alone tells a label: the area under the ROC curve over its cells or categories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlcicd.data.distances import binned

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_BINS = 64
# A bin that is put in order by its own rate of positives must hold enough of both to have one.
_CASES_A_BIN = 10


def auc_of_counts(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """AUC of ordered bins, ties counting half (Mann and Whitney 1947)."""
    import numpy as np

    below = np.cumsum(negative) - negative
    wins = float(np.sum(positive * (below + negative / 2)))
    return wins / float(positive.sum() * negative.sum())


def numeric_auc(
    positive: Mapping[float, int], negative: Mapping[float, int], missing: tuple[int, int] = (0, 0)
) -> float:
    """The larger AUC of the values in their order and of equal-mass bins in the order of their rates.

    The second finds features that tell the label without being monotone in it.

    Args:
        positive, negative: cell to count, by label.
        missing: positives and negatives without a value; they are a bin of their own.
    """
    import numpy as np

    keys = np.array(sorted(set(positive) | set(negative)), dtype=float)
    p = np.array([positive.get(key, 0) for key in keys.tolist()], dtype=float)
    n = np.array([negative.get(key, 0) for key in keys.tolist()], dtype=float)
    ordered = 0.5
    if p.sum() and n.sum():
        ordered = auc_of_counts(p, n)
    return max(ordered, 1 - ordered, _by_rate(*_equal_mass(p, n), missing))


def category_auc(positive: Mapping[str, int], negative: Mapping[str, int], missing: tuple[int, int] = (0, 0)) -> float:
    """AUC of categories in the order of their rates; small ones are counted together."""
    import numpy as np

    total_p, total_n = sum(positive.values()) + missing[0], sum(negative.values()) + missing[1]
    least = _CASES_A_BIN * (total_p + total_n) / max(min(total_p, total_n), 1)
    p, n, small = [], [], np.zeros(2)
    for category in set(positive) | set(negative):
        pair = positive.get(category, 0), negative.get(category, 0)
        if sum(pair) < least:
            small += pair
        else:
            p.append(pair[0])
            n.append(pair[1])
    p.append(small[0])
    n.append(small[1])
    return _by_rate(np.array(p, dtype=float), np.array(n, dtype=float), missing)


def _equal_mass(
    positive: NDArray[np.float64], negative: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    import numpy as np

    if len(positive) == 0:
        return positive, negative
    both = positive + negative
    bins = int(max(1, min(_MOST_BINS, min(positive.sum(), negative.sum()) / _CASES_A_BIN)))
    middle = (np.cumsum(both) - both / 2) / both.sum()
    index = np.minimum((middle * bins).astype(np.int64), bins - 1)
    return binned(positive, index), binned(negative, index)


def _by_rate(positive: NDArray[np.float64], negative: NDArray[np.float64], missing: tuple[int, int]) -> float:
    import numpy as np

    p, n = np.append(positive, missing[0]), np.append(negative, missing[1])
    filled = (p + n) > 0
    p, n = p[filled], n[filled]
    if not p.sum() or not n.sum():
        return 0.5
    order = np.argsort(p / (p + n), kind="stable")
    return auc_of_counts(p[order], n[order])
