"""`data infer`, `diff`, `suggest-drift` on tables and remote files: what they say of a file of the same rows."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner

from mlcicd.cli import cli
from mlcicd.data.checks import run_checks
from mlcicd.data.schema import parse_schema
from mlcicd.data.source import open_source
from mlcicd.stages.located import located

ROWS = [(n, n % 7 / 2, "abc"[n % 3], f"2024-{1 + n // 250:02d}-0{1 + n % 9}") for n in range(1000)]
TABLE = "our \nflights"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same rows in a file, a table and a remote file; later rows are in the table `now`."""
    text = "id,x,s,day\n" + "".join(",".join(map(str, row)) + "\n" for row in ROWS)
    (tmp_path / "t.csv").write_text(text)
    with sqlite3.connect(tmp_path / "it's a.db") as database:
        for name, rows in ((TABLE, ROWS), ("now", [*ROWS[1:], (1000, 99.5, "d", "2024-05-01")])):
            database.execute(f'CREATE TABLE "{name}" (id INTEGER, x REAL, s TEXT, day DATE)')
            database.executemany(f'INSERT INTO "{name}" VALUES (?, ?, ?, ?)', rows)
    database.close()
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pipe("/lake/t.csv", text.encode())
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("OUR_DB", "sqlite:///it's a.db")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    system.store.clear()
    assert not list((tmp_path / "tmp").iterdir()), "copies are left behind"


def command(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["data", *arguments])
    return done.exit_code, done.output


def test_a_schema_is_inferred_alike_wherever_the_rows_are(places: Path) -> None:
    code, of_file = command("infer", "t.csv")
    assert code == 0, of_file
    for place, name in ((f"table:{TABLE}@OUR_DB", "table our flights"), ("memory://lake/t.csv", "t.csv")):
        code, text = command("infer", place)
        assert code == 0, text
        assert text.splitlines()[0].startswith(f"# Inferred from {name} (1,000 rows)")
        assert text.splitlines()[1:] == of_file.splitlines()[1:]
    assert all(check.status != "failed" for check in run_checks(open_source(places / "t.csv"), parse_schema(of_file)))
    assert command("infer", f"table:{TABLE}@OUR_DB", "-o", "schema.yaml")[0] == 0
    assert (places / "schema.yaml").read_text() == command("infer", f"table:{TABLE}@OUR_DB")[1]


def test_versions_are_compared_wherever_they_are(places: Path) -> None:
    for before in ("t.csv", "memory://lake/t.csv", f"table:{TABLE}@OUR_DB"):
        code, text = command("diff", before, "table:now@OUR_DB", "--key", "id", "--exit-code")
        assert code == 1, text
        assert "1 added, 1 removed, 0 changed, 999 the same (by id)" in text
        assert "table now" in text.splitlines()[0]
    assert "memory://lake/t.csv -> t.csv" in command("diff", "memory://lake/t.csv", "t.csv")[1]


def test_bounds_of_drift_are_suggested_from_a_table(places: Path) -> None:
    code, text = command("suggest-drift", f"table:{TABLE}@OUR_DB", "--time", "day", "--ignore", "id")
    assert code == 0, text
    assert text.splitlines()[0].startswith("# From table our flights: each month of day")
    assert (
        text.splitlines()[1:]
        == command("suggest-drift", "t.csv", "--time", "day", "--ignore", "id")[1].splitlines()[1:]
    )


@pytest.mark.parametrize(
    ("place", "code", "what"),
    [
        ("table:now", 2, "a table needs the variable"),
        ("table:@OUR_DB", 2, "a table needs the variable"),
        ("table:now@UNSET_DB", 2, "the variable UNSET_DB is not set"),
        ("table:nwo@OUR_DB", 4, "did you mean 'now'"),
        ("https://u:hunter22@127.0.0.1:1/t.csv", 2, "a password does not belong"),
        ("memory://lake/none.csv", 4, "nothing is there"),
        ("none.csv", 4, "none.csv"),
    ],
)
def test_what_is_not_there_is_told_without_a_secret(places: Path, place: str, code: int, what: str) -> None:
    found, text = command("infer", place)
    assert (found, what in text) == (code, True), text
    assert "hunter22" not in text


def test_what_is_read_is_named_by_where_it_is_from(places: Path) -> None:
    with located("table:now@OUR_DB", {"OUR_DB": "sqlite:///it's a.db"}) as source:
        assert (str(source.path), source.rows) == ("table now", 1000)
