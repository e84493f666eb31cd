"""Great Expectations: a suite as JSON, of version 0 (`expectation_type`) or 1 (`type`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mlcicd.data.imports.draft import Draft, type_of
from mlcicd.data.source import quote

_SEVERITY = {"warning": "warn", "info": "warn"}


def read(draft: Draft, suite: Mapping[str, Any]) -> None:
    """Adds the expectations of a suite."""
    for expectation in suite.get("expectations", []):
        kind = str(expectation.get("type") or expectation.get("expectation_type"))
        given = dict(expectation.get("kwargs") or {})
        handler = _HANDLERS.get(kind)
        if handler is None or given.get("row_condition"):
            where = " where " + str(given["row_condition"]) if given.get("row_condition") else ""
            draft.note(f"{kind}{where}: {_short(given)}")
            continue
        severity = _SEVERITY.get(str(expectation.get("severity", "")), "")
        if "column" in given:
            column = _column(draft, given["column"])
            _mostly(draft, kind, given, column)
            if severity and kind != "expect_column_to_exist":
                draft.note(f"{kind} of {given['column']} is only a warning there")
        handler(draft, given)


def _column(draft: Draft, name: str) -> dict[str, Any]:
    # An expectation looks at the values that are there; that they are there is an expectation of its own.
    return draft.column(name, nulls=1.0)


def _mostly(draft: Draft, kind: str, given: Mapping[str, Any], column: dict[str, Any]) -> None:
    mostly = given.get("mostly")
    if mostly is None or kind == "expect_column_values_to_not_be_null":
        return
    if "mostly" in column and column["mostly"] != mostly:
        draft.note(f"{kind} of {given['column']} has mostly {mostly}; here one holds for all rules of a column")
    column["mostly"] = min(float(mostly), column.get("mostly", 1.0))


def _not_null(draft: Draft, given: Mapping[str, Any]) -> None:
    _column(draft, given["column"])["nulls"] = round(1.0 - float(given.get("mostly") or 1.0), 9)


def _unique(draft: Draft, given: Mapping[str, Any]) -> None:
    _column(draft, given["column"])["unique"] = True


def _between(draft: Draft, given: Mapping[str, Any]) -> None:
    _column(draft, given["column"])
    draft.bound(
        given["column"],
        given.get("min_value"),
        given.get("max_value"),
        strict_low=bool(given.get("strict_min")),
        strict_high=bool(given.get("strict_max")),
        mostly=float(given.get("mostly") or 1.0),
    )


def _in_set(draft: Draft, given: Mapping[str, Any]) -> None:
    _column(draft, given["column"])["in"] = list(given["value_set"])


def _regex(draft: Draft, given: Mapping[str, Any]) -> None:
    # There, a match anywhere in the text is one; here the pattern is the whole text.
    _column(draft, given["column"])["pattern"] = f"(?s:.*)(?:{given['regex']})(?s:.*)"


def _lengths(draft: Draft, given: Mapping[str, Any]) -> None:
    bounds = {"min": given.get("min_value"), "max": given.get("max_value")}
    _column(draft, given["column"])["length"] = {k: int(v) for k, v in bounds.items() if v is not None}


def _length_equals(draft: Draft, given: Mapping[str, Any]) -> None:
    _column(draft, given["column"])["length"] = {"min": int(given["value"]), "max": int(given["value"])}


def _type(draft: Draft, given: Mapping[str, Any]) -> None:
    _column(draft, given["column"])
    draft.type(given["column"], str(given["type_"]))


def _types(draft: Draft, given: Mapping[str, Any]) -> None:
    kinds = {type_of(str(name)) for name in given["type_list"]}
    column = _column(draft, given["column"])
    if len(kinds) == 1 and "" not in kinds:
        column["type"] = kinds.pop()
    elif kinds <= {"int", "float", "decimal"}:
        column["type"] = "number"
    else:
        draft.note(f"{given['column']}: one of the types {given['type_list']}")


def _exists(draft: Draft, given: Mapping[str, Any]) -> None:
    _column(draft, given["column"])


def _columns(draft: Draft, given: Mapping[str, Any]) -> None:
    for name in given.get("column_set") or given.get("column_list") or []:
        _column(draft, name)
    if given.get("exact_match", True):
        draft.extra_columns = "forbid"


def _row_count(draft: Draft, given: Mapping[str, Any]) -> None:
    bounds = {"min": given.get("min_value"), "max": given.get("max_value")}
    draft.rows.update({k: int(v) for k, v in bounds.items() if v is not None})


def _row_count_equals(draft: Draft, given: Mapping[str, Any]) -> None:
    draft.rows.update({"min": int(given["value"]), "max": int(given["value"])})


def _pair(draft: Draft, given: Mapping[str, Any]) -> None:
    a, b = given["column_A"], given["column_B"]
    sign = ">=" if given.get("or_equal") else ">"
    _column(draft, a)
    _column(draft, b)
    mostly = float(given.get("mostly") or 1.0)
    draft.rule(f"{a} {sign} {b}", f"{quote(a)} {sign} {quote(b)}", columns=[a, b], mostly=mostly)


def _compound(draft: Draft, given: Mapping[str, Any]) -> None:
    names = list(given["column_list"])
    if draft.key and draft.key != names:
        draft.note(f"unique together: {', '.join(names)}")
    else:
        draft.key = names


def _short(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in given.items() if value is not None and key != "row_condition")


_HANDLERS: dict[str, Callable[[Draft, Mapping[str, Any]], None]] = {
    "expect_column_to_exist": _exists,
    "expect_column_values_to_not_be_null": _not_null,
    "expect_column_values_to_be_unique": _unique,
    "expect_column_values_to_be_between": _between,
    "expect_column_values_to_be_in_set": _in_set,
    "expect_column_values_to_match_regex": _regex,
    "expect_column_value_lengths_to_be_between": _lengths,
    "expect_column_value_lengths_to_equal": _length_equals,
    "expect_column_values_to_be_of_type": _type,
    "expect_column_values_to_be_in_type_list": _types,
    "expect_table_columns_to_match_set": _columns,
    "expect_table_columns_to_match_ordered_list": _columns,
    "expect_table_row_count_to_be_between": _row_count,
    "expect_table_row_count_to_equal": _row_count_equals,
    "expect_column_pair_values_a_to_be_greater_than_b": _pair,
    "expect_compound_columns_to_be_unique": _compound,
    "expect_select_column_values_to_be_unique_within_record": _compound,
}
