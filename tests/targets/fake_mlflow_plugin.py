"""A plug-in of `mlflow.deployments` whose service is a JSON file: `fake:PATH`. A model is a folder with a `factor`.
`page` in the file is how many deployments a list holds at most.

`fail_at` in the file counts calls down: at zero, the call raises before or after it has done its work (`fail_after`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlflow.deployments import BaseDeploymentClient
from mlflow.exceptions import MlflowException


class Gone(BaseException):
    """Stands for the death of the deploying process: nothing of ours catches it."""


def target_help() -> str:
    return "fake"


def run_local(name: str, model_uri: str, flavor: str | None = None, config: Any = None) -> None:
    raise NotImplementedError


class FakeClient(BaseDeploymentClient):
    def __init__(self, target_uri: str) -> None:
        super().__init__(target_uri)
        self.file = Path(target_uri.partition(":")[2])

    def _called(self, change: Any) -> None:
        """One call that changes something: it may be the one to fail."""
        world = json.loads(self.file.read_text())
        left = world.get("fail_at")
        if left is not None:
            world["fail_at"] = left - 1
        if left == 0 and not world.get("fail_after"):
            self.file.write_text(json.dumps(world))
            raise (Gone if world.get("dies") else MlflowException)("no")
        change(world["deployments"])
        self.file.write_text(json.dumps(world))
        if left == 0:
            raise (Gone if world.get("dies") else MlflowException)("no")

    def create_deployment(self, name, model_uri, flavor=None, config=None, endpoint=None):
        def change(deployments):
            if name in deployments:
                raise MlflowException(f"{name} is there already")
            deployments[name] = {"factor": float(Path(model_uri, "factor").read_text()), "config": config}

        self._called(change)
        return {"name": name, "flavor": flavor}

    def update_deployment(self, name, model_uri=None, flavor=None, config=None, endpoint=None):
        def change(deployments):
            deployments[name]["factor"] = float(Path(model_uri, "factor").read_text())

        self._called(change)
        return {"flavor": flavor}

    def delete_deployment(self, name, config=None, endpoint=None):
        self._called(lambda deployments: deployments.pop(name))

    def list_deployments(self, endpoint=None):
        world = json.loads(self.file.read_text())
        return [{"name": name} for name in list(world["deployments"])[: world.get("page")]]

    def get_deployment(self, name, endpoint=None):
        return json.loads(self.file.read_text())["deployments"][name]

    def predict(self, deployment_name=None, inputs=None, endpoint=None):
        if "x" not in inputs:
            raise MlflowException("there is no x", error_code=1000)
        return inputs["x"].to_numpy() * self.get_deployment(deployment_name)["factor"]
