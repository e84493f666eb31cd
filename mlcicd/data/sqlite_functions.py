"""What DuckDB's conditions need and SQLite lacks, as functions of its connections; NULL of NULL, all of them.

A result that SQLite can not hold (NaN, a whole number beyond its type) is an error, which ends the statement: counted
otherwise than by the embedded engine it must not be.
"""

from __future__ import annotations

import math
import operator
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime
from functools import lru_cache, wraps
from typing import Any

_OPERATIONS: dict[str, Callable[..., Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Neg": operator.neg,
    "Abs": operator.abs,
    "Pos": operator.pos,
}
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.(\d{1,6}))?", re.ASCII)


def add_functions(connection: sqlite3.Connection) -> None:
    """Makes the functions known to a connection."""
    functions: list[tuple[str, int, Callable[..., Any]]] = [
        ("whole", -1, _whole),
        ("float", -1, _float),
        ("greatest", -1, _greatest),
        ("least", -1, _least),
        ("length", 1, len),
        ("lower", 1, lambda text: _other_case(text, str.lower)),
        ("upper", 1, lambda text: _other_case(text, str.upper)),
        ("startswith", 2, str.startswith),
        ("endswith", 2, str.endswith),
        ("contains", 2, lambda text, part: part in text),
        ("like", 2, lambda text, pattern: _like(pattern).fullmatch(text) is not None),
        ("matches", 2, lambda text, pattern: _compiled(pattern).match(text) is not None),
        ("seconds", 1, _seconds),
        ("time", 2, of_one_width),
        ("strange", 2, _strange),
    ]
    for name, count, function in functions:
        null_safe = function if name in ("greatest", "least") else _of_null(function)
        connection.create_function(f"mlcicd_{name}", count, null_safe, deterministic=True)


def of_one_width(text: str, kind: str) -> str | None:
    """A day as `YYYY-MM-DD`, a time as `YYYY-MM-DD HH:MM:SS.ffffff`: texts in the order of the times.

    Args:
        kind: `DATE` or `TIMESTAMP`.

    Returns:
        None for a day that is not of the years 1 to 9999 (as text, `infinity` would be a time, too).

    Raises:
        ValueError: it is neither, as DuckDB reads it.
    """
    try:
        if kind == "DATE" and _DAY.fullmatch(text):
            return date.fromisoformat(text).isoformat()
        if kind == "TIMESTAMP" and _TIME.fullmatch(text):
            return _written(datetime.fromisoformat(_six_digits(text)))
    except ValueError:  # the 31st of June, or a year that DuckDB knows
        return _as_duckdb_reads(text, kind)
    return _as_duckdb_reads(text, kind)


def _strange(text: str, kind: str) -> int:
    """How far a text is from :func:`of_one_width`: 0 not at all, 1 in how it is written, 2 in its year, 3 no time."""
    try:
        written = of_one_width(text, kind)
    except ValueError:
        return 3
    return 2 if written is None else int(written != text)


@lru_cache(maxsize=10_000)
def _as_duckdb_reads(text: str, kind: str) -> str | None:
    import duckdb

    with closing(duckdb.connect()) as engine:
        row = engine.execute(f"SELECT CAST(TRY_CAST($1 AS {kind}) AS VARCHAR)", [text]).fetchone()
    found = row[0] if row else None
    if found is None:
        raise ValueError(f"{text[:40]} is no {kind.lower()}")
    if kind == "DATE":
        return str(found) if _DAY.fullmatch(found) else None
    return _written(datetime.fromisoformat(_six_digits(found))) if _TIME.fullmatch(found) else None


def _six_digits(text: str) -> str:
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction:0<6}"


def _written(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="microseconds")


def _of_null(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def made(*values: Any) -> Any:
        return None if any(value is None for value in values) else function(*values)

    return made


def _whole(operation: str, bits: int, *values: int) -> int | None:
    if operation == "Mod":
        return _remainder(*values)
    result = int(_OPERATIONS[operation](*values))
    if not -(1 << bits - 1) <= result < 1 << bits - 1:
        raise OverflowError("a whole number is too large")
    return result


def _remainder(over: int, under: int) -> int | None:
    if under == 0:
        return None
    size = abs(over) % abs(under)
    return -size if over < 0 else size


def _float(operation: str, *values: float) -> float:
    numbers = [float(value) for value in values]
    result: float = _quotient(*numbers) if operation == "Div" else _OPERATIONS[operation](*numbers)
    if math.isnan(result):
        raise ArithmeticError("the result is NaN, which SQLite does not have")
    return result


def _quotient(over: float, under: float) -> float:
    if under:
        return over / under
    return math.nan if over == 0 else math.copysign(math.inf, over) * math.copysign(1.0, under)


def _greatest(*values: Any) -> Any:
    return max((value for value in values if value is not None), default=None)


def _least(*values: Any) -> Any:
    return min((value for value in values if value is not None), default=None)


def _other_case(text: str, change: Callable[[str], str]) -> str:
    """One letter for each letter, as DuckDB has it."""
    return "".join(other if len(other := change(letter)) == 1 else letter for letter in text)


@lru_cache(maxsize=1000)
def _like(pattern: str) -> re.Pattern[str]:
    words = {"%": ".*", "_": "."}
    return re.compile("".join(words.get(char) or re.escape(char) for char in pattern), re.DOTALL)


@lru_cache(maxsize=1000)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
