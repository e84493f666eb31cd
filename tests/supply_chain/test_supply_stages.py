"""Scan, signature and secrets in the stages: a real registry, a real model, and what an attacker would change."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey
from stages.conftest import project_at
from supply_chain import hostile_models as hostile
from support import git

from mlcicd.cli import cli
from mlcicd.config import load_project
from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.verdict import Severity, Status
from mlcicd.stages import deploy, evaluate, register
from mlcicd.stages.common import registry_of
from mlcicd.stages.record import Record
from mlcicd.stages.supply import ModelRefused, admitted
from mlcicd.stages.supply_signing import signers_of, verify_version

pytestmark = pytest.mark.slow


@pytest.fixture
def signed(evaluated: Path) -> Path:
    """A project whose model is registered and signed, and whose policy names the signer."""
    key = ed25519.Ed25519PrivateKey.generate()
    (evaluated / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (evaluated / "key.pub").write_bytes(public)
    (evaluated / "model-policy.yaml").write_text("signers: [{name: ci, key: key.pub}]\n")
    os.environ["MLCICD_PRIVATE_KEY"] = (evaluated / "key.pem").read_text()
    try:
        verdict = register(project_at(evaluated))
    finally:
        del os.environ["MLCICD_PRIVATE_KEY"]
    assert verdict.status is Status.PASSED, verdict
    return evaluated


def stored(root: Path) -> Path:
    """The folder of evidence in the registry."""
    return next((root / "mlartifacts").rglob("provenance.dsse.json")).parent


def failed(verdict: object) -> list[str]:
    return [f"{c.name}: {c.reason}" for c in verdict.checks if c.status == "failed"]  # type: ignore[attr-defined]


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, list(arguments))
    return done.exit_code, done.output


def test_what_register_stores_is_valid_and_verifies_with_others(signed: Path) -> None:
    folder = stored(signed)
    bom = (folder / "bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bom) is None
    assert "To be written by a person" in (folder / "model-card.md").read_text()
    assert json.loads((folder / "controls.json").read_text())["controls"]
    public = serialization.load_pem_public_key((signed / "key.pub").read_bytes())
    envelope = Envelope.from_dict(json.loads((folder / "provenance.dsse.json").read_text()))
    envelope.verify([SSlibKey.from_crypto(public)], 1)
    names = {s["name"] for s in json.loads(envelope.payload)["subject"]}
    assert {"tiny", "model/MLmodel", "verdict/evaluate.json", "verdict/train.json", "verdict/bom.cdx.json"} <= names


def test_verify_offline_and_from_the_registry(signed: Path) -> None:
    model = ["--model", str(signed / "model"), "--evidence", str(stored(signed)), "--key", str(signed / "key.pub")]
    code, said = run("verify", *model)
    assert code == 0, said
    code, said = run("verify", "-C", str(signed), "--model-version", "1")
    assert code == 0, said
    assert "signed by ci" in said
    part = signed / "model" / "MLmodel"
    part.write_bytes(part.read_bytes().replace(b"flavors", b"flavorz", 1))
    code, said = run("verify", *model)
    assert code == 4, said


@pytest.mark.parametrize("name", ["evaluate.json", "train.json", "model-card.md", "provenance.dsse.json"])
def test_deploy_refuses_evidence_that_was_changed(signed: Path, name: str) -> None:
    path = stored(signed) / name
    content = path.read_bytes()
    path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    verdict = deploy(project_at(signed), dry_run=True)
    assert verdict.status is Status.FAILED
    assert any("signature of version 1" in line for line in failed(verdict)), failed(verdict)


@pytest.mark.parametrize("how", ["unsigned", "stranger"])
def test_deploy_refuses_what_no_signer_of_the_policy_has_signed(signed: Path, how: str) -> None:
    if how == "unsigned":
        (stored(signed) / "provenance.dsse.json").unlink()
    else:
        stranger = ed25519.Ed25519PrivateKey.generate().public_key()
        pem = stranger.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        (signed / "key.pub").write_bytes(pem)
    verdict = deploy(project_at(signed), dry_run=True)
    assert verdict.status is Status.FAILED
    (said,) = failed(verdict)
    assert ("not signed" if how == "unsigned" else "no trusted key") in said


def test_what_was_signed_for_another_model_is_refused(signed: Path) -> None:
    """One key may sign many models: what it says of a harmless one must not let it in under another's name."""
    project = project_at(signed)
    registry = registry_of(project)
    version = registry.version("tiny", "1")
    assert verify_version(registry, version, signers_of(project))[0] == "ci"
    with pytest.raises(InputError, match="it is about the model tiny, not fraud"):
        verify_version(registry, replace(version, name="fraud"), signers_of(project))


def test_deploy_takes_what_is_signed(signed: Path) -> None:
    verdict = deploy(project_at(signed), dry_run=True)
    assert verdict.status is Status.PASSED, failed(verdict)


def test_a_hostile_model_is_refused_before_it_is_loaded(evaluated: Path) -> None:
    bad = evaluated / "bad"
    hostile.folders()["mlflow-loader"](bad)
    (bad / "code" / "evil.py").write_text(f"open({str(evaluated / 'ran')!r}, 'w')\ndef _load_pyfunc(path): pass\n")
    verdict = evaluate(project_at(evaluated), model="bad")
    assert verdict.status is Status.FAILED
    assert "refused before it was loaded" in verdict.summary
    assert "model-policy.yaml" in verdict.details["error"]["remedy"]
    assert not (evaluated / "ran").exists()


def test_a_champion_replaced_in_the_registry_by_a_hostile_one_is_refused(evaluated: Path) -> None:
    """With its digest: who can write tags, too, gets past the digest, and not past the scan."""
    assert register(project_at(evaluated)).status is Status.PASSED
    registry = registry_of(project_at(evaluated))
    version = registry.version("tiny", "1")
    artifact = next((evaluated / "mlartifacts").rglob("MLmodel")).parent
    (artifact / "model.pkl").write_bytes(hostile.SHELL)
    registry.tag_version("tiny", "1", {"mlcicd.model_digest": digest_tree(artifact)})
    registry.set_alias("tiny", "champion", version.version)
    shutil.rmtree(evaluated / ".mlcicd" / "cache")
    verdict = evaluate(project_at(evaluated))
    assert verdict.status is Status.FAILED, verdict
    assert "champion was refused" in verdict.summary


def record_of(root: Path) -> Record:
    from mlcicd.core.progress import SILENT

    return Record(project_at(root), "evaluate", dry_run=False, progress=SILENT)


def test_what_is_loaded_is_what_was_scanned(evaluated: Path) -> None:
    """The original is replaced between scan and load: the place to load from still has the scanned bytes."""
    model = evaluated / "model"
    digest = digest_tree(model)
    sealed = admitted(record_of(evaluated), model, digest, "candidate")
    (model / "model.pkl").write_bytes(hostile.SHELL)
    assert digest_tree(sealed) == digest
    assert sealed != model
    with pytest.raises(InputError, match="changed while"):
        admitted(record_of(evaluated), model, "sha256:" + "0" * 64, "candidate")
    (sealed / "MLmodel").write_text("changed")
    with pytest.raises(InputError, match="changed while"):
        admitted(record_of(evaluated), model, digest, "candidate")


def test_the_model_just_trained_is_warned_of_and_not_registered(evaluated: Path) -> None:
    from mlcicd.core.verdict import Subject, Verdict

    model = evaluated / "own"
    hostile.mlflow_model(model, hostile.MLMODEL, model_pkl=hostile.call("features", "Ratio", "x"))
    digest = digest_tree(model)
    path = project_at(evaluated).verdict_path("train")
    trained = Verdict.read(path)
    subject = Subject(kind="model", name="candidate", digest=digest)
    trained.model_copy(update={"subjects": [subject], "status": Status.PASSED}).write(path)
    record = record_of(evaluated)
    admitted(record, model, digest, "candidate")
    (check,) = record.checks
    assert (check.status, check.severity) == ("failed", Severity.WARN)
    assert "`register` will refuse it" in check.reason
    record.stage = "register"
    record.details.clear()
    with pytest.raises(ModelRefused):
        admitted(record, model, digest, "candidate")
    (evaluated / "model-policy.yaml").write_text("globals: [{name: 'features:Ratio', owner: me, reason: ours}]\n")
    record.details.clear()
    with pytest.raises(ConfigError, match="in no commit"):
        admitted(record, model, digest, "candidate")
    git(evaluated, "add", "model-policy.yaml")
    git(evaluated, "commit", "-qm", "policy")
    record.details.clear()
    admitted(record, model, digest, "candidate")
    assert record.checks[-1].status == "passed"


def test_scan_command(tmp_path: Path) -> None:
    (tmp_path / "bad.pkl").write_bytes(hostile.SHELL)
    (tmp_path / "good.pkl").write_bytes(hostile.GOOD)
    code, said = run("scan", str(tmp_path / "bad.pkl"))
    assert code == 1
    assert "posix:system" in said
    code, said = run("scan", str(tmp_path / "good.pkl"), "--json")
    assert code == 0
    assert json.loads(said)["findings"] == []
    assert run("scan", str(tmp_path / "nothing"))[0] == 4


# --- secrets

SECRETS = {
    "MLFLOW_TRACKING_PASSWORD": "plant-5f1e0a77",
    "SOME_API_TOKEN": "plant-91cc2b40",
    "AWS_SECRET_ACCESS_KEY": "plant/7Yz+31aa",
    "DATABASE_PASSWORD": "plant-c0ffee99",
}
IN_URL = "plant-in-url-77aa"
PRINTED = """
import os, sys
for name in ("SOME_API_TOKEN", "AWS_SECRET_ACCESS_KEY", "DATABASE_PASSWORD"):
    print("connecting with", os.environ[name], file=sys.stderr)
print("https://user:plant-in-url-77aa@db.example/x")
print("password=plant-printed-1234")
raise SystemExit(3)
"""
PLANTED = re.compile(r"plant[-/][A-Za-z0-9+-]+")


def everything_written(root: Path) -> dict[str, str]:
    """All that mlcicd wrote: state, artifacts and the registry's database."""
    files = [p for base in (root / ".mlcicd", root / "mlartifacts") for p in base.rglob("*") if p.is_file()]
    return {str(p): p.read_bytes().decode("utf-8", "replace") for p in [*files, root / "mlflow.db"]}


def test_planted_secrets_are_nowhere(evaluated: Path, monkeypatch: pytest.MonkeyPatch, capfd: object) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    key = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    monkeypatch.setenv("MLCICD_PRIVATE_KEY", key.decode())
    monkeypatch.setenv("GITHUB_ACTOR", f"bot {SECRETS['SOME_API_TOKEN']}")
    said: list[str] = []
    # Registered and signed with all of them in the environment, and one in the command, as `${SOME_API_TOKEN}` puts it.
    project = load_project(evaluated)
    train = project.config.train.model_copy(update={"run": f"python train.py {SECRETS['SOME_API_TOKEN']}"})
    told = replace(project, config=project.config.model_copy(update={"train": train}))
    assert register(told).status is Status.PASSED
    envelope = json.loads((stored(evaluated) / "provenance.dsse.json").read_text())
    said.append(base64.b64decode(envelope["payload"]).decode())
    assert "python train.py ***" in said[-1]
    for arguments in (["history"], ["report"], ["card"]):
        if arguments[0] in cli.commands:
            option = "--working-directory"
            said.append(run(*arguments, option, str(evaluated))[1])
    # The user's own program prints them, and fails.
    with (evaluated / "train.py").open("w") as file:
        file.write(PRINTED)
    text = (evaluated / "mlcicd.yaml").read_text()
    (evaluated / "mlcicd.yaml").write_text(
        text.replace("{run: python train.py,", "{run: 'python train.py ${SOME_API_TOKEN}',")
    )
    said.append(run("train", "--working-directory", str(evaluated), "--json", "--debug")[1])
    # A server that can not be reached, with a password in its address.
    text = (evaluated / "mlcicd.yaml").read_text()
    uri = f"http://user:{IN_URL}@127.0.0.1:9/"
    (evaluated / "mlcicd.yaml").write_text(text + f"tracking: {{uri: '{uri}'}}\n")
    said.append(run("evaluate", "--working-directory", str(evaluated), "--json", "--debug")[1])
    out, err = capfd.readouterr()  # type: ignore[attr-defined]
    body = key.decode().splitlines()[1]
    for where, content in {**everything_written(evaluated), "said": "\n".join([*said, out, err])}.items():
        assert not PLANTED.search(content), (where, PLANTED.findall(content))
        assert body not in content, where
    assert "exit code 3" in "\n".join(said)
