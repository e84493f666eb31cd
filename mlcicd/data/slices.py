"""Profiles of the slices of a table by one column's values, or by periods of its time: one grouping a column."""

# ruff: noqa: S608  (identifiers go through `quote`, text through `literal`; values never become SQL)
from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from mlcicd.data.column_profile import ColumnProfile, Kind, hashed
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
    found = source.fetch(f"SELECT s, count(*) FROM (SELECT {by} AS s FROM data) WHERE s IS NOT NULL GROUP BY s")
    rows = {str(name): int(count) for name, count in sorted(found, key=lambda one: (-one[1], one[0]))}
    shown = {name: hashed(name) if hidden else name for name in rows}
    if names is None:
        chosen = [name for name, count in rows.items() if count >= FEWEST_ROWS][:most]
    else:
        chosen = [name for name in rows if shown[name] in names]
    if not chosen:
        return {}
    columns: dict[str, dict[str, ColumnProfile]] = {name: {} for name in chosen}
    wanted = f"s IN ({', '.join(literal(name) for name in chosen)})"
    for column, before in like.columns.items():
        if column in source.columns:
            counted = _counts(source, by, wanted, column, before.kind)
            for name in chosen:
                secret = column in like.sensitive
                columns[name][column] = _column(before.kind, rows[name], counted.get(name, []), secret)
    return {shown[name]: Profile(rows[name], columns[name], like.target, like.sensitive) for name in chosen}


def _counts(source: Source, by: str, wanted: str, column: str, kind: Kind) -> dict[str, list[tuple[Any, ...]]]:
    """Slice to (cell or category, rows, values, NaN among them)."""
    value, nan = quote(column), "0"
    if kind in ("time", "other"):
        cell = "NULL"
    elif kind == "category":
        cell = f"left(CAST(v AS VARCHAR), {_LONGEST})"
    else:
        value = f"TRY_CAST({f'length(CAST({value} AS VARCHAR))' if kind == 'text' else value} AS DOUBLE)"
        cell, nan = rounding_sql("v"), "count(*) FILTER (isnan(v))"
    rows = source.fetch(
        f"SELECT s, {cell} AS c, count(*), count(v), {nan} FROM (SELECT {by} AS s, {value} AS v FROM data) "
        f"WHERE {wanted} GROUP BY s, c"
    )
    found: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for name, *counts in rows:
        found[str(name)].append(tuple(counts))
    return found


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
    mean = sum(v * n for v, n in cells.items()) / total if total else None
    # As far as they can be squared; a single 1e300 must not turn the deviation into an error.
    far = [(max(min(v - (mean or 0.0), _SQUARABLE), -_SQUARABLE), n) for v, n in cells.items()]
    spread = sum(v * v * n for v, n in far)
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
