"""A database's columns as the embedded engine would have them: a projection that gives each its type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlcicd.data.database import engine_type, named_table, quoted_column, stored_kinds

if TYPE_CHECKING:
    import sqlalchemy as sa

_COLUMNS_A_QUERY = 300


@dataclass(frozen=True)
class Projection:
    """A table's columns under the names `c0`, `c1`, ...

    Attributes:
        sql: the SELECT, its identifiers quoted by the driver's dialect.
        columns: column name to the embedded engine's type, in the table's order.
        opaque: columns that the embedded engine is given as text in a form of its own (JSON, arrays, intervals).
    """

    sql: str
    columns: dict[str, str]
    opaque: frozenset[str]


def project(connection: sa.Connection, table: str, namespace: str, declared: dict[str, Any]) -> Projection:
    """The projection of a table of PostgreSQL or SQLite; of SQLite the values are looked at, in one pass."""
    import sqlalchemy as sa

    if connection.dialect.name == "sqlite":
        made = _of_sqlite(connection, table, declared)
    else:
        made = {name: _of_postgres(name, kind) for name, kind in declared.items()}
    selected = [value.label(f"c{index}") for index, (value, _, _) in enumerate(made.values())]
    query = sa.select(*selected).select_from(named_table(table, namespace))
    # The only literals are ours.
    sql = str(query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True}))
    opaque = frozenset(name for name, (_, _, known) in made.items() if not known)
    return Projection(sql, {name: kind for name, (_, kind, _) in made.items()}, opaque)


def _of_postgres(name: str, declared: Any) -> tuple[Any, str, bool]:
    """Value, the embedded engine's type, and whether it means the same."""
    import sqlalchemy as sa
    from sqlalchemy import types
    from sqlalchemy.dialects import postgresql

    value, kind = quoted_column(name), engine_type(declared)
    if kind == "VARCHAR":
        text: Any = sa.cast(value, types.Text)
        if isinstance(declared, types.CHAR) and declared.length:
            # A cast drops the blanks that the column is filled with, and a driver does not.
            text = sa.func.rpad(text, declared.length)
        standard = types.String | types.Uuid | postgresql.CITEXT
        padded = isinstance(declared, types.CHAR) and not declared.length
        return text.collate("C"), kind, isinstance(declared, standard) and not padded
    if isinstance(declared, types.Numeric) and kind == "DOUBLE":
        return sa.cast(value, postgresql.DOUBLE_PRECISION), kind, True
    return value, kind, not (kind == "TIME" and getattr(declared, "timezone", False))


def _of_sqlite(connection: sa.Connection, table: str, declared: dict[str, Any]) -> dict[str, tuple[Any, str, bool]]:
    kinds = stored_kinds(connection, table, declared)
    found = _odd_values(connection, table, {name: kind for name, kind in kinds.items() if "?" in kind})
    return {name: _as_stored(name, kind, found.get(name)) for name, kind in kinds.items()}


def _odd_values(connection: sa.Connection, table: str, kinds: dict[str, str]) -> dict[str, int]:
    """How far the values of columns are from what was declared: 0 not at all, 1 in what can be compared, 2 wholly."""
    import sqlalchemy as sa

    found: dict[str, int] = {}
    names = list(kinds)
    for start in range(0, len(names), _COLUMNS_A_QUERY):
        block = names[start : start + _COLUMNS_A_QUERY]
        asked = []
        for name in block:
            value, meant = quoted_column(name), kinds[name].partition("?")[2]
            odd = sa.func.mlcicd_strange(value, meant)
            asked.append(sa.func.max(sa.case((value.not_in((0, 1)), 2), else_=0) if meant == "BOOLEAN" else odd))
        row = connection.execute(sa.select(*asked).select_from(named_table(table, ""))).one()
        found |= {name: int(value or 0) for name, value in zip(block, row, strict=True)}
    return found


def _as_stored(name: str, kind: str, odd: int | None) -> tuple[Any, str, bool]:
    import sqlalchemy as sa

    # No value of a table has a number as its type, so that no column's affinity or collation goes along.
    value, (stored, _, meant) = quoted_column(name), kind.partition("?")
    if meant == "BOOLEAN":
        return value, "BIGINT" if odd else "BOOLEAN", True
    if meant and odd != 2:
        return sa.func.mlcicd_time(value, meant), meant, odd == 0
    if stored == "DOUBLE":
        return sa.cast(value, sa.REAL), stored, True
    return (sa.func.mlcicd_text(value) if stored == "VARCHAR" else value), stored, True
