"""A training set and its holdout on Spark: what :mod:`mlcicd.data.pair` counts, in Spark's words.

Rows are compared by joins and groupings on the columns themselves, in which Spark takes NULL for NULL, NaN for NaN and
0.0 for -0.0, as the embedded engine does; its hashes pass over NULL, so that (NULL, 1) and (1, NULL) would be one row.
"""

# ruff: noqa: S608  (identifiers go through `spark_name`, which quotes; values are bound as parameters or numbers of ours)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from mlcicd.core.errors import ConfigError
from mlcicd.data.conditions import kind_of
from mlcicd.data.feature_power import CLASSES_TOLD_APART, MOST_CATEGORIES, MOST_CLASSES
from mlcicd.data.histogram import rounding_sql
from mlcicd.data.pair import DATES, NUMBERS, TimeOrder
from mlcicd.data.separability import category_auc, numeric_auc
from mlcicd.data.source import literal, quote
from mlcicd.data.spark import ELSEWHERE, SparkSource, moved_to, running, spark_name

# Whose text is the same for the same value, on both engines.
_COMPARED_AS_TEXT = ("int", "decimal", "string", "bool", "date")
_LABELS = (*NUMBERS, "string", "bool")


@dataclass(frozen=True)
class SparkPair:
    """Both tables as views of the training set's session."""

    train: SparkSource
    holdout: SparkSource

    @cached_property
    def _session(self) -> Any:
        own = self.train.frame.sparkSession
        with running(str(self.train.path)):
            self.train.frame.createOrReplaceTempView("train")
            moved_to(own, self.holdout.frame).createOrReplaceTempView("holdout")
        return own

    def _ask(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        with running(f"{self.train.path} and {self.holdout.path}"):
            return [tuple(row) for row in self._session.sql(sql, args=values).collect()]

    def _comparable(self, name: str, table: str) -> str:
        types = [source.columns[name] for source in (self.train, self.holdout)]
        column = f"{table}.{spark_name(name)}"
        self._refuse_maps(name)
        if types[0] == types[1]:
            return column
        if any(kind_of(one) not in _COMPARED_AS_TEXT for one in types):
            raise self._refusal(f"{name!r} is {types[0]} in the training set and {types[1]} in the holdout")
        return f"STRING({column})"

    def _refuse_maps(self, name: str) -> None:
        for source in (self.train, self.holdout):
            if "map<" in dict(source.frame.dtypes).get(name, ""):
                raise self._refusal(f"{name!r} holds maps, which Spark does not compare")

    def _refusal(self, what: str) -> ConfigError:
        return ConfigError(f"data.checks.leakage can not run on Spark: {what}", remedy=ELSEWHERE)

    def shared_keys(self, keys: Sequence[str]) -> tuple[int, int]:
        known = " AND ".join(f"{spark_name(key)} IS NOT NULL" for key in keys)
        equal = " AND ".join(f"{self._comparable(key, 'h')} = {self._comparable(key, 't')}" for key in keys)
        rows = self._ask(
            f"SELECT (SELECT count(*) FROM (SELECT * FROM holdout WHERE {known}) h LEFT SEMI JOIN train t ON {equal}), "
            f"(SELECT count(*) FROM holdout WHERE {known})"
        )
        return int(rows[0][0]), int(rows[0][1])

    def shared_rows(self, columns: Sequence[str]) -> int:
        equal = " AND ".join(f"{self._comparable(name, 'h')} <=> {self._comparable(name, 't')}" for name in columns)
        return int(self._ask(f"SELECT count(*) FROM holdout h LEFT SEMI JOIN train t ON {equal}")[0][0])

    def order(self, time: str) -> TimeOrder:
        kinds = {kind_of(source.columns[time]) for source in (self.train, self.holdout)}
        if kinds <= set(DATES):
            value = f"(UNIX_MICROS(TIMESTAMP({spark_name(time)})) / 1000000D)"
        elif kinds <= set(NUMBERS):
            value = f"DOUBLE({spark_name(time)})"
        else:
            raise self._refusal(
                f"the time {time!r} is {' and '.join(sorted(kinds))}, which each engine reads otherwise"
            )
        ((end, before),) = self._ask(f"SELECT max({value}), count_if({value} IS NULL) FROM train")
        ((start, late, total, after),) = self._ask(
            f"SELECT min({value}), count_if({value} <= :last), count(*), count_if({value} IS NULL) FROM holdout",
            last=end,
        )
        return TimeOrder(end, start, int(late), int(total), int(before) + int(after), not kinds <= set(NUMBERS))

    def contradictions(self, target: str, inputs: Sequence[str]) -> int:
        for name in (target, *inputs):
            self._refuse_maps(name)
        features = ", ".join(spark_name(name) for name in inputs)
        label = f"STRING({spark_name(target)})"
        rows = self._ask(
            f"SELECT coalesce(sum(n), 0) FROM (SELECT count(*) AS n FROM train GROUP BY {features} "
            f"HAVING min({label}) <> max({label}))"
        )
        return int(rows[0][0])

    def powers(self, target: str, inputs: Sequence[str]) -> dict[str, float] | None:
        positives = self._positives(target)
        if not positives:
            return None
        known = {name: kind_of(self.train.columns[name]) for name in inputs}
        texts = [name for name, kind in known.items() if kind in ("string", "bool")]
        if texts:
            asked = ", ".join(f"approx_count_distinct({quote(name)})" for name in texts)
            counts = self.train.fetch(f"SELECT {asked} FROM data")[0]
            texts = [name for name, count in zip(texts, counts, strict=True) if count <= MOST_CATEGORIES]
        seen = [name for name, kind in known.items() if kind in NUMBERS] + texts
        return {name: max(self._power(name, name in texts, positives)) for name in seen}

    def _power(self, name: str, of_text: bool, positives: Sequence[str]) -> list[float]:
        """One grouping: the cells of a feature, and how many rows of each class each has."""
        cell = f"CAST({quote(name)} AS VARCHAR)" if of_text else rounding_sql(f"CAST({quote(name)} AS DOUBLE)")
        flags = ", ".join(f"{positive} AS p{place}" for place, positive in enumerate(positives))
        counts = ", ".join(f"count_if(p{place}), count_if(NOT p{place})" for place in range(len(positives)))
        rows = self.train.fetch(f"SELECT cell, {counts} FROM (SELECT {cell} AS cell, {flags} FROM data) GROUP BY cell")
        found = []
        for place in range(1, 2 * len(positives), 2):
            p, n = ({row[0]: int(row[at]) for row in rows if row[at]} for at in (place, place + 1))
            missing = (p.pop(None, 0), n.pop(None, 0))
            found.append(category_auc(p, n, missing) if of_text else numeric_auc(p, n, missing))
        return found

    def _positives(self, target: str) -> list[str]:
        """As :func:`mlcicd.data.feature_power.positive_conditions`, in our SQL."""
        kind, column = kind_of(self.train.columns[target]), quote(target)
        if kind not in _LABELS:
            raise self._refusal(f"the label {target!r} is a {kind}")
        ((distinct,),) = self.train.fetch(f"SELECT count(DISTINCT {column}) FROM data")
        if kind in NUMBERS and distinct > MOST_CLASSES:
            value = f"DOUBLE({spark_name(target)})"
            ((median,),) = self._ask(
                f"SELECT percentile_approx({value}, 0.5, 10000) FROM train WHERE abs({value}) < DOUBLE('Infinity')"
            )
            return [f"(CAST({column} AS DOUBLE) > CAST('{float(median)!r}' AS DOUBLE))"] if median is not None else []
        some = f" ORDER BY count(*) DESC, {column} LIMIT {CLASSES_TOLD_APART}" if kind == "string" else ""
        rows = self.train.fetch(
            f"SELECT {column}, count(*) FROM data WHERE {column} IS NOT NULL GROUP BY {column}{some}"
        )
        if len(rows) < 2:
            return []
        ranked = sorted(((_text(value), -int(count)) for value, count in rows), key=lambda row: (row[1], row[0]))
        classes = [text for text, _ in (ranked[:1] if len(ranked) == 2 else ranked[:CLASSES_TOLD_APART])]
        if kind == "float":
            return [f"(CAST({column} AS DOUBLE) = CAST({literal(text)} AS DOUBLE))" for text in classes]
        return [f"(CAST({column} AS VARCHAR) = {literal(text)})" for text in classes]


def _text(value: bool | float | Decimal | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
