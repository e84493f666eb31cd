"""How much of a difference comes from the code and how much from the data: old or new of each, from runs or trained."""

from __future__ import annotations

import html
import math
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from linear_source import LINEAR
from support import git

from mlcicd.config import Project, load_project
from mlcicd.core.errors import CommandFailed, ConfigError, InputError
from mlcicd.core.progress import SILENT
from mlcicd.core.verdict import Check, CheckStatus, Status, Verdict
from mlcicd.registry.tracking import TAG
from mlcicd.report import comment_markdown, report_html
from mlcicd.stages import evaluate, train
from mlcicd.stages.common import readable_registries, registry_of
from mlcicd.stages.record import Record
from mlcicd.stages.train import fingerprint_of
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
    assert "and all of it comes from the data: code, parameters and environment are the champion's" in check.reason
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
    assert check.reason.endswith("the other is not known (the new code on the old data: no run has trained it).")
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
    share = found["code"]["value"] / found["difference"]
    told = f"mae is better than the champion's by 0.3001: {share:.0%} of that comes from the code"
    assert check.reason.startswith(told)
    assert told in html.unescape(comment_markdown([verdict]))
    assert told in html.unescape(report_html([verdict], title="t", generated=verdict.finished))

    # From now on it is known.
    config.write_text(CONFIG)
    again, _ = judged(crowned)
    assert runs_of(crowned) == 4
    assert again.details["code_and_data"]["metrics"] == verdict.details["code_and_data"]["metrics"]


@pytest.fixture
def two(project: Path) -> tuple[Path, Origin, Origin]:
    """A project of two cheap trainings, the second of other code and other data; and what each was made of."""
    (project / ".gitignore").write_text(".mlcicd/\nmodel/\nmlartifacts/\nmlflow.db*\n")
    first = trains(project).outputs["run-id"]
    (project / "train.py").write_text((project / "train.py").read_text() + "\nprint('new')\n")
    (project / "train.csv").write_text("a,y\n5,1\n6,0\n")
    second = trains(project).outputs["run-id"]
    registry = registry_of(at(project))
    return project, Origin.of_run(registry, second), Origin.of_run(registry, first)


def crossed(root: Path, code: Origin, data: Origin) -> Path:
    """The model of a crossed training, fetched."""
    project = at(root)
    registry = registry_of(project)
    made = train_crossed(Record(project, "evaluate", dry_run=False, progress=SILENT), registry, code, data)
    assert find_crossed([registry], code, data) == (made.run_id, made.digest)
    # A pull request reads what was merged; the other way round, nothing of a pull request is read.
    in_pull_request = at(root, GITHUB_EVENT_NAME="pull_request")
    both = readable_registries(in_pull_request, registry_of(in_pull_request))
    assert [one.experiment for one in both] == ["tiny-pull-requests", "tiny"]
    assert find_crossed(both, code, data) == (made.run_id, made.digest)
    assert [one.experiment for one in readable_registries(project, registry)] == ["tiny"]
    return registry.fetch_model(made.run_id, project.model_cache, digest=made.digest)


def test_each_crossing_has_the_data_that_it_says(two: tuple[Path, Origin, Origin]) -> None:
    root, new, old = two
    # One that was killed has left its run RUNNING, and a checkout.
    journal = root / ".mlcicd" / "crossed" / ".mlcicd" / "training-run"
    journal.parent.mkdir(parents=True)
    journal.write_text("abandoned")
    registry = registry_of(at(root))
    registry.start_run("tiny", {"mlcicd.attempt": "abandoned"})
    assert (crossed(root, new, old) / "data").read_text() == "a,y\n1,0\n2,1\n"
    assert registry.running_runs({"mlcicd.attempt": "abandoned"}) == []
    assert (crossed(root, old, new) / "data").read_text() == "a,y\n5,1\n6,0\n"
    assert (root / "train.csv").read_text() == "a,y\n5,1\n6,0\n"
    # Crossed runs are ordinary ones: who trains this code on this data has it.
    (root / "train.csv").write_text("a,y\n1,0\n2,1\n")
    assert train(at(root)).status is Status.SKIPPED


@pytest.mark.parametrize("linked", [False, True], ids=["by its path", "by a link"])
def test_data_outside_of_the_project_is_left_as_it_is(
    two: tuple[Path, Origin, Origin], tmp_path_factory: pytest.TempPathFactory, linked: bool
) -> None:
    root, new, old = two
    lake = tmp_path_factory.mktemp("lake")
    (lake / "train.csv").write_text("a,y\n9,1\n")
    if linked:
        (root / "lake").symlink_to(lake)
    text = (root / "mlcicd.yaml").read_text()
    assert text.count("train: train.csv") == 1
    named = "lake/train.csv" if linked else str(lake / "train.csv")
    (root / "mlcicd.yaml").write_text(text.replace("train: train.csv", f"train: {named}"))
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "data elsewhere")
    with pytest.raises(ConfigError, match="outside of the project"):
        crossed(root, replace(new, commit=git(root, "rev-parse", "HEAD")), old)
    assert (lake / "train.csv").read_text() == "a,y\n9,1\n"


def test_what_can_not_be_brought_as_it_was_is_not_trained(two: tuple[Path, Origin, Origin]) -> None:
    root, new, old = two
    before = runs_of(root)
    for code, data, told in (
        (replace(new, commit="0" * 40), old, "the commit 000000000 is not in this clone"),
        (replace(new, commit=""), old, "it is not known from which commit"),
        (replace(new, commit=old.commit), old, "is not what run"),
        (new, replace(old, commit=new.commit), "the data of commit"),
        (new, replace(old, commit=""), "the run names no commit"),
    ):
        with pytest.raises(InputError) as error:
            crossed(root, code, data)
        assert told in error.value.one_line()
        assert not (root / ".mlcicd" / "crossed").exists()
    with pytest.raises(InputError) as error:
        crossed(root, replace(new, commit=old.commit), old)
    assert error.value.why == "Other than then: code."
    assert runs_of(root) == before
    # Code that fails on the other data ends its run, and leaves nothing behind.
    (root / "train.py").write_text("raise SystemExit('not this data')\n")
    git(root, "commit", "--quiet", "--all", "--message", "broken")
    broken = fingerprint_of(at(root)).code_digest
    with pytest.raises(CommandFailed):
        crossed(root, replace(new, commit=git(root, "rev-parse", "HEAD"), code=broken), old)
    assert runs_of(root) == before + 1
    assert len(git(root, "worktree", "list").splitlines()) == 1
