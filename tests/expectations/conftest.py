"""A small project whose holdout has groups, and scikit-learn models made to do right or wrong."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import git

from mlcicd.config import Project, load_project
from mlcicd.core.digests import digest_file, digest_json, digest_tree
from mlcicd.core.verdict import Check, Verdict
from mlcicd.registry.tracking import TAG, Registry
from mlcicd.stages.common import evidence_folder, registry_of

CONFIG = """\
version: 1
model: {name: tiny, task: binary}
data: {train: train.csv, holdout: holdout.csv, target: y, ignore: [id]}
train: {run: "true"}
evaluate:
  gates:
    roc_auc: {min: 0.7}
"""

# One process makes all models: importing MLflow is what takes the time.
MAKE = """\
import sys, warnings
warnings.simplefilter("ignore")
import mlflow.sklearn, pandas as pd
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

table = pd.read_csv("train.csv")

def save(name, model, columns, y, rename=None):
    X = table[columns].rename(columns=rename or {})
    model.fit(X, y)
    mlflow.sklearn.save_model(
        model, name, signature=infer_signature(X, model.predict_proba(X)), pip_requirements=["scikit-learn"],
        pyfunc_predict_fn="predict_proba", serialization_format="cloudpickle")

features = lambda *numbers: make_column_transformer(
    (SimpleImputer(), list(numbers)), (OneHotEncoder(handle_unknown="ignore"), ["g"]))
save("honest", make_pipeline(SimpleImputer(), LogisticRegression()), ["a", "b"], table.y)
# Learns that one group is favoured, which the holdout's labels do not know.
biased = ((table.a + 1.5 * (table.g == "x")) > 0.75).astype(int)
save("biased", make_pipeline(features("a", "b"), LogisticRegression()), ["a", "b", "g"], biased)
# Knows the training rows by heart, and can not stand a hole: MLflow's schema lets none through, the model neither.
save("brittle", make_pipeline(LogisticRegression(C=100.0)), ["a", "b"], table.y)
save("jumpy", DecisionTreeClassifier(random_state=0), ["a", "b"], table.y)
save("overconfident", make_pipeline(SimpleImputer(), LogisticRegression(C=1e6)), ["a", "b"], (table.a > 0).astype(int))
save("renamed", make_pipeline(SimpleImputer(), LogisticRegression()), ["a", "b"], table.y, {"b": "c"})
save("wider", make_pipeline(features("a", "b"), LogisticRegression()), ["a", "b", "g"], table.y)
"""


def write_table(path: Path, rows: int, seed: int) -> None:
    """Feature `a` tells the label, up to noise; `b` and the group `g` tell nothing."""
    draw = random.Random(seed)
    lines = ["id,a,b,g,y"]
    for row in range(rows):
        a, b, g = draw.gauss(0, 1), draw.gauss(0, 1), draw.choice("xxxyyyz")
        lines.append(f"{seed * 1_000_000 + row},{a:.6f},{b:.6f},{g},{int(a + draw.gauss(0, 0.6) > 0)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def _workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workshop")
    write_table(root / "train.csv", 1000, 1)
    write_table(root / "holdout.csv", 2500, 2)
    (root / "make.py").write_text(MAKE)
    made = subprocess.run([sys.executable, "make.py"], cwd=root, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    # An empty registry, so that not every test makes its tables anew.
    registry = Registry(f"sqlite:///{root / 'mlflow.db'}")
    assert registry.version_at("nothing", "champion") is None
    return root


class Bench:
    """A project in which models are put forward."""

    def __init__(self, root: Path, workshop: Path) -> None:
        self.root = root
        self.workshop = workshop

    @property
    def project(self) -> Project:
        return load_project(self.root, environ=dict(os.environ))

    def configure(self, evaluate: str, *, rest: str = "") -> None:
        """Replaces the section `evaluate`."""
        head = CONFIG.partition("evaluate:")[0]
        body = "".join(f"  {line}\n" for line in evaluate.strip("\n").split("\n"))
        (self.root / "mlcicd.yaml").write_text(f"{head}evaluate:\n{body}{rest}")

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text, encoding="utf-8")

    def commit(self) -> None:
        git(self.root, "add", "--all")
        git(self.root, "commit", "--quiet", "--allow-empty", "--message", "change")

    def evaluate(self, model: str, **options: bool) -> Verdict:
        from mlcicd.stages import evaluate

        return evaluate(self.project, model=str(self.workshop / model), **options)

    def crown(self, model: str, *, rows: Any = None, **tags: str) -> str:
        """Makes a model the champion, as if it had been registered and deployed; gives its run.

        Args:
            rows: the stored sketch of its training rows.
        """
        registry = registry_of(self.project)
        run_id = registry.start_run("tiny", {})
        registry.log_model(run_id, self.workshop / model)
        if rows is not None:
            tags["evidence_digest"] = digest_json(rows)
            registry.log_text(run_id, json.dumps(rows), f"{evidence_folder(digest_json(rows))}/train_rows.json")
        registry.finish_run(run_id, "FINISHED")
        of = {"model_digest": digest_tree(self.workshop / model), "train_data_digest": self.digest("train.csv"), **tags}
        version = registry.create_version("tiny", run_id, {f"{TAG}{key}": value for key, value in of.items()})
        registry.set_alias("tiny", "champion", version.version)
        return run_id

    def digest(self, file: str) -> str:
        return digest_file(self.root / file)


@pytest.fixture
def bench(tmp_path: Path, _workshop: Path) -> Bench:
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    for name in ("train.csv", "holdout.csv"):
        (root / name).write_bytes((_workshop / name).read_bytes())
    for file in _workshop.glob("mlflow.db*"):
        (root / file.name).write_bytes(file.read_bytes())
    (root / "mlcicd.yaml").write_text(CONFIG)
    (root / ".gitignore").write_text(".mlcicd/\nmlartifacts/\nmlflow.db*\n")
    # The same bytes are scored once for all tests: what is under test is what comes after.
    (root / ".mlcicd" / "cache").mkdir(parents=True)
    (_workshop / "predictions").mkdir(exist_ok=True)
    (root / ".mlcicd" / "cache" / "predictions").symlink_to(_workshop / "predictions")
    made = Bench(root, _workshop)
    made.commit()
    return made


Find = Callable[[Verdict, str], Check]


@pytest.fixture
def find() -> Find:
    """The one check of a name (and slice)."""

    def one(verdict: Verdict, name: str) -> Check:
        found = [check for check in verdict.checks if check.name == name]
        assert len(found) == 1, (name, [(c.name, c.status, c.reason) for c in verdict.checks], verdict.summary)
        return found[0]

    return one
