"""Rows of a table on Spark: their numbers, a sample of them brought here, and whose labels contradict each other.

A row of Parquet has the same number on both engines: its place in its file, behind the rows of the files before it.
Samples are drawn by the hash of that number, in the embedded engine's formula, so that both look at the same rows.
"""

# ruff: noqa: S608  (identifiers go through `spark_name`, which quotes; values never become SQL)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.data.conditions import kind_of
from mlcicd.data.frames import FrameSource, open_frame
from mlcicd.data.source import ROW, Source
from mlcicd.data.spark import ELSEWHERE, SparkSource, running, spark_name

_FILE = "__mlcicd_file"
_HASH = "__mlcicd_hash"
# What DuckDB multiplies with (MurmurHash64 of whole numbers), as a signed number; Spark's products wrap as it wants.
_FACTOR = 0xD6E8FEB86659FD93 - (1 << 64)
_SIGN = -(1 << 63)


@dataclass(frozen=True)
class FetchedRows(FrameSource):
    """Some rows of a table that is elsewhere, with the numbers they have there."""

    @property
    def numbered(self) -> str:
        return "data"


def fetched_rows(source: SparkSource, names: Sequence[str], limit: int | None, *, present: str = "") -> Source:
    """Rows whose number's hash is below a limit (all when None), as a table of the embedded engine.

    Args:
        names: the columns to bring.
        present: a column whose missing values (NULL, NaN) leave their rows out.

    Raises:
        ConfigError: the table is not in files, so that its rows have no numbers.
        InputError: the data can not be read, or pyarrow is not installed.
        ServiceError: Spark failed.
    """
    from pyspark.sql import functions as sf

    with running(str(source.path)):
        frame = _numbered(source)
        if present:
            column = sf.col(spark_name(present))
            frame = frame.where(column.isNotNull())
            if kind_of(source.columns[present]) == "float":
                frame = frame.where(~sf.isnan(column))
        if limit is not None:
            # Hashes have no sign there; with the first bit turned, numbers that have one are in the same order.
            frame = frame.where(_hash(sf.col(ROW)).bitwiseXOR(sf.lit(_SIGN)) < sf.lit(limit + _SIGN))
        chosen = [sf.col(spark_name(name)) for name in dict.fromkeys(names)]
        try:
            table = frame.select(sf.col(ROW), *chosen).toArrow()
        except ImportError as error:
            raise InputError("pyarrow is not installed", remedy="pip install 'mlcicd[spark]'") from error
    made = open_frame(table, name=str(source.path), memory_limit=source.memory_limit)
    return FetchedRows(source.path, made.format, (), made.columns, made.memory_limit, None, frame=made.frame)


def _hash(number: Any) -> Any:
    """DuckDB's hash() of a BIGINT, as the signed number of the same bits."""
    from pyspark.sql import functions as sf

    for _ in range(2):
        number = number.bitwiseXOR(sf.shiftrightunsigned(number, 32)) * sf.lit(_FACTOR)
    return number.bitwiseXOR(sf.shiftrightunsigned(number, 32))


def _numbered(source: SparkSource) -> Any:
    """The frame with each row's number, from 1, in the order of the files."""
    from pyspark.sql import functions as sf

    if not source.files:
        raise ConfigError(
            "the rows of a DataFrame have no numbers to draw a sample by",
            where=str(source.path),
            remedy="write it as Parquet and open that with `open_spark`",
        )
    place = source.frame.metadataColumn("_metadata")
    number = place.getField("row_index") + 1
    if len(source.files) == 1:
        return source.frame.select("*", number.alias(ROW))
    file = place.getField("file_path")
    counted = {str(uri): int(rows) for uri, rows in source.frame.groupBy(file).count().collect()}
    if len(counted) < 2:  # a file without rows is not among them
        return source.frame.select("*", number.alias(ROW))
    uris = {Path(unquote(urlsplit(uri).path)): uri for uri in counted}
    known = [uris[path] for path in source.files if path in uris]
    starts = accumulate((counted[uri] for uri in known), initial=0)
    pairs = [sf.lit(one) for pair in zip(known, starts, strict=False) for one in pair]
    # Not `createDataFrame`, which would start Python on the workers.
    offsets = source.frame.sparkSession.range(1).select(sf.explode(sf.create_map(*pairs)).alias("uri", "start"))
    numbered = source.frame.select("*", number.alias(ROW), file.alias(_FILE))
    joined = numbered.join(sf.broadcast(offsets), numbered[_FILE] == offsets["uri"])
    return joined.withColumn(ROW, sf.col(ROW) + sf.col("start")).drop(_FILE, "uri", "start")


def contradicting_by(
    source: SparkSource, column: str, target: str, features: Sequence[str], *, longest: int
) -> list[tuple[str | None, int]]:
    """How many rows of each value of a column have a label that a row of the same features contradicts, most first.

    Raises:
        ConfigError: a column holds maps, which Spark does not compare.
        InputError: the data can not be read.
    """
    kinds = dict(source.frame.dtypes)
    for name in (target, *features):
        if "map<" in kinds[name]:
            raise ConfigError(f"data.checks.sources can not run on Spark: {name!r} holds maps", remedy=ELSEWHERE)
    # Equal in a structure are, as in a grouping, NULL and NULL, NaN and NaN, 0.0 and -0.0.
    rows = (
        f"SELECT struct({', '.join(map(spark_name, features))}) AS f, STRING({spark_name(target)}) AS y, "
        f"left(STRING({spark_name(column)}), {longest}) AS s FROM data"
    )
    asked = (
        f"WITH rows AS ({rows}), torn AS (SELECT f FROM rows GROUP BY f HAVING min(y) <> max(y)) "
        f"SELECT s, count(*) FROM rows LEFT SEMI JOIN torn USING (f) GROUP BY s ORDER BY 2 DESC, 1 NULLS LAST"
    )
    with running(str(source.path)):
        return [(name, int(count)) for name, count in source.frame.sparkSession.sql(asked).collect()]
