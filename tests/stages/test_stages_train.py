"""train: runs the user's command once, and says clearly when that fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import git

from mlcicd.core.verdict import Status, Verdict
from mlcicd.stages import train
from mlcicd.stages.common import registry_of

from .conftest import change, project_at


def test_unchanged_project_is_not_trained_again(evaluated: Path) -> None:
    first = Verdict.read(evaluated / ".mlcicd" / "verdicts" / "train.json")
    (evaluated / "train.py").touch()
    again = train(project_at(evaluated))
    assert again.status is Status.SKIPPED
    assert again.outputs["run-id"] == first.outputs["run-id"]
    assert again.outputs["model-digest"] == first.outputs["model-digest"]


@pytest.mark.slow
def test_lost_model_directory_is_fetched_from_the_run(evaluated: Path) -> None:
    import shutil

    shutil.rmtree(evaluated / "model")
    again = train(project_at(evaluated))
    assert again.status is Status.SKIPPED
    fetched = evaluated / again.outputs["model-path"]
    assert (fetched / "MLmodel").is_file()


@pytest.mark.slow
def test_damaged_artifact_is_not_reused(evaluated: Path) -> None:
    import shutil

    shutil.rmtree(evaluated / "model")
    model = next((evaluated / "mlartifacts").rglob("MLmodel"))
    model.write_text(model.read_text() + "# changed\n")
    first = Verdict.read(evaluated / ".mlcicd" / "verdicts" / "train.json").outputs["run-id"]
    again = train(project_at(evaluated))
    assert again.status is Status.PASSED
    assert again.outputs["run-id"] != first


@pytest.mark.slow
@pytest.mark.parametrize("what", ["code", "data", "config"])
def test_a_change_is_trained(evaluated: Path, what: str) -> None:
    if what == "code":
        change(evaluated / "train.py", 'print("trained")', 'print("trained again")')
    elif what == "data":
        with (evaluated / "train.csv").open("a") as file:
            file.write("1,0.5,0.5,1\n")
    else:
        change(evaluated / "mlcicd.yaml", "run: python train.py", "seed: 7, run: python train.py")
    assert train(project_at(evaluated)).status is Status.PASSED


def test_force_trains(evaluated: Path) -> None:
    assert train(project_at(evaluated), force=True).status is Status.PASSED


def test_failing_command_keeps_its_last_lines(root: Path) -> None:
    change(root / "mlcicd.yaml", "run: python train.py", "run: echo before && echo oh no >&2 && exit 3")
    verdict = train(project_at(root))
    assert verdict.status is Status.FAILED
    assert verdict.exit_code == 1
    assert "exit code 3" in verdict.summary
    assert verdict.details["error"]["log"] == ["before", "oh no"]


def test_failed_training_keeps_the_last_model(evaluated: Path) -> None:
    change(evaluated / "mlcicd.yaml", "run: python train.py", "run: mkdir model && touch model/half && exit 1")
    before = sorted(p.name for p in (evaluated / "model").iterdir())
    assert train(project_at(evaluated)).status is Status.FAILED
    assert sorted(p.name for p in (evaluated / "model").iterdir()) == before


def test_an_old_model_is_not_taken_for_a_new_one(evaluated: Path) -> None:
    change(evaluated / "mlcicd.yaml", "run: python train.py", 'run: "true"')
    verdict = train(project_at(evaluated))
    assert verdict.status is Status.FAILED
    assert "left no MLflow model" in verdict.summary


def test_missing_data_names_the_line(root: Path) -> None:
    (root / "train.csv").unlink()
    verdict = train(project_at(root))
    assert verdict.status is Status.ERROR
    assert verdict.exit_code == 4
    assert verdict.summary == "mlcicd.yaml:3: train.csv does not exist"


def test_registry_that_is_not_there(root: Path) -> None:
    with (root / "mlcicd.yaml").open("a") as file:
        file.write('tracking: {uri: "http://127.0.0.1:9"}\n')
    verdict = train(project_at(root))
    assert verdict.exit_code == 5
    assert "can not be reached" in verdict.summary
    assert "127.0.0.1:9" in verdict.summary


def test_no_code_matches(root: Path) -> None:
    change(root / "mlcicd.yaml", 'code: ["*.py"]', 'code: ["src/**"]')
    verdict = train(project_at(root))
    assert verdict.exit_code == 4
    assert "train.code" in verdict.summary


def test_abandoned_run_is_ended(root: Path) -> None:
    change(root / "mlcicd.yaml", "run: python train.py", "run: exit 1")
    project = project_at(root)
    registry = registry_of(project)
    registry.start_run("tiny", {"mlcicd.attempt": "abandoned"})
    other = registry.start_run("tiny", {"mlcicd.attempt": "another"})
    (root / ".mlcicd").mkdir(exist_ok=True)
    (root / ".mlcicd" / "training-run").write_text("abandoned")
    train(project)
    assert registry.running_runs({"mlcicd.attempt": "abandoned"}) == []
    assert registry.running_runs({"mlcicd.attempt": "another"}) == [other]


def test_dry_run_trains_nothing_and_leaves_no_run(root: Path) -> None:
    verdict = train(project_at(root), dry_run=True)
    assert verdict.exit_code == 0
    assert "would train" in verdict.summary
    assert not (root / "model").exists()
    assert registry_of(project_at(root)).find_finished_run({"mlcicd.fingerprint": "x"}) == ""


@pytest.mark.parametrize("text", ["a: [", "a: &x 1\nb: *x\n"])
def test_damaged_params_are_told_before_training(root: Path, text: str) -> None:
    (root / "params.yaml").write_text(text)
    change(root / "mlcicd.yaml", "run: python train.py", "params: params.yaml, run: python train.py")
    verdict = train(project_at(root))
    assert verdict.exit_code == 2
    assert "params.yaml" in verdict.summary
    assert not (root / "model").exists()


def test_two_trainings_in_one_folder(root: Path) -> None:
    from mlcicd.core.files import alone

    with alone(root / ".mlcicd" / "train.lock", "a test"):
        verdict = train(project_at(root))
    assert verdict.exit_code == 5
    assert "another training is running here" in verdict.summary


def test_code_in_folders_counts(evaluated: Path) -> None:
    change(evaluated / "mlcicd.yaml", ', code: ["*.py"]', "")
    (evaluated / "lib").mkdir()
    (evaluated / "lib" / "shape.py").write_text("C = 1\n")
    first = train(project_at(evaluated))
    (evaluated / "lib" / "shape.py").write_text("C = 2\n")
    second = train(project_at(evaluated))
    assert (first.status, second.status) == (Status.PASSED, Status.PASSED)
    (evaluated / ".venv" / "lib").mkdir(parents=True)
    (evaluated / ".venv" / "lib" / "x.py").write_text("1\n")
    assert train(project_at(evaluated)).status is Status.SKIPPED


def test_a_pull_requests_run_is_not_reused_after_the_merge(root: Path) -> None:
    import os

    from mlcicd.config import load_project

    pull_request = load_project(root, environ={**os.environ, "GITHUB_EVENT_NAME": "pull_request"})
    assert train(pull_request).status is Status.PASSED
    assert train(pull_request).status is Status.SKIPPED
    assert train(project_at(root)).status is Status.PASSED


def test_a_new_training_makes_later_verdicts_stale(evaluated: Path) -> None:
    train(project_at(evaluated))
    verdicts = {path.stem for path in (evaluated / ".mlcicd" / "verdicts").iterdir()}
    assert verdicts == {"validate-data", "train"}
    assert any("evaluate" in path.name for path in (evaluated / ".mlcicd" / "history").iterdir())


def test_verdict_names_commit_and_dirt(evaluated: Path) -> None:
    (evaluated / "notes.txt").write_text("not committed")
    subject = train(project_at(evaluated)).subject("git")
    assert subject is not None
    assert subject.digest == git(evaluated, "rev-parse", "HEAD")
    assert subject.details["dirty"] is True
