"""What the configuration asks of the servers, and the token that requests to them carry."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlcicd.config import load_project
from mlcicd.core.errors import ConfigError
from mlcicd.stages.places import place, token

BASE = """\
version: 1
model: {name: toy, task: binary}
data: {train: t.parquet, holdout: h.parquet, target: y}
train: {run: python t.py}
"""


def _project(tmp_path: Path, deploy: str, **environ: str):
    (tmp_path / "mlcicd.yaml").write_text(f"{BASE}deploy:\n  {deploy}\n")
    return load_project(tmp_path, environ={"HOME": str(tmp_path), **environ})


def test_the_log_and_the_token_reach_the_servers(tmp_path):
    project = _project(tmp_path, "token_env: TOY_TOKEN\n  inference_log: {sample: 0.5, redact: [ssn]}", TOY_TOKEN="s3")
    settings = place(project, "").target._settings
    assert settings.token_env == "TOY_TOKEN"
    assert settings.inference_log == {"sample": 0.5, "redact": ["ssn"], "max_mb": 100.0, "keep": 5}
    assert token(project) == "s3"


def test_nothing_is_asked_of_a_target_when_nothing_is_configured(tmp_path):
    project = _project(tmp_path, "mode: delivery")
    assert place(project, "").target._settings.inference_log is None
    assert token(project) == ""


def test_a_token_that_is_not_there_is_named_with_its_line(tmp_path):
    with pytest.raises(ConfigError, match="TOY_TOKEN is not set") as told:
        token(_project(tmp_path, "token_env: TOY_TOKEN"))
    assert told.value.line == 6


@pytest.mark.parametrize("wrong", ["inference_log: {sample: 2}", "inference_log: {redacted: [a]}", "token_env: a b"])
def test_what_makes_no_sense_is_refused(tmp_path, wrong):
    with pytest.raises(ConfigError, match="deploy"):
        _project(tmp_path, wrong)


ELSEWHERE = {
    "kubernetes": "{namespace: models, image: i, gateway: g}",
    "mlflow": "{uri: 'sagemaker:/eu-west-1'}",
}


def _environments(target: str, options: str) -> str:
    return f"environments: {{prod: {{target: {target}, strategy: direct, options: {options}}}}}"


@pytest.mark.parametrize("target", sorted(ELSEWHERE))
@pytest.mark.parametrize("asked", ["token_env: TOY_TOKEN", "inference_log: {redact: [ssn]}"])
def test_a_target_that_can_not_ask_for_a_token_or_redact_says_so(tmp_path, target, asked):
    elsewhere = _environments(target, ELSEWHERE[target])
    key = asked.partition(":")[0]
    with pytest.raises(ConfigError, match=f"the target '{target}' can not do what deploy.{key} asks for") as told:
        place(_project(tmp_path, f"{elsewhere}\n  {asked}"), "")
    assert told.value.line == 7


def test_a_targets_names_are_made_of_the_models(tmp_path):
    assert place(_project(tmp_path, _environments("mlflow", ELSEWHERE["mlflow"])), "").target._name == "toy--prod"


@pytest.mark.parametrize(
    ("target", "option"),
    [("local", "token_env: OTHER"), ("mlflow", "model: x"), ("kubernetes", "root: /"), ("kubernetes", "environ: {}")],
)
def test_an_option_can_not_take_the_place_of_what_the_project_says(tmp_path, target, option):
    options = ELSEWHERE.get(target, "{}").replace("{", f"{{{option}, ", 1)
    with pytest.raises(ConfigError, match=f"not an option of a target: {option.partition(':')[0]}") as told:
        place(_project(tmp_path, _environments(target, options)), "")
    assert told.value.line == 6
