"""How near the drift of histograms is to the same definitions over all values, and to Evidently's definition.

KS and Wasserstein are scipy's own. PSI and Jensen-Shannon are of shares in bins of equal mass, here over the distinct
values themselves; where there are at most 50, and for categories, each is a bin. Evidently's Jensen-Shannon distance
takes the natural logarithm, and for more than 20 numbers bins of equal width, as many as Sturges' rule says for both
samples together: it is computed here from all values, and once more from our cells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import jensenshannon

from mlcicd.data.drift import drift
from mlcicd.data.histogram import aligned
from mlcicd.data.profile import Profile, profile
from mlcicd.data.source import open_source

FILES = ("a.parquet", "b.parquet")
FEW = 50  # values that are bins by themselves
STURGES_FROM = 20


def agreement(folder: Path, numbers: Sequence[str], categories: Sequence[str], memory: str) -> dict[str, Any]:
    """Compares `a.parquet` and `b.parquet` of a folder.

    Returns:
        `two files` and `stored profile`: metric to the largest difference from the exact value and its column;
        `sturges` and `sturges of cells`: column to Evidently's Jensen-Shannon distance, from all values and from ours.
    """
    columns = [*numbers, *categories]
    before, after = (profile(open_source(folder / f, memory_limit=memory), columns) for f in FILES)
    stored = Profile.from_json(json.loads(json.dumps(before.to_json())))
    ways = {"two files": before, "stored profile": stored}
    found = {way: {r.column: r for r in drift(reference, after)} for way, reference in ways.items()}
    answer: dict[str, Any] = {way: {} for way in ways} | {"sturges": {}, "sturges of cells": {}}
    for column in columns:
        pair = [duckdb.read_parquet(str(folder / f)).select(column).filter(f"{column} IS NOT NULL") for f in FILES]
        if column in categories:
            shares = _shares_of_names(
                *(dict(one.count("*", groups=column, projected_columns=column).fetchall()) for one in pair)
            )
            exact, answer["sturges"][column] = _of_shares(shares, shares), float(jensenshannon(*shares))
        else:
            a, b = (one.fetchnumpy()[column].astype(np.float64) for one in pair)
            exact, answer["sturges"][column] = _of_numbers(a, b), _sturges(a, b)
            answer["sturges of cells"][column] = _sturges_of_cells(before.columns[column], after.columns[column])
        for metric, value in exact.items():
            for way, results in found.items():
                apart = abs(getattr(results[column], metric) - value)
                answer[way][metric] = max(answer[way].get(metric, (0.0, "")), (apart, column))
    return answer


def _of_shares(for_js: Sequence[NDArray[np.float64]], for_psi: Sequence[NDArray[np.float64]]) -> dict[str, float]:
    return {"js": float(jensenshannon(*for_js, base=2)), "psi": _psi(*for_psi)}


def _of_numbers(a: NDArray[np.float64], b: NDArray[np.float64]) -> dict[str, float]:
    values, counts = np.unique(a, return_counts=True)
    if len(values) <= FEW:
        shares = _shares_of_names(_counted(a), _counted(b))
        found = _of_shares(shares, shares)
    else:
        middles = (np.cumsum(counts) - counts / 2) / len(a)
        found = _of_shares(*(_shares(a, b, values, np.minimum((middles * n).astype(int), n - 1)) for n in (32, 10)))
    found["ks"] = float(stats.ks_2samp(a, b, method="asymp").statistic)
    found["wasserstein"] = float(stats.wasserstein_distance(a, b) / a.std())
    return found


def _psi(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    p, q = np.maximum(p, 1e-4), np.maximum(q, 1e-4)
    return float(((q - p) * np.log(q / p)).sum())


def _shares(
    a: NDArray[np.float64], b: NDArray[np.float64], values: NDArray[np.float64], places: NDArray[np.int64]
) -> list[NDArray[np.float64]]:
    """Shares of both in bins, from the distinct values of `a` and the bin of each."""
    edges = values[np.flatnonzero(np.diff(places)) + 1]
    return [np.bincount(np.searchsorted(edges, x, side="right"), minlength=len(edges) + 1) / len(x) for x in (a, b)]


def _counted(values: NDArray[np.float64]) -> dict[Any, int]:
    return dict(zip(*(side.tolist() for side in np.unique(values, return_counts=True)), strict=True))


def _shares_of_names(a: Mapping[Any, int], b: Mapping[Any, int]) -> list[NDArray[np.float64]]:
    names = sorted(set(a) | set(b))
    return [np.array([one.get(name, 0) for name in names]) / sum(one.values()) for one in (a, b)]


def _sturges(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    if len(np.unique(a[:10_000])) <= STURGES_FROM:
        return float(jensenshannon(*_shares_of_names(_counted(a), _counted(b))))
    edges = np.histogram_bin_edges(np.concatenate([a, b]), bins="sturges")
    return float(jensenshannon(*(np.histogram(x, edges)[0] / len(x) for x in (a, b))))


def _sturges_of_cells(before: Any, after: Any) -> float:
    """The same from cells; one that lies across an edge is divided by its width."""
    values, *counts = aligned(before.histogram, after.histogram)
    if len(values) <= STURGES_FROM:
        return float(jensenshannon(*(c / c.sum() for c in counts)))
    low, high = min(before.low, after.low), max(before.high, after.high)
    # The rule's width, taken to a whole number of bins as numpy takes it.
    edges = np.linspace(low, high, int(np.ceil(np.log2(sum(c.sum() for c in counts)) + 1)) + 1)
    ends = np.concatenate([[low], (values[1:] + values[:-1]) / 2, [high]])
    below = [np.interp(edges, ends, np.concatenate([[0.0], np.cumsum(c) / c.sum()])) for c in counts]
    return float(jensenshannon(*(np.diff(share) for share in below)))
