"""Rows of a table, changed on purpose: noise, holes, swaps, single values. What a model is asked to see how it behaves.

Everything is SQL on an embedded engine, so that each column keeps its type, and every random number is a digest of
(seed, variant, column, row): the same rows are changed in the same way on every machine.
"""

# ruff: noqa: S608  (identifiers go through `quote`, text through `literal`; values never become SQL)
from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mlcicd.core.errors import InputError
from mlcicd.data.conditions import kind_of
from mlcicd.data.source import Source, literal, quote, reading

NUMBERS = frozenset({"int", "float", "decimal"})
CATEGORIES = frozenset({"string", "bool"})
_ROW = "mlcicd row"
_LIST = "mlcicd list "

Value = bool | int | float | str | None


@dataclass(frozen=True)
class Edit:
    """What is done to one column: `how` is `noise`, `missing`, `swap`, `set`, `add`, `multiply` or `none`.

    Attributes:
        amount: standard deviations of noise, share of rows (missing, swap), summand, or factor.
        value: of `set`.
    """

    how: str
    amount: float = 0.0
    value: Value = None


@dataclass(frozen=True)
class Variant:
    """The sample with some columns edited; with `given`, one row of these values instead."""

    name: str
    edits: Mapping[str, Edit] = field(default_factory=dict)
    given: Mapping[str, Value] | None = None

    @property
    def leaves_holes(self) -> bool:
        """Whether values go missing, which may change a column's type for whoever reads the file."""
        sets = any(edit.how == "missing" or (edit.how == "set" and edit.value is None) for edit in self.edits.values())
        return sets or (self.given is not None and None in self.given.values())


class Sample:
    """Some rows of a table, ready to be written in several variants; use it as a context manager.

    Args:
        source: the table.
        target: its label column, which no variant has.
        rows: numbers of the rows, from 0, ascending.
        seed: of all random numbers.
    """

    def __init__(self, source: Source, target: str, rows: Sequence[int], seed: int = 0) -> None:
        import duckdb

        self._source = source
        self._seed = seed
        self.rows = len(rows)
        self.columns = {name: kind for name, kind in source.columns.items() if name != target}
        self._connection = duckdb.connect()
        try:
            with reading(str(source.path)):
                self._load(rows)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Sample:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _load(self, rows: Sequence[int]) -> None:
        db = self._connection
        # One thread keeps the file's order, and row numbers mean it.
        for setting in ("SET threads = 1", "SET preserve_insertion_order = true", "SET TimeZone = 'UTC'"):
            db.execute(setting)
        if self._source.format == "arrow":
            db.register("data", self._source.relation.to_arrow_table())
        else:
            db.execute(f"CREATE TEMP VIEW data AS SELECT * FROM {self._source.scan()}")
        names = ", ".join(map(quote, self.columns))
        db.execute("CREATE TEMP TABLE wanted AS SELECT unnest($1::BIGINT[]) AS place", [list(rows)])
        db.execute(
            f"CREATE TEMP TABLE sample AS SELECT * FROM (SELECT row_number() OVER () - 1 AS {quote(_ROW)}, {names} "
            f"FROM data) WHERE {quote(_ROW)} IN (SELECT place FROM wanted) ORDER BY {quote(_ROW)}"
        )
        self._figures: dict[str, tuple[float, float, float]] = {}

    def numeric(self) -> list[str]:
        """The columns that hold numbers."""
        return [name for name, kind in self.columns.items() if kind_of(kind) in NUMBERS]

    def categories(self) -> list[str]:
        """The columns that hold text or truth values."""
        return [name for name, kind in self.columns.items() if kind_of(kind) in CATEGORIES]

    def accepts(self, column: str, value: Value) -> bool:
        """Whether the column's type can hold the value."""
        if value is None:
            return True
        kind = self.columns[column]
        (held,) = self._fetch(f"SELECT TRY_CAST({_sql(value)} AS {kind}) IS NOT NULL")
        return bool(held)

    @contextmanager
    def written(self, variants: Sequence[Variant], folder: Path) -> Iterator[Path]:
        """A file of all variants, one after the other, each in the sample's order; it is gone after the block.

        Raises:
            InputError: a column is not there, or an edited value does not fit its type.
        """
        folder.mkdir(parents=True, exist_ok=True)
        parquet = self._source.format in ("parquet", "arrow")
        how = "FORMAT parquet" if parquet else "FORMAT csv, HEADER true"
        parts = [self._select(variant, number) for number, variant in enumerate(variants)]
        names = ", ".join(map(quote, self.columns))
        union = " UNION ALL ".join(f"({part})" for part in parts)
        query = f"SELECT {names} FROM ({union}) ORDER BY {quote(_LIST)}, {quote(_ROW)}"
        with tempfile.TemporaryDirectory(dir=folder, prefix=".perturbed-") as temporary:
            path = Path(temporary, "rows.parquet" if parquet else "rows.csv")
            with reading(str(self._source.path)):
                self._connection.execute(f"COPY ({query}) TO {literal(str(path))} ({how})")
            yield path

    def _select(self, variant: Variant, number: int) -> str:
        for name in (*variant.edits, *(variant.given or ())):
            if name not in self.columns:
                raise InputError(f"{variant.name} names a column {name!r} that the holdout does not have")
        place = f"{number} AS {quote(_LIST)}, {quote(_ROW)}"
        if variant.given is not None:
            cells = [f"{self._given(name, variant.given)} AS {quote(name)}" for name in self.columns]
            return f"SELECT {', '.join(cells)}, {number} AS {quote(_LIST)}, 0 AS {quote(_ROW)}"
        cells = [
            f"{self._edited(variant, name)} AS {quote(name)}" if name in variant.edits else quote(name)
            for name in self.columns
        ]
        return f"SELECT {', '.join(cells)}, {place} FROM sample"

    def _given(self, name: str, row: Mapping[str, Value]) -> str:
        kind = self.columns[name]
        if name in row:
            return f"CAST({_sql(row[name])} AS {kind})"
        # The middle of numbers and times; what is most common of everything else (ties: the smallest).
        if kind_of(kind) in (NUMBERS | {"date", "timestamp", "time"}):
            return f"(SELECT quantile_disc({quote(name)}, 0.5) FROM sample)"
        most = (
            f"SELECT {quote(name)} FROM sample WHERE {quote(name)} IS NOT NULL GROUP BY ALL ORDER BY count(*) DESC, 1"
        )
        return f"({most} LIMIT 1)"

    def _edited(self, variant: Variant, name: str) -> str:
        edit, column, kind = variant.edits[name], quote(name), self.columns[name]
        if edit.how == "set":
            return f"CAST({_sql(edit.value)} AS {kind})"
        if edit.how == "missing":
            return f"CASE WHEN {self._uniform(variant, name, 1)} < {edit.amount!r} THEN NULL ELSE {column} END"
        if edit.how == "swap":
            values = f"(SELECT list({column} ORDER BY {quote(_ROW)}) FROM sample)"
            other = (
                f"list_extract({values}, 1 + CAST(floor({self._uniform(variant, name, 2)} * {self.rows}) AS BIGINT))"
            )
            return f"CASE WHEN {self._uniform(variant, name, 1)} < {edit.amount!r} THEN {other} ELSE {column} END"
        if edit.how == "noise":
            spread, low, high = self._range(name)
            first, second = (self._uniform(variant, name, salt) for salt in (1, 2))
            normal = f"sqrt(-2 * ln(1 - {first})) * cos(2 * pi() * {second})"  # Box & Muller
            moved = f"{column} + {edit.amount * spread!r} * {normal}"
            # A value that no row has would say more about the noise than about the model.
            return self._whole(f"greatest(least({moved}, {high!r}), {low!r})", name)
        amount = repr(float(edit.amount))
        return self._whole(f"{column} {'+' if edit.how == 'add' else '*'} {amount}", name)

    def _whole(self, expression: str, name: str) -> str:
        kind = self.columns[name]
        rounded = f"round({expression})" if kind_of(kind) == "int" else expression
        column = quote(name)
        # What is missing, or not a number, stays so.
        return f"CASE WHEN isfinite(CAST({column} AS DOUBLE)) THEN CAST({rounded} AS {kind}) ELSE {column} END"

    def _range(self, name: str) -> tuple[float, float, float]:
        """Standard deviation, smallest and largest of a column's finite values."""
        if name not in self._figures:
            value = f"CAST({quote(name)} AS DOUBLE)"
            found = self._fetch(
                f"SELECT coalesce(stddev_samp(v), 0), coalesce(min(v), 0), coalesce(max(v), 0) "
                f"FROM (SELECT {value} AS v FROM sample) WHERE isfinite(v)"
            )
            self._figures[name] = (float(found[0]), float(found[1]), float(found[2]))
        return self._figures[name]

    def _uniform(self, variant: Variant, name: str, salt: int) -> str:
        """A number in [0, 1) of the row."""
        key = f"{literal(f'{self._seed}:{variant.name}:{name}:{salt}:')} || CAST({quote(_ROW)} AS VARCHAR)"
        return f"(CAST(md5_number_lower({key}) >> 11 AS DOUBLE) / 9007199254740992.0)"

    def _fetch(self, sql: str) -> tuple[float, ...]:
        with reading(str(self._source.path)):
            row: tuple[float, ...] = self._connection.execute(sql).fetchall()[0]
            return row


def _sql(value: Value) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    return literal(value) if isinstance(value, str) else repr(value)
