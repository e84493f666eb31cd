"""MLflow's deployment plug-in `mlcicd`: `mlflow deployments create -t mlcicd ...`.

A deployment is an environment of the project's `mlcicd.yaml`, and what is done to one is what mlcicd does: `create` and
`update` are the stage `deploy`, with its evidence, signature, scan, smoke test and parity. MLflow loads this file by
its entry point; it wants one client class here, and the functions `run_local` and `target_help`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow.deployments import BaseDeploymentClient, PredictionsResponse
from mlflow.exceptions import MlflowException

from mlcicd.config import Project, load_project
from mlcicd.core.errors import ConfigError, InputError, MlcicdError
from mlcicd.core.verdict import Status, Verdict

_MODEL_URI = re.compile(r"models:/([^/@]+)(?:/(\d+)|@([A-Za-z][A-Za-z0-9_-]*))")
_FLAVORS = (None, "", "python_function")
_OPTIONS = ("approved_by", "profile")
_HELP = """\
Deploys registered models with mlcicd.

Target: `mlcicd` for the project in the working folder, which has an mlcicd.yaml; `mlcicd:/path` for another one.
Name: an environment of deploy.environments; it is what a deployment is here.
Model: `models:/NAME/VERSION` or `models:/NAME@ALIAS` of the project's model; nothing else, because only a registered
version has the evidence that lets it through.

Options (-C key=value):
  approved_by  who approved it, where deploy.mode is delivery (or use `mlcicd approve`)
  profile      profile of mlcicd.yaml
  project      with run-local: the project's folder

create and update are `mlcicd deploy`: the version comes up beside the live one, is smoke-tested and compared with the
evaluated model, and has the traffic then, or waits as a canary where the environment's strategy is canary.
delete stops all that runs in the environment.
"""


def target_help() -> str:
    """What `mlflow deployments help -t mlcicd` prints."""
    return _HELP


def run_local(name: str, model_uri: str, flavor: str | None = None, config: Mapping[str, Any] | None = None) -> None:
    """Deploys to an environment of this machine: as `create`, or `update` where something is live.

    Raises:
        MlflowException: as `create_deployment`.
    """
    options = dict(config or {})
    client = MlcicdDeploymentClient(f"mlcicd:{options.pop('project', '')}")
    client.deploy(name, model_uri, flavor, options)


class MlcicdDeploymentClient(BaseDeploymentClient):  # type: ignore[misc]
    """Environments of one project as MLflow's deployments.

    Args:
        target_uri: `mlcicd`, or `mlcicd:PATH` with the project's folder.
    """

    def __init__(self, target_uri: str) -> None:
        super().__init__(target_uri)
        self._folder = Path(target_uri.partition(":")[2] or ".")

    def create_deployment(
        self,
        name: str,
        model_uri: str,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Deploys a registered version to an environment where nothing is live.

        Returns:
            `name`, `flavor`, `version`, `url`, `strategy` and `summary`.

        Raises:
            MlflowException: something is live there, the version was refused, or it did not come up; with the reasons.
        """
        _no_endpoint(endpoint)
        with _as_mlflow():
            live = self._status(self._project(config), name)["live"]
        if live:
            raise MlflowException(
                f"version {live} is live in {name}: update the deployment instead", error_code=_code("EXISTS")
            )
        return self.deploy(name, model_uri, flavor, config)

    def update_deployment(
        self,
        name: str,
        model_uri: str | None = None,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Deploys another version, or the one with `register.alias`, beside the live one.

        Raises:
            MlflowException: nothing is live there; or as `create_deployment`.
        """
        _no_endpoint(endpoint)
        self._deployed(name, config)
        return self.deploy(name, model_uri or "", flavor, config)

    def delete_deployment(
        self, name: str, config: Mapping[str, Any] | None = None, endpoint: str | None = None
    ) -> None:
        """Stops everything that runs in an environment; nothing when nothing does."""
        _no_endpoint(endpoint)
        with _as_mlflow():
            from mlcicd.stages.places import place

            place(self._project(config), _named(name)).target.stop()

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """The environments in which a version is live, in the order of the configuration."""
        _no_endpoint(endpoint)
        with _as_mlflow():
            project = self._project()
            every = [self._status(project, name) for name in project.config.deploy.environments]
        return [status for status in every if status["live"]]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """What runs in an environment: `name`, `flavor`, `live`, `canary`, `share`, `previous`, `healthy`, `url`.

        Raises:
            MlflowException: there is no such environment, or nothing is live in it.
        """
        _no_endpoint(endpoint)
        return self._deployed(name)

    def predict(
        self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None
    ) -> PredictionsResponse:
        """Asks what is live in an environment.

        Args:
            inputs: a DataFrame; a body of MLflow's scoring protocol; or a mapping of columns, an array or a list,
                sent as `inputs`.

        Raises:
            MlflowException: nothing is live there, or the server did not answer 200.
        """
        _no_endpoint(endpoint)
        import requests

        from mlcicd.stages.places import token

        with _as_mlflow():
            secret = token(self._project())
        url = self.get_deployment(_named(deployment_name))["url"]
        with requests.Session() as session:
            # A proxy of the environment has no business between us and the environment's own endpoint.
            session.trust_env = False
            try:
                answer = session.post(
                    f"{url}/invocations",
                    data=json.dumps(_body(inputs)),
                    headers={
                        "content-type": "application/json",
                        **({"authorization": f"Bearer {secret}"} if secret else {}),
                    },
                    timeout=60,
                )
            except requests.RequestException as error:
                raise MlflowException(f"{deployment_name} does not answer: {error}") from error
        if answer.status_code != 200:
            code = _code("INVALID") if answer.status_code == 400 else _code("INTERNAL")
            raise MlflowException(
                f"{deployment_name} answered {answer.status_code}: {answer.text[:500]}", error_code=code
            )
        return PredictionsResponse.from_json(answer.text)

    def deploy(self, name: str, model_uri: str, flavor: str | None, config: Mapping[str, Any] | None) -> dict[str, Any]:
        """Runs the stage `deploy`, whatever is live.

        Args:
            model_uri: as `create_deployment`; empty for the version with `register.alias`.
        """
        if flavor not in _FLAVORS:
            raise MlflowException(f"the flavor {flavor!r} is not served", error_code=_code("INVALID"))
        options = dict(config or {})
        with _as_mlflow():
            from mlcicd.stages.deploy import deploy

            project = self._project(options)
            version = _version(project, model_uri) if model_uri else ""
            verdict = deploy(
                project,
                environment=_named(name),
                model_version=version,
                approved_by=str(options.get("approved_by", "")),
            )
        if verdict.status not in (Status.PASSED, Status.SKIPPED):
            raise MlflowException(_why(verdict), error_code=_code("INVALID"))
        return {
            "name": name,
            "flavor": "python_function",
            "version": verdict.outputs["model-version"],
            "url": verdict.outputs.get("url", ""),
            "strategy": verdict.outputs.get("strategy", ""),
            "summary": verdict.summary,
        }

    def _project(self, config: Mapping[str, Any] | None = None) -> Project:
        options = dict(config or {})
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown:
            raise ConfigError(f"unknown option {unknown[0]!r}", remedy=f"known: {', '.join(_OPTIONS)}")
        return load_project(self._folder, environ=dict(os.environ), profile=str(options.get("profile", "")))

    def _deployed(self, name: str, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
        with _as_mlflow():
            status = self._status(self._project(config), name)
        if not status["live"]:
            raise MlflowException(f"nothing is deployed to {name}", error_code=_code("MISSING"))
        return status

    def _status(self, project: Project, name: str) -> dict[str, Any]:
        from mlcicd.stages.history import environment_state

        return {"name": _named(name), "flavor": "python_function", **environment_state(project, _named(name))}


def _named(name: str | None) -> str:
    # An empty name is the last environment elsewhere; here a deployment has one.
    if not name:
        raise ConfigError("a deployment has the name of an environment", remedy="give --name")
    return name


def _version(project: Project, uri: str) -> str:
    """The version that a URI of the project's own registered model names."""
    match = _MODEL_URI.fullmatch(uri)
    if match is None:
        raise ConfigError(f"{uri!r} is no registered version", remedy="give models:/NAME/VERSION or models:/NAME@ALIAS")
    name, version, alias = match.groups()
    if name != project.config.model.name:
        raise ConfigError(f"{uri!r} is not a version of this project's model, {project.config.model.name!r}")
    if version:
        return str(version)
    from mlcicd.stages.common import registry_of

    found = registry_of(project).version_at(name, alias)
    if found is None:
        raise InputError(f"no version of {name!r} carries the alias {alias!r}")
    return found.version


def _body(inputs: Any) -> dict[str, Any]:
    """A request of MLflow's scoring protocol."""
    if hasattr(inputs, "to_json") and hasattr(inputs, "columns"):
        split = json.loads(inputs.to_json(orient="split", date_format="iso", double_precision=15))
        return {"dataframe_split": {"columns": split["columns"], "data": split["data"]}}
    known = ("dataframe_split", "dataframe_records", "instances", "inputs")
    if isinstance(inputs, Mapping) and any(key in inputs for key in known):
        return dict(inputs)
    if isinstance(inputs, Mapping):
        return {"inputs": {key: v.tolist() if hasattr(v, "tolist") else v for key, v in inputs.items()}}
    return {"inputs": inputs.tolist() if hasattr(inputs, "tolist") else inputs}


def _why(verdict: Verdict) -> str:
    """What was refused and what to do, as one message."""
    said = [verdict.summary]
    error = verdict.details.get("error") or {}
    said += [str(error[key]) for key in ("why", "remedy") if error.get(key)]
    said += [
        f"{c.name}: {c.reason}; {c.remedy}" for c in verdict.checks if c.status == "failed" and c.severity == "fail"
    ]
    return "\n".join(dict.fromkeys(part for part in said if part))


def _no_endpoint(endpoint: str | None) -> None:
    if endpoint:
        raise MlflowException("there are no endpoints here: name an environment", error_code=_code("INVALID"))


def _code(kind: str) -> int:
    from mlflow.protos import databricks_pb2 as codes

    found: int = {
        "EXISTS": codes.RESOURCE_ALREADY_EXISTS,
        "MISSING": codes.RESOURCE_DOES_NOT_EXIST,
        "INVALID": codes.INVALID_PARAMETER_VALUE,
        "INTERNAL": codes.INTERNAL_ERROR,
    }[kind]
    return found


@contextmanager
def _as_mlflow() -> Iterator[None]:
    """Errors of ours as MLflow's, which its command line shows."""
    try:
        yield
    except MlcicdError as error:
        code = _code("INVALID" if isinstance(error, ConfigError | InputError) else "INTERNAL")
        raise MlflowException(f"{error.one_line()}\n{error.detail()}".strip(), error_code=code) from error
