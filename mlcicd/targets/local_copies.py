"""Copies of models in a local target's state folder: what is verified is what is served, also after the CI job."""

from __future__ import annotations

import shutil
from pathlib import Path

from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import InputError, ServiceError
from mlcicd.targets.base import ModelVersion
from mlcicd.targets.state import DeployedVersion


def copy_verified(version: ModelVersion, digest: str, goal: Path) -> None:
    """Copies a model to `goal`, which is there whole and with that digest, or not at all.

    Raises:
        InputError: it is not an MLflow model, or the copy's bytes are not those of the digest.
        ServiceError: it can not be copied.
    """
    partial = goal.with_name(f"{goal.name}.partial")
    for leftover in (goal, partial):
        if leftover.exists():
            shutil.rmtree(leftover)
    if not (version.path / "MLmodel").is_file():
        raise InputError(
            "not an MLflow model: there is no MLmodel file",
            where=str(version.path),
            remedy="the model server serves MLflow models: save it with mlflow.<flavour>.save_model",
        )
    try:
        shutil.copytree(version.path, partial)
    except (OSError, shutil.Error) as error:
        raise ServiceError("the model could not be copied", where=str(partial), why=str(error)) from error
    found = digest_tree(partial)
    if found != digest:
        shutil.rmtree(partial)
        raise InputError(
            f"version {version.version} is not the model that was registered",
            where=str(version.path),
            why=f"Its digest is {found}, the registered one {digest}.",
            remedy="fetch it from the registry again; do not deploy it",
        )
    partial.rename(goal)


def check_same(held: DeployedVersion, version: ModelVersion) -> None:
    """Nothing, where a version that is deployed is asked for again.

    Raises:
        InputError: it is deployed with another name or other bytes.
    """
    digest = version.digest or digest_tree(version.path)
    if (held.name, held.digest) != (version.name, digest):
        raise InputError(
            f"version {version.version} is already deployed here as another model",
            where=str(version.path),
            why=f"Deployed: {held.name} {held.digest}; asked for: {version.name} {digest}.",
            remedy="register other bytes as a new version",
        )
