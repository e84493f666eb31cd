"""What the seed alone does to a metric: from a matrix of seeds to the report of an evaluation."""

from __future__ import annotations

import math
import os
import random
import statistics
from pathlib import Path

import duckdb
import numpy as np
import pytest
from linear_source import LINEAR

from mlcicd.config import load_project
from mlcicd.core.verdict import CheckStatus, Severity, Status, Verdict
from mlcicd.evaluation.seed_noise import seed_noise
from mlcicd.report import comment_markdown, report_html
from mlcicd.stages import evaluate, train, validate_data

CONFIG = """\
version: 1
model: {name: tiny, task: binary}
data: {train: train.csv, holdout: holdout.csv, target: y, ignore: [id]}
train:
  estimator: sklearn.ensemble.RandomForestClassifier
  params: {n_estimators: 3, max_depth: 3, max_features: 1}
  matrix: {seed: [0, 1, 2]}
  choose_by: roc_auc
evaluate:
  gates: {roc_auc: {vs_champion: {margin: 0.2}}, log_loss: {vs_champion: {margin: 0.2}}}
"""


def write(path: Path, rows: int, seed: int) -> list[float]:
    """Three features that tell the label together; returns the scores of somebody who knows them well."""
    draw = random.Random(seed)
    lines, scores = ["id,a,b,c,y"], []
    for row in range(rows):
        a, b, c = (draw.gauss(0, 1) for _ in range(3))
        lines.append(f"{seed}-{row},{a:.4f},{b:.4f},{c:.4f},{int(a + b + c + draw.gauss(0, 1) > 0)}")
        scores.append(1 / (1 + math.exp(-(a + b + c))))
    path.write_text("\n".join(lines) + "\n")
    return scores


@pytest.mark.slow
def test_a_difference_stands_beside_what_the_seed_alone_does(project: Path) -> None:
    repository = project
    (repository / "mlcicd.yaml").write_text(CONFIG)
    write(repository / "train.csv", 300, 1)
    known = write(repository / "holdout.csv", 400, 2)

    def run(stage, **options: object) -> Verdict:
        return stage(load_project(repository, environ=dict(os.environ)), **options)

    def judged(scores: list[float]) -> Verdict:
        rows = (f"{score:.6f}" for score in scores)
        (repository / "champion.csv").write_text("\n".join(["score", *rows]) + "\n")
        verdict = run(evaluate, champion_predictions="champion.csv")
        assert verdict.status is Status.PASSED, (verdict.summary, verdict.details.get("error"), verdict.checks)
        return verdict

    assert run(validate_data).status is Status.PASSED
    trained = run(train)
    assert trained.status is Status.PASSED, trained.summary
    assert len(trained.details["trainings"]) == 3
    far = judged(known)
    noise = far.details["seed_noise"]["roc_auc"]
    assert len(noise["values"]) == len(set(noise["values"])) == 3
    # Student's quantile of two degrees of freedom.
    assert noise["band"] == pytest.approx(4.3027 * math.sqrt(2) * statistics.stdev(noise["values"]), rel=1e-4)
    check = next(c for c in far.checks if c.name == "roc_auc beside seed noise")
    told = next(m for m in far.details["metrics"] if m["name"] == "roc_auc")
    assert check.observed == told["difference"]
    assert (check.status is CheckStatus.PASSED) == (abs(told["difference"]) > noise["band"])
    # Answers that a sibling gives but for the fifth digit: what is seen is the seed's.
    kept = sorted((repository / ".mlcicd" / "cache" / "predictions").rglob("*.parquet"))
    assert len(kept) == 3
    with duckdb.connect() as connection:
        columns = connection.execute(f"FROM '{kept[0]}'").fetchnumpy()
    # Whichever of the three it is, the candidate's own among them: ties are broken, so that they are not alike.
    answers = list(columns.values())[-1]
    same = judged(list(np.clip(answers + 1e-5 * (np.arange(len(answers)) % 7), 0, 1)))
    beside = next(c for c in same.checks if c.name == "roc_auc beside seed noise")
    assert (beside.status, beside.severity) == (CheckStatus.INCONCLUSIVE, Severity.WARN)
    assert "3 trainings" in beside.reason and "it may be the seed's" in beside.reason
    assert "| Seed alone |" in comment_markdown([same])
    assert ">Seed alone<" in report_html([same], title="t", generated=same.finished)


def test_the_band_is_that_of_the_difference_of_two_trainings() -> None:
    rng = np.random.default_rng(0)
    for many in (2, 3, 10):
        inside = 0
        for _ in range(2000):
            trainings = rng.normal(size=many)
            band = seed_noise(list(trainings))
            assert band is not None
            inside += band.holds(float(np.diff(rng.normal(size=2))[0]))
        # Standard error 0.005.
        assert 0.93 < inside / 2000 < 0.97, many


def test_without_two_finite_values_there_is_no_band() -> None:
    assert seed_noise([0.5]) is None
    assert seed_noise([0.5, math.nan]) is None
    same = seed_noise([0.5, 0.5])
    assert same is not None and same.band == 0 and same.holds(0.0) and not same.holds(1e-9)


# A slope with a draw of its own in it, whatever the seed; loaded without any library.
UNSEEDED = """\
import os, pathlib, pickle
from linear import Slope
pathlib.Path("model").mkdir()
draw = int.from_bytes(os.urandom(4), "big") / 2**32
pathlib.Path("model/model.pkl").write_bytes(pickle.dumps(Slope(2.2 + 0.1 * draw)))
"""
TWICE = """\
version: 1
model: {name: tiny, task: regression}
data: {train: train.csv, holdout: holdout.csv, target: y}
train: {run: python train.py, reproducible: {action: warn}}
supply_chain: {scan: warn}
evaluate: {gates: {mae: {vs_champion: {margin: 1}}}}
"""


def test_what_training_twice_differs_by_stands_beside_the_difference(project: Path) -> None:
    for name, text in (("mlcicd.yaml", TWICE), ("train.py", UNSEEDED), ("linear.py", LINEAR)):
        (project / name).write_text(text)
    draw = random.Random(4)
    xs = [round(draw.uniform(1, 3), 4) for _ in range(200)]
    rows = [f"{x},{2 * x + draw.gauss(0, 0.1):.4f}" for x in xs]
    for name in ("train.csv", "holdout.csv"):
        (project / name).write_text("\n".join(["x,y", *rows]) + "\n")
    (project / "champion.csv").write_text("\n".join(["prediction", *(f"{2.25 * x:.6f}" for x in xs)]) + "\n")

    trained = train(load_project(project, environ=dict(os.environ)), twice=True)
    assert trained.status is Status.PASSED, (trained.summary, trained.details.get("error"))
    assert "trained twice: 200 of 200 rows differ" in trained.summary
    verdict = evaluate(load_project(project, environ=dict(os.environ)), champion_predictions="champion.csv")
    assert verdict.status is Status.PASSED, (verdict.summary, verdict.details.get("error"))
    noise = verdict.details["seed_noise"]["mae"]
    told = next(metric for metric in verdict.details["metrics"] if metric["name"] == "mae")
    assert noise["values"][0] == told["candidate"] != noise["values"][1]
    # Student's quantile of one degree of freedom; two values stand half their distance times the root of 2 apart.
    assert noise["band"] == pytest.approx(12.7062 * abs(noise["values"][0] - noise["values"][1]), rel=1e-4)
    beside = next(check for check in verdict.checks if check.name == "mae beside seed noise")
    assert (beside.status is CheckStatus.INCONCLUSIVE) == (abs(told["difference"]) <= noise["band"])
    assert "2 trainings" in beside.reason or beside.status is CheckStatus.PASSED
    assert "| Seed alone |" in comment_markdown([verdict])
