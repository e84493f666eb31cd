"""Predictions kept by content, as Parquet: the same bytes that answered the same rows are not asked again.

An entry is a folder named by its key, with `predictions.parquet` and `entry.json`: the runner's figures, and a digest
of both. It is written beside and renamed into place, so that it is whole or not there, also when two
processes write it at once. What does not fit its digest is thrown away and scored again.
"""

# ruff: noqa: S608  (nothing in these statements comes from outside but a path, which is quoted)
from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlcicd.core.digests import digest_file, digest_json
from mlcicd.core.errors import InputError

# All predictions of one project together, in bytes: some sixty models on a million rows of two classes.
MOST_BYTES = 1 << 30
_TABLE, _ENTRY = "predictions.parquet", "entry.json"
_SQL_TYPES = {"b": "BOOLEAN", "i": "BIGINT", "u": "BIGINT", "f": "DOUBLE", "U": "VARCHAR"}

Array = np.ndarray[Any, Any]


def read(folder: Path, key: str) -> tuple[Array, dict[str, Any]] | None:
    """The predictions (n,) or (n, k) and figures under a key; None when there are none that are whole."""
    entry = folder / key
    try:
        known = json.loads((entry / _ENTRY).read_text(encoding="utf-8"))
        if _digest(entry, known) != known["digest"]:
            raise ValueError("the predictions are not those that were written")
        answer = _read_table(entry / _TABLE, known["dtype"], known["flat"])
        figures = dict(known["figures"])
    except Exception:
        # Whatever is wrong with a cached copy, the model itself is still there to be asked.
        if entry.exists():
            _discard(entry)
        return None
    with contextlib.suppress(OSError):
        # The oldest go first, and this one was just of use.
        os.utime(entry)
    return answer, figures


def write(folder: Path, key: str, answer: Array, figures: Mapping[str, Any], *, most_bytes: int = MOST_BYTES) -> None:
    """Keeps predictions; a disk that is full costs the copy, not the evaluation."""
    import duckdb

    if answer.dtype.kind not in _SQL_TYPES or answer.ndim not in (1, 2):
        return
    with contextlib.suppress(OSError, InputError, duckdb.Error):
        _write(folder, key, answer, figures)
        _bound(folder, key, most_bytes)


def _write(folder: Path, key: str, answer: Array, figures: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".new-"))
    try:
        _write_table(temporary / _TABLE, answer)
        known: dict[str, Any] = {
            "dtype": answer.dtype.str if answer.dtype.kind != "U" else "U",
            "flat": answer.ndim == 1,
            "figures": dict(figures),
        }
        known["digest"] = _digest(temporary, known)
        (temporary / _ENTRY).write_text(json.dumps(known), encoding="utf-8")
        for name in (_TABLE, _ENTRY):
            with (temporary / name).open("rb") as file:
                os.fsync(file.fileno())
        with contextlib.suppress(OSError):
            # Fails where another process was faster: its entry is as good.
            temporary.rename(folder / key)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _digest(entry: Path, known: Mapping[str, Any]) -> str:
    """Of the predictions and of all that is said about them."""
    return digest_json([digest_file(entry / _TABLE), known["dtype"], known["flat"], known["figures"]])


def _write_table(path: Path, answer: Array) -> None:
    import duckdb

    columns = [answer] if answer.ndim == 1 else [answer[:, i] for i in range(answer.shape[1])]
    kind = _SQL_TYPES[answer.dtype.kind]
    # DuckDB reads arrays of Python strings, not of fixed width.
    data = {
        f"c{i}": c.astype(object) if c.dtype.kind == "U" else np.ascontiguousarray(c) for i, c in enumerate(columns)
    }
    with duckdb.connect() as connection:
        connection.execute("SET preserve_insertion_order = true")
        connection.register("answers", data)
        chosen = ", ".join(f"c{i}::{kind} AS c{i}" for i in range(len(columns)))
        connection.execute(f"COPY (SELECT {chosen} FROM answers) TO '{_quoted(path)}' (FORMAT parquet)")


def _read_table(path: Path, dtype: str, flat: bool) -> Array:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET preserve_insertion_order = true")
        table = connection.execute(f"SELECT * FROM read_parquet('{_quoted(path)}')").fetchnumpy()
    columns = [_column(table[f"c{i}"], dtype) for i in range(len(table))]
    return columns[0] if flat else np.column_stack(columns)


def _column(values: Any, dtype: str) -> Array:
    if dtype == "U":
        return np.asarray(values).astype(str)
    if np.ma.getmaskarray(values).any():
        # The engine takes a NaN of an array for a missing value. It must come back as what it was.
        values = np.ma.filled(values.astype(np.float64), np.nan)
    return np.asarray(values).astype(np.dtype(dtype))


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _discard(entry: Path) -> None:
    """Takes an entry away in one step: nobody sees half of it."""
    with contextlib.suppress(OSError):
        grave = Path(tempfile.mkdtemp(dir=entry.parent, prefix=".old-"))
        entry.rename(grave / entry.name)
        shutil.rmtree(grave, ignore_errors=True)


def _bound(folder: Path, keep: str, most_bytes: int) -> None:
    """Removes the entries that were not of use for longest, until the others fit."""
    entries = []
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):
            if entry.is_dir() and not entry.name.startswith("."):
                size = sum(file.stat().st_size for file in entry.iterdir())
                entries.append((entry.name != keep, entry.stat().st_mtime, size, entry))
    left = sum(size for _, _, size, _ in entries)
    for other, _, size, entry in sorted(entries, key=lambda item: item[1]):
        if left <= most_bytes:
            return
        if other:
            _discard(entry)
            left -= size
