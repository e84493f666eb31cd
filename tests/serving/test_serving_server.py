"""The model server, over real HTTP and with real MLflow models."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests

SERVER = Path(__file__).parent.parent.parent / "mlcicd" / "serving" / "server"


@pytest.fixture(scope="session")
def sklearn(models, launch):
    return launch(models / "sklearn", "--max-body-bytes", "20000")


@pytest.fixture(scope="session")
def scripted(models, launch):
    return launch(models / "scripted-1", "--timeout-s", "0.3", "--max-pending", "2")


def _row(x, word="plain"):
    return {"dataframe_records": [{"x": x, "word": word}]}


@pytest.fixture(scope="session")
def golden(models):
    table = np.loadtxt(models / "sklearn-golden.csv")
    return table[:, :3].tolist(), [int(value) for value in table[:, 3]]


@pytest.mark.parametrize("form", ["dataframe_split", "dataframe_records", "instances", "inputs"])
def test_every_mlflow_format_gives_the_models_own_answers(sklearn, golden, form):
    rows, expected = golden
    columns = ["a", "b", "c"]
    body = {
        "dataframe_split": {"columns": columns, "data": rows},
        "dataframe_records": [dict(zip(columns, row, strict=True)) for row in rows],
        "instances": [dict(zip(columns, row, strict=True)) for row in rows],
        "inputs": {name: [row[i] for row in rows] for i, name in enumerate(columns)},
    }[form]
    answer = sklearn.post({form: body})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"predictions": expected}
    assert answer.headers["x-mlcicd-version"] == "7"


def test_csv_gives_the_same_answers(sklearn, golden):
    rows, expected = golden
    text = "a,b,c\n" + "\n".join(",".join(map(repr, row)) for row in rows)
    answer = sklearn.post(text.encode(), headers={"content-type": "text/csv"})
    assert answer.json() == {"predictions": expected}


def test_v2_infer_takes_columns_and_a_matrix(sklearn, golden):
    rows, expected = golden
    matrix = {"name": "rows", "shape": [len(rows), 3], "datatype": "FP64", "data": rows}
    columns = [
        {"name": name, "shape": [len(rows)], "datatype": "FP64", "data": [row[i] for row in rows]}
        for i, name in enumerate("abc")
    ]
    for inputs in ([matrix], columns):
        answer = sklearn.post({"id": "k", "inputs": inputs}, path="/v2/models/toy/infer").json()
        assert (answer["id"], answer["model_name"], answer["model_version"]) == ("k", "toy", "7")
        assert answer["outputs"][0]["data"] == expected
        assert answer["outputs"][0]["shape"] == [len(rows)]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{not json", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 15_000, "not valid JSON"),
        ([1, 2], "JSON object"),
        ({}, "exactly one"),
        ({"inputs": {}, "instances": []}, "exactly one"),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}}, "missing inputs ['c']"),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2, 3]]}}, "columns"),
        ({"dataframe_split": 3}, ""),
        ({"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 2, "hush-hush"]]}}, "could not convert"),
        ({"instances": [{"a": 1.0, "b": "hush-hush", "c": 2.0}]}, "could not convert"),
        ({"inputs": {"a": ["hush-hush"], "b": [1.0], "c": [2.0]}}, "could not convert"),
    ],
)
def test_bad_input_is_the_callers_mistake_and_is_not_repeated(sklearn, body, says):
    answer = sklearn.post(body)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error_code", "message"}
    assert says in answer.json()["message"]
    assert "hush-hush" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["x-mlcicd-version"] == "7"


@pytest.mark.parametrize(
    "inputs",
    [
        None,
        [],
        [{"name": "a"}],
        [{"name": "a", "shape": [2], "datatype": "FP64", "data": [1.0]}],
        [{"name": "a", "shape": [1], "datatype": "FP65", "data": [1.0]}],
        [{"name": "a", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}],
        [{"name": "a", "shape": [1], "datatype": "FP64", "data": ["x"]}],
    ],
)
def test_bad_v2_input_is_400_with_the_protocols_error_key(sklearn, inputs):
    answer = sklearn.post({"inputs": inputs}, path="/v2/models/toy/infer")
    assert answer.status_code == 400
    assert answer.json()["error"] == answer.json()["message"]


def test_a_body_above_the_limit_is_413_with_and_without_a_length(sklearn):
    big = b'{"inputs": "' + b"x" * 30_000 + b'"}'
    assert sklearn.post(big).status_code == 413
    import requests

    chunks = (big[i : i + 1000] for i in range(0, len(big), 1000))
    with requests.Session() as session:
        answer = session.post(sklearn.url + "/invocations", data=chunks, timeout=30)
    assert answer.status_code == 413
    assert sklearn.get("/ready").status_code == 200


def test_unknown_routes_methods_and_content_types(sklearn):
    assert sklearn.get("/nothing").status_code == 404
    assert sklearn.get("/invocations").status_code == 405
    assert sklearn.post({}, path="/ready").status_code == 405
    assert sklearn.post({}, path="/v2/models/other/infer").status_code == 404
    assert sklearn.post(b"x", headers={"content-type": "text/html"}).status_code == 415


def test_reading_routes(sklearn):
    for path in ("/ping", "/health", "/ready", "/v2/health/live", "/v2/health/ready", "/v2/models/toy/ready"):
        assert sklearn.get(path).status_code == 200, path
    described = sklearn.get("/v2/models/toy").json()
    assert described["versions"] == ["7"]
    assert [(i["name"], i["datatype"]) for i in described["inputs"]] == [(n, "FP64") for n in "abc"]
    from importlib.metadata import version

    assert sklearn.get("/version").text == version("mlflow-skinny")


def test_a_models_exception_is_500_with_its_type_and_without_the_request(scripted):
    answer = scripted.post(_row(-1, word="hush-hush"))
    assert answer.status_code == 500
    assert answer.json()["error_code"] == "INTERNAL_ERROR"
    assert answer.json()["message"] == "the model raised ValueError: can not score <value>"
    answer = scripted.post(b"x,word\n-1,hush-hush\n", headers={"content-type": "text/csv"})
    assert answer.json()["message"] == "the model raised ValueError: can not score <value>"
    log = scripted.log.read_text()
    assert "the model raised ValueError at" in log
    assert "hush-hush" not in log


def test_a_nan_prediction_is_an_error_not_broken_json(scripted):
    answer = scripted.post(_row(-2))
    assert answer.status_code == 500
    assert "NaN" in answer.json()["message"]


def test_a_slow_prediction_is_504_and_waiting_ones_are_bounded(scripted):
    assert scripted.post(_row(-3)).status_code == 504
    statuses = []
    lock = threading.Lock()

    def _ask() -> None:
        status = scripted.post(_row(-3)).status_code
        with lock:
            statuses.append(status)

    threads = [threading.Thread(target=_ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {503, 504}
    # At most two may wait or run at a time; the others are turned away.
    assert statuses.count(503) >= 3


def _metric(text: str, start: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(start))


def test_metrics_count_codes_latencies_and_scores(models, launch):
    server = launch(models / "scripted-2")
    for x in (-1.95, -1.5, 8.0):
        assert server.post(_row(x)).status_code == 200
    assert server.post({}).status_code == 400
    assert server.post(_row(-1)).status_code == 500
    text = server.get("/metrics").text
    label = 'model="toy",version="7"'
    assert [_metric(text, f'mlcicd_requests_total{{{label},code="{c}"}}') for c in (200, 400, 500)] == [3, 1, 1]
    assert _metric(text, f"mlcicd_request_seconds_count{{{label}}}") == 5
    # Scores 0.05, 0.5 and 10.
    assert _metric(text, f'mlcicd_prediction_score_bucket{{{label},le="0.0"}}') == 0
    assert _metric(text, f'mlcicd_prediction_score_bucket{{{label},le="0.1"}}') == 1
    assert _metric(text, f'mlcicd_prediction_score_bucket{{{label},le="1.0"}}') == 2
    assert _metric(text, f'mlcicd_prediction_score_bucket{{{label},le="+Inf"}}') == 3


def test_sigterm_lets_the_request_in_flight_end_and_exits_clean(models, launch):
    server = launch(models / "scripted-3")
    answers = []
    asking = threading.Thread(target=lambda: answers.append(server.post(_row(-3))))
    asking.start()
    time.sleep(0.25)  # it is being answered by now, and takes 0.6 s
    server.process.terminate()
    asking.join(20)
    assert server.process.wait(20) == 0
    assert answers[0].json() == {"predictions": [0.0]}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell")
def test_a_model_that_leaks_memory_ends_after_the_answer_and_says_so(models, launch):
    plain = launch(models / "scripted-3")
    held = int(Path(f"/proc/{plain.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    server = launch(models / "scripted-3", "--max-memory-mb", str(held + 200))
    answers = []
    while server.process.poll() is None and len(answers) < 100:
        try:
            answers.append(server.post(_row(-5)).status_code)
        except requests.ConnectionError:
            break
        time.sleep(0.1)
    assert server.process.wait(20) == 7
    assert 5 <= len(answers) < 100 and set(answers) == {200}
    assert "more than the" in server.log.read_text()
    # Without a bound it goes on.
    assert [plain.post(_row(-5)).status_code for _ in range(8)] == [200] * 8


def test_a_model_that_is_too_large_never_gets_ready_and_says_so(models, launch):
    server = launch(models / "scripted-3", "--max-memory-mb", "20", ready=False)
    assert server.process.wait(60) == 7
    assert "of memory, more than the 20 allowed" in server.log.read_text()


def test_it_lives_while_the_model_loads_but_is_not_ready_and_stops_when_asked(models, launch):
    server = launch(models / "slow-start", ready=False)
    assert server.get("/v2/health/live").status_code == 200
    assert server.get("/ready").status_code == 503
    assert server.get("/ping").status_code == 503
    assert server.post(_row(1)).status_code == 503
    server.process.terminate()
    assert server.process.wait(20) == 0


def test_a_model_that_fails_to_load_ends_the_process_and_says_why(models, launch):
    server = launch(models / "broken", ready=False)
    assert server.process.wait(60) == 3
    assert "the weights are not where they should be" in server.log.read_text()


def test_a_taken_port_ends_the_process(sklearn, models, launch):
    taken = sklearn.url.rpartition(":")[2]
    server = launch(models / "scripted-1", "--port", taken, ready=False)
    assert server.process.wait(60) == 4
    assert f"port {taken}" in server.log.read_text()


def test_it_stands_alone():
    """Only the standard library at the top, nothing of mlcicd anywhere, syntax of Python 3.9."""
    names = set()
    for file in SERVER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(), feature_version=(3, 9))):
            if isinstance(node, ast.Import):
                names.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add((node.module or "").partition(".")[0])
    assert "mlcicd" not in names
    assert names - set(sys.stdlib_module_names) <= {"numpy", "uvicorn"}
    helped = subprocess.run(
        [sys.executable, "-I", "-S", str(SERVER), "--help"], capture_output=True, text=True, check=False
    )
    assert helped.returncode == 0, helped.stderr
