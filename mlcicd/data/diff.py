"""What changed between two versions of a table: its columns, its rows, and how its values are distributed."""

# ruff: noqa: S608  (identifiers go through `quote`, text through `literal`; values never become SQL)
from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.yaml_lines import nearest
from mlcicd.data.conditions import kind_of
from mlcicd.data.drift import DriftResult, drift
from mlcicd.data.examples import REDACTED, SHOWN_ROWS
from mlcicd.data.profile import profile
from mlcicd.data.source import Source, connect, quote, reading

_NUMBERS = ("int", "float", "decimal")
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class SchemaDiff:
    """How the columns differ.

    Attributes:
        added, removed: names, in the order of their file.
        retyped: (name, type before, type now), as the engine names types.
        reordered: the columns that both have stand in another order.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    retyped: tuple[tuple[str, str, str], ...]
    reordered: bool

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.retyped or self.reordered)


@dataclass(frozen=True)
class CellChange:
    """One changed value: the row's key, the value before, and now; as text of at most 80 characters."""

    key: tuple[str, ...]
    before: str | None
    now: str | None


@dataclass(frozen=True)
class RowDiff:
    """How the rows differ, over the columns that both have.

    Attributes:
        key: the columns by which rows were matched; without them whole rows are compared, each as often as it
            is there, and a changed row counts as one removed and one added.
        before, now: rows in all.
        added, removed, changed, same: rows.
        columns: column name to the number of rows whose value changed; only with a key.
        examples: column name to the first changes by key; only with a key.
    """

    key: tuple[str, ...]
    before: int
    now: int
    added: int
    removed: int
    changed: int
    same: int
    columns: dict[str, int]
    examples: dict[str, tuple[CellChange, ...]]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@dataclass(frozen=True)
class DataDiff:
    """What changed between two versions of a table; false when nothing did.

    Attributes:
        drifts: the columns that both have, most moved first.
    """

    schema: SchemaDiff
    rows: RowDiff
    drifts: tuple[DriftResult, ...]

    def __bool__(self) -> bool:
        return bool(self.schema) or bool(self.rows)

    def to_json(self) -> dict[str, Any]:
        """A JSON value."""
        return {
            "kind": "mlcicd.data-diff",
            "version": 1,
            "schema": asdict(self.schema),
            "rows": asdict(self.rows),
            "drift": [one.to_json() for one in self.drifts],
        }


def diff(before: Source, now: Source, *, key: Sequence[str] = (), sensitive: Iterable[str] = ()) -> DataDiff:
    """Compares two versions of a table.

    Values are equal as SQL's `IS NOT DISTINCT FROM` has it: NULL equals NULL, and NaN equals NaN. A column whose type
    changed is compared as a number where both are numbers, else as text.

    Args:
        key: columns that together identify a row; whole rows are compared without.
        sensitive: columns whose values are not shown.

    Raises:
        ConfigError: a key column is in neither table, or in one of them only.
        InputError: the key is not unique, or the data can not be read.
    """
    common = [name for name in before.columns if name in now.columns]
    for name in key:
        if name not in common:
            raise ConfigError(
                f"the key {name!r} is not a column of both versions{nearest(name, common)}",
                remedy="name columns that both have, or leave the key out to compare whole rows",
            )
    schema = _schema_diff(before, now, common)
    with closing(connect({"before": before, "now": now})) as connection, reading(f"{before.path}, {now.path}"):
        query = _Query(connection, before, now, common, tuple(key), frozenset(sensitive))
        rows = query.by_key() if key else query.by_content()
    hidden = frozenset(sensitive)
    reference = profile(before, common, sensitive=hidden) if common else None
    moved = tuple(drift(reference, now)) if reference is not None else ()
    return DataDiff(schema, rows, moved)


def _schema_diff(before: Source, now: Source, common: list[str]) -> SchemaDiff:
    return SchemaDiff(
        added=tuple(name for name in now.columns if name not in before.columns),
        removed=tuple(name for name in before.columns if name not in now.columns),
        retyped=tuple((n, before.columns[n], now.columns[n]) for n in common if before.columns[n] != now.columns[n]),
        reordered=common != [name for name in now.columns if name in before.columns],
    )


class _Query:
    """The two tables on one connection, as `before` and `now`."""

    def __init__(
        self,
        connection: Any,
        before: Source,
        now: Source,
        common: list[str],
        key: tuple[str, ...],
        sensitive: frozenset[str],
    ) -> None:
        self._connection = connection
        self._types = {name: (before.columns[name], now.columns[name]) for name in common}
        self._common = common
        self._key = key
        self._sensitive = sensitive
        # Tells whether a row has a partner; a name that no column has, whatever the tables hold.
        self._side = "__side"
        while any(self._side in (name.lower() for name in table.columns) for table in (before, now)):
            self._side += "_"

    def by_content(self) -> RowDiff:
        """Rows as a multiset, by 64-bit hashes of their values: no table is held in memory."""
        # A constant keeps tables without a common column comparable: then only how many rows there are.
        hashed = ", ".join(["0", *(self._comparable(name, "") for name in self._common)])
        added, removed, same, before, now = self._one(
            "SELECT sum(greatest(n - b, 0)), sum(greatest(b - n, 0)), "
            "sum(least(b, n)), sum(b), sum(n) FROM ("
            "SELECT h, count(*) FILTER (side = 0) AS b, count(*) FILTER (side = 1) AS n FROM ("
            f"SELECT hash({hashed}) AS h, 0 AS side FROM before UNION ALL SELECT hash({hashed}), 1 FROM now"
            ") GROUP BY h)"
        )
        return RowDiff((), before, now, added, removed, 0, same, {}, {})

    def by_key(self) -> RowDiff:
        """Rows matched by their key."""
        for table in ("before", "now"):
            self._unique(table)
        others = [name for name in self._common if name not in self._key]
        differs = {name: self._differs(name) for name in others}
        anywhere = " OR ".join(f"({sql})" for sql in differs.values()) or "false"
        joined = self._joined()
        side = self._side
        both = f"b.{side} IS NOT NULL AND n.{side} IS NOT NULL"
        per_column = "".join(f", count_if({both} AND ({sql}))" for sql in differs.values())
        counts = self._one(
            f"SELECT count(b.{side}), count(n.{side}), count_if(b.{side} IS NULL), count_if(n.{side} IS NULL), "
            f"count_if({both} AND ({anywhere})){per_column} FROM {joined}"
        )
        before, now, added, removed, changed = counts[:5]
        columns = {name: count for name, count in zip(others, counts[5:], strict=True) if count}
        examples = {name: self._examples(joined, both, name, differs[name]) for name in columns}
        return RowDiff(self._key, before, now, added, removed, changed, before - removed - changed, columns, examples)

    def _joined(self) -> str:
        on = " AND ".join(
            f"{self._comparable(name, 'b')} IS NOT DISTINCT FROM {self._comparable(name, 'n')}" for name in self._key
        )
        return (
            f"(SELECT *, true AS {self._side} FROM before) AS b "
            f"FULL JOIN (SELECT *, true AS {self._side} FROM now) AS n ON {on}"
        )

    def _unique(self, table: str) -> None:
        names = ", ".join(self._comparable(name, "") for name in self._key)
        keys, rows = self._one(f"SELECT count(*), sum(n) FROM (SELECT count(*) AS n FROM {table} GROUP BY {names})")
        if keys != rows:
            raise InputError(
                f"the key {', '.join(self._key)} is not unique in the version {table}",
                why=f"{rows:,} rows have {keys:,} keys, so that rows can not be matched.",
                remedy="name columns that identify a row, or leave the key out to compare whole rows",
            )

    def _examples(self, joined: str, both: str, name: str, differs: str) -> tuple[CellChange, ...]:
        keys = [self._shown(key, "n") for key in self._key]
        rows = self._connection.execute(
            f"SELECT [{', '.join(keys)}], {self._shown(name, 'b')}, {self._shown(name, 'n')} FROM {joined} "
            f"WHERE {both} AND ({differs}) ORDER BY {', '.join(f'n.{quote(key)}' for key in self._key)} "
            f"LIMIT {SHOWN_ROWS}"
        ).fetchall()
        return tuple(CellChange(tuple(key), before, now) for key, before, now in rows)

    def _differs(self, name: str) -> str:
        return f"{self._comparable(name, 'b')} IS DISTINCT FROM {self._comparable(name, 'n')}"

    def _comparable(self, name: str, table: str) -> str:
        """The column as a value that can be compared across both versions."""
        column = f"{table}.{quote(name)}" if table else quote(name)
        was, now = self._types[name]
        if was == now:
            return column
        if kind_of(was) in _NUMBERS and kind_of(now) in _NUMBERS:
            return f"CAST({column} AS DOUBLE)"
        return f"CAST({column} AS VARCHAR)"

    def _shown(self, name: str, table: str) -> str:
        if name in self._sensitive:
            return f"'{REDACTED}'"
        return f"left(CAST({table}.{quote(name)} AS VARCHAR), {_SHOWN_CHARACTERS})"

    def _one(self, sql: str) -> list[int]:
        # A sum over no rows is NULL.
        return [int(value or 0) for value in self._connection.execute(sql).fetchone()]
