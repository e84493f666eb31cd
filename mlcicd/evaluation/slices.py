"""Slices of the holdout by the values of a column, and the weakest ones, found by a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcicd.core.errors import InputError
from mlcicd.evaluation.intervals import MetricResult, estimate
from mlcicd.evaluation.predictions import Predictions, Structure, prepare, take
from mlcicd.evaluation.problem import CLASSES

MISSING = "(missing)"


@dataclass(frozen=True)
class SliceResult:
    """The metrics of one slice: the rows where column `by` has `value` (as text)."""

    by: str
    value: str
    n: int
    results: tuple[MetricResult, ...]


def by_values(
    task: str,
    metrics: Sequence[str],
    y: Any,
    candidate: Predictions,
    champion: Predictions | None = None,
    *,
    by: str,
    column: Any,
    sample_weight: Any = None,
    min_rows: int = 100,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    structure: Structure | None = None,
) -> list[SliceResult]:
    """Metrics in each slice of a column, largest slice first.

    Args:
        by: the column's name.
        column: (n,) its values: text, categories, booleans, or numbers of few distinct values (see
            `binned`). Missing values are a slice of their own, `(missing)`.
        min_rows: smaller slices are listed with their number of rows and no metrics.
        others: as `intervals.estimate`.

    Raises:
        ConfigError, InputError: as `intervals.estimate`; a column of another length.
    """
    truth = np.asarray(y)
    weight = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    candidate, champion = with_classes(task, truth, candidate, champion)
    out = []
    for name, rows in parts_of(by, column, truth.shape[0]):
        results: list[MetricResult] = []
        if rows.size >= min_rows:
            results = estimate(
                task,
                metrics,
                truth[rows],
                take(candidate, rows),
                None if champion is None else take(champion, rows),
                sample_weight=None if weight is None else weight[rows],
                confidence=confidence,
                resamples=resamples,
                seed=seed,
                structure=None if structure is None else structure.take(rows),
            )
        out.append(SliceResult(by, name, int(rows.size), tuple(results)))
    return sorted(out, key=lambda s: (-s.n, s.value))


def parts_of(by: str, column: Any, n: int) -> list[tuple[str, NDArray[np.intp]]]:
    """The values of a column as text, and the numbers of the rows that have each.

    Raises:
        InputError: a column of another length than n.
    """
    names, codes = codes_of(by, column, n)
    if not names:
        return []
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))
    return list(zip(names, np.split(order, ends[:-1]), strict=True))


def with_classes(
    task: str, y: NDArray[Any], candidate: Predictions, champion: Predictions | None
) -> tuple[Predictions, Predictions | None]:
    """Names the classes from the whole holdout: a slice may have only one of them."""
    if task not in CLASSES or candidate.classes is not None or (champion and champion.classes is not None):
        return candidate, champion
    classes = prepare(task, y, candidate, champion).classes
    if not classes:
        return candidate, champion
    named = Predictions(candidate.labels, candidate.scores, classes)
    return named, None if champion is None else Predictions(champion.labels, champion.scores, classes)


def codes_of(by: str, column: Any, n: int) -> tuple[list[str], NDArray[np.intp]]:
    values = np.asarray(column)
    if values.shape != (n,):
        raise InputError(f"the column {by!r} has shape {values.shape}, and the holdout has {n} rows")
    if values.dtype.kind in "iufb":
        distinct, codes = np.unique(values, return_inverse=True)
        return [_named(v) for v in distinct.tolist()], codes
    # Hashing text is many times faster than sorting it.
    seen = [_named(v) for v in values.tolist()] if values.dtype.kind in "OMm" else values.astype(str).tolist()
    names = sorted(set(seen))
    number = {name: i for i, name in enumerate(names)}
    return names, np.fromiter((number[name] for name in seen), dtype=np.intp, count=n)


def _named(value: Any) -> str:
    if isinstance(value, str):
        return value
    if _is_missing(value):
        return MISSING
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _is_missing(value: Any) -> bool:
    return value is None or bool(value != value)  # noqa: PLR0124 (NaN and NaT are not themselves)


def binned(column: Any, bins: int = 4) -> NDArray[np.str_]:
    """(n,) names of the quantile ranges of a numeric column, for `by_values`; missing values stay missing."""
    values = np.asarray(column, dtype=np.float64)
    known = values[np.isfinite(values)]
    if known.size == 0:
        return np.full(values.shape, MISSING)
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)))
    if edges.size < 2:
        return np.where(np.isfinite(values), f"{edges[0]:.6g}", MISSING)
    names = np.array([f"{a:.6g} to {b:.6g}" for a, b in pairwise(edges)])
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, names.size - 1)
    return np.where(np.isfinite(values), names[place], MISSING)
