"""Small pictures of how columns moved, as JSON for the report.

Each shows the reference's distribution beside the current one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from mlcicd.data.column_profile import ColumnProfile
from mlcicd.data.drift import DriftResult
from mlcicd.data.histogram import aligned
from mlcicd.data.profile import Profile

_MOST_BARS = 12
_BINS = 30
_TAIL = 0.005
_LABEL = 24


def drift_figures(
    reference: Profile, current: Profile, results: Iterable[DriftResult], *, most: int = 8
) -> list[dict[str, Any]]:
    """Pictures of the columns that moved most, in the order of `results`.

    Numbers of many values become `lines` of shares over thirty equal bins (half a percent is cut from each
    tail); numbers of few values, booleans and categories become `bars`, the largest twelve and the rest as
    `other`.
    """
    figures: list[dict[str, Any]] = []
    for result in results:
        before, after = reference.columns.get(result.column), current.columns.get(result.column)
        if len(figures) >= most:
            break
        if before is None or after is None or before.kind != after.kind or not before.values or not after.values:
            continue
        distance = f" (js {result.js:.3g})" if result.js is not None else ""
        title = f"{result.column}{distance}"
        label = "length" if before.kind == "text" else result.column
        if before.kind == "category":
            figures.append(_category_bars(title, label, before, after))
        else:
            figures.append(_numbers(title, label, before, after))
    return figures


def ranked_figure(
    results: Iterable[DriftResult], *, bound: float | None = None, most: int = 20
) -> list[dict[str, Any]]:
    """One picture of the columns by their Jensen-Shannon distance with its interval, the most moved first; none for
    fewer than two columns.

    Args:
        bound: drawn as a line, when that is what is bounded.
    """
    ranked = sorted((r for r in results if r.js is not None and r.interval), key=lambda r: (-(r.js or 0.0), r.column))
    shown = [(r.column, r.js or 0.0, *(r.interval or (0.0, 0.0))) for r in ranked[:most]]
    if len(shown) < 2:
        return []
    names, values, low, high = (list(part) for part in zip(*shown, strict=True))
    return [
        {
            "kind": "intervals",
            "title": "Columns by how far they moved",
            "x_label": "Jensen-Shannon distance from the reference (js/1)",
            "y_label": "",
            "series": [{"name": "distance", "x": names, "y": values, "lo": low, "hi": high}],
            "reference": {"y": bound, "label": "largest allowed"} if bound is not None else None,
            "log_y": False,
        }
    ]


def _figure(
    kind: str, title: str, label: str, x: list[Any], *, before: list[float], after: list[float]
) -> dict[str, Any]:
    return {
        "kind": kind,
        "title": title,
        "x_label": label,
        "y_label": "share",
        "series": [
            {"name": "reference", "x": x, "y": before, "lo": None, "hi": None},
            {"name": "current", "x": x, "y": after, "lo": None, "hi": None},
        ],
        "reference": None,
        "log_y": False,
    }


def _category_bars(title: str, label: str, before: ColumnProfile, after: ColumnProfile) -> dict[str, Any]:
    n, m = before.values, after.values
    shares = {
        name: (before.categories.get(name, 0) / n, after.categories.get(name, 0) / m)
        for name in {*before.categories, *after.categories}
    }
    shown = sorted(shares, key=lambda name: (-max(shares[name]), name))[:_MOST_BARS]
    names = [name if len(name) <= _LABEL else f"{name[: _LABEL - 1]}…" for name in shown]
    left, right = [shares[name][0] for name in shown], [shares[name][1] for name in shown]
    if len(shown) < len(shares) or before.rest or after.rest:
        names.append("other")
        left.append(max(1 - sum(left), 0.0))
        right.append(max(1 - sum(right), 0.0))
    return _figure("bars", title, label, names, before=left, after=right)


def _numbers(title: str, label: str, before: ColumnProfile, after: ColumnProfile) -> dict[str, Any]:
    import numpy as np

    values, p, q = aligned(before.histogram, after.histogram)
    if len(values) <= _MOST_BARS:
        names = [f"{value:.6g}" for value in values]
        return _figure("bars", title, label, names, before=(p / p.sum()).tolist(), after=(q / q.sum()).tolist())
    ends = [h.quantile(share) for h in (before.histogram, after.histogram) for share in (_TAIL, 1 - _TAIL)]
    known = [end for end in ends if end is not None and math.isfinite(end)]
    low, high = min(known), max(known)
    if not low < high:
        low, high = float(values[0]), float(values[-1])
    edges = np.linspace(low, high, _BINS + 1)
    left, _ = np.histogram(values, bins=edges, weights=p)
    right, _ = np.histogram(values, bins=edges, weights=q)
    middles = [float(f"{x:.6g}") for x in (edges[:-1] + edges[1:]) / 2]
    return _figure("lines", title, label, middles, before=(left / p.sum()).tolist(), after=(right / q.sum()).tolist())
