"""A small GitHub and GitLab on loopback: real HTTP, comments in memory, and faults on demand."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

BOT = {"login": "github-actions[bot]", "type": "Bot", "id": 1}


@dataclass
class Fault:
    """An answer given in place of the usual one, once.

    Attributes:
        act: whether the request takes effect all the same.
        drop: whether the connection is closed without an answer.
    """

    status: int = 500
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    act: bool = False
    drop: bool = False


@dataclass
class Seen:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any


@dataclass
class Forge:
    """State of the server; tests read it and script it."""

    url: str = ""
    comments: list[dict[str, Any]] = field(default_factory=list)
    faults: list[tuple[str, Fault]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    login: dict[str, Any] | None = None
    writer: dict[str, Any] = field(default_factory=lambda: dict(BOT))
    after_create: Callable[[], None] | None = None
    _next: int = 1000

    def add(self, body: str, user: dict[str, Any] | None = None) -> dict[str, Any]:
        self._next += 1
        author = user or self.writer
        comment = {
            "id": self._next,
            "body": body,
            "user": author,
            "author": author,
            "html_url": f"{self.url}/comment/{self._next}",
        }
        self.comments.append(comment)
        return comment

    def fail(self, method: str, *faults: Fault) -> None:
        self.faults.extend((method, fault) for fault in faults)

    def methods(self) -> list[str]:
        return [s.method for s in self.seen]

    def answer(self, seen: Seen) -> tuple[int, Any]:
        if seen.path == "/user":
            return (200, self.login) if self.login else (403, {"message": "Resource not accessible by integration"})
        single = re.fullmatch(r"/.*/(?:comments|notes)/(\d+)", seen.path)
        if single:
            comment = next((c for c in self.comments if c["id"] == int(single[1])), None)
            if comment is None:
                return 404, {"message": "Not Found"}
            if seen.method == "DELETE":
                self.comments.remove(comment)
                return 204, None
            comment["body"] = seen.body["body"]
            return 200, comment
        if seen.method == "POST":
            created = self.add(seen.body["body"])
            if self.after_create:
                self.after_create()
            return 201, created
        size, page = int(seen.query["per_page"][0]), int(seen.query["page"][0])
        return 200, self.comments[size * (page - 1) : size * page]


@contextmanager
def forge() -> Iterator[Forge]:
    """A running server, stopped when the block ends."""
    state = Forge()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {k.lower(): v for k, v in self.headers.items()}
            seen = Seen(self.command, parts.path, parse_qs(parts.query), headers, body)
            state.seen.append(seen)
            fault = next((f for f in state.faults if f[0] in (seen.method, seen.path)), None)
            if fault:
                state.faults.remove(fault)
            if fault is None or fault[1].act:
                status, answer = state.answer(seen)
                content = b"" if answer is None else json.dumps(answer).encode()
                extra: dict[str, str] = {}
            if fault:
                status, content, extra = fault[1].status, fault[1].body, fault[1].headers
                if fault[1].drop:
                    self.close_connection = True
                    return
            self.send_response(status)
            for name, value in extra.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _handle

        def log_message(self, *_: object) -> None:
            """Quiet: tests read `seen`."""

        def date_time_string(self, timestamp: float | None = None) -> str:
            return "Sat, 14 Mar 2026 09:30:00 GMT"

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
