"""What is counted over a training set and its holdout together: one SQL pass a question, on the embedded engine.

:mod:`mlcicd.data.spark_pair` asks Spark the same.
"""

# ruff: noqa: S608  (identifiers go through `quote`, text through `literal`; values never become SQL)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mlcicd.data.conditions import kind_of
from mlcicd.data.feature_power import positive_conditions, powers_of
from mlcicd.data.source import Source, connect, quote, reading

if TYPE_CHECKING:
    import duckdb

DATES, NUMBERS = ("date", "timestamp"), ("int", "float", "decimal")


class TimeOrder(NamedTuple):
    """Times are seconds since 1970, or the numbers themselves; None where there is none.

    Attributes:
        end: the last of the training set.
        start: the first of the holdout.
        late: holdout rows that are not after `end`.
        total: holdout rows.
        unknown: rows of both without a time.
        dated: whether the times are dates, and no plain numbers.
    """

    end: float | None
    start: float | None
    late: int
    total: int
    unknown: int
    dated: bool


class Pair(Protocol):
    """A training set and its holdout, on one engine; counting raises InputError when one can not be read."""

    @property
    def train(self) -> Source: ...

    @property
    def holdout(self) -> Source: ...

    def shared_keys(self, keys: Sequence[str]) -> tuple[int, int]:
        """Holdout rows whose whole key is in the training set, and holdout rows with a whole key."""

    def shared_rows(self, columns: Sequence[str]) -> int:
        """Holdout rows that are in the training set, value for value."""

    def order(self, time: str) -> TimeOrder:
        """How the two lie in time."""

    def contradictions(self, target: str, inputs: Sequence[str]) -> int:
        """Training rows whose features stand with another label elsewhere."""

    def powers(self, target: str, inputs: Sequence[str]) -> dict[str, float] | None:
        """What each feature alone reaches of the largest AUC over the classes; None when the label does not vary."""


@dataclass(frozen=True)
class EmbeddedPair:
    """Both tables on one connection, which reads nothing else."""

    train: Source
    holdout: Source

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        return connect({"train": self.train, "holdout": self.holdout})

    def _fetch(self, sql: str) -> tuple[Any, ...]:
        with reading(f"{self.train.path} and {self.holdout.path}"):
            row: tuple[Any, ...] = self._connection.execute(sql).fetchall()[0]
            return row

    def _comparable(self, name: str) -> str:
        """A column so that equal values have equal hashes in both tables, whatever type each file gave it."""
        same = self.train.columns[name] == self.holdout.columns[name]
        return quote(name) if same else f"CAST({quote(name)} AS VARCHAR)"

    def shared_keys(self, keys: Sequence[str]) -> tuple[int, int]:
        columns = ", ".join(self._comparable(key) for key in keys)
        known = " AND ".join(f"{quote(key)} IS NOT NULL" for key in keys)
        shared, total = self._fetch(
            f"SELECT (SELECT count(*) FROM holdout WHERE {known} AND ({columns}) IN "
            f"(SELECT ({columns}) FROM train WHERE {known})), (SELECT count(*) FROM holdout WHERE {known})"
        )
        return int(shared), int(total)

    def shared_rows(self, columns: Sequence[str]) -> int:
        values = ", ".join(self._comparable(name) for name in columns)
        # Equal rows have equal 64-bit hashes; at ten million rows a side, one accidental pair is a matter of 1 in
        # 200,000.
        (shared,) = self._fetch(
            f"SELECT count(*) FROM holdout WHERE hash({values}) IN (SELECT hash({values}) FROM train)"
        )
        return int(shared)

    def order(self, time: str) -> TimeOrder:
        column = quote(time)
        kinds = {kind_of(source.columns[time]) for source in (self.train, self.holdout)}
        if kinds <= set(DATES):
            value = f"epoch({column})"
        elif kinds <= set(NUMBERS):
            value = f"CAST({column} AS DOUBLE)"
        else:
            value = f"epoch(TRY_CAST(CAST({column} AS VARCHAR) AS TIMESTAMP))"
        end, start, late, total, unknown = self._fetch(
            f"WITH border AS (SELECT max({value}) AS __mlcicd_last, "
            f"count(*) FILTER (WHERE {value} IS NULL) AS __mlcicd_unknown FROM train) "
            f"SELECT any_value(__mlcicd_last), min({value}), count(*) FILTER (WHERE {value} <= __mlcicd_last), "
            f"count(*), any_value(__mlcicd_unknown) + count(*) FILTER (WHERE {value} IS NULL) FROM holdout, border"
        )
        return TimeOrder(end, start, int(late), int(total), int(unknown), not kinds <= set(NUMBERS))

    def contradictions(self, target: str, inputs: Sequence[str]) -> int:
        features = ", ".join(quote(name) for name in inputs)
        label = f"CAST({quote(target)} AS VARCHAR)"
        (rows,) = self._fetch(
            f"SELECT coalesce(sum(n), 0) FROM (SELECT count(*) AS n FROM train GROUP BY hash({features}) "
            f"HAVING min({label}) <> max({label}))"
        )
        return int(rows)

    def powers(self, target: str, inputs: Sequence[str]) -> dict[str, float] | None:
        positives = positive_conditions(self.train, target)
        if not positives:
            return None
        powers: dict[str, float] = {}
        for positive in positives:
            for name, power in powers_of(self.train, positive, inputs).items():
                powers[name] = max(power, powers.get(name, 0.0))
        return powers
