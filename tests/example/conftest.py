"""The example as a user has it: a copy in a Git repository of its own, made by `dvc repro`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "flight-delays"


def load_script(name: str) -> ModuleType:
    """A script of the example as a module: it is no package, and is not on the path."""
    spec = importlib.util.spec_from_file_location(f"flight_delays_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def prepare() -> ModuleType:
    return load_script("prepare")


@pytest.fixture(scope="session")
def train() -> ModuleType:
    return load_script("train")


@pytest.fixture(scope="session")
def example() -> Path:
    return EXAMPLE


@pytest.fixture(scope="session")
def new_project(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes a copy of the example, without anything a developer's own run of it has left there."""

    def copy() -> Path:
        project = tmp_path_factory.mktemp("flight-delays") / "project"
        left = shutil.ignore_patterns(
            "data", "model", ".model.*", "mlruns", "mlflow.db*", "__pycache__", "metrics.json"
        )
        shutil.copytree(EXAMPLE, project, ignore=left)
        return project

    return copy


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs a command in a project with this interpreter first on PATH; returns what it printed."""
    dvc_state = tmp_path_factory.mktemp("dvc-state")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "GIT_", "DVC_"))}
    base = kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(dvc_state),
    }

    def command(project: Path, *words: str, **variables: str) -> str:
        done = subprocess.run(
            words, cwd=project, env=base | variables, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{words} exited {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return command


@pytest.fixture(scope="session")
def made(new_project: Callable[[], Path], run: Callable[..., str]) -> Path:
    """A copy of the example in which `dvc repro` has run."""
    project = new_project()
    run(project, "git", "init", "--quiet")
    run(project, sys.executable, "-m", "dvc", "repro", "--quiet")
    return project
