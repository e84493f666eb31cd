"""Pandera: a DataFrameSchema as the YAML of `schema.to_yaml()`; checks beside a column's keys or under `checks`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mlcicd.data.imports.draft import Draft
from mlcicd.data.source import quote

_OWN_KEYS = frozenset(
    {"dtype", "nullable", "unique", "required", "coerce", "regex", "checks", "title", "description", "default"}
    | {"name", "metadata", "report_duplicates", "drop_invalid_rows", "parsers"}
)


def read(draft: Draft, document: Mapping[str, Any]) -> None:
    """Adds the columns of a schema."""
    for name, said in (document.get("columns") or {}).items():
        given = said or {}
        if given.get("regex"):
            draft.note(f"columns that match {name!r}: a pattern of names")
            continue
        _column(draft, str(name), given)
    if document.get("strict") is True:
        draft.extra_columns = "forbid"
    unique = document.get("unique") or []
    draft.key = [unique] if isinstance(unique, str) else list(unique)
    for check, value in _checks(document.get("checks")).items():
        draft.note(f"a check of the whole table: {check} {value!r}")
    if document.get("index"):
        draft.note("index: a table in a file has none")


def _column(draft: Draft, name: str, given: Mapping[str, Any]) -> None:
    column = draft.column(name, nulls=0.0)
    if given.get("description"):
        column["description"] = str(given["description"])
    if given.get("dtype"):
        draft.type(name, str(given["dtype"]))
    if given.get("nullable"):
        column["nulls"] = 1.0
    if given.get("required") is False:
        column["required"] = False
    if given.get("unique"):
        column["unique"] = True
    beside = {key: value for key, value in given.items() if key not in _OWN_KEYS}
    for check, value in {**_checks(given.get("checks")), **beside}.items():
        _check(draft, name, column, check, value)


def _checks(given: Any) -> dict[str, Any]:
    if isinstance(given, list):
        found: dict[str, Any] = {}
        for one in given:
            found.update(_checks(one))
        return found
    if not isinstance(given, Mapping):
        return {}
    options = given.get("options")
    if isinstance(options, Mapping) and "check_name" in options:
        return {str(options["check_name"]): given.get("value")}
    return {str(key): value for key, value in given.items()}


def _check(draft: Draft, name: str, column: dict[str, Any], check: str, given: Any) -> None:
    value = _value(draft, name, check, given)
    if check in _BOUNDS:
        low, high, strict = _BOUNDS[check]
        draft.bound(name, value if low else None, value if high else None, strict_low=strict, strict_high=strict)
    elif check == "in_range":
        draft.bound(
            name,
            value.get("min_value"),
            value.get("max_value"),
            strict_low=value.get("include_min") is False,
            strict_high=value.get("include_max") is False,
        )
    elif check in ("isin", "equal_to"):
        column["in"] = list(value) if check == "isin" else [value]
    elif check == "not_equal_to" and isinstance(value, int | float) and not isinstance(value, bool):
        draft.rule(f"{name} is not {value}", f"{quote(name)} <> {value!r}", columns=[name])
    elif check in _PATTERNS and "pattern" not in column:
        column["pattern"] = _PATTERNS[check](str(value))
    elif check == "str_length":
        column["length"] = _length(value)
    else:
        draft.note(f"{name}: {check} {value!r}")


def _value(draft: Draft, name: str, check: str, given: Any) -> Any:
    """What a check is given: one value, or the mapping of several; that it only warns is noted."""
    if not isinstance(given, Mapping):
        return given
    if given.get("raise_warning"):
        draft.note(f"{name}: {check} is only a warning there")
    value = {k: v for k, v in given.items() if k not in ("raise_warning", "ignore_na", "options")}
    if len(value) == 1 and check not in ("in_range", "str_length"):
        return next(iter(value.values()))
    return value


def _length(value: Any) -> dict[str, int]:
    bounds = value if isinstance(value, Mapping) else {"exact_value": value}
    exact = bounds.get("exact_value")
    pairs = {k: exact if exact is not None else bounds.get(f"{k}_value") for k in ("min", "max")}
    return {k: int(v) for k, v in pairs.items() if v is not None}


# Whether the value is the lower bound, the upper one, and excluded.
_BOUNDS = {
    "greater_than": (True, False, True),
    "greater_than_or_equal_to": (True, False, False),
    "less_than": (False, True, True),
    "less_than_or_equal_to": (False, True, False),
}
_ANYTHING = "(?s:.*)"
# A match at the beginning, or anywhere, is one there; here a pattern is the whole text.
_PATTERNS: dict[str, Callable[[str], str]] = {
    "str_matches": lambda text: f"(?:{text}){_ANYTHING}",
    "str_contains": lambda text: f"{_ANYTHING}(?:{text}){_ANYTHING}",
    "str_startswith": lambda text: re.escape(text) + _ANYTHING,
    "str_endswith": lambda text: _ANYTHING + re.escape(text),
}
