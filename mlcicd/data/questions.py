"""A holdout without its answers: what a model is given to be scored on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlcicd.core.errors import InputError
from mlcicd.data.source import Source, literal, quote, reading


@contextmanager
def questions(source: Source, target: str, folder: Path, *, most: int | None = None) -> Iterator[Path]:
    """A file with the source's rows in the source's own order, without the target; it is gone after the block.

    A model is a program: given the file with the answers, it could read them. And where a table is several files, two
    readers may put them in different orders; this file has one.

    Args:
        folder: where the file is made; Parquet stays Parquet, everything else becomes CSV.
        most: only so many rows, evenly spread over the source; None for all.

    Raises:
        InputError: the source can not be read, or has no column but the target.
    """
    import duckdb

    columns = [name for name in source.columns if name != target]
    if not columns:
        raise InputError(f"there is no column but the target {target!r}", where=str(source.path))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".questions-") as temporary:
        parquet = source.format in ("parquet", "arrow")
        path = Path(temporary, "holdout.parquet" if parquet else "holdout.csv")
        how = "FORMAT parquet" if parquet else "FORMAT csv, HEADER true"
        selected = ", ".join(map(quote, columns))
        with reading(str(source.path)), duckdb.connect() as connection:
            connection.execute("SET preserve_insertion_order = true")
            connection.execute("SET TimeZone = 'UTC'")
            if source.format == "arrow":
                connection.register("data", source.relation.to_arrow_table())
            else:
                connection.execute(f"CREATE TEMP VIEW data AS SELECT * FROM {source.scan()}")  # noqa: S608  (quoted)
            chosen = "data"
            if most is not None:
                every = "greatest(1, (SELECT count(*) FROM data) // $most)"
                numbered = "(SELECT *, row_number() OVER () - 1 AS __mlcicd_row FROM data)"
                chosen = f"{numbered} WHERE __mlcicd_row % {every} = 0 ORDER BY __mlcicd_row LIMIT $most"
                chosen = chosen.replace("$most", str(int(most)))
            connection.execute(f"COPY (SELECT {selected} FROM {chosen}) TO {literal(str(path))} ({how})")  # noqa: S608
        yield path
