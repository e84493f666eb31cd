"""evaluate and register: what gets through, what does not, and on what evidence."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import git

from mlcicd.core.verdict import CheckStatus, Status
from mlcicd.stages import evaluate, register, run, train
from mlcicd.stages.common import registry_of

from .conftest import change, project_at, write_table


def commit(root: Path) -> None:
    git(root, "commit", "--quiet", "--all", "--allow-empty", "--message", "change")


def champion(root: Path) -> None:
    """Makes the evaluated model the champion, as a first deployment would."""
    verdict = register(project_at(root))
    assert verdict.status is Status.PASSED, verdict
    registry_of(project_at(root)).set_alias("tiny", "champion", "1")


def test_first_model_passes_by_its_absolute_gates(evaluated: Path) -> None:
    verdict = evaluate(project_at(evaluated))
    assert verdict.status is Status.PASSED
    by_name = {check.name: check for check in verdict.checks}
    auc = by_name["roc_auc"]
    assert isinstance(auc.observed, float)
    assert auc.interval[0] < auc.observed < auc.interval[1]
    assert by_name["roc_auc vs champion"].status is CheckStatus.SKIPPED


def test_point_value_is_scikit_learns(evaluated: Path) -> None:
    import mlflow.pyfunc
    import pandas as pd
    from sklearn.metrics import roc_auc_score

    table = pd.read_csv(evaluated / "holdout.csv")
    model = mlflow.pyfunc.load_model(str(evaluated / "model"))
    expected = roc_auc_score(table["y"], model.predict(table[["a", "b"]])[:, 1])
    check = next(c for c in evaluate(project_at(evaluated)).checks if c.name == "roc_auc")
    assert check.observed == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
def test_worse_model_fails_against_the_champion(evaluated: Path) -> None:
    champion(evaluated)
    change(evaluated / "train.py", 'table["y"]\n', 'table["y"].sample(frac=1, random_state=0).reset_index(drop=True)\n')
    change(evaluated / "mlcicd.yaml", "min: 0.7, ", "")
    commit(evaluated)
    assert train(project_at(evaluated)).status is Status.PASSED
    verdict = evaluate(project_at(evaluated))
    assert verdict.status is Status.FAILED
    assert verdict.exit_code == 1
    check = next(c for c in verdict.checks if c.name == "roc_auc vs champion")
    assert check.status is CheckStatus.FAILED
    assert check.interval[1] < -0.05
    assert check.reason and check.remedy
    assert check.details["line"] == 7
    refused = register(project_at(evaluated))
    assert refused.status is Status.FAILED
    assert len(registry_of(project_at(evaluated)).versions("tiny")) == 1


@pytest.mark.slow
def test_noise_on_few_rows_is_inconclusive(evaluated: Path) -> None:
    champion(evaluated)
    write_table(evaluated / "holdout.csv", 60, 3)
    change(evaluated / "train.py", "LogisticRegression()", "LogisticRegression(C=0.001)")
    change(evaluated / "mlcicd.yaml", "min: 0.7, vs_champion: {margin: 0.05}", "vs_champion: {superiority: true}")
    commit(evaluated)
    train(project_at(evaluated))
    verdict = evaluate(project_at(evaluated))
    assert verdict.status is Status.INCONCLUSIVE
    assert verdict.exit_code == 3
    refused = register(project_at(evaluated))
    assert refused.status is Status.FAILED
    assert "inconclusive" in refused.summary


def test_no_gates_is_ungated_and_not_registered(evaluated: Path) -> None:
    text = (evaluated / "mlcicd.yaml").read_text()
    (evaluated / "mlcicd.yaml").write_text(
        text.replace("evaluate:\n  gates:\n    roc_auc: {min: 0.7, vs_champion: {margin: 0.05}}\n", "")
    )
    train(project_at(evaluated))
    verdict = evaluate(project_at(evaluated))
    assert verdict.status is Status.UNGATED
    assert "UNGATED" in verdict.summary
    assert register(project_at(evaluated)).status is Status.FAILED


def test_misspelled_metric_is_an_error_on_its_line(evaluated: Path) -> None:
    change(evaluated / "mlcicd.yaml", "roc_auc:", "roc_acu:")
    verdict = evaluate(project_at(evaluated))
    assert verdict.exit_code == 2
    assert verdict.summary == "mlcicd.yaml:7: there is no metric 'roc_acu' for a binary model; did you mean 'roc_auc'?"


def test_missing_champion_can_be_a_failure(evaluated: Path) -> None:
    change(evaluated / "mlcicd.yaml", "evaluate:\n", "evaluate:\n  no_champion: fail\n")
    train(project_at(evaluated))
    assert evaluate(project_at(evaluated)).status is Status.FAILED


@pytest.mark.slow
def test_header_without_rows_is_never_a_pass(evaluated: Path) -> None:
    (evaluated / "holdout.csv").write_text("id,a,b,y\n")
    verdict = evaluate(project_at(evaluated))
    assert verdict.status in (Status.FAILED, Status.ERROR)


@pytest.mark.slow
def test_model_that_answers_nan_fails(evaluated: Path) -> None:
    change(
        evaluated / "train.py",
        "LogisticRegression().fit(X, y)",
        "LogisticRegression().fit(X, y); model.coef_[:] = float('nan')",
    )
    train(project_at(evaluated))
    verdict = evaluate(project_at(evaluated))
    assert verdict.status is Status.FAILED
    assert verdict.exit_code == 1


def test_model_that_can_not_be_loaded_fails_with_its_words(evaluated: Path) -> None:
    other = evaluated / "broken"
    other.mkdir()
    (other / "MLmodel").write_text("flavors: {python_function: {loader_module: no_such_module_here}}\n")
    verdict = evaluate(project_at(evaluated), model="broken")
    assert verdict.exit_code == 1
    assert any("no_such_module_here" in line for line in verdict.details["error"]["log"])


def test_registration_is_idempotent_and_carries_its_lineage(evaluated: Path) -> None:
    project = project_at(evaluated)
    first = register(project)
    again = register(project)
    assert (first.status, again.status) == (Status.PASSED, Status.SKIPPED)
    assert first.outputs["model-version"] == again.outputs["model-version"] == "1"
    version = registry_of(project).version_at("tiny", "challenger")
    assert version is not None
    assert version.tags["mlcicd.git_commit"] == git(evaluated, "rev-parse", "HEAD")
    assert version.tags["mlcicd.evaluation"] == "passed"
    assert version.digest.startswith("sha256:")


def test_dry_run_registers_nothing(evaluated: Path) -> None:
    verdict = register(project_at(evaluated), dry_run=True)
    assert verdict.exit_code == 0
    assert registry_of(project_at(evaluated)).versions("tiny") == []


def test_evidence_of_a_dry_evaluation_is_not_accepted(evaluated: Path) -> None:
    evaluate(project_at(evaluated), dry_run=True)
    verdict = register(project_at(evaluated))
    assert verdict.status is Status.FAILED
    assert "dry run" in verdict.summary


@pytest.mark.parametrize("what", ["config", "commit"])
def test_stale_evidence_is_refused(evaluated: Path, what: str) -> None:
    if what == "config":
        change(evaluated / "mlcicd.yaml", "min: 0.7", "min: 0.1")
    else:
        commit(evaluated)
    verdict = register(project_at(evaluated))
    assert verdict.status is Status.FAILED
    assert "something else" in verdict.summary


def test_missing_evidence_is_an_input_error(root: Path) -> None:
    verdict = register(project_at(root))
    assert verdict.exit_code == 4
    assert "evaluate" in verdict.summary


def test_changed_artifact_is_not_registered(evaluated: Path) -> None:
    model = next((evaluated / "mlartifacts").rglob("MLmodel"))
    model.write_text(model.read_text() + "# changed\n")
    verdict = register(project_at(evaluated))
    assert verdict.exit_code == 4
    assert registry_of(project_at(evaluated)).versions("tiny") == []


def test_pipeline_stops_at_the_first_failure(root: Path) -> None:
    change(root / "mlcicd.yaml", "run: python train.py", "run: exit 3")
    verdict = run(project_at(root), stages=["train", "evaluate"])
    assert verdict.status is Status.FAILED
    assert verdict.outputs["failed-stage"] == "train"
    assert verdict.details["stages"] == ["train"]


@pytest.mark.parametrize("stages", [["tarin"], ["evaluate", "train"], ["train", "train"], []])
def test_pipeline_refuses_what_makes_no_sense(root: Path, stages: list[str]) -> None:
    assert run(project_at(root), stages=stages).exit_code == 2


def test_a_misspelled_metric_is_told_before_the_training(root: Path) -> None:
    change(root / "mlcicd.yaml", "roc_auc:", "roc_acu:")
    verdict = run(project_at(root), stages=["train", "evaluate"])
    assert verdict.exit_code == 2
    assert not (root / "model").exists()


def test_plan_alone_runs_nothing(root: Path) -> None:
    verdict = run(project_at(root), stages=["plan"])
    assert verdict.status is Status.SKIPPED
    assert verdict.outputs["production"] == "production"


def test_a_changed_gate_does_not_ask_for_a_new_training(evaluated: Path) -> None:
    change(evaluated / "mlcicd.yaml", "min: 0.7", "min: 0.6")
    assert evaluate(project_at(evaluated)).status is Status.PASSED
    change(evaluated / "train.py", 'print("trained")', 'print("changed")')
    verdict = evaluate(project_at(evaluated))
    assert verdict.status is Status.FAILED
    assert "code (train.py) changed since" in verdict.summary


def test_pipeline_plan_follows_the_mode(root: Path) -> None:
    change(root / "mlcicd.yaml", "run: python train.py", "run: exit 3")
    assert run(project_at(root), stages=["train"]).outputs["github-environment"] == "production-unattended"
    change(root / "mlcicd.yaml", "mode: deployment", "mode: delivery")
    assert run(project_at(root), stages=["train"]).outputs["github-environment"] == "production"


def retrain(root: Path) -> None:
    assert train(project_at(root)).exit_code == 0


def test_only_a_comparison_and_no_champion_is_ungated(evaluated: Path) -> None:
    change(evaluated / "mlcicd.yaml", "min: 0.7, ", "")
    retrain(evaluated)
    verdict = evaluate(project_at(evaluated))
    assert verdict.status is Status.UNGATED
    assert register(project_at(evaluated)).status is Status.FAILED


def test_only_a_warning_gate_is_ungated(evaluated: Path) -> None:
    change(evaluated / "mlcicd.yaml", "min: 0.7, vs_champion: {margin: 0.05}", "min: 0.9999, severity: warn")
    retrain(evaluated)
    assert evaluate(project_at(evaluated)).status is Status.UNGATED


def test_a_champion_that_is_named_and_is_not_there_is_an_error(evaluated: Path) -> None:
    champion(evaluated)
    change(evaluated / "mlcicd.yaml", "evaluate:\n", "evaluate:\n  champion: models:/tiny@champoin\n")
    retrain(evaluated)
    verdict = evaluate(project_at(evaluated))
    assert verdict.exit_code == 4
    assert "models:/tiny@champoin" in verdict.summary


def test_another_stages_verdict_is_no_evidence(evaluated: Path) -> None:
    verdicts = evaluated / ".mlcicd" / "verdicts"
    (verdicts / "evaluate.json").write_text((verdicts / "train.json").read_text())
    verdict = register(project_at(evaluated))
    assert verdict.exit_code == 4
    assert "not of `evaluate`" in verdict.summary


@pytest.mark.parametrize("what", ["missing", "failed", "other data"])
def test_data_that_was_not_validated_is_refused(evaluated: Path, what: str) -> None:
    path = evaluated / ".mlcicd" / "verdicts" / "validate-data.json"
    if what == "missing":
        path.unlink()
    elif what == "failed":
        path.write_text(
            path.read_text().replace('"status": "passed",\n  "summary"', '"status": "failed",\n  "summary"')
        )
    else:
        with (evaluated / "train.csv").open("a") as file:
            file.write("5,0.5,0.5,1\n")
        retrain(evaluated)
        assert evaluate(project_at(evaluated)).status is Status.PASSED
    verdict = register(project_at(evaluated))
    assert verdict.status is Status.FAILED
    assert "validat" in verdict.summary


def test_evidence_of_one_version_survives_the_next(evaluated: Path) -> None:
    from mlcicd.stages.common import version_evidence

    assert register(project_at(evaluated)).status is Status.PASSED
    change(evaluated / "mlcicd.yaml", "min_requests: 50", "min_requests: 60")
    for stage in (train, evaluate, register):
        assert stage(project_at(evaluated)).exit_code == 0
    project = project_at(evaluated)
    registry = registry_of(project)
    versions = registry.versions("tiny")
    assert len(versions) == 2
    assert [version_evidence(project, registry, v).status for v in versions] == [CheckStatus.PASSED] * 2


def test_a_digest_that_is_none_names_no_folder(evaluated: Path, tmp_path: Path) -> None:
    champion(evaluated)
    victim = tmp_path / "victim"
    victim.mkdir()
    registry_of(project_at(evaluated)).tag_version("tiny", "1", {"mlcicd.model_digest": str(victim)})
    assert evaluate(project_at(evaluated)).exit_code == 4
    assert victim.is_dir()


def test_old_content_again_does_not_take_the_challenger_alias(evaluated: Path) -> None:
    assert register(project_at(evaluated)).outputs["model-version"] == "1"
    change(evaluated / "mlcicd.yaml", "min_requests: 50", "min_requests: 60")
    for stage in (train, evaluate, register):
        stage(project_at(evaluated))
    change(evaluated / "mlcicd.yaml", "min_requests: 60", "min_requests: 50")
    for stage in (train, evaluate, register):
        assert stage(project_at(evaluated)).exit_code == 0
    version = registry_of(project_at(evaluated)).version_at("tiny", "challenger")
    assert version is not None
    assert version.version == "2"


def test_the_model_is_not_handed_the_answers(evaluated: Path) -> None:
    seen = evaluated / "seen.txt"
    spy = evaluated / "spy"
    spy.mkdir()
    (spy / "MLmodel").write_text(
        "flavors: {python_function: {loader_module: spy_loader, code: code, env: {}}}\nmodel_uuid: x\n"
    )
    (spy / "code").mkdir()
    (spy / "code" / "spy_loader.py").write_text(
        "import os, sys\n"
        "def _load_pyfunc(path):\n"
        f"    data = open(sys.argv[sys.argv.index('--data') + 1]).readline()\n"
        f"    open({str(seen)!r}, 'w').write(data + os.environ.get('MLFLOW_TRACKING_URI', 'no registry'))\n"
        "    raise SystemExit(1)\n"
    )
    # A loader of its own would be refused before it is loaded.
    with (evaluated / "mlcicd.yaml").open("a") as config:
        config.write("supply_chain: {scan: warn}\n")
    evaluate(project_at(evaluated), model="spy")
    assert seen.read_text().splitlines() == ["id,a,b", "no registry"]


def test_a_repository_that_git_does_not_read_is_an_error(evaluated: Path) -> None:
    (evaluated / ".git" / "HEAD").write_text("garbage")
    verdict = register(project_at(evaluated))
    assert verdict.exit_code == 5
    assert "git does not read" in verdict.summary


def test_a_second_evaluation_asks_no_model_again(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlcicd.evaluation import scoring

    before = next(c for c in evaluate(project_at(evaluated)).checks if c.name == "roc_auc").observed

    def never(*_arguments: object, **_more: object) -> None:
        raise AssertionError("a model was asked again")

    monkeypatch.setattr(scoring, "run_child", never)
    again = evaluate(project_at(evaluated))
    assert again.status is Status.PASSED, again.summary
    assert next(c for c in again.checks if c.name == "roc_auc").observed == before


@pytest.mark.slow
def test_a_model_that_mlflow_did_not_save_goes_through_to_the_registry(evaluated: Path) -> None:
    (evaluated / "train.py").write_text(
        "import joblib, pandas as pd, pathlib, shutil\n"
        "from sklearn.linear_model import LogisticRegression\n"
        "table = pd.read_csv('train.csv')\n"
        "shutil.rmtree('model', ignore_errors=True); pathlib.Path('model').mkdir()\n"
        "joblib.dump(LogisticRegression().fit(table[['a', 'b']], table['y']), 'model/model.joblib')\n"
    )
    for _again in range(2):
        commit(evaluated)
        trained = train(project_at(evaluated), force=True)
        assert trained.status is Status.PASSED, (trained.summary, trained.details.get("error"))
    verdict = evaluate(project_at(evaluated))
    assert verdict.status is Status.PASSED, (verdict.summary, verdict.details.get("error"))
    assert next(c for c in verdict.checks if c.name == "roc_auc").observed > 0.8
    # As a file by its name, it is the same model.
    named = evaluate(project_at(evaluated), model="model/model.joblib")
    assert named.status is Status.PASSED, named.summary
    assert register(project_at(evaluated)).status is Status.FAILED
