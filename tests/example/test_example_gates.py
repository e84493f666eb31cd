"""The example's changes before its gates: what gets through, what does not, and which gate says so."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import git

from mlcicd.config import Project, load_project
from mlcicd.core.progress import SILENT
from mlcicd.core.verdict import Check, CheckStatus, Status, Verdict
from mlcicd.evaluation.saboteurs import noisy as noisy_answers
from mlcicd.stages import evaluate, register, train, validate_data
from mlcicd.stages.common import registry_of
from mlcicd.stages.gate_ground import trial_ground
from mlcicd.stages.gate_self_test import self_test
from mlcicd.stages.record import Record

pytestmark = pytest.mark.slow

CHANGES = Path(__file__).parents[2] / "examples" / "changes"


def project_at(root: Path) -> Project:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "MLCICD_", "GITHUB_", "GITLAB_"))}
    dvc = {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(root.parent / "dvc-state")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return load_project(root, environ={**kept, **dvc, "PATH": path})


def fewer_rows(root: Path) -> None:
    """One month of training instead of four, and fewer trees: the holdout stays as it is."""
    path = root / "params.yaml"
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"train_months: \[.*?\]", "train_months: [4]", text)
    text = text.replace("learning_rate: 0.05", "learning_rate: 0.1").replace("max_iter: 150", "max_iter: 60")
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def champion_project(new_project: Callable[[], Path]) -> Path:
    """The example with a champion: version 1, the model of its first commit."""
    root = new_project()
    fewer_rows(root)
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "The project")
    for stage in (validate_data, train, evaluate, register):
        verdict = stage(project_at(root))
        assert verdict.status is Status.PASSED, (verdict.stage, verdict.summary, verdict.details.get("error"))
    registry_of(project_at(root)).set_alias("flight-delays", "champion", "1")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "What DVC recorded")
    return root


@pytest.fixture
def judged(champion_project: Path) -> Callable[..., Verdict]:
    """Trains the project with patches of examples/changes, and gives the verdict of its evaluation."""

    def judge(*patches: str) -> Verdict:
        git(champion_project, "checkout", "--quiet", "--", ".")
        for name in patches:
            git(champion_project, "apply", str(CHANGES / f"{name}.patch"))
        trained = train(project_at(champion_project))
        assert trained.status is Status.PASSED, (trained.summary, trained.details.get("error"))
        return evaluate(project_at(champion_project))

    return judge


def check(verdict: Verdict, name: str, slice_: str = "") -> Check:
    return next(c for c in verdict.checks if (c.name, c.slice) == (name, slice_))


def failed(verdict: Verdict) -> set[str]:
    return {f"{c.name} {c.slice}".strip() for c in verdict.checks if c.status is CheckStatus.FAILED}


def test_honest_better_model_passes(judged: Callable[..., Verdict]) -> None:
    verdict = judged("better")
    assert verdict.status is Status.PASSED, verdict.summary
    gain = check(verdict, "roc_auc vs champion")
    assert gain.interval is not None and gain.interval[0] > 0.02


def test_shuffled_labels_fail(judged: Callable[..., Verdict]) -> None:
    verdict = judged("shuffled")
    assert verdict.status is Status.FAILED
    assert {"roc_auc", "roc_auc vs champion"} <= failed(verdict)


@pytest.mark.parametrize(
    ("strength", "allowed"), [(0.15, {Status.INCONCLUSIVE, Status.FAILED}), (0.5, {Status.FAILED})]
)
def test_champion_plus_noise_is_inconclusive_or_fails(
    champion_project: Path, strength: float, allowed: set[Status]
) -> None:
    git(champion_project, "checkout", "--quiet", "--", ".")
    project = project_at(champion_project)
    record = Record(project, "noise", dry_run=True, progress=SILENT)
    with trial_ground(record) as ground:
        _, champion = ground.reference()
    noisy = noisy_answers(champion, strength, np.random.default_rng(0)).scores
    assert noisy is not None
    flights = pd.read_parquet(champion_project / "data" / "holdout.parquet")[["flight_id"]]
    # Another order of rows, which the keys put right.
    flights.assign(score=noisy[:, 1]).iloc[::-1].to_parquet(champion_project / "noisy.parquet")
    verdict = evaluate(project, predictions="noisy.parquet")
    assert verdict.status in allowed, verdict.summary
    loss = check(verdict, "roc_auc vs champion")
    assert loss.status is not CheckStatus.PASSED
    assert loss.reason and loss.remedy


def test_better_overall_and_worse_for_one_carrier_fails_its_slice_alone(judged: Callable[..., Verdict]) -> None:
    verdict = judged("better", "one-carrier")
    assert check(verdict, "roc_auc vs champion").status is CheckStatus.PASSED
    assert float(check(verdict, "roc_auc vs champion").observed or 0) > 0
    assert failed(verdict) == {"roc_auc carrier=US"}
    assert verdict.status is Status.FAILED


def test_unchanged_project_is_skipped_and_passes_as_its_own_champion(champion_project: Path) -> None:
    git(champion_project, "checkout", "--quiet", "--", ".")
    again = train(project_at(champion_project))
    assert again.status is Status.SKIPPED, again.summary
    verdict = evaluate(project_at(champion_project))
    assert verdict.status is Status.PASSED, verdict.summary
    assert check(verdict, "roc_auc vs champion").observed == 0


def test_gates_of_the_example_stop_models_that_are_made_bad(champion_project: Path) -> None:
    git(champion_project, "checkout", "--quiet", "--", ".")
    verdict = self_test(project_at(champion_project))
    assert verdict.status is Status.PASSED, (verdict.summary, failed(verdict))
    assert check(verdict, "worse for carrier=UA").reason == "caught by roc_auc (carrier=UA)"
    noise = verdict.details["noise"]
    assert noise[0]["passed"] == 1 and noise[-1]["failed"] == 1
    # The second gate does little: its threshold has to leave room for June.
    assert failed(verdict) == {"gate brier"}
