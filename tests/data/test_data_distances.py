"""Bins of equal mass over wide cells, against a slow reading of the same definition, and over a stored profile."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from mlcicd.data.distances import binned, divisible_cells, equal_mass_bins, equal_mass_counts
from mlcicd.data.drift import drift
from mlcicd.data.histogram import FINE_BITS
from mlcicd.data.profile import Profile, profile
from mlcicd.data.source import open_source

CELLS = st.lists(st.tuples(st.integers(0, 60) | st.just(900), st.integers(0, 60)), min_size=51, max_size=90).filter(
    lambda pairs: sum(a for a, _ in pairs) > 0 and sum(b for _, b in pairs) > 0
)


def divided(pairs: list[tuple[int, int]], bins: int) -> tuple[list[float], list[float]]:
    """Each cell laid over the bins by the stretch of the reference's mass that it covers."""
    total = sum(a for a, _ in pairs)
    left, right = [0.0] * bins, [0.0] * bins
    start = 0
    for a, b in pairs:
        if a == 0 or a * bins >= total:  # nothing to go by, or as heavy as a bin: whole, where its middle lies
            place = min(int((start + a / 2) / total * bins), bins - 1)
            parts = {place: 1.0}
        else:
            edges = [i * total / bins for i in range(bins + 1)]
            overlaps = {i: min(edges[i + 1], start + a) - max(edges[i], start) for i in range(bins)}
            parts = {i: overlap / a for i, overlap in overlaps.items() if overlap > 0}
        for place, part in parts.items():
            left[place] += a * part
            right[place] += b * part
        start += a
    return left, right


@settings(deadline=None, max_examples=60)
@given(pairs=CELLS, bins=st.sampled_from([2, 8, 32]))  # powers of two: borders are the same in both readings
def test_wide_cells_are_divided_at_the_borders(pairs: list[tuple[int, int]], bins: int) -> None:
    p, q = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    got_p, got_q = equal_mass_counts(p, q, bins, divisible=np.ones(len(p), dtype=bool))
    assert got_p.sum() == pytest.approx(p.sum())
    assert got_q.sum() == pytest.approx(q.sum())
    kept = [(a, b) for a, b in zip(*divided(pairs, bins), strict=True) if a > 1e-9 or b > 1e-9]
    assert list(zip(got_p, got_q, strict=True)) == [pytest.approx(one, abs=1e-6) for one in kept]


@settings(deadline=None, max_examples=30)
@given(pairs=CELLS, bins=st.sampled_from([2, 10, 32]))
def test_narrow_cells_stay_whole(pairs: list[tuple[int, int]], bins: int) -> None:
    p, q = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    index = equal_mass_bins(p, bins)
    some = (binned(p, index) > 0) | (binned(q, index) > 0)
    got = equal_mass_counts(p, q, bins, divisible=np.zeros(len(p), dtype=bool))
    assert [list(side) for side in got] == [list(binned(side, index)[some]) for side in (p, q)]


def test_cells_of_one_value_are_not_divided() -> None:
    whole_numbers = np.full(4097, 10.0)
    assert not divisible_cells(whole_numbers, wide=False).any()
    assert divisible_cells(whole_numbers, wide=True).all()
    continuous = np.random.default_rng(1).poisson(400, 6000).astype(float)
    continuous[[1000, 2000, 3000]] = 9_000, 0, 400
    got = divisible_cells(continuous, wide=False)
    assert np.flatnonzero(~got).tolist() == [0, 1000, 1999, 2001, 5999]  # heavy, or at a gap


def test_many_narrow_cells_are_divided_to_the_exact_distance(tmp_path: Path) -> None:
    even = (np.arange(400_000) + 0.5) / 400_000  # not random: cells of some fifty rows would be uneven by chance
    a, b = (np.exp(even * 5 + shift) for shift in (0.0, 0.1))
    for name, values in (("a", a), ("b", b)):
        pq.write_table(pa.table({"x": values}), tmp_path / f"{name}.parquet")
    (result,) = drift(profile(open_source(tmp_path / "a.parquet")), open_source(tmp_path / "b.parquet"))
    edges = np.sort(a)[np.arange(1, 32) * len(a) // 32]
    p, q = (np.bincount(np.searchsorted(edges, side, side="right"), minlength=32) for side in (a, b))
    assert result.js == pytest.approx(float(jensenshannon(p, q, base=2)), abs=1e-5)


def test_a_profile_of_few_cells_is_nearly_as_exact_as_the_values(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    rows = 200_000
    made = {}
    for name, shift in (("a", 0.0), ("b", 0.1)):
        made[name] = {"n": random.normal(shift, 1, rows), "e": np.exp(random.random(rows) * 5 + shift)}
        pq.write_table(pa.table(made[name]), tmp_path / f"{name}.parquet")
    text = json.dumps(profile(open_source(tmp_path / "a.parquet")).to_json(6_000))
    stored = Profile.from_json(json.loads(text))
    assert all(column.histogram.bits < FINE_BITS for column in stored.columns.values())
    for result in drift(stored, open_source(tmp_path / "b.parquet")):
        a, b = made["a"][result.column], made["b"][result.column]
        edges = np.quantile(a, np.arange(1, 32) / 32)
        counts = [np.bincount(np.searchsorted(edges, side), minlength=32) for side in (a, b)]
        assert result.js == pytest.approx(float(jensenshannon(*counts, base=2)), abs=5e-4), result.column
