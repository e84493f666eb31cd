"""Values counted by cell (:mod:`mlcicd.data.histogram`) or by category, in groupings that read one column each."""

# ruff: noqa: S608  (identifiers go through `quote`; values never become SQL)
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlcicd.data.histogram import in_reach, nearest_in_reach, quick_rounding_sql, rounding_sql
from mlcicd.data.source import Source, quote

# Squares of larger numbers, added up over any table, may be no numbers.
_SUMMABLE = 1e100
# Below so many times their mean size, numbers lie in a few cells, and these say little about where the mean is.
_NARROW = 2.0**-8


@dataclass(frozen=True)
class Cells:
    """The numbers of one column.

    Attributes:
        counts: centre of a cell to the number of finite values in it.
        nan, infinite: how many values are no finite numbers.
    """

    counts: Mapping[float, int]
    nan: int = 0
    infinite: int = 0

    @property
    def present(self) -> int:
        """How many values there are."""
        return sum(self.counts.values()) + self.nan + self.infinite

    @cached_property
    def middle(self) -> float | None:
        """Near the mean; None where the values are too close to each other, or too large, for cells to tell it."""
        import numpy as np

        if not self.counts:
            return None
        centres = np.fromiter(self.counts.keys(), dtype=np.float64, count=len(self.counts))
        sizes = np.fromiter(self.counts.values(), dtype=np.float64, count=len(self.counts))
        magnitude = np.abs(centres)
        if magnitude.max() > _SUMMABLE:
            return None
        mean = float(np.average(centres, weights=sizes))
        deviation = math.sqrt(float(np.average((centres - mean) ** 2, weights=sizes)))
        if deviation >= abs(mean):
            return 0.0  # squares lose no digits as they stand, and nothing has to be rounded
        return mean if deviation > _NARROW * float(np.average(magnitude, weights=sizes)) else None


def count_cells(source: Source, value: str) -> Cells:
    """Counts the cells of a value (SQL, a DOUBLE) in one grouping, and in one more where not all values are finite.

    Raises:
        InputError: the data can not be read.
    """
    quick = quick_rounding_sql(value)
    rows = source.fetch(f"SELECT cell, count(*) FROM (SELECT {quick} AS cell FROM data) GROUP BY cell")
    counts: dict[float, int] = dict(rows)
    odd = 0
    for cell in [c for c in counts if c is None or not in_reach(c)]:
        count = counts.pop(cell)
        if cell is None:
            continue
        if math.isnan(cell):
            odd = count
        else:
            centre = nearest_in_reach(cell)
            counts[centre] = counts.get(centre, 0) + count
    if not odd:
        return Cells(counts)
    nan = infinite = 0
    careful = f"SELECT {rounding_sql(value)} AS cell, isnan({value}) AS undefined FROM data WHERE isnan({quick})"
    rows = source.fetch(f"SELECT cell, count(*), count_if(undefined) FROM ({careful}) GROUP BY cell")
    for cell, count, undefined in rows:
        if cell is None:
            nan, infinite = int(undefined), int(count) - int(undefined)
        else:
            counts[float(cell)] = counts.get(float(cell), 0) + int(count)
    return Cells(counts, nan, infinite)


def count_categories(source: Source, name: str, longest: int) -> dict[str, int]:
    """Counts the texts of a column, cut to `longest` characters.

    Raises:
        InputError: the data can not be read.
    """
    # Grouped as it stands first: the engine groups the entries of a dictionary, but not what is computed from them.
    # By its place: the name of an alias may be that of a column.
    groups = f"SELECT {quote(name)} AS value, count(*) AS n FROM data WHERE {quote(name)} IS NOT NULL GROUP BY 1"
    text = f"left(CAST(value AS VARCHAR), {longest})"
    return {str(t): int(n) for t, n in source.fetch(f"SELECT {text} AS t, sum(n) FROM ({groups}) GROUP BY t")}


def moments_sql(value: str, cells: Cells, most: float) -> str:
    """SQL, a structure: `mean`, `deviation`, `low` and `high` of the finite values, as :func:`moments` reads it.

    Args:
        value: SQL, a DOUBLE.
        cells: its cells.
        most: beyond this size numbers are taken for this size, so that their squares are numbers.
    """
    odd = cells.nan + cells.infinite
    finite = f"CASE WHEN isfinite({value}) THEN {value} END" if odd else value
    if cells.middle is None:
        # greatest() and least() pass over NULL, and would make a number of it.
        clamped = f"CASE WHEN isfinite({value}) THEN greatest(least({value}, {most!r}), -{most!r}) END"
        mean, deviation = f"avg({clamped})", f"stddev_pop({clamped})"
    else:
        # Of distances from a number near the mean, squares lose no digits, and cost a fifth of what stddev_pop costs.
        apart = f"({finite} - CAST('{cells.middle!r}' AS DOUBLE))" if cells.middle else finite
        mean, deviation = f"avg({apart})", f"avg({apart} * {apart})"
    return f"{{'mean': {mean}, 'deviation': {deviation}, 'low': min({finite}), 'high': max({finite})}}"


def moments(found: Mapping[str, Any], cells: Cells) -> dict[str, float | None]:
    """What :func:`moments_sql` gave, as the mean and the population standard deviation; all None without values."""
    mean, deviation, low, high = (found[name] for name in ("mean", "deviation", "low", "high"))
    if cells.middle is not None and mean is not None:
        deviation = math.sqrt(max(deviation - mean * mean, 0.0))
        mean += cells.middle
    return {"mean": mean, "deviation": deviation, "low": low, "high": high}
