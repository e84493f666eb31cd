"""What a profile counts, in plain aggregates and groupings: for engines that build no maps and no structures."""

# ruff: noqa: S608  (identifiers go through `quote`; values never become SQL)
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlcicd.data.column_profile import Kind
from mlcicd.data.source import Source, quote


def plain_values(
    source: Source,
    names: Sequence[str],
    kinds: Mapping[str, Kind],
    numbers: Mapping[str, str],
    *,
    most: float,
    longest: int,
) -> list[dict[str, Any]]:
    """The values of some columns' profiles, but for the cells of numbers.

    Args:
        numbers: our SQL of each numeric column's value, or of each text's length, as a DOUBLE.
        most: beyond this size numbers are taken for this size, so that their squares are numbers.
        longest: categories are cut to so many characters.

    Returns:
        By column, in order: `present`, and for numbers `nan`, `infinite`, `mean`, `deviation`, `low`, `high`, for
        categories `counts`.

    Raises:
        InputError: the data can not be read.
    """
    parts = []
    for name in names:
        parts.append(f"count({quote(name)})")
        if name in numbers:
            value = numbers[name]
            finite = f"FILTER (WHERE isfinite({value}))"
            clamped = f"greatest(least({value}, {most!r}), -{most!r})"
            parts += [f"count_if(isnan({value}))", f"count_if(isinf({value}))"]
            parts += [f"avg({clamped}) {finite}", f"stddev_pop({clamped}) {finite}"]
            parts += [f"min({value}) {finite}", f"max({value}) {finite}"]
    found = list(source.fetch(f"SELECT {', '.join(parts)} FROM data")[0])
    values = []
    for name in names:
        counted = {"present": found.pop(0)}
        if name in numbers:
            counted |= {key: found.pop(0) for key in ("nan", "infinite", "mean", "deviation", "low", "high")}
        elif kinds[name] == "category":
            counted["counts"] = _categories(source, name, longest)
        values.append(counted)
    return values


def _categories(source: Source, name: str, longest: int) -> dict[str, int]:
    text = f"left(CAST({quote(name)} AS VARCHAR), {longest})"
    rows = source.fetch(f"SELECT {text}, count(*) FROM data WHERE {quote(name)} IS NOT NULL GROUP BY {text}")
    return {str(category): int(count) for category, count in rows}
