"""evaluate --predictions for every further kind of task: files alone, without a model, registry or section `train`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support import git

from mlcicd.core.verdict import CheckStatus, Status, Verdict
from mlcicd.stages import evaluate

from .conftest import project_at

Rows = list[dict[str, str]]


def write(path: Path, rows: Rows) -> None:
    text = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")


def judged(
    root: Path, config: str, rows: Rows, candidate: Rows, champion: Rows, training: Rows | None = None
) -> Verdict:
    """The evaluation of two files of predictions on a holdout."""
    write(root / "train.csv", training or rows[:20])
    write(root / "holdout.csv", rows)
    write(root / "candidate.csv", candidate)
    write(root / "champion.csv", champion)
    (root / "mlcicd.yaml").write_text("version: 1\n" + config)
    (root / ".gitignore").write_text(".mlcicd/\n")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "first")
    verdict = evaluate(project_at(root), predictions="candidate.csv", champion_predictions="champion.csv")
    assert verdict.status is not Status.ERROR, (verdict.summary, verdict.details.get("error"))
    assert [s.name for s in verdict.subjects if s.kind == "predictions"] == ["candidate", "champion"]
    return verdict


def found(verdict: Verdict) -> dict[str, CheckStatus]:
    return {check.name: check.status for check in verdict.checks}


def metric(verdict: Verdict, name: str) -> dict:
    return next(m for m in verdict.details["metrics"] if m["name"] == name)


def test_multilabel_files(repository: Path) -> None:
    draw = random.Random(1)
    rows, good, bad = [], [], []
    for row in range(400):
        signal = {label: draw.gauss(0, 1) for label in ("hot", "wet")}
        true = [label for label, z in signal.items() if z > 0]
        rows.append({"id": str(row), "y": "|".join(true or ["none"])})
        for out, noise in ((good, 0.2), (bad, 1.5)):
            said = {k: 0.5 + 0.2 * max(-2, min(2, z + draw.gauss(0, noise))) for k, z in signal.items()}
            said["none"] = (1 - said["hot"]) * (1 - said["wet"])
            columns = {f"probability_{label}": f"{p:.5f}" for label, p in said.items()}
            out.append({"id": str(row), **columns})
    config = """\
model: {name: tags, task: multilabel, labels: [wet, none, hot]}
data: {train: train.csv, holdout: holdout.csv, target: y, ignore: [id]}
evaluate:
  predictions: {keys: [id]}
  gates: {f1_micro: {min: 0.75, vs_champion: {}}, roc_auc: {min: 0.9}, hamming_loss: {max: 0.01}}
"""
    # Rows in another order are matched by their key; columns by their names, not by their places.
    verdict = judged(repository, config, rows, good[::-1], bad)
    assert found(verdict)["f1_micro"] is CheckStatus.PASSED
    assert found(verdict)["f1_micro vs champion"] is CheckStatus.PASSED
    assert found(verdict)["roc_auc"] is CheckStatus.PASSED
    assert found(verdict)["hamming_loss"] is CheckStatus.FAILED
    assert metric(verdict, "f1_micro")["difference_interval"][0] > 0.03


def test_quantile_files(repository: Path) -> None:
    draw = random.Random(2)
    rows, good, bad = [], [], []
    for row in range(500):
        x = draw.gauss(0, 1)
        rows.append({"id": str(row), "y": f"{x + draw.gauss(0, 1):.5f}"})
        for out, width in ((good, 1.28), (bad, 0.4)):
            levels = {"quantile_0.9": x + width, "quantile_0.1": x - width, "quantile_0.5": x}
            out.append({k: f"{v:.5f}" for k, v in levels.items()})
    config = """\
model: {name: demand, task: quantile, quantiles: [0.1, 0.5, 0.9]}
data: {train: train.csv, holdout: holdout.csv, target: y, ignore: [id]}
evaluate:
  gates:
    pinball: {vs_champion: {superiority: true}}
    interval_coverage@0.8: {min: 0.72, max: 0.88}
    quantile_crossing: {max: 0.02}
"""
    verdict = judged(repository, config, rows, good, bad)
    assert set(found(verdict).values()) == {CheckStatus.PASSED}
    assert 0.3 < metric(verdict, "interval_coverage@0.8")["champion"] < 0.5
    # The columns were matched by their names: in the file's own order, most rows would cross.
    assert metric(verdict, "quantile_crossing")["candidate"] == 0


def test_forecast_files(repository: Path) -> None:
    draw = random.Random(3)

    def series(begin: int, end: int) -> Rows:
        return [
            {"shop": shop, "day": str(day), "y": f"{10 + day % 7 + draw.gauss(0, 0.5):.4f}"}
            for shop in ("north", "south")
            for day in range(begin, end)
        ]

    training, rows = series(0, 70), series(70, 170)
    good = [{"prediction": f"{10 + int(r['day']) % 7:.4f}"} for r in rows]
    flat = [{"prediction": "13"} for _ in rows]
    config = """\
model: {name: sales, task: forecast}
data: {train: train.csv, holdout: holdout.csv, target: y, group: shop, time: day}
evaluate:
  gates: {mase: {max: 0.5, vs_champion: {}}, mae: {max: 0.1}}
"""
    verdict = judged(repository, config, rows, good, flat, training)
    assert found(verdict)["mase"] is CheckStatus.PASSED
    assert found(verdict)["mase vs champion"] is CheckStatus.PASSED
    assert found(verdict)["mae"] is CheckStatus.FAILED
    assert metric(verdict, "mase")["units"] == "10 blocks of time"


def test_ranking_files(repository: Path) -> None:
    draw = random.Random(4)
    rows, good, bad = [], [], []
    for query in range(60):
        for document in range(8):
            z = draw.gauss(0, 1)
            rows.append({"query": f"q{query}", "doc": str(document), "y": str(max(0, round(z + 1)))})
            for out, noise in ((good, 0.1), (bad, 2.0)):
                out.append({"query": f"q{query}", "doc": str(document), "score": f"{z + draw.gauss(0, noise):.5f}"})
    config = """\
model: {name: search, task: ranking}
data: {train: train.csv, holdout: holdout.csv, target: y, group: query, ignore: [doc]}
evaluate:
  predictions: {keys: [query, doc]}
  gates: {"ndcg@5": {min: 0.9, vs_champion: {}}, map: {min: 0.5}}
"""
    verdict = judged(repository, config, rows, sorted(good, key=lambda r: r["score"]), bad)
    assert set(found(verdict).values()) == {CheckStatus.PASSED}
    assert metric(verdict, "map")["units"] == "60 groups by query"
    assert metric(verdict, "ndcg@5")["champion"] < 0.9


MINIMAL = """\
version: 1
model: {name: tiny, task: regression}
data: {train: train.csv, holdout: holdout.csv, target: y}
evaluate: {gates: {mae: {max: 1}}}
"""


def cli(root: Path, *arguments: str) -> Result:
    from mlcicd.cli import cli as command

    return CliRunner().invoke(command, [*arguments, "--working-directory", str(root)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train",), "there is no section `train`"),
        (("evaluate",), "mlcicd.yaml has no section `train`, and no option names a model"),
    ],
)
def test_without_a_section_train_what_needs_one_says_so(
    repository: Path, arguments: tuple[str, ...], said: str
) -> None:
    write(repository / "train.csv", [{"y": "1"}])
    write(repository / "holdout.csv", [{"y": "1"}])
    (repository / "mlcicd.yaml").write_text(MINIMAL)
    done = cli(repository, *arguments)
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert "--predictions FILE" in done.output


def test_an_empty_section_train_is_still_an_error(repository: Path) -> None:
    (repository / "mlcicd.yaml").write_text(MINIMAL + "train: {artifact: model}\n")
    done = cli(repository, "train")
    assert (done.exit_code, "it needs `run` or `estimator`" in done.output) == (2, True)


@pytest.mark.parametrize(
    "section", ["slices: [{by: carier, metric: mae, max: 3}]", "fairness: [{by: carier, metric: mae, max: 3}]"]
)
def test_a_column_that_is_misspelled_is_told_with_its_line_before_anything_is_asked(
    repository: Path, section: str
) -> None:
    rows = [{"y": "1", "carrier": "UA"}]
    write(repository / "train.csv", rows)
    write(repository / "holdout.csv", rows)
    head = MINIMAL.replace("evaluate: {gates: {mae: {max: 1}}}\n", "evaluate:\n  gates: {mae: {max: 1}}\n")
    (repository / "mlcicd.yaml").write_text(f"{head}  {section}\n")
    number = head.count("\n") + 1
    done = cli(repository, "evaluate", "--predictions", "none.csv")
    assert done.exit_code == 2, done.output
    assert "the holdout has no column 'carier'; did you mean 'carrier'?" in done.output
    assert f"mlcicd.yaml:{number}" in done.output


def test_evaluate_before_train_says_what_to_run(repository: Path) -> None:
    write(repository / "train.csv", [{"y": "1"}])
    write(repository / "holdout.csv", [{"y": "1"}])
    (repository / "mlcicd.yaml").write_text(MINIMAL + "train: {run: python train.py}\n")
    done = cli(repository, "evaluate")
    assert done.exit_code == 4, done.output
    assert "there is no model to evaluate: `mlcicd train` has not run here" in done.output
    assert "run `mlcicd train` first" in done.output
    assert "--predictions FILE" in done.output


def test_values_of_a_sensitive_column_stand_nowhere_in_an_evaluation(repository: Path) -> None:
    draw = random.Random(5)
    rows, good, bad = [], [], []
    for row in range(400):
        diagnosis, y = draw.choice(["plague", "gout"]), draw.gauss(0, 1)
        rows.append({"id": str(row), "diagnosis": diagnosis, "ward": draw.choice("AB"), "y": f"{y:.4f}"})
        good.append({"id": str(row), "prediction": f"{y + draw.gauss(0, 0.2):.4f}"})
        # The candidate is worse for one diagnosis alone.
        bad.append({"id": str(row), "prediction": f"{y + draw.gauss(0, 2.0 if diagnosis == 'plague' else 0.2):.4f}"})
    columns = "{y: {type: float}, diagnosis: {type: string SENSITIVE}}"
    config = MINIMAL.partition("\n")[2].replace("target: y}", "target: y, ignore: [id], schema: schema.yaml}")
    for sensitive in (False, True):
        hidden = ", sensitive: true" if sensitive else ""
        (repository / "schema.yaml").write_text("version: 1\ncolumns: " + columns.replace(" SENSITIVE", hidden) + "\n")
        verdict = judged(repository, config, rows, bad, good)
        text = verdict.model_dump_json()
        assert ("plague" in text) == ("diagnosis" in text) == (not sensitive)
