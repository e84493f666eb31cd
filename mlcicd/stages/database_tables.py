"""The data sets of `engine: database`: tables bound where they are, each database in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mlcicd.config import seconds
from mlcicd.core.digests import digest_json
from mlcicd.data.in_database import DatabaseSource, Session, database_session, open_table
from mlcicd.stages.data_sets import url_of
from mlcicd.stages.record import Record


@contextmanager
def open_tables(record: Record) -> Iterator[dict[str, DatabaseSource]]:
    """Training data and holdout, as `train` and `holdout`; of one database both are of one state of it.

    Each becomes a subject of the verdict of kind `table`. It is no `data`: its digest is of what the database says of
    the state that was read and of the number of rows, not of bytes, and nothing that is read later can be held
    against it.

    Raises:
        ConfigError: no URL, or a database that rules can not be counted in.
        InputError: there is no such table.
        ServiceError: a database can not be reached, or refuses.
    """
    project = record.project
    data = project.config.data
    sessions: dict[str, Session] = {}
    sources: dict[str, DatabaseSource] = {}
    with ExitStack() as stack:
        for kind, origin in (("train", data.train_), ("holdout", data.holdout_)):
            record.progress.step(f"looking at {origin.shown}")
            url = url_of(record, kind, origin)
            if url not in sessions:
                opened = database_session(url, root=project.root, timeout_s=seconds(data.database.timeout))
                sessions[url] = stack.enter_context(opened)
            source = open_table(sessions[url], origin.table, namespace=origin.namespace)
            told = {"table": origin.shown.removeprefix("table "), "rows": source.rows, **sessions[url].state}
            record.subject("table", kind, digest_json({**told, "columns": dict(source.columns)}), **told)
            sources[kind] = source
        yield sources
