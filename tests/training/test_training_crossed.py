"""How much of a difference comes from the code and how much from the data: old or new of each, from runs or trained."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support import git

from mlcicd.config import Project, load_project
from mlcicd.core.errors import InputError, MlcicdError
from mlcicd.core.verdict import Check, CheckStatus, Status, Verdict
from mlcicd.registry.tracking import TAG
from mlcicd.report import comment_markdown
from mlcicd.stages import evaluate, train
from mlcicd.stages.common import registry_of
from mlcicd.stages.record import Record
from mlcicd.stages.train_crossed import Origin, find_crossed, train_crossed

CONFIG = """\
version: 1
model: {name: tiny, task: regression}
data: {train: train.csv, holdout: holdout.csv, target: y}
train: {run: python train.py, code: [train.py]}
supply_chain: {scan: warn}
evaluate:
  gates: {mae: {vs_champion: {margin: 9}}}
"""
# A model is a slope; it needs no library to be loaded.
LINEAR = """\
class Slope:
    def __init__(self, slope):
        self.slope = slope

    def predict(self, table):
        return self.slope * table["x"].to_numpy()
"""
OLD = """\
import csv, pathlib, pickle
from linear import Slope
rows = [(float(row["x"]), float(row["y"])) for row in csv.DictReader(open("train.csv"))]
slope = sum(y for _, y in rows) / len(rows)
pathlib.Path("model").mkdir()
pathlib.Path("model/model.pkl").write_bytes(pickle.dumps(Slope(slope)))
"""
NEW = OLD.replace(
    "slope = sum(y for _, y in rows) / len(rows)", "slope = sum(x * y for x, y in rows) / sum(x * x for x, _ in rows)"
)


def table(rows: int, seed: int, slope: float) -> list[tuple[float, float]]:
    draw = random.Random(seed)
    xs = [draw.uniform(0.2, 2) for _ in range(rows)]
    return [(round(x, 4), round(slope * x + draw.gauss(0, 0.3), 4)) for x in xs]


def write(path: Path, rows: list[tuple[float, float]]) -> None:
    path.write_text("\n".join(["x,y", *(f"{x},{y}" for x, y in rows)]) + "\n")


HOLDOUT, BEFORE, NOW = table(400, 3, 2.0), table(60, 1, 1.5), table(60, 2, 1.9)


def mae(code: str, rows: list[tuple[float, float]]) -> float:
    """What the four models are worth, by hand."""
    slope = sum(y for _, y in rows) / len(rows)
    if code == NEW:
        slope = sum(x * y for x, y in rows) / sum(x * x for x, _ in rows)
    return sum(abs(y - slope * x) for x, y in HOLDOUT) / len(HOLDOUT)


def at(root: Path, **more: str) -> Project:
    return load_project(root, environ={**os.environ, **more})


@pytest.fixture
def crowned(project: Path) -> Path:
    """A project whose first training, of the old code and the old data, is the champion."""
    (project / "mlcicd.yaml").write_text(CONFIG)
    (project / "linear.py").write_text(LINEAR)
    (project / "train.py").write_text(OLD)
    (project / ".gitignore").write_text(".mlcicd/\nmodel/\nmlartifacts/\nmlflow.db*\n__pycache__/\n")
    write(project / "train.csv", BEFORE)
    write(project / "holdout.csv", HOLDOUT)
    trained = trains(project)
    registry = registry_of(at(project))
    tags = {f"{TAG}model_digest": trained.outputs["model-digest"]}
    version = registry.create_version("tiny", trained.outputs["run-id"], tags)
    registry.set_alias("tiny", "champion", version.version)
    return project


def trains(root: Path) -> Verdict:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "change")
    verdict = train(at(root))
    assert verdict.status is Status.PASSED, (verdict.summary, verdict.details.get("error"))
    return verdict


def judged(root: Path, **options: bool) -> tuple[Verdict, Check]:
    verdict = evaluate(at(root), **options)
    assert verdict.status is Status.PASSED, (verdict.summary, verdict.details.get("error"), verdict.checks)
    return verdict, next(check for check in verdict.checks if "by code and data" in check.name)


def runs_of(root: Path) -> int:
    from mlflow import MlflowClient

    client = MlflowClient(at(root).tracking_uri)
    found = client.get_experiment_by_name("tiny")
    assert found is not None
    return len(client.search_runs([found.experiment_id]))


def test_from_the_change_of_one_to_the_split_of_both(crowned: Path) -> None:
    write(crowned / "train.csv", NOW)
    trains(crowned)
    verdict, check = judged(crowned)
    assert (check.status, check.name) == (CheckStatus.PASSED, "mae by code and data")
    assert check.reason.startswith("only the data changed: ")
    (found,) = verdict.details["code_and_data"]["metrics"]
    assert found["code"]["value"] == 0
    assert found["data"]["value"] == found["difference"] == pytest.approx(mae(OLD, NOW) - mae(OLD, BEFORE))

    # The code changes, too: the old code on the new data has a run, the new code on the old data has none.
    (crowned / "train.py").write_text(NEW)
    trains(crowned)
    verdict, check = judged(crowned)
    (found,) = verdict.details["code_and_data"]["metrics"]
    assert found["orders"] == 1
    assert found["code"]["value"] == pytest.approx(mae(NEW, NOW) - mae(OLD, NOW))
    assert found["data"]["value"] == pytest.approx(mae(OLD, NOW) - mae(OLD, BEFORE))
    assert "the new code on the old data is not known: no run has it" in check.reason
    assert runs_of(crowned) == 3

    # Trained where that is asked for, in a checkout of its own.
    config = crowned / "mlcicd.yaml"
    config.write_text(config.read_text().replace("evaluate:\n", "evaluate:\n  attribution: {train: true}\n"))
    before = (git(crowned, "status", "--short"), (crowned / "model" / "model.pkl").read_bytes())
    verdict, check = judged(crowned)
    assert runs_of(crowned) == 4
    assert (git(crowned, "status", "--short"), (crowned / "model" / "model.pkl").read_bytes()) == before
    assert len(git(crowned, "worktree", "list").splitlines()) == 1 and not (crowned / ".mlcicd" / "crossed").exists()
    (found,) = verdict.details["code_and_data"]["metrics"]
    both = (mae(NEW, NOW) - mae(OLD, NOW) + mae(NEW, BEFORE) - mae(OLD, BEFORE)) / 2
    assert found["orders"] == 2
    assert found["code"]["value"] == pytest.approx(both)
    assert math.isclose(found["code"]["value"] + found["data"]["value"], found["difference"], abs_tol=1e-12)
    low, high = found["code"]["interval"]
    assert low < found["code"]["value"] < high
    assert "mae by code and data" in comment_markdown([verdict])

    # From now on it is known.
    config.write_text(CONFIG)
    again, _ = judged(crowned)
    assert runs_of(crowned) == 4
    assert again.details["code_and_data"]["metrics"] == verdict.details["code_and_data"]["metrics"]
