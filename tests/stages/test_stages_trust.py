"""Evidence that is not what it seems: answers out of files, another's champion, unsigned ways back, late changes."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from support import git

from mlcicd.config import load_project
from mlcicd.core.digests import digest_bytes
from mlcicd.core.verdict import CheckStatus, Severity, Status, Verdict
from mlcicd.evaluation import prediction_cache
from mlcicd.stages import deploy, evaluate, promote, register, rollback, train
from mlcicd.stages.common import evidence_folder, registry_of, version_evidence
from mlcicd.stages.places import place

from .conftest import change, project_at


def commit(root: Path) -> None:
    git(root, "commit", "--quiet", "--all", "--allow-empty", "--message", "change")


def champion(root: Path) -> None:
    for stage in (register, promote):
        verdict = stage(project_at(root))
        assert verdict.status is Status.PASSED, verdict


def failed(verdict: Verdict) -> list[str]:
    return [f"{c.name}: {c.reason}" for c in verdict.checks if c.status is CheckStatus.FAILED]


def name_a_signer(root: Path) -> None:
    """A policy whose one signer has signed nothing here."""
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (root / "key.pub").write_bytes(pem)
    (root / "model-policy.yaml").write_text("signers: [{name: ci, key: key.pub}]\n")


class Shell:
    """Leaves a file behind where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.mark}'",)


def test_a_champion_out_of_a_file_lets_nothing_into_the_registry(evaluated: Path) -> None:
    champion(evaluated)
    rows = len(pd.read_csv(evaluated / "holdout.csv"))
    pd.DataFrame({"score": np.full(rows, 0.5)}).to_csv(evaluated / "weak.csv", index=False)
    change(evaluated / "mlcicd.yaml", "margin: 0.05", "margin: 0, superiority: true")
    commit(evaluated)
    assert evaluate(project_at(evaluated)).status is not Status.PASSED
    assert evaluate(project_at(evaluated), champion_predictions="weak.csv").status is Status.PASSED
    verdict = register(project_at(evaluated))
    assert verdict.status is Status.FAILED
    assert any("the champion's answers came from a file" in said for said in failed(verdict)), failed(verdict)
    assert len(registry_of(project_at(evaluated)).versions("tiny")) == 1


@pytest.mark.parametrize("what", ["file", "other model"])
def test_a_version_with_such_evidence_is_neither_promoted_nor_deployed(evaluated: Path, what: str) -> None:
    """It was registered before this was asked, or by somebody else's means."""
    assert register(project_at(evaluated)).status is Status.PASSED
    project = project_at(evaluated)
    document = json.loads(project.verdict_path("evaluate").read_text())
    subject = {"kind": "predictions", "name": "champion", "digest": "sha256:0", "details": {"path": "weak.csv"}}
    if what == "other model":
        subject = {"kind": "model", "name": "champion", "digest": "sha256:0", "details": {"of": "other", "version": ""}}
    document["subjects"].append(subject)
    text = json.dumps(document)
    registry = registry_of(project)
    version = registry.version("tiny", "1")
    registry.log_text(version.run_id, text, f"{evidence_folder(digest_bytes(text.encode()))}/evaluate.json")
    registry.tag_version("tiny", "1", {"mlcicd.evidence_digest": digest_bytes(text.encode())})
    check = version_evidence(project, registry, registry.version("tiny", "1"))
    assert check.status is CheckStatus.FAILED
    assert ("came from a file" if what == "file" else "'other'") in check.reason
    assert promote(project_at(evaluated)).status is Status.FAILED


def test_another_models_version_is_not_this_models_champion(evaluated: Path) -> None:
    champion(evaluated)
    registry = registry_of(project_at(evaluated))
    first = registry.version("tiny", "1")
    registry.create_version("other", first.run_id, first.tags)
    change(evaluated / "mlcicd.yaml", "evaluate:\n", "evaluate:\n  champion: models:/other/1\n")
    commit(evaluated)
    assert evaluate(project_at(evaluated)).status is Status.PASSED
    verdict = register(project_at(evaluated))
    assert verdict.status is Status.FAILED
    assert any("'other'" in said for said in failed(verdict)), failed(verdict)


def test_promote_refuses_what_no_signer_has_signed(evaluated: Path) -> None:
    assert register(project_at(evaluated)).status is Status.PASSED
    name_a_signer(evaluated)
    verdict = promote(project_at(evaluated))
    assert verdict.status is Status.FAILED
    assert any("it is not signed" in said for said in failed(verdict)), failed(verdict)
    assert registry_of(project_at(evaluated)).version_at("tiny", "champion") is None


@pytest.mark.slow
def test_ways_back_look_at_the_signature(evaluated: Path) -> None:
    """A champion that is brought up again must be signed; the way back is never closed, and says what it went by."""
    champion(evaluated)
    change(evaluated / "train.py", "LogisticRegression()", "LogisticRegression(C=0.5)")
    commit(evaluated)
    for stage in (train, evaluate):
        assert stage(project_at(evaluated)).status is Status.PASSED
    name_a_signer(evaluated)
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (evaluated / "key.pub").write_bytes(public)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    signing = load_project(evaluated, environ={**os.environ, "MLCICD_PRIVATE_KEY": private.decode()})
    assert register(signing).status is Status.PASSED
    try:
        # Nothing is live: the canary needs the champion, version 1, beside it, and that one is not signed.
        restored = deploy(project_at(evaluated))
        assert restored.status is Status.FAILED, restored
        assert any("signature of version 1" in said for said in failed(restored)), failed(restored)
        assert place(project_at(evaluated), "").target.status().live is None
        assert promote(project_at(evaluated)).status is Status.PASSED
        back = rollback(project_at(evaluated), reason="test")
        assert back.status is Status.PASSED, back
        (check,) = [c for c in back.checks if c.name == "signature of version 1"]
        assert (check.status, check.severity) == (CheckStatus.FAILED, Severity.WARN)
        assert "not signed" in back.summary
    finally:
        place(project_at(evaluated), "").target.stop()


def test_what_robustness_asks_is_the_scanned_copy(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The original is replaced after the scan: nothing of the new one runs."""
    import joblib
    from sklearn.linear_model import LogisticRegression

    from mlcicd.stages import scoring

    change(
        evaluated / "mlcicd.yaml",
        "evaluate:\n",
        "evaluate:\n  robustness: [{metric: roc_auc, max_drop: 0.3, noise: 0.1}]\n",
    )
    commit(evaluated)
    table = pd.read_csv(evaluated / "train.csv")
    model = evaluated / "candidate"
    model.mkdir()
    joblib.dump(LogisticRegression().fit(table[["a", "b"]], table["y"]), model / "model.joblib")
    real = scoring.score
    mark = evaluated / "ran"

    def then_replaced(*arguments: object, **more: object) -> object:
        scored = real(*arguments, **more)  # type: ignore[arg-type]
        (model / "model.joblib").write_bytes(pickle.dumps(Shell(mark)))
        return scored

    monkeypatch.setattr(scoring, "score", then_replaced)
    evaluate(project_at(evaluated), model="candidate")
    assert b"touch" in (model / "model.joblib").read_bytes()
    assert not mark.exists()


@pytest.mark.slow
def test_both_models_of_a_repeated_training_are_scanned(evaluated: Path) -> None:
    change(evaluated / "mlcicd.yaml", "deploy:\n", "supply_chain: {scan: enforce}\ndeploy:\n")
    commit(evaluated)
    verdict = train(project_at(evaluated), twice=True)
    names = [check.name for check in verdict.checks]
    assert "scan: first model" in names
    assert "scan: second model" in names


@pytest.mark.parametrize(
    "environ",
    [
        {"GITHUB_EVENT_NAME": "pull_request"},
        {"GITLAB_CI": "true", "CI_PIPELINE_SOURCE": "merge_request_event"},
        {"GITLAB_CI": "true", "CI_MERGE_REQUEST_IID": "7"},
    ],
)
def test_unmerged_changes_have_an_experiment_of_their_own(root: Path, environ: dict[str, str]) -> None:
    def experiment(more: dict[str, str]) -> str:
        return registry_of(load_project(root, environ={**os.environ, **more})).experiment

    assert experiment(environ) == "tiny-pull-requests"
    assert experiment({"GITLAB_CI": "true", "CI_PIPELINE_SOURCE": "push"}) == "tiny"


def test_answers_that_somebody_else_kept_are_not_believed(evaluated: Path, tmp_path: Path) -> None:
    champion(evaluated)
    before = evaluate(project_at(evaluated)).details["metrics"][0]
    kept = evaluated / ".mlcicd" / "cache" / "predictions"
    theirs = {"XDG_STATE_HOME": str(tmp_path / "another")}
    for entry in [e for e in kept.iterdir() if not e.name.startswith(".")]:
        known = prediction_cache.read(kept, entry.name, prediction_cache.secret(dict(os.environ)))
        assert known is not None
        shutil.rmtree(entry)
        forged = np.full(known[0].shape, 0.5)
        prediction_cache.write(kept, entry.name, forged, known[1], prediction_cache.secret(theirs))
    after = evaluate(project_at(evaluated)).details["metrics"][0]
    assert (after["candidate"], after["champion"]) == (before["candidate"], before["champion"])
