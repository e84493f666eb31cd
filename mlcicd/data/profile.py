"""What a table looked like, small enough to keep with a model and without its rows.

A profile holds, for each column, counts by cell (:mod:`mlcicd.data.histogram`) or by category. Profiles of
parts of a table merge into the profile of the whole, so a month is profiled once.
"""

# ruff: noqa: S608  (identifiers go through `quote`, text through `literal`; values never become SQL)
from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.yaml_lines import nearest
from mlcicd.data.cells import count_categories, count_cells
from mlcicd.data.column_profile import ColumnProfile, Kind, hashed
from mlcicd.data.conditions import kind_of
from mlcicd.data.distinct import distinct_counts
from mlcicd.data.distributed_profile import plain_values
from mlcicd.data.histogram import Histogram, rounding_sql
from mlcicd.data.number_counts import NumberCounts, count_numbers
from mlcicd.data.row_sample import RowSample
from mlcicd.data.source import Source, quote

VERSION = 1
_COLUMNS_PER_PASS = 60
_MOST_CATEGORIES = 4000
_ALWAYS_CATEGORIES = 50
_KEPT_CATEGORIES = 200
_LONGEST_CATEGORY = 80
_SIZE = 280_000
_SLICES_SIZE = 140_000
_MOST_CELLS, _USUAL_CELLS, _FEWEST_CELLS = 4096, 2048, 16
_BYTES_A_CELL, _BYTES_A_COLUMN = 9, 320
# The largest number whose square is one.
_SQUARABLE = 1e150


@dataclass(frozen=True)
class Profile:
    """What a table looked like: its rows, and each column.

    `sensitive` columns hold hashes of their categories; `target` names the label, if there is one. `sample` has coded
    rows, and `slices` the profiles within the values of some columns, where these were asked for.
    """

    rows: int
    columns: Mapping[str, ColumnProfile]
    target: str | None = None
    sensitive: frozenset[str] = frozenset()
    sample: RowSample | None = None
    slices: Mapping[str, Mapping[str, Profile]] = field(default_factory=dict)

    def merge(self, other: Profile) -> Profile:
        """The profile of both tables as one.

        Raises:
            InputError: they do not have the same columns.
        """
        if set(self.columns) != set(other.columns) or self.sensitive != other.sensitive:
            different = sorted(set(self.columns) ^ set(other.columns))
            raise InputError(
                "profiles of different columns can not be merged",
                why=f"only in one: {', '.join(different[:5])}",
            )
        columns = {name: column.merge(other.columns[name]) for name, column in self.columns.items()}
        same = self.sample and other.sample and self.sample.columns == other.sample.columns
        sample = self.sample.merge(other.sample) if same and self.sample and other.sample else None
        slices = {by: _merged(self.slices[by], other.slices[by]) for by in self.slices if by in other.slices}
        return Profile(self.rows + other.rows, columns, self.target, self.sensitive, sample, slices)

    def to_json(self, size: int = _SIZE) -> dict[str, Any]:
        """A JSON value of less than 300 kB up to some 400 columns; wide tables get coarser histograms.

        A sample of rows adds at most 140 kB, slices together another 140 kB.

        Args:
            size: bytes that the columns may take, about.
        """
        number = sum(len(values) for values in self.slices.values())
        columns = _fine(self.columns, size) or _spread(self.columns, size)
        value = {
            "kind": "mlcicd.profile",
            "version": VERSION,
            "rows": self.rows,
            "target": self.target,
            "sensitive": sorted(self.sensitive),
            "columns": columns,
        }
        if self.sample is not None:
            value["sample"] = self.sample.to_json()
        if self.slices:
            value["slices"] = {
                by: {name: one.to_json(_SLICES_SIZE // max(number, 1)) for name, one in values.items()}
                for by, values in self.slices.items()
            }
        return value

    @classmethod
    def from_json(cls, value: Any) -> Profile:
        """Reads what :meth:`to_json` wrote.

        Raises:
            InputError: it is no profile, or of a version this library does not read.
        """
        if not isinstance(value, dict) or value.get("kind") != "mlcicd.profile" or value.get("version") != VERSION:
            raise InputError(
                "this is not a profile that can be read",
                remedy="profile the reference data again with this version",
            )
        try:
            columns = {name: ColumnProfile.from_json(column) for name, column in value["columns"].items()}
            slices = {
                by: {name: cls.from_json(one) for name, one in values.items()}
                for by, values in value.get("slices", {}).items()
            }
            sample = RowSample.from_json(value["sample"]) if "sample" in value else None
            hidden = frozenset(value["sensitive"])
            return cls(int(value["rows"]), columns, value["target"], hidden, sample, slices)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError("the profile is damaged", why=repr(error)[:200]) from error


def _fine(columns: Mapping[str, ColumnProfile], size: int) -> dict[str, Any]:
    """Columns as JSON with as many cells as any may have, where all of them fit; else nothing."""
    if len(columns) * _USUAL_CELLS * _BYTES_A_CELL > 2 * size:
        return {}
    made = {name: column.limited(_MOST_CELLS, _KEPT_CATEGORIES).to_json() for name, column in columns.items()}
    return made if sum(len(json.dumps(one)) for one in made.values()) <= size else {}


def _spread(columns: Mapping[str, ColumnProfile], size: int) -> dict[str, Any]:
    """Columns as JSON, each in its equal part of the size."""
    part = (size / max(len(columns), 1) - _BYTES_A_COLUMN) / _BYTES_A_CELL
    cells = int(min(_USUAL_CELLS, max(_FEWEST_CELLS, part)))
    made = {}
    for name, column in columns.items():
        kept = min(_KEPT_CATEGORIES, cells)
        small = column.limited(cells, kept)
        # Long category names: keep as many as fit into the column's part of the size.
        while len(json.dumps(small.to_json())) > cells * _BYTES_A_CELL + _BYTES_A_COLUMN and kept > 1:
            kept //= 2
            small = column.limited(cells, kept)
        made[name] = small.to_json()
    return made


def _merged(a: Mapping[str, Profile], b: Mapping[str, Profile]) -> dict[str, Profile]:
    """Slices of both; what only one has stays as it is."""
    return {**a, **b, **{name: a[name].merge(b[name]) for name in a if name in b}}


def profile(
    source: Source,
    columns: Sequence[str] | None = None,
    target: str | None = None,
    *,
    sensitive: Iterable[str] = (),
    like: Profile | None = None,
) -> Profile:
    """Profiles a table in few passes: each column of a Parquet file is decoded twice.

    Args:
        columns: which; all when None. The target is always among them.
        sensitive: columns whose categories are kept as hashes.
        like: a profile this one is to be compared with: text is treated as it was there, categories or not.

    Raises:
        ConfigError: a column is not in the data.
        InputError: the data can not be read.
    """
    names = list(source.columns) if columns is None else list(dict.fromkeys(columns))
    if target is not None and target not in names:
        names.append(target)
    for name in names:
        if name not in source.columns:
            raise ConfigError(
                f"there is no column {name!r} to profile{nearest(name, source.columns)}",
                where=str(source.path),
            )
    hidden = frozenset(sensitive).intersection(names)
    kinds = _kinds(source, names, like)
    found: dict[str, ColumnProfile] = {}
    rows = source.rows
    counted = _counted_elsewhere if source.distributed else _counted_at_once if source.untyped else _counted_one_by_one
    for start in range(0, len(names), _COLUMNS_PER_PASS):
        block = names[start : start + _COLUMNS_PER_PASS]
        for name, value in zip(block, counted(source, block, kinds), strict=True):
            found[name] = _column(kinds[name], rows, value, name in hidden)
    return Profile(rows, found, target, hidden)


def _kinds(source: Source, names: Sequence[str], like: Profile | None) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    texts = []
    for name in names:
        kind = kind_of(source.columns[name])
        if kind in ("int", "float", "decimal"):
            kinds[name] = "numeric"
        elif kind == "bool":
            kinds[name] = "category"
        elif kind == "string":
            texts.append(name)
        else:
            kinds[name] = "time" if kind in ("date", "timestamp", "time") else "other"
    for start in range(0, len(texts), _COLUMNS_PER_PASS):
        block = texts[start : start + _COLUMNS_PER_PASS]
        for name, count in zip(block, distinct_counts(source, block, _limits(source.rows)), strict=True):
            before = like.columns.get(name) if like else None
            kinds[name] = _text_kind(count, source.rows, before)
    return kinds


def _limits(rows: int) -> list[float]:
    """The numbers of different texts at which the kind of a column changes."""
    repeats = min(max(_ALWAYS_CATEGORIES, rows / 2), _MOST_CATEGORIES)
    return [repeats, _MOST_CATEGORIES, 20 * _MOST_CATEGORIES]


def _text_kind(distinct: int, rows: int, before: ColumnProfile | None) -> Kind:
    """Categories come again; text, such as names and identifiers, does not."""
    if before is not None and before.values and before.kind in ("category", "text"):
        return before.kind if distinct <= 20 * _MOST_CATEGORIES else "text"
    repeats = distinct <= max(_ALWAYS_CATEGORIES, rows / 2)
    return "category" if distinct <= _MOST_CATEGORIES and repeats else "text"


def _number(name: str, kind: Kind) -> str:
    text = f"length(CAST({quote(name)} AS VARCHAR))" if kind == "text" else quote(name)
    return f"CAST({text} AS DOUBLE)"


def _counted_one_by_one(source: Source, names: Sequence[str], kinds: Mapping[str, Kind]) -> list[dict[str, Any]]:
    """One reading of each column: numbers are counted here, several times faster than by a grouping of their cells."""
    rest = [name for name in names if kinds[name] in ("time", "other")]
    parts = ", ".join(f"count({quote(name)})" for name in rest)
    present = dict(zip(rest, source.fetch(f"SELECT {parts} FROM data")[0], strict=True)) if rest else {}
    values: list[dict[str, Any]] = []
    for name in names:
        if name in present:
            values.append({"present": present[name]})
        elif kinds[name] == "category":
            counts = count_categories(source, name, _LONGEST_CATEGORY)
            values.append({"present": sum(counts.values()), "counts": counts})
        else:
            values.append(_of_numbers(count_numbers(source, _number(name, kinds[name]))))
    return values


def _of_numbers(counts: NumberCounts) -> dict[str, Any]:
    value = {"present": counts.values, "nan": counts.nan, "infinite": counts.infinite, "histogram": counts.histogram()}
    some = bool(counts.finite)
    return value | {k: getattr(counts, k) if some else None for k in ("mean", "deviation", "low", "high")}


def _counted_at_once(source: Source, names: Sequence[str], kinds: Mapping[str, Kind]) -> list[dict[str, Any]]:
    """One pass, for CSV and JSON: there every pass reads all the text again, and maps are the cheaper way."""
    return list(source.fetch(f"SELECT {', '.join(_aggregates(name, kinds[name]) for name in names)} FROM data")[0])


def _counted_elsewhere(source: Source, names: Sequence[str], kinds: Mapping[str, Kind]) -> list[dict[str, Any]]:
    numbers = {name: _number(name, kinds[name]) for name in names if kinds[name] in ("numeric", "text")}
    values = plain_values(source, names, kinds, numbers, most=_SQUARABLE, longest=_LONGEST_CATEGORY)
    for name, value in zip(names, values, strict=True):
        if name in numbers:
            value["counts"] = count_cells(source, numbers[name]).counts
    return values


def _aggregates(name: str, kind: Kind) -> str:
    column = quote(name)
    if kind in ("time", "other"):
        return f"{{'present': count({column})}}"
    if kind == "category":
        text = f"left(CAST({column} AS VARCHAR), {_LONGEST_CATEGORY})"
        return f"{{'present': count({column}), 'counts': histogram({text})}}"
    value = _number(name, kind)
    finite = f"FILTER (WHERE isfinite({value}))"
    # Clamped before squaring: a single 1e300 must not turn the deviation into an error.
    clamped = f"greatest(least({value}, {_SQUARABLE!r}), -{_SQUARABLE!r})"
    return (
        f"{{'present': count({column}), 'nan': count_if(isnan({value})), 'infinite': count_if(isinf({value})), "
        f"'mean': avg({clamped}) {finite}, 'deviation': stddev_pop({clamped}) {finite}, "
        f"'low': min({value}) {finite}, 'high': max({value}) {finite}, 'counts': histogram({rounding_sql(value)})}}"
    )


def _column(kind: Kind, rows: int, value: dict[str, Any], hidden: bool) -> ColumnProfile:
    nulls = rows - int(value["present"])
    if kind in ("time", "other"):
        return ColumnProfile(kind, rows, nulls)
    if kind == "category":
        named = {hashed(text) if hidden else text: int(count) for text, count in (value["counts"] or {}).items()}
        return ColumnProfile(kind, rows, nulls, categories=named)
    return ColumnProfile(
        kind,
        rows,
        nulls,
        int(value["nan"] or 0),  # NULL without rows
        int(value["infinite"] or 0),
        value["mean"],
        value["deviation"],
        value["low"],
        value["high"],
        value["histogram"] if "histogram" in value else Histogram.of_rounded(value["counts"] or {}),
    )
