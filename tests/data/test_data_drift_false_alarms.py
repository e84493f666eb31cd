"""Data that has not moved is no drift, however few rows there are and however many columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlcicd.core.verdict import CheckStatus
from mlcicd.data.drift import drift, drift_checks
from mlcicd.data.profile import profile
from mlcicd.data.source import open_source

COLUMNS = 13


def checks(folder: Path, before: pd.DataFrame, after: pd.DataFrame) -> list[CheckStatus]:
    before.to_parquet(folder / "before.parquet")
    after.to_parquet(folder / "after.parquet")
    reference = profile(open_source(folder / "before.parquet"))
    results = drift(reference, open_source(folder / "after.parquet"))
    return [check.status for check in drift_checks(results, max=0.1)]


def normal(rng: np.random.Generator, rows: int, *, shift: float = 0.0) -> pd.DataFrame:
    return pd.DataFrame({f"x{i}": rng.normal(shift, 1, rows) for i in range(COLUMNS)})


@pytest.mark.slow
@pytest.mark.parametrize(("reference", "current"), [(106, 72), (300, 200), (1000, 500), (5000, 1000)])
def test_two_samples_of_one_population(tmp_path: Path, reference: int, current: int) -> None:
    rng = np.random.default_rng(reference)
    runs = 10
    alarms = sum(
        CheckStatus.FAILED in checks(tmp_path, normal(rng, reference), normal(rng, current)) for _ in range(runs)
    )
    assert alarms <= 1


def test_a_shift_is_still_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    assert set(checks(tmp_path, normal(rng, 1000), normal(rng, 500, shift=1.0))) == {CheckStatus.FAILED}
    assert set(checks(tmp_path, normal(rng, 106), normal(rng, 72, shift=3.0))) == {CheckStatus.FAILED}
