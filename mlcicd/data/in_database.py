"""Tables checked where they are: one transaction that only reads, aggregates and a few rows to show come here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcicd.core.errors import ConfigError, InputError, ServiceError
from mlcicd.data.database import asking, connected, declared_columns, first_line, text_of
from mlcicd.data.database_columns import Projection, project
from mlcicd.data.elsewhere import Elsewhere
from mlcicd.data.files import refuse_duplicates
from mlcicd.data.postgres_sql import ToPostgres
from mlcicd.data.source import RefusedHere
from mlcicd.data.sqlite_functions import add_functions
from mlcicd.data.sqlite_sql import ToSqlite
from mlcicd.data.translation import NotTranslated

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlglot import exp

    from mlcicd.data.database_sql import ToDatabase

_TRANSLATIONS: dict[str, type[ToDatabase]] = {"postgresql": ToPostgres, "sqlite": ToSqlite}
_SYNONYMS = {"postgres": "postgresql"}
_SETTINGS = {"TimeZone": "UTC", "DateStyle": "ISO, YMD", "extra_float_digits": "1"}
_CANCELLED, _FORBIDDEN = "57014", "42501"
_STEPS = 10_000
REMEDY = "write it with what docs/data.md lists for databases, or check a snapshot (`engine: duckdb`)"


@dataclass(frozen=True)
class Session:
    """A connection within its transaction.

    Attributes:
        state: what the database says of the state that is read: its product, the time, and of PostgreSQL the snapshot
            (`xmin:xmax:running`) that every statement sees.
    """

    connection: sa.Connection
    timeout_s: float
    state: dict[str, str]

    def run(self, sql: str, values: dict[str, str], where: str) -> list[tuple[Any, ...]]:
        """Runs one statement.

        Raises:
            RefusedHere: the database can not compute it, of these rows.
            InputError, ServiceError: it is slower than the timeout, can not be reached, or forbids it.
        """
        with self.asked(where), self.connection.begin_nested():
            return [tuple(row) for row in self.connection.exec_driver_sql(sql, values)]

    @contextmanager
    def asked(self, where: str) -> Iterator[None]:
        """Ends what takes too long, and turns the database's answers into errors a user can act on (:meth:`run`)."""
        with asking(where), self._refusals(where), self._deadline():
            yield

    @contextmanager
    def _refusals(self, where: str) -> Iterator[None]:
        import sqlalchemy as sa

        try:
            yield
        except (sa.exc.DataError, sa.exc.ProgrammingError, sa.exc.NotSupportedError, sa.exc.OperationalError) as error:
            code, text = getattr(error.orig, "pgcode", "") or "", first_line(error.orig or error)
            if code == _CANCELLED or text == "interrupted":
                raise ServiceError(
                    f"the database needed more than {self.timeout_s:g} seconds for one statement",
                    where=where,
                    remedy="raise data.database.timeout, or check fewer rows: a view of them",
                ) from None
            of_rows = not isinstance(error, sa.exc.OperationalError) or text.startswith("user-defined function")
            if code == _FORBIDDEN or not of_rows:
                raise
            raise RefusedHere(f"the database can not compute this: {text}", where=where, remedy=REMEDY) from None

    @contextmanager
    def _deadline(self) -> Iterator[None]:
        """SQLite has no setting for it; PostgreSQL was told when the transaction began."""
        if self.connection.dialect.name != "sqlite":
            yield
            return
        driver: Any = self.connection.connection.driver_connection
        end = time.monotonic() + self.timeout_s
        driver.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
        try:
            yield
        finally:
            driver.set_progress_handler(None, 0)


@contextmanager
def database_session(url: str, *, root: Path | None = None, timeout_s: float = 3600.0) -> Iterator[Session]:
    """A transaction of a database that reads one state of it, whatever is written meanwhile, and can not write.

    Args:
        url: SQLAlchemy's, of PostgreSQL or SQLite.
        root: what a relative SQLite path is relative to.
        timeout_s: the longest that one statement may take.

    Raises:
        ConfigError: rules can not be run by this database.
        InputError, ServiceError: no such database, no driver, or it can not be reached.
    """
    import sqlalchemy as sa

    if find_spec("sqlglot") is None:
        raise InputError(
            "sqlglot, which writes a database's SQL, is not installed", remedy="pip install 'mlcicd[database]'"
        )
    with asking("the database"):
        name = sa.make_url(url).get_backend_name()
        name = _SYNONYMS.get(name, name)
    if name not in _TRANSLATIONS:
        raise ConfigError(
            f"rules can not be counted in {name}",
            why=f"What they mean is known for {' and '.join(sorted(_TRANSLATIONS))}; elsewhere it was never tried.",
            remedy="use `engine: duckdb`, which reads the table into a snapshot",
        )
    with asking("the database"), connected(url, root) as connection:
        state = {"product": name, "version": "", "read": datetime.now(UTC).isoformat(timespec="seconds")}
        if name == "sqlite":
            driver: Any = connection.connection.driver_connection
            add_functions(driver)
            driver.create_function(
                "mlcicd_text", 1, lambda value: None if value is None else text_of(value), deterministic=True
            )
            connection.exec_driver_sql("BEGIN")
            state["version"] = str(driver.execute("SELECT sqlite_version()").fetchone()[0])
        else:
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            state |= _begin(connection, timeout_s)
        yield Session(connection, timeout_s, state)


def _begin(connection: sa.Connection, timeout_s: float) -> dict[str, str]:
    settings = {**_SETTINGS, "statement_timeout": str(max(1, int(timeout_s * 1000)))}
    for name, value in settings.items():
        connection.exec_driver_sql("SELECT set_config(%(name)s, %(value)s, true)", {"name": name, "value": value})
    asked = "current_setting('server_version'), current_database(), CAST(pg_current_snapshot() AS text)"
    version, database, snapshot = connection.exec_driver_sql(f"SELECT {asked}").one()
    return {"version": str(version), "database": str(database), "snapshot": str(snapshot)}


@dataclass(frozen=True)
class DatabaseSource(Elsewhere):
    """A table or view of a database as a source."""

    session: Session = field(kw_only=True, compare=False, repr=False)
    projection: Projection = field(kw_only=True, compare=False, repr=False)

    @cached_property
    def digest(self) -> str:
        """Raises InputError: rows that never came here have no digest."""
        raise InputError("a table that is checked in its database has no digest of its content", where=str(self.path))

    def joins_refused(self) -> str:
        return "the database can not see a file"

    def translated(self, sql: str) -> tuple[str, dict[str, str]]:
        import sqlglot

        return self._translate(sqlglot.parse_one(sql, read="duckdb"))

    def _translate(self, tree: exp.Expression) -> tuple[str, dict[str, str]]:
        translation = _TRANSLATIONS[self.session.connection.dialect.name]
        made = translation(
            self.type_of, columns=list(self.columns), opaque=self.projection.opaque, canonical=self._canonical
        )
        return made.run(tree)

    def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Runs one statement of ours on the table `data`.

        Raises:
            ConfigError: something in it is not known to mean the same there.
            RefusedHere: the database can not compute it, of these rows.
            InputError, ServiceError: it can not be reached, is too slow, or forbids it.
        """
        import sqlglot

        if parameters:
            raise ConfigError("statements with parameters can not run in a database", where=str(self.path))
        tree = sqlglot.parse_one(sql, read="duckdb")
        try:
            shown = self._shown(tree)
            text, values = self._translate(tree)
        except NotTranslated as error:
            raise ConfigError(f"this can not run here: {error}", where=str(self.path), remedy=REMEDY) from error
        rows = self.session.run(f"WITH data AS ({self.projection.sql}) {text}", values, str(self.path))
        return [
            tuple(self._as_shown(v, shown[place]) if place in shown else v for place, v in enumerate(row))
            for row in rows
        ]

    def _shown(self, tree: exp.Expression) -> dict[int, str]:
        """Values that are asked for as text: their types, by their places. DuckDB writes them, as it always does."""
        from sqlglot import exp

        found: dict[int, str] = {}
        for place, selected in enumerate(tree.expressions):
            cast = selected.this if isinstance(selected, exp.Left) else selected
            if not isinstance(cast, exp.Cast) or not cast.to.is_type("text", "varchar"):
                continue
            cast.meta["shown"] = True
            kind = self.type_of(cast.this.sql(dialect="duckdb"))
            if kind != "VARCHAR":
                found[place] = kind
                selected.replace(cast)
        return found

    def _as_shown(self, value: Any, kind: str) -> str | None:
        if value is None:
            return None
        given = value if isinstance(value, bytes) else str(value)
        read = "$1::BLOB" if isinstance(value, bytes) else f"TRY_CAST($1 AS {kind})"
        row = self.connection.execute(f"SELECT CAST({read} AS VARCHAR)", [given]).fetchone()
        return str(row[0]) if row and row[0] is not None else str(given)

    def _canonical(self, text: str, kind: str) -> str:
        import duckdb

        try:
            row = self.connection.execute(f"SELECT CAST(CAST($1 AS {kind}) AS VARCHAR)", [text]).fetchone()
        except duckdb.Error as error:
            raise ValueError(first_line(error)) from error
        return str(row[0]) if row else ""


def open_table(session: Session, table: str, *, namespace: str = "") -> DatabaseSource:
    """Binds a table or view.

    Raises:
        InputError: there is no such table, it has no columns, or two of one name.
        ServiceError: the database can not be reached, or refuses.
    """
    shown = f"table {namespace}.{table}" if namespace else f"table {table}"
    with session.asked(shown):
        declared = declared_columns(session.connection, table, namespace)
        refuse_duplicates(list(declared), shown)
        projection = project(session.connection, table, namespace, declared)
    return DatabaseSource(
        Path(shown), "parquet", (), projection.columns, "1GB", None, session=session, projection=projection
    )
