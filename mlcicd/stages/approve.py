"""approve: a person lets a version into production, where no GitHub environment asks one."""

from __future__ import annotations

from mlcicd.config import Project
from mlcicd.core.errors import ConfigError, ServiceError
from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, conclude
from mlcicd.registry import RegisteredVersion, Registry
from mlcicd.registry.approvals import record_approval, standing_approval
from mlcicd.registry.tracking import TAG
from mlcicd.stages.common import registry_of, version_evidence
from mlcicd.stages.lineage import origin_of
from mlcicd.stages.places import Place, environment_name, version_to_deploy
from mlcicd.stages.record import Record, stage
from mlcicd.stages.supply_signing import signature_checks


@stage("approve")
def approve(
    record: Record, *, reason: str, environment: str = "", model_version: str = "", revoke: bool = False
) -> Status | None:
    """Records an approval of a version whose evidence holds, tied to its bytes and its evaluation.

    Args:
        reason: why; what was tried and seen.
        environment: name under `deploy.environments`; the last one when empty.
        model_version: version in the registry; the one with `register.alias` when empty.
        revoke: take an approval back instead, whoever gave it: until a new one is recorded here, no other counts.
    """
    project = record.project
    where = environment_name(project, environment)
    if not reason.strip():
        raise ConfigError("an approval needs a reason", remedy="say in --reason what was tried and seen")
    registry = registry_of(project)
    version = version_to_deploy(record, registry, model_version)
    record.subject("version", version.name, f"version:{version.version}", run=version.run_id)
    record.subject("model", "candidate", version.digest)
    record.outputs.update({"environment": where, "model-version": version.version})
    if not revoke:
        record.checks += [version_evidence(project, registry, version), *signature_checks(project, registry, version)]
        if conclude(record.checks) is Status.FAILED:
            return Status.FAILED
    origin = origin_of(project.environ)
    record.checks += _same_hand(version, origin.who)
    standing = standing_approval(version, where)
    known = standing.approval
    if known is not None and not revoke and known.who == origin.who:
        record.summary = f"version {version.version} is approved for {where} already, by {known.who} at {known.at}"
        return Status.SKIPPED
    if revoke and standing.revoked:
        record.summary = f"version {version.version} is not approved for {where} any more: {standing.why}"
        return Status.SKIPPED
    what = "approved for" if not revoke else "no more approved for"
    record.summary = f"version {version.version} is {what} {where}, by {origin.who or 'nobody known'}: {reason}"
    if record.dry_run:
        record.summary = f"dry run: {record.summary}"
        return Status.PASSED
    made = record_approval(registry, version, where, reason=reason, origin=origin, revoke=revoke)
    record.details["approval"] = vars(made)
    return Status.PASSED


def refuse_revoked(project: Project, registry: Registry, where: Place, version: str) -> None:
    """Lets no version have production's traffic whose approval was taken back, where `deploy.mode` is `delivery`.

    Args:
        version: read again from the registry: the approval may be taken back while a canary runs.

    Raises:
        ServiceError: it was taken back, or the registry does not answer.
    """
    if not where.production or project.config.deploy.mode != "delivery":
        return
    name = project.config.model.name
    standing = standing_approval(registry.version(name, version), where.name)
    if standing.revoked:
        raise ServiceError(
            f"version {version} may not have the traffic of {where.name}: {standing.why}",
            where=f"{name} version {version}",
            remedy="take it away with `mlcicd canary abort`; or approve it again (`mlcicd approve --reason ...`) and "
            "start it",
        )


def _same_hand(version: RegisteredVersion, who: str) -> list[Check]:
    """A warning where one person has registered and approves."""
    if not who or version.tags.get(f"{TAG}registered_by", "") != who:
        return []
    return [
        Check(
            name="four eyes",
            status=CheckStatus.FAILED,
            severity=Severity.WARN,
            reason=f"{who} has registered version {version.version} too",
            remedy="let somebody else approve it",
        )
    ]
