"""A few rows that violate a rule, for the report: the first five by their place in the file."""

# ruff: noqa: S608  (identifiers go through `quote`, text through `literal`; values never become SQL)
from __future__ import annotations

from typing import Any

from mlcicd.data.conditions import RowRule, UniqueRule
from mlcicd.data.schema import TableSchema
from mlcicd.data.source import Source, quote

SHOWN_ROWS = 5
_SHOWN_COLUMNS = 8
_SHOWN_CHARACTERS = 80
# More failed rules than this are one cause, and nobody reads on.
_MOST_RULES = 100
REDACTED = "(redacted)"
_NUMBERED = "(SELECT *, row_number() OVER () AS __mlcicd_row FROM data)"


def row_examples(source: Source, failed: list[RowRule], schema: TableSchema) -> dict[str, list[dict[str, Any]]]:
    """Rows for each failed rule, for the first hundred of them.

    A columnar file is asked for each rule by itself: it gives up that rule's columns only, and the engine stops at the
    last row that is wanted. Text has to be read whole for any column, so there one pass serves all rules.

    Returns:
        Rule name to `[{"row": 17, "values": {"column": "text"}}]`; rows count from 1 over all files in order.
        Values are text, cut to 80 characters; sensitive columns are redacted, and the key's columns are shown
        along.
    """
    block = failed[:_MOST_RULES]
    if source.distributed:
        return {rule.name: _some_rows(source, rule, schema) for rule in block}
    if source.untyped and block:
        return _first_rows_of_all(source, block, schema)
    return {rule.name: _first_rows(source, rule, schema) for rule in block}


def _first_rows(source: Source, rule: RowRule, schema: TableSchema) -> list[dict[str, Any]]:
    columns = _shown_columns(source, rule, schema)
    # LIMIT keeps the order of the file.
    rows = source.fetch(
        f"SELECT __mlcicd_row, {_cells(columns, schema)} FROM {_NUMBERED} WHERE {rule.violated} LIMIT {SHOWN_ROWS}"
    )
    return [{"row": int(number), "values": dict(zip(columns, values, strict=True))} for number, values in rows]


def _first_rows_of_all(source: Source, rules: list[RowRule], schema: TableSchema) -> dict[str, list[dict[str, Any]]]:
    shown = [_shown_columns(source, rule, schema) for rule in rules]
    parts = [_smallest_numbers(rule, columns, schema) for rule, columns in zip(rules, shown, strict=True)]
    # Only rows that violate something reach the aggregates, which build text of all that they are given.
    some = " OR ".join(f"({rule.violated})" for rule in rules)
    values = source.fetch(f"SELECT {', '.join(parts)} FROM {_NUMBERED} WHERE {some}")[0]
    return {
        rule.name: [{"row": int(row["n"]), "values": dict(zip(columns, row["v"], strict=True))} for row in rows or []]
        for rule, columns, rows in zip(rules, shown, values, strict=True)
    }


def _some_rows(source: Source, rule: RowRule, schema: TableSchema) -> list[dict[str, Any]]:
    """Any five rows, without numbers: where rows have no order, looking for the first ones would read them all."""
    columns = _shown_columns(source, rule, schema)
    cells = ", ".join(_cell(column, schema) for column in columns) or "1"
    rows = source.fetch(f"SELECT {cells} FROM data WHERE {rule.violated} LIMIT {SHOWN_ROWS}")
    return [{"values": dict(zip(columns, row, strict=False))} for row in rows]


def duplicate_examples(source: Source, rule: UniqueRule, schema: TableSchema) -> list[dict[str, Any]]:
    """The most repeated values: `[{"values": {"column": "text"}, "rows": 3}]`."""
    names = [quote(column) for column in rule.columns]
    shown = ", ".join(_cell(column, schema) for column in rule.columns)
    whole = " AND ".join(f"{name} IS NOT NULL" for name in names)
    rows = source.fetch(
        f"SELECT {shown}, __mlcicd_rows FROM (SELECT {', '.join(names)}, count(*) AS __mlcicd_rows FROM data "
        f"WHERE {whole} GROUP BY {', '.join(names)} HAVING count(*) > 1) "
        f"ORDER BY __mlcicd_rows DESC, {', '.join(names)} LIMIT {SHOWN_ROWS}"
    )
    return [{"values": dict(zip(rule.columns, values, strict=True)), "rows": int(n)} for *values, n in rows]


def _shown_columns(source: Source, rule: RowRule, schema: TableSchema) -> list[str]:
    keys = [name for name in schema.key if name in source.columns]
    return list(dict.fromkeys([*keys, *rule.columns]))[:_SHOWN_COLUMNS]


def _smallest_numbers(rule: RowRule, columns: list[str], schema: TableSchema) -> str:
    row = f"{{'n': __mlcicd_row, 'v': {_cells(columns, schema)}}}"
    return f"arg_min({row}, __mlcicd_row, {SHOWN_ROWS}) FILTER (WHERE {rule.violated})"


def _cells(columns: list[str], schema: TableSchema) -> str:
    # An expression without columns (`1 = 2`) has nothing to show but the row's number.
    return f"CAST([{', '.join(_cell(column, schema) for column in columns)}] AS VARCHAR[])"


def _cell(column: str, schema: TableSchema) -> str:
    declared = schema.columns.get(column)
    if declared is not None and declared.sensitive:
        return f"'{REDACTED}'"
    return f"left(CAST({quote(column)} AS VARCHAR), {_SHOWN_CHARACTERS})"
