"""approve: a person's word, tied to bytes and evidence, without which delivery deploys nothing."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlcicd.cli import cli
from mlcicd.core.verdict import CheckStatus, Status, Verdict
from mlcicd.registry.approvals import approvals_of
from mlcicd.registry.tracking import TAG
from mlcicd.stages import approve, deploy, promote, register
from mlcicd.stages.common import registry_of
from mlcicd.stages.history import history

from .conftest import change, project_at

pytestmark = pytest.mark.slow


@pytest.fixture
def registered(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USER", "ann")
    verdict = register(project_at(evaluated))
    assert verdict.status is Status.PASSED, verdict
    change(evaluated / "mlcicd.yaml", "mode: deployment", "mode: delivery")
    monkeypatch.setenv("USER", "bob")
    return evaluated


def asked(root: Path, version: str = "1") -> Verdict:
    """What deploy says of the approval; nothing is started."""
    return deploy(project_at(root), model_version=version, dry_run=True)


def approval(verdict: Verdict) -> tuple[CheckStatus, str]:
    check = next(c for c in verdict.checks if c.name == "approval")
    return check.status, check.reason or str(check.observed)


def test_delivery_waits_for_an_approval_and_history_tells_of_it(registered: Path) -> None:
    assert asked(registered).status is Status.FAILED
    run = CliRunner().invoke(cli, ["approve", "-C", str(registered), "--reason", "tried on staging"])
    assert run.exit_code == 0, run.output
    assert approval(asked(registered)) == (CheckStatus.PASSED, "bob: tried on staging")
    assert "would deploy version 1" in asked(registered).summary
    assert approve(project_at(registered), reason="again").status is Status.SKIPPED
    assert promote(project_at(registered)).status is Status.PASSED
    told = CliRunner().invoke(cli, ["history", "-C", str(registered), "--json"])
    moves = json.loads(told.stdout)
    assert [(m["operation"], m["who"], m["environment"]) for m in moves] == [
        ("promote", "bob", ""),
        ("approve", "bob", "production"),
    ]
    version = registry_of(project_at(registered)).version("tiny", "1")
    assert (moves[1]["model"], moves[1]["evidence"]) == (version.digest, version.tags[f"{TAG}evidence_digest"])
    lines = CliRunner().invoke(cli, ["history", "-C", str(registered)]).stdout
    assert "approve   version 1 for production  done by bob" in lines
    assert "tried on staging" in (registered / ".mlcicd" / "report.html").read_text()


def test_an_approval_can_be_taken_back(registered: Path) -> None:
    assert approve(project_at(registered), reason="good").status is Status.PASSED
    assert approve(project_at(registered), reason="a customer complained", revoke=True).status is Status.PASSED
    status, reason = approval(asked(registered))
    assert (status, "bob has taken the approval back: a customer complained" in reason) == (CheckStatus.FAILED, True)
    assert approve(project_at(registered), reason="again", revoke=True).status is Status.SKIPPED
    assert approve(project_at(registered), reason="it was another model").status is Status.PASSED
    assert approval(asked(registered))[0] is CheckStatus.PASSED
    assert [m["operation"] for m in history(project_at(registered))] == ["approve", "revoke", "approve"]


def test_what_was_taken_back_nobody_else_can_give(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("mlcicd.stages.deploy"), "approvers", lambda environ, environment: ["reviewer"])

    def named() -> Verdict:
        return deploy(project_at(registered), model_version="1", approved_by="eve", dry_run=True)

    assert approval(named()) == (CheckStatus.PASSED, "eve")
    assert approval(asked(registered)) == (CheckStatus.PASSED, "reviewer")
    assert approve(project_at(registered), reason="a customer complained", revoke=True).status is Status.PASSED
    for verdict in (named(), asked(registered)):
        assert verdict.status is Status.FAILED
        assert "bob has taken the approval back" in approval(verdict)[1]
    assert approve(project_at(registered), reason="it was another model").status is Status.PASSED
    assert approval(named()) == (CheckStatus.PASSED, "bob: it was another model")


def test_an_approval_holds_for_its_bytes_evidence_and_environment_alone(registered: Path) -> None:
    assert approve(project_at(registered), reason="good").status is Status.PASSED
    registry = registry_of(project_at(registered))
    first = registry.version("tiny", "1")
    # What somebody copies to another version approves nothing there.
    copied = {**first.tags, f"{TAG}model_digest": "sha256:" + "0" * 64}
    registry.create_version("tiny", first.run_id, copied)
    assert "of another model" in approval(asked(registered, "2"))[1]
    registry.create_version("tiny", first.run_id, {**first.tags, f"{TAG}evidence_digest": "sha256:" + "0" * 64})
    assert "registered with other evidence" in approval(asked(registered, "3"))[1]
    change(registered / "mlcicd.yaml", "    production:", "    staging: {target: local}\n    live:")
    assert "nobody has" in approval(asked(registered))[1]
    tags = {key: "[]" for key in first.tags if key.startswith(f"{TAG}approval.")}
    registry.tag_version("tiny", "1", {**tags, f"{TAG}approval.live.x": '{"decision": "approve"}'})
    assert "nobody has" in approval(asked(registered))[1], "what is no record of ours is none"
    hostile = {**vars(approvals_of(first.tags)[0]), "reason": "fine\n\x1b[2Jversion 9"}
    registry.tag_version("tiny", "1", {f"{TAG}approval.live.y": json.dumps(hostile)})
    assert "\x1b" not in "".join(move["reason"] for move in history(project_at(registered)))


def test_what_is_not_approved(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert approve(project_at(registered), reason=" ").exit_code == 2
    assert approve(project_at(registered), reason="x", environment="nowhere").exit_code == 2
    assert approve(project_at(registered), reason="x", dry_run=True).exit_code == 0
    assert asked(registered).status is Status.FAILED, "a dry run records nothing"
    registry = registry_of(project_at(registered))
    registry.create_version("tiny", registry.version("tiny", "1").run_id, {})
    bare = approve(project_at(registered), reason="x", model_version="2")
    assert (bare.status, "nobody has let it through" in bare.summary) == (Status.FAILED, True)
    monkeypatch.setenv("USER", "ann")
    own = approve(project_at(registered), reason="x")
    assert own.status is Status.PASSED
    assert next(c.reason for c in own.checks if c.name == "four eyes") == "ann has registered version 1 too"
