"""deploy and rollback with real servers and the real router."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from mlcicd.core.verdict import CheckStatus, Status
from mlcicd.stages import deploy, evaluate, register, rollback, train
from mlcicd.stages.common import registry_of
from mlcicd.stages.places import place

from .conftest import change, project_at
from .test_stages_gate import commit

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture
def registered(evaluated: Path) -> Iterator[Path]:
    verdict = register(project_at(evaluated))
    assert verdict.status is Status.PASSED, verdict
    yield evaluated
    place(project_at(evaluated), "").target.stop()


def next_version(root: Path, mark: str) -> str:
    """Trains and registers a model that differs a little; gives its version."""
    change(root / "train.py", "LogisticRegression()", f"LogisticRegression(C={mark})")
    commit(root)
    for stage in (train, evaluate, register):
        verdict = stage(project_at(root))
        assert verdict.status is Status.PASSED, verdict
    change(root / "train.py", f"LogisticRegression(C={mark})", "LogisticRegression()")
    return verdict.outputs["model-version"]


def answer(url: str) -> tuple[int, str]:
    body = {"dataframe_records": [{"a": 0.1, "b": 0.2}]}
    reply = requests.post(f"{url}/invocations", json=body, timeout=10)
    return reply.status_code, reply.headers.get("x-mlcicd-version", "")


def alias(root: Path, name: str) -> str:
    version = registry_of(project_at(root)).version_at("tiny", name)
    return version.version if version else ""


def test_first_deployment_then_a_direct_switch_then_back(registered: Path) -> None:
    change(registered / "mlcicd.yaml", "strategy: canary, ", "")
    assert train(project_at(registered)).status is Status.SKIPPED
    for stage in (evaluate, register):
        assert stage(project_at(registered)).exit_code == 0
    first = deploy(project_at(registered))
    assert first.status is Status.PASSED, first
    assert first.outputs["strategy"] == "direct"
    same = next(check for check in first.checks if check.name == "parity")
    assert (same.status, same.details["rows"]) == (CheckStatus.PASSED, 50)
    live = first.outputs["model-version"]
    assert answer(first.outputs["url"]) == (200, live)
    assert alias(registered, "champion") == live
    assert deploy(project_at(registered)).status is Status.SKIPPED

    version = next_version(registered, "0.5")
    second = deploy(project_at(registered))
    assert second.status is Status.PASSED, second
    assert answer(second.outputs["url"]) == (200, version)
    assert (alias(registered, "champion"), alias(registered, "previous")) == (version, live)

    back = rollback(project_at(registered), reason="test")
    assert back.status is Status.PASSED, back
    assert answer(second.outputs["url"]) == (200, live)
    assert (alias(registered, "champion"), alias(registered, "previous")) == (live, version)


def test_a_canary_waits_without_traffic(registered: Path) -> None:
    first = deploy(project_at(registered))
    assert first.outputs["strategy"] == "direct", "there is nothing to compare the first one with"
    version = next_version(registered, "0.5")
    waiting = deploy(project_at(registered))
    assert waiting.outputs["strategy"] == "canary"
    assert {answer(waiting.outputs["url"]) for _ in range(20)} == {(200, "1")}
    assert place(project_at(registered), "").target.status().canary == version
    assert alias(registered, "champion") == "1"


def test_a_failed_smoke_test_takes_the_version_away(registered: Path) -> None:
    url = deploy(project_at(registered)).outputs["url"]
    next_version(registered, "0.5")
    (registered / "smoke.jsonl").write_text('{"dataframe_records": [{"a": 1.0, "b": 1.0}], "expect": {"max": 0.0}}\n')
    verdict = deploy(project_at(registered))
    assert verdict.status is Status.FAILED
    assert verdict.exit_code == 1
    assert "smoke" in verdict.summary
    status = place(project_at(registered), "").target.status()
    assert (status.live, status.canary) == ("1", None)
    assert answer(url) == (200, "1")


# Answers something else in every process: as a server with other packages would.
ELSEWHERE = """\
import os
import mlflow.pyfunc
from mlflow.models import set_model

class Elsewhere(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input["a"].to_numpy() + os.getpid()

set_model(Elsewhere())
"""
SAVE = """\
import shutil
import mlflow.pyfunc, pandas as pd
from mlflow.models import infer_signature

X = pd.read_csv("train.csv")[["a", "b"]]
shutil.rmtree("model", ignore_errors=True)
mlflow.pyfunc.save_model("model", python_model="elsewhere.py", signature=infer_signature(X, [0.5]), pip_requirements=[])
"""


def test_a_server_that_answers_something_else_is_taken_away(evaluated: Path) -> None:
    (evaluated / "elsewhere.py").write_text(ELSEWHERE)
    (evaluated / "train.py").write_text(SAVE)
    change(evaluated / "mlcicd.yaml", "deploy:\n", "supply_chain: {scan: warn}\ndeploy:\n")
    commit(evaluated)
    for stage in (train, evaluate, register):
        verdict = stage(project_at(evaluated))
        assert verdict.status is Status.PASSED, verdict
    verdict = deploy(project_at(evaluated))
    assert verdict.status is Status.FAILED, verdict
    assert "failed the comparison with the evaluated model" in verdict.summary
    assert "the answers differ by" in verdict.checks[-1].reason
    assert place(project_at(evaluated), "").target.status().live is None
    place(project_at(evaluated), "").target.stop()


def test_delivery_needs_a_person(registered: Path) -> None:
    change(registered / "mlcicd.yaml", "mode: deployment", "mode: delivery")
    for stage in (train, evaluate, register):
        assert stage(project_at(registered)).exit_code == 0
    refused = deploy(project_at(registered))
    assert refused.status is Status.FAILED
    assert "a person must approve" in refused.summary
    assert place(project_at(registered), "").target.status().live is None
    assert deploy(project_at(registered), approved_by="ann").status is Status.PASSED


def test_a_version_without_evidence_is_refused(registered: Path) -> None:
    registry = registry_of(project_at(registered))
    run = registry.version("tiny", "1").run_id
    registry.create_version("tiny", run, {})
    verdict = deploy(project_at(registered), model_version="2")
    assert verdict.status is Status.FAILED
    assert "nobody has let it through" in verdict.summary


def test_forged_evidence_is_refused(registered: Path) -> None:
    stored = next((registered / "mlartifacts").rglob("evaluate.json"))
    stored.write_text(stored.read_text().replace('"failed"', '"passed"').replace("0.7", "0.1"))
    verdict = deploy(project_at(registered))
    assert verdict.status is Status.FAILED
    assert "not the one it was registered with" in verdict.summary


def test_a_model_changed_in_the_registry_is_not_served(registered: Path) -> None:
    model = next((registered / "mlartifacts").rglob("MLmodel"))
    model.write_text(model.read_text() + "# changed\n")
    # The verified copy of before would do; on another machine there is none.
    shutil.rmtree(registered / ".mlcicd" / "cache")
    verdict = deploy(project_at(registered))
    assert verdict.exit_code == 4
    assert place(project_at(registered), "").target.status().live is None


def test_unknown_names(registered: Path) -> None:
    unknown = deploy(project_at(registered), environment="prodution")
    assert unknown.exit_code == 2
    assert "did you mean 'production'?" in unknown.summary
    assert deploy(project_at(registered), model_version="99").exit_code == 4


def test_dry_run_starts_nothing(registered: Path) -> None:
    verdict = deploy(project_at(registered), dry_run=True)
    assert verdict.exit_code == 0
    assert place(project_at(registered), "").target.status().live is None


def test_nothing_to_go_back_to(registered: Path) -> None:
    verdict = rollback(project_at(registered))
    assert verdict.exit_code == 4
    assert "no previous version" in verdict.summary


def test_the_champion_the_evidence_was_measured_against_has_changed(registered: Path) -> None:
    change(registered / "mlcicd.yaml", "strategy: canary, ", "")
    for stage in (train, evaluate, register):
        assert stage(project_at(registered)).exit_code == 0
    registry = registry_of(project_at(registered))
    other = registry.create_version("tiny", registry.version("tiny", "1").run_id, {})
    registry.set_alias("tiny", "champion", other.version)
    verdict = deploy(project_at(registered))
    assert verdict.exit_code == 5
    assert "measured against" in verdict.summary
    assert alias(registered, "champion") == other.version
    assert place(project_at(registered), "").target.status().live is None
    assert not [c for c in verdict.checks if c.status is CheckStatus.FAILED]


@pytest.mark.parametrize("warm", [True, False])
def test_a_second_rollback_does_not_bring_the_bad_one_back(registered: Path, warm: bool) -> None:
    change(registered / "mlcicd.yaml", "strategy: canary, ", "")
    for stage in (train, evaluate, register):
        assert stage(project_at(registered)).exit_code == 0
    live = deploy(project_at(registered)).outputs["model-version"]
    next_version(registered, "0.5")
    url = deploy(project_at(registered)).outputs["url"]
    if not warm:
        place(project_at(registered), "").target.stop()
        url = deploy(project_at(registered)).outputs["url"]
        assert place(project_at(registered), "").target.status().previous is None
    assert rollback(project_at(registered)).status is Status.PASSED
    again = rollback(project_at(registered))
    assert again.status is Status.SKIPPED, again
    assert answer(url) == (200, live)
    assert alias(registered, "champion") == live


def test_lost_state_is_no_way_around_the_canary(registered: Path) -> None:
    assert deploy(project_at(registered)).outputs["strategy"] == "direct"
    place(project_at(registered), "").target.stop()
    version = next_version(registered, "0.5")
    verdict = deploy(project_at(registered))
    assert verdict.outputs["strategy"] == "canary", verdict
    status = place(project_at(registered), "").target.status()
    assert (status.live, status.canary) == ("1", version)
    assert alias(registered, "champion") == "1"
    assert answer(verdict.outputs["url"]) == (200, "1")


def test_killed_between_traffic_and_alias_the_next_run_finishes(
    registered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlcicd.stages import deploy as _  # noqa: F401  (the module below is the one that is patched)

    module = __import__("sys").modules["mlcicd.stages.deploy"]

    class Killed(BaseException):
        pass

    def die(*_args: object, **_kwargs: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(module, "promote", die)
        with pytest.raises(Killed):
            deploy(project_at(registered))
    assert alias(registered, "champion") == ""
    assert deploy(project_at(registered)).status is Status.SKIPPED
    assert alias(registered, "champion") == "1"


def test_damaged_smoke_requests_start_nothing(registered: Path) -> None:
    (registered / "smoke.jsonl").write_text("{broken\n")
    verdict = deploy(project_at(registered))
    assert verdict.exit_code == 4
    assert place(project_at(registered), "").target.status().canary is None
