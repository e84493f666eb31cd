"""What one column looked like: counts by cell or by category, which add up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Literal

from mlcicd.core.errors import InputError
from mlcicd.data.histogram import Histogram

Kind = Literal["numeric", "category", "text", "time", "other"]

_BUCKETS = 64
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True)
class ColumnProfile:
    """What one column looked like.

    Attributes:
        kind: `numeric`; `category` (text or booleans of few values); `text` (too many values to be
            categories: the histogram is that of lengths); `time` and `other` keep missing values only.
        rows: rows of the table.
        nulls: rows without a value.
        nan, infinite: values that are no finite number.
        mean, deviation: of the finite values (population standard deviation); None when there are none.
        low, high: smallest and largest finite value.
        histogram: of the finite values, or of text lengths.
        categories: value (or its hash, if sensitive) to count; complete when `rest` is empty.
        rest: bucket of the value's hash to count, for the categories that were not kept.
    """

    kind: Kind
    rows: int
    nulls: int
    nan: int = 0
    infinite: int = 0
    mean: float | None = None
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    histogram: Histogram = field(default_factory=Histogram)
    categories: Mapping[str, int] = field(default_factory=dict)
    rest: Mapping[int, int] = field(default_factory=dict)

    @property
    def missing_share(self) -> float | None:
        """Share of rows that are NULL or NaN; None for a table without rows."""
        return (self.nulls + self.nan) / self.rows if self.rows else None

    @property
    def values(self) -> int:
        """How many values there are to compare: finite numbers, categories or texts."""
        return sum(self.categories.values()) + sum(self.rest.values()) + self.histogram.total

    def merge(self, other: ColumnProfile) -> ColumnProfile:
        """The profile of both parts together."""
        if {self.kind, other.kind} == {"category", "text"}:
            return _as_text(self).merge(_as_text(other))
        if self.kind != other.kind:
            raise InputError(
                f"profiles of a {self.kind} and a {other.kind} column can not be merged",
                remedy="profile both parts again with one version of the schema",
            )
        mean, deviation = _pooled(self, other)
        categories, rest = _merge_categories(self, other)
        return ColumnProfile(
            self.kind,
            self.rows + other.rows,
            self.nulls + other.nulls,
            self.nan + other.nan,
            self.infinite + other.infinite,
            mean,
            deviation,
            min((v for v in (self.low, other.low) if v is not None), default=None),
            max((v for v in (self.high, other.high) if v is not None), default=None),
            self.histogram.merge(other.histogram),
            categories,
            rest,
        )

    def limited(self, cells: int, categories: int) -> ColumnProfile:
        """The same with at most so many cells and categories."""
        return replace(_fold(self, categories), histogram=self.histogram.limited(cells))

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"kind": self.kind, "rows": self.rows, "nulls": self.nulls}
        value |= {k: v for k in ("nan", "infinite") if (v := getattr(self, k))}
        value |= {k: v for k in ("mean", "deviation", "low", "high") if (v := getattr(self, k)) is not None}
        if self.histogram.cells:
            value["histogram"] = self.histogram.to_json()
            value["quantiles"] = {str(q): self.histogram.quantile(q) for q in _QUANTILES}
        if self.categories:
            value["categories"] = dict(self.categories)
        if self.rest:
            value["rest"] = {str(bucket): count for bucket, count in self.rest.items()}
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ColumnProfile:
        return cls(
            value["kind"],
            int(value["rows"]),
            int(value["nulls"]),
            int(value.get("nan", 0)),
            int(value.get("infinite", 0)),
            value.get("mean"),
            value.get("deviation"),
            value.get("low"),
            value.get("high"),
            Histogram.from_json(value["histogram"]) if "histogram" in value else Histogram(),
            {str(k): int(v) for k, v in value.get("categories", {}).items()},
            {int(k): int(v) for k, v in value.get("rest", {}).items()},
        )


def hashed(text: str) -> str:
    """How a category of a sensitive column is written."""
    return blake2b(text.encode(), digest_size=8).hexdigest()


def bucket(category: str) -> int:
    """The bucket of a category that is not kept by name: the same on every machine and in every version."""
    return int.from_bytes(blake2b(category.encode(), digest_size=4).digest(), "big") % _BUCKETS


def fold(column: ColumnProfile, keep: Iterable[str]) -> ColumnProfile:
    """The same column with every category but `keep` counted in its bucket."""
    kept = set(keep)
    rest = dict(column.rest)
    for category, count in column.categories.items():
        if category not in kept:
            rest[bucket(category)] = rest.get(bucket(category), 0) + count
    return replace(column, categories={c: n for c, n in column.categories.items() if c in kept}, rest=rest)


def _fold(column: ColumnProfile, most: int) -> ColumnProfile:
    if len(column.categories) <= most:
        return column
    by_size = sorted(column.categories, key=lambda category: (-column.categories[category], category))
    return fold(column, by_size[:most])


def _as_text(column: ColumnProfile) -> ColumnProfile:
    """Categories as the text they are: their lengths."""
    if column.kind == "text":
        return column
    if column.rest:
        raise InputError(
            "a profile that keeps only some categories can not be merged with one of text",
            remedy="profile both parts again, the second `like` the first",
        )
    lengths: dict[float, int] = {}
    for category, count in column.categories.items():
        lengths[float(len(category))] = lengths.get(float(len(category)), 0) + count
    total = sum(lengths.values())
    mean = sum(length * n for length, n in lengths.items()) / total if total else None
    squares = sum((length - (mean or 0.0)) ** 2 * n for length, n in lengths.items())
    return replace(
        column,
        kind="text",
        categories={},
        mean=mean,
        deviation=math.sqrt(squares / total) if total else None,
        low=min(lengths, default=None),
        high=max(lengths, default=None),
        histogram=Histogram.of_rounded(lengths),
    )


def _merge_categories(a: ColumnProfile, b: ColumnProfile) -> tuple[dict[str, int], dict[int, int]]:
    # A category that one side keeps by name may be hidden in the other's buckets: then it can be named no
    # more.
    keep_a = [c for c in a.categories if c in b.categories or not b.rest]
    keep_b = [c for c in b.categories if c in a.categories or not a.rest]
    a, b = fold(a, keep_a), fold(b, keep_b)
    categories, rest = dict(a.categories), dict(a.rest)
    for category, count in b.categories.items():
        categories[category] = categories.get(category, 0) + count
    for number, count in b.rest.items():
        rest[number] = rest.get(number, 0) + count
    return categories, rest


def _pooled(a: ColumnProfile, b: ColumnProfile) -> tuple[float | None, float | None]:
    """Mean and deviation of two parts (Chan, Golub and LeVeque 1979)."""
    if a.mean is None or a.deviation is None:
        return b.mean, b.deviation
    if b.mean is None or b.deviation is None:
        return a.mean, a.deviation
    n, m = a.histogram.total, b.histogram.total
    delta = b.mean - a.mean
    mean = a.mean + delta * m / (n + m)
    squares = a.deviation**2 * n + b.deviation**2 * m + delta**2 * n * m / (n + m)
    return mean, math.sqrt(squares / (n + m))
