"""Distinct keys, counted in a bitmap where they are whole numbers of a narrow span, against Python's sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcicd.data import uniqueness
from mlcicd.data.checks import run_checks
from mlcicd.data.schema import parse_schema
from mlcicd.data.source import open_source

SCHEMA = parse_schema("version: 1\ncolumns: {x: {unique: true, nulls: 1}}")
EDGES = {
    pa.int8(): (-(2**7), 2**7 - 1),
    pa.int64(): (-(2**63), 2**63 - 1),
    pa.uint16(): (0, 2**16 - 1),
    pa.uint64(): (0, 2**64 - 1),
}


def counted(path: Path, values: list[int | None], kind: pa.DataType) -> dict[str, Any]:
    pq.write_table(pa.table({"x": pa.array(values, kind)}), path, row_group_size=7)
    found = {check.name: check for check in run_checks(open_source(path), SCHEMA)}
    return found["train.x.unique"].details


@settings(deadline=None, max_examples=25)
@given(data=st.data(), kind=st.sampled_from(list(EDGES)))
def test_distinct_whole_numbers_agree_with_python(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: pa.DataType
) -> None:
    low, high = EDGES[kind]
    near = st.sampled_from([low, (low + high) // 2, high - 40]).flatmap(lambda start: st.integers(start, start + 40))
    values = data.draw(st.lists(st.none() | near, max_size=40))
    got = counted(tmp_path_factory.mktemp("u") / "t.parquet", values, kind)
    present = [value for value in values if value is not None]
    assert (got["checked"], got["distinct"]) == (len(present), len(set(present)))
    assert got["excess_rows"] == len(present) - len(set(present))


@pytest.mark.parametrize("bits", [1, 2**27], ids=["grouped", "bitmap"])
def test_both_ways_of_counting_give_the_same_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    monkeypatch.setattr(uniqueness, "_BITS_A_THREAD", bits)
    asked = []
    fetch = uniqueness.Source.fetch
    monkeypatch.setattr(uniqueness.Source, "fetch", lambda *given: (asked.append(given[1]), fetch(*given))[1])
    values = [(number * 7919) % 5003 for number in range(6000)]
    got = counted(tmp_path / "t.parquet", values, pa.int64())
    assert got["distinct"] == len(set(values)) == 5003
    assert got["examples"] == [{"values": {"x": str(value)}, "rows": 2} for value in sorted(values[5003:])[:5]]
    assert any("bitstring_agg" in sql for sql in asked) == (bits > 1)


def test_a_span_much_wider_than_the_rows_makes_no_bitmap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    fetch = uniqueness.Source.fetch
    monkeypatch.setattr(uniqueness.Source, "fetch", lambda *given: (asked.append(given[1]), fetch(*given))[1])
    got = counted(tmp_path / "t.parquet", [0, 100_000_000, 100_000_000], pa.int64())
    assert (got["checked"], got["distinct"]) == (3, 2)
    assert not any("bitstring_agg" in sql for sql in asked)
