"""deploy: a registered version, up and smoke-tested beside the live one, then switched or handed to the canary."""

from __future__ import annotations

from pathlib import Path

from mlcicd.ci.approvals import approvers
from mlcicd.core.errors import MlcicdError
from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, conclude, now
from mlcicd.registry import RegisteredVersion, Registry, promote
from mlcicd.registry.approvals import standing_approval
from mlcicd.registry.tracking import TAG
from mlcicd.serving.smoke import SmokeRequest, read_smoke, run_smoke
from mlcicd.stages.common import prepare_data, version_evidence
from mlcicd.stages.deploy_parity import parity
from mlcicd.stages.git_tags import tag_stage
from mlcicd.stages.lineage import origin_of, recovered
from mlcicd.stages.places import Place, fetched, place, planned, token, version_to_deploy
from mlcicd.stages.record import Record, stage
from mlcicd.stages.supply import admitted
from mlcicd.stages.supply_signing import signature_checks


@stage("deploy")
def deploy(record: Record, *, environment: str = "", model_version: str = "", approved_by: str = "") -> Status | None:
    """Deploys a version whose evidence holds, and takes it away again when its smoke test fails.

    Args:
        environment: name under `deploy.environments`; the last one when empty.
        model_version: version in the registry; the one with `register.alias` when empty.
        approved_by: who approved it, where `deploy.mode` is `delivery` and this is the last environment.
    """
    project = record.project
    where = place(project, environment)
    registry = recovered(record)
    version = version_to_deploy(record, registry, model_version)
    record.subject("version", version.name, f"version:{version.version}", run=version.run_id)
    record.subject("model", "candidate", version.digest)
    record.outputs.update({"environment": where.name, "model-version": version.version})
    record.checks += [version_evidence(project, registry, version), *_taken_back(version)]
    record.checks += signature_checks(project, registry, version)
    if where.production and project.config.deploy.mode == "delivery":
        record.checks.append(_approval(record, where, version, approved_by))
    if conclude(record.checks) is Status.FAILED:
        return Status.FAILED
    smoke = _smoke_requests(record, where)
    status = where.target.status()
    record.checks += [
        Check(name="settings in force", status=CheckStatus.FAILED, severity=Severity.WARN, reason=notice)
        for notice in status.notices
    ]
    if status.live == version.version and status.healthy:
        if not record.dry_run and status.canary is None:
            # A run that was killed between the traffic and the alias is finished here.
            _move_alias(record, registry, where, version)
            tag_stage(record, where.name, version)
        record.outputs.update({"strategy": "direct", "url": status.url})
        record.summary = f"version {version.version} already has the traffic of {where.name}"
        return Status.SKIPPED
    live = status.live or _champion_to_restore(record, registry, where, version)
    champion = registry.version(version.name, live) if live and not status.live else None
    if champion is not None:
        # It has to be started as well, so it is asked the same.
        record.checks += signature_checks(project, registry, champion)
        if conclude(record.checks) is Status.FAILED:
            return Status.FAILED
    strategy = "canary" if where.settings.strategy == "canary" and live else "direct"
    record.outputs["strategy"] = strategy
    _show(record, where, planned(record, registry, where, version))
    if record.dry_run:
        record.summary = f"dry run: would deploy version {version.version} to {where.name} ({strategy})"
        return Status.PASSED
    if champion is not None:
        _restore(record, registry, where, champion)
    if not _brought_up(record, registry, where, version, smoke):
        return Status.FAILED
    if strategy == "direct":
        _switch(record, registry, where, version, live=live)
        tag_stage(record, where.name, version)
    registry.tag_version(version.name, version.version, {f"{TAG}deployed.{where.name}": now().isoformat()})
    record.outputs["url"] = where.target.status().url
    done = f"has the traffic of {where.name}" if strategy == "direct" else f"waits beside version {live}"
    record.summary = f"version {version.version} is up and {done}"
    return Status.PASSED


def _brought_up(
    record: Record, registry: Registry, where: Place, version: RegisteredVersion, smoke: list[SmokeRequest] | None
) -> bool:
    """The version beside the live one, and whether it has passed its tests there; taken away again if not."""
    own_url, model = _bring_up(record, registry, where, version)
    try:
        record.checks += _smoke(record, where, own_url, smoke)
        if conclude(record.checks) is not Status.FAILED:
            record.checks.append(parity(record, where, own_url, model))
    except BaseException:
        # Untested, it must not stay as a canary that somebody gives traffic to.
        where.target.abort()
        raise
    if conclude(record.checks) is not Status.FAILED:
        return True
    where.target.abort()
    what = "its smoke test" if record.checks[-1].name != "parity" else "the comparison with the evaluated model"
    record.summary = f"version {version.version} failed {what} in {where.name} and was taken away"
    return False


def _show(record: Record, where: Place, changes: list[str]) -> None:
    """Tells what will change before it does."""
    if changes:
        record.progress.step(f"what changes in {where.name}:")
    for line in changes:
        record.progress.output(line)


def _taken_back(version: RegisteredVersion) -> list[Check]:
    """A warning for a version that production has seen before, and did not keep."""
    said = version.tags.get(f"{TAG}canary") or version.tags.get(f"{TAG}rolled_back_because")
    if not said:
        return []
    return [
        Check(
            name="taken back before",
            status=CheckStatus.FAILED,
            severity=Severity.WARN,
            reason=f"version {version.version} was taken back once: {said}",
            remedy="make sure that its reason is gone; the same model will err in the same way",
        )
    ]


def _approval(record: Record, where: Place, version: RegisteredVersion, approved_by: str) -> Check:
    """Whether a person approved: recorded by `mlcicd approve`, by name on the command line, or as a reviewer of the
    GitHub environment. Where an approval was taken back, only a new one of `mlcicd approve` counts."""
    standing = standing_approval(version, where.name)
    recorded = standing.approval
    if recorded is not None:
        who, details = f"{recorded.who or 'nobody known'}: {recorded.reason}", vars(recorded)
    elif standing.revoked:
        return Check(
            name="approval",
            status=CheckStatus.FAILED,
            required="a person's approval",
            reason=f"deploy.mode is delivery, and {standing.why}",
            remedy="deploy another version; or approve this one again: `mlcicd approve --reason ...`",
        )
    else:
        who, details = approved_by or ", ".join(approvers(record.project.environ, where.name)), {}
    if who:
        return Check(
            name="approval", status=CheckStatus.PASSED, observed=who, required="a person's approval", details=details
        )
    return Check(
        name="approval",
        status=CheckStatus.FAILED,
        required="a person's approval",
        reason=f"deploy.mode is delivery: a person must approve {where.name}, and {standing.why}",
        remedy=f"give the GitHub environment {where.name!r} required reviewers (and the job `actions: read`); "
        "elsewhere `mlcicd approve --reason ...`, or --approved-by NAME; or set deploy.mode: deployment",
    )


def _champion_to_restore(record: Record, registry: Registry, where: Place, version: RegisteredVersion) -> str:
    """The champion that should be live in production and is not: the machine is new, or its state was lost.

    Without it a canary would have nothing to be compared with, and the new version would take all traffic unjudged.
    """
    if not where.production or where.settings.strategy != "canary":
        return ""
    rules = record.project.config.register_
    champion = registry.version_at(version.name, rules.champion_alias)
    return champion.version if champion is not None and champion.version != version.version else ""


def _restore(record: Record, registry: Registry, where: Place, champion: RegisteredVersion) -> None:
    live = champion.version
    record.progress.step(f"nothing is live in {where.name}: bringing the champion, version {live}, up first")
    model = fetched(record, registry, champion)
    admitted(record, model.path, model.digest, "champion")
    where.target.deploy(model)
    where.target.promote(live)


def _smoke_requests(record: Record, where: Place) -> list[SmokeRequest] | None:
    """The golden requests, read before anything is started; None when there are none."""
    if not where.settings.smoke:
        return None
    prepare_data(record, where.settings.smoke)
    return read_smoke(record.project.path(where.settings.smoke, ("deploy", "environments", where.name, "smoke")))


def _bring_up(record: Record, registry: Registry, where: Place, version: RegisteredVersion) -> tuple[str, Path]:
    """Starts a version; gives the URL of its own server, and the model's verified bytes."""
    record.progress.step(f"starting version {version.version} in {where.name}")
    model = fetched(record, registry, version)
    verified = admitted(record, model.path, model.digest, f"version {version.version}")
    # A version that does not come up is taken away by the target itself; what runs already stays as it is.
    return where.target.deploy(model), verified


def _smoke(record: Record, where: Place, url: str, requests: list[SmokeRequest] | None) -> list[Check]:
    if requests is None:
        return [
            Check(
                name="smoke",
                status=CheckStatus.SKIPPED,
                severity=Severity.WARN,
                reason=f"no smoke requests are configured for {where.name}: only readiness was checked",
            )
        ]
    record.progress.step(f"smoke test: {where.settings.smoke}")
    return run_smoke(url, requests, token=token(record.project))


def _switch(record: Record, registry: Registry, where: Place, version: RegisteredVersion, *, live: str) -> None:
    """All traffic at once; then the alias. Where the alias may not move, the traffic goes back."""
    where.target.promote(version.version)
    try:
        _move_alias(record, registry, where, version)
    except MlcicdError:
        if live:
            where.target.rollback()
        else:
            where.target.stop()
        raise


def _move_alias(record: Record, registry: Registry, where: Place, version: RegisteredVersion) -> None:
    """In production the champion alias follows the traffic; elsewhere it is not this environment's."""
    if not where.production:
        return
    rules = record.project.config.register_
    promote(
        registry,
        version.name,
        version.version,
        champion_alias=rules.champion_alias,
        previous_alias=rules.previous_alias,
        expected_champion=version.tags.get(f"{TAG}measured_against", ""),
        reason=f"deployed to {where.name}",
        origin=origin_of(record.project.environ),
    )
