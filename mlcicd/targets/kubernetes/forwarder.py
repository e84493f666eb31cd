"""The way to one Service through the API server, as a URL on this machine, for as long as this process runs.

What `kubectl proxy` does, for one path alone: a smoke test sends plain requests, and must not be given the cluster's
credentials.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

from mlcicd.core.errors import MlcicdError
from mlcicd.targets.kubernetes.api import Api

_BODY_LIMIT = 64 << 20
_PASSED_ON = ("content-type", "x-mlcicd-version")


class Forwarder:
    """Forwards requests to a Service.

    Args:
        api: the cluster.
        service: path of the Service in the API, without a slash at the end.
    """

    def __init__(self, api: Api, service: str) -> None:
        class Handler(_Handler):
            pass

        Handler.api, Handler.prefix = api, f"{service}/proxy"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=lambda: self._server.serve_forever(0.2), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    api: Api
    prefix: str
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _forward(self) -> None:
        length = self.headers.get("content-length", "0")
        # A path that climbs out of the Service would reach the API itself, with our rights.
        plain = self.path.startswith("/") and ".." not in self.path and "%" not in self.path and "//" not in self.path
        if not plain or not length.isdigit() or int(length) > _BODY_LIMIT:
            self._answer(400, b"not forwarded", {})
            return
        body = self.rfile.read(int(length))
        headers = {"content-type": self.headers.get("content-type", "application/json")}
        try:
            response = self.api.forward(self.command, self.prefix + self.path, body, headers)
        except (requests.RequestException, MlcicdError) as error:
            self._answer(502, f"the API server did not forward it: {type(error).__name__}".encode(), {})
            return
        passed = {name: response.headers[name] for name in _PASSED_ON if name in response.headers}
        self._answer(response.status_code, response.content, passed)

    do_GET = do_POST = _forward

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing: requests are the smoke test's."""
