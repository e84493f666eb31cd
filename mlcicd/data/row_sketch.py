"""A small fingerprint of a table's rows, by which a later table can be asked whether it shares some.

The k smallest of the rows' 64-bit digests (a bottom-k sketch: Cohen & Kaplan, PODC 2007). All rows of the table whose
digest is below the largest kept one are in it, so that of another table's rows the ones below it are a random sample of
which membership is known exactly. It holds no values, does not grow with the table, and two of them merge into the one
of both tables. Whoever can guess a whole row can test the guess: of rows that is hard, of short keys it is not.
"""

# ruff: noqa: S608  (identifiers go through `quote`; values never become SQL)
from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcicd.data.conditions import kind_of
from mlcicd.data.source import Source, quote, reading

KEPT = 16_384
_END = 1 << 64


@dataclass(frozen=True)
class Shared:
    """Rows of another table of which membership is known, and how many are members."""

    looked: int
    shared: int


@dataclass(frozen=True)
class RowSketch:
    """Digests of distinct rows.

    Attributes:
        columns: what a row is made of, in this order.
        rows: rows of the table.
        below: all rows whose digest is smaller than this are in `digests`.
        digests: ascending, without duplicates.
    """

    columns: tuple[str, ...]
    rows: int
    below: int
    digests: NDArray[np.uint64]

    def merge(self, other: RowSketch) -> RowSketch:
        """The sketch of both tables together.

        Raises:
            ValueError: their rows are made of other columns.
        """
        if self.columns != other.columns:
            raise ValueError("sketches of different columns do not merge")
        below = min(self.below, other.below)
        both = np.union1d(self.digests, other.digests)
        kept = [int(digest) for digest in both if int(digest) < below]
        return _cut(self.columns, self.rows + other.rows, kept, below)

    def shared_with(self, source: Source) -> Shared:
        """How many of the source's rows are in the sketched table, of those whose digest is in the sketch's reach.

        Raises:
            InputError: the source can not be read.
            KeyError: it lacks a column.
        """
        missing = [name for name in self.columns if name not in source.columns]
        if missing:
            raise KeyError(missing[0])
        below = "" if self.below >= _END else f" WHERE digest < {self.below}"
        with reading(str(source.path)):
            query = f"SELECT digest FROM (SELECT {_digest(source, self.columns)} AS digest FROM data){below}"
            found = source.connection.execute(query).fetchnumpy()["digest"]
        seen = np.asarray(found, dtype=np.uint64)
        return Shared(int(seen.size), int(np.isin(seen, self.digests).sum()))

    def to_json(self) -> dict[str, Any]:
        packed = base64.b64encode(self.digests.astype("<u8").tobytes()).decode()
        return {"columns": list(self.columns), "rows": self.rows, "below": str(self.below), "digests": packed}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RowSketch:
        """Reads what :meth:`to_json` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            columns = tuple(str(name) for name in data["columns"])
            digests = np.frombuffer(base64.b64decode(data["digests"], validate=True), dtype="<u8").astype(np.uint64)
            return cls(columns, int(data["rows"]), int(data["below"]), digests)
        except (KeyError, TypeError, AttributeError, binascii.Error) as error:
            raise ValueError(f"this is no sketch of rows: {error!r}") from error


def row_sketch(source: Source, columns: Sequence[str], kept: int = KEPT) -> RowSketch:
    """The sketch of a table.

    Raises:
        InputError: the table can not be read.
    """
    with reading(str(source.path)):
        query = f"SELECT DISTINCT digest FROM (SELECT {_digest(source, columns)} AS digest FROM data)"
        smallest = f"{query} ORDER BY digest LIMIT {kept + 1}"
        found = source.connection.execute(smallest).fetchnumpy()["digest"]
    return _cut(tuple(columns), source.rows, [int(value) for value in found], _END, kept)


def _cut(columns: tuple[str, ...], rows: int, digests: Sequence[int], below: int, kept: int = KEPT) -> RowSketch:
    if len(digests) > kept:
        below = digests[kept]
        digests = digests[:kept]
    return RowSketch(columns, rows, below, np.array(digests, dtype=np.uint64))


def _digest(source: Source, columns: Sequence[str]) -> str:
    """SQL of a row's digest, equal for equal values whatever format or width of number holds them."""
    cells = []
    for name in columns:
        value = quote(name)
        if kind_of(source.columns[name]) in ("int", "float", "decimal"):
            # 1 and 1.0 are one value, and so are -0.0 and 0.0.
            value = f"CAST({value} AS DOUBLE) + 0.0"
        # The length first, so that no two rows are written alike.
        text = f"CAST({value} AS VARCHAR)"
        cells.append(f"coalesce(CAST(length({text}) AS VARCHAR) || ':' || {text}, '-')")
    return f"md5_number_lower({' || '.join(cells)})"
