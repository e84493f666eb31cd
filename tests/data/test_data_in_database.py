"""Rules counted inside PostgreSQL and SQLite: the verdict of DuckDB on a snapshot, check for check."""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa
from database_rows import HOSTILE, INF, NAN, POSTGRES, SQLITE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Check
from mlcicd.data.checks import run_checks
from mlcicd.data.database import snapshot_table
from mlcicd.data.database_patterns import plain_pattern
from mlcicd.data.in_database import database_session, open_table
from mlcicd.data.schema import TableSchema, parse_schema
from mlcicd.data.source import open_source, quote

NOW = dt.datetime(2020, 1, 8, tzinfo=dt.UTC)
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
        lines.append(f"  - {{name: r{number}, expression: {yaml(expression)}, mostly: 0.01}}")
        if number % 3 == 0:
            lines.append(f"  - {{name: w{number}, expression: 'i > 0', where: {yaml(expression)}, mostly: 0.01}}")
    lines.append(f"freshness: {{column: {'z' if 'z' in columns else 't'}, max_age: 7d}}")
    return parse_schema("\n".join(lines))


def told(checks: list[Check]) -> dict[str, tuple[Any, ...]]:
    kept = ("violations", "checked", "distinct", "excess_rows", "min", "max")
    return {
        c.name: (c.status, c.severity, c.observed, c.reason, c.required, *(c.details.get(key) for key in kept))
        for c in checks
    }


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
    assert sum(0 < d["violations"] < d["checked"] for d in counted) > 50


@pytest.mark.slow
def test_postgresql_counts_what_duckdb_does(postgresql: str, tmp_path: Path) -> None:
    checks = compare(postgresql, "it's", schema(POSTGRES, EVERYWHERE + IN_POSTGRES), tmp_path)
    counted = [c.details for c in checks if c.details.get("checked") and "violations" in c.details]
    assert sum(0 < d["violations"] < d["checked"] for d in counted) > 50


def test_times_of_sqlite_in_every_writing(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "t.db") as database:
        database.execute("CREATE TABLE t (d DATE, ts TIMESTAMP, early DATE, no DATE)")
        for row in (
            ("2020-01-31", "2020-01-31 10:00:00", "2020-01-31", "2020-01-31"),
            ("2020-2-1", "2020-02-01T10:00:00.5Z", "infinity", "soon"),
            (None, "2020-01-31 10:00:00.000", None, None),
        ):
            database.execute("INSERT INTO t VALUES (?, ?, ?, ?)", row)
    database.close()
    rules = {
        "version": 1,
        "columns": {
            "d": {"type": "date", "min": dt.date(2020, 2, 1), "nulls": 0.5},
            "ts": {"type": "timestamp", "max": dt.datetime(2020, 2, 1, 10), "unique": True},
            "no": {"type": "date", "nulls": 0.5},
        },
        "rules": [{"name": "same", "expression": "ts = '2020-01-31 10:00'"}],
    }
    found = {c.name: c for c in compare(f"sqlite:///{tmp_path}/t.db", "", TableSchema.model_validate(rules), tmp_path)}
    assert found["train.ts.range"].details["violations"] == 1
    assert found["train.ts.unique"].details["distinct"] == 2
    assert found["train.no.type"].status == "failed"
    odd = TableSchema.model_validate({"version": 1, "rules": [{"name": "e", "expression": "early > '2020-01-01'"}]})
    with (
        database_session(f"sqlite:///{tmp_path}/t.db") as session,
        pytest.raises(ConfigError, match=r"rule.e can not run .* 'early'"),
    ):
        run_checks(open_table(session, "t"), odd)


PATTERNS = [
    *("[A-Z]{2}\\d", ".", ".*", "a.c", "[^a]*", "\\w+", "\\W", "\\D?x", "(a|b)*c", "(?:a|)b", "a{2,3}", "a{2,}?"),
    *(
        "^ab$",
        "\\Aab\\z",
        "[\\d\\-x]+",
        "[^\\w]",
        "\\.\\*\\[\\]\\\\",
        "[.*$^]",
        "a|bc|",
        "é+",
        "[à-ÿ]",
        "\\t|\\n",
        "x\\$",
        "😀?a",
    ),
]
TEXTS = [
    "AB1",
    "AB1\n",
    "",
    "a",
    "\n",
    "ab",
    "ab\n",
    "a\nc",
    "abc",
    "c",
    "aac",
    "aa",
    "aaaa",
    "b",
    "é",
    "ééa",
    "Ä",
    "à",
    "_",
    "١",
]
TEXTS += ["1-x", "x", "1x", ".*[]\\", "$", ".", "bc", "\t", "x$", "😀a", "😀", " ", "٣x"]


@pytest.fixture(scope="module")
def matched() -> dict[str, list[bool]]:
    """Which of the texts each pattern matches, by DuckDB."""
    asked = "SELECT list_transform($1::VARCHAR[], lambda t: regexp_full_match(t, $2))"
    with closing(duckdb.connect()) as engine:
        return {pattern: engine.execute(asked, [TEXTS, pattern]).fetchall()[0][0] for pattern in PATTERNS}


def test_patterns_match_what_they_do_here(matched: dict[str, list[bool]]) -> None:
    for pattern in PATTERNS:
        compiled = re.compile(plain_pattern(pattern))
        assert [compiled.match(text) is not None for text in TEXTS] == matched[pattern], pattern


@pytest.mark.slow
def test_patterns_match_in_postgresql_what_they_do_here(postgresql_url: str, matched: dict[str, list[bool]]) -> None:
    engine = sa.create_engine(postgresql_url)
    with engine.connect() as connection:
        for pattern in PATTERNS:
            asked = {"texts": TEXTS, "pattern": plain_pattern(pattern)}
            found = connection.exec_driver_sql(
                'SELECT t COLLATE "C" ~ %(pattern)s FROM unnest(%(texts)s) WITH ORDINALITY AS u(t, n) ORDER BY n', asked
            )
            assert [row[0] for row in found] == matched[pattern], pattern
    engine.dispose()


ODD = st.text(alphabet="\"';%:`\\ \n()-é😀$[]{}?cC0", min_size=1, max_size=12)
FLOATS = st.one_of(st.none(), st.sampled_from([0.0, -0.0, INF, -INF, NAN, 0.1, 2.0**53]), st.floats())
WHOLE = st.one_of(st.none(), st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1))
WORDS = st.one_of(st.none(), st.text(alphabet="aAbé😀 \n'%_\\1", max_size=4))
TABLES = st.lists(st.tuples(FLOATS, WHOLE, WORDS), max_size=25)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[str], list[tuple[Any, ...]], TableSchema]:
    """Names of three columns, their rows, and rules of every kind with bounds of those rows."""
    names = draw(st.lists(ODD, min_size=3, max_size=3, unique_by=str.lower))
    rows = draw(TABLES)
    f, i, s = (quote(name) for name in names)
    some = [[value for value in column if value is not None and value == value] for column in zip(*rows, strict=True)]
    low, whole, words = (
        draw(st.sampled_from(c)) if c else d for c, d in zip(some or [[]] * 3, (0.5, 1, "a"), strict=True)
    )
    written = "'" + words.replace("'", "''") + "'"
    expressions = [
        *(f"{f} > {i}", f"{i} / 2 <= {f}", f"isfinite({f}) or {i} is null", f"greatest({f}, {i}) >= least({i}, 0)"),
        *(f"{s} >= {written}", f"length({s}) > 1", f"{s} like '%a_'", f"trim({s}) = {s} or contains({s}, 'a')"),
        *(f"{i} % 3 = 1", f"case when {f} < 0 then {s} <> 'a' else {i} in (1, 2) end", f"{s} || 'a' <= {s} || {s}"),
    ]
    columns = {
        names[0]: {"type": "float", "min": low, "nulls": 0.1, "unique": True, "in": [low, 0.1]},
        names[1]: {"type": "int", "max": whole, "in": [whole, 0], "mostly": 0.5, "unique": True},
        names[2]: {"type": "string", "pattern": "[aA].?|é+", "length": {"max": 2}, "in": [words], "unique": True},
    }
    # Few fail: to show rows costs a query for each.
    rules = [
        {"name": f"r{n}", "expression": e, "where": expressions[n - 1] if n % 2 else None, "mostly": 0.01}
        for n, e in enumerate(expressions)
    ]
    return names, rows, TableSchema.model_validate({"version": 1, "key": names[1:], "columns": columns, "rules": rules})


def fill(engine: sa.Engine, names: list[str], kinds: list[str], rows: list[tuple[Any, ...]]) -> None:
    with engine.begin() as connection:
        driver: Any = connection.connection.driver_connection
        cursor = driver.cursor()
        cursor.execute("DROP TABLE IF EXISTS t")
        declared = ", ".join(f"{quote(name)} {kind}" for name, kind in zip(names, kinds, strict=True))
        cursor.execute(f"CREATE TABLE t ({declared})")
        for row in rows:
            cursor.execute(
                "INSERT INTO t VALUES (%s, %s, %s)" if len(kinds[0]) > 4 else "INSERT INTO t VALUES (?, ?, ?)", row
            )


BOUNDED = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=5, **BOUNDED)  # type: ignore[arg-type]
@given(cases())
def test_any_table_of_sqlite_is_counted_as_here(
    tmp_path: Path, case: tuple[list[str], list[tuple[Any, ...]], TableSchema]
) -> None:
    names, rows, rules = case
    engine = sa.create_engine(f"sqlite:///{tmp_path}/t.db")
    fill(engine, names, ["REAL", "INTEGER", "TEXT"], rows)
    engine.dispose()
    compare(f"sqlite:///{tmp_path}/t.db", "", rules, tmp_path)


@pytest.mark.slow
@settings(max_examples=5, **BOUNDED)  # type: ignore[arg-type]
@given(cases())
def test_any_table_of_postgresql_is_counted_as_here(
    postgresql_url: str, tmp_path: Path, case: tuple[list[str], list[tuple[Any, ...]], TableSchema]
) -> None:
    names, rows, rules = case
    engine = sa.create_engine(postgresql_url)
    fill(engine, names, ["double precision", "bigint", "text"], rows)
    engine.dispose()
    compare(postgresql_url, "", rules, tmp_path)
