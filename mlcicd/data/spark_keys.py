"""Foreign keys of a table on Spark: what :mod:`mlcicd.data.foreign_keys` counts, in Spark's words."""

# ruff: noqa: S608  (identifiers go through `spark_name`, which quotes; values of the data never become SQL)
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlcicd.core.errors import ConfigError
from mlcicd.data.conditions import kind_of
from mlcicd.data.spark import ELSEWHERE, SparkSource, moved_to, running, spark_name

# Of these Spark finds equal what the embedded engine does, whatever the width: no rounding, no text of numbers.
_EXACT = ("int", "decimal")


def count_dangling(
    source: SparkSource, other: SparkSource, pairs: Sequence[tuple[str, str]], *, most: int
) -> tuple[int, int, list[tuple[list[str], int]]]:
    """Rows with a whole key, those of them without a counterpart, and the most frequent such keys as text.

    Args:
        pairs: each column and its counterpart in the other table.
        most: how many keys to show.

    Raises:
        ConfigError: two columns have types that the engines compare in different ways.
        InputError: a table can not be read.
    """
    for name, key in pairs:
        _refuse_different(source, name, other, key)
    whole = " AND ".join(f"{spark_name(name)} IS NOT NULL" for name, _ in pairs)
    places = range(len(pairs))
    keys = ", ".join(f"{spark_name(name)} AS k{place}" for place, (name, _) in zip(places, pairs, strict=True))
    names = ", ".join(f"k{place}" for place in places)
    equal = " AND ".join(f"d.k{place} = o.{spark_name(key)}" for place, (_, key) in zip(places, pairs, strict=True))
    session = source.frame.sparkSession
    with running(f"{source.path} and {other.path}"):
        moved_to(session, other.frame).createOrReplaceTempView("other")
        dangling = (
            f"SELECT {names}, count(*) AS n FROM (SELECT {keys} FROM data WHERE {whole}) d "
            f"LEFT ANTI JOIN other o ON {equal} GROUP BY {names}"
        )
        shown = ", ".join(f"STRING(k{place})" for place in places)
        looked_at = session.sql(f"SELECT count(*) FROM data WHERE {whole}").collect()[0][0]
        count = session.sql(f"SELECT coalesce(sum(n), 0) FROM ({dangling})").collect()[0][0]
        rows: list[Any] = []
        if count:
            rows = session.sql(f"SELECT {shown}, n FROM ({dangling}) ORDER BY n DESC, {names} LIMIT {most}").collect()
    return int(looked_at), int(count), [(list(row)[:-1], int(row[-1])) for row in rows]


def _refuse_different(source: SparkSource, name: str, other: SparkSource, key: str) -> None:
    types = source.columns[name], other.columns[key]
    if types[0] != types[1] and any(kind_of(one) not in _EXACT for one in types):
        raise ConfigError(
            f"foreign_keys can not run on Spark: {name!r} is {types[0]}, "
            f"and {key!r} of {other.path.name} is {types[1]}",
            remedy=ELSEWHERE,
        )
    for frame, column in ((source.frame, name), (other.frame, key)):
        if "map<" in dict(frame.dtypes)[column]:
            raise ConfigError(f"foreign_keys can not run on Spark: {column!r} holds maps", remedy=ELSEWHERE)
