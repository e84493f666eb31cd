"""evaluate, end to end, for each kind of task: a real model, its predictions, gates, the report's figures."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from support import git

from mlcicd.core.verdict import CheckStatus, Status, Verdict
from mlcicd.stages import evaluate, train, validate_data
from mlcicd.stages.gate_self_test import self_test

from .conftest import project_at

BEGIN = """\
import shutil, warnings
warnings.simplefilter("ignore")
import numpy as np, pandas as pd
import mlflow.pyfunc
from mlflow.models import infer_signature
table = pd.read_csv("train.csv")
shutil.rmtree("model", ignore_errors=True)
"""
SKLEARN = """\
import mlflow.sklearn
mlflow.sklearn.save_model(model, "model", signature=infer_signature(X), pip_requirements=["scikit-learn"],
                          pyfunc_predict_fn=PREDICT, serialization_format="cloudpickle")
"""
MULTILABEL = """\
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
X = table[["a", "b"]]
told = [str(text).split("|") for text in table["y"]]
Y = np.array([[label in row for label in ("hot", "wet", "none")] for row in told]).astype(int)
model = OneVsRestClassifier(LogisticRegression()).fit(X, Y)
PREDICT = "predict_proba"
"""
REGRESSION = """\
from sklearn.linear_model import LinearRegression
X = table[["a", "b"]]
model = LinearRegression().fit(X, table["y"])
PREDICT = "predict"
"""
QUANTILES = """\
from sklearn.linear_model import QuantileRegressor
X = table[["a", "b"]]
fitted = [QuantileRegressor(quantile=q, alpha=0).fit(X, table["y"]) for q in (0.1, 0.5, 0.9)]

class Three(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return np.column_stack([m.predict(model_input) for m in fitted])

mlflow.pyfunc.save_model("model", python_model=Three(), signature=infer_signature(X), pip_requirements=["scikit-learn"])
"""


def project(root: Path, model: str, config: str, rows: dict[str, list[str]], **files: str) -> Path:
    for name, lines in rows.items():
        (root / f"{name}.csv").write_text("\n".join(lines) + "\n")
    (root / "train.py").write_text(BEGIN + model)
    (root / "mlcicd.yaml").write_text("version: 1\n" + config + 'train: {run: python train.py, code: ["*.py"]}\n')
    for name, text in files.items():
        (root / f"{name}.py").write_text(text)
    (root / ".gitignore").write_text(".mlcicd/\nmodel/\nmlartifacts/\nmlflow.db*\n__pycache__/\n")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "first")
    return root


def evaluated(root: Path) -> Verdict:
    for stage in (validate_data, train):
        verdict = stage(project_at(root))
        assert verdict.status is Status.PASSED, (verdict.summary, verdict.details.get("error"), verdict.checks)
    verdict = evaluate(project_at(root))
    assert verdict.status is not Status.ERROR, (verdict.summary, verdict.details.get("error"))
    return verdict


def checks(verdict: Verdict) -> dict[str, CheckStatus]:
    return {check.name: check.status for check in verdict.checks if not check.slice}


def metric(verdict: Verdict, name: str) -> dict:
    return next(m for m in verdict.details["metrics"] if m["name"] == name)


def titles(root: Path) -> str:
    return json.dumps(json.loads((root / ".mlcicd" / "verdicts" / "evaluate.json").read_text()))


@pytest.mark.slow
def test_multilabel(repository: Path) -> None:
    def table(rows: int, seed: int) -> list[str]:
        draw = random.Random(seed)
        lines = ["id,a,b,y"]
        for row in range(rows):
            a, b = draw.gauss(0, 1), draw.gauss(0, 1)
            labels = ["hot"] * (a + draw.gauss(0, 0.5) > 0) + ["wet"] * (b + draw.gauss(0, 0.5) > 0)
            lines.append(f'{row + seed * 10_000},{a:.4f},{b:.4f},"{"|".join(labels) or "none"}"')
        return lines

    config = """\
model: {name: tiny, task: multilabel, labels: [hot, wet, none]}
data: {train: train.csv, holdout: holdout.csv, target: y, ignore: [id]}
evaluate:
  gates: {f1_micro: {min: 0.7}, average_precision: {min: 0.7}, hamming_loss: {max: 0.05}}
"""
    root = project(repository, MULTILABEL + SKLEARN, config, {"train": table(400, 1), "holdout": table(500, 2)})
    verdict = evaluated(root)
    found = checks(verdict)
    assert found["f1_micro"] is CheckStatus.PASSED
    assert found["average_precision"] in (CheckStatus.FAILED, CheckStatus.INCONCLUSIVE, CheckStatus.PASSED)
    assert found["hamming_loss"] is CheckStatus.FAILED
    assert 0.7 < metric(verdict, "f1_micro")["candidate"] < 1
    assert "F1 by label" in titles(root)


@pytest.mark.slow
def test_ranking_is_judged_by_query(repository: Path) -> None:
    def table(queries: int, seed: int) -> list[str]:
        draw = random.Random(seed)
        lines = ["query,a,b,y"]
        for query in range(queries):
            for _ in range(8):
                a, b = draw.gauss(0, 1), draw.gauss(0, 1)
                lines.append(f"q{query + 1000 * seed},{a:.4f},{b:.4f},{max(0, round(1 + a + draw.gauss(0, 0.5)))}")
        return lines

    config = """\
model: {name: tiny, task: ranking}
data: {train: train.csv, holdout: holdout.csv, target: y, group: query}
evaluate:
  gates: {"ndcg@5": {min: 0.7}, map: {min: 0.99}}
"""
    root = project(repository, REGRESSION + SKLEARN, config, {"train": table(60, 1), "holdout": table(80, 2)})
    verdict = evaluated(root)
    assert checks(verdict)["ndcg@5"] is CheckStatus.PASSED
    assert checks(verdict)["map"] is CheckStatus.FAILED
    assert metric(verdict, "map")["units"] == "80 groups by query"
    assert "80 groups by query" in next(c.reason for c in verdict.checks if c.name == "map")
    # Trials of the gates rank, too: bad models are made of scores within queries.
    settings = root / "mlcicd.yaml"
    settings.write_text(
        settings.read_text().replace("map: {min: 0.99}", "map: {min: 0.8, vs_champion: {margin: 0.02}}")
    )
    trial = self_test(project_at(root))
    told = {check.name: check for check in trial.checks}
    assert trial.status is Status.PASSED, (trial.summary, trial.checks)
    assert told["identical"].observed == "passed"
    for kind in ("label-shuffled", "constant", "NaN everywhere"):
        assert told[kind].status is CheckStatus.PASSED, told[kind]
    assert "map vs champion" in told["label-shuffled"].reason
    assert trial.details["rows"] == 640


@pytest.mark.slow
def test_forecast_scales_by_the_training_datas_naive_error(repository: Path) -> None:
    def table(begin: int, end: int) -> list[str]:
        lines = ["series,day,a,b,y"]
        for series in range(3):
            draw = random.Random(series)
            values = [draw.gauss(10 * series, 1) + 5 * (day % 7 == 0) for day in range(400)]
            for day in range(begin, end):
                lines.append(f"s{series},{day},{10 * series},{int(day % 7 == 0)},{values[day]:.4f}")
        return lines

    config = """\
model: {name: tiny, task: forecast}
data: {train: train.csv, holdout: holdout.csv, target: y, group: series, time: day, season: 7, ignore: [series, day]}
evaluate:
  gates: {mase: {max: 0.95}, smape: {max: 2}}
"""
    root = project(repository, REGRESSION + SKLEARN, config, {"train": table(0, 200), "holdout": table(200, 400)})
    verdict = evaluated(root)
    assert checks(verdict)["mase"] is CheckStatus.PASSED
    found = metric(verdict, "mase")
    # The naive forecast's error is that of the difference of two noises, so sqrt(2) times as large.
    assert found["candidate"] == pytest.approx(2**-0.5, abs=0.1)
    assert found["units"] == "20 blocks of time"


@pytest.mark.slow
def test_quantiles_weights_and_groups(repository: Path) -> None:
    def table(rows: int, seed: int) -> list[str]:
        draw = random.Random(seed)
        lines = ["user,w,side,a,b,y"]
        for row in range(rows):
            a, b = draw.gauss(0, 1), draw.gauss(0, 1)
            side = "left" if row % 50 < 20 else "right"
            lines.append(f"u{row % 50 + seed * 100},{1 + row % 3},{side},{a:.4f},{b:.4f},{a + draw.gauss(0, 1):.4f}")
        return lines

    config = """\
model: {name: tiny, task: quantile, quantiles: [0.1, 0.5, 0.9]}
data: {train: train.csv, holdout: holdout.csv, target: y, group: user, weight: w, ignore: [user, w, side]}
evaluate:
  metrics:
    over: {function: "costs:over", greater_is_better: false, columns: [a]}
    broken: {function: "costs:broken", greater_is_better: false}
  gates:
    interval_coverage@0.8: {min: 0.7, max: 0.9}
    pinball@0.9: {max: 0.01}
    interval_score@0.5: {max: 10}
    over: {max: 2}
    broken: {max: 2}
  slices:
    - {by: side, metric: over, max: 2, min_rows: 250}
    - {by: side, metric: mae, max: 0.01, min_rows: 200}
"""
    costs = """\
import numpy as np
def over(y, predictions, a, sample_weight):
    assert len(a) == len(y) == len(sample_weight)
    return np.average(np.maximum(predictions - y, 0), weights=sample_weight)
def broken(y, predictions, sample_weight=None):
    raise RuntimeError("no such price list")
"""
    root = project(repository, QUANTILES, config, {"train": table(300, 1), "holdout": table(600, 2)}, costs=costs)
    verdict = evaluated(root)
    found = checks(verdict)
    assert found["interval_coverage@0.8"] is CheckStatus.PASSED
    assert found["pinball@0.9"] is CheckStatus.FAILED
    assert found["interval_score@0.5"] is CheckStatus.FAILED
    assert "no 0.25 quantile" in next(c.reason for c in verdict.checks if c.name == "interval_score@0.5")
    assert found["over"] is CheckStatus.PASSED
    assert 0 < metric(verdict, "over")["candidate_interval"][0] < metric(verdict, "over")["candidate"]
    assert found["broken"] is CheckStatus.FAILED
    reason = next(c.reason for c in verdict.checks if c.name == "broken")
    assert "no such price list (costs.py, line 6)" in reason
    assert "50 groups by user" in metric(verdict, "over")["method"]
    sides = {(check.name, check.slice): check for check in verdict.checks if check.slice}
    assert len(sides) == 4
    left, right = (sides["over", f"side={side}"] for side in ("left", "right"))
    # 240 rows are fewer than this gate asks for, and enough for the other.
    assert (left.status, right.status) == (CheckStatus.SKIPPED, CheckStatus.PASSED)
    assert "30 groups by user" in right.reason or right.interval is not None
    assert sides["mae", "side=left"].status is CheckStatus.FAILED
    assert "Coverage of quantiles" in titles(root)
