"""evaluate --predictions: models that are known by what they answered, and by nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, roc_auc_score

from mlcicd.core.digests import digest_file
from mlcicd.core.verdict import Check, CheckStatus, Status, Verdict
from mlcicd.stages import evaluate, register

from .conftest import REGISTRY, configure, project_at, scores_of, write

VERSUS = "roc_auc: {vs_champion: {margin: 0.01}}"


def judge(root: Path, candidate: str = "candidate.parquet", champion: str = "champion.parquet", **more: Any) -> Verdict:
    return evaluate(project_at(root), predictions=candidate, champion_predictions=champion, **more)


def check(verdict: Verdict, name: str) -> Check:
    return next(c for c in verdict.checks if c.name == name)


def labels(root: Path) -> np.ndarray:
    return pd.read_parquet(root / "holdout.parquet")["y"].to_numpy()


def test_a_better_model_passes_and_its_files_are_the_subjects(root: Path) -> None:
    configure(root, VERSUS)
    verdict = judge(root)
    assert verdict.status is Status.PASSED, (verdict.summary, verdict.details.get("error"))
    table, champion = (pd.read_parquet(root / f"{n}.parquet") for n in ("candidate", "champion"))
    gate = check(verdict, "roc_auc vs champion")
    expected = roc_auc_score(labels(root), table["score"]) - roc_auc_score(labels(root), champion["score"])
    assert gate.observed == pytest.approx(expected, abs=1e-12)
    for what in ("candidate", "champion"):
        subject = verdict.subject("predictions", what)
        assert subject is not None
        assert subject.digest == digest_file(root / f"{what}.parquet")
    assert verdict.details["predictions"]["candidate"]["matched_by"] == "keys id"


def test_a_worse_model_fails(root: Path) -> None:
    configure(root, VERSUS)
    verdict = judge(root, candidate="champion.parquet", champion="candidate.parquet")
    assert verdict.exit_code == 1
    assert "roc_auc" in verdict.summary


def test_the_command_line_takes_the_files(root: Path) -> None:
    from click.testing import CliRunner

    from mlcicd.cli import cli

    configure(root, VERSUS)
    arguments = ["--predictions", "candidate.parquet", "--champion-predictions", "champion.parquet"]
    done = CliRunner().invoke(cli, ["evaluate", "--working-directory", str(root), *arguments])
    assert done.exit_code == 0, done.output


def test_a_shuffled_file_is_brought_into_order_by_its_keys(root: Path) -> None:
    table = pd.read_parquet(root / "candidate.parquet")
    table.sample(frac=1, random_state=3).to_csv(root / "shuffled.csv", index=False)
    expected = roc_auc_score(labels(root), table["score"])
    assert check(judge(root, candidate="shuffled.csv"), "roc_auc").observed == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_every_format_without_keys_goes_by_the_order_of_rows(root: Path, suffix: str) -> None:
    table = pd.read_parquet(root / "candidate.parquet").drop(columns="id")
    path = root / f"plain.{suffix}"
    if suffix == "parquet":
        table.to_parquet(path)
    elif suffix == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_json(path, orient="records", lines=True, double_precision=15)
    verdict = judge(root, candidate=path.name)
    assert verdict.status is Status.PASSED, verdict.summary
    assert verdict.details["predictions"]["candidate"]["matched_by"] == "row order"
    expected = roc_auc_score(labels(root), table["score"])
    assert check(verdict, "roc_auc").observed == pytest.approx(expected, abs=1e-9)


def damaged(table: pd.DataFrame, how: str) -> pd.DataFrame:
    match how:
        case "missing":
            return table.iloc[1:]
        case "extra":
            return pd.concat([table, table.iloc[:1].assign(id=-7)])
        case "doubled":
            return pd.concat([table, table.iloc[:1]])
        case "no key":
            return table.assign(id=table["id"].astype("Int64").where(table["id"] != 1003))
        case "text key":
            return table.assign(id="x" + table["id"].astype(str))
        case "too short":
            return table.drop(columns="id").iloc[:-1]
        case "no answers":
            return table[["id"]]
        case "text":
            return table.assign(score=table["score"].astype(str) + "%")
        case "empty":
            return table.iloc[:0]
    raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "rows of the holdout without a prediction: 1 (id=1000)"),
        ("extra", "predictions of rows that the holdout does not have: 1 (id=-7)"),
        ("doubled", "the predictions: keys of more than one row: 1 (id=1000)"),
        ("no key", "rows without a key: 1"),
        ("text key", "the key 'id' is BIGINT in the holdout and VARCHAR in the predictions"),
        ("too short", "the predictions have 1,999 rows, and the holdout has 2,000"),
        ("no answers", "there is no column of predictions for a binary model"),
        ("text", "the column 'score' holds something else than numbers"),
        ("empty", "rows of the holdout without a prediction: 2,000"),
    ],
)
def test_rows_that_do_not_fit_are_an_input_error(root: Path, how: str, said: str) -> None:
    damaged(pd.read_parquet(root / "candidate.parquet"), how).to_parquet(root / "bad.parquet")
    verdict = judge(root, candidate="bad.parquet")
    assert verdict.exit_code == 4, verdict.summary
    assert said in verdict.summary
    assert "bad.parquet" in verdict.summary


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\x00" * 100])
def test_a_broken_file_is_an_input_error(root: Path, content: bytes) -> None:
    (root / "bad.parquet").write_bytes(content)
    assert judge(root, candidate="bad.parquet").exit_code == 4
    assert judge(root, candidate="nowhere.parquet").exit_code == 4


def test_labels_in_the_file_show_that_its_rows_are_others(root: Path) -> None:
    table = pd.read_parquet(root / "candidate.parquet").drop(columns="id").assign(y=labels(root))
    table.to_parquet(root / "labelled.parquet")
    assert judge(root, candidate="labelled.parquet").status is Status.PASSED
    table.iloc[::-1].to_parquet(root / "labelled.parquet")
    verdict = judge(root, candidate="labelled.parquet")
    assert verdict.exit_code == 4
    assert "have another 'y' than the holdout" in verdict.summary


@pytest.mark.parametrize("gate", ["roc_auc: {min: 0.7}", VERSUS, "roc_auc: {vs_champion: {superiority: true}}"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_candidate_with_one_nan_never_passes(root: Path, gate: str, value: float) -> None:
    configure(root, gate)
    table = pd.read_parquet(root / "candidate.parquet")
    table.loc[17, "score"] = value
    table.to_parquet(root / "nan.parquet")
    verdict = judge(root, candidate="nan.parquet")
    assert verdict.status is Status.FAILED
    assert "not finite" in verdict.summary


def test_a_champion_with_a_nan_is_no_champion_to_beat(root: Path) -> None:
    configure(root, VERSUS)
    table = pd.read_parquet(root / "champion.parquet")
    table.loc[17, "score"] = np.nan
    table.to_parquet(root / "nan.parquet")
    verdict = judge(root, champion="nan.parquet")
    assert verdict.status is Status.FAILED
    assert "of the champion can not be computed" in verdict.summary


def test_a_missing_baseline_bootstraps_or_fails_and_alone_is_ungated(root: Path) -> None:
    configure(root, "roc_auc: {min: 0.7, vs_champion: {margin: 0.01}}", uri=REGISTRY)
    verdict = evaluate(project_at(root), predictions="candidate.parquet")
    assert verdict.status is Status.PASSED, verdict.summary
    assert check(verdict, "roc_auc vs champion").status is CheckStatus.SKIPPED
    configure(root, VERSUS, uri=REGISTRY)
    assert evaluate(project_at(root), predictions="candidate.parquet").status is Status.UNGATED
    configure(root, "roc_auc: {min: 0.7}\n  no_champion: fail", uri=REGISTRY)
    assert evaluate(project_at(root), predictions="candidate.parquet").status is Status.FAILED


def test_a_negative_margin_is_refused_on_its_line(root: Path) -> None:
    from mlcicd.core.errors import ConfigError

    with pytest.raises(ConfigError, match=r"mlcicd.yaml:13: evaluate.gates.roc_auc.vs_champion.margin") as caught:
        configure(root, "roc_auc: {vs_champion: {margin: -0.01}}")
    assert caught.value.exit_code == 2


def test_a_margin_lets_a_slightly_worse_model_pass(root: Path) -> None:
    """Non-inferiority: what MLflow's thresholds can not say."""
    table = pd.read_parquet(root / "champion.parquet")
    draw = np.random.default_rng(0)
    table["score"] = (table["score"] + 0.005 * draw.normal(size=len(table))).clip(0, 1)
    table.to_parquet(root / "near.parquet")
    configure(root, "roc_auc: {vs_champion: {margin: 0.02}}")
    assert judge(root, candidate="near.parquet").status is Status.PASSED
    configure(root, "roc_auc: {vs_champion: {superiority: true}}")
    assert judge(root, candidate="near.parquet").status is not Status.PASSED


def test_budgets_of_a_model_that_is_not_here_are_not_kept(root: Path) -> None:
    configure(root, "roc_auc: {min: 0.7}\n    model_size_mb: {max: 1000}\n    latency_p95_ms: {max: 1e9}")
    verdict = judge(root)
    assert verdict.status is Status.FAILED
    for name in ("model_size_mb", "latency_p95_ms"):
        assert check(verdict, name).status is CheckStatus.FAILED
        assert "could not be measured" in check(verdict, name).reason


def test_bare_predictions_are_not_registered(root: Path) -> None:
    assert judge(root).status is Status.PASSED
    refused = register(project_at(root))
    assert refused.status is Status.FAILED
    assert any("does not come from a run" in c.reason for c in refused.checks)


def test_no_registry_is_needed_when_both_are_files(root: Path) -> None:
    verdict = judge(root)
    assert verdict.status is Status.PASSED, verdict.summary
    assert evaluate(project_at(root), predictions="candidate.parquet").exit_code == 5


def test_two_candidates_at_once_are_refused(root: Path) -> None:
    assert judge(root, model="somewhere").exit_code == 2


def test_classes_by_columns_in_any_order(root: Path) -> None:
    draw = np.random.default_rng(8)
    y = draw.choice(["ant", "bee", "cow"], 600)
    pd.DataFrame({"id": range(600), "y": y}).to_parquet(root / "holdout.parquet")
    raw = draw.random((600, 3)) + 0.8 * (y[:, None] == np.array(["ant", "bee", "cow"]))
    share = raw / raw.sum(axis=1, keepdims=True)
    table = pd.DataFrame({"id": range(600), "cow": share[:, 2], "ant": share[:, 0], "bee": share[:, 1]})
    table.columns = ["id", *(f"p:{name}" for name in table.columns[1:])]
    table.to_parquet(root / "candidate.parquet")
    configure(root, "log_loss: {max: 2}", "multiclass", more="  predictions: {prefix: 'p:'}\n")
    verdict = judge(root, champion="candidate.parquet")
    assert verdict.status is Status.PASSED, verdict.summary
    assert check(verdict, "log_loss").observed == pytest.approx(log_loss(y, share), abs=1e-12)


def test_numeric_classes_and_labels_beside_scores(root: Path) -> None:
    y = labels(root)
    score = scores_of(y, 1.0, 2)
    low = (score > 0.2).astype(int)
    table = pd.DataFrame({"probability_1": score, "probability_0": 1 - score, "prediction": low})
    table.to_parquet(root / "both.parquet")
    configure(root, "roc_auc: {min: 0.7}\n    accuracy: {min: 0.5}")
    verdict = judge(root, candidate="both.parquet")
    assert check(verdict, "roc_auc").observed == pytest.approx(roc_auc_score(y, score), abs=1e-12)
    assert check(verdict, "accuracy").observed == pytest.approx(accuracy_score(y, low), abs=1e-12)


def test_one_class_alone_is_ambiguous(root: Path) -> None:
    table = pd.read_parquet(root / "candidate.parquet").rename(columns={"score": "probability_1"})
    table.to_parquet(root / "one.parquet")
    verdict = judge(root, candidate="one.parquet")
    assert verdict.exit_code == 4
    assert "call it 'score'" in verdict.details["error"]["remedy"]


def test_a_regression_by_named_columns(root: Path) -> None:
    draw = np.random.default_rng(4)
    y = draw.normal(size=500)
    seen = y + 0.1 * draw.normal(size=500)
    pd.DataFrame({"id": range(500), "y": y}).to_csv(root / "holdout.csv", index=False)
    pd.DataFrame({"yhat": seen, "flight": range(500)}).to_csv(root / "candidate.csv", index=False)
    configure(root, "mae: {max: 0.2}", "regression", "holdout.csv", "  predictions: {prediction: yhat}\n")
    verdict = judge(root, candidate="candidate.csv", champion="candidate.csv")
    assert verdict.status is Status.PASSED, verdict.summary
    assert check(verdict, "mae").observed == pytest.approx(mean_absolute_error(y, seen), abs=1e-9)


def test_configured_keys_must_be_there(root: Path) -> None:
    configure(root, more="  predictions: {keys: [id, a]}\n")
    verdict = judge(root)
    assert verdict.exit_code == 4
    assert "no column 'a', which is a key" in verdict.summary


def test_identical_predictions_are_not_inferior_at_any_margin(root: Path) -> None:
    configure(root, "roc_auc: {vs_champion: {margin: 0}}")
    write(root, "again.parquet", labels(root), noise=1.5, seed=1)
    assert judge(root, candidate="again.parquet").status is Status.PASSED
