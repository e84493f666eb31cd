"""What `evaluate` finds out goes through `register` into the registry, and is there for the next evaluation."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from stages.conftest import change, make_project, project_at
from support import git

from mlcicd.core.verdict import CheckStatus, Status, now
from mlcicd.stages import evaluate, register, train, validate_data
from mlcicd.stages.common import registry_of

pytestmark = pytest.mark.slow


def test_waivers_and_the_sketch_of_the_training_rows_reach_the_registry(repository: Path) -> None:
    expires = (now() + timedelta(days=9)).date().isoformat()
    make_project(repository)
    change(repository / "mlcicd.yaml", "min: 0.7,", "min: 0.999,")
    change(repository / "mlcicd.yaml", "evaluate:\n", "evaluate:\n  waivers: waivers.yaml\n")
    (repository / "waivers.yaml").write_text(
        f"waivers: [{{gate: roc_auc, reason: first of its kind, approver: A. Person, expires: {expires}}}]\n"
    )
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "waive")
    for stage in (validate_data, train, evaluate, register):
        verdict = stage(project_at(repository))
        assert verdict.status is Status.PASSED, (stage, verdict.summary, verdict.details.get("error"))
    registry = registry_of(project_at(repository))
    version = registry.version("tiny", "1")
    assert version.tags["mlcicd.waivers"] == f"roc_auc until {expires} by A. Person: first of its kind"
    registry.set_alias("tiny", "champion", "1")
    check = next(c for c in evaluate(project_at(repository)).checks if c.name == "champion's training data")
    assert check.status is CheckStatus.PASSED
    assert check.details["rows"]["looked_at"] == 1500
    # The next holdout takes some of the rows that the champion has learned from.
    learned = (repository / "train.csv").read_text().splitlines()[1:60]
    with (repository / "holdout.csv").open("a") as file:
        file.write("\n".join(learned) + "\n")
    check = next(c for c in evaluate(project_at(repository)).checks if c.name == "champion's training data")
    assert check.status is CheckStatus.FAILED
    assert "59 of 1,559" in check.reason
