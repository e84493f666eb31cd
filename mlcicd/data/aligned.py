"""Rows of one table brought into the order of another: by key, or as they stand."""

# ruff: noqa: S608  (identifiers go through `quote`; values never become SQL)
from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np

from mlcicd.core.errors import InputError
from mlcicd.data.source import Source, connect, quote, reading

_SHOWN = 3
_LONGEST = 60

Columns = dict[str, "np.ndarray[Any, Any]"]


def aligned(holdout: Source, answers: Source, keys: Sequence[str], columns: Sequence[str]) -> Columns:
    """Columns of `answers`, each (n,), in the order of the holdout's n rows; a missing number is NaN, a text None.

    Args:
        keys: columns of both that together name a row; none: row i answers row i.

    Raises:
        InputError: rows are missing, doubled or too many, a key is missing, or a file can not be read.
    """
    if not keys:
        return _as_they_stand(holdout, answers, columns)
    _same_kinds(holdout, answers, keys)
    with closing(connect({"holdout": holdout, "answers": answers})) as connection, reading(str(answers.path)):
        named = [f"k{i}" for i in range(len(keys))]
        of_keys = ", ".join(f"{quote(key)} AS {name}" for key, name in zip(keys, named, strict=True))
        wanted = ", ".join(f"{quote(column)} AS v{i}" for i, column in enumerate(columns))
        # Their rows are numbered in the order in which they were put in, which is that of the file.
        connection.execute(f"CREATE TEMP TABLE asked AS SELECT {of_keys} FROM holdout")
        connection.execute(f"CREATE TEMP TABLE given AS SELECT {of_keys}, {wanted} FROM answers")
        listed = ", ".join(named)
        holes = " OR ".join(f"{name} IS NULL" for name in named)
        for table, source, what in (("asked", holdout, "the holdout"), ("given", answers, "the predictions")):
            _refuse(
                connection, f"SELECT {listed} FROM {table} WHERE {holes}", source, keys, f"{what}: rows without a key"
            )
            twice = f"SELECT {listed} FROM {table} GROUP BY {listed} HAVING count(*) > 1"
            _refuse(connection, twice, source, keys, f"{what}: keys of more than one row")
        missing = f"SELECT {listed} FROM asked ANTI JOIN given USING ({listed})"
        _refuse(connection, missing, answers, keys, "rows of the holdout without a prediction")
        extra = f"SELECT {listed} FROM given ANTI JOIN asked USING ({listed})"
        _refuse(connection, extra, answers, keys, "predictions of rows that the holdout does not have")
        values = ", ".join(f"v{i}" for i in range(len(columns)))
        found = connection.execute(
            f"SELECT {values} FROM asked JOIN given USING ({listed}) ORDER BY asked.rowid"
        ).fetchnumpy()
    return {column: _plain(found[f"v{i}"]) for i, column in enumerate(columns)}


def _as_they_stand(holdout: Source, answers: Source, columns: Sequence[str]) -> Columns:
    if answers.rows != holdout.rows:
        raise InputError(
            f"the predictions have {answers.rows:,} rows, and the holdout has {holdout.rows:,}",
            where=str(answers.path),
            why="Without keys, row i is the answer to row i of the holdout.",
            remedy="predict every row of the holdout, in its order; or name keys under evaluate.predictions.keys",
        )
    with reading(str(answers.path)):
        found = answers.relation.select(", ".join(map(quote, columns))).fetchnumpy()
    return {column: _plain(found[column]) for column in columns}


def _same_kinds(holdout: Source, answers: Source, keys: Sequence[str]) -> None:
    for key in keys:
        for source, what in ((holdout, "the holdout"), (answers, "the predictions")):
            if key not in source.columns:
                raise InputError(
                    f"{what} {'has' if source is holdout else 'have'} no column {key!r}, which is a key",
                    where=str(source.path),
                    remedy="write it beside the predictions, or correct evaluate.predictions.keys",
                )
        kinds = [source.columns[key] for source in (holdout, answers)]
        if kinds[0] != kinds[1] and "VARCHAR" in kinds:
            raise InputError(
                f"the key {key!r} is {kinds[0]} in the holdout and {kinds[1]} in the predictions",
                where=str(answers.path),
                remedy="write it with the type that it has in the holdout",
            )


def _refuse(connection: Any, query: str, source: Source, keys: Sequence[str], what: str) -> None:
    count = connection.execute(f"SELECT count(*) FROM ({query})").fetchone()[0]
    if not count:
        return
    rows = connection.execute(f"SELECT * FROM ({query}) ORDER BY ALL LIMIT {_SHOWN}").fetchall()
    shown = "; ".join(", ".join(f"{k}={str(v)[:_LONGEST]}" for k, v in zip(keys, row, strict=True)) for row in rows)
    raise InputError(
        f"{what}: {count:,} ({shown}{'; ...' if count > _SHOWN else ''})",
        where=str(source.path),
        why="Predictions are compared with the holdout row by row.",
        remedy="predict every row of the holdout once, and nothing else",
    )


def _plain(values: Any) -> np.ndarray[Any, Any]:
    missing = np.ma.getmaskarray(values)
    if not missing.any():
        return np.asarray(values)
    kind, hole = (float, np.nan) if values.dtype.kind in "iufb" else (object, None)
    array = np.asarray(values).astype(kind)
    array[missing] = hole
    return array
