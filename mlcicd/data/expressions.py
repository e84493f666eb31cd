"""The user's SQL: single scalar expressions over the columns of one row, and nothing else.

An expression is parsed by the engine, its syntax tree is walked, and what is run later is the text the engine
writes from that very tree: there is no second reading that could see something else in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mlcicd.core.yaml_lines import nearest
from mlcicd.data.source import Source

_ALLOWED = frozenset(
    {
        "BETWEEN",
        "CASE",
        "CAST",
        "COLLATE",
        "COLUMN_REF",
        "COMPARISON",
        "CONJUNCTION",
        "CONSTANT",
        "FUNCTION",
        "LAMBDA",
        "OPERATOR",
        "TYPE",
    }
)
_REFUSED_CLASSES = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "`*` or COLUMNS()",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "a positional reference",
    "DEFAULT": "DEFAULT",
}
# Scalar, but they change something, wait, or answer differently each time: no rule about data.
_REFUSED_FUNCTIONS = frozenset(
    {
        "currval",
        "current_connection_id",
        "current_query",
        "current_query_id",
        "current_setting",
        "current_transaction_id",
        "gen_random_uuid",
        "getenv",
        "getvariable",
        "nextval",
        "random",
        "setseed",
        "setval",
        "sleep_ms",
        "unnest",
        "uuid",
        "uuidv4",
        "uuidv7",
        "write_log",
    }
)
# SQL writes these functions without parentheses, and the parser takes them for columns.
_CLOCK = frozenset({"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"})
_EMPTY_PARTS = ("modifiers", "where_clause", "group_expressions", "group_sets", "having", "sample", "qualify")


class ExpressionError(ValueError):
    """Why an expression is refused; the second argument, where there is one, says what to do."""


@dataclass(frozen=True)
class Expression:
    """A checked expression.

    Attributes:
        sql: its text, as written by the engine from the checked tree.
        columns: the columns of the table it reads, in order of appearance.
        missing: columns it names that the table does not have.
    """

    sql: str
    columns: tuple[str, ...]
    missing: tuple[str, ...]


def check_expression(text: str, source: Source) -> Expression:
    """Checks one expression against a source.

    Raises:
        ExpressionError: not a single scalar expression, or of types that do not go together.
    """
    tree = _parse(text, source)
    known = {name.lower(): name for name in source.columns}
    names = list(dict.fromkeys(_columns(tree["statements"][0]["node"]["select_list"][0])))
    missing = tuple(name for name in names if name.lower() not in known and name.lower() not in _CLOCK)
    sql = _write(tree, source)
    if not missing:
        _bind(sql, source)
    return Expression(sql, tuple(known[name.lower()] for name in names if name.lower() in known), missing)


def _parse(text: str, source: Source) -> dict[str, Any]:
    # The line breaks keep a trailing comment from swallowing the parenthesis.
    answer = source.connection.execute("SELECT json_serialize_sql(?)", [f"SELECT (\n{text}\n)"]).fetchone()
    tree: dict[str, Any] = json.loads(answer[0]) if answer else {"error": True}
    if tree.get("error"):
        raise ExpressionError(f"not an SQL expression: {tree.get('error_message', 'it can not be parsed')}")
    if len(tree["statements"]) != 1:
        raise ExpressionError("more than one statement")
    node = tree["statements"][0]["node"]
    plain = (
        node.get("type") == "SELECT_NODE"
        and node["from_table"]["type"] == "EMPTY"
        and not node["cte_map"]["map"]
        and not any(node.get(part) for part in _EMPTY_PARTS)
    )
    if not plain:
        raise ExpressionError("a query, not an expression")
    if len(node["select_list"]) != 1:
        raise ExpressionError("more than one expression")
    _walk(node["select_list"][0], _scalar_functions())
    return tree


def _walk(root: dict[str, Any], scalar: frozenset[str]) -> None:
    for node in _nodes(root):
        kind = node["class"]
        if kind not in _ALLOWED:
            raise ExpressionError(f"{_REFUSED_CLASSES.get(kind, kind.lower())} is not allowed in a rule")
        if kind == "FUNCTION":
            name = str(node["function_name"]).lower()
            if name in _REFUSED_FUNCTIONS:
                raise ExpressionError(f"the function {name}() is not allowed in a rule")
            if name not in scalar:
                raise ExpressionError(
                    f"{name}() is not a function of one row{nearest(name, scalar)}"
                    " (aggregates and table functions are not allowed in a rule)"
                )


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "class" in value:
            yield value
        for child in value.values():
            yield from _nodes(child)
    elif isinstance(value, list):
        for child in value:
            yield from _nodes(child)


def _columns(root: dict[str, Any], bound: frozenset[str] = frozenset()) -> Iterator[str]:
    """Names of columns, without the parameters of lambdas."""
    for node in _nodes(root):
        if node["class"] == "LAMBDA":
            bound = bound.union(n["column_names"][0] for n in _nodes(node["lhs"]) if n["class"] == "COLUMN_REF")
    for node in _nodes(root):
        if node["class"] == "COLUMN_REF":
            name = str(node["column_names"][0])
            if name not in bound:
                yield name


def _write(tree: dict[str, Any], source: Source) -> str:
    answer = source.connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchone()
    text = str(answer[0]) if answer else ""
    if not text.startswith("SELECT "):
        raise ExpressionError("it can not be written back as SQL")
    return f"({text.removeprefix('SELECT ')})"


def _bind(sql: str, source: Source) -> None:
    """Asks the engine whether the types go together, without reading a row."""
    import duckdb

    try:
        described = source.connection.execute(f"DESCRIBE SELECT TRY({sql}) AS v FROM data").fetchall()  # noqa: S608
    except duckdb.Error as error:
        raise ExpressionError(str(error).splitlines()[0]) from error
    if described[0][1] != "BOOLEAN":
        raise ExpressionError(f"it is of type {described[0][1]}, and a rule must be true or false")


@lru_cache(maxsize=1)
def _scalar_functions() -> frozenset[str]:
    import duckdb

    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE function_type IN ('scalar', 'macro')"
        ).fetchall()
    return frozenset(str(row[0]) for row in rows)
