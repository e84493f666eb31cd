"""Tables of databases, read once in batches into a Parquet file that everything after reads.

DuckDB's own readers of SQLite and PostgreSQL are extensions that it downloads when they are first used, which a locked
engine must not do and a runner without that host can not. SQLAlchemy, which is here for the registry, reaches every
database that has a driver. One `SELECT` reads the table, so that the database's own isolation makes the snapshot one
state of it; at most :data:`CELLS` values are in Python's memory at a time, the rest is in a file of the engine's.
"""

# ruff: noqa: S608  (identifiers go through `quote`; values never become SQL)
from __future__ import annotations

import json
import math
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcicd.core.errors import InputError, ServiceError, learn_secrets
from mlcicd.core.yaml_lines import nearest
from mlcicd.data.files import refuse_duplicates
from mlcicd.data.source import literal, open_source, quote, reading

if TYPE_CHECKING:
    import duckdb
    import sqlalchemy as sa

CELLS = 200_000
_WIDEST_DECIMAL = 38
_COLUMNS_A_QUERY = 300
# What SQLite's declared types mean where text or numbers are kept for them.
_SQLITE_MEANT = {"DATE": "DATE", "DATETIME": "TIMESTAMP", "TIMESTAMP": "TIMESTAMP", "BOOLEAN": "BOOLEAN"}


def snapshot_table(
    url: str,
    table: str,
    target: Path,
    *,
    namespace: str = "",
    order_by: Sequence[str] = (),
    root: Path | None = None,
    memory_limit: str = "1GB",
) -> int:
    """Writes a table or view as Parquet; what was at `target` is replaced when all of it is there.

    Args:
        url: SQLAlchemy's, such as `postgresql://user:password@host/database` or `sqlite:///data/flights.db`.
        table: its name, whatever characters it holds.
        namespace: its schema within the database; the database's default when empty.
        order_by: columns to order the rows by. Without, they stand as the database gives them, and the digest of an
            unchanged table may change.
        root: what a relative SQLite path is relative to.
        memory_limit: the most memory the engine holds, in DuckDB's notation; beside it :data:`CELLS` values.

    Returns:
        The number of rows.

    Raises:
        InputError: no such table or column, a value that its column's type can not hold, a missing driver.
        ServiceError: the database can not be reached, or refuses.
    """
    shown = f"table {namespace}.{table}" if namespace else f"table {table}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".snapshot-") as folder,
        asking(shown),
        connected(url, root) as connection,
    ):
        columns = _columns(connection, table, namespace)
        refuse_duplicates(list(columns), shown)
        unknown = [name for name in order_by if name not in columns]
        if unknown:
            raise InputError(
                f"order_by names a column {unknown[0]!r} that the table lacks{nearest(unknown[0], columns)}",
                where=shown,
            )
        made = Path(folder, "table.parquet")
        with closing(_staging(Path(folder), memory_limit)) as engine, reading(shown):
            _fill(engine, columns, _batches(connection, table, namespace, list(columns), order_by))
            selected = ", ".join(_as_meant(engine, name, kind) for name, kind in columns.items())
            engine.execute(f"COPY (SELECT {selected} FROM staged) TO {literal(str(made))} (FORMAT parquet)")
        made.replace(target)
    return open_source(target, memory_limit=memory_limit).rows


@contextmanager
def asking(shown: str) -> Iterator[None]:
    """Turns what drivers raise into errors a user can act on."""
    import sqlalchemy as sa

    try:
        yield
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
        raise InputError(
            "this is no URL of a database",
            where=shown,
            why=first_line(error),
            remedy="write it as SQLAlchemy does: postgresql://user:password@host/database, sqlite:///data/flights.db",
        ) from None
    except ModuleNotFoundError as error:
        raise InputError(
            f"the database's driver {error.name!r} is not installed",
            where=shown,
            remedy="install it beside mlcicd; for PostgreSQL: pip install psycopg2-binary",
        ) from None
    except sa.exc.OperationalError as error:
        raise ServiceError(
            "the database can not be reached, or refuses",
            where=shown,
            why=first_line(error.orig or error),
            remedy="check the URL in the variable that url_env names, the network, and the rights of the user",
        ) from None
    except (sa.exc.SQLAlchemyError, UnicodeDecodeError, OverflowError, ValueError) as error:
        cause = getattr(error, "orig", None) or error
        raise InputError("the table can not be read", where=shown, why=first_line(cause)) from None


def first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


@contextmanager
def connected(url: str, root: Path | None) -> Iterator[sa.Connection]:
    import sqlalchemy as sa

    address = sa.make_url(url)
    if address.drivername in ("postgres", "postgresql"):
        # SQLAlchemy's own choice has changed between its versions; the one that is here will do.
        driver = next((name for name in ("psycopg2", "psycopg") if find_spec(name)), "psycopg2")
        address = address.set(drivername=f"postgresql+{driver}")
    if address.password:
        learn_secrets({"PASSWORD": str(address.password)})
    options: dict[str, Any] = {"hide_parameters": True, "poolclass": sa.pool.NullPool}
    if address.get_backend_name() == "sqlite":
        file = Path(root or "", address.database or "").resolve()
        if not address.database or not file.is_file():
            raise InputError("there is no such SQLite file", where=str(address.database or "sqlite://"))
        # Read only: connecting to what is not there would make an empty database.
        engine = sa.create_engine(
            "sqlite://", creator=lambda: sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True), **options
        )
    else:
        engine = sa.create_engine(address, **options)
    try:
        with engine.connect() as connection:
            postgres = address.get_backend_name() == "postgresql"
            yield connection.execution_options(postgresql_readonly=True) if postgres else connection
    finally:
        engine.dispose()


def _columns(connection: sa.Connection, table: str, namespace: str) -> dict[str, str]:
    """Column name to the engine's type, in the table's order."""
    declared = declared_columns(connection, table, namespace)
    if connection.dialect.name == "sqlite":
        return stored_kinds(connection, table, declared)
    return {name: engine_type(kind) for name, kind in declared.items()}


def declared_columns(connection: sa.Connection, table: str, namespace: str) -> dict[str, sa.types.TypeEngine[Any]]:
    """Column name to the database's type, in the table's order.

    Raises:
        InputError: there is no such table.
    """
    import sqlalchemy as sa

    inspector = sa.inspect(connection)
    try:
        found = inspector.get_columns(table, schema=namespace or None)
    except sa.exc.NoSuchTableError:
        found = []
    if not found:
        names = [*inspector.get_table_names(namespace or None), *inspector.get_view_names(namespace or None)]
        raise InputError(
            f"there is no table {table!r}{nearest(table, names)}", where=f"schema {namespace}" if namespace else ""
        )
    return {str(column["name"]): column["type"] for column in found}


def engine_type(kind: sa.types.TypeEngine[Any]) -> str:
    """The engine's type for a database's; text for what it has no type for (JSON, UUID, arrays, intervals)."""
    from sqlalchemy import types

    known: list[tuple[Any, str]] = [
        (types.Boolean, "BOOLEAN"),
        (types.SmallInteger, "SMALLINT"),
        (types.BigInteger, "BIGINT"),
        (types.Integer, "INTEGER"),
        (types.REAL, "FLOAT"),
        (types.Float, "DOUBLE"),
        (types.Date, "DATE"),
        (types.Time, "TIME"),
        (types.LargeBinary, "BLOB"),
    ]
    if isinstance(kind, types.DateTime):
        return "TIMESTAMP WITH TIME ZONE" if kind.timezone else "TIMESTAMP"
    if isinstance(kind, types.Numeric) and not isinstance(kind, types.Float):
        # Without a precision it may hold any number, which no decimal of fixed width can.
        fits = kind.precision is not None and kind.precision <= _WIDEST_DECIMAL
        return f"DECIMAL({kind.precision},{kind.scale or 0})" if fits else "DOUBLE"
    return next((name for its_class, name in known if isinstance(kind, its_class)), "VARCHAR")


def stored_kinds(connection: sa.Connection, table: str, declared: dict[str, Any]) -> dict[str, str]:
    """Types by what is stored: SQLite keeps any value in any column, whatever was declared."""
    import sqlalchemy as sa

    names, columns = list(declared), {}
    for start in range(0, len(names), _COLUMNS_A_QUERY):
        block = names[start : start + _COLUMNS_A_QUERY]
        kinds = ("integer", "real", "text", "blob")
        asked = [sa.func.max(sa.func.typeof(quoted_column(name)) == kind) for name in block for kind in kinds]
        found = list(connection.execute(sa.select(*asked).select_from(named_table(table, ""))).one())
        for index, name in enumerate(block):
            stored = {kind for kind, seen in zip(kinds, found[index * 4 : index * 4 + 4], strict=True) if seen}
            meant = _SQLITE_MEANT.get(str(declared[name]).upper(), "")
            columns[name] = _stored_kind(stored, meant) if stored else engine_type(declared[name])
    return columns


def _stored_kind(stored: set[str], meant: str) -> str:
    if stored == {"integer"}:
        return "BIGINT?BOOLEAN" if meant == "BOOLEAN" else "BIGINT"
    if stored <= {"integer", "real"}:
        return "DOUBLE"
    if stored == {"blob"}:
        return "BLOB"
    return f"VARCHAR?{meant}" if stored == {"text"} and meant in ("DATE", "TIMESTAMP") else "VARCHAR"


def _as_meant(engine: duckdb.DuckDBPyConnection, name: str, kind: str) -> str:
    """A staged column as its declared type, if every value is one; as what it is, if not."""
    meant = kind.partition("?")[2]
    if not meant:
        return quote(name)
    cast = f"TRY_CAST({quote(name)} AS {meant})"
    good = f"{cast} IS NOT NULL"
    if meant == "BOOLEAN":
        good = f"{quote(name)} IN (0, 1)"
    row = engine.execute(f"SELECT count(*) FROM staged WHERE {quote(name)} IS NOT NULL AND NOT ({good})").fetchone()
    return quote(name) if row is None or row[0] else f"{cast} AS {quote(name)}"


def quoted_column(name: str) -> Any:
    import sqlalchemy as sa

    return sa.column(sa.sql.quoted_name(name, True))


def named_table(table: str, namespace: str) -> Any:
    import sqlalchemy as sa

    quoted = sa.sql.quoted_name
    return sa.table(quoted(table, True), schema=quoted(namespace, True) if namespace else None)


def _batches(
    connection: sa.Connection, table: str, namespace: str, names: list[str], order_by: Sequence[str]
) -> Iterator[Sequence[Any]]:
    import sqlalchemy as sa

    rows = max(1, CELLS // len(names))
    query = (
        sa.select(*map(quoted_column, names))
        .select_from(named_table(table, namespace))
        .order_by(*map(quoted_column, order_by))
    )
    yield from connection.execution_options(yield_per=rows).execute(query).partitions()


def _staging(folder: Path, memory_limit: str) -> duckdb.DuckDBPyConnection:
    import duckdb

    config: dict[str, Any] = {
        "memory_limit": memory_limit,
        "temp_directory": str(folder / "spill"),
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    engine = duckdb.connect(str(folder / "staged.db"), config=config)
    engine.execute("SET TimeZone = 'UTC'")
    engine.execute("SET preserve_insertion_order = true")
    # A value's type is found by looking at all of a batch, not at each thousandth.
    engine.execute(f"SET GLOBAL pandas_analyze_sample = {CELLS}")
    return engine


def _fill(engine: duckdb.DuckDBPyConnection, columns: dict[str, str], batches: Iterator[Sequence[Any]]) -> None:
    kinds = [kind.partition("?")[0] for kind in columns.values()]
    declared = ", ".join(f"{quote(name)} {kind}" for name, kind in zip(columns, kinds, strict=True))
    engine.execute(f"CREATE TABLE staged ({declared})")
    for batch in batches:
        arrays: dict[str, Any] = {}
        selected = []
        for index, values in enumerate(zip(*batch, strict=True)):
            arrays[f"c{index}"] = _array(values, kinds[index])
            selected.append(f"c{index}")
            if kinds[index] in ("FLOAT", "DOUBLE") and any(map(_is_nan, values)):  # which is no NULL
                arrays[f"n{index}"] = _array([_is_nan(value) for value in values], "BOOLEAN")
                selected[-1] = f"CASE WHEN n{index} THEN 'nan'::DOUBLE ELSE c{index} END"
        engine.register("batch", arrays)
        engine.execute(f"INSERT INTO staged SELECT {', '.join(selected)} FROM batch")
        engine.unregister("batch")


def _is_nan(value: Any) -> bool:
    return value is not None and math.isnan(value)


def _array(values: Sequence[Any], kind: str) -> Any:
    import numpy as np

    made = np.empty(len(values), dtype=object)
    convert = _CONVERSIONS.get(kind)
    made[:] = values if convert is None else [None if value is None else convert(value) for value in values]
    return made


def text_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return json.dumps(value, sort_keys=True, default=str) if isinstance(value, dict | list) else str(value)


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {"VARCHAR": text_of, "BLOB": bytes, "DOUBLE": float, "FLOAT": float}
