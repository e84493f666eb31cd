"""promote: a person, or a CI job, makes a registered version the champion."""

from __future__ import annotations

from mlcicd.core.errors import InputError
from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, conclude
from mlcicd.registry import RegisteredVersion
from mlcicd.registry import promote as move
from mlcicd.registry.recovery import ROLLED_BACK
from mlcicd.registry.tracking import TAG
from mlcicd.stages.common import version_evidence
from mlcicd.stages.git_tags import tag_stage
from mlcicd.stages.lineage import origin_of, recovered
from mlcicd.stages.places import version_to_deploy
from mlcicd.stages.record import Record, stage
from mlcicd.stages.supply_signing import signature_checks


@stage("promote")
def promote(record: Record, *, model_version: str = "", reason: str = "") -> Status | None:
    """Moves the champion alias to a version whose evidence holds; the champion before it becomes `previous`.

    It moves no traffic: `deploy` and `canary` do, and move the alias with it. Where another champion was promoted since
    the evidence was measured, it is refused, and the model has to be evaluated again.

    Args:
        model_version: version in the registry; the one with `register.alias` when empty.
        reason: recorded in the registry.
    """
    project = record.project
    rules = project.config.register_
    registry = recovered(record)
    version = version_to_deploy(record, registry, model_version)
    record.subject("version", version.name, f"version:{version.version}", run=version.run_id)
    record.subject("model", "candidate", version.digest)
    record.outputs["model-version"] = version.version
    champion = registry.version_at(version.name, rules.champion_alias)
    record.outputs["champion-version"] = champion.version if champion else ""
    if champion is not None and champion.version == version.version:
        record.summary = f"version {version.version} is the champion already"
        return Status.SKIPPED
    record.checks += [version_evidence(project, registry, version), _compared(version, champion), *_back(version)]
    record.checks += signature_checks(project, registry, version)
    if conclude(record.checks) is Status.FAILED:
        return Status.FAILED
    if record.dry_run:
        record.summary = f"dry run: would make version {version.version} the champion"
        return Status.PASSED
    moved = move(
        registry,
        version.name,
        version.version,
        champion_alias=rules.champion_alias,
        previous_alias=rules.previous_alias,
        expected_champion=version.tags[f"{TAG}measured_against"],
        reason=reason or "promoted by hand",
        origin=origin_of(project.environ),
    )
    tag_stage(record, next(reversed(project.config.deploy.environments), rules.champion_alias), version)
    record.outputs["champion-version"] = version.version
    before = f"; version {moved.before.version} is {rules.previous_alias}" if moved.before else ""
    record.summary = f"version {version.version} is the champion{before}" + (f": {reason}" if reason else "")
    return None


def _compared(version: RegisteredVersion, champion: RegisteredVersion | None) -> Check:
    """Whether the evidence compares with the champion of now."""
    measured = version.tags.get(f"{TAG}measured_against")
    current = champion.version if champion else ""
    if measured is None:
        raise InputError(
            f"version {version.version} does not say which champion it was measured against",
            remedy="register it with `mlcicd register`",
        )
    agrees = measured == current
    return Check(
        name="measured against the champion",
        status=CheckStatus.PASSED if agrees else CheckStatus.FAILED,
        observed=f"version {measured or 'none'}",
        required=f"version {current or 'none'}",
        reason="" if agrees else "another champion was promoted since the evidence was measured",
        remedy="" if agrees else "evaluate and register again, against the champion of now",
    )


def _back(version: RegisteredVersion) -> list[Check]:
    """A warning for a version that was taken back once."""
    said = version.tags.get(f"{TAG}rolled_back_because") or version.tags.get(f"{TAG}canary")
    if ROLLED_BACK not in version.tags and not said:
        return []
    return [
        Check(
            name="taken back before",
            status=CheckStatus.FAILED,
            severity=Severity.WARN,
            reason=f"version {version.version} was taken back once: {said or 'no reason is known'}",
            remedy="make sure that its reason is gone; the same model will err in the same way",
        )
    ]
