"""Smoke requests and replay, against a small server that answers what a test asks for."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.verdict import CheckStatus, Status, conclude
from mlcicd.serving.replay import read_bodies, replay
from mlcicd.serving.smoke import Expectation, SmokeRequest, read_smoke, run_smoke


class _Echo(BaseHTTPRequestHandler):
    """Answers with the status and the raw text the body names."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body.get("drop"):
            self.close_connection = True
            return
        time.sleep(body.get("sleep", 0))
        answer = body.get("answer", '{"predictions": [0.5]}').encode()
        self.send_response(body.get("status", 200))
        self.send_header("content-length", str(len(answer)))
        self.send_header("x-mlcicd-version", body.get("version", "1"))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        """Keeps the test's output clean."""


@pytest.fixture(scope="module")
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _smoke(url, expect, predictions="[0.5, 0.7]", **body):
    body.setdefault("answer", f'{{"predictions": {predictions}}}')
    request = SmokeRequest("case", body, Expectation.model_validate(expect))
    (check,) = run_smoke(url, [request], timeout_s=5)
    return check


@pytest.mark.parametrize(
    "expect",
    [
        {},
        {"shape": [2]},
        {"min": 0.5, "max": 0.7},
        {"equals": [0.5, 0.7]},
        {"equals": [0.51, 0.69], "tolerance": 0.011},
        {"status": 200, "max_latency_ms": 5000},
    ],
)
def test_an_answer_as_expected_passes(url, expect):
    check = _smoke(url, expect)
    assert check.status is CheckStatus.PASSED, check.reason
    assert check.details["latency_ms"] > 0


@pytest.mark.parametrize(
    ("expect", "predictions", "reason"),
    [
        ({"shape": [3]}, "[0.5, 0.7]", "shape [2]"),
        ({"shape": [2]}, "[[0.5, 0.7]]", "shape [1, 2]"),
        ({"min": 0.6}, "[0.5, 0.7]", "smallest prediction is 0.5"),
        ({"max": 0.6}, "[0.5, 0.7]", "largest prediction is 0.7"),
        ({"min": 0.0}, '["yes"]', "no number"),
        ({"equals": [0.5, 0.8], "tolerance": 0.05}, "[0.5, 0.7]", "answered [0.5, 0.7]"),
        ({"equals": [1]}, "[true]", "answered [true]"),
        ({"equals": [0.5]}, "[0.5, 0.7]", "answered"),
        ({}, "[]", "empty"),
        ({}, "[NaN]", "NaN"),
        ({"equals": [0.5], "tolerance": 1}, "[NaN]", "NaN"),
        ({}, "[0.5, null]", "null"),
        ({"status": 400}, "[0.5]", "answered 200"),
        ({"max_latency_ms": 0.0}, "[0.5]", "took"),
    ],
)
def test_an_answer_that_is_not_as_expected_fails(url, expect, predictions, reason):
    check = _smoke(url, expect, predictions)
    assert check.status is CheckStatus.FAILED
    assert reason in check.reason


def test_wrong_statuses_no_json_and_no_answer_fail(url):
    assert "answered 500" in _smoke(url, {}, status=500).reason
    assert _smoke(url, {"status": 400}, status=400, answer="{}").status is CheckStatus.PASSED
    for answer in ("not json", "[1]", '{"other": 1}'):
        assert _smoke(url, {}, answer=answer).status is CheckStatus.FAILED
    assert "no answer" in _smoke(url, {}, drop=True).reason
    assert "no answer" in _smoke("http://127.0.0.1:9", {}).reason


def test_no_smoke_request_is_not_a_pass(url):
    assert conclude(run_smoke(url, [])) is Status.INCONCLUSIVE


def test_smoke_requests_are_read_from_json_lines(tmp_path):
    path = tmp_path / "smoke.jsonl"
    path.write_text('{"inputs": [1], "expect": {"shape": [1]}}\n\n{"name": "two", "inputs": [2]}\n')
    first, second = read_smoke(path)
    assert (first.name, first.body, first.expect.shape) == ("line 1", {"inputs": [1]}, (1,))
    assert (second.name, second.body, second.expect) == ("two", {"inputs": [2]}, Expectation())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no smoke requests"),
        ("{", "not a smoke request"),
        ("[1]", "not a smoke request"),
        ('{"expect": {"shpae": [1]}}', "expect.shpae"),
        ('{"expect": {"min": NaN}}', "expect.min"),
        ('{"expect": 3}', "expect"),
    ],
)
def test_a_bad_smoke_file_names_the_place(tmp_path, text, says):
    path = tmp_path / "smoke.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        read_smoke(path)
    assert str(path) in caught.value.where
    with pytest.raises(InputError):
        read_smoke(tmp_path / "missing.jsonl")


def _body(**content):
    return json.dumps(content).encode()


def test_replay_counts_by_status_and_version(url):
    bodies = [_body(version="1"), _body(version="2"), _body(version="2", status=500), _body(drop=True)]
    result = replay(url, bodies, rate_per_s=5000, count=40, concurrency=3)
    assert result.answers == {(200, "1"): 10, (200, "2"): 10, (500, "2"): 10, (0, ""): 10}
    assert (result.sent, result.ok, len(result.latencies_ms)) == (40, 20, 30)
    assert result.by_version() == {"1": 10, "2": 20, "": 10}
    assert sum(result.failures.values()) == 10


def test_replay_keeps_to_its_rate_and_sends_no_burst_after_a_pause(url):
    started = time.monotonic()
    result = replay(url, [_body()], rate_per_s=50, count=20, concurrency=4)
    assert time.monotonic() - started >= 19 / 50
    assert result.ok == 20
    # One connection, answers of 50 ms: never more than 20 a second, however high the rate.
    slow = replay(url, [_body(sleep=0.05)], rate_per_s=1000, duration_s=0.5, concurrency=1)
    assert 1 <= slow.sent <= 11


def test_replay_ends_when_told(url):
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    result = replay(url, [_body()], rate_per_s=20, duration_s=30, concurrency=2, stop=stop)
    assert result.duration_s < 15
    assert result.ok == result.sent > 0


@pytest.mark.parametrize("host", ["http://192.0.2.1:80", "http://example.org", "http://0.0.0.0:80", "http://[::]:80"])
def test_replay_refuses_other_hosts(host):
    with pytest.raises(ConfigError, match="only aims at this machine"):
        replay(host, [b"{}"], rate_per_s=1, count=1)


@pytest.mark.parametrize(
    "options",
    [
        {"rate_per_s": 0, "count": 1},
        {"rate_per_s": float("nan"), "count": 1},
        {"rate_per_s": 1e9, "count": 1},
        {"rate_per_s": 1},
        {"rate_per_s": 1, "duration_s": float("inf")},
        {"rate_per_s": 1, "count": 1, "concurrency": 0},
    ],
)
def test_replay_refuses_what_has_no_bound(url, options):
    with pytest.raises(ConfigError):
        replay(url, [b"{}"], **options)
    with pytest.raises(InputError):
        replay(url, [], rate_per_s=1, count=1)


def test_bodies_are_read_without_what_only_smoke_tests_need(tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_text('{"inputs": [1], "expect": {}, "name": "a"}\n{"inputs": [2]}\n')
    assert [json.loads(body) for body in read_bodies(path)] == [{"inputs": [1]}, {"inputs": [2]}]
    for text in ("", "[1]", "{"):
        path.write_text(text)
        with pytest.raises(InputError):
            read_bodies(path)
