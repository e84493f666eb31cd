"""How near the drift of histograms is to the same definitions over all values, and to Evidently's definition.

KS and Wasserstein are scipy's own. PSI and Jensen-Shannon are of shares in bins of equal mass, here over the distinct
values themselves; where there are at most 50, and for categories, each is a bin. Evidently's Jensen-Shannon distance
takes the natural logarithm, and for more than 20 numbers bins of equal width, as many as Sturges' rule says for both
samples together: it is computed here from all values, and once more from our cells.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METRICS = ("ks", "wasserstein", "js", "psi")
_STURGES_FROM = 20


def agreement(folder: Path, numbers: Sequence[str], categories: Sequence[str], memory: str) -> dict[str, Any]:
    """Compares `a.parquet` and `b.parquet` of a folder.

    Returns:
        `two files` and `stored profile`: metric to the largest difference from the exact value and its column;
        `sturges` and `sturges of cells`: column to Evidently's Jensen-Shannon distance, from all values and from ours.
    """
    import duckdb

    from mlcicd.data.drift import drift
    from mlcicd.data.profile import Profile, profile
    from mlcicd.data.source import open_source

    columns = [*numbers, *categories]
    before, after = (profile(open_source(folder / f, memory_limit=memory), columns) for f in ("a.parquet", "b.parquet"))
    stored = Profile.from_json(json.loads(json.dumps(before.to_json())))
    ways = {"two files": before, "stored profile": stored}
    found = {way: {r.column: r for r in drift(reference, after)} for way, reference in ways.items()}
    answer: dict[str, Any] = {way: {} for way in ways} | {"sturges": {}, "sturges of cells": {}}
    for column in columns:
        sql = f"SELECT {column} FROM read_parquet(?) WHERE {column} IS NOT NULL"
        a, b = (duckdb.execute(sql, [str(folder / f)]).fetchnumpy()[column] for f in ("a.parquet", "b.parquet"))
        for metric, exact in _exact(a, b, column in categories).items():
            for way, results in found.items():
                apart = abs(getattr(results[column], metric) - exact)
                answer[way][metric] = max(answer[way].get(metric, (0.0, "")), (apart, column))
        answer["sturges"][column] = _sturges(a, b, column in categories)
        one, other = before.columns[column], after.columns[column]
        if one.histogram.cells:
            answer["sturges of cells"][column] = _sturges_of_cells(one, other)
    return answer


def _exact(a: NDArray[Any], b: NDArray[Any], category: bool) -> dict[str, float]:
    import numpy as np
    from scipy import stats
    from scipy.spatial.distance import jensenshannon

    found = {
        "js": float(jensenshannon(*_shares(a, b, 32, category), base=2)),
        "psi": _psi(*_shares(a, b, 10, category)),
    }
    if not category:
        a, b = a.astype(np.float64), b.astype(np.float64)
        found["ks"] = float(stats.ks_2samp(a, b, method="asymp").statistic)
        found["wasserstein"] = float(stats.wasserstein_distance(a, b) / a.std())
    return found


def _psi(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    import numpy as np

    p, q = np.maximum(p, 1e-4), np.maximum(q, 1e-4)
    return float(((q - p) * np.log(q / p)).sum())


def _shares(a: NDArray[Any], b: NDArray[Any], bins: int, category: bool) -> list[NDArray[np.float64]]:
    import numpy as np

    values, counts = np.unique(np.ma.getdata(a), return_counts=True)
    if category or len(values) <= 50:
        return _shares_by_value(a, b)
    places = np.minimum(((np.cumsum(counts) - counts / 2) / len(a) * bins).astype(np.int64), bins - 1)
    edges = values[np.flatnonzero(np.diff(places)) + 1]
    return [np.bincount(np.searchsorted(edges, x, side="right"), minlength=bins) / len(x) for x in (a, b)]


def _shares_by_value(a: NDArray[Any], b: NDArray[Any]) -> list[NDArray[np.float64]]:
    import numpy as np

    counted = [dict(zip(*np.unique(np.ma.getdata(x), return_counts=True), strict=True)) for x in (a, b)]
    names = sorted(set(counted[0]) | set(counted[1]))
    return [np.array([one.get(name, 0) for name in names]) / len(x) for one, x in zip(counted, (a, b), strict=True)]


def _sturges(a: NDArray[Any], b: NDArray[Any], category: bool) -> float:
    import numpy as np
    from scipy.spatial.distance import jensenshannon

    if category or len(np.unique(a[:10_000])) <= _STURGES_FROM:
        return float(jensenshannon(*_shares_by_value(a, b)))
    edges = np.histogram_bin_edges(np.concatenate([a, b]), bins="sturges")
    return float(jensenshannon(*(np.histogram(x, edges)[0] / len(x) for x in (a, b))))


def _sturges_of_cells(before: Any, after: Any) -> float:
    """The same from cells; one that lies across an edge is divided by its width."""
    import numpy as np
    from scipy.spatial.distance import jensenshannon

    from mlcicd.data.histogram import aligned

    values, *counts = aligned(before.histogram, after.histogram)
    if len(values) <= _STURGES_FROM:
        return float(jensenshannon(*(c / c.sum() for c in counts)))
    low, high = min(before.low, after.low), max(before.high, after.high)
    # The rule's width, taken to a whole number of bins as numpy takes it.
    edges = np.linspace(low, high, int(np.ceil(np.log2(sum(c.sum() for c in counts)) + 1)) + 1)
    ends = np.concatenate([[low], (values[1:] + values[:-1]) / 2, [high]])
    below = [np.interp(edges, ends, np.concatenate([[0.0], np.cumsum(c) / c.sum()])) for c in counts]
    return float(jensenshannon(*(np.diff(share) for share in below)))
