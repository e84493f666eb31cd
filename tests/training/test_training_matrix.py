"""A matrix: its cells, their choice, and what two trainings of the same thing differ in."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlcicd.config import load_project
from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Status, Verdict
from mlcicd.stages import train as stage
from mlcicd.stages.train import fingerprint_of
from mlcicd.stages.train_best import _figure
from mlcicd.training.artifact import differing_files
from mlcicd.training.matrix import cells
from mlcicd.training.reproducible import compare_answers

# The cheap training, with a figure in the run, as a user's own program logs it.
LOGS = """
from mlflow import MlflowClient
figures = {"0.1": 0.7, "0.2": 0.9, "0.4": float("nan")}
client = MlflowClient()
client.log_metric(os.environ["MLFLOW_RUN_ID"], "val_roc_auc", figures[os.environ["MLCICD_PARAM_RATE"]])
"""


def load(root: Path):
    return load_project(root, environ=dict(os.environ))


def train(root: Path, **options: object) -> Verdict:
    return stage(load(root), **options)


def configure(root: Path, text: str) -> None:
    file = root / "mlcicd.yaml"
    file.write_text(file.read_text() + text)


@pytest.fixture
def matrix(project: Path) -> Path:
    program = project / "train.py"
    program.write_text(program.read_text() + LOGS)
    configure(project, "  matrix: {rate: [0.1, 0.2, 0.4]}\n  choose_by: roc_auc\n")
    file = project / "mlcicd.yaml"
    file.write_text(file.read_text().replace("python train.py", "python train.py MLCICD_PARAM_RATE MLCICD_PARAMS"))
    return project


def test_cells_in_the_order_of_the_configuration() -> None:
    every = cells({"rate": [0.1, 1], "kind": ["a"], "seed": [3, 4]})
    assert [cell.key for cell in every] == [
        "rate=0.1,kind=a,seed=3",
        "rate=0.1,kind=a,seed=4",
        "rate=1,kind=a,seed=3",
        "rate=1,kind=a,seed=4",
    ]
    assert every[1].seed(0) == 4
    assert every[1].params == {"rate": 0.1, "kind": "a"}
    assert json.loads(every[1].environment["MLCICD_PARAMS"]) == {"rate": 0.1, "kind": "a", "seed": 4}
    assert [cell.environment for cell in cells({})] == [{}]


@pytest.mark.slow
def test_all_cells_are_trained_and_the_best_is_the_model(matrix: Path) -> None:
    verdict = train(matrix)
    assert verdict.status is Status.PASSED, verdict.summary
    assert verdict.outputs["cell"] == "rate=0.2"
    assert (matrix / "model" / "seen").read_text() == '0.2 {"rate": 0.2}'
    assert verdict.details["choice"]["cells"]["rate=0.1"] == 0.7
    assert any(check.name == "choice of the best [rate=0.4]" for check in verdict.checks)
    # `evaluate` asks whether the candidate was trained with what is there now.
    assert fingerprint_of(load(matrix)).changed_from(verdict.details["fingerprint"]) == []
    again = train(matrix)
    assert (again.status, again.outputs["cell"]) == (Status.SKIPPED, "rate=0.2")
    # One more cell: the others are not trained again. The order of equals is that of the file.
    file = matrix / "mlcicd.yaml"
    file.write_text(file.read_text().replace("0.1, 0.2, 0.4", "0.1, 0.2"))
    assert train(matrix).status is Status.SKIPPED


@pytest.mark.slow
def test_cells_trained_apart_are_chosen_among_later(matrix: Path) -> None:
    file = matrix / "mlcicd.yaml"
    file.write_text(file.read_text().replace("0.1, 0.2, 0.4", "0.1, 0.2"))
    missing = train(matrix, choose=True)
    assert missing.exit_code == 4
    assert "rate=0.1" in missing.summary
    for key in ("rate=0.2", "rate=0.1"):
        verdict = train(matrix, select=key)
        assert verdict.status is Status.PASSED, verdict.summary
    chosen = train(matrix, choose=True)
    assert chosen.exit_code == 0
    assert chosen.outputs["cell"] == "rate=0.2"
    assert (matrix / "model" / "seen").read_text().startswith("0.2")


@pytest.mark.parametrize("asked", ["val_roc_auc", "validation_roc_auc", "valid_roc_auc", "roc_auc"])
def test_the_words_for_validation_are_one(asked: str) -> None:
    assert _figure({"validation_roc_auc": 0.7, "train_roc_auc": 0.9}, asked) == 0.7
    # A figure of no split that was named is not one of the validation split.
    assert math.isnan(_figure({"roc_auc": 0.7}, "val_roc_auc"))


def test_no_figure_is_no_choice(project: Path) -> None:
    configure(project, "  matrix: {rate: [0.1, 0.2]}\n  choose_by: loss\n  choose_direction: lower\n")
    verdict = train(project)
    assert verdict.exit_code == 1
    assert "no run logged a finite loss; logged: nothing" in verdict.summary


def test_matrix_is_printed_for_github(matrix: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mlcicd", "train", "--matrix"]
    done = subprocess.run(command, cwd=matrix, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"cell": ["rate=0.1", "rate=0.2", "rate=0.4"]}
    assert not (matrix / ".mlcicd" / "verdicts").exists()
    output = tmp_path / "output"
    output.touch()
    env = {**os.environ, "GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(output), "MLCICD_INPUT_MATRIX": "true"}
    subprocess.run(command[:-1], cwd=matrix, env=env, capture_output=True, check=True)
    assert '{"cell": ["rate=0.1", "rate=0.2", "rate=0.4"]}' in output.read_text()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("  estimator: sklearn.x.Y\n", "exclude each other"),
        ("  matrix: {rate: [1, 2]}\n", "a matrix needs choose_by"),
        ("  choose_by: holdout_auc\n", "judged by rows that chose it"),
        ("  matrix: {seed: [-1]}\n  choose_by: f1\n", "whole numbers"),
        ("  matrix: {a: [1, 1]}\n  choose_by: f1\n", "each once"),
        ("  matrix: {a: []}\n  choose_by: f1\n", "at least one"),
        ("  matrix: {a b: [1]}\n  choose_by: f1\n", "no name of a parameter"),
        ("  matrix: {a: [1], A: [1]}\n  choose_by: f1\n", "case alone"),
        (f"  matrix: {{a: {list(range(257))}}}\n  choose_by: f1\n", "256"),
        ("  params: {a: 1}\n", "path of the file"),
        ("  artifact: ../model\n", "inside of the project"),
        ("  artifact: .\n", "inside of the project"),
        ("  artifact: /elsewhere/model\n", "inside of the project"),
    ],
)
def test_configuration_errors_have_a_line(project: Path, text: str, told: str) -> None:
    configure(project, text)
    with pytest.raises(ConfigError, match=told) as caught:
        load(project)
    assert caught.value.line in (4, 7)


def test_neither_run_nor_estimator(project: Path) -> None:
    file = project / "mlcicd.yaml"
    file.write_text(file.read_text().replace("  run: python train.py\n", ""))
    with pytest.raises(ConfigError, match="it needs `run` or `estimator`"):
        load(project)


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("", {"choose": True}, "--choose needs train.matrix"),
        ("", {"select": "a=1"}, "--select needs train.matrix"),
        ("  matrix: {a: [1]}\n  choose_by: f1\n", {"select": "a=2"}, "did you mean 'a=1'"),
        ("  matrix: {a: [1]}\n  choose_by: my_own\n", {}, "choose_direction"),
        ("  matrix: {a: [1]}\n  choose_by: f1\n", {"select": "a=1", "choose": True}, "exclude each other"),
    ],
)
def test_usage_errors_come_before_training(project: Path, text: str, options: dict[str, object], told: str) -> None:
    configure(project, text)
    verdict = train(project, **options)
    assert verdict.exit_code == 2
    assert told in verdict.summary + verdict.details["error"]["remedy"]
    assert not (project / "model").exists()


def test_dvc_does_not_see_the_variables_of_a_cell(project: Path) -> None:
    file = project / "mlcicd.yaml"
    file.write_text(file.read_text().replace("python train.py", "dvc repro"))
    configure(project, "  matrix: {a: [1, 2]}\n  choose_by: f1\n")
    verdict = train(project)
    assert verdict.exit_code == 2
    assert "the same model for every cell" in verdict.summary


def test_compared_answers() -> None:
    one = np.array([0.1, 0.2, np.nan, np.inf])
    assert compare_answers(one, one.copy(), 0.0).same
    apart = compare_answers(one, np.array([0.1, 0.3, np.nan, np.inf]), 0.0)
    assert (apart.rows, apart.differing, round(apart.largest, 3)) == (4, 1, 0.1)
    assert compare_answers(one, np.array([0.1, 0.3, np.nan, np.inf]), 0.11).same
    assert compare_answers(one, np.array([np.nan, 0.2, np.nan, np.inf]), 10).largest == np.inf
    assert compare_answers(one, one[:3], 10).differing == 4
    labels = np.array(["a", "b"])
    assert compare_answers(labels, np.array(["a", "c"]), 1).differing == 1
    two = np.array([[0.5, 0.5], [0.1, 0.9]])
    assert compare_answers(two, two + np.array([[0, 0], [0.1, -0.1]]), 0).differing == 1


def test_files_that_differ(tmp_path: Path) -> None:
    for name, stamp, content in (("one", "1", "x"), ("other", "2", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "MLmodel").write_text(f"flavors: {{}}\nmodel_uuid: {stamp}\nutc_time_created: '{stamp}'\n")
        (tmp_path / name / "weights").write_text(content)
    (tmp_path / "one" / "extra").touch()
    assert differing_files(tmp_path / "one", tmp_path / "other") == ["extra", "weights"]
