"""Training/serving skew: requests that the service gets, held against the table that the model learns from."""

# ruff: noqa: S608  (identifiers go through `quote`; values never become SQL)
from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlcicd.core.errors import InputError
from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.data.conditions import kind_of
from mlcicd.data.source import Source, quote

_MOST_ROWS = 10_000
_NAMED = 8
# A value that so many requests share, and so few rows of the training data, is what somebody fills in.
_FREQUENT, _RARE, _FEWEST = 0.2, 0.01, 5
_NUMBERS = ("int", "float", "decimal")


@dataclass
class Requests:
    """The rows of a file of requests.

    Attributes:
        rows: column to value, a mapping a row; a missing column is missing.
        orders: the orders of columns that requests state (`dataframe_split`).
        unread: requests whose form has no names of columns (tensors).
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    orders: list[list[str]] = field(default_factory=list)
    unread: int = 0


def read_requests(path: Path) -> Requests:
    """Reads MLflow request bodies, one JSON object a line; the first ten thousand rows of them.

    Raises:
        InputError: the file is missing, or a line of it is no such body.
    """
    found = Requests()
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip() and len(found.rows) < _MOST_ROWS:
                    _add(found, line, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the serving examples can not be read", where=str(path), why=str(error)) from error
    return found


def _add(found: Requests, line: str, where: str) -> None:
    try:
        body = json.loads(line)
        if not isinstance(body, dict):
            raise ValueError("a request is a JSON object")
        rows = list(_rows(body, found))
        if any(not isinstance(row, dict) for row in rows):
            raise ValueError("a row is a JSON object")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError("not a request", where=where, why=str(error)) from error
    found.rows += rows[: _MOST_ROWS - len(found.rows)]


def _rows(body: Mapping[str, Any], found: Requests) -> Iterator[Any]:
    if "dataframe_split" in body:
        columns = [str(name) for name in body["dataframe_split"]["columns"]]
        found.orders.append(columns)
        for values in body["dataframe_split"]["data"]:
            yield dict(zip(columns, values, strict=True))
        return
    given = next((body[key] for key in ("dataframe_records", "instances", "inputs") if key in body), None)
    if isinstance(given, dict) and all(isinstance(values, list) for values in given.values()):
        for values in zip(*given.values(), strict=True):
            yield dict(zip(given, values, strict=True))
    elif isinstance(given, list) and all(isinstance(row, dict) for row in given):
        yield from given
    else:
        found.unread += 1


def serving_checks(
    source: Source, features: Sequence[str], requests: Requests, *, severity: Severity = Severity.WARN
) -> list[Check]:
    """Whether requests have the columns, types and order of the training data, and what is filled in for them.

    Args:
        features: the columns that the model is given, in the order of the training data.

    Raises:
        InputError: the data can not be read.
    """
    if not requests.rows:
        words = f"{requests.unread} are tensors without names of columns" if requests.unread else "there are none"
        return [_check("serving", CheckStatus.SKIPPED, severity, "requests with named columns", words)]
    return [
        _columns(features, requests, severity),
        _types(source, features, requests, severity),
        _order(features, requests, severity),
        _defaults(source, features, requests, severity),
    ]


def _check(name: str, status: CheckStatus, severity: Severity, required: str, reason: str, remedy: str = "") -> Check:
    failed = status is CheckStatus.FAILED
    return Check(
        name=name,
        status=status,
        severity=severity,
        required=required,
        reason=reason,
        remedy=remedy if failed else "",
    )


def _told(name: str, severity: Severity, required: str, problems: Sequence[str], remedy: str) -> Check:
    shown = "; ".join(problems[:_NAMED]) + (f"; and {len(problems) - _NAMED} more" if problems[_NAMED:] else "")
    return _check(name, CheckStatus.FAILED if problems else CheckStatus.PASSED, severity, required, shown, remedy)


def _columns(features: Sequence[str], requests: Requests, severity: Severity) -> Check:
    total = len(requests.rows)
    sent = Counter(name for row in requests.rows for name in row)
    problems = [f"{total - sent[n]:,} of {total:,} rows do not send {n!r}" for n in features if sent[n] < total]
    problems += [f"{sent[n]:,} rows send {n!r}, which is no feature" for n in sent if n not in features]
    return _told(
        "serving.columns",
        severity,
        "requests send the features, and nothing else",
        problems,
        "send what was trained on",
    )


def _types(source: Source, features: Sequence[str], requests: Requests, severity: Severity) -> Check:
    problems = []
    for name in features:
        kind = kind_of(source.columns[name])
        wrong = [row[name] for row in requests.rows if name in row and not _fits(row[name], kind)]
        if wrong:
            said = type(wrong[0]).__name__
            problems.append(f"{name!r} is {kind} in the training data and {said} in {len(wrong):,} rows")
    return _told("serving.types", severity, "values of the training data's types", problems, "convert on one side")


def _fits(value: Any, kind: str) -> bool:
    """Whether JSON can hold a value of this kind so; null is a matter of defaults."""
    if value is None:
        return True
    if kind in _NUMBERS:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (kind != "int" or value == int(value))
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "list":
        return isinstance(value, list)
    if kind == "struct":
        return isinstance(value, dict)
    return isinstance(value, str)


def _order(features: Sequence[str], requests: Requests, severity: Severity) -> Check:
    problems = []
    for order in requests.orders:
        trained = [name for name in features if name in order]
        sent = [name for name in order if name in features]
        if trained != sent:
            place = next(i for i, pair in enumerate(zip(trained, sent, strict=True)) if pair[0] != pair[1])
            problems.append(f"where the training data has {trained[place]!r}, requests have {sent[place]!r}")
    return _told(
        "serving.order",
        severity,
        "columns in the training data's order",
        list(dict.fromkeys(problems)),
        "a model that goes by place answers nonsense: send the columns in the order of the training data",
    )


def _defaults(source: Source, features: Sequence[str], requests: Requests, severity: Severity) -> Check:
    """Values that many requests share and the training data hardly knows: somebody fills them in."""
    total = len(requests.rows)
    asked: list[tuple[str, Any, float]] = []
    for name in features:
        counts = Counter(json.dumps(row[name]) for row in requests.rows if name in row)
        asked += [
            (name, json.loads(text), count / total)
            for text, count in counts.most_common(3)
            if count >= max(_FEWEST, _FREQUENT * total) and not isinstance(json.loads(text), list | dict)
        ]
    shares = _shares(source, [(name, value) for name, value, _ in asked])
    problems = [
        f"{sent:.0%} of requests have {'no value' if value is None else json.dumps(value)} as {name!r}, "
        f"and {share:.2%} of the training rows"
        for (name, value, sent), share in zip(asked, shares, strict=True)
        if share < _RARE
    ]
    return _told(
        "serving.defaults",
        severity,
        f"what {_FREQUENT:.0%} of requests say is in {_RARE:.0%} of the training rows",
        problems,
        "fill in gaps of serving as those of training were filled in",
    )


def _shares(source: Source, asked: Sequence[tuple[str, Any]]) -> list[float]:
    """The share of rows that hold each value."""
    if not asked or not source.rows:
        return [0.0] * len(asked)
    parts, parameters = [], []
    for name, value in asked:
        condition, given = _held(quote(name), kind_of(source.columns[name]), value)
        parts.append(f"count_if({condition})")
        parameters += given
    counts = source.fetch(f"SELECT {', '.join(parts)} FROM data", parameters)[0]
    return [int(count or 0) / source.rows for count in counts]  # NULL where every value is


def _held(column: str, kind: str, value: Any) -> tuple[str, list[str]]:
    """SQL of whether a row holds a value of JSON, and its parameters; texts, so that every engine takes them."""
    if value is None:
        return f"{column} IS NULL" + (f" OR isnan({column})" if kind == "float" else ""), []
    if kind in _NUMBERS:  # as numbers: a cast to a whole number would round
        number = _number(value)
        return (
            (f"CAST({column} AS DOUBLE) = CAST(? AS DOUBLE)", [repr(number)]) if number is not None else ("false", [])
        )
    if kind in ("list", "struct", "binary"):
        return "false", []
    return f"CAST({column} AS VARCHAR) = ?", [json.dumps(value) if isinstance(value, bool) else str(value)]


def _number(value: Any) -> float | None:
    """A number, also where it was sent as text."""
    try:
        return None if isinstance(value, bool) else float(value)
    except (ValueError, OverflowError):
        return None
