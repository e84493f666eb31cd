"""What several rooms' tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from support import git

# How long an example takes says something of the machine, not of the code; and the same commit gives the same answer.
settings.register_profile("any-machine", deadline=None, derandomize=True)
settings.load_profile("any-machine")


@pytest.fixture(autouse=True)
def _no_ci_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The tests' own CI host must not be mistaken for the one under test."""
    for name in list(os.environ):
        if name.startswith(("GITHUB_", "GITLAB_", "MLCICD_", "MLFLOW_", "CI_")):
            monkeypatch.delenv(name)
    # What a local target keeps must not land in the home of whoever runs the tests.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Path]:
    """An empty git repository with an identity."""
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    yield root
