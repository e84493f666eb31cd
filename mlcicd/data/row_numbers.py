"""A table's rows by the hash of their number: the same table, the same sample, whichever engine reads it."""

from __future__ import annotations

from collections.abc import Sequence

from mlcicd.data.source import ROW, Source

HASH = f"hash({ROW})"
_HASHES = 1 << 64


def bound(kept: int, of: int) -> int:
    """Below which hash the number of a row must be, so that a few more than `kept` of `of` rows are; 2^64 for all."""
    return int(min(1.0, (kept + 6 * kept**0.5) / max(of, 1)) * float(_HASHES))


def below(limit: int) -> str:
    """SQL of the condition, over :attr:`Source.numbered`."""
    return f"{HASH} < {limit}" if limit < _HASHES else "true"


def at_hand(source: Source, names: Sequence[str], limit: int, *, present: str = "") -> Source:
    """A table whose rows below the limit can be read: the source itself, or what Spark sends of it.

    Args:
        names: the columns that are needed of a source on Spark.
        limit: as :func:`bound` gives it; a table on Spark sends no other rows.
        present: a column whose missing values (NULL, NaN) leave their rows out, on Spark.

    Raises:
        ConfigError: the source is on Spark and its rows have no numbers, as those of a DataFrame.
        InputError: the data can not be read.
        ServiceError: Spark failed.
    """
    if not source.distributed:
        return source
    from mlcicd.data.spark import SparkSource
    from mlcicd.data.spark_rows import fetched_rows

    assert isinstance(source, SparkSource)
    return fetched_rows(source, names, limit if limit < _HASHES else None, present=present)
