"""Trains the model of params.yaml on data/train.parquet and saves it to model/, an MLflow model directory.

metrics.json says how it does on the holdout. Where an MLflow run is given (MLFLOW_RUN_ID, and with it
MLFLOW_TRACKING_URI), parameters and metrics are logged there too; without one, no tracking server is needed.
"""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

TARGET = "delayed"
NAMES = {"carrier", "origin", "dest"}
SERVED_WITH = ["mlflow-skinny", "numpy", "pandas", "scikit-learn", "skops"]
# What skops meets in these pipelines and does not trust by itself. Reviewed: a dtype, arrays of tree nodes.
REVIEWED_TYPES = [
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
]


def build(params: dict[str, Any], columns: list[str]) -> Pipeline:
    """The unfitted pipeline: names are encoded, gaps of the numbers filled, then the classifier."""
    names = [column for column in columns if column in NAMES]
    numbers = [column for column in columns if column not in NAMES]
    numeric = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    kind = params["model"]
    if kind == "logistic":
        encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=50)
        classifier = LogisticRegression(**params[kind])
    elif kind == "hist_gradient_boosting":
        encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
        fixed = {"random_state": params["seed"], "early_stopping": False}
        classifier = HistGradientBoostingClassifier(**fixed, **params[kind])
    else:
        raise SystemExit(f"train.py: params.yaml: no such model: {kind!r} (logistic, hist_gradient_boosting)")
    return make_pipeline(make_column_transformer((encoder, names), (numeric, numbers)), classifier)


def measure(model: Pipeline, rows: pd.DataFrame, columns: list[str]) -> dict[str, float]:
    labels, probability = rows[TARGET], model.predict_proba(rows[columns])[:, 1]
    return {
        "roc_auc": float(roc_auc_score(labels, probability)),
        "brier": float(brier_score_loss(labels, probability)),
        "log_loss": float(log_loss(labels, probability)),
    }


def save(model: Pipeline, rows: pd.DataFrame, target: Path) -> None:
    """Write the MLflow model next to its place, then put it there: `target` is never half a model."""
    import mlflow.sklearn
    from mlflow.models import infer_signature

    fresh, old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    mlflow.sklearn.save_model(
        model,
        str(fresh),
        signature=infer_signature(rows, model.predict_proba(rows)),
        input_example=rows.head(2),
        pip_requirements=[f"{name}=={version(name)}" for name in SERVED_WITH],
        pyfunc_predict_fn="predict_proba",
        serialization_format="skops",
        skops_trusted_types=REVIEWED_TYPES,
    )
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def log_to_run(run_id: str, params: dict[str, Any], metrics: dict[str, float]) -> None:
    """Log to a run that someone else started and will end."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
    from mlflow.utils.time import get_current_time_millis

    now = get_current_time_millis()
    MlflowClient().log_batch(
        run_id,
        metrics=[Metric(name, value, now, 0) for name, value in metrics.items()],
        params=[Param(name, str(value)) for name, value in params.items()],
    )


def main() -> None:
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["train"]
    columns = list(params["features"])
    train, holdout = pd.read_parquet("data/train.parquet"), pd.read_parquet("data/holdout.parquet")
    features, labels = train[columns], train[TARGET]
    model = build(params, columns).fit(features, labels)
    metrics = measure(model, holdout, columns)
    save(model, features.head(1000), Path("model"))
    Path("metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        chosen = {name: params[name] for name in ("model", "seed", "features")} | params[params["model"]]
        log_to_run(run_id, chosen, {f"holdout_{name}": value for name, value in metrics.items()})
    measured = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    print(f"{params['model']} on {len(train)} flights: {measured}")


if __name__ == "__main__":
    main()
