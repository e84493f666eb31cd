"""Data that is named in one word, as on a command line: a path, a remote file's address, or a table of a database."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from mlcicd.config.data_set import DataSet
from mlcicd.core.errors import ConfigError
from mlcicd.data.source import Source, open_source

TABLE = "table:"


@contextmanager
def located(written: str, environ: Mapping[str, str], *, namespace: str = "") -> Iterator[Source]:
    """The data, to be read while the context lasts.

    Tables and remote files are copied whole into a temporary folder first, in the batches and blocks of
    :mod:`mlcicd.data.database` and :mod:`mlcicd.data.remote`: the disk must hold them, memory need not.

    Args:
        written: a path; an address (`s3://`, `https://` and what else fsspec knows); or `table:NAME@VARIABLE`, a table
            or view of the database whose SQLAlchemy URL is in that variable.
        environ: where the variable is looked up.
        namespace: the schema of tables within the database; the database's default when empty.

    Raises:
        ConfigError: a table without a variable, a variable that is not set, a password in an address.
        InputError: it is not there, or can not be read.
        ServiceError: the database or store can not be reached, or refuses.
    """
    origin = _origin(written, namespace)
    if not origin.is_brought:
        yield open_source(Path(written))
        return
    with tempfile.TemporaryDirectory(prefix="mlcicd-") as folder:
        target = Path(folder, Path(origin.local("data")).name)
        if origin.table:
            from mlcicd.data.database import snapshot_table

            snapshot_table(_url(origin, environ), origin.table, target, namespace=origin.namespace)
        else:
            from mlcicd.data.remote import fetch

            fetch(origin.path, target, shown=origin.shown)
        # What is said about it names where it is from, not where it stands for now.
        yield replace(open_source(target), path=Path(origin.shown))


def shown(written: str, *, namespace: str = "") -> str:
    """What it is, for messages: never a user, a password or a signature. Raises ConfigError as :func:`located`."""
    return _origin(written, namespace).shown


def _origin(written: str, namespace: str) -> DataSet:
    said: dict[str, str] = {"path": written}
    if written.startswith(TABLE):
        table, _, variable = written.removeprefix(TABLE).rpartition("@")
        if not table or not variable:
            raise ConfigError(
                "a table needs the variable that holds its database's URL",
                where=written,
                remedy="write table:NAME@VARIABLE, and set VARIABLE to what SQLAlchemy reads: "
                "postgresql://user:password@host/database, sqlite:///data/flights.db",
            )
        said = {"table": table, "url_env": variable, "namespace": namespace}
    try:
        return DataSet.model_validate(said)
    except ValidationError as error:
        raise ConfigError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def _url(origin: DataSet, environ: Mapping[str, str]) -> str:
    url = environ.get(origin.url_env, "")
    if not url:
        raise ConfigError(
            f"the variable {origin.url_env} is not set",
            why=f"It holds the URL of the database of {origin.shown}.",
            remedy="set it, from a secret where it holds a password",
        )
    return url
