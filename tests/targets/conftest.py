"""Models to deploy, and local targets that are stopped whatever a test does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlcicd.targets.base import ModelVersion
from mlcicd.targets.local import LocalTarget

MAKE_MODELS = Path(__file__).parent.parent / "serving" / "make_models.py"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, str(MAKE_MODELS), str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def version(models: Path) -> Callable[..., ModelVersion]:
    def _version(number: str, model: str = "") -> ModelVersion:
        return ModelVersion("toy", number, models / (model or f"scripted-{number}"), "", sys.executable)

    return _version


@pytest.fixture
def make_target(tmp_path: Path) -> Iterator[Callable[..., LocalTarget]]:
    made: list[LocalTarget] = []

    def _make(*, supervise: bool = False, **options: object) -> LocalTarget:
        # Most tests kill something and look at what a command makes of it: nobody else may mend it.
        target = LocalTarget("staging", tmp_path / "state", supervise=supervise, **options)
        made.append(target)
        return target

    yield _make
    if made:
        made[-1].stop()
