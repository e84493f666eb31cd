"""Small projects to train in. Their models are cheap to make: MLflow is imported only where a model is loaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import git

from mlcicd.config import load_project
from mlcicd.stages.common import registry_of

# A model is its MLmodel file to a training; what is in it matters to whoever loads it.
CHEAP = """\
import os, pathlib, sys
folder = pathlib.Path("model")
folder.mkdir()
(folder / "data").write_bytes(pathlib.Path("train.csv").read_bytes())
(folder / "seen").write_text(" ".join(os.environ.get(name, "-") for name in sys.argv[1:]))
(folder / "MLmodel").write_text("flavors: {}\\n")
print("trained")
"""

CONFIG = """\
version: 1
model: {name: tiny, task: binary}
data: {train: train.csv, holdout: holdout.csv, target: y}
train:
  run: python train.py
  code: ["*.py"]
"""


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty tracking store: making its tables takes longer than most of these tests."""
    root = tmp_path_factory.mktemp("store")
    (root / "mlcicd.yaml").write_text(CONFIG)
    registry_of(load_project(root, environ={})).find_finished_run({"a": "b"})
    return root / "mlflow.db"


@pytest.fixture
def project(repository: Path, store: Path) -> Path:
    """A project whose training is cheap."""
    (repository / "mlcicd.yaml").write_text(CONFIG)
    (repository / "train.py").write_text(CHEAP)
    (repository / "train.csv").write_text("a,y\n1,0\n2,1\n")
    (repository / "holdout.csv").write_text("a,y\n1,0\n2,1\n3,1\n")
    moved(store, repository)
    return repository


@pytest.fixture
def server(store: Path, tmp_path: Path) -> Path:
    """A tracking store outside of any project, as a server's is."""
    return moved(store, tmp_path / "server")


def moved(store: Path, root: Path) -> Path:
    """A copy of the empty store, whose artifacts are kept beside it."""
    import sqlite3

    root.mkdir(exist_ok=True)
    database = sqlite3.connect(shutil.copy(store, root / "mlflow.db"))
    with database:
        database.execute(
            "UPDATE experiments SET artifact_location = replace(artifact_location, ?, ?)",
            (store.parent.as_uri(), root.as_uri()),
        )
    database.close()
    return root / "mlflow.db"


@pytest.fixture(scope="session")
def dvc(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs DVC in a folder as its user would."""
    state = tmp_path_factory.mktemp("dvc-state")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "GIT_", "DVC_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = kept | {"PATH": path, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(state)}

    def command(root: Path, *words: str) -> str:
        done = subprocess.run(["dvc", *words], cwd=root, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"dvc {words} exited {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return command


SERVER = 'tracking: {uri: "${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}"}\n'
PIPELINE = """\
stages:
  prepare:
    cmd: python prepare.py
    deps: [prepare.py, data/raw]
    params: [rows, rate]
    outs: [train.csv]
  train:
    cmd: python train.py
    deps: [train.py, train.csv]
    outs: [model]
  unrelated:
    cmd: python -c "print()"
    deps: [data/raw]
"""
PREPARE = """\
import pathlib
text = "".join(path.read_text() for path in sorted(pathlib.Path("data/raw").rglob("*.csv")))
pathlib.Path("train.csv").write_text("a,y\\n" + text)
"""


@pytest.fixture(scope="session")
def _pipeline_once(tmp_path_factory: pytest.TempPathFactory, dvc: Callable[..., str]) -> Path:
    root = tmp_path_factory.mktemp("pipeline") / "project"
    raw = root / "data" / "raw"
    (raw / "deep").mkdir(parents=True)
    (raw / "one.csv").write_text("1,0\n")
    (raw / "deep" / "two.csv").write_text("2,1\r\n")
    (raw / "notes.tmp").write_text("not data")
    (root / "holdout.csv").write_text("a,y\n1,0\n")
    (root / "prepare.py").write_text(PREPARE)
    (root / "train.py").write_text(CHEAP)
    (root / "params.yaml").write_text("rows: 2\nrate: 1e-3\nother: 1\n")
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "mlcicd.yaml").write_text(CONFIG.replace("run: python train.py", "run: dvc repro train") + SERVER)
    git(root.parent, "init", "--quiet", "--initial-branch=main", "project")
    dvc(root, "init", "--quiet")
    (root / ".dvcignore").write_text("*.tmp\n")
    dvc(root, "remote", "add", "--quiet", "--default", "here", str(root.parent / "remote"))
    dvc(root, "add", "--quiet", "data/raw")
    dvc(root, "repro", "--quiet", "train")
    dvc(root, "push", "--quiet")
    (root / ".gitignore").write_text("/train.csv\n/model\n.mlcicd/\nmlflow.db*\nmlartifacts/\n")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "first")
    return root


@pytest.fixture
def pipeline(_pipeline_once: Path, tmp_path: Path) -> Path:
    """A fresh clone of a DVC project: code and records, no data."""
    root = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(_pipeline_once), str(root))
    assert not (root / "data" / "raw").exists() and not (root / "train.csv").exists()
    return root


@pytest.fixture
def with_data(_pipeline_once: Path, tmp_path: Path) -> Path:
    """A copy of the DVC project with its data."""
    return Path(shutil.copytree(_pipeline_once, tmp_path / "with-data"))
