"""Nominal 95 % intervals hold the truth in about 95 % of holdouts (the full run: benchmarks/coverage.py)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
DRAWS = 150
# Of each family of metrics and each kind of row, what the others are made of.
WORLDS = {
    "binary": ["accuracy", "f1", "matthews_corrcoef", "roc_auc", "average_precision", "log_loss", "ece"],
    "weighted": ["accuracy", "f1", "roc_auc", "log_loss"],
    "clustered": ["accuracy", "f1", "roc_auc", "average_precision", "log_loss"],
    "multiclass": ["accuracy", "f1_macro", "matthews_corrcoef", "log_loss", "roc_auc"],
    "multilabel": ["accuracy", "hamming_loss", "f1_macro", "f1_micro", "average_precision"],
    "regression": ["mae", "rmse", "r2", "mape", "median_absolute_error", "absolute_error@0.95"],
    "clustered regression": ["mae", "r2", "median_absolute_error"],
    "quantile": ["pinball", "interval_coverage@0.8", "interval_score@0.8"],
    "forecast": ["mae", "mase", "smape"],
    "ranking": ["ndcg", "map@5", "mrr"],
}


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_simulation", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["coverage_simulation"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_intervals_cover(simulation: ModuleType, world: str) -> None:
    found = simulation.coverage(world, rows=800, draws=DRAWS, seed=11, metrics=WORLDS[world])
    for name, row in found.items():
        # Standard error of a coverage of 0.95 over 150 draws: 0.018; three of them below.
        assert row["coverage"] >= 0.897, name
        assert row["difference"] >= 0.897, name
        # Not by being twice as wide as need be; calibration errors and far quantiles are on the safe side.
        if name not in ("ece", "absolute_error@0.95"):
            assert row["coverage"] <= 0.995, name


@pytest.mark.slow
def test_gates_are_seldom_wrong_about_an_equal_model_and_see_a_worse_one(simulation: ModuleType) -> None:
    failed = simulation.gate_errors(rows=500, draws=400, seed=2)
    for name, rate in failed["equal"].items():
        assert rate <= 0.05, name  # nominal 0.025, standard error 0.008
        assert failed["worse"][name] > 3 * max(rate, 0.02), name
        assert failed["much worse"][name] > 0.6, name


@pytest.mark.slow
def test_a_sequence_of_small_losses_is_caught(simulation: ModuleType) -> None:
    found = simulation.losing_streak(3000, 6, step=0.004, margin=0.005)
    # Of twenty candidates that are each 0.004 worse, a gate on point estimates lets about half through.
    assert found["point let through"] > 0.3
    assert found["interval let through"] < 0.12
    assert found["interval lost"] < found["point lost"] / 3
