"""What a database is not asked, can not compute or may not: errors that name the rule, and nothing written."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mlcicd.core.errors import ConfigError, InputError, MlcicdError, ServiceError
from mlcicd.data.checks import run_checks
from mlcicd.data.in_database import Session, database_session, open_table
from mlcicd.data.schema import TableSchema


def answer(session: Session, sql: str) -> Any:
    return session.run(sql, {}, "here")[0][0]


@pytest.mark.parametrize("product", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_one_state_is_read_and_nothing_is_written(product: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path}/w.db" if product == "sqlite" else request.getfixturevalue("postgresql")
    engine = sa.create_engine(url)

    def write(*statements: str) -> None:
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    write(
        *(["PRAGMA journal_mode = WAL"] * (product == "sqlite")), "CREATE TABLE w (n int)", "INSERT INTO w VALUES (1)"
    )
    with database_session(url) as session:
        source = open_table(session, "w")
        assert source.fetch("SELECT count(*) FROM data") == [(1,)]
        write("INSERT INTO w VALUES (2)")
        assert source.fetch("SELECT count(*) FROM data") == [(1,)]
        with pytest.raises(MlcicdError, match=r"read|refuse"):
            session.run("DELETE FROM w", {}, "here")
        assert source.fetch("SELECT count(*) FROM data") == [(1,)]
        assert product == "sqlite" or session.state["snapshot"].count(":") == 2
    with database_session(url) as session:
        assert answer(session, "SELECT count(*) FROM w") == 2
    engine.dispose()


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        ("round(f) = 1", r"round\(\)"),
        ("cast(s as int) > 0", "cast from string to int"),
        ("cast(f as varchar) = '1'", "cast from float to string"),
        ("i and b", "logical operator"),
        ("regexp_full_match(s, '(?i)a')", "databases read differently"),
        ("regexp_full_match(s, '\\bA')", "databases read differently"),
        ("s like s", "LIKE with a pattern"),
        ("f > s", "float with string|Cannot compare|No function"),
        ("i * 1.5 > 2", "decimal number"),
        ("d > 'tomorrow'", "is no DATE"),
        ("t > '2020-01-01'::timestamptz", "naive|zoned|TIME ZONE"),
        ("epoch(t) % 2 = 0", "not whole"),
        ("d + 1 > d", "arithmetic of"),
    ],
    ids=[
        "round",
        "parse",
        "write",
        "truth",
        "flags",
        "border",
        "like",
        "kinds",
        "decimal",
        "word",
        "zone",
        "whole",
        "days",
    ],
)
def test_what_may_mean_something_else_is_refused_by_name(sqlite: str, expression: str, what: str) -> None:
    rules = TableSchema.model_validate(
        {"version": 1, "rules": [{"name": "good", "expression": "i > 0"}, {"name": "odd", "expression": expression}]}
    )
    with database_session(sqlite) as session, pytest.raises(ConfigError, match=what) as caught:
        run_checks(open_table(session, "t"), rules)
    assert "rule.odd" in str(caught.value) or "'odd'" in str(caught.value)


@pytest.mark.slow
def test_what_postgresql_can_not_compute_is_refused_by_name(postgresql: str, tmp_path: Path) -> None:
    for expression, what in (
        ("k * k > 5", "rule.odd can not be counted: .*smallint out of range"),
        ("f * 1e300 * f > 5", "rule.odd can not be counted: .*out of range: overflow"),
        ("contains(doc, 'b')", "'doc' has a type that is read as text"),
    ):
        rules = TableSchema.model_validate(
            {
                "version": 1,
                "rules": [{"name": "good", "expression": "id > 0"}, {"name": "odd", "expression": expression}],
            }
        )
        engine = sa.create_engine(postgresql)
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE IF EXISTS odd; DROP VIEW IF EXISTS slow; DROP TABLE IF EXISTS mine")
            connection.exec_driver_sql(
                "CREATE TABLE odd AS SELECT n AS id, CAST(n AS smallint) AS k, 1e9::double precision AS f, "
                "'{\"b\": 1}'::jsonb AS doc FROM generate_series(1, 300) n"
            )
            connection.exec_driver_sql("CREATE VIEW slow AS SELECT 1 AS a, pg_sleep(30) IS NULL AS b")
            connection.exec_driver_sql("CREATE TABLE mine (a int); DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN")
        engine.dispose()
        with database_session(postgresql) as session, pytest.raises(ConfigError, match=what):
            run_checks(open_table(session, "odd"), rules)
    allowed = TableSchema.model_validate({"version": 1, "columns": {"doc": {"type": "string"}}})
    with database_session(postgresql) as session:
        assert {c.status for c in run_checks(open_table(session, "odd"), allowed)} == {"passed"}
    with (
        database_session(postgresql, timeout_s=0.5) as session,
        pytest.raises(ServiceError, match=r"more than 0\.5 sec"),
    ):
        open_table(session, "slow").fetch("SELECT count(*) FROM data WHERE b")
    with database_session(postgresql.replace("//mlflow@", "//guest@")) as session:
        with pytest.raises(InputError, match="can not be read") as caught:
            assert open_table(session, "mine").rows
        assert "permission denied" in caught.value.detail()


def test_what_sqlite_can_not_hold_or_takes_too_long(sqlite: str) -> None:
    rules = TableSchema.model_validate({"version": 1, "rules": [{"name": "odd", "expression": "f - f >= 0"}]})
    with database_session(sqlite) as session, pytest.raises(ConfigError, match=r"rule.odd can not be counted"):
        run_checks(open_table(session, "t"), rules)
    database = sqlite3.connect(sqlite.removeprefix("sqlite:///"))
    endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c"
    database.execute(f"CREATE VIEW endless AS {endless}")
    database.close()
    with database_session(sqlite, timeout_s=0.5) as session, pytest.raises(ServiceError, match=r"more than 0\.5 sec"):
        open_table(session, "endless")


def test_foreign_keys_and_other_databases_are_refused(sqlite: str) -> None:
    rules = TableSchema.model_validate({"version": 1, "foreign_keys": [{"columns": ["s"], "file": "other.csv"}]})
    with database_session(sqlite) as session, pytest.raises(ConfigError, match=r"foreign_key.s .* can not see a file"):
        run_checks(open_table(session, "t"), rules)
    for url in (
        "bigquery://project",
        "snowflake://u:hunter22@h/d",
        "trino://h:8080/c",
        "databricks://token:hunter22@h",
    ):
        with pytest.raises(ConfigError, match=r"can not be counted in .*") as caught, database_session(url):
            pass
        assert "postgresql and sqlite" in caught.value.detail()
        assert "hunter22" not in f"{caught.value} {caught.value.detail()}"
