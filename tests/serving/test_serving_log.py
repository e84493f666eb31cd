"""The inference log: what is written, what never is, and that it holds nothing up."""

from __future__ import annotations

import json
import stat
import threading
import time

import pytest

from mlcicd.serving.server.inference_log import Entry, InferenceLog

ROWS = [{"x": 1.0, "word": "hush-one"}, {"x": 2.0, "word": "hush-two"}]
NAMES = ["x", "word"]
VALUES = [[row[name] for name in NAMES] for row in ROWS]
BODIES = {
    "records": {"dataframe_records": ROWS},
    "split": {"dataframe_split": {"columns": NAMES, "data": VALUES}},
    "inputs": {"inputs": {name: [row[name] for row in ROWS] for name in NAMES}},
    "instances": {"instances": ROWS},
}
TENSORS = {
    "inputs": [
        {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]},
        {"name": "word", "shape": [2], "datatype": "BYTES", "data": ["hush-one", "hush-two"]},
    ]
}


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _entry(number, *, body=None, status=200, answer=b'{"predictions": [0.5]}'):
    asked = json.dumps(body or {"dataframe_records": [{"x": number}]}).encode()
    return Entry(f"id-{number}", 1_700_000_000.25, "invocations", status, "application/json", asked, answer)


def _log(path, **changes):
    settings = {"sample": 1.0, "redact": (), "max_mb": 100.0, "keep": 2} | changes
    return InferenceLog(path, model="toy", version="7", **settings)


def _wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def logged(models, launch, tmp_path_factory):
    path = tmp_path_factory.mktemp("logged") / "deep" / "inference.jsonl"
    server = launch(models / "scripted-1", "--inference-log", str(path), "--log-redact", "word")
    return server, path


def test_labels_can_be_joined_and_redacted_columns_are_nowhere_on_disk(logged):
    server, path = logged
    labels = {}
    for name, body in BODIES.items():
        answer = server.post(body, headers={"x-request-id": name})
        assert answer.json() == {"predictions": [2.0, 3.0]}
        labels[answer.headers["x-request-id"]] = [1, 0]
    csv = "x,word\n" + "".join(f"{row['x']},{row['word']}\n" for row in ROWS)
    labels[server.post(csv.encode(), headers={"content-type": "text/csv"}).headers["x-request-id"]] = [1, 0]
    answered = server.post(TENSORS, path="/v2/models/toy/infer")
    labels[answered.headers["x-request-id"]] = [1, 0]
    _wait_for(lambda: len(_lines(path)) >= 6)
    records = {record["request_id"]: record for record in _lines(path)}
    assert labels.keys() <= records.keys()
    for name in labels:
        record = records[name]
        assert (record["model"], record["version"], record["status"]) == ("toy", "7", 200)
        assert record["time"].endswith("Z")
        assert list(record["inputs"]) == ["x"]
        assert [float(value) for value in record["inputs"]["x"]] == [1.0, 2.0]
        assert record["answer"] in ([2.0, 3.0], {"predictions": [2.0, 3.0]})
    assert "hush" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    written = [line for line in server.get("/metrics").text.splitlines() if line.startswith("mlcicd_inference_log")]
    assert any("written_total" in line and not line.endswith(" 0") for line in written)
    assert any("dropped_total" in line and line.endswith(" 0") for line in written)


def test_a_refused_request_leaves_its_status_and_nothing_of_itself(logged):
    server, path = logged
    assert server.post({"dataframe_records": [{"x": "hush-three"}]}, headers={"x-request-id": "bad"}).status_code == 400
    _wait_for(lambda: any(record["request_id"] == "bad" for record in _lines(path)))
    record = next(record for record in _lines(path) if record["request_id"] == "bad")
    assert record["status"] == 400
    assert not {"inputs", "answer"} & set(record)
    assert "hush" not in path.read_text()


def test_what_waits_is_written_when_the_server_is_stopped(models, launch, tmp_path):
    path = tmp_path / "inference.jsonl"
    server = launch(models / "scripted-1", "--inference-log", str(path))
    for _ in range(20):
        assert server.post(BODIES["split"]).status_code == 200
    server.process.terminate()
    assert server.process.wait(60) == 0
    assert len(_lines(path)) == 20


def test_a_redacted_column_of_the_answer_and_a_request_without_columns_are_left_out(tmp_path):
    log = _log(tmp_path / "log", redact=["ssn"])
    answer = json.dumps({"predictions": [{"score": 0.5, "ssn": "hush"}]}).encode()
    log.add(_entry(1, body={"instances": [[1.0, 2.0]]}, answer=answer))
    log.add(_entry(2, body={"dataframe_records": [{"x": {"ssn": "hush", "y": 1}}]}))
    log.close()
    first, second = _lines(tmp_path / "log")
    assert first["inputs"] is None
    assert first["answer"] == [{"score": 0.5}]
    assert second["inputs"] == {"x": [{"y": 1}]}


def _hush_csv(*lines):
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("content_type", "body", "kept"),
    [
        ("text/csv", b"\xef\xbb\xbf" + _hush_csv("ssn,x", "hush,1"), {"x": ["1"]}),
        ("text/csv", _hush_csv("x,ssn,y", "1,hush,2"), {"x": ["1"], "y": ["2"]}),
        (" TEXT/CSV ; charset=utf-8", _hush_csv("x, SSN", "1,hush"), {"x": ["1"]}),
        ("text/csv", _hush_csv("", "ssn,x", "hush,1", ""), {"x": ["1"]}),
        ("text/csv", _hush_csv("a;ssn,x", "1;hush,1"), {"x": ["1"]}),
        ("text/csv", _hush_csv("ssn,x", "7,hush,1"), None),
        ("text/csv", _hush_csv("x,ssn", "1,2", "hush"), None),
        ("text/csv", _hush_csv("  ", "ssn", "hush"), None),
        ("text/csv", _hush_csv("ssn,x,x", "3,hush,1"), None),
        ("text/csv", _hush_csv("hush,1", "hush,2"), None),
        ("application/json", b'{"dataframe_split": {"columns": ["ssn", "ssn"], "data": [["hush", "hush"]]}}', None),
        (
            "application/json",
            b'{"dataframe_split": {"columns": ["ssn"], "index": ["hush"], "data": [["hush"]]}}',
            None,
        ),
        ("application/json", b'{"inputs": {"ssn": ["hush"], "x": [1, 2]}}', None),
        ("application/json", b'{"inputs": [{"ssn": "hush"}, ["hush"]]}', None),
        ("", b'{"instances": [{"\\ufeffssn": "hush", "Ssn": "hush", "ss\\u200bn": "hush", "x": 1}]}', {"x": [1]}),
    ],
)
def test_what_of_a_redacted_column_is_under_another_name_or_place_is_not_written(tmp_path, content_type, body, kept):
    log = _log(tmp_path / "log", redact=["ssn"])
    log.add(Entry("id", 1_700_000_000.25, "invocations", 200, content_type, body, b'{"predictions": [0.5]}'))
    log.close()
    text = (tmp_path / "log").read_text()
    assert "hush" not in text
    assert json.loads(text)["inputs"] == kept


def test_tensors_are_read_as_json_whatever_the_header_says(tmp_path):
    log = _log(tmp_path / "log", redact=["word"])
    body = json.dumps(TENSORS, indent=1).encode()
    log.add(Entry("id", 1_700_000_000.25, "v2", 200, "text/csv", body, b'{"outputs": []}'))
    log.close()
    assert [line["inputs"] for line in _lines(tmp_path / "log")] == [{"x": [1.0, 2.0]}]
    assert "hush" not in (tmp_path / "log").read_text()


def test_a_table_that_is_none_is_written_as_it_came_where_nothing_is_redacted(tmp_path):
    log = _log(tmp_path / "log")
    log.add(Entry("id", 1_700_000_000.25, "invocations", 200, "text/csv", b"x,y\n0,1,2\n", b'{"predictions": [0.5]}'))
    log.close()
    assert [line["inputs"] for line in _lines(tmp_path / "log")] == ["x,y\n0,1,2\n"]


def test_files_are_put_aside_at_their_size_and_the_oldest_goes(tmp_path):
    path = tmp_path / "log"
    log = _log(path, max_mb=0.002, keep=2)
    for number in range(100):
        log.add(_entry(number))
        _wait_for(lambda: log.written + log.dropped == number + 1)  # noqa: B023  (called at once)
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["log", "log.1", "log.2"]
    assert all(file.stat().st_size <= 2000 and stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    kept = [record["request_id"] for file in reversed(files) for record in _lines(file)]
    assert kept == [f"id-{number}" for number in range(100 - len(kept), 100)]


def test_a_log_that_can_not_keep_up_drops_and_counts_and_does_not_wait(tmp_path, monkeypatch):
    gate = threading.Event()
    log = _log(tmp_path / "log")
    write = log._write
    monkeypatch.setattr(log, "_write", lambda line: (gate.wait(60), write(line)))
    monkeypatch.setattr(log._queue, "maxsize", 5)
    for number in range(50):
        log.add(_entry(number))  # returns while nothing is written
    assert log.written == 0
    assert log.dropped >= 50 - 5 - 1
    gate.set()
    log.close(60)
    assert log.written + log.dropped == 50
    assert len(_lines(tmp_path / "log")) == log.written > 0


def test_bodies_that_wait_are_bounded_in_bytes(tmp_path, monkeypatch):
    gate = threading.Event()
    log = _log(tmp_path / "log")
    monkeypatch.setattr(log, "_write", lambda _: gate.wait(60))
    big = {"dataframe_records": [{"x": "y" * 10_000_000}]}
    for number in range(6):
        log.add(_entry(number, body=big))
    assert log.dropped == 3
    gate.set()
    log.close(60)


def test_a_disk_that_fails_is_counted_and_the_log_goes_on(tmp_path, monkeypatch):
    log = _log(tmp_path / "log")
    write, fail = log._write, [True]

    def failing(line):
        if fail.pop() if fail else False:
            raise OSError(28, "No space left on device")
        write(line)

    monkeypatch.setattr(log, "_write", failing)
    log.add(_entry(1))
    log.add(_entry(2))
    log.close(60)
    assert (log.dropped, log.written) == (1, 1)
    assert [record["request_id"] for record in _lines(tmp_path / "log")] == ["id-2"]


def test_half_a_line_of_a_killed_server_spoils_no_other(tmp_path):
    path = tmp_path / "log"
    path.write_text('{"request_id": "ha')
    log = _log(path)
    log.add(_entry(1))
    log.close(60)
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    assert json.loads(lines[1])["request_id"] == "id-1"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_sample_is_the_share_and_is_decided_by_the_id(tmp_path):
    logs = [_log(tmp_path / str(sample), sample=sample) for sample in (0.25, 0.25, 0.0)]
    first, second, none = ([log.wants(f"request-{number}") for number in range(4000)] for log in logs)
    assert 0.22 < sum(first) / 4000 < 0.28
    assert first == second
    assert not any(none)
    for log in logs:
        log.close(60)
