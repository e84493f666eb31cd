"""A real registry in SQLite: one model with four versions, made once and copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mlcicd.registry import Registry

NAME = "m"


def registry_at(folder: Path, *, lease_s: float = 8.0) -> Registry:
    return Registry(f"sqlite:///{folder / 'mlflow.db'}", experiment="tests", lease_s=lease_s)


@pytest.fixture(scope="session")
def _made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry")
    registry = registry_at(folder)
    run_id = registry.start_run("tests", {})
    for number in range(1, 5):
        registry.create_version(NAME, run_id, {"mlcicd.content": str(number), "mlcicd.model_digest": ""})
    return folder


@pytest.fixture
def registry(_made_once: Path, tmp_path: Path) -> Registry:
    """Versions 1 to 4 of the model `m`, no aliases."""
    shutil.copy(_made_once / "mlflow.db", tmp_path / "mlflow.db")
    return registry_at(tmp_path)
