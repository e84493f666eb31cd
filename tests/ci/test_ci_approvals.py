"""Who approved a run, as GitHub says it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mlcicd.ci.approvals import approvers
from mlcicd.ci.github_api import PermissionDenied


def review(login: str, state: str = "approved", environment: str = "production") -> dict[str, Any]:
    return {"state": state, "environments": [{"name": environment}], "user": {"login": login}, "comment": ""}


@pytest.fixture
def github() -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """The environment of a step, and what its GitHub answers."""
    answer: dict[str, Any] = {"status": 200, "body": []}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            right = self.path == "/repos/team/flights/actions/runs/42/approvals"
            body = json.dumps(answer["body"] if right else {"message": "Not Found"}).encode()
            self.send_response(answer["status"] if right else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environ = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_RUN_ID": "42",
        "GITHUB_REPOSITORY": "team/flights",
        "GITHUB_TOKEN": "t",
        "GITHUB_ACTOR": "pusher",
        "GITHUB_API_URL": f"http://127.0.0.1:{server.server_port}",
    }
    yield environ, answer
    server.shutdown()
    server.server_close()


def test_reviewers_of_that_environment_in_order(github: tuple[dict[str, str], dict[str, Any]]) -> None:
    environ, answer = github
    answer["body"] = [review("ann"), review("bob", environment="staging"), review("eve", "rejected"), review("ann")]
    assert approvers(environ, "production") == ["ann"]


def test_nobody_approved_and_the_pusher_is_nobody(github: tuple[dict[str, str], dict[str, Any]]) -> None:
    environ, _answer = github
    assert approvers(environ, "production") == []


def test_missing_permission_is_named(github: tuple[dict[str, str], dict[str, Any]]) -> None:
    environ, answer = github
    answer.update(status=403, body={"message": "Resource not accessible by integration"})
    with pytest.raises(PermissionDenied, match="approvals") as caught:
        approvers(environ, "production")
    assert caught.value.permission == "actions: read"


def test_elsewhere_nobody_is_asked() -> None:
    assert approvers({"GITHUB_RUN_ID": "42"}, "production") == []
