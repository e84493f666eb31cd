"""Predictions kept by content, as Parquet: the same bytes that answered the same rows are not asked again.

An entry is a folder named by its key, with `predictions.parquet` and `entry.json`: the runner's figures, and a keyed
digest (HMAC-SHA-256, RFC 2104) of its name and both, whose secret lies outside of the project. It is written beside and
renamed into place, so that it is whole or not there, also when two processes write it at once. What does not fit its
digest is thrown away and scored again.
"""

# ruff: noqa: S608  (nothing in these statements comes from outside but a path, which is quoted)
from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlcicd.core.digests import digest_file, digest_json
from mlcicd.core.errors import InputError

# All predictions of one project together, in bytes: some sixty models on a million rows of two classes.
MOST_BYTES = 1 << 30
_SECRET_BYTES = 32
_TABLE, _ENTRY = "predictions.parquet", "entry.json"
_SQL_TYPES = {"b": "BOOLEAN", "i": "BIGINT", "u": "BIGINT", "f": "DOUBLE", "U": "VARCHAR"}

Array = np.ndarray[Any, Any]


def secret(environ: Mapping[str, str]) -> bytes | None:
    """What entries are authenticated with: 32 bytes in `$XDG_STATE_HOME/mlcicd/cache.key`, made when first asked for.

    None where there is no home to keep it in, or others can read it: nothing is kept then.
    """
    home = environ.get("HOME")
    state = environ.get("XDG_STATE_HOME") or (str(Path(home, ".local", "state")) if home else "")
    if not state:
        return None
    path = Path(state) / "mlcicd" / "cache.key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            # Whole or not there, and the first of two processes is the one that counts.
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".cache-key-")
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_SECRET_BYTES))
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
            Path(temporary).unlink()
        known = path.stat()
        if stat.S_IMODE(known.st_mode) & 0o077 or known.st_uid != os.getuid():
            return None
        found = path.read_bytes()
    except OSError:
        return None
    return found if len(found) == _SECRET_BYTES else None


def read(folder: Path, key: str, secret: bytes | None) -> tuple[Array, dict[str, Any]] | None:
    """The predictions (n,) or (n, k) and figures under a key; None when there are none that are whole and ours."""
    if secret is None:
        return None
    entry = folder / key
    try:
        known = json.loads((entry / _ENTRY).read_text(encoding="utf-8"))
        if not hmac.compare_digest(_digest(entry, key, known, secret), str(known["digest"])):
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


def write(
    folder: Path,
    key: str,
    answer: Array,
    figures: Mapping[str, Any],
    secret: bytes | None,
    *,
    most_bytes: int = MOST_BYTES,
) -> None:
    """Keeps predictions; a disk that is full costs the copy, not the evaluation."""
    import duckdb

    if secret is None or answer.dtype.kind not in _SQL_TYPES or answer.ndim not in (1, 2):
        return
    with contextlib.suppress(OSError, InputError, duckdb.Error):
        _write(folder, key, answer, figures, secret)
        _bound(folder, key, most_bytes)


def _write(folder: Path, key: str, answer: Array, figures: Mapping[str, Any], secret: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".new-"))
    try:
        _write_table(temporary / _TABLE, answer)
        known: dict[str, Any] = {
            "dtype": answer.dtype.str if answer.dtype.kind != "U" else "U",
            "flat": answer.ndim == 1,
            "figures": dict(figures),
        }
        known["digest"] = _digest(temporary, key, known, secret)
        (temporary / _ENTRY).write_text(json.dumps(known), encoding="utf-8")
        for name in (_TABLE, _ENTRY):
            with (temporary / name).open("rb") as file:
                os.fsync(file.fileno())
        with contextlib.suppress(OSError):
            # Fails where another process was faster: its entry is as good.
            temporary.rename(folder / key)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _digest(entry: Path, key: str, known: Mapping[str, Any], secret: bytes) -> str:
    """Of the key, the predictions and all that is said about them: an entry under another's name is none."""
    content = digest_json([key, digest_file(entry / _TABLE), known["dtype"], known["flat"], known["figures"]])
    return hmac.new(secret, content.encode(), hashlib.sha256).hexdigest()


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
