"""Tables of SQLite and PostgreSQL: read as what they are, in batches, and never written."""

from __future__ import annotations

import datetime as dt
import math
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fault.fault_server import postgres

from mlcicd.core.errors import InputError, MlcicdError, ServiceError
from mlcicd.data import database
from mlcicd.data.checks import run_checks
from mlcicd.data.database import snapshot_table
from mlcicd.data.schema import parse_schema
from mlcicd.data.source import open_source, quote

HOSTILE = 'x"; DROP TABLE "t"; -- %s :p `\\'


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "it's a.db")
    yield connection
    connection.close()


def read(tmp_path: Path, table: str, **options: Any) -> tuple[dict[str, str], list[tuple[Any, ...]]]:
    snapshot_table("sqlite:///it's a.db", table, tmp_path / "out.parquet", root=tmp_path, **options)
    source = open_source(tmp_path / "out.parquet")
    return dict(source.columns), source.relation.fetchall()


def test_sqlite_values_decide_the_type_not_the_declaration(sqlite: sqlite3.Connection, tmp_path: Path) -> None:
    sqlite.execute(
        "CREATE TABLE t (i INTEGER, f REAL, s TEXT, b BLOB, d DATE, ts DATETIME, ok BOOLEAN, mixed INT, bad DATE)"
    )
    rows = [
        (1, 1.5, "a\x00b", b"\x00\xff", "2020-01-31", "2020-01-31 10:00:00", 1, 7, "2020-01-31"),
        (None, None, None, None, None, None, None, None, None),
        (2**62, float("inf"), "", b"", "1969-12-31", "2020-02-01T00:00:00", 0, "seven", "31st of May"),
    ]
    sqlite.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    sqlite.commit()
    columns, found = read(tmp_path, "t")
    assert columns == {
        "i": "BIGINT",
        "f": "DOUBLE",
        "s": "VARCHAR",
        "b": "BLOB",
        "d": "DATE",
        "ts": "TIMESTAMP",
        "ok": "BOOLEAN",
        "mixed": "VARCHAR",
        "bad": "VARCHAR",
    }
    day, moment = dt.date(2020, 1, 31), dt.datetime(2020, 1, 31, 10)
    assert found[0] == (1, 1.5, "a\x00b", b"\x00\xff", day, moment, True, "7", "2020-01-31")
    assert found[1] == (None,) * 9
    assert found[2][0] == 2**62
    assert found[2][1] == math.inf
    assert found[2][2:4] == ("", b"")
    assert found[2][7:] == ("seven", "31st of May")


def test_many_batches_are_one_table_in_order(
    sqlite: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "CELLS", 20)
    sqlite.execute("CREATE TABLE t (n INTEGER, late TEXT)")
    sqlite.executemany("INSERT INTO t VALUES (?, ?)", [(n, "x" if n == 94 else None) for n in range(95)])
    sqlite.commit()
    columns, found = read(tmp_path, "t")
    assert columns == {"n": "BIGINT", "late": "VARCHAR"}
    assert found == [(n, "x" if n == 94 else None) for n in range(95)]


def test_one_text_among_many_missing_values_of_a_batch_is_kept(sqlite: sqlite3.Connection, tmp_path: Path) -> None:
    sqlite.execute("CREATE TABLE t (a TEXT)")
    sqlite.executemany("INSERT INTO t VALUES (?)", [("x" if n == 41_234 else None,) for n in range(90_000)])
    sqlite.commit()
    assert [n for n, row in enumerate(read(tmp_path, "t")[1]) if row[0]] == [41_234]


def test_names_are_never_sql(sqlite: sqlite3.Connection, tmp_path: Path) -> None:
    table = 'ta"ble; DROP TABLE t; --'
    sqlite.execute(f"CREATE TABLE {quote(table)} ({quote(HOSTILE)} INTEGER, [a.b] TEXT)")
    sqlite.execute("CREATE TABLE t (a)")
    sqlite.execute(f"INSERT INTO {quote(table)} VALUES (2, 'y'), (1, 'x')")
    sqlite.commit()
    columns, found = read(tmp_path, table, order_by=[HOSTILE])
    assert list(columns) == [HOSTILE, "a.b"]
    assert found == [(1, "x"), (2, "y")]
    assert sqlite.execute("SELECT count(*) FROM sqlite_master").fetchone() == (2,)


def test_a_view_and_the_digest_of_an_unchanged_table(sqlite: sqlite3.Connection, tmp_path: Path) -> None:
    sqlite.execute("CREATE TABLE t (a INTEGER)")
    sqlite.executemany("INSERT INTO t VALUES (?)", [(n * 7919 % 1000,) for n in range(1000)])
    sqlite.execute("CREATE VIEW v AS SELECT a FROM t WHERE a < 10")
    sqlite.commit()
    assert len(read(tmp_path, "v")[1]) == 10
    digests = []
    for _ in range(2):
        read(tmp_path, "t", order_by=["a"])
        digests.append(open_source(tmp_path / "out.parquet").digest)
    sqlite.execute("DELETE FROM t")
    sqlite.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(1000)])  # the same rows in another order
    sqlite.commit()
    read(tmp_path, "t", order_by=["a"])
    digests.append(open_source(tmp_path / "out.parquet").digest)
    assert len(set(digests)) == 1


@pytest.mark.parametrize(
    ("url", "table", "kind", "what"),
    [
        ("sqlite:///it's a.db", "flihgts", InputError, "flights"),
        ("sqlite:///missing.db", "t", InputError, "no such SQLite file"),
        ("not a url", "t", InputError, "no URL of a database"),
        ("nosuch://u:hunter22@h/d", "t", InputError, "no URL of a database"),
        ("postgresql://u:hunter22@127.0.0.1:1/d", "t", ServiceError, "can not be reached"),
    ],
)
def test_what_can_not_be_read_is_told_without_the_password(
    sqlite: sqlite3.Connection, tmp_path: Path, url: str, table: str, kind: type[MlcicdError], what: str
) -> None:
    sqlite.execute("CREATE TABLE flights (a)")
    sqlite.commit()
    with pytest.raises(kind, match=what) as caught:
        snapshot_table(url, table, tmp_path / "out.parquet", root=tmp_path)
    assert "hunter22" not in f"{caught.value} {caught.value.detail()}"
    assert not (tmp_path / "missing.db").exists()
    assert not list(tmp_path.glob(".snapshot-*"))


def test_a_failed_reading_leaves_the_last_snapshot(sqlite: sqlite3.Connection, tmp_path: Path) -> None:
    sqlite.execute("CREATE TABLE t (a TEXT)")
    sqlite.execute("INSERT INTO t VALUES ('x')")
    sqlite.commit()
    read(tmp_path, "t")
    sqlite.execute("INSERT INTO t VALUES (CAST(x'ff' AS TEXT))")
    sqlite.commit()
    with pytest.raises(MlcicdError, match=r"read|reached"):
        read(tmp_path, "t")
    assert open_source(tmp_path / "out.parquet").relation.fetchall() == [("x",)]


@pytest.mark.slow
def test_postgresql(tmp_path: Path) -> None:
    with postgres() as url:
        engine = sa.create_engine(url)
        ddl = (
            "id bigint, small smallint, f double precision, r real, n numeric(12,3), free numeric, t text, ok boolean, "
            f"d date, ts timestamp, tz timestamptz, raw bytea, doc jsonb, u uuid, arr int[], {quote(HOSTILE)} int"
        )
        row = (
            "1, 2, 'nan', 0.1, 12345.678, 1.5, E'a\\'b', true, '2020-01-31', '2020-01-31 10:00', "
            "'2020-01-31 10:00+02', '\\x00ff', '{\"b\": 1}', '00000000-0000-0000-0000-000000000001', '{1,2}', 7"
        )
        with engine.begin() as connection:
            connection.exec_driver_sql('CREATE SCHEMA "my \'schema"')
            connection.exec_driver_sql(f'CREATE TABLE "my \'schema"."T" ({ddl})'.replace("%", "%%"))
            connection.exec_driver_sql(f'INSERT INTO "my \'schema"."T" VALUES ({row})'.replace("%", "%%"))
            connection.exec_driver_sql('INSERT INTO "my \'schema"."T" (id) VALUES (0)')
            connection.exec_driver_sql(
                "CREATE TABLE many AS SELECT n, mod(n, 7) AS m FROM generate_series(1, 30000) AS n"
            )
        engine.dispose()
        target = tmp_path / "out.parquet"
        assert snapshot_table(url, "T", target, namespace="my 'schema", order_by=["id"]) == 2
        source = open_source(target)
        assert list(source.columns.values()) == [
            *("BIGINT", "SMALLINT", "DOUBLE", "FLOAT", "DECIMAL(12,3)", "DOUBLE", "VARCHAR", "BOOLEAN"),
            *("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "BLOB", "VARCHAR", "VARCHAR", "VARCHAR", "INTEGER"),
        ]
        text = ", ".join(f"CAST({quote(n)} AS VARCHAR)" if n in ("tz", "r") else quote(n) for n in source.columns)
        empty, full = source.fetch(f"SELECT {text} FROM data")
        assert empty == (0, *[None] * 15)
        assert math.isnan(full[2])
        assert full[:2] == (1, 2)
        assert full[3:8] == ("0.1", Decimal("12345.678"), 1.5, "a'b", True)
        assert full[8:12] == (dt.date(2020, 1, 31), dt.datetime(2020, 1, 31, 10), "2020-01-31 08:00:00+00", b"\x00\xff")
        assert full[12:] == ('{"b": 1}', "00000000-0000-0000-0000-000000000001", "[1, 2]", 7)

        assert snapshot_table(url, "many", target) == 30_000
        schema = parse_schema(
            "version: 1\nkey: [n]\ncolumns: {n: {type: int, max: 29999}, m: {type: int, in: [0, 1, 2]}}"
        )
        found = {c.name: c.details.get("violations") for c in run_checks(open_source(target), schema)}
        assert found["train.n.range"] == 1
        assert found["train.m.in"] == sum(n % 7 not in (0, 1, 2) for n in range(1, 30_001))
        with pytest.raises(InputError, match="many"):
            snapshot_table(url, "mani", target)
