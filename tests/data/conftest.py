"""One Spark session for all tests of this folder, and databases with the table of `database_rows`."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from database_rows import POSTGRES, SQLITE, rows
from fault.fault_server import postgres

from mlcicd.data.source import quote


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A PostgreSQL of Debian's; a test makes tables of names of its own."""
    with postgres() as url:
        yield url


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    with sqlite3.connect(tmp_path / "t.db") as database:
        declared = ", ".join(f"{quote(name)} {kind}" for name, kind in SQLITE.items())
        database.execute(f"CREATE TABLE t ({declared})")
        for row in rows():
            values = [str(v) if isinstance(v, dt.date) else v for v in (row[name] for name in SQLITE)]
            database.execute(f"INSERT INTO t VALUES ({', '.join('?' * len(values))})", values)
    database.close()
    return f"sqlite:///{tmp_path}/t.db"


@pytest.fixture(scope="session")
def postgresql(postgresql_url: str) -> str:
    engine = sa.create_engine(postgresql_url)
    with engine.begin() as connection:
        driver: Any = connection.connection.driver_connection
        cursor = driver.cursor()
        declared = ", ".join(f"{quote(name)} {kind}" for name, kind in POSTGRES.items())
        cursor.execute(f'CREATE SCHEMA "it\'s"; CREATE TABLE "it\'s".t ({declared})')
        for row in rows():
            cursor.execute(
                f'INSERT INTO "it\'s".t VALUES ({", ".join(["%s"] * len(POSTGRES))})', [row[name] for name in POSTGRES]
            )
    engine.dispose()
    return postgresql_url


@pytest.fixture(scope="session")
def session() -> Iterator[Any]:
    from pyspark.sql import SparkSession

    made = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "2")
        # The optimizing compiler costs more than it saves in a minute.
        .config("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1")
        .getOrCreate()
    )
    yield made
    made.stop()
