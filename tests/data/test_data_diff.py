"""`mlcicd data diff`: two versions of a table, against a slow and obvious comparison of rows."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from support import git

from mlcicd.cli import cli
from mlcicd.core.errors import ConfigError, InputError
from mlcicd.data.diff import diff
from mlcicd.data.source import Source, open_source


def table(path: Path, columns: dict[str, Any]) -> Source:
    pq.write_table(pa.table(columns), path)
    return open_source(path)


def command(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["data", "diff", *arguments])
    return done.exit_code, done.output


VALUES = st.one_of(st.none(), st.sampled_from([0.0, 1.0, -1.5, math.nan, math.inf]))


@settings(max_examples=60, deadline=None)
@given(
    before=st.dictionaries(st.integers(0, 12), st.tuples(VALUES, st.sampled_from(["a", "b", None])), max_size=10),
    now=st.dictionaries(st.integers(0, 12), st.tuples(VALUES, st.sampled_from(["a", "b", None])), max_size=10),
)
def test_rows_are_those_of_a_comparison_by_hand(tmp_path_factory: Any, before: Any, now: Any) -> None:
    folder = tmp_path_factory.mktemp("diff")

    def write(name: str, rows: Any) -> Source:
        types = pa.schema([("id", pa.int64()), ("x", pa.float64()), ("s", pa.string())])
        columns = [list(rows), [v[0] for v in rows.values()], [v[1] for v in rows.values()]]
        pq.write_table(pa.table(columns, schema=types), folder / name)
        return open_source(folder / name)

    old, new = write("a.parquet", before), write("b.parquet", now)

    def same(a: Any, b: Any) -> bool:
        return a == b or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))

    both = set(before) & set(now)
    x = sum(not same(before[k][0], now[k][0]) for k in both)
    s = sum(before[k][1] != now[k][1] for k in both)
    changed = sum(not (same(before[k][0], now[k][0]) and before[k][1] == now[k][1]) for k in both)
    rows = diff(old, new, key=["id"]).rows
    assert (rows.added, rows.removed) == (len(set(now) - both), len(set(before) - both))
    assert (rows.changed, rows.same) == (changed, len(both) - changed)
    assert rows.columns == {name: count for name, count in (("x", x), ("s", s)) if count}

    without = diff(old, new).rows
    a = Counter((k, repr(v[0]), v[1]) for k, v in before.items())
    b = Counter((k, repr(v[0]), v[1]) for k, v in now.items())
    assert (without.added, without.removed) == ((b - a).total(), (a - b).total())
    assert without.same == (a & b).total()


def test_whole_rows_count_as_often_as_they_are_there(tmp_path: Path) -> None:
    old = table(tmp_path / "a.parquet", {"x": [1, 1, 1, 2]})
    new = table(tmp_path / "b.parquet", {"x": [1, 2, 2, 3]})
    rows = diff(old, new).rows
    assert (rows.added, rows.removed, rows.same, rows.before, rows.now) == (2, 2, 2, 4, 4)


def test_the_schema_is_told_first(tmp_path: Path) -> None:
    old = table(tmp_path / "a.parquet", {"id": [1, 2], "gone": [1, 1], "x": [1, 2], "s": ["1", "2"]})
    new = table(tmp_path / "b.parquet", {"x": [1.0, 2.5], "id": [1, 2], "new": [0, 0], "s": ["1", "2"]})
    found = diff(old, new, key=["id"])
    assert (found.schema.added, found.schema.removed) == (("new",), ("gone",))
    assert found.schema.retyped == (("x", "BIGINT", "DOUBLE"),)
    assert found.schema.reordered
    # A number that became another kind of number is the same number.
    assert found.rows.columns == {"x": 1}
    assert found.rows.examples["x"][0].key == ("2",)
    assert (found.rows.examples["x"][0].before, found.rows.examples["x"][0].now) == ("2", "2.5")


def test_equal_tables_have_no_difference(tmp_path: Path) -> None:
    old = table(tmp_path / "a.parquet", {"id": [1, 2], "x": [None, math.nan]})
    new = table(tmp_path / "b.parquet", {"id": [2, 1], "x": [math.nan, None]})
    assert not diff(old, new)
    assert not diff(old, new, key=["id"])
    assert command(str(old.path), str(new.path), "--exit-code")[0] == 0


def test_a_key_that_does_not_identify_is_an_error(tmp_path: Path) -> None:
    old = table(tmp_path / "a.parquet", {"id": [1, 1], "x": [1, 2]})
    new = table(tmp_path / "b.parquet", {"id": [1, 2], "x": [1, 2]})
    with pytest.raises(InputError, match="not unique in the version before"):
        diff(old, new, key=["id"])
    with pytest.raises(ConfigError, match="did you mean 'id'"):
        diff(old, new, key=["idd"])


def test_names_that_look_like_ours_and_like_sql(tmp_path: Path) -> None:
    names = ["id", "__side", "b", 'x" OR 1=1 --', "now"]
    old = table(tmp_path / "a.parquet", {name: [1, 2] for name in names})
    new = table(tmp_path / "b.parquet", {name: [1, 3 if name == "now" else 2] for name in names})
    rows = diff(old, new, key=["id"]).rows
    assert (rows.columns, rows.changed, rows.added, rows.removed) == ({"now": 1}, 1, 0, 0)


def test_empty_tables_and_tables_without_a_common_column(tmp_path: Path) -> None:
    old = table(tmp_path / "a.parquet", {"x": pa.array([], pa.int64())})
    new = table(tmp_path / "b.parquet", {"y": [1, 2]})
    rows = diff(old, new).rows
    assert (rows.before, rows.now, rows.added) == (0, 2, 2)
    assert not diff(old, old)


def test_sensitive_values_are_not_shown(tmp_path: Path) -> None:
    old = table(tmp_path / "a.parquet", {"id": ["anna@x.org"], "name": ["Anna"], "age": [30]})
    new = table(tmp_path / "b.parquet", {"id": ["anna@x.org"], "name": ["Anne"], "age": [31]})
    for form in ([], ["--json"], ["--markdown"]):
        code, text = command(str(old.path), str(new.path), "--key", "id", "--sensitive", "id,name", *form)
        assert code == 0, text
        assert "31" in text
        assert not any(secret in text for secret in ("Anna", "Anne", "anna"))


def test_markdown_holds_hostile_text_as_text(tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)> @team [a](http://x) | `x`"
    old = table(tmp_path / "a.parquet", {"id": [1], "s": ["a"], hostile: [1]})
    new = table(tmp_path / "b.parquet", {"id": [1], "s": [hostile]})
    _, text = command(str(old.path), str(new.path), "--key", "id", "--markdown")
    assert "<img" not in text
    assert "@team" not in text
    assert "](http" not in text
    assert all(line.count("|") in (0, 4) for line in text.splitlines()), text


def test_moved_columns_are_those_beyond_chance(tmp_path: Path) -> None:
    old = table(
        tmp_path / "a.parquet", {"still": [i % 7 for i in range(2000)], "moved": [0.0 + i for i in range(2000)]}
    )
    new = table(
        tmp_path / "b.parquet", {"still": [i % 7 for i in range(2000)], "moved": [900.0 + i for i in range(2000)]}
    )
    _, text = command(str(old.path), str(new.path))
    told = text[text.index("Jensen-Shannon") :]
    assert "moved: 0." in told
    assert "still" not in told


def test_a_path_against_its_revision_in_git(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    path = tmp_path / "data" / "d.csv"
    path.parent.mkdir()
    path.write_text("id,x\n1,1\n2,2\n")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "data")
    path.write_text("id,x\n1,1\n2,5\n3,3\n")
    code, text = command(str(path), "--rev", "main", "--key", "id", "--json", "--exit-code")
    assert code == 1, text
    rows = json.loads(text)["rows"]
    assert (rows["added"], rows["removed"], rows["changed"]) == (1, 0, 1)
    assert command(str(path), "--rev", "nowhere")[0] == 4
    assert command(str(path), "--rev", "--upload-pack=x")[0] == 4
    other = ["data", "diff", str(tmp_path / "data" / "other.csv"), "--rev", "main"]
    done = CliRunner().invoke(cli, other, env={"PATH": "/usr/bin:/bin"})
    assert (done.exit_code, "DVC is not installed" in done.output) == (5, True)


@pytest.mark.slow
def test_a_path_against_its_revision_in_dvc(tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    remote, project = tmp_path / "remote", tmp_path / "project"
    project.mkdir()
    folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}

    def dvc(*arguments: str) -> None:
        subprocess.run([folder / "dvc", *arguments], cwd=project, check=True, env=environment, capture_output=True)

    git(project, "init", "--quiet", "--initial-branch=main")
    dvc("init", "--quiet")
    dvc("remote", "add", "--default", "store", str(remote))
    path = project / "d.parquet"
    pq.write_table(pa.table({"id": [1, 2], "x": [1.0, 2.0]}), path)
    dvc("add", "d.parquet")
    dvc("push")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "data")
    pq.write_table(pa.table({"id": [1, 2], "x": [1.0, 2.5]}), path)
    done = CliRunner().invoke(
        cli, ["data", "diff", str(path), "--rev", "main", "--key", "id"], env={"PATH": environment["PATH"]}
    )
    assert done.exit_code == 0, done.output
    assert "x: 1 rows changed" in done.output
    assert "id 2: 2.0 -> 2.5" in done.output
    assert path.is_file()


@pytest.mark.parametrize("arguments", [[], ["a.parquet"], ["a.parquet", "b.parquet", "--rev", "main"]])
def test_two_versions_are_needed(arguments: list[str]) -> None:
    assert command(*arguments)[0] == 2
