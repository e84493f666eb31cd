"""train in a DVC project with a remote: what is skipped, pulled, and found out of date."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import git

from mlcicd.config import Project, load_project
from mlcicd.core.digests import digest_tree
from mlcicd.core.progress import SILENT
from mlcicd.core.verdict import CheckStatus, Status, Verdict
from mlcicd.stages import train as stage
from mlcicd.stages.common import registry_of
from mlcicd.stages.record import Record
from mlcicd.stages.train import fingerprint_of
from mlcicd.stages.train_crossed import Origin, train_crossed
from mlcicd.training.dvc_records import read_records

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _no_state_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "dvc-state"))


def train(root: Path, store: Path, **options: object) -> Verdict:
    """Trains with a tracking store that is outside of the project, as a server is."""
    return stage(load(root, store), **options)


def load(root: Path, store: Path) -> Project:
    return load_project(root, environ={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{store}"})


def lock_check(verdict: Verdict) -> tuple[str, str]:
    check = next(check for check in verdict.checks if check.name == "dvc.lock")
    return str(check.status), check.reason


def test_a_fresh_clone_without_data(pipeline: Path, server: Path) -> None:
    told = train(pipeline, server)
    assert told.exit_code == 4
    assert "data/raw is not here, and DVC has a record of it" in told.summary
    assert "--pull" in told.details["error"]["remedy"]


def test_pull_then_skip_without_pulling(pipeline: Path, server: Path, tmp_path: Path) -> None:
    second = Path(shutil.copytree(pipeline, tmp_path / "second"))
    first = train(pipeline, server, pull=True)
    assert first.status is Status.PASSED, first.summary
    assert lock_check(first) == ("passed", "")
    assert (pipeline / "data" / "raw" / "one.csv").is_file()
    again = train(second, server)
    assert again.status is Status.SKIPPED, again.summary
    assert again.outputs["run-id"] == first.outputs["run-id"]
    assert not (second / "data" / "raw").exists() and not (second / "train.csv").exists()
    data = [verdict.subject("data", "train") for verdict in (first, again)]
    assert data[0] == data[1] is not None
    # With its data here, it is the same training.
    assert train(pipeline, server).status is Status.SKIPPED


def test_stale_lock_is_named_mended_and_trained(pipeline: Path, server: Path) -> None:
    (pipeline / "params.yaml").write_text("rows: 3\nrate: 1e-3\n")
    verdict = train(pipeline, server, pull=True)
    assert verdict.status is Status.PASSED, verdict.summary
    status, reason = lock_check(verdict)
    assert status == "failed" and "prepare: rows in params.yaml changed" in reason
    assert git(pipeline, "diff", "--name-only") == "dvc.lock\nparams.yaml"
    # `evaluate` asks whether the candidate was trained with what is there now.
    assert fingerprint_of(load(pipeline, server)).changed_from(verdict.details["fingerprint"]) == []
    after = train(pipeline, server)
    assert after.status is Status.SKIPPED
    assert lock_check(after) == ("passed", "")


def test_stale_lock_can_fail_before_anything_is_pulled(pipeline: Path, server: Path) -> None:
    config = pipeline / "mlcicd.yaml"
    config.write_text(config.read_text().replace("train:\n", "train:\n  stale_lock: fail\n"))
    (pipeline / "prepare.py").write_text("print()")
    verdict = train(pipeline, server, pull=True)
    assert verdict.exit_code == 1
    assert "prepare: prepare.py changed" in verdict.summary
    assert not (pipeline / "train.csv").exists()


def test_a_command_that_leaves_the_lock_stale_fails(pipeline: Path, server: Path) -> None:
    (pipeline / "params.yaml").write_text("rows: 3\nrate: 1e-3\n")
    config = pipeline / "mlcicd.yaml"
    config.write_text(config.read_text().replace("dvc repro train", "dvc repro --single-item train"))
    verdict = train(pipeline, server, pull=True)
    assert verdict.exit_code in (1, 4)
    assert verdict.status is not Status.PASSED


def test_changed_raw_data_is_not_skipped(with_data: Path, server: Path, dvc: Callable[..., str]) -> None:
    first = train(with_data, server)
    assert first.status is Status.PASSED, first.summary
    (with_data / "data" / "raw" / "three.csv").write_text("3,1\n")
    dvc(with_data, "add", "--quiet", "data/raw")
    verdict = train(with_data, server)
    assert verdict.status is Status.PASSED, verdict.summary
    assert "data/raw.dvc names other content" in lock_check(verdict)[1]
    assert verdict.outputs["model-digest"] != first.outputs["model-digest"]
    assert all(check.status is CheckStatus.PASSED for check in verdict.checks if check.name != "dvc.lock")


def test_without_a_remote_the_pull_is_the_failure(pipeline: Path, server: Path) -> None:
    config = pipeline / ".dvc" / "config"
    config.write_text(config.read_text().replace("remote = here", "remote = nowhere"))
    verdict = train(pipeline, server, pull=True)
    assert verdict.exit_code == 1
    assert "fetching the data" in verdict.summary
    assert verdict.details["error"]["log"]


def test_the_new_code_is_trained_on_the_old_data_alone(with_data: Path, server: Path) -> None:
    old = fingerprint_of(load(with_data, server))
    record = read_records(with_data).outputs["train.csv"].md5
    data = digest_tree(with_data / "train.csv")
    # The code and what makes the data change; the old data is in DVC's cache alone.
    (with_data / "train.py").write_text((with_data / "train.py").read_text() + "\nprint('new')\n")
    (with_data / "prepare.py").write_text("raise SystemExit('the data is not to be made')\n")
    git(with_data, "commit", "--quiet", "--all", "--message", "new")
    (with_data / "train.csv").unlink()
    project = load(with_data, server)
    new = fingerprint_of(project)
    assert new.code_digest != old.code_digest
    commit = git(with_data, "rev-parse", "HEAD")
    made = train_crossed(
        Record(project, "evaluate", dry_run=False, progress=SILENT),
        registry_of(project),
        Origin("run-of-new", new.code_digest, "sha256:" + "0" * 64, commit),
        Origin("run-of-old", old.code_digest, data, "", record),
    )
    tags = registry_of(project).run_tags(made.run_id)
    assert (tags["mlcicd.code_digest"], tags["mlcicd.data_digest"]) == (new.code_digest, data)
    model = registry_of(project).fetch_model(made.run_id, project.model_cache, digest=made.digest)
    assert (model / "data").read_text() == "a,y\n2,1\n1,0\n"
    assert git(with_data, "status", "--short") == ""
