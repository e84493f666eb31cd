"""Tables and remote files as data sets: the stages see files, the configuration no password."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mlcicd.config import load_project
from mlcicd.core.digests import digest_file
from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Check, CheckStatus, Status
from mlcicd.data.profile import profile
from mlcicd.data.source import open_source
from mlcicd.stages import evaluate, monitor, train, validate_data

from .conftest import change, project_at


def as_table(root: Path, name: str) -> None:
    """Moves a CSV file into a table of the same name."""
    lines = [line.split(",") for line in (root / f"{name}.csv").read_text().splitlines()]
    with sqlite3.connect(root / "flights.db") as database:
        database.execute(f"CREATE TABLE {name} (id INTEGER, a REAL, b REAL, y INTEGER)")
        database.executemany(f"INSERT INTO {name} VALUES (?, ?, ?, ?)", lines[1:])
    database.close()


@pytest.fixture
def tables(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    as_table(root, "train")
    as_table(root, "holdout")
    monkeypatch.setenv("FLIGHTS_DB", "sqlite:///flights.db")
    for name in ("train", "holdout"):
        change(
            root / "mlcicd.yaml",
            f"{name}: {name}.csv",
            f"{name}: {{table: {name}, url_env: FLIGHTS_DB, order_by: [id]}}",
        )
    change(root / "train.py", 'pd.read_csv("train.csv")', 'pd.read_parquet(".mlcicd/data/train.parquet")')
    (root / "train.csv").unlink()
    return root


def test_the_stages_read_one_snapshot_of_a_table(tables: Path) -> None:
    project = project_at(tables)
    verdict = validate_data(project)
    assert verdict.status is Status.PASSED, verdict.summary
    before = {s.name: s.digest for s in verdict.subjects if s.kind == "data"}
    with sqlite3.connect(tables / "flights.db") as database:  # what is trained on is what was validated
        database.execute("DELETE FROM train WHERE a > 0")
        database.execute("UPDATE holdout SET y = 1 - y")
    database.close()
    assert train(project).status is Status.PASSED
    judged = evaluate(project)
    assert judged.status is Status.PASSED, judged.summary
    assert {s.name: s.digest for s in judged.subjects if s.kind == "data"}.items() <= before.items()
    again = validate_data(project)
    assert {s.name: s.digest for s in again.subjects if s.kind == "data"} != before


def test_a_snapshot_that_somebody_planted_is_read_anew(tables: Path) -> None:
    assert validate_data(project_at(tables)).status is Status.PASSED
    folder = tables / ".mlcicd" / "data"
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    honest = (folder / "train.parquet").read_bytes()
    # Other bytes under an honest note; and a whole pair from elsewhere, as a commit could bring it.
    (folder / "train.parquet").write_bytes(kept["holdout.parquet"])
    train(project_at(tables))
    assert (folder / "train.parquet").read_bytes() == honest
    note = json.loads(kept["train.parquet.json"])
    (folder / "train.parquet").write_bytes(kept["holdout.parquet"])
    (folder / "train.parquet.json").write_text(json.dumps({**note, "seal": "0" * 64}))
    train(project_at(tables))
    assert (folder / "train.parquet").read_bytes() == honest


def test_another_origin_is_read_anew(tables: Path) -> None:
    validate_data(project_at(tables))
    change(tables / "mlcicd.yaml", "holdout: {table: holdout", "holdout: {table: train")
    assert evaluate(project_at(tables)).exit_code != 0
    note = json.loads((tables / ".mlcicd" / "data" / "holdout.parquet.json").read_text())
    assert note["origin"] == "table train"


def test_a_remote_file_is_a_data_set(root: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/train.csv", (root / "train.csv").read_bytes())
    change(root / "mlcicd.yaml", "train: train.csv", "train: memory://bucket/train.csv")
    verdict = validate_data(project_at(root))
    memory.store.clear()
    assert verdict.status is Status.PASSED, verdict.summary
    assert (root / ".mlcicd" / "data" / "train.csv").read_bytes() == (root / "train.csv").read_bytes()
    assert validate_data(project_at(root)).exit_code == 4


def test_monitor_reads_the_newest_rows_and_no_other_table(tables: Path) -> None:
    change(tables / "mlcicd.yaml", "current: holdout.csv", "current: {table: holdout, url: 'sqlite:///flights.db'}")
    folder, digests = tables / ".mlcicd" / "data", []
    for _ in range(2):
        assert "no champion" in monitor(project_at(tables)).summary
        digests.append(digest_file(folder / "current.parquet"))
        with sqlite3.connect(tables / "flights.db") as database:
            database.execute("UPDATE holdout SET a = a + 1")
        database.close()
    assert digests[0] != digests[1]
    assert sorted(path.name for path in folder.iterdir()) == ["current.parquet", "current.parquet.json"]


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("{table: t, url: 'postgresql://u:hunter22@h/d'}", "a password does not belong into this file"),
        ("https://u:hunter22@h/t.csv", "a password does not belong into an address"),
        ("{table: t}", "one of url and url_env"),
        ("{table: t, url_env: X, path: t.csv}", "a path or a table"),
        ("{path: t.csv, url_env: X}", "belong to a table"),
        ("{tabel: t}", "unknown key 'data.train.tabel'"),
        ("5", "expected a path, or a mapping"),
    ],
)
def test_the_configuration_says_what_is_wrong_and_no_password(root: Path, written: str, what: str) -> None:
    change(root / "mlcicd.yaml", "train: train.csv", f"train: {written}")
    with pytest.raises(ConfigError, match=what) as caught:
        load_project(root, environ=dict(os.environ))
    assert "hunter22" not in f"{caught.value} {caught.value.detail()}"


def test_an_unset_variable_is_an_error_only_where_the_table_is_read(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLIGHTS_DB")
    verdict = validate_data(project_at(tables))
    assert verdict.exit_code == 2
    assert "FLIGHTS_DB is not set" in verdict.summary


SCHEMA = """
version: 1
key: [id]
columns:
  id: {type: int, unique: true}
  a: {type: float, min: -4, max: 2}
  y: {type: int, in: [0, 1]}
rules: [{name: small, expression: a + b < 4, mostly: 0.9}]
"""


CHECKS = """checks: {
      leakage: {keys: [id]}, constant: {}, rows: {against: last}, population: {file: holdout.parquet},
      sources: {column: feed, max_rise: 0.05}, personal: {}, labels: {max_share: 0.001},
      serving: {examples: requests.jsonl},
      drift: {reference: train, max: 0.05, multivariate: 0.55, correlations: 0.1, slices: [feed],
              new_categories: 0.01}},
      target: y,"""


def with_more_columns(root: Path, name: str) -> None:
    """A set of the project as Parquet, with columns of text, missing values and NaN; the holdout's have moved."""
    import pyarrow as pa
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    table = pc.read_csv(root / f"{name}.csv")
    moved, rows = name == "holdout", range(table.num_rows)
    a = table["a"].to_pylist()
    feeds = (None, "it's", "north") if moved else (None, "it's", "west")
    table = table.append_column("feed", pa.array([feeds[(i * 7 % 5) // 2] for i in rows]))
    table = table.append_column(
        "m", pa.array([float("nan") if i % 9 == 0 else v + moved * i % 3 for i, v in enumerate(a)])
    )
    table = table.append_column("${y} ?", pa.array([f"user{i}@example.org" if i % 3 else None for i in rows]))
    pq.write_table(table, root / f"{name}.parquet")
    change(root / "mlcicd.yaml", f"{name}: {name}.csv", f"{name}: {name}.parquet")


def told(check: Check) -> dict[str, Any]:
    """A check without the rows that are shown (any five on Spark, without numbers), numbers to nine digits."""
    said = check.model_dump(mode="json")
    examples = said["details"].pop("examples", [])
    return {"examples": len(examples)} | {key: rounded(value) for key, value in said.items()}


def rounded(value: Any) -> Any:
    """Sums in another order differ in their last digits."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


@pytest.mark.slow
def test_the_same_configuration_on_spark(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train", "holdout"):
        with_more_columns(root, name)
    before = profile(open_source(root / "holdout.parquet"))
    monkeypatch.setattr("mlcicd.stages.data_checks.champion_profile", lambda *_: ("1", before))
    keys = "foreign_keys: [{columns: [id], file: train.parquet, key: [id]}]\n"
    (root / "schema.yaml").write_text(SCHEMA + keys)
    change(root / "mlcicd.yaml", "target: y,", f"schema: schema.yaml, {CHECKS}")
    here = validate_data(project_at(root))
    options = "spark.ui.enabled: 'false', spark.driver.extraJavaOptions: '-XX:TieredStopAtLevel=1'"
    options += ", spark.sql.shuffle.partitions: '2'"
    spark = f"target: y, engine: spark, spark: {{master: 'local[2]', options: {{{options}}}}},"
    change(root / "mlcicd.yaml", "target: y,", spark)
    there = validate_data(project_at(root))
    assert there.status is here.status is Status.FAILED, there.summary
    for ours, other in zip(here.checks, there.checks, strict=True):
        assert told(other) == told(ours)
    statuses = {check.name: check.status for check in here.checks}
    for name in ("train.a.range", "population.m", "sources.feed", "personal.${y} ?", "labels", "serving.defaults"):
        assert statuses[name] is CheckStatus.FAILED, name
    for name in ("drift.feed", "categories.feed", "drift of rows", "drift of correlations", "drift within feed"):
        assert statuses[name] is CheckStatus.FAILED, name
    kept = [{s.name: s.digest for s in verdict.subjects if s.kind == "data"} for verdict in (here, there)]
    assert kept[0] == kept[1]


def test_a_table_is_checked_where_it_is_and_nothing_of_it_is_kept(tables: Path) -> None:
    (tables / "schema.yaml").write_text(
        "version: 1\nkey: [id]\ncolumns: {a: {type: float}, y: {in: [0, 1]}}\n"
        "rules: [{name: sum, expression: a + b < 100}]\n"
    )
    change(tables / "mlcicd.yaml", "target: y,", "target: y, engine: database, schema: schema.yaml,")
    verdict = validate_data(project_at(tables))
    assert verdict.status is Status.PASSED, verdict.summary
    assert verdict.subject("data") is None
    table = verdict.subject("table", "train")
    assert table is not None
    assert (table.details["table"], table.details["product"]) == ("train", "sqlite")
    assert f"{table.details['rows']:,} train rows" in verdict.summary
    assert not (tables / ".mlcicd" / "data").exists()
    for stage in (train, evaluate):
        refused = stage(project_at(tables))
        assert refused.exit_code == 2
        assert "stays in its database" in refused.summary
    with sqlite3.connect(tables / "flights.db") as database:
        database.execute("UPDATE train SET y = 2 WHERE id % 10 = 0")
    database.close()
    failed = validate_data(project_at(tables))
    assert failed.status is Status.FAILED
    assert next(c for c in failed.checks if c.name == "train.y.in").details["examples"][0]["values"]["y"] == "2"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (
            "target: y,",
            "target: y, engine: database, checks: {leakage: {keys: [id]}},",
            "leakage can not run in a database",
        ),
        ("target: y,", "target: y, engine: database, checks: {drift: {}},", "drift can not run in a database"),
    ],
    ids=["leakage", "drift"],
)
def test_a_check_that_a_database_can_not_make_is_an_error(tables: Path, old: str, new: str, what: str) -> None:
    change(tables / "mlcicd.yaml", old, new)
    verdict = validate_data(project_at(tables))
    assert verdict.exit_code == 2
    assert what in verdict.summary


def test_the_engine_database_is_for_tables(root: Path) -> None:
    change(root / "mlcicd.yaml", "target: y,", "target: y, engine: database,")
    with pytest.raises(ConfigError, match="train and holdout must be tables"):
        load_project(root)
