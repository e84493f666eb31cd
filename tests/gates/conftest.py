"""A registry with a history: four versions of a small model, as `register` and `promote` would have left them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stages.conftest import write_table

from mlcicd.config import Project, load_project
from mlcicd.core.digests import digest_bytes, digest_tree
from mlcicd.registry import Registry
from mlcicd.stages.common import evidence_folder

CONFIG = """\
version: 1
model: {name: tiny, task: binary}
tracking: {uri: "sqlite:///%s/mlflow.db"}
data: {train: train.csv, holdout: holdout.csv, target: y, ignore: [id]}
train: {run: python train.py}
evaluate:
  gates:
    roc_auc: {min: 0.7, vs_champion: {margin: 0.05}}
"""


def project_at(root: Path) -> Project:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "MLCICD_", "GITHUB_", "GITLAB_"))}
    return load_project(root, environ=kept)


def _evidence(auc: float, champion: float | None, holdout: str) -> str:
    metrics = [{"name": "roc_auc", "candidate": auc, "champion": champion}]
    subjects = [{"kind": "data", "name": "holdout", "digest": holdout}]
    return json.dumps({"subjects": subjects, "details": {"metrics": metrics}})


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose registry has: 1, of few rows; 2, the champion; 3, rolled back; 4, of unknown bytes."""
    root = tmp_path_factory.mktemp("gates") / "project"
    root.mkdir()
    write_table(root / "train.csv", 800, 1)
    write_table(root / "holdout.csv", 1500, 2)
    (root / "mlcicd.yaml").write_text(CONFIG % root)
    models = root / "models"
    saver = Path(__file__).with_name("save_models.py")
    done = subprocess.run([sys.executable, saver, models], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    registry = Registry(f"sqlite:///{root}/mlflow.db", experiment="tiny", artifact_location=(root / "art").as_uri())
    history: list[tuple[str, str, dict[str, str], str]] = [
        ("few", "", {"promoted_at": "2026-01-01"}, _evidence(0.90, None, "sha256:january")),
        ("all", "1", {"promoted_at": "2026-02-01"}, _evidence(0.91, 0.86, "sha256:february")),
        ("shuffled", "2", {"promoted_at": "2026-03-01", "rolled_back_at": "2026-03-02"}, ""),
    ]
    for name, against, more, evidence in history:
        run = registry.start_run(name, {})
        registry.log_model(run, models / name)
        tags = {"model_digest": digest_tree(models / name), "measured_against": against, **more}
        if evidence:
            tags["evidence_digest"] = digest_bytes(evidence.encode())
            registry.log_text(run, evidence, f"{evidence_folder(tags['evidence_digest'])}/evaluate.json")
        registry.finish_run(run, "FINISHED")
        registry.create_version("tiny", run, {f"mlcicd.{key}": value for key, value in tags.items()})
    registry.create_version("tiny", registry.start_run("by hand", {}), {})
    registry.set_alias("tiny", "champion", "2")
    return root


@pytest.fixture
def project(scored: Path, tmp_path: Path) -> Callable[..., Project]:
    """A copy of the project before the same registry, with another section `evaluate`; what was scored stays scored."""

    def make(evaluate: str = "", holdout: Callable[[Path], Any] | None = None) -> Project:
        root = tmp_path / "project"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(scored, root, ignore=shutil.ignore_patterns("mlflow.db*", "art", "models", "verdicts"))
        text = (root / "mlcicd.yaml").read_text()
        if evaluate:
            text = text[: text.index("evaluate:")] + evaluate
        (root / "mlcicd.yaml").write_text(text)
        if holdout is not None:
            holdout(root / "holdout.csv")
        return project_at(root)

    return make


@pytest.fixture(scope="session")
def scored(registered: Path) -> Path:
    """Every version has answered the holdout once, so that tests work in arrays."""
    from mlcicd.stages.gate_backtest import backtest

    verdict = backtest(project_at(registered), draws=40)
    assert verdict.exit_code == 0, (verdict.summary, verdict.details.get("error"))
    return registered
