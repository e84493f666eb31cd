"""Profiles and drift against scipy and against slow readings of the same definitions."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2, ks_2samp, wasserstein_distance

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.data.distances import (
    chi_square_quantile,
    equal_mass_bins,
    js,
    psi,
    total_variation,
)
from mlcicd.data.drift import DriftResult, drift, drift_checks
from mlcicd.data.figures import drift_figures
from mlcicd.data.histogram import FINE_BITS, Histogram, centres
from mlcicd.data.profile import ColumnProfile, Profile, profile
from mlcicd.data.source import Source, open_source

ROWS = 40_000


def table(path: Path, columns: dict[str, Any]) -> Source:
    pq.write_table(pa.table(columns), path)
    return open_source(path)


def numbers(seed: int, shift: float = 0.0, rows: int = ROWS) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "normal": random.normal(shift, 1, rows),
        "skewed": random.lognormal(shift, 1.5, rows),
        "whole": random.poisson(20 + 10 * shift, rows),
        "tiny": random.normal(shift, 1, rows) * 1e-12,
        "single": random.normal(shift, 1, rows).astype(np.float32),
    }


@pytest.mark.parametrize("shift", [0.0, 0.05, 1.0, 8.0])
def test_numeric_distances_agree_with_scipy(tmp_path: Path, shift: float) -> None:
    a, b = numbers(1), numbers(2, shift)
    results = {r.column: r for r in drift(profile(table(tmp_path / "a.parquet", a)), table(tmp_path / "b.parquet", b))}
    for name in a:
        x, y = (np.asarray(v[name], dtype=float) for v in (a, b))
        got = results[name]
        assert got.ks == pytest.approx(ks_2samp(x, y).statistic, abs=3e-4), name
        exact = wasserstein_distance(x, y) / x.std()
        assert got.wasserstein == pytest.approx(exact, rel=1e-3, abs=2e-4), name
        p, q = exact_bins(x, y, 32)
        assert got.js == pytest.approx(jensenshannon(p, q, base=2), abs=2e-3), name
        p, q = exact_bins(x, y, 10)
        p, q = np.maximum(p, 1e-4), np.maximum(q, 1e-4)
        assert got.psi == pytest.approx(float(((q - p) * np.log(q / p)).sum()), rel=0.02, abs=2e-4), name


def exact_bins(x: Any, y: Any, bins: int) -> tuple[Any, Any]:
    """Shares in the reference's equal-mass bins, from the values themselves."""
    values, counts = np.unique(x, return_counts=True)
    if len(np.union1d(values, y)) <= 50:
        both = np.union1d(values, y)
        return tuple(np.array([np.mean(side == v) for v in both]) for side in (x, y))  # type: ignore[return-value]
    below = (np.cumsum(counts) - counts / 2) / len(x)
    index = np.minimum((below * bins).astype(int), bins - 1)
    edges = [values[index == i][0] for i in np.unique(index)]
    return tuple(  # type: ignore[return-value]
        np.bincount(np.maximum(np.searchsorted(edges, side, side="right") - 1, 0), minlength=len(edges)) / len(side)
        for side in (x, y)
    )


COUNTS = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=40).filter(
    lambda pairs: sum(a for a, _ in pairs) > 0 and sum(b for _, b in pairs) > 0
)


@settings(deadline=None)
@given(pairs=COUNTS)
def test_distances_agree_with_their_formulas(pairs: list[tuple[int, int]]) -> None:
    p, q = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    assert js(p, q) == pytest.approx(jensenshannon(p, q, base=2), abs=1e-7)
    left, right = [v / p.sum() for v in p], [v / q.sum() for v in q]
    assert total_variation(p, q) == pytest.approx(sum(abs(a - b) for a, b in zip(left, right, strict=True)) / 2)
    slow = sum(
        (max(b, 1e-4) - max(a, 1e-4)) * math.log(max(b, 1e-4) / max(a, 1e-4)) for a, b in zip(left, right, strict=True)
    )
    assert psi(p, q) == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize("degrees", [3, 9, 31, 500])
def test_chi_square_quantile(degrees: int) -> None:
    assert chi_square_quantile(0.95, degrees) == pytest.approx(chi2.ppf(0.95, degrees), rel=0.01)


@settings(deadline=None)
@given(counts=st.lists(st.integers(1, 50), min_size=51, max_size=200), bins=st.integers(1, 40))
def test_equal_mass_bins_are_ordered_and_even(counts: list[int], bins: int) -> None:
    reference = np.array(counts, dtype=float)
    index = equal_mass_bins(reference, bins)
    assert (np.diff(index) >= 0).all()
    assert index.min() >= 0
    assert index.max() < bins
    mass = np.bincount(index, weights=reference, minlength=bins)
    assert mass.max() <= reference.sum() / bins + reference.max()


VALUES = st.lists(
    st.floats(allow_nan=True, allow_infinity=True) | st.none() | st.integers(-3000, 3000).map(float), max_size=40
)


@settings(deadline=None, max_examples=60)
@given(values=VALUES)
def test_histogram_holds_every_value_within_a_cell(
    tmp_path_factory: pytest.TempPathFactory, values: list[float | None]
) -> None:
    path = tmp_path_factory.mktemp("h") / "a.parquet"
    got = profile(table(path, {"x": pa.array(values, pa.float64())})).columns["x"]
    finite = sorted(v for v in values if v is not None and math.isfinite(v))
    assert got.nulls == sum(v is None for v in values)
    assert got.nan == sum(v is not None and math.isnan(v) for v in values)
    assert got.infinite == sum(v is not None and math.isinf(v) for v in values)
    assert got.histogram.total == len(finite)
    keys, counts = got.histogram.arrays()
    spread = np.repeat(centres(keys, FINE_BITS), counts.astype(int))
    for exact, kept in zip(finite, spread, strict=True):
        clamped = max(min(exact, 1e290), -1e290)
        if abs(clamped) < 1e-290:
            assert abs(kept) < 2e-290
        else:
            assert kept == pytest.approx(clamped, rel=2.0**-FINE_BITS)
            if exact == int(exact) and abs(exact) <= 2048:
                assert kept == exact


@settings(deadline=None)
@given(
    a=st.dictionaries(st.integers(-5000, 5000), st.integers(1, 9), max_size=60),
    b=st.dictionaries(st.integers(-5000, 5000), st.integers(1, 9), max_size=60),
    bits=st.integers(0, FINE_BITS),
)
def test_histograms_merge_in_any_order_and_at_any_width(a: dict[int, int], b: dict[int, int], bits: int) -> None:
    left, right = Histogram(FINE_BITS, a), Histogram(FINE_BITS, b)
    both = left.merge(right)
    assert dict(both.cells) == dict(Counter(a) + Counter(b))
    assert left.coarser(bits).merge(right) == both.coarser(bits)
    assert Histogram.from_json(json.loads(json.dumps(both.to_json()))) == Histogram(both.bits, dict(both.cells))
    assert len(both.limited(20).cells) <= 20 or both.limited(20).bits == 0


def mixed(seed: int, rows: int = 3000) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "x": pa.array(random.normal(5, 2, rows), mask=random.random(rows) < 0.1),
        "c": random.choice(["a", "b", "c"], rows),
        "many": [f"v{i}" for i in random.integers(0, 900, rows)],
        "id": [f"{seed}-{i}" for i in range(rows)],
        "flag": random.random(rows) < 0.3,
        "t": pa.array(random.integers(0, 10**9, rows), pa.timestamp("s")),
    }


def test_merged_parts_are_the_whole(tmp_path: Path) -> None:
    parts = [mixed(1), mixed(2)]
    whole = {k: pa.concat_arrays([pa.array(p[k]) for p in parts]) for k in parts[0]}
    first, second = (profile(table(tmp_path / f"{i}.parquet", p)) for i, p in enumerate(parts))
    merged, direct = first.merge(second), profile(table(tmp_path / "w.parquet", whole))
    assert merged.rows == direct.rows
    for name, column in direct.columns.items():
        got = merged.columns[name]
        assert (got.rows, got.nulls, dict(got.histogram.cells)) == (
            column.rows,
            column.nulls,
            dict(column.histogram.cells),
        )
        assert dict(got.categories) == dict(column.categories)
        if column.deviation is not None:
            assert (got.mean, got.deviation) == (pytest.approx(column.mean), pytest.approx(column.deviation))
    with pytest.raises(InputError, match="different columns"):
        first.merge(profile(table(tmp_path / "o.parquet", {"x": [1.0]})))


def test_folded_categories_still_count_everything(tmp_path: Path) -> None:
    a, b = (profile(table(tmp_path / f"{i}.parquet", mixed(i))) for i in (1, 2))
    small_a, small_b = (Profile.from_json(json.loads(json.dumps(p.to_json()))) for p in (a, b))
    assert small_a.columns["many"].rest
    merged = small_a.merge(small_b).columns["many"]
    assert merged.values == 6000
    full = Counter(a.columns["many"].categories) + Counter(b.columns["many"].categories)
    assert all(merged.categories[name] == full[name] for name in merged.categories)
    result = next(r for r in drift(small_a, b) if r.column == "many")
    assert result.new == ()  # what may hide in a bucket is not called new
    exact = next(r for r in drift(a, b) if r.column == "many")
    assert 0 < (result.js or 0) <= (exact.js or 0)


def test_profile_survives_json_and_is_small(tmp_path: Path) -> None:
    columns = numbers(1) | {f"n{i}": np.random.default_rng(i).lognormal(0, 5, ROWS) for i in range(12)}
    columns["long"] = [f"{'x' * 70}{i % 3000}" for i in range(ROWS)]
    whole = profile(table(tmp_path / "a.parquet", columns), target="whole")
    text = json.dumps(whole.to_json())
    assert len(text) < 300_000
    back = Profile.from_json(json.loads(text))
    assert (back.rows, back.target) == (ROWS, "whole")
    assert back.to_json() == whole.to_json()
    current = table(tmp_path / "b.parquet", columns | numbers(2, 0.3))
    stored = {r.column: r for r in drift(back, current)}
    for result in drift(whole, current):
        assert stored[result.column].js == pytest.approx(result.js, abs=0.02), result.column
        assert stored[result.column].ks == pytest.approx(result.ks, abs=0.02), result.column
    for damaged in ({}, [], {"kind": "mlcicd.profile", "version": 99}, {"kind": "mlcicd.profile", "version": 1}):
        with pytest.raises(InputError):
            Profile.from_json(damaged)


def test_profile_keeps_no_rows_and_hashes_what_is_sensitive(tmp_path: Path) -> None:
    source = table(
        tmp_path / "a.parquet", {"id": [f"person-{i}" for i in range(9000)], "s": ["alice", "bob", "bob"] * 3000}
    )
    text = json.dumps(profile(source, sensitive=["s"]).to_json())
    assert "person-" not in text
    assert "alice" not in text
    hidden = profile(source, sensitive=["s"])
    same = next(r for r in drift(hidden, source) if r.column == "s")
    assert (same.js, same.new) == (0.0, ())


def test_text_and_categories_of_one_column_go_together(tmp_path: Path) -> None:
    few, many = [f"n{i % 9}" for i in range(500)], [f"n{i}" for i in range(500)]
    a, b = (profile(table(tmp_path / f"{i}.parquet", {"s": side})) for i, side in enumerate((few, many)))
    assert (a.columns["s"].kind, b.columns["s"].kind) == ("category", "text")
    merged = a.merge(b).columns["s"]
    assert merged.histogram.total == 1000
    lengths = [len(text) for text in few + many]
    assert (merged.mean, merged.deviation) == (pytest.approx(np.mean(lengths)), pytest.approx(np.std(lengths)))
    (compared,) = drift(a, open_source(tmp_path / "1.parquet"))
    assert (compared.problem, len(compared.new)) == ("", 20)


def test_unknown_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'alpha'"):
        profile(table(tmp_path / "a.parquet", {"alpha": [1]}), ["alpa"])


def test_nothing_moved_stays_under_the_noise_floor(tmp_path: Path) -> None:
    over: Counter[str] = Counter()
    reference = profile(table(tmp_path / "a.parquet", mixed(0) | numbers(0, rows=3000)))
    for seed in range(1, 9):
        current = table(tmp_path / "b.parquet", mixed(seed) | numbers(seed, rows=3000))
        for result in drift(reference, current):
            for metric, floor in result.noise.items():
                over[metric] += (getattr(result, metric) or 0.0) > floor
    # 95 % floors over 8 samples of ten columns: about four of 80 are above, and surely not 16.
    assert max(over.values()) < 16, over


def test_ranked_as_a_person_would(tmp_path: Path) -> None:
    reference = mixed(1)
    current = dict(mixed(2))
    current["x"] = pa.array(np.random.default_rng(3).normal(9, 2, 3000))
    current["c"] = np.where(np.random.default_rng(4).random(3000) < 0.1, "new", current["c"])
    del current["flag"]
    results = drift(profile(table(tmp_path / "a.parquet", reference)), table(tmp_path / "b.parquet", current))
    assert [r.column for r in results[:3]] == ["flag", "x", "c"]
    assert results[0].problem == "the column is gone"
    c = results[2]
    assert (c.new, c.vanished) == (("new",), ())
    assert c.new_share == pytest.approx(0.1, abs=0.02)
    low, high = results[1].interval or (0, 0)
    assert 0.3 < low < (results[1].js or 0) < high + 0.01
    figures = drift_figures(
        profile(open_source(tmp_path / "a.parquet")), profile(open_source(tmp_path / "b.parquet")), results
    )
    assert [f["kind"] for f in figures[:2]] == ["lines", "bars"]
    for figure in figures:
        assert set(figure) == {"kind", "title", "x_label", "y_label", "series", "reference", "log_y"}
        for series in figure["series"]:
            assert len(series["x"]) == len(series["y"])
            assert 0.9 < sum(series["y"]) <= 1.0 + 1e-9
            assert figure["kind"] != "bars" or all(isinstance(x, str) for x in series["x"])
    assert json.loads(json.dumps(figures)) == figures


def result(**values: Any) -> DriftResult:
    return DriftResult(**({"column": "x", "kind": "numeric", "rows_reference": 10, "rows_current": 10} | values))


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"js": 0.05}, "passed"),
        ({"js": 0.1}, "passed"),
        ({"js": 0.25, "noise": {"js": 0.1}}, "failed"),
        ({"js": 0.2, "noise": {"js": 0.1}}, "inconclusive"),  # without what chance adds it is not above the limit
        ({"js": 0.2, "noise": {"js": 0.3}}, "inconclusive"),
        ({"js": math.nan}, "failed"),
        ({"problem": "the column is gone"}, "failed"),
        ({}, "skipped"),
        ({"js": 0.0, "missing_reference": 0.0, "missing_current": 0.5}, "failed"),
        ({"js": 0.0, "missing_reference": 0.5, "missing_current": 0.0}, "passed"),
    ],
)
def test_drift_checks_have_three_states(values: dict[str, Any], status: str) -> None:
    (check,) = drift_checks([result(**values)], max=0.1)
    assert check.status == status
    assert check.status == "passed" or check.reason
    json.dumps(check.details, allow_nan=False)


def test_drift_checks_by_metric_and_severity() -> None:
    moved = result(js=0.0, psi=0.5, ks=0.0, wasserstein=math.inf)
    assert drift_checks([moved], max=0.2, metric="psi", severity="warn")[0].severity == "warn"  # type: ignore[arg-type]
    assert drift_checks([moved], max=0.2, metric="psi")[0].required == "psi/1 <= 0.2"
    (infinite,) = drift_checks([moved], max=0.2, metric="wasserstein")
    assert (infinite.status, infinite.details["wasserstein"]) == ("failed", "Infinity")
    assert drift_checks([moved], max=0.2, columns=["y"]) == []
    for bad in ({"max": 0.0}, {"max": math.nan}, {"max": 0.1, "metric": "euclid"}):
        with pytest.raises(ConfigError):
            drift_checks([moved], **bad)  # type: ignore[arg-type]


def test_empty_null_and_retyped_columns_never_pass(tmp_path: Path) -> None:
    reference = profile(table(tmp_path / "a.parquet", {"x": [1.0, 2.0], "s": ["a", "b"]}))
    empty = table(tmp_path / "e.parquet", {"x": pa.array([], pa.float64()), "s": pa.array([], pa.string())})
    nulls = table(
        tmp_path / "n.parquet",
        {"x": pa.array([None, math.nan], pa.float64()), "s": pa.array([None, None], pa.string())},
    )
    retyped = table(tmp_path / "r.parquet", {"x": ["1", "2"], "s": [1, 2]})
    for current in (empty, nulls, retyped):
        assert [c.status for c in drift_checks(drift(reference, current), max=0.5)] == ["failed", "failed"]
    both = drift(profile(nulls), nulls)
    assert all(r.problem == "" and r.js is None for r in both)


def test_counts_of_divided_cells_that_are_no_whole_numbers_are_drawn_from() -> None:
    # The data moved away from the last bins; as whole numbers the shares would have summed to more than 1.
    random = np.random.default_rng(480)
    before, now = random.integers(1, 100, 300), random.integers(1, 100, 300)
    now[280:] = 0

    def made(counts: Any) -> Profile:
        cells = {130_000 + place: int(n) for place, n in enumerate(counts) if n}
        n = int(counts.sum())
        column = ColumnProfile("numeric", n, 0, mean=0.0, deviation=1.0, histogram=Histogram(7, cells))
        return Profile(n, {"x": column}, None, frozenset())

    (result,) = drift(made(before), made(now))
    assert result.interval is not None
    assert result.interval[0] <= result.js <= result.interval[1]
