"""train.estimator: a model from a table and a name, and train --twice on what it makes."""

from __future__ import annotations

import importlib.util
import os
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mlcicd.config import load_project
from mlcicd.core.verdict import Status, Verdict
from mlcicd.evaluation.scoring import score
from mlcicd.stages import train as stage
from mlcicd.stages.common import registry_of
from mlcicd.training.estimator import RUNNER

CONFIG = """\
version: 1
model: {name: tiny, task: binary}
data: {train: train.csv, holdout: holdout.csv, target: y, ignore: [id]}
train:
  estimator: sklearn.ensemble.RandomForestClassifier
  params: {n_estimators: 5, max_depth: 3}
  choose_by: roc_auc
"""


@pytest.fixture(scope="session")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("estimator_runner", RUNNER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(path: Path, rows: int, seed: int, *, towns: str) -> None:
    """A number with gaps, a category with gaps, and a truth value, which all tell something of `y`."""
    draw = random.Random(seed)
    lines = ["id,a,town,b,y"]
    for row in range(rows):
        a, town, b = draw.gauss(0, 1), draw.choice(towns), draw.random() < 0.5
        y = int(a + (town == towns[0]) + b + draw.gauss(0, 0.5) > 1)
        shown = "" if draw.random() < 0.1 else f"{a:.4f}"
        lines.append(f"{seed}-{row},{shown},{'' if draw.random() < 0.1 else town},{b},{y}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def project(repository: Path, store: Path) -> Path:
    import shutil

    (repository / "mlcicd.yaml").write_text(CONFIG)
    write(repository / "train.csv", 400, 1, towns="ABC")
    # A town that the model has never seen.
    write(repository / "holdout.csv", 200, 2, towns="ABD")
    shutil.copy(store, repository / "mlflow.db")
    return repository


def train(root: Path, **options: object) -> Verdict:
    return stage(load_project(root, environ=dict(os.environ)), **options)


@pytest.mark.slow
def test_model_from_a_name(project: Path, tmp_path: Path) -> None:
    verdict = train(project)
    assert verdict.status is Status.PASSED, (verdict.summary, verdict.details)
    registry = registry_of(load_project(project, environ={}))
    assert registry.run_metrics(verdict.outputs["run-id"])["validation_roc_auc"] > 0.8
    scored = score(
        project / "model",
        project / "holdout.csv",
        model_digest=verdict.outputs["model-digest"],
        data_digest="sha256:0",
        target="y",
        ignore=["id"],
        python=sys.executable,
        environ=dict(os.environ),
        cache=tmp_path / "cache",
        cwd=project,
        timeout=300,
        what="candidate",
    )
    assert scored.answer.shape == (200, 2)
    assert scored.figures["features"] == ["a", "town", "b"]
    labels = [int(line.rpartition(",")[2]) for line in (project / "holdout.csv").read_text().splitlines()[1:]]
    from sklearn.metrics import roc_auc_score

    assert roc_auc_score(labels, scored.answer[:, 1]) > 0.75
    assert train(project).status is Status.SKIPPED


@pytest.mark.slow
def test_the_same_twice(project: Path) -> None:
    verdict = train(project, twice=True)
    assert verdict.status is Status.PASSED, verdict.summary
    assert "; trained twice: 0 of " in verdict.summary
    assert verdict.details["reproducible"]["differing_rows"] == 0
    assert verdict.details["reproducible"]["rows"] == 200


@pytest.mark.slow
def test_not_the_same_twice(project: Path) -> None:
    file = project / "mlcicd.yaml"
    # None draws anew each time, whatever MLCICD_SEED says.
    file.write_text(file.read_text().replace("n_estimators: 5,", "n_estimators: 5, random_state: null,"))
    verdict = train(project, twice=True)
    found = verdict.details["reproducible"]
    assert verdict.exit_code == 1, verdict.summary
    assert found["differing_rows"] > 0 and found["largest_difference"] > 0
    assert "model.skops" in found["differing_files"]
    assert "differently" in verdict.summary
    # The first model stays: the second, of a run of its own, was for comparison only.
    again = train(project)
    assert again.status is Status.SKIPPED
    assert (again.outputs["model-digest"], again.outputs["model-path"]) == (verdict.outputs["model-digest"], "model")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "code", "told"),
    [
        ("n_estimators: 5", "n_estimator: 5", 2, "did you mean 'n_estimators'?"),
        ("target: y", "target: z", 4, "has no column 'z'"),
    ],
)
def test_what_is_wrong_is_told(project: Path, old: str, new: str, code: int, told: str) -> None:
    file = project / "mlcicd.yaml"
    file.write_text(file.read_text().replace(old, new))
    verdict = train(project)
    assert verdict.exit_code == code
    assert told in verdict.summary
    if code == 2:
        assert verdict.summary.startswith("mlcicd.yaml:6: ")


@pytest.mark.parametrize(
    ("name", "params", "task", "told"),
    [
        ("sklearn.ensemble.RandomForestClasifier", {}, "binary", "did you mean 'RandomForestClassifier'"),
        ("sklearn.ensembel.X", {}, "binary", "no module 'sklearn.ensembel'"),
        ("RandomForest", {}, "binary", "no module ''"),
        ("sklearn.linear_model.Ridge", {}, "binary", "not a classifier"),
        ("sklearn.linear_model.LogisticRegression", {}, "regression", "not a regressor"),
        ("sklearn.linear_model.LogisticRegression", {"c": 1}, "binary", "no parameter 'c'"),
        ("sklearn.metrics.roc_auc_score", {}, "binary", "no scikit-learn estimator"),
        ("sklearn.ensemble.VotingClassifier", {}, "binary", "names and numbers alone"),
        ("os.path", {}, "binary", "no scikit-learn estimator"),
    ],
)
def test_estimators_that_can_not_be_made(
    runner: ModuleType, capsys: pytest.CaptureFixture[str], name: str, params: dict[str, object], task: str, told: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        runner.make_estimator(name, params, task, 0)
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("sklearn.ensemble.HistGradientBoostingClassifier", "binary"),
        ("sklearn.linear_model.LogisticRegression", "multiclass"),
        ("sklearn.neighbors.KNeighborsClassifier", "binary"),
        ("sklearn.naive_bayes.GaussianNB", "multiclass"),
        ("sklearn.linear_model.Ridge", "regression"),
        ("sklearn.tree.DecisionTreeRegressor", "regression"),
    ],
)
def test_gaps_and_new_categories_are_taken_by_every_kind(runner: ModuleType, name: str, task: str) -> None:
    import numpy as np
    import pandas as pd

    draw = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "n": draw.normal(size=90),
            "empty": np.full(90, np.nan),
            "s": draw.choice(["x", "y", None], size=90),
            "o": pd.Series(draw.choice(["x", "y"], size=90), dtype=object),
            "flag": draw.random(90) < 0.5,
            "kind": pd.Categorical(draw.choice(["p", "q"], size=90)),
        }
    )
    table.loc[3, "n"] = np.nan
    table.loc[5, "o"] = None
    labels = pd.Series(
        {"binary": draw.integers(0, 2, 90), "multiclass": draw.integers(0, 3, 90)}.get(task, table["flag"] * 1.5)
    )
    estimator, _ = runner.make_estimator(name, {}, task, 0)
    numbers, names = runner.split_columns(table)
    assert (numbers, names) == (["n"], ["s", "o", "flag", "kind"])
    model = runner.make_pipeline_of(estimator, numbers, names).fit(table, labels)
    new = table.head(4).copy()
    new["s"] = "never seen"
    assert len(model.predict(new)) == 4
    figures = runner.measured(model, table, labels, task)
    assert all(np.isfinite(list(figures.values())))
    assert ("rmse" in figures) == (task == "regression")


def test_times_are_not_learned_from_silently(runner: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    import pandas as pd

    with pytest.raises(SystemExit):
        runner.split_columns(pd.DataFrame({"when": pd.to_datetime(["2024-01-01", "2024-01-02"])}))
    assert "when is a time" in capsys.readouterr().err


def test_validation_rows_are_the_latest_or_drawn_by_label(runner: ModuleType) -> None:
    import numpy as np
    import pandas as pd

    labels = pd.Series([0] * 50 + [1] * 50)
    fit, measure = runner.validation_rows(labels, pd.Series(range(100, 0, -1)), "binary")
    assert sorted(measure) == list(range(20)) and len(fit) == 80
    fit, measure = runner.validation_rows(labels, None, "binary")
    assert labels.iloc[measure].sum() == 10
    assert not set(fit) & set(measure) and np.array_equal(measure, runner.validation_rows(labels, None, "binary")[1])
