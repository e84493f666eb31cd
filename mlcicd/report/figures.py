"""The figures that a verdict carries as data, read with suspicion.

``Verdict.details["figures"]`` is a list of such objects::

    {"kind": "lines" | "bars" | "intervals" | "steps",
     "title": str, "x_label": str, "y_label": str,
     "series": [{"name": str, "x": [number | str, ...], "y": [number, ...],
                 "lo": [number, ...] | null, "hi": [number, ...] | null}, ...],
     "reference": {"y": number, "label": str} | null,
     "log_y": bool}

Text in `x` makes categories. A number may be NaN (or the string that JSON has for it): the point is left out. Confusion
matrices have a form of their own: :mod:`mlcicd.report.matrix`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from mlcicd.report.markup import clean

Kind = Literal["lines", "bars", "intervals", "steps"]

_SERIES = 6
_CATEGORIES = 40
_POINTS = 400
_LARGEST = 1e300  # beyond it the axis' arithmetic overflows


class MalformedFigure(Exception):
    """The data do not make a figure; the message says why."""


@dataclass(frozen=True)
class Point:
    """One point; `x` is the position on the axis, the index of its category when there are categories."""

    x: float
    y: float
    lo: float | None = None
    hi: float | None = None


@dataclass(frozen=True)
class Series:
    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Figure:
    """A figure that can be drawn: at least one series has a point, and all numbers are finite.

    Attributes:
        categories: names along x, empty when x is a number.
        note: what was left out, empty when nothing was.
    """

    kind: Kind
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    categories: tuple[str, ...]
    reference: float | None
    reference_label: str
    log_y: bool
    note: str


def parse_figure(data: Any) -> Figure:
    """Reads one figure.

    Raises:
        MalformedFigure: it can not be drawn.
    """
    if not isinstance(data, dict):
        raise MalformedFigure("it is not an object")
    kind = data.get("kind")
    if kind not in get_args(Kind):
        raise MalformedFigure(f"its kind is {clean(kind, limit=40)}")
    raw = data.get("series")
    if not isinstance(raw, list) or not raw or not all(isinstance(s, dict) for s in raw):
        raise MalformedFigure("it has no series")
    notes = []
    if len(raw) > _SERIES:
        notes.append(f"{len(raw) - _SERIES} more series are not shown")
        raw = raw[:_SERIES]
    log_y = data.get("log_y") is True
    categories = _categories(raw)
    if len(categories) > _CATEGORIES and kind in ("bars", "intervals"):
        notes.append(f"{len(categories) - _CATEGORIES} more of {len(categories)} are not shown")
        categories = categories[:_CATEGORIES]
    series = tuple(_series(s, i, categories, log_y=log_y) for i, s in enumerate(raw))
    series = tuple(s for s in series if s.points)
    if not series:
        raise MalformedFigure("it has no finite value" + (" above zero" if log_y else ""))
    reference, label = _reference(data.get("reference"), log_y=log_y)
    return Figure(
        kind=cast(Kind, kind),
        title=clean(data.get("title") or "", limit=160),
        x_label=clean(data.get("x_label") or "", limit=80),
        y_label=clean(data.get("y_label") or "", limit=80),
        series=series,
        categories=tuple(categories),
        reference=reference,
        reference_label=label,
        log_y=log_y,
        note="; ".join(notes),
    )


def _categories(raw: Sequence[dict[str, Any]]) -> list[str]:
    """The distinct names along x, in the order they come, when any x is text that is not a number."""
    values = [x for s in raw if isinstance(s.get("x"), list) for x in s["x"]]
    if all(_number(x) is not None or x is None for x in values):
        return []
    return list(dict.fromkeys(_category(x) for x in values))


def _category(x: Any) -> str:
    return clean(x, limit=60)


def _series(raw: dict[str, Any], index: int, categories: Sequence[str], *, log_y: bool) -> Series:
    name = clean(raw.get("name") or f"series {index + 1}", limit=60)
    x, y = raw.get("x"), raw.get("y")
    if not isinstance(x, list) or not isinstance(y, list):
        raise MalformedFigure(f"{name} has no x or no y")
    if len(x) != len(y):
        raise MalformedFigure(f"{name} has {len(x)} x and {len(y)} y")
    lo, hi = (_bound(raw.get(key), len(y), name) for key in ("lo", "hi"))
    position = {category: i for i, category in enumerate(categories)}
    points = []
    for i, (at, value) in enumerate(zip(x, y, strict=True)):
        px = position.get(_category(at)) if categories else _finite(at)
        py = _finite(value)
        if px is None or py is None or (log_y and py <= 0):
            continue
        low, high = _finite(lo[i]), _finite(hi[i])
        if log_y:
            low, high = (b if b is None or b > 0 else None for b in (low, high))
        points.append(Point(float(px), py, low, high))
    return Series(name, tuple(_thinned(points)))


def _bound(values: Any, length: int, name: str) -> list[Any]:
    if values is None:
        return [None] * length
    if not isinstance(values, list) or len(values) != length:
        raise MalformedFigure(f"the interval of {name} has another length than its y")
    return values


def _reference(data: Any, *, log_y: bool) -> tuple[float | None, str]:
    if not isinstance(data, dict):
        return None, ""
    value = _finite(data.get("y"))
    if value is None or (log_y and value <= 0):
        return None, ""
    return value, clean(data.get("label") or "", limit=40)


def _thinned(points: list[Point]) -> list[Point]:
    """At most `_POINTS` points that keep the shape: the lowest and the highest of each stretch."""
    if len(points) <= _POINTS:
        return points
    stretch = math.ceil(2 * len(points) / _POINTS)
    kept: list[Point] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        ends = {part.index(min(part, key=lambda p: p.y)), part.index(max(part, key=lambda p: p.y))}
        kept.extend(part[i] for i in sorted(ends))
    return kept


def _number(value: Any) -> float | None:
    """The value as a float, NaN included; None for what is no number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.nan
    return (
        {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}.get(value) if isinstance(value, str) else None
    )


def _finite(value: Any) -> float | None:
    number = _number(value)
    # The comparison is false for NaN and for both infinities.
    return number if number is not None and abs(number) <= _LARGEST else None
