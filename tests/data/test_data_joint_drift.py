"""Rows, correlations, slices and periods: against slow readings, and on tables whose columns hide it."""

from __future__ import annotations

import json
import math
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from mlcicd.cli import cli
from mlcicd.config.data import Drift
from mlcicd.core.errors import ConfigError, InputError
from mlcicd.data.drift import drift
from mlcicd.data.joint_drift import (
    _auc,
    _spearman,
    correlation_changes,
    correlation_check,
    separation,
    separation_check,
)
from mlcicd.data.profile import Profile, profile
from mlcicd.data.row_sample import KEPT, RowSample, codes_for, row_sample
from mlcicd.data.slices import by_value, slice_profiles
from mlcicd.data.source import Source, open_source
from mlcicd.data.suggest_drift import suggest_drift

ROW = st.tuples(
    st.none() | st.sampled_from([math.nan, math.inf, -2.0, 0.0, 1.0, 1.5, 7.0]),
    st.none() | st.sampled_from(["a", "b", "ü'"]),
    st.sampled_from(["x", "y", "z"]) | st.none(),
)


def table(path: Path, rows: list[Any] | pd.DataFrame) -> Source:
    if isinstance(rows, pd.DataFrame):
        rows.to_parquet(path)
    else:
        x, s, by = (list(column) for column in zip(*rows, strict=True))
        strings = {"s": pa.array(s, pa.string()), "by": pa.array(by, pa.string())}
        pq.write_table(pa.table({"x": pa.array(x, pa.float64()), **strings}), path)
    return open_source(path)


@settings(deadline=None, max_examples=8)
@given(rows=st.lists(ROW, min_size=1, max_size=30))
def test_codes_agree_with_python(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    source = table(tmp_path_factory.mktemp("r") / "t.parquet", rows)
    codes = codes_for(profile(source).columns)
    sample = RowSample.from_json(json.loads(json.dumps(row_sample(source, codes).to_json())))
    expected: list[tuple[int, ...]] = []
    for row in rows if codes else []:
        coded = []
        for value, (name, code) in zip(row, ((n, codes.get(n)) for n in ("x", "s", "by")), strict=True):
            if code is None:
                continue
            if value is None or (name == "x" and not math.isfinite(value)):
                coded.append(0)
            elif name == "x":
                coded.append(1 + sum(edge <= value for edge in code.edges))
            else:
                coded.append(1 + code.names.index(value))
        expected.append(tuple(coded))
    assert Counter(map(tuple, sample.rows.tolist())) == Counter(expected)


def test_a_sample_is_even_small_and_always_the_same(tmp_path: Path) -> None:
    source = table(tmp_path / "t.parquet", pd.DataFrame({"x": np.arange(50_000.0)}))
    codes = codes_for(profile(source).columns)
    sample = row_sample(source, codes)
    assert len(sample.rows) == KEPT and len(json.dumps(sample.to_json())) < 10_000
    assert (sample.rows == row_sample(source, codes).rows).all()
    assert stats.chisquare(np.bincount(sample.rows[:, 0])[1:]).pvalue > 0.001  # equal mass, evenly drawn


def test_merged_samples_have_each_its_share(tmp_path: Path) -> None:
    sources = [
        table(tmp_path / f"{n}.parquet", pd.DataFrame({"x": [v] * n})) for n, v in ((30_000, 1.0), (10_000, 2.0))
    ]
    codes = codes_for(profile(sources[0]).merge(profile(sources[1])).columns)
    merged = row_sample(sources[0], codes).merge(row_sample(sources[1], codes))
    assert merged.total == 40_000
    assert np.mean(merged.rows == 1) == pytest.approx(0.75, abs=0.001)
    with pytest.raises(ValueError, match="different codes"):
        merged.merge(row_sample(sources[1], codes_for(profile(sources[1]).columns)))


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=100, max_size=200))
def test_spearman_agrees_with_scipy(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(side, dtype=np.uint8) for side in zip(*pairs, strict=True))
    there = (a > 0) & (b > 0)
    got, n = _spearman(a, b)
    assert n == there.sum()
    if n >= 100 and np.ptp(a[there]) and np.ptp(b[there]):
        assert got == pytest.approx(stats.spearmanr(a[there], b[there]).statistic, abs=1e-12)
    else:
        assert got is None


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=30), st.lists(st.integers(0, 6), min_size=2, max_size=30))
def test_auc_and_its_variance_agree_with_every_pair(p: list[int], n: list[int]) -> None:
    auc, interval = _auc(np.array(p, float), np.array(n, float))
    assert auc == pytest.approx(roc_auc_score([1] * len(p) + [0] * len(n), p + n))
    wins = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in n] for a in p])
    variance = wins.mean(axis=1).var(ddof=1) / len(p) + wins.mean(axis=0).var(ddof=1) / len(n)
    assert interval[1] == pytest.approx(min(auc + 1.959963984540054 * math.sqrt(variance), 1.0))


def pairs(seed: int, rows: int, correlation: float) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    a, b = draw.normal(size=(2, rows))
    word = draw.choice(["u", "v"], rows)
    return pd.DataFrame({"a": a, "b": correlation * a + math.sqrt(1 - correlation**2) * b, "c": word})


def samples(folder: Path, before: pd.DataFrame, after: pd.DataFrame) -> tuple[RowSample, RowSample]:
    reference, current = table(folder / "a.parquet", before), table(folder / "b.parquet", after)
    first = row_sample(reference, codes_for(profile(reference).columns))
    return first, row_sample(current, first.columns)


@pytest.mark.slow
def test_columns_that_change_together_are_found_where_no_column_moves(tmp_path: Path) -> None:
    both = samples(tmp_path, pairs(1, 5000, 0.8), pairs(2, 5000, -0.8))
    rows = separation_check(separation(*both), max=0.6)
    assert rows.status == "failed" and isinstance(rows.observed, float) and rows.observed > 0.8
    assert max(rows.details["alone"].values()) < 0.55
    correlation = correlation_check(correlation_changes(*both), max=0.2)
    assert correlation.status == "failed" and correlation.details["columns"] == ["a", "b"]
    alone = drift(profile(open_source(tmp_path / "a.parquet")), open_source(tmp_path / "b.parquet"))
    assert max(result.js or 0.0 for result in alone) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("rows", [150, 3000])
def test_two_samples_of_one_population_are_not_told_apart(tmp_path: Path, rows: int) -> None:
    both = samples(tmp_path, pairs(3, rows, 0.5), pairs(4, rows, 0.5))
    assert separation_check(separation(*both), max=0.6).status == "passed"
    assert correlation_check(correlation_changes(*both), max=0.2).status in ("passed", "inconclusive")
    assert correlation_check([], max=0.2).status == "skipped"
    with pytest.raises(ValueError, match="fewer than 100 rows"):
        separation(both[0], RowSample(both[0].columns, both[0].rows[:50], 50))


@settings(deadline=None, max_examples=8)
@given(rows=st.lists(ROW, min_size=1, max_size=30))
def test_slices_are_profiles_of_their_rows(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("s")
    source = table(folder / "t.parquet", rows)
    whole = profile(source)
    got = slice_profiles(source, by_value("by"), whole, names=["x", "y", "z"])
    assert set(got) == {row[2] for row in rows} - {None}
    for name, one in got.items():
        own = profile(table(folder / f"{name}.parquet", [row for row in rows if row[2] == name]), like=whole)
        assert one.rows == own.rows
        for column, expected in own.columns.items():
            found = one.columns[column]
            for part in ("rows", "nulls", "nan", "infinite", "categories", "histogram"):
                assert getattr(found, part) == getattr(expected, part), (column, part)
            assert found.mean == pytest.approx(expected.mean) and found.deviation == pytest.approx(expected.deviation)


def seasons(months: int) -> pd.DataFrame:
    """A temperature that follows the year, noise that does not, and a batch number that is new every month."""
    draw = np.random.default_rng(7)
    parts = []
    for month in range(months):
        n = 400
        start = datetime(2023, 1, 1) + timedelta(days=31 * month)
        parts.append(
            pd.DataFrame(
                {
                    "t": [start + timedelta(hours=int(h)) for h in draw.integers(0, 600, n)],
                    "temp": draw.normal(10 - 10 * math.cos(month / 6 * math.pi), 5, n),
                    "noise": draw.normal(size=n),
                    "batch": [f"b{month}"] * n,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


@pytest.mark.slow
def test_suggested_bounds_let_the_past_pass(tmp_path: Path) -> None:
    frame = seasons(6)
    source = table(tmp_path / "t.parquet", frame)
    found = {one.column: one for one in suggest_drift(source, "t")}
    assert list(found) == ["batch", "temp", "noise"] and found["batch"].always
    assert found["noise"].bound < 0.25 < found["temp"].bound
    months = [part for _, part in frame.groupby(frame["t"].dt.to_period("M"))]
    months = [part for part in months if len(part) >= 200]
    for number in range(1, len(months)):
        past = profile(table(tmp_path / "past.parquet", pd.concat(months[:number])))
        slow = {r.column: r.js for r in drift(past, table(tmp_path / "now.parquet", months[number]))}
        for name in ("temp", "noise"):
            assert found[name].moved[number - 1] == pytest.approx(slow[name], abs=1e-6)
            assert (slow[name] or 0.0) < found[name].bound


def test_suggestions_are_a_section_of_the_configuration(tmp_path: Path) -> None:
    table(tmp_path / "t.parquet", seasons(6))
    command = ["data", "suggest-drift", str(tmp_path / "t.parquet"), "--time", "t"]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    section = yaml.safe_load(done.output)
    rule = Drift.model_validate(section["drift"])
    assert rule.ignore == ["batch"] and set(rule.columns) == {"temp", "noise"}
    again = CliRunner().invoke(cli, [*command, "--metric", "wasserstein", "--ignore", "batch"], catch_exceptions=False)
    assert "batch" not in again.output


def test_what_has_no_periods_is_told(tmp_path: Path) -> None:
    source = table(tmp_path / "t.parquet", seasons(2))
    with pytest.raises(InputError, match="a bound needs 3"):
        suggest_drift(source, "t")
    with pytest.raises(ConfigError, match="no time"):
        suggest_drift(source, "temp")
    with pytest.raises(ConfigError, match="did you mean 'temp'"):
        suggest_drift(source, "tmep")


def test_a_profile_keeps_its_rows_and_slices(tmp_path: Path) -> None:
    source = table(tmp_path / "t.parquet", pairs(1, 2000, 0.5))
    made = profile(source)
    whole = Profile(
        made.rows,
        made.columns,
        sample=row_sample(source, codes_for(made.columns)),
        slices={"c": slice_profiles(source, by_value("c"), made)},
    )
    text = json.dumps(whole.to_json())
    again = Profile.from_json(json.loads(text))
    assert again.sample is not None and whole.sample is not None
    assert (again.sample.rows == whole.sample.rows).all() and again.sample.columns == whole.sample.columns
    assert set(again.slices["c"]) == {"u", "v"} and again.slices["c"]["u"].rows == whole.slices["c"]["u"].rows
    doubled = again.merge(again)
    assert doubled.slices["c"]["u"].rows == 2 * whole.slices["c"]["u"].rows
    assert doubled.sample is not None and doubled.sample.total == 4000
