"""The file of a prediction: written beside its place, proven, put there in one step, with its lineage beside it."""

from __future__ import annotations

import glob
import json
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlcicd.core.digests import digest_bytes, digest_file
from mlcicd.core.errors import CommandFailed, ServiceError
from mlcicd.core.files import write_atomic

_NO_NUMBER = "('nan', '-nan', 'inf', '-inf', 'infinity', '-infinity', '')"


@contextmanager
def place_beside(output: Path) -> Iterator[Path]:
    """A file beside the output that is gone after the block, with those that killed commands of this machine left.

    Raises:
        ServiceError: none can be made there.
    """
    # Another machine that shares the folder may be at work: its files are not ours to take.
    prefix = f".{output.name}.{digest_bytes(socket.gethostname().encode())[-8:]}."
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        for stale in output.parent.glob(f"{glob.escape(prefix)}*.part"):
            stale.unlink(missing_ok=True)
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=".part", dir=output.parent)
    except OSError as error:
        raise _not_written(output, error) from error
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _not_written(output: Path, error: OSError) -> ServiceError:
    return ServiceError(
        f"the output can not be written ({error.strerror or error})",
        where=str(output),
        remedy="check free space and permissions, then run the same command again",
    )


def prove(path: Path, name: str, report: Mapping[str, Any]) -> None:
    """Counts what stands in the file, by another reader than its writer: every row, and an answer in each.

    Raises:
        CommandFailed: it is not what the runner said.
    """
    import duckdb

    text = "'" + str(path).replace("'", "''") + "'"
    parquet = name.endswith((".parquet", ".pq"))
    options = "header = true, all_varchar = true, delim = '{}', compression = '{}', quote = '\"', escape = '\"'".format(
        "\t" if name.endswith((".tsv", ".tsv.gz")) else ",", "gzip" if name.endswith(".gz") else "none"
    )
    table = f"read_parquet({text})" if parquet else f"read_csv({text}, {options}, sample_size = 1)"
    unusable = " OR ".join(_unusable(column, kind) for column, kind in report["columns"].items())
    with duckdb.connect() as connection:
        # Parquet's minimum and maximum leave NaN out, and the optimizer would believe them.
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")
        connection.execute("SET memory_limit = '1GB'")
        try:
            found = connection.execute(f"SELECT count(*), count(*) FILTER (WHERE {unusable}) FROM {table}").fetchone()  # noqa: S608  (quoted)
        except duckdb.Error as error:
            raise CommandFailed("the file that was written can not be read back", why=str(error)[:400]) from error
    if found is None or found != (report["rows"], 0):
        raise CommandFailed(
            f"the file that was written has {found[0] if found else 0} rows for {report['rows']}, "
            f"{found[1] if found else 0} of them without an answer",
            remedy="run the same command again",
        )


def _unusable(column: str, kind: str) -> str:
    name = '"' + column.replace('"', '""') + '"'
    return f"{name} IS NULL" + (f" OR lower({name}::VARCHAR) IN {_NO_NUMBER}" if kind == "number" else "")


def put_in_place(temporary: Path, output: Path) -> str:
    """Renames the finished file, all of whose bytes are on the disk first; gives its digest.

    Raises:
        ServiceError: the disk is full or read-only.
    """
    try:
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        digest = digest_file(temporary)
        temporary.replace(output)
        folder = os.open(output.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise _not_written(output, error) from error
    return digest


def lineage_path(output: Path) -> Path:
    """Where the lineage of an output stands: `OUTPUT.lineage.json`."""
    return output.with_name(output.name + ".lineage.json")


def write_lineage(output: Path, lineage: Mapping[str, Any]) -> None:
    """Writes the lineage beside an output.

    Raises:
        ServiceError: it can not be written.
    """
    write_atomic(lineage_path(output), json.dumps(dict(lineage), indent=2, sort_keys=True) + "\n")


def read_lineage(output: Path) -> dict[str, Any] | None:
    """The lineage of an output, if it is of the very bytes that stand there; else None."""
    try:
        found = json.loads(lineage_path(output).read_text(encoding="utf-8"))
        if output.is_file() and found["output"]["digest"] == digest_file(output):
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None
