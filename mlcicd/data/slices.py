"""Profiles of the slices of a table by one column's values, or by periods of its time: one grouping a column."""

# ruff: noqa: S608  (identifiers go through `quote`, text through `literal`; values never become SQL)
from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from mlcicd.data.column_profile import ColumnProfile, Kind, hashed
from mlcicd.data.conditions import kind_of
from mlcicd.data.histogram import Histogram, rounding_sql
from mlcicd.data.profile import Profile
from mlcicd.data.source import Source, literal, quote

MOST = 8
FEWEST_ROWS = 200
_LONGEST = 80
_SQUARABLE = 1e140


def by_value(column: str) -> str:
    """SQL of the slices of a column's values."""
    return f"left(CAST({quote(column)} AS VARCHAR), {_LONGEST})"


def slice_profiles(
    source: Source,
    by: str,
    like: Profile,
    *,
    names: Sequence[str] | None = None,
    most: int = MOST,
    hidden: bool = False,
) -> dict[str, Profile]:
    """The profiles of a table's largest slices, largest first.

    Means and deviations are those of the cells, exact to a thousandth of the values.

    Args:
        by: SQL of a row's slice, as text; rows where it is NULL are in none.
        like: a profile of the whole table, or of one it is compared with: its columns, and how each is treated.
        names: which slices, however few rows they have; the `most` largest with 200 rows or more when None.
        hidden: slices are named by hashes, in `names` too.

    Raises:
        InputError: the data can not be read.
    """
    found = source.fetch(f"SELECT {by} AS s, count(*) FROM data WHERE {by} IS NOT NULL GROUP BY 1")
    rows = {str(name): int(count) for name, count in sorted(found, key=lambda one: (-one[1], one[0]))}
    shown = {name: hashed(name) if hidden else name for name in rows}
    if names is None:
        chosen = [name for name, count in rows.items() if count >= FEWEST_ROWS][:most]
    else:
        chosen = [name for name in rows if shown[name] in names]
    if not chosen:
        return {}
    columns: dict[str, dict[str, ColumnProfile]] = {name: {} for name in chosen}
    wanted = f"{by} IN ({', '.join(literal(name) for name in chosen)})"
    for column, before in like.columns.items():
        if column in source.columns:
            counted = _counts(source, by, wanted, column, before.kind)
            for name in chosen:
                secret = column in like.sensitive
                columns[name][column] = _column(before.kind, rows[name], counted.get(name, []), secret)
    return {shown[name]: Profile(rows[name], columns[name], like.target, like.sensitive) for name in chosen}


def _counts(source: Source, by: str, wanted: str, column: str, kind: Kind) -> dict[str, list[tuple[Any, ...]]]:
    """Slice to (cell or category, rows, values, NaN among them)."""
    cell, present, nan = _asked_of(source, column, kind)
    rows = source.fetch(
        f"SELECT {by} AS s, {cell} AS c, count(*), count({present}), {nan} FROM data WHERE {wanted} GROUP BY 1, 2"
    )
    found: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for name, *counts in rows:
        found[str(name)].append(tuple(counts))
    return found


def _asked_of(source: Source, column: str, kind: Kind) -> tuple[str, str, str]:
    """SQL of a value's cell or category, of the value, and of how many are NaN.

    A column whose type has changed so that it has no such values now counts as one of missing values.
    """
    name, now = quote(column), kind_of(source.columns[column])
    if kind in ("time", "other"):
        return "NULL", name, "0"
    if kind == "category":
        return f"left(CAST({name} AS VARCHAR), {_LONGEST})", name, "0"
    if kind == "text":
        if now != "string":
            return "NULL", "NULL", "0"
        name = f"length(CAST({name} AS VARCHAR))"
    elif now not in ("int", "float", "decimal"):
        return "NULL", "NULL", "0"
    value = f"CAST({name} AS DOUBLE)"
    return rounding_sql(value), value, f"count(*) FILTER (WHERE isnan({value}))"


def _column(kind: Kind, rows: int, counts: list[tuple[Any, ...]], secret: bool) -> ColumnProfile:
    values = sum(int(present) for _, _, present, _ in counts)
    nulls = rows - values
    if kind in ("time", "other"):
        return ColumnProfile(kind, rows, nulls)
    cells = {cell: int(count) for cell, count, _, _ in counts if cell is not None}
    if kind == "category":
        return ColumnProfile(kind, rows, nulls, categories={hashed(k) if secret else k: n for k, n in cells.items()})
    nan = sum(int(one) for _, _, _, one in counts)
    total = sum(cells.values())
    # Exact sums: which cell an engine gives first makes no difference.
    mean = math.fsum(v * n for v, n in cells.items()) / total if total else None
    # As far as they can be squared; a single 1e300 must not turn the deviation into an error.
    far = [(max(min(v - (mean or 0.0), _SQUARABLE), -_SQUARABLE), n) for v, n in cells.items()]
    spread = math.fsum(v * v * n for v, n in far)
    return ColumnProfile(
        kind,
        rows,
        nulls,
        nan,
        values - nan - total,
        mean,
        math.sqrt(spread / total) if total else None,
        min(cells, default=None),
        max(cells, default=None),
        Histogram.of_rounded(cells),
    )
