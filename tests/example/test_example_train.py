"""train.py on tables small enough to fit at once."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

COLUMNS = ["carrier", "origin", "distance", "pressure"]


@pytest.fixture
def params(example: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((example / "params.yaml").read_text(encoding="utf-8"))["train"])


@pytest.fixture
def rows() -> pd.DataFrame:
    """400 flights without gaps, of which the long ones are late."""
    rng = np.random.default_rng(0)
    distance = rng.uniform(100, 2500, 400)
    return pd.DataFrame(
        {
            "carrier": rng.choice(["UA", "B6"], 400),
            "origin": rng.choice(["EWR", "JFK"], 400),
            "distance": distance,
            "pressure": rng.normal(1015, 5, 400),
            "delayed": (distance > 1500).astype(int),
        }
    )


@pytest.mark.parametrize("kind", ["logistic", "hist_gradient_boosting"])
def test_both_models_learn_and_take_gaps_and_new_carriers(
    train: ModuleType, params: dict[str, Any], rows: pd.DataFrame, kind: str
) -> None:
    model = train.build(params | {"model": kind}, COLUMNS).fit(rows[COLUMNS], rows["delayed"])
    assert train.measure(model, rows, COLUMNS)["roc_auc"] > 0.95
    asked = rows[COLUMNS].head(3).assign(carrier="ZZ", pressure=np.nan)
    probability = model.predict_proba(asked)
    assert probability.shape == (3, 2)
    assert np.isfinite(probability).all()


def test_unknown_model_is_one_clear_line(train: ModuleType, params: dict[str, Any]) -> None:
    with pytest.raises(SystemExit, match=r"params\.yaml: no such model: 'forest'"):
        train.build(params | {"model": "forest"}, COLUMNS)


def test_failed_save_leaves_the_old_model(
    train: ModuleType,
    params: dict[str, Any],
    rows: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow.sklearn

    def torn(model: object, path: str, **options: object) -> None:
        Path(path).mkdir()
        raise OSError("no space left on device")

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("the old one", encoding="utf-8")
    model = train.build(params, COLUMNS).fit(rows[COLUMNS], rows["delayed"])
    monkeypatch.setattr(mlflow.sklearn, "save_model", torn)
    with pytest.raises(OSError, match="no space"):
        train.save(model, rows[COLUMNS], tmp_path / "model")
    assert (tmp_path / "model" / "MLmodel").read_text(encoding="utf-8") == "the old one"
