"""Tables that are in memory already: pandas, polars and Arrow, checked without writing a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mlcicd.core.digests import digest_json
from mlcicd.core.errors import InputError
from mlcicd.data.files import refuse_duplicates
from mlcicd.data.source import Source, connect, quote, reading

_FETCHED = 100_000


@dataclass(frozen=True)
class FrameSource(Source):
    """A frame as a source: what takes a :class:`Source` takes this."""

    frame: Any = field(default=None, compare=False, repr=False)

    @property
    def registered(self) -> Any:
        """What the engine is given."""
        return self.frame

    @cached_property
    def digest(self) -> str:
        """`sha256:` digest of column names, types and values in row order; another one than a file's with these rows.

        Raises:
            InputError: the frame can not be read.
        """
        cells = [f"coalesce(length({text}) || ':' || {text}, '-')" for text in map(_as_text, self.columns)]
        rows = hashlib.sha256()
        with reading(str(self.path)):
            cursor = self.connection.execute(f"SELECT md5({' || '.join(cells)}) FROM data")  # noqa: S608  (quoted)
            for (row,) in _batches(cursor.fetchmany):
                rows.update(row.encode())
        return digest_json([dict(self.columns), rows.hexdigest()])


def open_frame(
    frame: Any, *, name: str = "frame", memory_limit: str = "1GB", threads: int | None = None
) -> FrameSource:
    """Binds a frame; it is not copied, and must not be changed while it is checked.

    Args:
        frame: `pandas.DataFrame` (its index is no column, and a NaN in it is a missing value, as pandas means it),
            `polars.DataFrame`, `polars.LazyFrame` (collected now), `pyarrow.Table` or `pyarrow.RecordBatch`.
        name: what messages call it.
        memory_limit: the most memory the engine holds beside the frame.

    Raises:
        InputError: something else, no columns, or two columns of one name.
    """
    shown, registered = Path(name), _registrable(frame)
    names = [str(column) for column in registered[1]]
    if not names:
        raise InputError("there are no columns", where=name)
    refuse_duplicates(names, name)
    source = FrameSource(shown, "arrow", (), {}, memory_limit, threads, frame=registered[0])
    with reading(name), closing(connect({"data": source})) as connection:
        described = connection.execute("DESCRIBE data").fetchall()
    columns = {str(row[0]): str(row[1]) for row in described}
    return FrameSource(shown, "arrow", (), columns, memory_limit, threads, frame=registered[0])


def _registrable(frame: Any) -> tuple[Any, list[Any]]:
    """The frame as the engine takes it, and its columns' names."""
    kind = f"{type(frame).__module__.partition('.')[0]}.{type(frame).__name__}"
    if kind == "pandas.DataFrame":
        return _forwards(frame), list(frame.columns)
    if kind == "polars.LazyFrame":
        # Checked lazily, only its schema would be: a green light for rows that nobody has seen.
        return _registrable(frame.collect())
    if kind == "polars.DataFrame":
        return frame.to_arrow(), list(frame.columns)
    if kind == "pyarrow.RecordBatch":
        from importlib import import_module

        return import_module("pyarrow").Table.from_batches([frame]), list(frame.schema.names)
    if kind == "pyarrow.Table":
        return frame, list(frame.schema.names)
    raise InputError(
        f"{kind} is no table that can be checked",
        remedy="give a pandas or polars DataFrame, or a pyarrow Table; for a Spark DataFrame see mlcicd.data.spark",
    )


def _forwards(frame: Any) -> Any:
    """The frame, or a copy where the engine can not read it in place: a reversed one runs backwards in memory."""
    import duckdb

    with duckdb.connect() as connection:
        try:
            connection.register("data", frame)
        except duckdb.Error:
            return frame.copy()
    return frame


def _as_text(name: str) -> str:
    return f"CAST({quote(name)} AS VARCHAR)"


def _batches(fetch: Callable[[int], list[tuple[str]]]) -> Iterator[tuple[str]]:
    while rows := fetch(_FETCHED):
        yield from rows
