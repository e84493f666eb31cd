"""What `register` stores beside the verdicts (bill of materials, model card, controls, signature), and what is asked
of it again before a version is deployed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlcicd
from mlcicd.config import FILE_NAME, Project
from mlcicd.core.digests import digest_bytes, digest_file, digest_tree
from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.verdict import Check, CheckStatus, Verdict
from mlcicd.registry import RegisteredVersion, Registry
from mlcicd.registry.tracking import TAG, checked_digest
from mlcicd.report.markup import clean, code, prose
from mlcicd.stages.common import evidence_folder
from mlcicd.stages.record import Record
from mlcicd.stages.supply import rules_of
from mlcicd.supply_chain.bom import Material, bill_of_materials
from mlcicd.supply_chain.card import Escapes, model_card
from mlcicd.supply_chain.controls import control_document, served_by
from mlcicd.supply_chain.packages import packages_of
from mlcicd.supply_chain.provenance import Facts, check_statement, statement
from mlcicd.supply_chain.signing import PublicKey, public_key_of, read_private_key, read_public_key, sign, verify

KEY_VARIABLE = "MLCICD_PRIVATE_KEY"
ENVELOPE, BOM, CARD, CONTROLS = "provenance.dsse.json", "bom.cdx.json", "model-card.md", "controls.json"
# Documents that the signature speaks for.
SIGNED = ("validate-data.json", "train.json", "evaluate.json", BOM, CARD, CONTROLS)


def store_supply(
    record: Record, registry: Registry, run_id: str, evaluation: Verdict, *, model: Path, document: str
) -> dict[str, str]:
    """Writes what goes with a version into its evidence folder; the envelope last, over all of it.

    Args:
        model: the model's verified bytes.
        document: the evaluation as it is stored.

    Returns:
        All that is stored with the version, by name: the verdicts, too.

    Raises:
        ConfigError: the signing key, a lock file or the policy can not be used.
    """
    project = record.project
    folder = evidence_folder(digest_bytes(document.encode()))
    documents = documents_of(project, evaluation, model, record.details.get("scan", {}))
    for name, text in documents.items():
        registry.log_text(run_id, text, f"{folder}/{name}")
    key = private_key(project)
    signed = {**documents, "evaluate.json": document}
    for name in ("validate-data", "train"):
        path = project.verdict_path(name)
        if path.is_file():
            signed[f"{name}.json"] = path.read_text(encoding="utf-8")
    if key is None:
        return signed
    payload = statement(model, {name: text.encode() for name, text in signed.items()}, _facts(project, evaluation))
    envelope = _signed_before(registry, run_id, f"{folder}/{ENVELOPE}", payload, key) or sign(payload, key).decode()
    registry.log_text(run_id, envelope, f"{folder}/{ENVELOPE}")
    record.checks.append(Check(name="signature", status=CheckStatus.PASSED, observed=f"{len(signed)} documents signed"))
    return {**signed, ENVELOPE: envelope}


def _signed_before(registry: Registry, run_id: str, name: str, payload: bytes, key: Any) -> str:
    """The envelope that an earlier registration has left, where it is one of ours of the same content: ECDSA's are
    never the same twice, and what is the same must stay the same."""
    envelope = registry.read_text(run_id, name)
    if envelope is None:
        return ""
    public = public_key_of(key)
    try:
        return envelope if verify(envelope.encode(), {public.keyid: public})[0] == payload else ""
    except InputError:
        return ""


def documents_of(project: Project, evaluation: Verdict, model: Path, scans: Mapping[str, Any]) -> dict[str, str]:
    """Bill of materials, model card and control map of an evaluated model: name to text."""
    names = ["evaluate.json", BOM, CARD, *(["scan"] if scans else [])]
    names += [f"{n}.json" for n in ("validate-data", "train") if project.verdict_path(n).is_file()]
    if private_key(project) is not None:
        names.append(ENVELOPE)
    served = served_by(names)
    scan: Mapping[str, Any] = next(iter(scans.values()), {})
    material = Material(
        name=project.config.model.name,
        task=project.config.model.task,
        tree=digest_tree(model),
        files={
            path.relative_to(model).as_posix(): digest_file(path).rpartition(":")[2]
            for path in sorted(model.rglob("*"))
            if path.is_file()
        },
        packages=packages_of(_locks(project, model)),
        formats=scan.get("formats", []),
        served=served,
    )
    bom = bill_of_materials(material, evaluation, f"mlcicd {mlcicd.__version__}")
    return {
        BOM: json.dumps(bom, indent=1, sort_keys=True, allow_nan=False) + "\n",
        CARD: card_of(project, evaluation),
        CONTROLS: json.dumps(control_document(names), indent=1) + "\n",
    }


def card_of(project: Project, evaluation: Verdict) -> str:
    """The model card of an evaluation, with what people have written into the project's card kept.

    Raises:
        InputError: the card of the project can not be read.
    """
    path = project.root / project.config.supply_chain.card
    try:
        written = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the model card can not be read", where=path.name, why=str(error)) from error
    names = ["evaluate.json", CARD, BOM, *(f"{n}.json" for n in ("validate-data", "train"))]
    return model_card(
        written,
        name=project.config.model.name,
        task=project.config.model.task,
        evaluation=evaluation,
        served=served_by(names),
        escapes=Escapes(prose=prose, code=code, plain=clean),
    )


def private_key(project: Project) -> Any | None:
    """The key that `register` signs with; None when there is none.

    Raises:
        ConfigError: it is named and can not be used.
    """
    text = project.environ.get(KEY_VARIABLE, "")
    if text:
        return read_private_key(text, where=KEY_VARIABLE)
    named = project.config.supply_chain.key
    if not named:
        return None
    path = Path(named).expanduser()
    path = path if path.is_absolute() else project.root / path
    if not path.is_file():
        raise ConfigError(
            "supply_chain.key names a file that is not there",
            file=FILE_NAME,
            line=project.document.line(("supply_chain", "key")),
            remedy=f"make a key with `openssl genpkey -algorithm ed25519`, or give it in {KEY_VARIABLE}",
        )
    return read_private_key(path.read_text(encoding="utf-8", errors="replace"), where=named)


def trusted_keys(project: Project) -> dict[str, PublicKey]:
    """The signers of the policy, by key id.

    Raises:
        ConfigError: a key can not be read.
    """
    found = {}
    for signer in rules_of(project).policy.signers:
        pem = signer.key
        if not pem.lstrip().startswith("-----BEGIN"):
            path = project.root / pem
            if not path.is_file():
                raise ConfigError(
                    f"the key of the signer {signer.name!r} is not there",
                    where=project.config.supply_chain.policy,
                    remedy=f"put the public key at {pem}, or as text into the policy",
                )
            pem = path.read_text(encoding="utf-8", errors="replace")
        key = read_public_key(pem, where=project.config.supply_chain.policy, signer=signer.name)
        found[key.keyid] = key
    return found


def signature_checks(project: Project, registry: Registry, version: RegisteredVersion) -> list[Check]:
    """Whether a signer of the policy has signed a version and its evidence; nothing is asked without signers."""
    keys = trusted_keys(project)
    if not keys:
        return []
    name, required = f"signature of version {version.version}", "signed by a signer of the policy"
    try:
        signer, count = verify_version(registry, version, keys)
    except InputError as error:
        return [Check(name=name, status=CheckStatus.FAILED, required=required, reason=error.what, remedy=error.remedy)]
    said = f"by {signer}, {count} subjects"
    return [Check(name=name, status=CheckStatus.PASSED, observed=said, required=required)]


def verify_version(registry: Registry, version: RegisteredVersion, keys: Mapping[str, PublicKey]) -> tuple[str, int]:
    """The signer of a version, and how many subjects were signed. Its model's bytes are proven when they are fetched.

    Raises:
        InputError: it is not signed, or the signature does not hold.
    """
    digest = version.tags.get(f"{TAG}evidence_digest", "")
    if not checked_digest(digest) or not version.run_id:
        raise InputError("it has no evidence that could be signed", remedy="register the model with `mlcicd register`")
    folder = evidence_folder(digest)
    envelope = registry.read_text(version.run_id, f"{folder}/{ENVELOPE}")
    if envelope is None:
        raise InputError(
            "it is not signed", remedy=f"give `register` a key (supply_chain.key or {KEY_VARIABLE}) and register again"
        )
    payload, key = verify(envelope.encode(), keys)
    texts = {name: registry.read_text(version.run_id, f"{folder}/{name}") for name in SIGNED}
    documents = {name: text.encode() for name, text in texts.items() if text is not None}
    count = check_statement(payload, model=None, tree=version.digest, documents=documents)
    return key.signer or key.keyid[:16], count


def _facts(project: Project, evaluation: Verdict) -> Facts:
    environ = project.environ
    commit = evaluation.subject("git")
    server, repository, run = (environ.get(f"GITHUB_{key}", "") for key in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    workflow = environ.get("GITHUB_WORKFLOW_REF", "")
    return Facts(
        model=project.config.model.name,
        parameters={
            "config": project.digest,
            "command": project.config.train.run,
            "source": f"{server}/{repository}" if repository else "",
        },
        materials={f"{s.kind}/{s.name}": s.digest for s in evaluation.subjects if s.kind in ("data", "environment")},
        commit=commit.digest if commit else "",
        builder=f"{server}/{workflow}" if workflow else "urn:mlcicd:local",
        invocation=f"{server}/{repository}/actions/runs/{run}" if run else "",
        started=evaluation.started.isoformat(),
        finished=evaluation.finished.isoformat(),
    )


def _locks(project: Project, model: Path) -> list[Path]:
    """The files that pin the environment: the model's own requirements, and the project's locks."""
    found = [path for pattern in project.config.train.lock for path in sorted(project.root.glob(pattern))]
    return [path for path in [model / "requirements.txt", *found] if path.is_file()]
