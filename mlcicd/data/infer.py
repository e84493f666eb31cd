"""A first schema from a reference table, to be read and edited by a person."""

# ruff: noqa: S608  (identifiers go through `quote`, text through `literal`; values never become SQL)
from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from mlcicd.core.errors import InputError
from mlcicd.data.conditions import kind_of
from mlcicd.data.source import Source, quote

_BLOCK = 100
_MOST_CATEGORIES = 50
_ROWS_A_CATEGORY = 20
_LONGEST_CATEGORY = 80
_FEWEST_ROWS_FOR_A_KEY = 20
_KEY_KINDS = ("int", "string", "date", "timestamp")
_PAIRS_TRIED = 6
# approx_count_distinct is a few percent off; anything below this share of the rows is surely no key.
_NEARLY_UNIQUE = 0.85
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


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

    @property
    def present(self) -> int:
        """Rows that hold anything, NaN included."""
        return self.rows - self.nulls


def infer_schema(source: Source, *, slack: float = 0.1) -> str:
    """Writes the schema that a table obeys, as commented YAML.

    Bounds are the observed ones, widened by `slack` of their span and rounded outwards; missing shares get
    half as much again; text of few values becomes a list of categories; keys are single columns, or pairs,
    without repeats. The table passes its own schema.

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
    lines = [
        f"# Inferred from {source.path.name} ({source.rows:,} rows). Read it: what is true here need not",
        "# be what must be true of the next table. Bounds are widened; tighten what you know.",
        "version: 1",
        "rows:",
        f"  min: {max(source.rows // 2, 1)}  # half of what was seen; a job that lost data is caught here",
    ]
    if key:
        lines += [f"key: [{', '.join(_scalar(name) for name in key)}]  # unique and never missing in this table"]
    lines += [
        "extra_columns: warn",
        "# Conditions over the columns of one row, in SQL:",
        "# rules:",
        "#   - {name: in-order, expression: arrival >= departure, where: not cancelled, mostly: 0.999}",
    ]
    times = [fact.name for fact in facts if fact.kind in ("date", "timestamp")]
    if times:
        lines.append(f"# freshness: {{column: {_scalar(times[0])}, max_age: 7d}}")
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
    odd, low, high, longest = "0", "NULL", "NULL", "NULL"
    if kind == "float":
        finite = f"FILTER (WHERE isfinite({column}))"
        odd = f"count(*) FILTER (WHERE {column} IS NOT NULL AND NOT isfinite({column}))"
        low, high = f"CAST(min({column}) {finite} AS DOUBLE)", f"CAST(max({column}) {finite} AS DOUBLE)"
        missing = f"count(*) FILTER (WHERE {column} IS NULL OR isnan({column}))"
    else:
        missing = f"count(*) - count({column})"
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
        f"'longest': {longest}}}"
    )


def _is_key(source: Source, fact: _Facts) -> bool:
    if fact.kind not in ("int", "string") or fact.missing or fact.rows < _FEWEST_ROWS_FOR_A_KEY:
        return False
    if fact.distinct < _NEARLY_UNIQUE * fact.rows:
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
    lines = [f"  {_scalar(fact.name)}:" + (f"  # {', '.join(notes)}" if notes else "")]
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
        lines += _bounds(fact, slack)
    elif fact.kind == "string":
        lines += _text(source, fact, values, unique)
    return lines


def _bounds(fact: _Facts, slack: float) -> list[str]:
    low, high = _whole(fact, slack) if fact.kind == "int" else _real(fact, slack)
    lines = [f"    min: {low}", f"    max: {high}"]
    if fact.odd:
        # The range looks at NaN and infinities, too, and they violate it.
        share = math.floor((1 - fact.odd / fact.present) * 98) / 100
        lines.append(f"    mostly: {share}  # {fact.odd:,} values are NaN or infinite")
    return lines


def _whole(fact: _Facts, slack: float) -> tuple[int, int]:
    low, high = int(fact.low), int(fact.high)
    more = math.ceil((high - low) * slack) or 1
    return (0 if 0 <= low < more else low - more), high + more


def _real(fact: _Facts, slack: float) -> tuple[str, str]:
    low, high = float(fact.low), float(fact.high)
    more = (high - low) * slack or abs(high) * slack or 1.0
    if not math.isfinite(more):  # the span of a column that fills the whole range of doubles
        return _float(low), _float(high)
    bottom = 0.0 if 0 <= low < more else _outward(low - more, more, math.floor)
    top = _outward(high + more, more, math.ceil)
    return (
        _float(min(bottom, low) if math.isfinite(bottom) else low),
        _float(max(top, high) if math.isfinite(top) else high),
    )


def _outward(bound: float, step: float, rounding: Callable[[float], int]) -> float:
    """Rounded to two digits of the step: a bound a person would write."""
    digit = 10.0 ** (math.floor(math.log10(step)) - 1)
    scaled = bound / digit if digit else math.inf
    return rounding(scaled) * digit if abs(scaled) < 2**53 else bound


def _float(value: float) -> str:
    # YAML 1.1 reads 1e+20 as text unless there is a dot in it.
    text = f"{value:.12g}"
    text = text if float(text) == value else repr(value)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return text if "e" in text or "." in text else f"{text}.0"


def _text(source: Source, fact: _Facts, values: int, unique: bool) -> list[str]:
    column = quote(fact.name)
    few = fact.distinct <= _MOST_CATEGORIES * 1.2 and (fact.longest or 0) <= _LONGEST_CATEGORY
    if few and not unique and fact.distinct * _ROWS_A_CATEGORY <= values:
        rows = source.fetch(
            f"SELECT CAST({column} AS VARCHAR), count(*) FROM data WHERE {column} IS NOT NULL "
            f"GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {_MOST_CATEGORIES + 1}"
        )
        if len(rows) <= _MOST_CATEGORIES:
            return [f"    in: [{', '.join(_scalar(str(row[0])) for row in rows)}]"]
    return [f"    length: {{max: {max((fact.longest or 0) * 2, 1)}}}  # {fact.longest or 0} was the longest"]


def _scalar(text: str) -> str:
    """Text as a YAML scalar of one line: plain where that is safe, else quoted and escaped."""
    import yaml

    if _PLAIN.fullmatch(text) and yaml.safe_load(text) == text:
        return text
    return yaml.safe_dump(text, default_style='"', width=math.inf, allow_unicode=True).rstrip("\n")
