"""A sample of a table's rows whose values are codes: what is needed to see how columns belong together, and no more.

A number becomes one of sixteen bins of equal mass, a category one of at most thirty names or `another`; nothing finer
is kept. Columns can move together without any of them moving alone, and only rows show that.
"""

# ruff: noqa: S608  (identifiers go through `quote`; values never become SQL)
from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlcicd.core.errors import InputError
from mlcicd.data.column_profile import ColumnProfile, hashed
from mlcicd.data.histogram import centres
from mlcicd.data.row_numbers import HASH, at_hand, below, bound
from mlcicd.data.source import Source, quote

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KEPT = 2_048
_BINS = 16
_NAMES = 30
_BYTES = 100_000
_MISSING = 0


@dataclass(frozen=True)
class ColumnCode:
    """How values of one column become codes from 1 on; 0 is missing.

    Attributes:
        kind: `numeric`, `category` or `text` (of lengths), as the profile has it.
        edges: of numbers and lengths, ascending: a value's code is one more than the edges that are not above it.
        names: categories by code; all others have the code behind the last.
        hidden: whether the names are hashes.
    """

    kind: str
    edges: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    hidden: bool = False


@dataclass(frozen=True)
class RowSample:
    """Coded rows.

    Attributes:
        columns: name to code, in the order of `rows`' columns.
        rows: (n, columns) uint8, in an order that has nothing to do with the values.
        total: rows of the table.
    """

    columns: Mapping[str, ColumnCode]
    rows: NDArray[np.uint8]
    total: int

    def merge(self, other: RowSample) -> RowSample:
        """A sample of both tables together, each with its share.

        Raises:
            ValueError: their codes are not the same.
        """
        import numpy as np

        if dict(self.columns) != dict(other.columns):
            raise ValueError("samples with different codes do not merge")
        total = self.total + other.total
        # As many as both can give in proportion to their tables.
        kept = min([KEPT, *(len(s.rows) * total / s.total for s in (self, other) if s.total)])
        parts = [s.rows[: round(kept * s.total / total)] for s in (self, other) if s.total]
        both = np.concatenate(parts) if parts else self.rows
        return RowSample(self.columns, both[np.random.default_rng(0).permutation(len(both))], total)

    def only(self, names: Iterable[str]) -> RowSample:
        """The same rows with some of the columns."""
        wanted = set(names)
        places = [place for place, name in enumerate(self.columns) if name in wanted]
        kept = {name: code for name, code in self.columns.items() if name in wanted}
        return RowSample(kept, self.rows[:, places], self.total)

    def to_json(self) -> dict[str, Any]:
        columns = {name: {k: v for k, v in asdict(code).items() if v} for name, code in self.columns.items()}
        packed = base64.b64encode(self.rows.tobytes()).decode()
        return {"columns": columns, "total": self.total, "rows": packed}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RowSample:
        """Reads what :meth:`to_json` wrote.

        Raises:
            InputError: it is something else.
        """
        import numpy as np

        try:
            columns = {
                name: ColumnCode(
                    c["kind"], tuple(c.get("edges", ())), tuple(c.get("names", ())), bool(c.get("hidden", False))
                )
                for name, c in value["columns"].items()
            }
            flat = np.frombuffer(base64.b64decode(value["rows"], validate=True), dtype=np.uint8)
            return cls(columns, flat.reshape(-1, max(len(columns), 1)), int(value["total"]))
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
            raise InputError("the sample of rows in the profile is damaged", why=repr(error)[:200]) from error


def codes_for(columns: Mapping[str, ColumnProfile], sensitive: Iterable[str] = ()) -> dict[str, ColumnCode]:
    """Codes that tell the values of profiled columns apart about equally well; none for times and nested values."""
    hidden = set(sensitive)
    codes = {}
    for name, column in columns.items():
        if column.kind == "category" and column.values:
            by_size = sorted(column.categories, key=lambda c: (-column.categories[c], c))
            codes[name] = ColumnCode("category", names=tuple(by_size[:_NAMES]), hidden=name in hidden)
        elif column.kind in ("numeric", "text") and column.values:
            codes[name] = ColumnCode(column.kind, edges=_edges(column))
    return codes


def _edges(column: ColumnProfile) -> tuple[float, ...]:
    import numpy as np

    keys, counts = column.histogram.arrays()
    values = centres(keys, column.histogram.bits)
    if len(values) <= _BINS:
        return tuple(float(v) for v in values[1:])
    share = np.cumsum(counts) / counts.sum()
    places = np.searchsorted(share, np.arange(1, _BINS) / _BINS)
    return tuple(float(v) for v in np.unique(values[places]))


def row_sample(source: Source, codes: Mapping[str, ColumnCode], kept: int = KEPT) -> RowSample:
    """Draws rows by the hash of their number: the same table, the same sample.

    Args:
        codes: of columns that the source has; wide tables get fewer rows, so that the sample stays below 100 kB.

    Raises:
        InputError: the data can not be read.
    """
    import numpy as np

    kept = min(kept, _BYTES // max(len(codes), 1))
    total = source.rows
    if not codes or not total:
        return RowSample(dict(codes), np.zeros((0, len(codes)), dtype=np.uint8), total)
    # A few more than wanted pass, and the smallest hashes of these are kept.
    limit = bound(kept, total)
    here = at_hand(source, list(codes), limit)
    parts = ", ".join(f"{_value(name, code)} AS c{place}" for place, (name, code) in enumerate(codes.items()))
    rows = here.fetch(f"SELECT {parts} FROM {here.numbered} WHERE {below(limit)} ORDER BY {HASH} LIMIT {kept}")
    columns = list(zip(*rows, strict=True)) or [()] * len(codes)
    coded = [_coded(values, code) for values, code in zip(columns, codes.values(), strict=True)]
    return RowSample(dict(codes), np.stack(coded, axis=1), total)


def _value(name: str, code: ColumnCode) -> str:
    if code.kind == "category":
        return f"left(CAST({quote(name)} AS VARCHAR), 80)"
    text = f"length(CAST({quote(name)} AS VARCHAR))" if code.kind == "text" else quote(name)
    # What was a number may be text now: that the type changed is told elsewhere.
    return f"TRY_CAST({text} AS DOUBLE)"


def _coded(values: Iterable[Any], code: ColumnCode) -> NDArray[np.uint8]:
    import numpy as np

    if code.kind == "category":
        place = {name: number for number, name in enumerate(code.names, 1)}
        other = len(code.names) + 1
        named = (None if v is None else hashed(v) if code.hidden else v for v in values)
        return np.array([_MISSING if v is None else place.get(v, other) for v in named], dtype=np.uint8)
    numbers = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    found = 1 + np.searchsorted(np.array(code.edges), numbers, side="right")
    return np.where(np.isfinite(numbers), found, _MISSING).astype(np.uint8)
