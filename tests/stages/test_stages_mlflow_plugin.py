"""`mlflow deployments -t mlcicd`: MLflow's own command line and client, with real servers behind them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow.deployments import BaseDeploymentClient, get_deploy_client
from mlflow.deployments.cli import commands
from mlflow.deployments.interface import plugin_store
from mlflow.exceptions import MlflowException

from mlcicd.core.verdict import Status
from mlcicd.stages import register
from mlcicd.stages.places import place

from .conftest import change, project_at

pytestmark = pytest.mark.slow
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture
def target(evaluated: Path) -> Iterator[str]:
    verdict = register(project_at(evaluated))
    assert verdict.status is Status.PASSED, verdict
    # A source checkout has no metadata of its own: what an installed package's entry point says is said here.
    points = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]["mlflow.deployments"]
    plugin_store.register("mlcicd", points["mlcicd"])
    yield f"mlcicd:{evaluated}"
    place(project_at(evaluated), "production").target.stop()
    plugin_store.registry.pop("mlcicd")


def run(*arguments: str) -> str:
    done = CliRunner().invoke(commands, list(arguments))
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_mlflows_command_line(target: str, tmp_path: Path) -> None:
    assert "approved_by" in run("help", "-t", target)
    assert "deployments:\n[]" in run("list", "-t", target)
    made = run("create", "-t", target, "--name", "production", "-m", "models:/tiny@challenger")
    assert "python_function deployment production is created" in made
    said = run("get", "-t", target, "--name", "production")
    assert "live: 1" in said
    assert "healthy: True" in said
    rows = pd.DataFrame({"a": [3.0, -3.0], "b": [0.0, 0.0]})
    rows.to_json(tmp_path / "rows.json", orient="records")
    answered = run("predict", "-t", target, "--name", "production", "-I", str(tmp_path / "rows.json"))
    (up, down) = json.loads(answered)["predictions"]
    assert up[1] > 0.9
    assert down[1] < 0.1

    client = get_deploy_client(target)
    assert isinstance(client, BaseDeploymentClient)
    assert client.predict("production", rows).get_predictions().shape == (2, 2)
    assert client.predict("production", {"a": [3.0], "b": [0.0]})["predictions"] == [up]
    with pytest.raises(MlflowException, match="version 1 is live in production: update"):
        client.create_deployment("production", "models:/tiny/1")
    assert client.update_deployment("production", "models:/tiny/1")["summary"].startswith("version 1 already has")
    with pytest.raises(MlflowException, match="answered 400"):
        client.predict("production", {"nothing": [1.0]})
    assert "is deleted" in run("delete", "-t", target, "--name", "production")
    client.delete_deployment("production")
    assert client.list_deployments() == []
    with pytest.raises(MlflowException, match="nothing is deployed to production"):
        client.get_deployment("production")


def test_what_deploy_refuses_is_refused(target: str) -> None:
    client = get_deploy_client(target)
    root = Path(target.partition(":")[2])
    for uri, words in (
        ("runs:/1234/model", "no registered version"),
        ("models:/other/1", "not a version of this project's model"),
        ("models:/tiny/9", "there is no version 9"),
        ("models:/tiny@nobody", "carries the alias 'nobody'"),
    ):
        with pytest.raises(MlflowException, match=words):
            client.create_deployment("production", uri)
    with pytest.raises(MlflowException, match="no environment 'prodution'; did you mean 'production'"):
        client.create_deployment("prodution", "models:/tiny/1")
    with pytest.raises(MlflowException, match="unknown option 'colour'"):
        client.create_deployment("production", "models:/tiny/1", config={"colour": "red"})
    with pytest.raises(MlflowException, match="flavor 'onnx' is not served"):
        client.create_deployment("production", "models:/tiny/1", flavor="onnx")
    # An environment that a profile alone knows.
    with (root / "mlcicd.yaml").open("a") as file:
        file.write("profiles:\n  eu:\n    deploy: {environments: {europe: {target: local}}}\n")
    with pytest.raises(MlflowException, match="nothing is deployed to europe"):
        client.update_deployment("europe", "models:/tiny/1", config={"profile": "eu"})
    change(root / "mlcicd.yaml", "mode: deployment", "mode: delivery")
    with pytest.raises(MlflowException, match="a person must approve production"):
        client.create_deployment("production", "models:/tiny/1")
    assert client.list_deployments() == []
