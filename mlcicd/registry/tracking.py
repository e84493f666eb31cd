"""Runs, artifacts and model versions on an MLflow tracking server."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mlcicd.core.digests import digest_json, digest_tree
from mlcicd.core.errors import InputError, ServiceError, redact
from mlcicd.registry.connection import AGAIN, TAG, not_there, quoted, tag_value
from mlcicd.registry.models import RegisteredModels

__all__ = ["DEFAULT_LEASE_S", "TAG", "RegisteredVersion", "Registry", "checked_digest", "content_digest"]

DEFAULT_LEASE_S = 6.0
_MODEL_PATH = "model"
# A listing that was cut short on its way leaves files out, as a changed artifact would: it is asked for once more.
_DOWNLOADS = 2
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model, as the registry knows it."""

    name: str
    version: str
    run_id: str
    source: str
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Digest of the model directory, as it was when it was registered; empty when we did not register it."""
        return checked_digest(self.tags.get(f"{TAG}model_digest", ""))

    @property
    def content(self) -> str:
        """What makes two registrations the same: model, data, code and configuration."""
        return self.tags.get(f"{TAG}content", "")


class Registry(RegisteredModels):
    """One tracking server.

    Args:
        uri: MLflow tracking URI.
        experiment: experiment that runs are kept in; made when it is not there.
        artifact_location: where a new experiment keeps its artifacts; None leaves it to the server.
        lease_s: how long the lock of a model outlives the last sign of life of its holder, in seconds.
    """

    def __init__(
        self,
        uri: str,
        *,
        experiment: str = "Default",
        artifact_location: str | None = None,
        lease_s: float = DEFAULT_LEASE_S,
    ) -> None:
        super().__init__(uri)
        self.lease_s = lease_s
        self.experiment = experiment
        self.artifact_location = artifact_location

    # --- runs

    def start_run(self, name: str, tags: Mapping[str, str]) -> str:
        """Makes a run and gives its id."""
        with self._talking("make a run"):
            run = self._client.create_run(
                self._experiment_id, run_name=name, tags={k: tag_value(v) for k, v in tags.items()}
            )
        return str(run.info.run_id)

    def finish_run(self, run_id: str, status: str, *, metrics: Mapping[str, float] | None = None) -> None:
        """Ends a run as FINISHED, FAILED or KILLED."""
        with self._talking("end the run"):
            for key, value in (metrics or {}).items():
                self._client.log_metric(run_id, key, value)
            self._client.set_terminated(run_id, status)

    def run_tags(self, run_id: str) -> dict[str, str]:
        with self._talking("read the run"):
            return dict(self._client.get_run(run_id).data.tags)

    def run_params(self, run_id: str) -> dict[str, str]:
        with self._talking("read the run"):
            return dict(self._client.get_run(run_id).data.params)

    def run_metrics(self, run_id: str) -> dict[str, float]:
        """The last value of each metric of a run."""
        with self._talking("read the run"):
            return dict(self._client.get_run(run_id).data.metrics)

    def tag_run(self, run_id: str, tags: Mapping[str, str]) -> None:
        with self._talking("tag the run"):
            for key, value in tags.items():
                self._client.set_tag(run_id, key, tag_value(value))

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Records parameters; those that the user's own program logged already are left as they are."""
        from mlflow.entities import Param

        with self._talking("record the parameters"):
            known = self._client.get_run(run_id).data.params
            new = [Param(k, redact(v)[:6000]) for k, v in params.items() if k not in known]
            for start in range(0, len(new), 100):
                self._client.log_batch(run_id, params=new[start : start + 100])

    def find_finished_run(self, tags: Mapping[str, str]) -> str:
        """The newest finished run of the experiment with these tags; empty when there is none."""
        conditions = " and ".join(f"tags.`{key}` = '{quoted(value)}'" for key, value in tags.items())
        with self._talking("search the runs"):
            runs = self._client.search_runs(
                [self._experiment_id],
                f"{conditions} and attributes.status = 'FINISHED'",
                max_results=1,
                order_by=["attributes.start_time DESC"],
            )
        return str(runs[0].info.run_id) if runs else ""

    def running_runs(self, tags: Mapping[str, str]) -> list[str]:
        """The runs of the experiment with these tags that have not ended."""
        conditions = " and ".join(f"tags.`{key}` = '{quoted(value)}'" for key, value in tags.items())
        with self._talking("search the runs"):
            runs = self._client.search_runs(
                [self._experiment_id], f"{conditions} and attributes.status = 'RUNNING'", max_results=100
            )
        return [str(run.info.run_id) for run in runs]

    # --- artifacts

    def log_model(self, run_id: str, folder: Path) -> None:
        """Uploads a model directory into the run."""
        with self._talking("upload the model"):
            self._client.log_artifacts(run_id, str(folder), _MODEL_PATH)

    def log_text(self, run_id: str, text: str, name: str) -> None:
        with self._talking(f"upload {name}"):
            self._client.log_text(run_id, text, name)

    def read_text(self, run_id: str, name: str) -> str | None:
        """A text artifact of a run; None when the run has none of that name."""
        with self._talking(f"download {name}"):
            folder, _, _file = name.rpartition("/")
            listed = self._client.list_artifacts(run_id, folder or None)
            if name not in {item.path for item in listed}:
                return None
            with tempfile.TemporaryDirectory() as temporary:
                return Path(self._client.download_artifacts(run_id, name, temporary)).read_text(encoding="utf-8")

    def fetch_model(self, run_id: str, cache: Path, *, digest: str) -> Path:
        """The run's model directory, downloaded into `cache` once, and proven to be what was recorded.

        Raises:
            InputError: what was downloaded is not what `digest` says, or there is no model.
            ServiceError: the server can not be reached.
        """
        if not checked_digest(digest):
            raise InputError(
                f"{digest[:80]!r} is not a digest of a model",
                where=f"run {run_id}",
                remedy="train and register again",
            )
        target = cache / digest.replace(":", "-")
        if target.is_dir():
            if digest_tree(target) == digest:
                return target
            shutil.rmtree(target)
        cache.mkdir(parents=True, exist_ok=True)
        for _attempt in range(_DOWNLOADS):
            with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as temporary:
                folder = self._downloaded_model(run_id, temporary)
                found = digest_tree(folder)
                if found == digest:
                    folder.rename(target)
                    return target
        raise InputError(
            "the model in the registry is not the one that was recorded",
            where=f"run {run_id}",
            why=f"Its digest is {found}; recorded was {digest}.",
            remedy="someone changed the artifact, or its upload was cut short: train and register again",
        )

    def _downloaded_model(self, run_id: str, folder: str) -> Path:
        with self._talking("download the model"):
            listed = {item.path for item in self._client.list_artifacts(run_id)}
            if _MODEL_PATH not in listed:
                raise InputError(
                    "the run has no model artifact",
                    where=f"run {run_id}",
                    remedy="train again; the run was stopped before its model was uploaded",
                )
            return Path(self._client.download_artifacts(run_id, _MODEL_PATH, folder))

    # --- versions

    def version_at(self, name: str, alias: str) -> RegisteredVersion | None:
        """The version an alias names; None when the model, or the alias, is not there."""
        from mlflow.exceptions import MlflowException

        with self._talking(f"read {name}@{alias}"):
            try:
                return _version(self._client.get_model_version_by_alias(name, alias))
            except MlflowException as error:
                if not_there(error):
                    return None
                raise

    def version(self, name: str, version: str) -> RegisteredVersion:
        from mlflow.exceptions import MlflowException

        with self._talking(f"read {name} {version}"):
            try:
                return _version(self._client.get_model_version(name, version))
            except MlflowException as error:
                if not_there(error):
                    raise InputError(
                        f"there is no version {version} of the model {name!r}",
                        where=redact(self.uri),
                        remedy="run `mlcicd register` first, or name a version that exists",
                    ) from error
                raise

    def versions(self, name: str) -> list[RegisteredVersion]:
        """All versions of a model, oldest first."""
        found: list[RegisteredVersion] = []
        token = None
        with self._talking(f"list the versions of {name}"):
            while True:
                page = self._client.search_model_versions(f"name = '{quoted(name)}'", max_results=200, page_token=token)
                found += [_version(item) for item in page]
                token = page.token
                if not token:
                    return sorted(found, key=lambda v: int(v.version))

    def create_version(self, name: str, run_id: str, tags: Mapping[str, str]) -> RegisteredVersion:
        """Makes a version of the run's model, with all its tags at once: there is never an untagged version."""
        self.create_model(name, {})
        with self._talking(f"register {name}"):
            made = self._client.create_model_version(
                name, f"runs:/{run_id}/{_MODEL_PATH}", run_id, tags={k: tag_value(v) for k, v in tags.items()}
            )
        return _version(made)

    def tag_version(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        with self._talking(f"tag {name} {version}"):
            for key, value in tags.items():
                self._client.set_model_version_tag(name, version, key, tag_value(value))

    def untag_version(self, name: str, version: str, key: str) -> None:
        with self._talking(f"tag {name} {version}"):
            self._client.delete_model_version_tag(name, version, key)

    def delete_version(self, name: str, version: str) -> None:
        """Deletes a version; nothing when there is none."""
        from mlflow.exceptions import MlflowException

        with self._talking(f"delete {name} {version}"):
            try:
                self._client.delete_model_version(name, version)
            except MlflowException as error:
                if not not_there(error):
                    raise

    # --- inside

    @cached_property
    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(self.experiment, self.artifact_location))
            except MlflowException as error:
                # Another process made it in between.
                found = self._client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise error
        return str(found.experiment_id)


def checked_digest(text: str) -> str:
    """The text if it is a digest, else nothing: it becomes the name of a folder."""
    return text if _DIGEST.fullmatch(text) else ""


def content_digest(*, model: str, data: str, config: str, code: str) -> str:
    """What makes two registrations the same one: the same model bytes, data, configuration and code."""
    return digest_json({"model": model, "data": data, "config": config, "code": code})


def _version(item: Any) -> RegisteredVersion:
    if not item.name or not str(item.version).isdigit():
        # A proxy's `{}` with status 200 reads as a version without a number.
        raise ServiceError("the registry answered with something else than a model version", remedy=AGAIN)
    return RegisteredVersion(
        name=item.name,
        version=str(item.version),
        run_id=item.run_id or "",
        source=item.source,
        tags=dict(item.tags or {}),
        aliases=tuple(item.aliases or ()),
    )
