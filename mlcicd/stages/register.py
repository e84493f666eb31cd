"""register: a version in the registry, with the evidence that let it through."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from mlcicd.core.digests import digest_bytes, digest_json
from mlcicd.core.errors import InputError, redact
from mlcicd.core.verdict import Check, CheckStatus, Status, Verdict
from mlcicd.evaluation.signature_change import read_signature
from mlcicd.registry.numbering import Numbering, semver_of
from mlcicd.registry.registration import register_once
from mlcicd.registry.tracking import TAG, RegisteredVersion, Registry, content_digest
from mlcicd.stages.artifacts import store_artifacts
from mlcicd.stages.common import accepted_statuses, earlier, evidence_folder, same_configuration, untrusted_comparison
from mlcicd.stages.expectations_contract import store_rows
from mlcicd.stages.expectations_waivers import waiver_tag
from mlcicd.stages.git_tags import tag_registration
from mlcicd.stages.lineage import aliases_of, origin_of, recovered, training_lineage
from mlcicd.stages.record import Record, stage
from mlcicd.stages.supply import admitted
from mlcicd.stages.supply_evidence import store_supply


@stage("register")
def register(record: Record) -> Status | None:
    """Registers the evaluated model and gives it the challenger alias; the same content is registered once.

    Refuses (status failed) a model whose evaluation is missing, failed, inconclusive or ungated (unless the
    configuration accepts these two), dry, or about another commit, configuration or model.
    """
    project = record.project
    config = project.config
    evaluation = earlier(project, "evaluate")
    record.checks += [_accepted(record, evaluation), same_configuration(record, evaluation)]
    record.checks += [_validated(record, evaluation), _comparable(evaluation, config.model.name)]
    model = evaluation.subject("model", "candidate")
    run_id = evaluation.outputs.get("run-id", "")
    if model is not None:
        record.subjects.append(model)
    if not run_id or model is None:
        record.checks.append(
            Check(
                name="model",
                status=CheckStatus.FAILED,
                reason="the evaluated model does not come from a run of the registry",
                remedy="train it with `mlcicd train`, and evaluate that",
            )
        )
    if any(check.status is CheckStatus.FAILED for check in record.checks) or model is None:
        return Status.FAILED
    registry = recovered(record)
    # Downloads, and compares with the digest: what is registered is what was evaluated.
    fetched = registry.fetch_model(run_id, project.model_cache, digest=model.digest)
    path = admitted(record, fetched, model.digest, "candidate")
    record.checks.append(Check(name="model bytes", status=CheckStatus.PASSED, observed=model.digest[:19]))
    tags = _tags(record, evaluation, registry, run_id)
    existing = _same_content(registry, config.model.name, tags[f"{TAG}content"])
    if record.dry_run:
        record.summary = "dry run: would register the model" if not existing else "dry run: already registered"
        return Status.PASSED
    # Evidence first: there is never a version without it. The same content again brings its newest evidence along.
    documents = store_supply(record, registry, run_id, evaluation, model=path, document=_document(evaluation))
    _store_evidence(record, registry, run_id, evaluation)
    tags |= store_artifacts(record, path, documents, model.digest)
    version, made = register_once(
        registry,
        config.model.name,
        run_id,
        tags,
        alias=config.register_.alias,
        aliases=aliases_of(project),
        numbering=Numbering(_signature(path), config.register_.version),
    )
    tag_registration(record, version)
    record.outputs.update(
        {"model-name": config.model.name, "model-version": version.version, "alias": config.register_.alias}
    )
    record.outputs["semantic-version"] = semver_of(version)
    record.subject("version", config.model.name, f"version:{version.version}", run=version.run_id)
    was = "registered as" if made else "already registered as"
    record.summary = (
        f"{was} {config.model.name} version {version.version} ({semver_of(version)}), alias {config.register_.alias}"
    )
    return Status.PASSED if made else Status.SKIPPED


def _signature(model: Path) -> str:
    """Digest of what the model takes and gives; empty when it does not say."""
    try:
        signature = read_signature(model)
    except InputError:
        return ""
    return "" if signature.empty else digest_json(asdict(signature))


def _validated(record: Record, evaluation: Verdict) -> Check:
    """Whether the data that was trained and judged on is data that was validated."""
    name, remedy = "evidence: validate-data", "run `mlcicd validate-data`, and mend the data until it passes"
    path = record.project.verdict_path("validate-data")
    if not path.is_file():
        reason = "the data was never validated"
    else:
        validation = earlier(record.project, "validate-data")
        reason = ""
        if validation.status not in (Status.PASSED, Status.UNGATED) or validation.dry_run:
            reason = f"the validation of the data ended {validation.status}: {validation.summary}"
        for kind in ("train", "holdout"):
            then, used = validation.subject("data", kind), evaluation.subject("data", kind)
            if not reason and (then is None or used is None or then.digest != used.digest):
                reason = f"the {kind} data that was validated is not the one that was used"
    if reason:
        return Check(name=name, status=CheckStatus.FAILED, reason=reason, remedy=remedy)
    return Check(name=name, status=CheckStatus.PASSED, observed="the same training data and holdout")


def _comparable(evaluation: Verdict, name: str) -> Check:
    """Whether the models themselves were asked, and the champion is one of this registered model."""
    reason = untrusted_comparison(evaluation, name)
    return Check(
        name="evidence: comparison",
        status=CheckStatus.FAILED if reason else CheckStatus.PASSED,
        reason=reason,
        remedy="run `mlcicd evaluate` without files of predictions, against this model's own champion"
        if reason
        else "",
    )


def _accepted(record: Record, evaluation: Verdict) -> Check:
    """Whether the evaluation's status lets the model into the registry."""
    allowed = accepted_statuses(record.project)
    required = " or ".join(sorted(allowed))
    if evaluation.dry_run:
        return Check(
            name="evaluation",
            status=CheckStatus.FAILED,
            observed=f"{evaluation.status} (dry run)",
            required=required,
            reason="the evaluation was a dry run: it enforced nothing",
            remedy="run `mlcicd evaluate` without --dry-run",
        )
    if evaluation.status in allowed:
        return Check(name="evaluation", status=CheckStatus.PASSED, observed=str(evaluation.status), required=required)
    return Check(
        name="evaluation",
        status=CheckStatus.FAILED,
        observed=str(evaluation.status),
        required=required,
        reason=f"the evaluation ended {evaluation.status}: {evaluation.summary}",
        remedy="mend the model, or change the gates in mlcicd.yaml in a reviewed commit",
    )


def _tags(record: Record, evaluation: Verdict, registry: Registry, run_id: str) -> dict[str, str]:
    """Lineage of a version: what it was made of, by which commit it was trained and judged, who let it through."""
    project = record.project
    run = registry.run_tags(run_id)
    origin = origin_of(project.environ)
    model = evaluation.subject("model", "candidate")
    train = evaluation.subject("data", "train")
    holdout = evaluation.subject("data", "holdout")
    git = evaluation.subject("git")
    champion = evaluation.subject("model", "champion")
    fingerprint = run.get(f"{TAG}fingerprint", "")
    data = (train.digest if train else "") + (holdout.digest if holdout else "")
    commit = git.digest if git else ""
    tags = {
        "content": content_digest(
            model=model.digest if model else "", data=data, config=project.digest, code=fingerprint
        ),
        "model_digest": model.digest if model else "",
        "train_data_digest": train.digest if train else "",
        "holdout_data_digest": holdout.digest if holdout else "",
        "config_digest": project.digest,
        "fingerprint": fingerprint,
        "train_commit": run.get("mlflow.source.git.commit", ""),
        "git_commit": commit,
        "git_dirty": str(bool(git and git.details.get("dirty"))).lower(),
        "evaluation": str(evaluation.status),
        "waivers": waiver_tag(evaluation),
        "evidence_digest": digest_bytes(_document(evaluation).encode()),
        "validation_digest": _digest_of_verdict(record, "validate-data"),
        "training_digest": _digest_of_verdict(record, "train"),
        **training_lineage(project, run, registry.run_params(run_id)),
        "registered_by": origin.who,
        "workflow_run": origin.run,
        # After the evidence: a death between the two must not leave old evidence that claims the new comparison.
        "measured_against": str(champion.details.get("version", "")) if champion else "",
    }
    # Names of people and runs come from the environment, where anything may stand.
    return {f"{TAG}{key}": redact(value) for key, value in tags.items()}


def _store_evidence(record: Record, registry: Registry, run_id: str, evaluation: Verdict) -> None:
    """Puts the verdicts, and the reference profile of the training data, beside the model."""
    document = _document(evaluation)
    folder = evidence_folder(digest_bytes(document.encode()))
    for name in ("validate-data", "train"):
        path = record.project.verdict_path(name)
        if path.is_file():
            registry.log_text(run_id, path.read_text(encoding="utf-8"), f"{folder}/{name}.json")
    profile = record.project.state / "evidence" / "profile.json"
    if profile.is_file():
        registry.log_text(run_id, profile.read_text(encoding="utf-8"), f"{folder}/profile.json")
    store_rows(record, registry, run_id, folder, evaluation)
    registry.log_text(run_id, document, f"{folder}/evaluate.json")


def _document(verdict: Verdict) -> str:
    return json.dumps(verdict.to_json(), sort_keys=True, allow_nan=False)


def _same_content(registry: Registry, name: str, content: str) -> RegisteredVersion | None:
    return next((v for v in reversed(registry.versions(name)) if v.content == content), None)


def _digest_of_verdict(record: Record, name: str) -> str:
    path = record.project.verdict_path(name)
    return digest_bytes(path.read_bytes()) if path.is_file() else ""
