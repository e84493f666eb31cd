"""What an image of a registered version is built from: only of one that its evidence lets through."""

from __future__ import annotations

from pathlib import Path

from mlcicd.config import Project
from mlcicd.core.errors import CommandFailed, InputError, redact
from mlcicd.core.verdict import Status, conclude
from mlcicd.stages.common import registry_of, version_evidence
from mlcicd.stages.supply_evidence import signature_checks
from mlcicd.targets.base import ModelVersion
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
        CommandFailed: its evidence does not let it through.
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
    path = registry.fetch_model(version.run_id, project.model_cache, digest=version.digest)
    model = ModelVersion(version.name, version.version, path, version.digest, project.python)
    return write_context(model, output, base=base, requirements=requirements)
