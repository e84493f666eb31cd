"""Foreign keys against a slow reading in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.verdict import Check
from mlcicd.data.checks import run_checks
from mlcicd.data.schema import parse_schema
from mlcicd.data.source import open_source

PART = st.none() | st.integers(0, 4)
TEXT = st.none() | st.sampled_from(["a", "b", "a'b", "", "é"])


def check(folder: Path, rules: str, *, columns: str = "") -> Check:
    schema = parse_schema(f"version: 1\n{columns}foreign_keys: [{rules}]", file=str(folder / "schema.yaml"))
    return next(c for c in run_checks(open_source(folder / "t.parquet"), schema) if "foreign_key" in c.name)


def write(folder: Path, rows: list[Any], known: list[Any], kind: pa.DataType) -> None:
    for name, table in (("t", rows), ("other", known)):
        a, s = ([row[i] for row in table] for i in range(2))
        first = pa.array(a, pa.int64()) if name == "t" else pa.array(a, pa.int64()).cast(kind)
        pq.write_table(pa.table({"a": first, "s": pa.array(s, pa.string())}), folder / f"{name}.parquet")


@settings(deadline=None, max_examples=12)
@given(
    rows=st.lists(st.tuples(PART, TEXT), max_size=20),
    known=st.lists(st.tuples(PART, TEXT), max_size=10),
    kind=st.sampled_from([pa.int64(), pa.int8(), pa.float64(), pa.string()]),
    mostly=st.sampled_from([1.0, 0.5, 0.1]),
)
def test_agrees_with_python(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], known: list[Any], kind: pa.DataType, mostly: float
) -> None:
    folder = tmp_path_factory.mktemp("f")
    write(folder, rows, known, kind)
    got = check(folder, f"{{columns: [a, s], file: other.parquet, mostly: {mostly}}}")
    whole = [row for row in rows if None not in row]
    dangling = [row for row in whole if row not in known]
    assert (got.details["checked"], got.details["violations"]) == (len(whole), len(dangling))
    too_many = len(dangling) * 10 > round((1 - mostly) * 10) * len(whole)
    assert got.status == ("skipped" if not whole else "failed" if too_many else "passed")
    for example in got.details.get("examples", []):
        shown = (int(example["values"]["a"]), example["values"]["s"])
        assert dangling.count(shown) == example["rows"]


def test_whole_numbers_that_no_double_holds_are_not_their_neighbours(tmp_path: Path) -> None:
    beyond = 2**53 + 1
    pq.write_table(pa.table({"a": pa.array([beyond, 1, -3], pa.int64())}), tmp_path / "t.parquet")
    known = pa.array([float(beyond), 1.0, None, -3.5, float("inf")], pa.float64())
    pq.write_table(pa.table({"a": known}), tmp_path / "other.parquet")
    got = check(tmp_path, "{columns: [a], file: other.parquet}")
    assert [example["values"]["a"] for example in got.details["examples"]] == ["-3", str(beyond)]


def test_a_code_with_leading_zeros_is_text_on_both_sides(tmp_path: Path) -> None:
    pq.write_table(pa.table({"code": ["007", "7"]}), tmp_path / "t.parquet")
    (tmp_path / "codes.csv").write_text("id\n007\n008\n")
    got = check(tmp_path, "{columns: [code], file: codes.csv, key: [id]}")
    assert [e["values"]["code"] for e in got.details["examples"]] == ["7"]


def test_sensitive_keys_are_not_shown(tmp_path: Path) -> None:
    pq.write_table(pa.table({"code": ["secret"]}), tmp_path / "t.parquet")
    (tmp_path / "codes.csv").write_text("code\nx\n")
    got = check(tmp_path, "{columns: [code], file: codes.csv}", columns="columns: {code: {sensitive: true}}\n")
    assert got.status == "failed"
    assert "secret" not in got.model_dump_json()


def test_what_can_not_be_compared_is_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"code": ["x"]}), tmp_path / "t.parquet")
    (tmp_path / "codes.csv").write_text("id\nx\n")
    with pytest.raises(ConfigError, match=r"schema\.yaml:2.*has no column 'code'"):
        check(tmp_path, "{columns: [code], file: codes.csv}")
    with pytest.raises(InputError, match=r"none\.csv"):
        check(tmp_path, "{columns: [code], file: none.csv}")
    with pytest.raises(ConfigError, match="can not refer to a key of 2"):
        check(tmp_path, "{columns: [code], file: codes.csv, key: [id, x]}")
    assert "not in the data" in check(tmp_path, "{columns: [z], file: codes.csv, key: [id]}").reason
