"""Tokens, request ids, slow and surplus requests, and the way a server goes."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

TOKEN = "correct-horse-battery"
ROW = {"dataframe_records": [{"x": 1.0, "word": "plain"}]}
SLOW = {"dataframe_records": [{"x": -3.0, "word": "plain"}]}


@pytest.fixture(scope="module")
def secured(models, launch):
    os.environ["TOY_TOKEN"] = TOKEN
    try:
        return launch(models / "scripted-2", "--token-env", "TOY_TOKEN")
    finally:
        del os.environ["TOY_TOKEN"]


@pytest.fixture(scope="module")
def plain(models, launch):
    return launch(models / "scripted-1", "--timeout-s", "1.5")


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN]
)
def test_without_the_token_only_health_is_answered(secured, given):
    headers = {} if given is None else {"authorization": given}
    for path in ("/invocations", "/v2/models/toy/infer"):
        answer = secured.post(ROW, path=path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in answer.text
    if given is None:
        for path in ("/metrics", "/openapi.json", "/v2", "/v2/models/toy", "/version", "/nothing"):
            assert secured.get(path).status_code == 401, path
        for path in ("/ping", "/health", "/ready", "/v2/health/live", "/v2/health/ready", "/v2/models/toy/ready"):
            assert secured.get(path).status_code == 200, path


def test_with_the_token_it_answers_and_tells_nobody(secured):
    answer = secured.post(ROW, headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.json() == {"predictions": [3.0]}
    assert secured.post(ROW, headers={"authorization": f"bearer  {TOKEN} "}).status_code == 200
    assert TOKEN not in secured.log.read_text()
    arguments = Path(f"/proc/{secured.process.pid}/cmdline")
    if arguments.exists():
        assert TOKEN.encode() not in arguments.read_bytes()


def test_an_empty_token_lets_nobody_start(models, launch):
    server = launch(models / "scripted-1", "--token-env", "NO_SUCH_TOKEN", ready=False)
    assert server.process.wait(60) == 5
    assert "NO_SUCH_TOKEN" in server.log.read_text()


def test_a_request_id_comes_back_or_is_made_up(plain):
    assert plain.post(ROW, headers={"x-request-id": "order-17"}).headers["x-request-id"] == "order-17"
    made = [plain.post(ROW).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    assert len(made[0]) == 32
    for unfit in ("a b", "x" * 129, "<script>"):
        assert plain.post(ROW, headers={"x-request-id": unfit}).headers["x-request-id"] != unfit
    assert plain.post({}, headers={"x-request-id": "bad-body"}).headers["x-request-id"] == "bad-body"


def _connected(server):
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def test_a_body_that_does_not_come_is_408_and_holds_nobody_up(plain):
    with closing(_connected(plain)) as slow:
        slow.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        assert plain.post(ROW).status_code == 200
        answer = slow.makefile("rb").read()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in head.lower()
    assert json.loads(body)["error_code"] == "DEADLINE_EXCEEDED"


def test_beyond_the_concurrency_it_says_when_to_come_again(models, launch):
    server = launch(models / "scripted-3", "--max-pending", "1")
    answers = []
    asking = threading.Thread(target=lambda: answers.append(server.post(SLOW)))
    # One at a time waits 0.6 s in the model; each is met by another until one is refused.
    threads = [asking, *(threading.Thread(target=lambda: answers.append(server.post(SLOW))) for _ in range(5))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [answer for answer in answers if answer.status_code == 503]
    assert refused
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert {answer.status_code for answer in answers} == {200, 503}
    assert server.post(ROW).status_code == 200


def test_it_is_not_ready_before_it_stops_listening(models, launch):
    server = launch(models / "scripted-1", "--drain-s", "4")
    answers = []
    asking = threading.Thread(target=lambda: answers.append(server.post(SLOW)))
    asking.start()
    server.process.terminate()
    seen = set()
    deadline = time.monotonic() + 60
    while server.process.poll() is None and time.monotonic() < deadline:
        try:
            seen.add(server.get("/ready").status_code)
            if 503 in seen:
                # Still listening: who did not yet hear of it is answered.
                assert server.get("/v2/health/live").status_code == 200
                assert server.post(ROW).status_code == 200
                break
        except OSError:
            break
        time.sleep(0.02)
    asking.join(30)
    assert 503 in seen
    assert answers[0].status_code == 200
    assert server.process.wait(60) == 0
