"""Rules counted inside PostgreSQL and SQLite: the verdict of DuckDB on a snapshot, or an error by name."""

from __future__ import annotations

import datetime as dt
import itertools
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mlcicd.core.verdict import Check
from mlcicd.data.checks import run_checks
from mlcicd.data.database import snapshot_table
from mlcicd.data.in_database import database_session, open_table
from mlcicd.data.schema import TableSchema, parse_schema
from mlcicd.data.source import open_source, quote

HOSTILE = 'x"; DROP TABLE "t"; -- %s :p %(text0)s `\\'
INF, NAN = float("inf"), float("nan")
NOW = dt.datetime(2020, 1, 8, tzinfo=dt.UTC)


def rows() -> list[dict[str, Any]]:
    """Every kind of column, with every value that engines disagree about, in all combinations of a few."""
    floats = [0.0, -0.0, 1.5, -1.5, 1e300, INF, -INF, NAN, None]
    texts = ["AB1", "ab1", "AB1\n", "Ä", "", "\u00a0a ", "a'\\' OR 1=1 --", "%x_", None]
    whole = [0, 1, -7, 2**31 - 1, 2**53 + 1, -(2**62), None]
    pairs = list(itertools.islice(zip(itertools.cycle(floats), itertools.cycle(whole), strict=False), 126))
    return [
        {
            "id": 5 if n == 124 else None if n == 125 else n,
            "f": f,
            "r": None if f is None else f % 7 if abs(f) < 9 else 0.1,
            "i": w,
            "k": n % 5 * 8000,
            "s": texts[n % 8 if n % 11 else 8],
            HOSTILE: texts[n * 5 % 9],
            "b": (True, False, None)[n % 3],
            "d": None if n % 9 == 0 else dt.date(2020, 1, 1) + dt.timedelta(n),
            "t": None if n % 8 == 0 else dt.datetime(2020, 1, 1, n % 24, n % 60, 0, n % 2 * 500_000),
            "z": dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=n),
            "m": None if n % 10 == 0 else Decimal(n - 40) / 4,
            "c": ("AB", "A ", "XYZ", None)[n % 4],
            "e": None if n % 6 == 0 else n / 4,
        }
        for n, (f, w) in enumerate(pairs)
    ]


POSTGRES = {
    **{"id": "bigint", "f": "double precision", "r": "real", "i": "bigint", "k": "smallint", "s": "text"},
    **{HOSTILE: 'varchar(40) COLLATE "und-x-icu"', "b": "boolean", "d": "date", "t": "timestamp", "z": "timestamptz"},
    **{"m": "numeric(10,2)", "c": "char(3)", "e": "numeric"},
}
# No NaN, no 32-bit float, no time zone, no decimal.
SQLITE = {
    **{"id": "INTEGER", "f": "REAL", "i": "INTEGER", "k": "INTEGER", "s": "TEXT COLLATE NOCASE", HOSTILE: "TEXT"},
    **{"b": "BOOLEAN", "d": "DATE", "t": "DATETIME", "c": "TEXT", "e": ""},
}
COLUMNS = {
    "id": "{type: int, unique: true, min: 3, max: 90}",
    "f": "{type: float, min: -1.5, max: 10, nulls: 0.2, unique: true}",
    "r": "{type: float, min: 0.5, in: [0.1, 1.5], mostly: 0.5, nulls: 1}",
    "i": "{type: int, in: [0, 1, 9007199254740993], nulls: 0.5, severity: warn}",
    "k": "{min: 8000, max: 1.5e4, unique: true}",
    "s": "{type: string, pattern: '[A-Z]{2}\\d|.', length: {min: 1, max: 3}, nulls: 0.01, in: [AB1, Ä], unique: true}",
    HOSTILE: "{type: string, sensitive: true, unique: true, pattern: '(?:AB|ab)1', nulls: 0.5}",
    "b": "{type: bool, in: [true], nulls: 0.5}",
    "d": "{type: date, min: 2020-01-15, max: 2020-03-01, nulls: 0.2}",
    "t": "{type: timestamp, min: 2020-01-01 06:00:00, nulls: 1, unique: true}",
    "z": "{type: timestamp, min: 2020-01-02T00:00:00Z}",
    "m": "{type: decimal, min: -5, max: 10.25, nulls: 0.2}",
    "c": "{type: string, length: {min: 3}, in: ['A  ', XYZ], nulls: 1}",
    "e": "{type: float, max: 20, nulls: 1}",
    "gone": "{type: int}",
    "maybe": "{required: false}",
}
EVERYWHERE = [
    "f > 1",
    "f <> 1.5 or f is null",
    "not isnan(f)",
    "isfinite(f) and f between -2 and 2",
    "f > i",
    "i = 9007199254740992::double",
    "i / 2 >= 0.5",
    "i + 1 > i",
    "k - 1 > 5",
    "-i >= 0 or abs(i) > 5",
    "i % 3 = 1",
    "i % k = 0",
    "i in (0, 1, -7) or i is null",
    "s like 'A%' or s like '%_1'",
    "not (s like '%\n%')",
    "s || 'x' = 'AB1x' or length(s) > 2",
    "trim(s) = 'a'",
    "starts_with(s, 'A') or contains(s, '1')",
    "suffix(s, '--') or prefix(s, '%')",
    "lower(s) = 'ab1' or upper(s) = 'Ä'",
    "s = 'a''\\'' OR 1=1 --'",
    "s in ('%x_', 'Ä')",
    "s > 'B'",
    "s is distinct from 'AB1'",
    "coalesce(s, 'none') <> 'none'",
    "nullif(s, '') is not null",
    "greatest(f, i) > 2",
    "least(f, 1, i) < 1",
    "b or not b",
    "b is not true",
    "b = true or b is null",
    "case when b then f > 0 when not b then i > 0 else true end",
    "d > '2020-02-01'",
    "d >= date '2020-02-01' and t < timestamp '2020-01-01 12:00:00'",
    "t >= d",
    "t <> '2020-01-01 01:01:00.5'",
    "year(d) = 2020 and month(d) = 2",
    "extract(hour from t) > 11 or minute(t) = day(t)",
    "regexp_full_match(s, 'AB\\d')",
    "regexp_full_match(s, '[^a-z]+')",
    "regexp_full_match(s, '(?:.|\\w)*?$')",
    "cast(i as varchar) = '-7' or cast(b as varchar) = 'true'",
    f"{quote(HOSTILE)} = 'AB1'",
    "1 = 2",
    "f * 2 > 1 or f - 1 < 0",
]
IN_POSTGRES = [
    "f / 0 > 3",
    "f / k <= 1",
    "r > 1",
    "r >= i",
    "cast(r as double) > 0.1",
    "m + 1 > i",
    "m * 2 < 3.5",
    "m / 2 = 1.25",
    "m > f",
    "z > timestamptz '2020-01-02 00:00:00+01'",
    "e / 3 > 2",
]
IN_SQLITE = ["e / (k + 1) < 2", "abs(f) > 2 or e / k > 1"]


def schema(columns: dict[str, str], expressions: list[str]) -> TableSchema:
    def yaml(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

    lines = ["version: 1", "key: [id]", "rows: {min: 10, max: 100}", "extra_columns: warn", "columns:"]
    kept = {n: rule for n, rule in COLUMNS.items() if n in columns or n in ("gone", "maybe")}
    lines += [f"  {yaml(name)}: {rule}" for name, rule in kept.items()]
    lines.append("rules:")
    for number, expression in enumerate(expressions):
        lines.append(f"  - {{name: r{number}, expression: {yaml(expression)}}}")
        lines.append(f"  - {{name: w{number}, expression: 'i > 0', where: {yaml(expression)}, mostly: 0.3}}")
    lines.append(f"freshness: {{column: {'z' if 'z' in columns else 't'}, max_age: 7d}}")
    return parse_schema("\n".join(lines))


def told(checks: list[Check]) -> dict[str, tuple[Any, ...]]:
    kept = ("violations", "checked", "distinct", "excess_rows", "min", "max")
    return {
        c.name: (c.status, c.severity, c.observed, c.reason, c.required, *(c.details.get(key) for key in kept))
        for c in checks
    }


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


@pytest.fixture(scope="module")
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


def compare(url: str, namespace: str, rules: TableSchema, folder: Path) -> list[Check]:
    snapshot_table(url, "t", folder / "t.parquet", namespace=namespace)
    here = run_checks(open_source(folder / "t.parquet"), rules, now=NOW)
    with database_session(url) as session:
        there = run_checks(open_table(session, "t", namespace=namespace), rules, now=NOW)
    assert told(there) == told(here)
    for check in there:
        if check.status == "failed" and check.details.get("violations"):
            shown = check.details["examples"]
            assert shown, check.name
            assert all(v in ("(redacted)", None) for e in shown for k, v in e["values"].items() if k == HOSTILE)
    return here


def test_sqlite_counts_what_duckdb_does(sqlite: str, tmp_path: Path) -> None:
    checks = compare(sqlite, "", schema(SQLITE, EVERYWHERE + IN_SQLITE), tmp_path)
    counted = [c.details for c in checks if c.details.get("checked") and "violations" in c.details]
    assert sum(0 < d["violations"] < d["checked"] for d in counted) > 80


@pytest.mark.slow
def test_postgresql_counts_what_duckdb_does(postgresql: str, tmp_path: Path) -> None:
    checks = compare(postgresql, "it's", schema(POSTGRES, EVERYWHERE + IN_POSTGRES), tmp_path)
    counted = [c.details for c in checks if c.details.get("checked") and "violations" in c.details]
    assert sum(0 < d["violations"] < d["checked"] for d in counted) > 80
