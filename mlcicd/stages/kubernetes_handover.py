"""Manifests of a registered version for a controller that moves the traffic itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mlcicd.config import FILE_NAME, Project, seconds
from mlcicd.core.errors import CommandFailed, ConfigError, InputError
from mlcicd.core.files import write_atomic
from mlcicd.core.progress import SILENT
from mlcicd.core.verdict import Status, conclude
from mlcicd.registry import RegisteredVersion
from mlcicd.registry.approvals import standing_approval
from mlcicd.registry.tracking import TAG
from mlcicd.rollout.asked import withdraw
from mlcicd.stages.canary_asked import Subject
from mlcicd.stages.canary_ground import RegistryLedger, TaggingLedger, store_of
from mlcicd.stages.common import peak_memory, registry_of, version_evidence
from mlcicd.stages.places import Place, place, version_to_deploy
from mlcicd.stages.record import Record
from mlcicd.stages.supply_signing import signature_checks
from mlcicd.targets.base import ModelVersion, TargetStatus
from mlcicd.targets.kubernetes import KubernetesTarget
from mlcicd.targets.kubernetes.controllers import Controller, Judgement, written


@dataclass(frozen=True)
class HandedOver:
    """What was written.

    Attributes:
        version, champion: of the model; no champion when it is the first one.
        files: paths, as written.
        forgetful: the judge's state is kept where its pod ends with it.
    """

    version: str
    champion: str
    files: tuple[Path, ...]
    forgetful: bool


def hand_over(
    project: Project,
    controller: Controller,
    output: Path,
    *,
    environment: str = "",
    model_version: str = "",
    asked: Judgement,
) -> HandedOver:
    """Writes one file an object into a folder; files of these names are replaced, and others left alone.

    Args:
        environment: one whose target is `kubernetes`; the last one when empty.
        model_version: version in the registry; the one with `register.alias` when empty.
        asked: how and where the judge is; champion, steps and times are taken from the project.

    Raises:
        CommandFailed: the version's evidence does not let it through, or nobody has approved it.
        ConfigError: the environment is in no cluster, or the canary can not be judged this way.
        InputError: there is no such version, or it was measured against another champion than that of now.
    """
    config = project.config
    record = Record(project, "kubernetes", dry_run=False, progress=SILENT)
    where, registry = place(project, environment), registry_of(project)
    if not isinstance(where.target, KubernetesTarget):
        raise ConfigError(
            f"the target of {where.name} is {where.settings.target!r}, and these manifests are for a cluster",
            file=FILE_NAME,
            line=project.document.line(("deploy", "environments", where.name)),
            remedy="set `target: kubernetes` with its options",
        )
    version = version_to_deploy(record, registry, model_version)
    if not version.digest:
        raise InputError(f"version {version.version} was not registered by mlcicd: its bytes can not be verified")
    checks = [version_evidence(project, registry, version), *signature_checks(project, registry, version)]
    if conclude(checks) is Status.FAILED:
        failed = next(check for check in checks if check.status == "failed")
        raise CommandFailed(f"{failed.name}: {failed.reason}", remedy=failed.remedy)
    _approved(project, where, version)
    live = registry.version_at(version.name, config.register_.champion_alias)
    champion, measured = live.version if live else "", version.tags.get(f"{TAG}measured_against", "")
    if champion not in (measured, version.version):
        raise InputError(
            f"the champion is version {champion or 'none'}, and version {version.version} was measured against "
            f"version {measured or 'none'}",
            remedy="evaluate and register again against the champion of now",
        )
    settings = config.canary
    if measured and settings.source == "router":
        raise ConfigError(
            "the judge needs counts: a controller's router is not ours to ask",
            file=FILE_NAME,
            line=project.document.line(("canary",)),
            remedy="set `canary.source: prometheus`, and tell where it is",
        )
    # An attempt becomes part of addresses, as versions do.
    Subject(version.version, measured or "none", asked.attempt)
    judgement = replace(
        asked,
        # A champion's own manifests stay as they were when it came.
        champion=measured,
        percents=tuple(settings.steps),
        interval_s=seconds(settings.window),
        max_duration_s=seconds(settings.max_duration),
        patience_s=seconds(settings.no_data_timeout),
    )
    meant = ModelVersion(version.name, version.version, Path(), version.digest, "", peak_memory(registry, version))
    objects = where.target.handed_over(controller, meant, judgement)
    output.mkdir(parents=True, exist_ok=True)
    files = []
    for name, one in objects.items():
        write_atomic(output / name, written(one))
        files.append(output / name)
    return HandedOver(
        version.version, measured, tuple(files), forgetful=bool(asked.image) and settings.state == "target"
    )


def _approved(project: Project, where: Place, version: RegisteredVersion) -> None:
    """Production's manifests are written of an approved version only, where `deploy.mode` is `delivery`."""
    standing = standing_approval(version, where.name)
    if where.production and project.config.deploy.mode == "delivery" and standing.approval is None:
        raise CommandFailed(
            f"a person must approve version {version.version} for {where.name}: {standing.why}",
            remedy="`mlcicd approve --reason ...`, or set deploy.mode: deployment",
        )


@dataclass(frozen=True)
class Withdrawn:
    """What the registry says now.

    Attributes:
        champion: its version; empty when there is none.
        warnings: why git has no tag of it, where `register.git_tags` asks for one.
    """

    champion: str
    warnings: tuple[str, ...] = ()


def withdrawn(project: Project, *, environment: str = "", model_version: str, reason: str) -> Withdrawn:
    """The controller went back to the version before a promoted one: the registry follows, and git where it is to have
    tags. It moves no traffic.

    Args:
        model_version: the version that was taken back.
        reason: recorded in the registry.

    Raises:
        InputError: there is no such version, or no version before it.
    """
    where, registry = place(project, environment), registry_of(project)
    version = registry.version(project.config.model.name, model_version)
    measured = version.tags.get(f"{TAG}measured_against", "")
    record = Record(project, "kubernetes", dry_run=False, progress=SILENT)
    ledger = (
        TaggingLedger(record, registry, where, version, measured)
        if measured
        else RegistryLedger(project, registry, where, version)
    )

    def tell() -> None:
        ledger.withdrawn(version.version, reason)

    if measured:
        # Where the judge keeps what it knows of this version: asked about it again, it must not let it through.
        status = TargetStatus(where.name, "", measured, version.version, None, 0.0)
        withdraw(store_of(project, registry, where, status), version.version, reason, tell)
    else:
        tell()
    champion = registry.version_at(version.name, project.config.register_.champion_alias)
    return Withdrawn(champion.version if champion else "", tuple(f"{c.name}: {c.reason}" for c in record.checks))
