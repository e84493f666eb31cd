"""Values counted by cell (:mod:`mlcicd.data.histogram`) or by category, in groupings that read one column each."""

# ruff: noqa: S608  (identifiers go through `quote`; values never become SQL)
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mlcicd.data.histogram import in_reach, nearest_in_reach, quick_rounding_sql, rounding_sql
from mlcicd.data.source import Source, quote


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
