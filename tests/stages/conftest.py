"""A small real project: a CSV file, a training script, a registry in SQLite."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from support import git

from mlcicd.config import Project, load_project

TRAIN = """\
import os, shutil, warnings
warnings.simplefilter("ignore")
import pandas as pd
import mlflow.sklearn
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

table = pd.read_csv("train.csv")
X, y = table[["a", "b"]], table["y"]
model = LogisticRegression().fit(X, y)
shutil.rmtree("model", ignore_errors=True)
mlflow.sklearn.save_model(model, "model", signature=infer_signature(X, model.predict_proba(X)),
                          pip_requirements=["scikit-learn"], pyfunc_predict_fn="predict_proba",
                          serialization_format="skops", skops_trusted_types=["numpy.dtype"])
print("trained")
"""

CONFIG = """\
version: 1
model: {name: tiny, task: binary}
data: {train: train.csv, holdout: holdout.csv, current: holdout.csv, target: y, ignore: [id]}
train: {run: python train.py, code: ["*.py"]}
evaluate:
  gates:
    roc_auc: {min: 0.7, vs_champion: {margin: 0.05}}
deploy:
  mode: deployment
  environments:
    production: {target: local, strategy: canary, smoke: smoke.jsonl}
canary:
  steps: [20, 50]
  window: 500ms
  min_requests: 50
  max_duration: 60s
  metrics:
    - {name: errors, floor: 0.02}
    - {name: latency, type: histogram, tolerance: 20}
  traffic: {requests: requests.jsonl, rate: 150}
"""


def write_table(path: Path, rows: int, seed: int, *, noise: float = 0.6) -> None:
    """Two features of which one tells the label, up to noise."""
    draw = random.Random(seed)
    lines = ["id,a,b,y"]
    for row in range(rows):
        a, b = draw.gauss(0, 1), draw.gauss(0, 1)
        lines.append(f"{seed * 1_000_000 + row},{a:.6f},{b:.6f},{int(a + draw.gauss(0, noise) > 0)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_project(root: Path) -> None:
    write_table(root / "train.csv", 800, 1)
    write_table(root / "holdout.csv", 1500, 2)
    (root / "train.py").write_text(TRAIN)
    (root / "mlcicd.yaml").write_text(CONFIG)
    request = '{"dataframe_records": [{"a": 0.1, "b": 0.2}]}\n'
    (root / "smoke.jsonl").write_text(request)
    (root / "requests.jsonl").write_text(request * 20)
    (root / ".gitignore").write_text(".mlcicd/\nmodel/\nmlartifacts/\nmlflow.db*\n__pycache__/\n")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "first")


@pytest.fixture
def root(repository: Path) -> Path:
    """The project's folder, nothing run yet."""
    make_project(repository)
    return repository


@pytest.fixture(scope="session")
def _evaluated_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mlcicd.stages import evaluate, train, validate_data

    root = tmp_path_factory.mktemp("evaluated") / "project"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    make_project(root)
    project = project_at(root)
    for stage in (validate_data, train, evaluate):
        verdict = stage(project)
        assert verdict.status == "passed", (verdict.summary, verdict.details.get("error"), verdict.checks)
    return root


@pytest.fixture
def evaluated(_evaluated_once: Path, tmp_path: Path) -> Path:
    """A copy of the project whose first model has been trained and has passed."""
    return copy_of(_evaluated_once, tmp_path / "copy")


def copy_of(source: Path, target: Path) -> Path:
    """A copy of a project with its registry: artifact locations are absolute in the database, so they are moved."""
    import sqlite3

    from mlflow.tracking._tracking_service import utils

    # MLflow remembers where a run's artifacts are by the run's id alone, and the copies share those ids.
    utils._artifact_repos_cache.clear()
    shutil.copytree(source, target, symlinks=True)
    with sqlite3.connect(target / "mlflow.db") as database:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            database.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (source.as_uri(), target.as_uri())
            )
    database.close()
    return target


def project_at(root: Path) -> Project:
    import os

    return load_project(root, environ=dict(os.environ))


def change(path: Path, old: str, new: str) -> None:
    """Replaces one piece of a file, which must be there."""
    text = path.read_text()
    assert text.count(old) == 1, (old, text.count(old))
    path.write_text(text.replace(old, new))
