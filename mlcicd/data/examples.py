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


def row_examples(source: Source, failed: list[RowRule], schema: TableSchema) -> dict[str, list[dict[str, Any]]]:
    """Rows for each failed rule, in one pass over the data; for the first hundred of them.

    Returns:
        Rule name to `[{"row": 17, "values": {"column": "text"}}]`; rows count from 1 over all files in order.
        Values are text, cut to 80 characters; sensitive columns are redacted, and the key's columns are shown
        along.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    if source.distributed:
        return {rule.name: _some_rows(source, rule, schema) for rule in failed[:_MOST_RULES]}
    if block := failed[:_MOST_RULES]:
        shown = [_shown_columns(source, rule, schema) for rule in block]
        parts = [_first_rows(rule, columns, schema) for rule, columns in zip(block, shown, strict=True)]
        needed = _numbered(source)
        values = source.fetch(f"SELECT {', '.join(parts)} FROM {needed}")[0]
        for rule, columns, rows in zip(block, shown, values, strict=True):
            found[rule.name] = [
                {"row": int(row["n"]), "values": dict(zip(columns, row["v"], strict=True))} for row in rows or []
            ]
    return found


def _some_rows(source: Source, rule: RowRule, schema: TableSchema) -> list[dict[str, Any]]:
    """Any five rows, without numbers: where rows have no order, looking for the first ones would read them all."""
    columns = _shown_columns(source, rule, schema)
    cells = ", ".join(_cell(column, schema) for column in columns) or "1"
    violates = f"{rule.applies} AND ({rule.valid}) IS NOT TRUE"
    rows = source.fetch(f"SELECT {cells} FROM data WHERE {violates} LIMIT {SHOWN_ROWS}")
    return [{"values": dict(zip(columns, row, strict=False))} for row in rows]


def duplicate_examples(source: Source, rule: UniqueRule, schema: TableSchema) -> list[dict[str, Any]]:
    """The most repeated values: `[{"values": {"column": "text"}, "rows": 3}]`."""
    names = [quote(column) for column in rule.columns]
    shown = ", ".join(_cell(column, schema) for column in rule.columns)
    whole = " AND ".join(f"{name} IS NOT NULL" for name in names)
    rows = source.fetch(
        f"SELECT [{shown}], n FROM (SELECT {', '.join(names)}, count(*) AS n FROM data WHERE {whole} "
        f"GROUP BY ALL HAVING count(*) > 1) ORDER BY n DESC, {', '.join(names)} LIMIT {SHOWN_ROWS}"
    )
    return [{"values": dict(zip(rule.columns, values, strict=True)), "rows": int(n)} for values, n in rows]


def _numbered(source: Source) -> str:
    return "(SELECT *, row_number() OVER () AS __mlcicd_row FROM data)"


def _shown_columns(source: Source, rule: RowRule, schema: TableSchema) -> list[str]:
    keys = [name for name in schema.key if name in source.columns]
    return list(dict.fromkeys([*keys, *rule.columns]))[:_SHOWN_COLUMNS]


def _first_rows(rule: RowRule, columns: list[str], schema: TableSchema) -> str:
    cells = ", ".join(_cell(column, schema) for column in columns)
    # An expression without columns (`1 = 2`) has nothing to show but the row's number.
    row = f"{{'n': __mlcicd_row, 'v': CAST([{cells}] AS VARCHAR[])}}"
    violates = f"{rule.applies} AND ({rule.valid}) IS NOT TRUE"
    return f"arg_min({row}, __mlcicd_row, {SHOWN_ROWS}) FILTER (WHERE {violates})"


def _cell(column: str, schema: TableSchema) -> str:
    declared = schema.columns.get(column)
    if declared is not None and declared.sensitive:
        return f"'{REDACTED}'"
    return f"left(CAST({quote(column)} AS VARCHAR), {_SHOWN_CHARACTERS})"
