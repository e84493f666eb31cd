"""The rows that are shown for a failed rule: the first five of the file that violate it, in every format."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcicd.data.checks import run_checks
from mlcicd.data.schema import parse_schema
from mlcicd.data.source import Source, open_source

SCHEMA = parse_schema(
    "version: 1\ncolumns:\n  x: {min: 0, max: 5}\n  s: {in: [a, b], nulls: 1}\n"
    "rules: [{name: r, expression: x > 2, where: s = 'a'}]"
)


def shown(source: Source) -> dict[str, list[int]]:
    checks = run_checks(source, SCHEMA, name="t")
    return {check.name: [row["row"] for row in check.details.get("examples", [])] for check in checks}


@settings(deadline=None, max_examples=20)
@given(
    rows=st.lists(st.tuples(st.integers(-2, 7), st.sampled_from(["a", "b", "c", "d"])), min_size=1, max_size=60),
    text=st.booleans(),
)
def test_the_first_five_rows_agree_with_python(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str]], text: bool
) -> None:
    table = pa.table({"x": [x for x, _ in rows], "s": [s for _, s in rows]})
    folder = tmp_path_factory.mktemp("e")
    if text:
        pyarrow.csv.write_csv(table, folder / "t.csv")
    else:
        pq.write_table(table, folder / "t.parquet", row_group_size=4)
    found = shown(open_source(folder / ("t.csv" if text else "t.parquet")))
    bad = {
        "t.x.range": [not 0 <= x <= 5 for x, _ in rows],
        "t.s.in": [s not in ("a", "b") for _, s in rows],
        "t.rule.r": [s == "a" and not x > 2 for x, s in rows],
    }
    for name, violated in bad.items():
        assert found[name] == [number for number, wrong in enumerate(violated, 1) if wrong][:5], name


def test_a_later_row_group_does_not_come_first(tmp_path: Path) -> None:
    """Threads read groups of rows at once; those that end early must not get their rows into the report."""
    rows = 400_000
    x = pa.array([9.0 if i in (7, 250_000, 399_999) else 1.0 for i in range(rows)])
    pq.write_table(pa.table({"x": x, "s": pa.array(["a"] * rows)}), tmp_path / "t.parquet", row_group_size=50_000)
    assert shown(open_source(tmp_path / "t.parquet"))["t.x.range"] == [8, 250_001, 400_000]


def test_nan_that_the_statistics_of_parquet_leave_out_is_shown(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0, math.nan, 2.0], "s": ["a", None, "b"]}), tmp_path / "t.parquet")
    found = shown(open_source(tmp_path / "t.parquet"))
    assert found["t.x.range"] == found["t.x.nulls"] == [2]
