"""`mlcicd container write` of a real registered version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support import git

from mlcicd.cli import cli
from mlcicd.core.errors import CommandFailed, InputError
from mlcicd.core.verdict import Status
from mlcicd.registry import Registry
from mlcicd.registry.tracking import TAG
from mlcicd.stages import evaluate, register
from mlcicd.stages.common import registry_of
from mlcicd.stages.container import container_context
from mlcicd.stages.supply import ModelRefused
from mlcicd.supply_chain.findings import Finding, Scan

from .conftest import project_at

pytestmark = pytest.mark.slow


def test_a_version_is_written_when_its_evidence_holds_and_else_refused(evaluated: Path, tmp_path: Path) -> None:
    project = project_at(evaluated)
    with pytest.raises(InputError, match="no version"):
        container_context(project, tmp_path / "out")
    registered = register(project)
    assert registered.status is Status.PASSED

    arguments = ["container", "write", "-C", str(evaluated), "--model-version", "1", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert "docker build --tag tiny:1" in done.output and "is not pinned" in done.output and "no hashes" in done.output
    identity = json.loads((tmp_path / "out" / "identity.json").read_text())
    version = registry_of(project).version("tiny", "1")
    assert identity == {"name": "tiny", "version": "1", "digest": version.digest}
    assert CliRunner().invoke(cli, arguments).exit_code == 2, "what is there is not overwritten"

    registry_of(project).tag_version("tiny", "1", {f"{TAG}evidence_digest": f"sha256:{'0' * 64}"})
    with pytest.raises(CommandFailed, match="evidence of version 1"):
        container_context(project, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_an_image_is_written_of_nothing_that_would_not_be_deployed(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (evaluated / "mlcicd.yaml").open("a") as file:
        file.write("register:\n  artifacts: {url: store, deploy_from: true}\nsupply_chain: {scan: enforce}\n")
    git(evaluated, "commit", "--quiet", "--all", "--message", "artifacts")
    assert evaluate(project_at(evaluated)).status is Status.PASSED
    assert register(project_at(evaluated)).status is Status.PASSED
    # Only what this checkout has just trained is loaded whatever the scan says.
    project_at(evaluated).verdict_path("train").unlink()

    def gone(*_: object, **__: object) -> Path:
        raise AssertionError("fetched from elsewhere than `deploy_from`")

    monkeypatch.setattr(Registry, "fetch_model", gone)
    made = container_context(project_at(evaluated), tmp_path / "out", model_version="1")
    assert (made.folder / "model" / "MLmodel").is_file()

    refused = Scan(files=1, findings=[Finding("model.pkl", "os.system")])
    monkeypatch.setattr("mlcicd.stages.supply.scan_model", lambda *_: refused)
    with pytest.raises(ModelRefused, match="version 1 was refused"):
        container_context(project_at(evaluated), tmp_path / "other", model_version="1")
    assert not (tmp_path / "other").exists()
