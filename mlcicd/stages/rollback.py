"""rollback: the previous version, live again."""

from __future__ import annotations

from mlcicd.core.errors import InputError, MlcicdError
from mlcicd.core.verdict import Check, CheckStatus, Severity, Status
from mlcicd.registry import Registry, restore_previous
from mlcicd.registry.promotion import ROLLED_BACK
from mlcicd.stages.git_tags import tag_stage
from mlcicd.stages.lineage import origin_of, recovered
from mlcicd.stages.places import fetched, place
from mlcicd.stages.record import Record, stage
from mlcicd.stages.supply_signing import signature_checks


@stage("rollback")
def rollback(record: Record, *, environment: str = "", reason: str = "") -> Status | None:
    """Brings the previous version back: traffic first, because users come first, then the champion alias.

    A canary that is on its way is taken out, too. When the previous version is no longer warm, it is fetched from the
    registry, verified, and started.

    Args:
        environment: name under `deploy.environments`; the last one when empty.
        reason: recorded in the registry.
    """
    project = record.project
    where = place(project, environment)
    registry = recovered(record)
    rules = project.config.register_
    status = where.target.status()
    previous = registry.version_at(project.config.model.name, rules.previous_alias)
    champion = registry.version_at(project.config.model.name, rules.champion_alias)
    if previous is not None and ROLLED_BACK in previous.tags:
        # It was taken back itself: going "back" to it would bring the bad version into production again.
        # The target may still hold it warm: it was live when a version that was not had to be started again.
        if champion is not None and status.live == champion.version and status.previous in (None, previous.version):
            record.outputs.update({"environment": where.name, "model-version": champion.version})
            record.summary = f"version {previous.version} was rolled back already; version {champion.version} is live"
            return Status.SKIPPED
        previous = None
    goal = status.previous or (previous.version if previous else None)
    if goal is None:
        raise InputError(
            f"there is no previous version to go back to in {where.name}",
            why="Nothing was promoted over another version yet.",
            remedy="deploy the version you want with `mlcicd deploy --model-version N`",
        )
    record.outputs.update({"environment": where.name, "model-version": goal})
    if record.dry_run:
        record.summary = f"dry run: would bring version {goal} back in {where.name}"
        return Status.PASSED
    if status.previous:
        goal = where.target.rollback()
    else:
        record.progress.step(f"version {goal} is not warm: starting it again")
        where.target.abort()
        where.target.deploy(fetched(record, registry, registry.version(project.config.model.name, goal)))
        where.target.promote(goal)
    record.checks.append(Check(name="traffic", status=CheckStatus.PASSED, observed=f"version {goal}"))
    if where.production:
        champion = registry.version_at(project.config.model.name, rules.champion_alias)
        if champion is None or champion.version != goal:
            moved = restore_previous(
                registry,
                project.config.model.name,
                champion_alias=rules.champion_alias,
                previous_alias=rules.previous_alias,
                reason=reason or "rolled back by hand",
                origin=origin_of(project.environ),
            )
            champion = moved.champion
        agrees = champion.version == goal
        record.checks.append(
            Check(
                name="champion alias",
                status=CheckStatus.PASSED if agrees else CheckStatus.FAILED,
                observed=f"version {champion.version}",
                required=f"version {goal}",
                reason="" if agrees else "the registry's previous version is not the one that has the traffic",
                remedy="" if agrees else "look at `mlcicd status`, and deploy the version you want",
            )
        )
    record.outputs["model-version"] = goal
    record.summary = f"version {goal} has the traffic of {where.name} again" + (f": {reason}" if reason else "")
    signed = _signature(record, registry, goal)
    record.checks += signed
    # A tag that can not be made is a warning, whatever the reason.
    tag_stage(record, where.name, lambda: registry.version(project.config.model.name, goal))
    record.summary += "".join(f"; WARNING: {c.name}: {c.reason}" for c in signed if c.status is CheckStatus.FAILED)
    return None


def _signature(record: Record, registry: Registry, goal: str) -> list[Check]:
    """The signature of the version that was gone back to, where the policy names signers: a warning, never more.

    It is looked at when users have been served: a refusal would keep a version live that is known to be bad.
    """
    try:
        version = registry.version(record.project.config.model.name, goal)
        checks = signature_checks(record.project, registry, version)
    except MlcicdError as error:
        name = f"signature of version {goal}"
        checks = [Check(name=name, status=CheckStatus.FAILED, reason=error.one_line(), remedy=error.remedy)]
    return [check.model_copy(update={"severity": Severity.WARN}) for check in checks]
