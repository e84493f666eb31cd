"""The example from end to end, with its real data: what a user gets who follows its README."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

TABLES = ["train", "holdout", "current"]
# Columns of the source that are known only once the flight has left, or landed.
AFTER_DEPARTURE = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum"}
WEATHER_FEATURES = [
    "carrier", "origin", "dest", "distance", "sched_dep_minutes", "day_of_week", "hourly_departures",
    "temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib",
]  # fmt: skip

ANSWER = """
import json, sys
import mlflow.pyfunc
from mlflow.pyfunc.scoring_server import infer_and_parse_data
model = mlflow.pyfunc.load_model("model")
schema = model.metadata.get_input_schema()
bodies = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")][:int(sys.argv[2])]
records = [{"dataframe_records": body["dataframe_records"]} for body in bodies]
print(json.dumps([model.predict(infer_and_parse_data(body, schema)).tolist() for body in records]))
"""

START_RUN = """
import mlflow
print(mlflow.MlflowClient().create_run(mlflow.create_experiment("flights")).info.run_id)
"""

READ_RUN = """
import json, sys, mlflow
run = mlflow.MlflowClient().get_run(sys.argv[1])
print(json.dumps({"status": run.info.status, "params": run.data.params, "metrics": run.data.metrics}))
"""


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def answers(run: Callable[..., str], project: Path, requests: Path, count: int) -> list[list[list[float]]]:
    """What the saved model answers to the first `count` requests, each in its MLflow form."""
    return list(json.loads(run(project, sys.executable, "-c", ANSWER, str(requests), str(count))))


def smoke_records(project: Path) -> list[dict[str, Any]]:
    """The records of smoke.jsonl. Compare within rounding: pandas' CSV reader differs between versions."""
    lines = (project / "smoke.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["dataframe_records"][0] for line in lines]


def change_params(project: Path, section: str, **values: Any) -> None:
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    params[section].update(values)
    path.write_text(yaml.safe_dump(params), encoding="utf-8")


@pytest.fixture(scope="module")
def tables(made: Path) -> dict[str, pd.DataFrame]:
    return {name: pd.read_parquet(made / "data" / f"{name}.parquet") for name in TABLES}


def test_dvc_pipeline_names_what_there_is(example: Path) -> None:
    stages = yaml.safe_load((example / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    params = yaml.safe_load((example / "params.yaml").read_text(encoding="utf-8"))
    made_by_stages = {out for stage in stages.values() for out in stage["outs"]}
    assert list(stages) == ["prepare", "train"]
    for name, stage in stages.items():
        assert stage["cmd"] == f"python {name}.py"
        assert stage["params"] == [name]
        assert name in params
        for needed in stage["deps"]:
            assert needed in made_by_stages or (example / needed).is_file(), needed


@pytest.mark.slow
def test_dvc_repro_has_nothing_left_to_do(made: Path, run: Callable[..., str]) -> None:
    assert "up to date" in run(made, sys.executable, "-m", "dvc", "status")
    untracked = run(made, "git", "status", "--short", "--untracked-files=all")
    assert not {"data", "model", "metrics.json"} & {line[3:].split("/")[0] for line in untracked.splitlines()}


@pytest.mark.slow
def test_tables_have_the_promised_columns_and_nothing_from_after_departure(
    tables: dict[str, pd.DataFrame], prepare: ModuleType
) -> None:
    for rows in tables.values():
        assert list(rows.columns) == ["flight_id", "departure", "delayed", *prepare.FEATURES]
        assert not AFTER_DEPARTURE & set(rows.columns)
        assert set(rows["delayed"].unique()) == {0, 1}


@pytest.mark.slow
def test_no_column_gives_the_target_away(tables: dict[str, pd.DataFrame], prepare: ModuleType) -> None:
    rows = tables["train"]
    power = {
        name: abs(roc_auc_score(rows["delayed"], rows[name].fillna(rows[name].median())) - 0.5)
        for name in prepare.FEATURES
        if name not in prepare.NAMES
    }
    # The best honest column, the time of day, has 0.10; dep_delay would have 0.45.
    assert max(power.values()) < 0.2, power


@pytest.mark.slow
def test_a_flight_is_in_one_table_once_and_time_goes_forward(tables: dict[str, pd.DataFrame]) -> None:
    keys = pd.concat([rows["flight_id"] for rows in tables.values()])
    assert keys.notna().all() and keys.is_unique
    for earlier, later in pairwise(TABLES):
        assert tables[earlier]["departure"].max() < tables[later]["departure"].min()


@pytest.mark.slow
def test_only_gusts_are_missing_from_the_archive(tables: dict[str, pd.DataFrame]) -> None:
    for rows in tables.values():
        missing = rows.columns[rows.isna().any()]
        assert missing.tolist() == ["wind_gust"]


@pytest.mark.slow
def test_live_requests_lack_readings_at_their_natural_rate(made: Path, prepare: ModuleType) -> None:
    lines = (made / "data" / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    records = pd.DataFrame([record for line in lines for record in json.loads(line)["dataframe_records"]])
    assert len(records) == 3000
    assert list(records.columns) == prepare.FEATURES
    assert 0.05 < records["pressure"].isna().mean() < 0.25
    assert records[prepare.SCHEDULE].notna().all().all()


@pytest.mark.slow
def test_smoke_requests_are_answered_as_they_expect(made: Path, run: Callable[..., str]) -> None:
    smoke = [json.loads(line) for line in (made / "smoke.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(smoke) == 20
    for case, answer in zip(smoke, answers(run, made, made / "smoke.jsonl", 20), strict=True):
        expected = case["expect"]
        assert [len(answer), len(answer[0])] == expected["shape"]
        assert all(expected["min"] <= value <= expected["max"] for value in answer[0])
        assert sum(answer[0]) == pytest.approx(1.0)


@pytest.mark.slow
def test_same_parameters_give_the_same_tables_and_answers(
    made: Path, new_project: Callable[[], Path], run: Callable[..., str]
) -> None:
    again = new_project()
    run(again, sys.executable, "prepare.py", "--smoke", "20")
    run(again, sys.executable, "train.py")
    assert digests(again / "data") == digests(made / "data")
    assert smoke_records(again) == [pytest.approx(record) for record in smoke_records(made)]
    assert (again / "metrics.json").read_bytes() == (made / "metrics.json").read_bytes()
    requests = made / "data" / "requests.jsonl"
    assert answers(run, again, requests, 50) == answers(run, made, requests, 50)


@pytest.mark.slow
def test_boosting_with_weather_beats_the_baseline_and_takes_live_gaps(
    made: Path, new_project: Callable[[], Path], run: Callable[..., str]
) -> None:
    project = new_project()
    change_params(project, "train", model="hist_gradient_boosting", features=WEATHER_FEATURES)
    (project / "data").symlink_to(made / "data")
    tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}"}
    run_id = run(project, sys.executable, "-c", START_RUN, **tracking).strip()
    run(project, sys.executable, "train.py", MLFLOW_RUN_ID=run_id, **tracking)
    better, baseline = (json.loads((at / "metrics.json").read_text(encoding="utf-8")) for at in (project, made))
    assert better["roc_auc"] > baseline["roc_auc"] + 0.05
    assert better["brier"] < baseline["brier"]

    logged = json.loads(run(project, sys.executable, "-c", READ_RUN, run_id, **tracking))
    assert logged["status"] == "RUNNING", "whoever started the run ends it"
    assert logged["params"]["model"] == "hist_gradient_boosting"
    assert logged["metrics"]["holdout_roc_auc"] == pytest.approx(better["roc_auc"])

    requests = made / "data" / "requests.jsonl"
    lines = requests.read_text(encoding="utf-8").splitlines()[:300]
    gaps = [json.loads(line)["dataframe_records"][0]["pressure"] is None for line in lines]
    assert any(gaps)
    assert all(0.0 <= late <= 1.0 for [[_, late]] in answers(run, project, requests, 300))
