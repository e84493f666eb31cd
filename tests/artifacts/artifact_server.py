"""An HTTP server that keeps files (PUT, GET), on loopback, and does one thing wrong with chosen requests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Kept:
    """What the server has and has seen. `faults` maps the number of a request, from 1, to what is done with it."""

    files: dict[str, bytes] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    always: str = ""
    overwrites: bool = True
    url: str = ""

    def asked(self, method: str) -> list[str]:
        return [path for m, path, _ in self.seen if m == method]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and content would else wait for each other's acknowledgement.
    disable_nagle_algorithm = True
    kept: Kept

    def do_GET(self) -> None:
        if self._broken(b""):
            return
        content = self.kept.files.get(self.path)
        self._answer(404, b"no such file") if content is None else self._answer(200, content)

    def do_PUT(self) -> None:
        length = int(self.headers["Content-Length"])
        if self.kept.always == "slow reader" or self._fault(peek=True) == "closed mid-body":
            # A part of it arrives and is kept, as by a server that writes as it reads.
            self.kept.files[self.path] = self.rfile.read(length // 2)
            self._fault()
            self._cut()
            return
        body = self.rfile.read(length)
        if self._broken(body):
            return
        self._answer(self._keep(body), b"")

    def do_MKCOL(self) -> None:
        if not self._broken(b""):
            self._answer(405, b"")

    def _keep(self, body: bytes) -> int:
        there = self.path in self.kept.files
        if there and self.headers.get("If-None-Match") == "*":
            return 412
        if there and not self.kept.overwrites:
            return 400
        self.kept.files[self.path] = body
        return 201

    def _fault(self, *, peek: bool = False) -> str:
        if not peek:
            self.kept.seen.append((self.command, self.path, dict(self.headers)))
        number = len(self.kept.seen) + (1 if peek else 0)
        return self.kept.faults.get(number, self.kept.always)

    def _broken(self, body: bytes) -> bool:
        fault = self._fault()
        if fault == "reply lost":
            if self.command == "PUT":
                self._keep(body)
            self._cut()
        elif fault in ("cut", "closed mid-body"):
            self._cut()
        elif fault == "html":
            self._answer(200, b"<!doctype html><title>Sign in</title>")
        elif fault == "half":
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
            self._cut()
        elif fault.startswith("30"):
            self.send_response(int(fault[:3]))
            self.send_header("Location", fault[4:])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif fault:
            status, _, after = fault.partition(" ")
            self.send_response(int(status))
            if after:
                self.send_header("Retry-After", after)
            self.send_header("Content-Length", "0")
            self.end_headers()
        return bool(fault)

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        # A client that has gone.
        pass


@contextmanager
def artifact_server() -> Iterator[Kept]:
    """Runs the server for as long as the block does."""
    kept = Kept()
    handler = type("Handler", (_Handler,), {"kept": kept})
    server = _Server(("127.0.0.1", 0), handler)
    kept.url = f"http://127.0.0.1:{server.server_address[1]}/repository/models"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
