"""What actions and workflows say of themselves is true, and none of it can be injected into a shell."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ACTIONS = [ROOT / "action.yml", *sorted(ROOT.glob("actions/*/action.yml"))]
WORKFLOWS = sorted((ROOT / "workflows-templates").glob("*.yml"))
SHA = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$")
STEP_OUTPUT = re.compile(r"steps\.([\w-]+)\.outputs\.([\w-]+)")
JOB_OUTPUT = re.compile(r"needs\.([\w-]+)\.outputs\.([\w-]+)")


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def steps_of(path: Path) -> list[dict[str, Any]]:
    document = load(path)
    if "runs" in document:
        return list(document["runs"]["steps"])
    return [step for job in document["jobs"].values() for step in job["steps"]]


def ours(uses: str) -> dict[str, Any] | None:
    """The metadata of one of our own actions, None for another's."""
    if not uses.startswith("mlcicd/mlcicd"):
        return None
    folder = uses.partition("@")[0].removeprefix("mlcicd/mlcicd").strip("/")
    return load(ROOT / folder / "action.yml")


@pytest.mark.parametrize("path", [*ACTIONS, *WORKFLOWS], ids=lambda p: p.parent.name + "/" + p.name)
def test_no_expression_inside_a_script(path: Path) -> None:
    for step in steps_of(path):
        assert "${{" not in step.get("run", "")


@pytest.mark.parametrize("path", ACTIONS, ids=lambda p: p.parent.name)
def test_scripts_end_with_exec_and_take_the_path_from_the_shell(path: Path) -> None:
    """A signal of the runner reaches only the process of the step: ours has to be it."""
    for step in steps_of(path):
        assert step["run"].startswith("exec ")
        assert "$GITHUB_ACTION_PATH/" in step["run"]
    assert "github.action_path" not in path.read_text()


@pytest.mark.parametrize("path", ACTIONS, ids=lambda p: p.parent.name)
def test_every_output_comes_from_a_step_that_is_there(path: Path) -> None:
    document = load(path)
    ids = {step["id"] for step in document["runs"]["steps"]}
    for output in document["outputs"].values():
        assert {step for step, _ in STEP_OUTPUT.findall(output["value"])} <= ids
    assert {"status", "exit-code", "verdict-path", "report-path"} <= set(document["outputs"])


@pytest.mark.parametrize("path", ACTIONS, ids=lambda p: p.parent.name)
def test_every_input_is_handed_on(path: Path) -> None:
    used = set(re.findall(r"inputs\.([\w-]+)", "".join(map(str, steps_of(path)))))
    assert used == set(load(path)["inputs"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_workflows_use_inputs_and_outputs_that_exist(path: Path) -> None:
    jobs = load(path)["jobs"]
    for job in jobs.values():
        by_id = {step["id"]: step for step in job["steps"] if "id" in step}
        for step in job["steps"]:
            action = ours(step.get("uses", ""))
            if action is not None:
                assert set(step.get("with", {})) <= set(action["inputs"]), step["name"]
        text = yaml.safe_dump(job)
        for step_id, output in STEP_OUTPUT.findall(text):
            action = ours(by_id[step_id].get("uses", ""))
            assert action is None or output in action["outputs"], (step_id, output)
        for other, output in JOB_OUTPUT.findall(text):
            assert output in jobs[other]["outputs"], (other, output)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_workflows_keep_the_habits(path: Path) -> None:
    document = load(path)
    assert document["permissions"] == {}
    assert "concurrency" in document
    triggers = document[True]  # YAML 1.1 reads the key `on` so
    assert not {"pull_request_target", "workflow_run"} & set(triggers)
    for name, job in document["jobs"].items():
        assert "timeout-minutes" in job, name
        assert "permissions" in job, name
        if "secrets." in yaml.safe_dump(job):
            assert "environment" in job, f"{name}: a secret outside of an environment"
        for step in job["steps"]:
            if "uses" in step:
                assert SHA.match(step["uses"]), step["uses"]
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
            script = step.get("run", "")
            assert not re.search(r"curl[^|]*\|\s*(ba)?sh", script)
            assert "GITHUB_ENV" not in script
            assert "GITHUB_PATH" not in script
            assert "docker://" not in step.get("uses", "")


def test_generated_files_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "tools/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_templates_are_what_an_organisation_can_copy() -> None:
    import json

    for path in WORKFLOWS:
        properties = json.loads(path.with_suffix(".properties.json").read_text())
        assert {"name", "description", "iconName", "categories", "filePatterns"} <= set(properties)
    assert "$default-branch" in (ROOT / "workflows-templates" / "mlcicd-ci.yml").read_text()
