"""Ranking tasks: what each query's order of documents is worth.

`ndcg` is scikit-learn's `ndcg_score` (linear gains, ties averaged over their order) and `map` the mean of its
`average_precision_score`, query by query. `map@k` and `mrr` look at single places, where a tie has no place of its own:
documents that are not relevant come first among equals, so that constant scores earn nothing. A document is relevant
to `map` and `mrr` when its relevance is above 0. A query without relevant documents scores 0, as in scikit-learn: it
is the same for both models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlcicd.core.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


@dataclass(frozen=True)
class Lists:
    """Documents sorted by query, then by descending score, irrelevant ones first among equals.

    Attributes:
        query: (n,) query of each document, from 0.
        gain: (n,) relevance.
        place: (n,) rank within the query, from 0.
        tie: (n,) number of the group of equal scores within a query.
        queries: how many there are.
    """

    query: Ints
    gain: Floats
    place: Ints
    tie: Ints
    queries: int


def sort_lists(relevance: Floats, scores: Floats, query: Ints, queries: int) -> Lists:
    """Sorts once for all metrics of a model."""
    order = np.lexsort((relevance, -scores, query))
    q, s = query[order], scores[order]
    new = np.ones(q.size, dtype=bool)
    new[1:] = q[1:] != q[:-1]
    starts = np.flatnonzero(new)
    place = np.arange(q.size) - np.repeat(starts, np.diff(np.append(starts, q.size)))
    fresh = new.copy()
    fresh[1:] |= s[1:] != s[:-1]
    return Lists(q, relevance[order], place, np.cumsum(fresh) - 1, queries)


def per_query(name: str, lists: Lists, cutoff: float) -> Floats:
    """(queries,) values of `ndcg`, `map` or `mrr`, within the first `cutoff` places (inf: all)."""
    if name == "ndcg":
        return _ndcg(lists, cutoff)
    if name == "mrr":
        return _mrr(lists, cutoff)
    return _average_precision(lists) if math.isinf(cutoff) else _average_precision_at(lists, cutoff)


def _sum(lists: Lists, values: Floats) -> Floats:
    return np.bincount(lists.query, weights=values, minlength=lists.queries).astype(np.float64)


def _ratio(a: Floats, b: Floats) -> Floats:
    out: Floats = np.divide(a, b, out=np.zeros(a.shape), where=b > 0)
    return out


def _discount(place: Ints, cutoff: float) -> Floats:
    discount: Floats = np.where(place < cutoff, 1 / np.log2(place + 2.0), 0.0)
    return discount


def _ndcg(lists: Lists, cutoff: float) -> Floats:
    discount = _discount(lists.place, cutoff)
    size = np.bincount(lists.tie)
    mean_gain = np.bincount(lists.tie, weights=lists.gain) / size
    gained = _sum(lists, mean_gain[lists.tie] * discount)
    best = lists.gain[np.lexsort((-lists.gain, lists.query))]
    return _ratio(gained, _sum(lists, best * discount))


def _relevant(lists: Lists) -> tuple[Floats, Floats]:
    """((n,) 1 where relevant, (n,) relevant documents of the query so far, this one included)."""
    hit = (lists.gain > 0).astype(np.float64)
    running = np.cumsum(hit)
    # Every query has a first place, so the starts are in the order of the queries.
    before = (running - hit)[lists.place == 0]
    so_far: Floats = running - before[lists.query]
    return hit, so_far


def _average_precision(lists: Lists) -> Floats:
    hit, so_far = _relevant(lists)
    last = np.flatnonzero(np.append(lists.tie[1:] != lists.tie[:-1], True))
    # All documents of equal scores are found at once.
    precision = (so_far / (lists.place + 1))[last][lists.tie]
    return _ratio(_sum(lists, hit * precision), _sum(lists, hit))


def _average_precision_at(lists: Lists, cutoff: float) -> Floats:
    hit, so_far = _relevant(lists)
    within = hit * (lists.place < cutoff)
    total = np.minimum(_sum(lists, hit), cutoff)
    return _ratio(_sum(lists, within * so_far / (lists.place + 1)), total)


def _mrr(lists: Lists, cutoff: float) -> Floats:
    hit, so_far = _relevant(lists)
    first = (hit > 0) & (so_far == 1) & (lists.place < cutoff)
    return _sum(lists, first / (lists.place + 1.0))


def query_weights(weight: Floats | None, query: Ints, queries: int) -> Floats | None:
    """(queries,) weights of the queries.

    Raises:
        InputError: the rows of a query have different weights: a query counts as a whole.
    """
    if weight is None:
        return None
    found = np.zeros(queries)
    found[query] = weight
    if (found[query] != weight).any():
        raise InputError(
            "the rows of a query have different sample weights",
            why="A query is scored as a whole, so it has one weight.",
            remedy="give all rows of a query the same weight",
        )
    return found
