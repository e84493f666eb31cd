"""An HTTP proxy that does one thing wrong with one request. A program of its own:

    python fault_proxy.py UPSTREAM_PORT PORT

`GET /__fault__/MODE/NUMBER` sets what it does with the request of that number from now (0 never), and answers with the
number of requests since it was asked last.
"""

from __future__ import annotations

import functools
import http.client
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODES = (
    "reset",  # the connection is closed, nothing arrives
    "lost",  # it arrives, and its answer is lost
    "doubled",  # it arrives twice
    "late",  # 503 at once, and it arrives a second later
    "slow",  # it arrives after longer than the lease
    "500",
    "429",
    "403",
    "html",  # status 200 and a page of somebody's portal
    "empty",  # status 200 and {}
    "broken",  # status 200 and half of a document
)
LATE_S = 1.0
SLOW_S = 0.8


class State:
    lock = threading.Lock()
    mode, at, count = "", 0, 0


def _forwarded(command: str, path: str, headers: dict[str, str], body: bytes, wait_s: float) -> tuple[int, bytes, str]:
    time.sleep(wait_s)
    upstream = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
    kept = {k: v for k, v in headers.items() if k.lower() not in ("host", "connection", "accept-encoding")}
    upstream.request(command, path, body, kept)
    answer = upstream.getresponse()
    content = answer.read()
    upstream.close()
    return answer.status, content, answer.headers.get("Content-Type", "application/json")


class Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        if self.path.startswith("/__fault__/"):
            self._control()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with State.lock:
            State.count += 1
            mode = State.mode if State.count == State.at else ""
        self._act(mode, body)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = handle_any

    def _act(self, mode: str, body: bytes) -> None:
        if mode == "reset":
            self._cut()
        elif mode == "lost":
            self._forward(body)
            self._cut()
        elif mode == "late":
            # What is sent later is this request, not the next one of the same connection.
            late = functools.partial(_forwarded, self.command, self.path, dict(self.headers), body, LATE_S)
            threading.Thread(target=late, daemon=True).start()
            self._answer(503, b"not now", "text/plain")
        elif mode in ("500", "429", "403"):
            self._answer(int(mode), b'{"error_code": "INTERNAL_ERROR", "message": "no"}', "application/json")
        elif mode == "html":
            self._answer(200, b"<!doctype html><title>Sign in</title>", "text/html")
        elif mode == "empty":
            self._answer(200, b"{}", "application/json")
        elif mode == "broken":
            self._answer(200, b'{"registered_model": {"na', "application/json")
        else:
            if mode == "doubled":
                self._forward(body)
            self._answer(*self._forward(body, SLOW_S if mode == "slow" else 0))

    def _forward(self, body: bytes, wait_s: float = 0) -> tuple[int, bytes, str]:
        return _forwarded(self.command, self.path, dict(self.headers), body, wait_s)

    def _answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(content)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _control(self) -> None:
        _, _, mode, at = self.path.split("/")
        with State.lock:
            said = str(State.count).encode()
            State.mode, State.at, State.count = mode, int(at), 0
        self._answer(200, said, "text/plain")

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        # A client that was killed.
        pass


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[2])), Proxy).serve_forever()
