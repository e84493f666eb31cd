"""register: a version in the registry, with the evidence that let it through."""

from __future__ import annotations

import json

from mlcicd.core.digests import digest_bytes
from mlcicd.core.verdict import Check, CheckStatus, Status, Verdict
from mlcicd.registry.tracking import TAG, RegisteredVersion, Registry, content_digest
from mlcicd.stages.common import accepted_statuses, earlier, evidence_folder, registry_of, same_configuration
from mlcicd.stages.record import Record, stage


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
    record.checks.append(_validated(record, evaluation))
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
    registry = registry_of(project)
    # Downloads, and compares with the digest: what is registered is what was evaluated.
    registry.fetch_model(run_id, project.model_cache, digest=model.digest)
    record.checks.append(Check(name="model bytes", status=CheckStatus.PASSED, observed=model.digest[:19]))
    tags = _tags(record, evaluation, registry.run_tags(run_id))
    existing = _same_content(registry, config.model.name, tags[f"{TAG}content"])
    if record.dry_run:
        record.summary = "dry run: would register the model" if not existing else "dry run: already registered"
        return Status.PASSED
    # Evidence first: there is never a version without it. The same content again brings its newest evidence along.
    _store_evidence(record, registry, run_id, evaluation)
    if existing is None:
        version = registry.create_version(config.model.name, run_id, tags)
    else:
        version = existing
        registry.tag_version(version.name, version.version, tags)
    _name_challenger(record, registry, version)
    record.outputs.update(
        {"model-name": config.model.name, "model-version": version.version, "alias": config.register_.alias}
    )
    record.subject("version", config.model.name, f"version:{version.version}", run=version.run_id)
    was = "already registered as" if existing else "registered as"
    record.summary = f"{was} {config.model.name} version {version.version}, alias {config.register_.alias}"
    return Status.SKIPPED if existing else Status.PASSED


def _name_challenger(record: Record, registry: Registry, version: RegisteredVersion) -> None:
    """Moves the challenger alias to the version, unless a newer one has it: an old run again is no new challenger."""
    name, alias = version.name, record.project.config.register_.alias
    current = registry.version_at(name, alias)
    if current is None or int(current.version) <= int(version.version):
        registry.set_alias(name, alias, version.version)
    else:
        record.progress.step(f"{alias} stays with the newer version {current.version}")


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


def _tags(record: Record, evaluation: Verdict, run: dict[str, str]) -> dict[str, str]:
    """Lineage of a version: what it was made of, by which commit it was trained and judged, who let it through."""
    project = record.project
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
        "evidence_digest": digest_bytes(_document(evaluation).encode()),
        "measured_against": str(champion.details.get("version", "")) if champion else "",
        "registered_by": project.environ.get("GITHUB_ACTOR") or project.environ.get("USER", ""),
        "workflow_run": _workflow_run(record),
    }
    return {f"{TAG}{key}": value for key, value in tags.items()}


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
    registry.log_text(run_id, document, f"{folder}/evaluate.json")


def _document(verdict: Verdict) -> str:
    return json.dumps(verdict.to_json(), sort_keys=True, allow_nan=False)


def _same_content(registry: Registry, name: str, content: str) -> RegisteredVersion | None:
    return next((v for v in reversed(registry.versions(name)) if v.content == content), None)


def _workflow_run(record: Record) -> str:
    environ = record.project.environ
    server, repository, run = (environ.get(f"GITHUB_{key}", "") for key in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    return f"{server}/{repository}/actions/runs/{run}" if run else ""
