"""A first schema from a reference table, to be read and edited by a person."""

# ruff: noqa: S608  (identifiers go through `quote`, text through `literal`; values never become SQL)
from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from mlcicd.core.errors import InputError
from mlcicd.data.conditions import kind_of
from mlcicd.data.round_bounds import round_bounds
from mlcicd.data.source import Source, quote
from mlcicd.data.yaml_text import scalar

_BLOCK = 100
_MOST_CATEGORIES = 50
_ROWS_A_CATEGORY = 20
_LONGEST_CATEGORY = 80
_FEWEST_ROWS_FOR_A_KEY = 20
_KEY_KINDS = ("int", "string", "date", "timestamp")
_PAIRS_TRIED = 6
# approx_count_distinct is a few percent off; anything below this share of the rows is surely no key.
_NEARLY_UNIQUE = 0.85
# Whole numbers without repeats are a key when they are called so, or are dense, or are many; else they may be a
# measurement of few rows.
_CALLED_KEY = re.compile(r"(?:^|_)(id|key|uuid|guid|index|no|nr|number)$", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_MANY_ROWS, _DENSE = 1_000, 4


@dataclass(frozen=True)
class _Facts:
    """What was seen in one column."""

    name: str
    kind: str
    rows: int
    missing: int
    odd: int
    distinct: int
    low: Any
    high: Any
    longest: int | None
    nulls: int
    flags: bool

    @property
    def called_key(self) -> bool:
        """Whether its name says that it tells rows, or things, apart: its size means nothing."""
        return _CALLED_KEY.search(_CAMEL.sub("_", self.name)) is not None

    @property
    def present(self) -> int:
        """Rows that hold anything, NaN included."""
        return self.rows - self.nulls


def infer_schema(source: Source, *, slack: float = 0.1) -> str:
    """Writes the schema that a table obeys, as commented YAML.

    Bounds are the observed ones, widened by `slack` of their span and rounded outwards, but none are written for
    keys; zeros and ones are a list; missing shares get half as much again; text of few values becomes a list of
    categories; keys are single columns, or pairs, without repeats. The table passes its own schema.

    Raises:
        InputError: the table is empty or can not be read.
    """
    if source.rows == 0:
        raise InputError(
            "there is nothing to infer from: the table has no rows",
            where=str(source.path),
            remedy="name another",
        )
    facts = list(_facts(source))
    keys = [fact.name for fact in facts if _is_key(source, fact)]
    key = keys[:1] or _pair(source, facts)
    # A line break in the name of a table would end the comment.
    name = " ".join(source.path.name.split())
    lines = [
        f"# Inferred from {name} ({source.rows:,} rows). Read it: what is true here need not",
        "# be what must be true of the next table. Bounds are widened; tighten what you know.",
        "version: 1",
        "rows:",
        f"  min: {max(source.rows // 2, 1)}  # half of what was seen; a job that lost data is caught here",
        "  holdout: {min: 1}  # smaller by nature; whether it is large enough for a gate, the gate's interval says",
    ]
    if key:
        lines += [f"key: [{', '.join(scalar(name) for name in key)}]  # unique and never missing in this table"]
    lines += [
        "extra_columns: warn",
        "# Conditions over the columns of one row, in SQL:",
        "# rules:",
        "#   - {name: in-order, expression: arrival >= departure, where: not cancelled, mostly: 0.999}",
    ]
    times = [fact.name for fact in facts if fact.kind in ("date", "timestamp")]
    if times:
        lines.append(f"# freshness: {{column: {scalar(times[0])}, max_age: 7d}}")
    lines.append("columns:")
    for fact in facts:
        lines += _column(source, fact, fact.name in keys, slack)
    return "\n".join(lines) + "\n"


def _facts(source: Source) -> Iterator[_Facts]:
    names = list(source.columns)
    for start in range(0, len(names), _BLOCK):
        block = names[start : start + _BLOCK]
        parts = [_seen(name, kind_of(source.columns[name])) for name in block]
        values = source.fetch(f"SELECT {', '.join(parts)} FROM data")[0]
        for name, seen in zip(block, values, strict=True):
            yield _Facts(name=name, kind=kind_of(source.columns[name]), rows=source.rows, **seen)


def _seen(name: str, kind: str) -> str:
    column = quote(name)
    odd, low, high, longest, flags = "0", "NULL", "NULL", "NULL", "false"
    if kind == "float":
        finite = f"FILTER (WHERE isfinite({column}))"
        odd = f"count(*) FILTER (WHERE {column} IS NOT NULL AND NOT isfinite({column}))"
        low, high = f"CAST(min({column}) {finite} AS DOUBLE)", f"CAST(max({column}) {finite} AS DOUBLE)"
        missing = f"count(*) FILTER (WHERE {column} IS NULL OR isnan({column}))"
    else:
        missing = f"count(*) - count({column})"
    if kind in ("int", "float", "decimal"):
        # Both, and nothing else: a label, or a switch.
        flags = f"coalesce(bool_and({column} IN (0, 1)), false) AND min({column}) <> max({column})"
    if kind == "int":
        low, high = f"CAST(min({column}) AS VARCHAR)", f"CAST(max({column}) AS VARCHAR)"
    elif kind == "decimal":
        low, high = f"CAST(min({column}) AS DOUBLE)", f"CAST(max({column}) AS DOUBLE)"
    elif kind == "string":
        longest = f"max(length(CAST({column} AS VARCHAR)))"
    distinct = f"approx_count_distinct({column})" if kind in (*_KEY_KINDS, "bool") else "0"
    return (
        f"{{'missing': {missing}, 'nulls': count(*) - count({column}), 'odd': {odd}, "
        f"'distinct': {distinct}, 'low': {low}, 'high': {high}, "
        f"'longest': {longest}, 'flags': coalesce({flags}, false)}}"
    )


def _is_key(source: Source, fact: _Facts) -> bool:
    if fact.kind not in ("int", "string") or fact.missing or fact.rows < _FEWEST_ROWS_FOR_A_KEY:
        return False
    if fact.distinct < _NEARLY_UNIQUE * fact.rows:
        return False
    few = fact.kind == "int" and not fact.called_key and fact.rows < _MANY_ROWS
    if few and int(fact.high) - int(fact.low) >= _DENSE * fact.rows:
        return False
    return int(source.fetch(f"SELECT count(DISTINCT {quote(fact.name)}) FROM data")[0][0]) == fact.rows


def _pair(source: Source, facts: Sequence[_Facts]) -> list[str]:
    able = [f for f in facts if f.kind in _KEY_KINDS and not f.missing and f.distinct > 1]
    pairs = [(a, b) for a, b in combinations(able, 2) if a.distinct * b.distinct >= _NEARLY_UNIQUE * a.rows]
    pairs.sort(key=lambda pair: -pair[0].distinct * pair[1].distinct)
    for a, b in pairs[:_PAIRS_TRIED] if source.rows >= _FEWEST_ROWS_FOR_A_KEY else []:
        names = f"{quote(a.name)}, {quote(b.name)}"
        if int(source.fetch(f"SELECT count(*) FROM (SELECT DISTINCT {names} FROM data)")[0][0]) == source.rows:
            return [a.name, b.name]
    return []


def _column(source: Source, fact: _Facts, unique: bool, slack: float) -> list[str]:
    notes = [f"{fact.missing:,} of {fact.rows:,} missing"] if fact.missing else []
    if fact.distinct:
        notes.append(f"about {fact.distinct:,} distinct")
    lines = [f"  {scalar(fact.name)}:" + (f"  # {', '.join(notes)}" if notes else "")]
    values = fact.rows - fact.missing
    if values or not source.untyped:  # an empty column of a text format has no type to speak of
        lines.append(f"    type: {fact.kind}")
    if fact.missing:
        share = fact.missing / fact.rows
        lines.append(f"    nulls: {min(1.0, math.ceil(share * 150 + 1) / 100)}  # {share:.4%} was seen")
    if unique:
        lines.append("    unique: true")
    if values == 0:
        return lines
    if fact.kind in ("int", "float", "decimal") and fact.low is not None:
        # A key counts up: what it was last time bounds nothing.
        if not unique and not (fact.called_key and fact.kind == "int"):
            lines += _bounds(fact, slack)
    elif fact.kind == "string":
        lines += _text(source, fact, values, unique)
    return lines


def _bounds(fact: _Facts, slack: float) -> list[str]:
    if fact.flags:
        return ["    in: [0, 1]"]
    read = int if fact.kind == "int" else float
    low, high = round_bounds(read(fact.low), read(fact.high), slack)
    lines = [f"    min: {low}", f"    max: {high}"]
    if fact.odd:
        # The range looks at NaN and infinities, too, and they violate it.
        share = math.floor((1 - fact.odd / fact.present) * 98) / 100
        lines.append(f"    mostly: {share}  # {fact.odd:,} values are NaN or infinite")
    return lines


def _text(source: Source, fact: _Facts, values: int, unique: bool) -> list[str]:
    column = quote(fact.name)
    few = fact.distinct <= _MOST_CATEGORIES * 1.2 and (fact.longest or 0) <= _LONGEST_CATEGORY
    if few and not unique and fact.distinct * _ROWS_A_CATEGORY <= values:
        rows = source.fetch(
            f"SELECT CAST({column} AS VARCHAR), count(*) FROM data WHERE {column} IS NOT NULL "
            f"GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {_MOST_CATEGORIES + 1}"
        )
        if len(rows) <= _MOST_CATEGORIES:
            return [f"    in: [{', '.join(scalar(str(row[0])) for row in rows)}]"]
    return [f"    length: {{max: {max((fact.longest or 0) * 2, 1)}}}  # {fact.longest or 0} was the longest"]
