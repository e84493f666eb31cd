"""Values counted by cell, their mean and deviation, against numpy and the careful rounding of each value by itself."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcicd.core.errors import InputError
from mlcicd.data.cells import count_categories, count_cells
from mlcicd.data.histogram import Histogram, rounding_sql
from mlcicd.data.number_batches import number_batches
from mlcicd.data.number_counts import NumberCounts, count_numbers
from mlcicd.data.profile import profile
from mlcicd.data.source import Source, open_source

HARD = [0.0, -0.0, 5e-324, -1e-300, 9.9e-291, 1.1e-290, 1.1e290, -3e291, 1e296, -1.7e308, math.nan, math.inf, -math.inf]
NUMBERS = st.lists(st.none() | st.sampled_from(HARD) | st.floats() | st.floats(999, 1001), max_size=40)


def table(path: Path, values: list[float | None]) -> Source:
    pq.write_table(pa.table({"x": pa.array(values, pa.float64())}), path)
    return open_source(path)


@settings(deadline=None, max_examples=20)
@given(values=NUMBERS)
def test_cells_agree_with_the_careful_rounding_of_each_value(
    tmp_path_factory: pytest.TempPathFactory, values: list[float | None]
) -> None:
    source = table(tmp_path_factory.mktemp("c") / "t.parquet", values)
    careful = [row[0] for row in source.fetch(f"SELECT {rounding_sql('x')} FROM data")]
    got = count_cells(source, "x")
    assert got.counts == Counter(cell for cell in careful if cell is not None)
    assert got.nan == sum(v is not None and math.isnan(v) for v in values)
    assert got.infinite == sum(v is not None and math.isinf(v) for v in values)
    assert got.present == sum(v is not None for v in values)
    numbers = count_numbers(source, "x")
    assert numbers.histogram() == Histogram.of_rounded(got.counts)
    assert (numbers.values, numbers.nan, numbers.infinite) == (got.present, got.nan, got.infinite)


@settings(deadline=None, max_examples=60)
@given(batches=st.lists(st.lists(st.sampled_from(HARD) | st.floats(), max_size=20), max_size=6))
def test_numbers_counted_in_batches_are_those_counted_at_once(batches: list[list[float]]) -> None:
    values = np.array([v for batch in batches for v in batch])
    parts, whole = NumberCounts(), NumberCounts()
    for batch in batches:
        parts.add(np.array(batch, dtype=np.float64))
    whole.add(values)
    assert parts.histogram() == whole.histogram()
    assert (parts.values, parts.nan, parts.infinite) == (whole.values, whole.nan, whole.infinite)
    assert (parts.low, parts.high) == (whole.low, whole.high)
    clamped = np.clip(values[np.isfinite(values)], -1e150, 1e150)
    if len(clamped):
        size = float(np.abs(clamped).max())
        for one in (parts, whole):
            assert one.mean == pytest.approx(float(clamped.mean()), rel=1e-12, abs=1e-12 * size)
            assert one.deviation == pytest.approx(
                float((clamped / (size or 1)).std()) * size, rel=1e-9, abs=1e-9 * size
            )


def test_batches_hold_every_value_that_is_there_in_order(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    values, missing = random.normal(size=300_001), random.random(300_001) < 0.3
    pq.write_table(pa.table({"x": pa.array(values, mask=missing)}), tmp_path / "t.parquet", row_group_size=70_001)
    batches = [batch.copy() for batch in number_batches(open_source(tmp_path / "t.parquet"), "x")]
    assert len(batches) > 1
    assert np.array_equal(np.concatenate(batches), values[~missing])


def test_a_column_that_is_broken_in_the_middle_is_an_error_of_the_file(tmp_path: Path) -> None:
    source = table(tmp_path / "t.parquet", list(np.random.default_rng(7).normal(size=50_000)))
    content = bytearray(source.path.read_bytes())
    content[4:-2_000] = b"\xff" * (len(content) - 2_004)
    source.path.write_bytes(content)
    with pytest.raises(InputError, match="can not be read") as caught:
        profile(source)
    assert caught.value.why


@settings(deadline=None, max_examples=15)
@given(
    values=st.lists(st.floats(-1, 1), min_size=1, max_size=30),
    middle=st.sampled_from([0.0, 1.0, -1e3, 1e9, 1e200]),
    scale=st.sampled_from([1.0, 1e-6, 1e6]),
    odd=st.lists(st.sampled_from([None, math.nan, math.inf]), max_size=3),
)
def test_mean_and_deviation_agree_with_numpy(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[float],
    middle: float,
    scale: float,
    odd: list[float | None],
) -> None:
    finite = [middle + scale * value for value in values]
    got = profile(table(tmp_path_factory.mktemp("m") / "t.parquet", [*finite, *odd])).columns["x"]
    clamped = np.clip(np.array(finite), -1e150, 1e150)
    exact = np.array([float(v) for v in clamped], dtype=np.longdouble)
    size = float(np.abs(clamped).max())
    assert got.mean == pytest.approx(float(exact.mean()), rel=1e-12, abs=1e-12 * size)
    assert got.deviation == pytest.approx(float(exact.std()), rel=1e-9, abs=1e-13 * size)
    assert (got.low, got.high) == (min(finite), max(finite))
    assert got.nulls == odd.count(None)
    if len(set(clamped)) == 1:
        assert got.deviation == 0.0


def test_the_deviation_keeps_its_digits_far_from_zero(tmp_path: Path) -> None:
    values = 1e6 + np.random.default_rng(0).normal(0, 1e-3, 5000)
    got = profile(table(tmp_path / "t.parquet", list(values))).columns["x"]
    assert got.deviation == pytest.approx(float(values.std()), rel=1e-7)


@settings(deadline=None, max_examples=20)
@given(values=st.lists(st.none() | st.sampled_from(["a", "", "é" * 5, "éé", "x" * 9, "xxxxy", "xxxxz"]), max_size=30))
def test_categories_agree_with_python(tmp_path_factory: pytest.TempPathFactory, values: list[str | None]) -> None:
    path = tmp_path_factory.mktemp("k") / "t.parquet"
    pq.write_table(pa.table({"s": pa.array(values, pa.string())}), path)
    assert count_categories(open_source(path), "s", 4) == Counter(v[:4] for v in values if v is not None)
