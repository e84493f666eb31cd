"""A project without a model: a holdout with labels, and files of predictions that were written somewhere else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import git

from mlcicd.config import Project, load_project

CONFIG = """\
version: 1
model: {{name: anywhere, task: {task}}}
tracking: {{uri: "{uri}"}}
data:
  train: train.csv
  holdout: {holdout}
  target: y
  ignore: [id]
  checks: {{leakage: {{keys: [id]}}}}
train: {{run: "false"}}
evaluate:
  gates:
    {gates}
"""
ROWS = 2000


def project_at(root: Path) -> Project:
    return load_project(root, environ=dict(os.environ))


# Nobody listens there: where both models are files, none is needed.
NO_REGISTRY = "http://127.0.0.1:9"
REGISTRY = "sqlite:///mlflow.db"


def configure(
    root: Path,
    gates: str = "roc_auc: {min: 0.7}",
    task: str = "binary",
    holdout: str = "holdout.parquet",
    more: str = "",
    uri: str = NO_REGISTRY,
) -> Project:
    (root / "mlcicd.yaml").write_text(CONFIG.format(task=task, holdout=holdout, gates=gates, uri=uri) + more)
    return project_at(root)


def scores_of(y: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """Probabilities that rank the labels as well as the noise lets them."""
    draw = np.random.default_rng(seed)
    return 1 / (1 + np.exp(-2 * (2 * y - 1 + noise * draw.normal(size=len(y)))))


@pytest.fixture
def root(repository: Path) -> Path:
    draw = np.random.default_rng(5)
    y = (draw.random(ROWS) < 0.4).astype(int)
    table = pd.DataFrame({"id": np.arange(ROWS) + 1000, "a": draw.normal(size=ROWS), "y": y})
    table.to_parquet(repository / "holdout.parquet")
    write(repository, "champion.parquet", y, noise=1.5, seed=1)
    write(repository, "candidate.parquet", y, noise=1.0, seed=2)
    (repository / ".gitignore").write_text(".mlcicd/\nmlflow.db*\n")
    configure(repository)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "first")
    return repository


def write(root: Path, name: str, y: np.ndarray, noise: float, seed: int) -> pd.DataFrame:
    table = pd.DataFrame({"id": np.arange(len(y)) + 1000, "score": scores_of(y, noise, seed)})
    table.to_parquet(root / name)
    return table
