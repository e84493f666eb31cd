"""Tables whose rows stay where they are: rules are compiled on an empty table of the same types, and counted there."""

# ruff: noqa: S608  (identifiers go through `quote`; what an engine is sent is translated, with texts as parameters)
from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

from mlcicd.data.source import Source, quote
from mlcicd.data.translation import NotTranslated

if TYPE_CHECKING:
    import duckdb


class Elsewhere(Source, ABC):
    """A source on an engine that is not the embedded one."""

    @property
    def distributed(self) -> bool:
        return True

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """An empty table with these columns: rules are compiled and their types are checked on it."""
        import duckdb

        made = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
        made.execute("SET TimeZone = 'UTC'")
        columns = ", ".join(f"{quote(name)} {kind}" for name, kind in self.columns.items())
        made.execute(f"CREATE TEMP TABLE data ({columns})")
        made.execute("SET enable_external_access = false")
        made.execute("SET lock_configuration = true")
        return made

    @cached_property
    def _types(self) -> dict[str, str]:
        return {}

    def type_of(self, expression: str) -> str:
        """DuckDB's type of an expression over these columns.

        Raises:
            NotTranslated: it has none.
        """
        import duckdb

        if expression not in self._types:
            try:
                row = self.connection.execute(f"DESCRIBE SELECT ({expression}) AS v FROM data").fetchall()[0]
            except duckdb.Error as error:
                raise NotTranslated(f"{expression}: {str(error).splitlines()[0]}") from error
            self._types[expression] = str(row[1])
        return self._types[expression]

    @abstractmethod
    def translated(self, sql: str) -> tuple[str, dict[str, str]]:
        """A statement of ours in the engine's words, and its parameters.

        Raises:
            NotTranslated: something in it is not known to mean the same there.
        """

    def refuses(self, condition: str) -> str:
        """Why a condition can not be counted by this engine; empty when it can."""
        try:
            self.translated(f"SELECT count_if({condition}) FROM data")
        except NotTranslated as error:
            return str(error)
        return ""
