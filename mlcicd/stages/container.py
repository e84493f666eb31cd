"""What an image of a registered version is built from: only of one that its evidence lets through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mlcicd.config import Project
from mlcicd.core.errors import CommandFailed, InputError, redact
from mlcicd.core.progress import SILENT
from mlcicd.core.verdict import Status, conclude
from mlcicd.stages.common import registry_of, version_evidence
from mlcicd.stages.places import fetched
from mlcicd.stages.record import Record
from mlcicd.stages.supply import admitted
from mlcicd.stages.supply_signing import signature_checks
from mlcicd.targets.container import Context, write_context


def container_context(
    project: Project, output: Path, *, model_version: str = "", base: str = "", requirements: Path | None = None
) -> Context:
    """Writes the folder that an image of a version is built from.

    Args:
        output: a folder that is not there yet, or empty.
        model_version: version in the registry; the one with `register.alias` when empty.
        base: base image; by the model when empty.
        requirements: lock file with hashes.

    Raises:
        CommandFailed: its evidence does not let it through, or the scan of its files.
        InputError: there is no such version, or its bytes are not the registered ones.
    """
    registry, config = registry_of(project), project.config
    name, alias = config.model.name, config.register_.alias
    version = registry.version(name, model_version) if model_version else registry.version_at(name, alias)
    if version is None or not version.digest:
        raise InputError(
            f"no version of {name!r} that was registered by mlcicd is meant",
            where=redact(registry.uri),
            remedy="run `mlcicd register` first, or name a version with --model-version",
        )
    checks = [version_evidence(project, registry, version), *signature_checks(project, registry, version)]
    if conclude(checks) is Status.FAILED:
        failed = next(check for check in checks if check.status == "failed")
        raise CommandFailed(f"{failed.name}: {failed.reason}", remedy=failed.remedy)
    # As deploy does: from where it deploys from, and of nothing that the scan has not let through.
    record = Record(project, "container", dry_run=False, progress=SILENT)
    model = fetched(record, registry, version)
    sealed = admitted(record, model.path, model.digest, f"version {version.version}")
    return write_context(replace(model, path=sealed), output, base=base, requirements=requirements)
