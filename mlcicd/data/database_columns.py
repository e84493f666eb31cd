"""A database's columns as the embedded engine would have them: a projection that gives each its type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlcicd.data.database import engine_type, named_table, quoted_column, stored_kinds

if TYPE_CHECKING:
    import sqlalchemy as sa

_COLUMNS_A_QUERY = 300
# As `mlcicd_strange` says.
_ODD_YEAR, _NO_TIME = 2, 3


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
    found = _strangest(connection, table, {n: kind for n, kind in kinds.items() if "?" in kind or kind == "VARCHAR"})
    return {name: _as_stored(name, kind, found.get(name, 0)) for name, kind in kinds.items()}


def _strangest(connection: sa.Connection, table: str, kinds: dict[str, str]) -> dict[str, int]:
    """How far the values of columns are from what was declared, at most: as `mlcicd_strange` says of times; of others,
    0 or 1."""
    import sqlalchemy as sa

    found: dict[str, int] = {}
    names = list(kinds)
    for start in range(0, len(names), _COLUMNS_A_QUERY):
        block = names[start : start + _COLUMNS_A_QUERY]
        asked = []
        for name in block:
            value, meant = quoted_column(name), kinds[name].partition("?")[2]
            strange: dict[str, Any] = {
                "": sa.func.typeof(value).not_in(("text", "null")),
                "BOOLEAN": value.not_in((0, 1)),
            }
            asked.append(sa.func.max(strange[meant] if meant in strange else sa.func.mlcicd_strange(value, meant)))
        row = connection.execute(sa.select(*asked).select_from(named_table(table, ""))).one()
        found |= {name: int(value or 0) for name, value in zip(block, row, strict=True)}
    return found


def _as_stored(name: str, kind: str, strange: int) -> tuple[Any, str, bool]:
    import sqlalchemy as sa

    value, (stored, _, meant) = quoted_column(name), kind.partition("?")
    # What is computed has neither the column's affinity nor its collation.
    text = value.op("||")(sa.literal(""))
    if meant == "BOOLEAN":
        return value, "BIGINT" if strange else "BOOLEAN", True
    if meant and strange < _NO_TIME:
        return (sa.func.mlcicd_time(value, meant) if strange else text), meant, strange < _ODD_YEAR
    if stored == "DOUBLE":
        return sa.cast(value, sa.REAL), stored, True
    if stored == "VARCHAR":
        return (sa.func.mlcicd_text(value) if strange and not meant else text), stored, True
    return value, stored, True
