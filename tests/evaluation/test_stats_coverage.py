"""Nominal 95 % intervals hold the truth in about 95 % of holdouts (the full run: benchmarks/coverage.py)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
DRAWS = 200


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_simulation", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("world", ["binary", "multiclass", "regression"])
def test_intervals_cover(simulation: ModuleType, world: str) -> None:
    found = simulation.coverage(world, rows=800, draws=DRAWS, seed=11)
    for name, row in found.items():
        # Standard error of a coverage of 0.95 over 200 draws: 0.0154; three of them below.
        assert row["coverage"] >= 0.904, name
        if name != "negative_flip_rate":
            assert row["difference"] >= 0.904, name
        # Not by being twice as wide as need be; calibration errors and far quantiles are on the safe side.
        if name not in ("ece", "absolute_error@0.95"):
            assert row["coverage"] <= 0.99, name


@pytest.mark.slow
def test_gates_are_seldom_wrong_about_an_equal_model_and_see_a_worse_one(simulation: ModuleType) -> None:
    failed = simulation.gate_errors(rows=500, draws=400, seed=2)
    for name, rate in failed["equal"].items():
        assert rate <= 0.05, name  # nominal 0.025, standard error 0.008
        assert failed["worse"][name] > 3 * max(rate, 0.02), name
        assert failed["much worse"][name] > 0.6, name
