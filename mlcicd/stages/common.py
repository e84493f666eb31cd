"""Steps that several stages share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mlcicd.config import FILE_NAME, Project, seconds
from mlcicd.core.digests import digest_bytes, digest_tree
from mlcicd.core.errors import CommandFailed, ConfigError, InputError
from mlcicd.core.process import run_child, shell_command, user_environment
from mlcicd.core.verdict import Check, CheckStatus, Status, Verdict
from mlcicd.registry import RegisteredVersion, Registry
from mlcicd.registry.tracking import TAG, checked_digest
from mlcicd.stages.data_sets import bring_snapshots
from mlcicd.stages.record import Record

EVIDENCE_FOLDER = "mlcicd"


def registry_of(project: Project) -> Registry:
    """The project's registry.

    Runs of pull requests are kept in an experiment of their own: a run is reused by its fingerprint, and what an
    unmerged change has written must never become the model of a merged one.
    """
    name = _experiment(project)
    return _registry(project, f"{name}-pull-requests" if _unmerged(project.environ) else name)


def readable_registries(project: Project, registry: Registry) -> list[Registry]:
    """The project's registry, and for the job of a pull request that of the merged runs, which it may read, too."""
    merged = _experiment(project)
    return [registry] if registry.experiment == merged else [registry, _registry(project, merged)]


def _experiment(project: Project) -> str:
    return project.config.tracking.experiment or project.config.model.name


def _registry(project: Project, experiment: str) -> Registry:
    return Registry(
        project.tracking_uri,
        experiment=experiment,
        artifact_location=project.artifact_location,
        lease_s=seconds(project.config.register_.lock_lease),
    )


def _unmerged(environ: Mapping[str, str]) -> bool:
    """Whether this is the job of a GitHub pull request or a GitLab merge request."""
    return (
        environ.get("GITHUB_EVENT_NAME", "").startswith("pull_request")
        or environ.get("CI_PIPELINE_SOURCE") == "merge_request_event"
        or bool(environ.get("CI_MERGE_REQUEST_IID"))
    )


def prepare_data(record: Record, *needed: str, always: bool = False) -> None:
    """Brings what is needed and not here, so that a fresh checkout can begin at any stage.

    Files by `data.prepare`, tables and remote files by reading them into their snapshots.

    Args:
        needed: paths of the configuration; the data sets when none are named (no snapshot of `current`, which is
            `monitor`'s).
        always: run it, and read them, even when all are here.

    Raises:
        CommandFailed: the command failed.
        InputError, ServiceError: a table or remote file can not be read.
    """
    data = record.project.config.data
    prepare_files(record, *needed, always=always)
    bring_snapshots(record, needed or (data.train, data.holdout), always=always)


def prepare_files(record: Record, *needed: str, always: bool = False) -> None:
    """Runs `data.prepare` when a needed file is not here; see :func:`prepare_data`.

    Raises:
        CommandFailed: the command failed.
    """
    project = record.project
    data = project.config.data
    wanted = needed or tuple(path for path in (data.train, data.holdout, data.current) if path)
    files = [path for path in wanted if path not in data.brought]
    if data.prepare and (always or any(not (project.root / path).exists() for path in files)):
        run_project_command(record, data.prepare, "preparing the data")


def run_project_command(record: Record, command: str, what: str) -> None:
    """Runs one of the project's own commands in its folder and environment.

    Raises:
        CommandFailed: it failed.
    """
    project = record.project
    record.progress.step(f"{what}: {command}")
    done = run_child(
        shell_command(command),
        cwd=project.root,
        env=user_environment(project.environ, project.python, {}),
        timeout=seconds(project.config.train.timeout),
        what=what,
        progress=record.progress,
    )
    if done.returncode != 0:
        raise CommandFailed(
            f"{what} ended with exit code {done.returncode}",
            where=command,
            log=done.tail[-15:],
            remedy="run it by hand in the project's folder, and mend it",
        )


def data_path(record: Record, kind: str) -> Path:
    """Path of a data set of the configuration (`train`, `holdout`, `current`), which becomes a subject of the verdict.

    Raises:
        InputError: it is not there.
        ConfigError: `data.<kind>` is not set.
    """
    relative = getattr(record.project.config.data, kind)
    if not relative:
        raise ConfigError(
            f"data.{kind} is not set",
            file=FILE_NAME,
            line=record.project.document.line(("data",)),
            remedy=f"add `{kind}: path` under `data`",
        )
    path = record.project.path(relative, ("data", kind))
    record.subject("data", kind, digest_tree(path), path=relative)
    return path


def sensitive_columns(project: Project) -> list[str]:
    """Columns whose values the schema wants hidden."""
    from mlcicd.data.schema import load_schema

    name = project.config.data.schema_file
    schema = load_schema(project.path(name, ("data", "schema"))) if name else None
    return [column for column, rules in schema.columns.items() if rules.sensitive] if schema else []


def digest_of(record: Record, kind: str, name: str) -> str:
    return next(s.digest for s in record.subjects if s.kind == kind and s.name == name)


def earlier(project: Project, stage: str) -> Verdict:
    """The verdict of an earlier stage of this pipeline.

    Raises:
        InputError: it has not run, or can not be read.
    """
    path = project.verdict_path(stage)
    try:
        verdict = Verdict.read(path)
    except InputError as error:
        raise InputError(
            f"the stage `{stage}` has left no verdict",
            where=f".mlcicd/verdicts/{stage}.json",
            why=error.why,
            remedy=f"run `mlcicd {stage}` first; in another job, download the folder .mlcicd that it uploaded",
        ) from error
    if verdict.stage != stage:
        raise InputError(
            f"this is the verdict of `{verdict.stage}`, not of `{stage}`",
            where=f".mlcicd/verdicts/{path.name}",
            remedy=f"run `mlcicd {stage}` again",
        )
    return verdict


def same_configuration(record: Record, verdict: Verdict) -> Check:
    """Whether an earlier verdict was about this very configuration and commit."""
    differs = []
    config = verdict.subject("config")
    if config is None or config.digest != record.project.digest:
        differs.append("mlcicd.yaml")
    then = verdict.subject("git")
    if then is None or then.digest != record.git.commit:
        before = then.digest[:9] if then and then.digest else "none"
        differs.append(f"the commit ({before} then, {record.git.commit[:9] or 'none'} now)")
    if differs:
        return Check(
            name=f"evidence: {verdict.stage}",
            status=CheckStatus.FAILED,
            reason=f"the verdict of `{verdict.stage}` is about something else: {' and '.join(differs)} changed since",
            remedy=f"run `mlcicd {verdict.stage}` again",
        )
    return Check(name=f"evidence: {verdict.stage}", status=CheckStatus.PASSED, observed=str(verdict.status))


def accepted_statuses(project: Project) -> set[Status]:
    """The statuses of an evaluation that let a model on, by the configuration of now."""
    rules = project.config.register_
    allowed = {Status.PASSED}
    if rules.inconclusive == "accept":
        allowed.add(Status.INCONCLUSIVE)
    if rules.ungated == "accept":
        allowed.add(Status.UNGATED)
    return allowed


def evidence_folder(evidence_digest: str) -> str:
    """Where on the run the evidence of a version is: by its digest, so that no version's overwrites another's."""
    return f"{EVIDENCE_FOLDER}/{evidence_digest.rpartition(':')[2][:16]}"


def version_evidence(project: Project, registry: Registry, version: RegisteredVersion) -> Check:
    """Whether a registered version carries an evaluation of its own bytes that lets it on."""
    problem, evaluation = _stored_evaluation(registry, version)
    if evaluation is not None:
        problem = _objection(evaluation, version, accepted_statuses(project))
    if problem or evaluation is None:
        return Check(
            name=f"evidence of version {version.version}",
            status=CheckStatus.FAILED,
            reason=problem,
            remedy="register the model with `mlcicd register`, which stores the evidence with the version",
        )
    return Check(
        name=f"evidence of version {version.version}",
        status=CheckStatus.PASSED,
        observed=f"evaluation {evaluation.status}",
        details={"evaluated": evaluation.finished.isoformat()},
    )


def _stored_evaluation(registry: Registry, version: RegisteredVersion) -> tuple[str, Verdict | None]:
    """The evaluation that is stored with a version, or why there is none to be had."""
    digest = version.tags.get(f"{TAG}evidence_digest", "")
    text = None
    if version.run_id and version.digest and checked_digest(digest):
        text = registry.read_text(version.run_id, f"{evidence_folder(digest)}/evaluate.json")
    if text is None:
        return f"version {version.version} has no evaluation stored with it: nobody has let it through", None
    if digest_bytes(text.encode()) != digest:
        return f"the evaluation stored with version {version.version} is not the one it was registered with", None
    try:
        return "", Verdict.model_validate(json.loads(text))
    except ValueError as error:
        said = str(error).splitlines()[0]
        return f"the evaluation stored with version {version.version} can not be read: {said}", None


def peak_memory(registry: Registry, version: RegisteredVersion) -> float | None:
    """Megabytes that a version took at most when it was evaluated, where a gate asked for that; else None."""
    _, evaluation = _stored_evaluation(registry, version)
    for check in evaluation.checks if evaluation is not None else []:
        if check.name == "peak_memory_mb" and isinstance(check.observed, int | float):
            return float(check.observed)
    return None


def untrusted_comparison(evaluation: Verdict, name: str) -> str:
    """Why an evaluation, as a comparison of models of one registered name, proves nothing; empty when it does."""
    for subject in evaluation.subjects:
        if subject.kind == "predictions":
            return f"the {subject.name}'s answers came from a file; nobody has seen the model give them"
    champion = evaluation.subject("model", "champion")
    # Evaluations from before this was recorded do not say it.
    of = str(champion.details.get("of", "") or name) if champion else name
    return "" if of == name else f"it was measured against a version of {of!r}, which is not a champion of {name!r}"


def _objection(evaluation: Verdict, version: RegisteredVersion, allowed: set[Status]) -> str:
    """What is wrong with an evaluation as evidence for a version; empty when nothing is."""
    model = evaluation.subject("model", "candidate")
    if evaluation.stage != "evaluate" or model is None or model.digest != version.digest:
        return f"the evaluation stored with version {version.version} is about something else"
    if evaluation.dry_run:
        return f"the evaluation stored with version {version.version} was a dry run: it enforced nothing"
    if evaluation.status not in allowed:
        return f"the evaluation stored with version {version.version} ended {evaluation.status}: {evaluation.summary}"
    distrust = untrusted_comparison(evaluation, version.name)
    return f"the evaluation stored with version {version.version}: {distrust}" if distrust else ""
