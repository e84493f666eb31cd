"""What `data infer` writes: as a person would, and so that the table itself passes."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlcicd.data.checks import run_checks
from mlcicd.data.infer import infer_schema
from mlcicd.data.round_bounds import round_bounds
from mlcicd.data.schema import parse_schema
from mlcicd.data.source import Source, open_source

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(low=FINITE, high=FINITE, slack=st.sampled_from([0.0, 0.05, 0.1, 0.5]))
@example(low=0.1, high=0.3, slack=0.1)
@example(low=-1.7e308, high=1.7e308, slack=0.1)
@example(low=5e-324, high=5e-324, slack=0.1)
def test_bounds_of_floats_are_read_back_and_hold(low: float, high: float, slack: float) -> None:
    low, high = min(low, high), max(low, high)
    texts = round_bounds(low, high, slack)
    bottom, top = (yaml.safe_load(text) for text in texts)
    assert isinstance(bottom, int | float) and isinstance(top, int | float), texts
    assert bottom <= low and top >= high
    span = high - low or abs(high) or 1.0
    if 1e-3 < span < 1e9 and slack:
        assert low - 3 * slack * max(span, 1.0) - 1 <= bottom and top <= high + 3 * slack * max(span, 1.0) + 1
        assert all(len(text.strip("-").replace(".", "").strip("0")) <= 14 for text in texts)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_bounds_of_whole_numbers_hold_and_are_whole(a: int, b: int) -> None:
    bottom, top = (yaml.safe_load(text) for text in round_bounds(min(a, b), max(a, b), 0.1))
    assert type(bottom) is int and type(top) is int
    assert bottom <= min(a, b) and top >= max(a, b)
    assert bottom >= 0 or min(a, b) < 0


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 0.3, ("0.08", "0.32")),
        (-3.9, 4.2, ("-4.8", "5.1")),
        (0.02, 0.97, ("0", "1")),
        (1.0, 99.5, ("0", "100")),
        (3, 9990, ("0", "11000")),
        (0, 6, ("0", "7")),
        (-40, -1, ("-44", "0")),
        (2013, 2013, ("2012", "2014")),
        (1013.2, 1013.2, ("900", "1200")),
        (1e-9, 3e-9, ("8.0e-10", "3.2e-09")),
    ],
)
def test_bounds_are_those_of_a_person(low: float, high: float, expected: tuple[str, str]) -> None:
    assert round_bounds(low, high, 0.1) == expected


NAMES = ["id", "customerId", "label", "x", "value", "when", "name", "weird name: #1"]
CELLS: list[tuple[pa.DataType, Any]] = [
    (pa.int64(), st.integers(0, 1)),
    (pa.int64(), st.integers(-1000, 10**6)),
    (pa.int16(), st.integers(0, 50)),
    (pa.float64(), st.floats(0, 1)),
    (pa.float64(), st.floats()),
    (pa.float32(), st.floats(width=32)),
    (pa.float64(), st.sampled_from([0.0, 1.0])),
    (pa.decimal128(10, 2), st.decimals(-1000, 1000, places=2)),
    (pa.string(), st.sampled_from(["yes", "no", "1e5", "null", "A-1"])),
    (pa.string(), st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=5)),
    (pa.bool_(), st.booleans()),
    (pa.timestamp("us"), st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1))),
]


@settings(deadline=None, max_examples=12)
@given(data=st.data(), repeat=st.sampled_from([1, 1, 40]), text=st.booleans())
def test_a_generated_table_passes_its_own_schema(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, repeat: int, text: bool
) -> None:
    rows = data.draw(st.integers(1, 40))
    columns = {}
    for name in data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)):
        kind, cells = data.draw(st.sampled_from(CELLS))
        gaps = data.draw(st.booleans())
        values = st.none() | cells if gaps else cells
        columns[name] = pa.array(data.draw(st.lists(values, min_size=rows, max_size=rows)) * repeat, kind)
    folder = tmp_path_factory.mktemp("g")
    table = pa.table(columns)
    if text:
        pa.csv.write_csv(table, folder / "t.csv")
    else:
        pq.write_table(table, folder / "t.parquet")
    source = open_source(folder / ("t.csv" if text else "t.parquet"))
    if not source.rows:
        return  # a file of one column whose lines are all empty
    written = infer_schema(source)
    failed = [c for c in run_checks(source, parse_schema(written)) if c.status not in ("passed", "skipped")]
    assert failed == [], written


def source_of(folder: Path, **columns: Any) -> Source:
    pq.write_table(pa.table(columns), folder / "t.parquet")
    return open_source(folder / "t.parquet")


def test_keys_have_no_bounds_and_labels_are_lists(tmp_path: Path) -> None:
    n = 200
    source = source_of(
        tmp_path,
        order_id=list(range(n)),
        customerId=[i % 40 for i in range(n)],
        label=[i % 2 for i in range(n)],
        flag=[float(i % 3 == 0) if i % 10 else None for i in range(n)],
        share=[i / n for i in range(n)],
        salary=[20_000 + 731 * i for i in range(n)],
        always=[1] * n,
    )
    schema = parse_schema(infer_schema(source))
    assert schema.key == ["order_id"]
    for name in ("order_id", "customerId"):
        assert schema.columns[name].min is None and schema.columns[name].max is None
    assert schema.columns["label"].members == schema.columns["flag"].members == [0, 1]
    assert (schema.columns["share"].min, schema.columns["share"].max) == (0, 1)
    # Without repeats, but a measurement: the next table may repeat one.
    assert not schema.columns["salary"].unique and schema.columns["salary"].max == 190000
    assert schema.columns["always"].members is None
    assert not any(len(part) > 10 and part.count("0") > 8 for part in infer_schema(source).split())


def test_what_is_not_only_zero_and_one_is_no_label(tmp_path: Path) -> None:
    odd = source_of(tmp_path, a=[0.0, 1.0, math.nan], b=[0.0, 1.0, math.inf], c=[0, 1, 2], d=[0.0, 0.5, 1.0])
    schema = parse_schema(infer_schema(odd))
    assert [schema.columns[n].members for n in "abcd"] == [None] * 4
