"""promote, history and status: a person's promotion, on evidence; and what the registry tells of it."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

import pytest
from click.testing import CliRunner
from support import git

from mlcicd.cli import cli
from mlcicd.core.verdict import Status
from mlcicd.stages import promote, register
from mlcicd.stages.common import registry_of
from mlcicd.stages.history import history, state
from mlcicd.stages.lineage import origin_of

from .conftest import change, project_at


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a runner: git knows nothing of whoever runs it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{role}_NAME", raising=False)
        monkeypatch.delenv(f"GIT_{role}_EMAIL", raising=False)
    monkeypatch.delenv("EMAIL", raising=False)


@pytest.fixture
def registered(evaluated: Path) -> Path:
    verdict = register(project_at(evaluated))
    assert verdict.status is Status.PASSED, verdict
    return evaluated


def champion(root: Path) -> str:
    version = registry_of(project_at(root)).version_at("tiny", "champion")
    return version.version if version else ""


def test_a_version_with_evidence_is_promoted_and_told_of(registered: Path) -> None:
    verdict = promote(project_at(registered), reason="it is time")
    assert verdict.status is Status.PASSED, verdict
    assert champion(registered) == "1"
    (move,) = history(project_at(registered))
    assert (move["operation"], move["to"], move["outcome"], move["reason"]) == ("promote", "1", "done", "it is time")
    assert move["evidence"].startswith("sha256:")
    now = state(project_at(registered))["aliases"]["champion"]
    assert (now["version"], now["since"], now["evaluation"]) == ("1", move["at"], "passed")
    again = promote(project_at(registered))
    assert again.status is Status.SKIPPED
    assert len(history(project_at(registered))) == 1


def test_the_command_line_tells_the_same(registered: Path) -> None:
    run = CliRunner().invoke(cli, ["promote", "-C", str(registered), "--json", "--reason", "why"])
    assert run.exit_code == 0, run.output
    told = CliRunner().invoke(cli, ["history", "-C", str(registered), "--json"])
    assert [move["to"] for move in json.loads(told.stdout)] == ["1"]
    assert "version none -> 1" in CliRunner().invoke(cli, ["history", "-C", str(registered)]).stdout
    now = CliRunner().invoke(cli, ["status", "-C", str(registered), "--json"])
    assert json.loads(now.stdout)["aliases"]["champion"]["version"] == "1"
    assert "champion     version 1 (v1.0.0) since" in CliRunner().invoke(cli, ["status", "-C", str(registered)]).stdout


def test_dry_run_moves_nothing(registered: Path) -> None:
    assert promote(project_at(registered), dry_run=True).exit_code == 0
    assert champion(registered) == ""
    assert history(project_at(registered)) == []
    assert registry_of(project_at(registered)).model("tiny").tags == {}


def test_evidence_against_another_champion_is_refused(registered: Path) -> None:
    registry = registry_of(project_at(registered))
    other = registry.create_version("tiny", registry.version("tiny", "1").run_id, {"mlcicd.content": "other"})
    registry.set_alias("tiny", "champion", other.version)
    verdict = promote(project_at(registered), model_version="1")
    assert verdict.status is Status.FAILED
    assert "another champion" in verdict.summary
    assert champion(registered) == other.version


def test_a_version_without_evidence_is_refused(registered: Path) -> None:
    registry = registry_of(project_at(registered))
    bare = registry.create_version("tiny", "", {"mlcicd.measured_against": ""})
    verdict = promote(project_at(registered), model_version=bare.version)
    assert verdict.status is Status.FAILED
    assert "nobody has let it through" in verdict.summary
    assert champion(registered) == ""


def test_a_dead_promotion_is_mended_first(registered: Path) -> None:
    registry = registry_of(project_at(registered))
    intent = {"operation": "promote", "before": "", "after": "9", "previous_before": "", "previous_after": ""}
    registry.tag_model("tiny", {"mlcicd.journal.00000007": json.dumps(intent)})
    assert state(project_at(registered))["unfinished"] == 1
    promote(project_at(registered))
    outcomes = [(move["to"], move["outcome"]) for move in history(project_at(registered))]
    assert outcomes == [("1", "done"), ("9", "abandoned")]


def test_lineage(registered: Path) -> None:
    tags = registry_of(project_at(registered)).version("tiny", "1").tags
    for key in ("fingerprint", "train_data_digest", "validation_digest", "training_digest", "evidence_digest"):
        assert tags[f"mlcicd.{key}"], key
    assert tags["mlcicd.interpreter"].startswith("cpython-")
    assert json.loads(tags["mlcicd.params"]) == {}
    assert tags["mlcicd.git_commit"] == git(registered, "rev-parse", "HEAD")


def test_git_tags_in_gtos_form_are_made_once(evaluated: Path) -> None:
    from gto.tag import parse_name

    from mlcicd.stages import evaluate

    change(evaluated / "mlcicd.yaml", "deploy:\n", "register: {git_tags: true}\ndeploy:\n")
    git(evaluated, "commit", "--quiet", "--all", "--message", "tags")
    # Another model's, and a stage that goes on counting, as GTO does.
    git(evaluated, "tag", "tiny2#production#9")
    git(evaluated, "tag", "tiny#staging#4")
    assert evaluate(project_at(evaluated)).status is Status.PASSED
    for _ in range(2):
        assert register(project_at(evaluated)).exit_code == 0
        assert promote(project_at(evaluated)).exit_code == 0
    ours = [tag for tag in git(evaluated, "tag", "--list", "tiny[#@]*").splitlines() if tag != "tiny#staging#4"]
    assert ours == ["tiny#production#5", "tiny@v1.0.0"]
    assert git(evaluated, "rev-parse", "tiny#production#5^{commit}") == git(evaluated, "rev-parse", "HEAD")
    assert git(evaluated, "cat-file", "-t", "tiny@v1.0.0") == "tag"
    assert (
        parse_name("tiny@v1.0.0")["version"]
        == registry_of(project_at(evaluated)).version("tiny", "1").tags["mlcicd.semver"]
    )
    assert (parse_name(ours[0])["stage"], parse_name(ours[0])["counter"]) == ("production", 5)


def test_a_git_tag_says_who_made_it_or_that_nobody_is_known(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlcicd.core.progress import SILENT
    from mlcicd.stages.git_tags import tag_stage
    from mlcicd.stages.record import Record

    change(registered / "mlcicd.yaml", "deploy:\n", "register: {git_tags: true}\ndeploy:\n")
    version = registry_of(project_at(registered)).version("tiny", "1")
    record = Record(project_at(registered), "deploy", dry_run=False, progress=SILENT)
    # An empty name is one that git refuses on every machine; of an account it may make one.
    monkeypatch.setenv("GIT_COMMITTER_NAME", "")
    tag_stage(record, "staging", version)
    monkeypatch.setenv("GIT_COMMITTER_NAME", "Ann")
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "ann@example.invalid")
    tag_stage(record, "production", version)
    assert [check.reason for check in record.checks] == []
    made = git(registered, "for-each-ref", "--sort=refname", "--format=%(taggername) %(taggeremail)", "refs/tags")
    assert made.splitlines() == ["Ann <ann@example.invalid>", "mlcicd <mlcicd@localhost>"]


def test_a_git_tag_of_something_else_is_told_and_left(registered: Path) -> None:
    from mlcicd.core.progress import SILENT
    from mlcicd.stages.git_tags import tag_registration
    from mlcicd.stages.record import Record

    change(registered / "mlcicd.yaml", "deploy:\n", "register: {git_tags: true}\ndeploy:\n")
    git(registered, "tag", "--annotate", "--message", "mine", "tiny@v1.0.0")
    record = Record(project_at(registered), "register", dry_run=False, progress=SILENT)
    tag_registration(record, registry_of(project_at(registered)).version("tiny", "1"))
    (check,) = record.checks
    assert "names something else" in check.reason
    assert git(registered, "for-each-ref", "--format=%(contents:subject)", "refs/tags") == "mine"


def test_stage_tags_of_many_at_once_are_all_there(registered: Path) -> None:
    from threading import Thread

    from mlcicd.core.progress import SILENT
    from mlcicd.stages.git_tags import tag_stage
    from mlcicd.stages.record import Record

    change(registered / "mlcicd.yaml", "deploy:\n", "register: {git_tags: true}\ndeploy:\n")
    version = registry_of(project_at(registered)).version("tiny", "1")
    records = [Record(project_at(registered), "deploy", dry_run=False, progress=SILENT) for _ in range(4)]
    threads = [Thread(target=tag_stage, args=(r, f"place{n}", version)) for n, r in enumerate(records)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [c.reason for r in records for c in r.checks] == []
    tags = git(registered, "tag", "--list").splitlines()
    assert {tag.split("#")[1] for tag in tags} == {f"place{n}" for n in range(4)}


def test_a_git_tag_that_can_not_be_made_is_a_warning(registered: Path) -> None:
    change(registered / "mlcicd.yaml", "deploy:\n", "register: {git_tags: true}\ndeploy:\n")
    registry_of(project_at(registered)).tag_version("tiny", "1", {"mlcicd.git_commit": "0" * 40})
    verdict = promote(project_at(registered))
    assert verdict.status is Status.PASSED
    assert champion(registered) == "1"
    assert any(check.name == "git tag" and check.severity == "warn" for check in verdict.checks)


def test_who_did_it_is_known_without_any_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert origin_of({"GITHUB_ACTOR": "ann", "USER": "runner"}).who == "ann"
    assert origin_of({}).who == pwd.getpwuid(os.getuid()).pw_name
    # As in containers that run as a number.
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert origin_of({}).who == "uid 2147483641"
