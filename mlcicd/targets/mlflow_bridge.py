"""A loopback endpoint in front of one deployment of an MLflow plug-in, so that it is tested as any server is.

It lives as long as the process that deploys, and has no other purpose than smoke tests and parity.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_MOST_BYTES = 64 << 20
# Errors of MLflow that are the request's fault.
_BAD_REQUEST = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


class Bridge:
    """`/invocations` of MLflow's scoring protocol on a port of 127.0.0.1, answered by `client.predict(name, ...)`."""

    def __init__(self, client: Any, name: str) -> None:
        def do_post(handler: BaseHTTPRequestHandler) -> None:
            status, body = _answer(client, name, handler)
            handler.send_response(status)
            handler.send_header("content-type", "application/json")
            handler.send_header("content-length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        quiet = {"do_POST": do_post, "log_message": lambda *_: None, "timeout": 60}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (BaseHTTPRequestHandler,), quiet))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _answer(client: Any, name: str, handler: BaseHTTPRequestHandler) -> tuple[int, bytes]:
    length = int(handler.headers.get("content-length") or 0)
    if handler.path != "/invocations" or not 0 < length <= _MOST_BYTES:
        return 404, b'{"message": "POST /invocations with a body"}'
    try:
        inputs = _inputs(json.loads(handler.rfile.read(length)))
    except (ValueError, KeyError, TypeError) as error:
        return 400, json.dumps({"message": f"not a request: {error}"}).encode()
    try:
        return 200, json.dumps({"predictions": plain(client.predict(name, inputs))}, allow_nan=False).encode()
    except Exception as error:
        # Whatever the plug-in raises is the answer to this one request.
        bad = getattr(error, "error_code", "") in _BAD_REQUEST
        return 400 if bad else 500, json.dumps({"message": f"{type(error).__name__}: {error}"[:400]}).encode()


def _inputs(body: Any) -> Any:
    """A DataFrame, which all plug-ins take; what is sent as `inputs` or `instances` is handed on."""
    import pandas as pd

    if "dataframe_split" in body:
        split = body["dataframe_split"]
        return pd.DataFrame(split["data"], columns=split["columns"])
    if "dataframe_records" in body:
        return pd.DataFrame(body["dataframe_records"])
    return body["inputs"] if "inputs" in body else body["instances"]


def plain(answer: Any) -> Any:
    """Predictions as JSON has them: of a response of MLflow, a DataFrame, an array, or a list."""
    if isinstance(answer, dict) and "predictions" in answer:
        answer = answer["predictions"]
    if hasattr(answer, "to_dict"):
        return answer.to_dict("records") if hasattr(answer, "columns") else answer.tolist()
    return answer.tolist() if hasattr(answer, "tolist") else answer
