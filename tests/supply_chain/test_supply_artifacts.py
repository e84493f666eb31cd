"""register, verify and deploy with an artifact repository: a real model, a real server, and a planted credential."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from artifacts.artifact_server import Kept, artifact_server
from click.testing import CliRunner
from stages.conftest import copy_of, project_at
from support import git

from mlcicd.cli import cli
from mlcicd.config import load_project
from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.progress import SILENT
from mlcicd.core.verdict import Status
from mlcicd.stages import evaluate, register
from mlcicd.stages.common import registry_of
from mlcicd.stages.places import fetched
from mlcicd.stages.record import Record

pytestmark = pytest.mark.slow

# The name of its variable does not say that it is one.
PLANTED = "deploy-bot:plant-4417c0de"


@pytest.fixture(scope="module")
def _server() -> Iterator[Kept]:
    with artifact_server() as kept:
        yield kept


@pytest.fixture
def server(_server: Kept) -> Kept:
    """Empty, and without a fault."""
    _server.files, _server.seen, _server.faults, _server.always = {}, [], {}, ""
    return _server


@pytest.fixture(scope="module")
def _evaluated_there(_evaluated_once: Path, _server: Kept, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluated once for all tests, with the repository in its configuration."""
    root = copy_of(_evaluated_once, tmp_path_factory.mktemp("artifacts") / "project")
    settings = f"register:\n  artifacts: {{url: '{_server.url}', credentials_env: NEXUS_LOGIN, deploy_from: true}}\n"
    with (root / "mlcicd.yaml").open("a") as file:
        file.write(settings)
    git(root, "commit", "--quiet", "--all", "--message", "artifacts")
    assert evaluate(project_at(root)).status is Status.PASSED
    return root


@pytest.fixture
def project(_evaluated_there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEXUS_LOGIN", PLANTED)
    return copy_of(_evaluated_there, tmp_path / "copy")


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, list(arguments))
    return done.exit_code, done.output


def written(root: Path, server: Kept) -> dict[str, str]:
    files = [p for base in (root / ".mlcicd", root / "mlartifacts") for p in base.rglob("*") if p.is_file()]
    said = {str(p): p.read_bytes().decode("utf-8", "replace") for p in [*files, root / "mlflow.db"]}
    return said | {path: content.decode("utf-8", "replace") for path, content in server.files.items()}


def test_registered_verified_and_fetched_from_there(project: Path, server: Kept, tmp_path: Path) -> None:
    verdict = register(project_at(project))
    assert verdict.status is Status.PASSED, verdict
    version = registry_of(project_at(project)).version("tiny", "1")
    assert verdict.outputs["artifacts"] == version.tags["mlcicd.artifacts"]
    names = {path.split("/", 5)[5] for path in server.files}
    assert {"manifest.json", "model/MLmodel", "evidence/evaluate.json", "evidence/bom.cdx.json"} <= names
    # Again it is the same, and nothing is sent.
    sent = len(server.asked("PUT"))
    assert register(project_at(project)).status is Status.SKIPPED
    assert len(server.asked("PUT")) == sent
    code, said = run("verify", "-C", str(project), "--model-version", "1", "--fetch", str(tmp_path / "out"))
    assert code == 0, said
    assert digest_tree(tmp_path / "out" / "model") == version.digest
    # What is deployed comes from there: the registry's copy is gone.
    shutil.rmtree(project / ".mlcicd" / "cache")
    shutil.rmtree(next((project / "mlartifacts").rglob("MLmodel")).parent)
    record = Record(project_at(project), "deploy", dry_run=False, progress=SILENT)
    assert digest_tree(fetched(record, registry_of(project_at(project)), version).path) == version.digest
    # And a byte that was changed there is found.
    shutil.rmtree(project / ".mlcicd" / "cache")
    path = next(p for p in server.files if p.endswith("/model/MLmodel"))
    server.files[path] = server.files[path].replace(b"flavors", b"flavorz")
    with pytest.raises(InputError, match="not the one of the manifest"):
        fetched(record, registry_of(project_at(project)), version)
    code, said = run("verify", "-C", str(project), "--model-version", "1")
    assert code == 4, said


def test_artifacts_of_another_model_are_refused(project: Path, server: Kept, tmp_path: Path) -> None:
    """Who can write tags points the version at a whole and proper manifest, of something else."""
    from mlcicd.artifacts import put
    from mlcicd.artifacts.http_store import HttpStore

    assert register(project_at(project)).status is Status.PASSED
    registry = registry_of(project_at(project))
    version = registry.version("tiny", "1")
    (tmp_path / "evil").write_text("flavors: {}\n")
    facts = {"model": "tiny", "model_digest": version.digest}
    other = put(HttpStore(server.url), "tiny", {"model/MLmodel": tmp_path / "evil"}, facts)
    registry.tag_version("tiny", "1", {"mlcicd.artifacts_digest": other.digest})
    code, said = run("verify", "-C", str(project), "--model-version", "1")
    assert code == 4
    assert "another model" in said


@pytest.mark.parametrize("fault", ["403", "500", "html", "reply lost", "302 http://127.0.0.1:9/"])
def test_without_the_repository_nothing_is_registered(
    fault: str, project: Path, server: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlcicd.artifacts.http_store._FIRST_PAUSE_S", 0.0)
    server.always = fault
    verdict = register(project_at(project))
    assert verdict.status is Status.ERROR, verdict
    assert (verdict.exit_code, verdict.details["error"]["remedy"] != "") == (5, True)
    assert registry_of(project_at(project)).versions("tiny") == []
    server.always = ""
    assert register(project_at(project)).status is Status.PASSED


def test_the_credential_is_nowhere(
    project: Path, server: Kept, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mlcicd.artifacts.http_store._FIRST_PAUSE_S", 0.0)
    base64 = "ZGVwbG95LWJvdDpwbGFudC00NDE3YzBkZQ=="
    said = []
    for fault in ("403", "cut", ""):
        server.always = fault
        said.append(run("register", "--working-directory", str(project), "--json", "--debug")[1])
    server.always = "html"
    said.append(run("verify", "-C", str(project), "--model-version", "1")[1])
    said += [run(name, "-C", str(project))[1] for name in ("history", "status")]
    out, err = capfd.readouterr()
    for where, content in {**written(project, server), "said": "\n".join([*said, out, err])}.items():
        assert not re.search("plant-4417c0de", content), where
        assert base64 not in content, where
    assert "Basic " + base64 in {headers["authorization"] for _, _, headers in server.seen}


def test_what_is_wrong_with_it_is_said_before_anything_is_sent(
    project: Path, server: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NEXUS_LOGIN")
    verdict = register(project_at(project))
    assert "NEXUS_LOGIN is not set" in verdict.summary
    assert server.seen == []
    text = (project / "mlcicd.yaml").read_text()
    (project / "mlcicd.yaml").write_text(text.replace("http://", "http://user:plant-url-1@"))
    with pytest.raises(ConfigError, match="no user, password") as caught:
        load_project(project)
    assert "plant-url-1" not in f"{caught.value.one_line()}{caught.value.detail()}"
