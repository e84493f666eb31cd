"""A registered version that is used beside the pipeline, verified as `deploy` verifies it."""

from __future__ import annotations

from pathlib import Path

from mlcicd.config import Project
from mlcicd.core.errors import ConfigError, InputError, redact
from mlcicd.core.verdict import Status, conclude
from mlcicd.registry import RegisteredVersion, Registry
from mlcicd.stages.common import registry_of, version_evidence
from mlcicd.stages.places import fetched
from mlcicd.stages.record import Record
from mlcicd.stages.supply import admitted
from mlcicd.stages.supply_signing import signature_checks


def verified_version(record: Record, model_version: str, alias: str) -> tuple[RegisteredVersion, Path | None]:
    """The version that is asked for, the champion when nothing is; and its model's bytes, safe to load.

    The bytes are None where its evidence or its signature does not hold: the record's checks say why.

    Raises:
        ConfigError: both a version and an alias are given.
        InputError: there is no such version, or its bytes are not those that were registered.
        CommandFailed: the scan refused it.
    """
    project = record.project
    registry = registry_of(project)
    version = _version(project, registry, model_version, alias)
    record.subject("version", version.name, f"version:{version.version}", run=version.run_id)
    record.subject("model", "candidate", version.digest)
    record.outputs["model-version"] = version.version
    record.checks += [version_evidence(project, registry, version), *signature_checks(project, registry, version)]
    if conclude(record.checks) is Status.FAILED:
        return version, None
    model = fetched(record, registry, version)
    return version, admitted(record, model.path, model.digest, f"version {version.version}")


def _version(project: Project, registry: Registry, wanted: str, alias: str) -> RegisteredVersion:
    name = project.config.model.name
    if wanted and alias:
        raise ConfigError("--model-version and --alias name two versions", remedy="give one of them")
    if wanted:
        return registry.version(name, wanted)
    alias = alias or project.config.register_.champion_alias
    found = registry.version_at(name, alias)
    if found is None:
        raise InputError(
            f"no version of {name!r} carries the alias {alias!r}",
            where=redact(registry.uri),
            remedy="deploy or promote a version first, or name one with --model-version or --alias",
        )
    return found
