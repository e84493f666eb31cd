"""The ASGI application: routes, limits, and the thread pool predictions run in."""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .errors import RequestRefused, error_body
from .metrics import Metrics
from .model import Answer, Model
from .options import Options

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

log = logging.getLogger("mlcicd.server")


class Application:
    """The ASGI application: routes, limits, and the thread pool predictions run in."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.metrics = Metrics(options.name, options.version)
        self.model: Model | None = None
        self.draining = False
        self._pending = 0
        self._pool = ThreadPoolExecutor(max_workers=options.threads, thread_name_prefix="predict")
        self._headers = [(b"x-mlcicd-version", options.version.encode("latin-1", "replace"))]

    async def load(self) -> None:
        """Loads the model in the pool's own thread: some libraries tie what they load to it."""
        options = self.options
        loading = functools.partial(Model, options.model, options.name, options.version)
        started = time.perf_counter()
        self.model = await asyncio.get_running_loop().run_in_executor(self._pool, loading)
        log.info(
            "model %s version %s ready after %.1f s",
            options.name,
            options.version,
            time.perf_counter() - started,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"unexpected ASGI scope {scope['type']}")
        path, method = scope["path"].rstrip("/") or "/", scope["method"]
        predict = path == "/invocations" or (path.startswith("/v2/models/") and path.endswith("/infer"))
        started = time.perf_counter()
        media, extra = b"application/json", []
        try:
            if predict:
                if method != "POST":
                    raise RequestRefused(405, "BAD_REQUEST", f"{path} takes POST")
                body = await self._read_body(scope, receive)
                started = time.perf_counter()
                status, content = 200, await self._predict(path, body, scope)
            elif method not in ("GET", "HEAD"):
                raise RequestRefused(405, "BAD_REQUEST", f"{path} takes GET")
            else:
                status, media, content = self._get(path)
        except RequestRefused as refused:
            status, content = refused.status, error_body(refused, v2=path.startswith("/v2/"))
            if status in (413, 503):
                extra = [(b"connection", b"close")] if status == 413 else [(b"retry-after", b"1")]
        if predict:
            self.metrics.requests[status] = self.metrics.requests.get(status, 0) + 1
            self.metrics.latency.add(time.perf_counter() - started)
        headers = [
            (b"content-type", media),
            (b"content-length", str(len(content)).encode()),
            *self._headers,
            *extra,
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else content})

    def _get(self, path: str) -> tuple[int, bytes, bytes]:
        """(status, media type, body) of a route that reads."""
        answer = self._health(path)
        if answer is not None:
            return answer
        own = f"/v2/models/{self.options.name}"
        if path == "/metrics":
            return 200, b"text/plain; version=0.0.4; charset=utf-8", self.metrics.text().encode()
        if path == "/version":
            self._loaded()
            version: str = importlib.import_module("mlflow.version").VERSION
            return 200, b"application/json", version.encode()
        if path == "/v2":
            server = {"name": "mlcicd", "version": self.options.version, "extensions": []}
            return 200, b"application/json", json.dumps(server).encode()
        if path in (own, f"{own}/versions/{self.options.version}"):
            return 200, b"application/json", json.dumps(self._loaded().metadata()).encode()
        raise RequestRefused(404, "ENDPOINT_NOT_FOUND", "no such route")

    def _health(self, path: str) -> tuple[int, bytes, bytes] | None:
        loaded = self.model is not None
        ready = loaded and not self.draining
        if path in ("/ping", "/health"):
            # MLflow's server listens only once its model is loaded: 200 here means the same.
            return (200 if loaded else 503), b"application/json", b"\n"
        if path in ("/ready", "/v2/health/ready", f"/v2/models/{self.options.name}/ready"):
            return (200 if ready else 503), b"application/json", json.dumps({"ready": ready}).encode()
        if path == "/v2/health/live":
            return 200, b"application/json", b'{"live": true}'
        return None

    def _loaded(self) -> Model:
        if self.model is None:
            raise RequestRefused(503, "TEMPORARILY_UNAVAILABLE", "the model is still loading")
        return self.model

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        limit = self.options.max_body_bytes
        refused = RequestRefused(413, "BAD_REQUEST", f"the body is larger than {limit} bytes")
        declared = _header(scope, b"content-length")
        if declared.isdigit() and int(declared) > limit:
            raise refused
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RequestRefused(400, "BAD_REQUEST", "the client went away")
            body += message.get("body", b"")
            if len(body) > limit:
                raise refused
            if not message.get("more_body"):
                return bytes(body)

    async def _predict(self, path: str, body: bytes, scope: Scope) -> bytes:
        model = self._loaded()
        options = self.options
        if path == "/invocations":
            call = functools.partial(model.invoke, body, _header(scope, b"content-type").decode("latin-1"))
        elif path in (
            f"/v2/models/{options.name}/infer",
            f"/v2/models/{options.name}/versions/{options.version}/infer",
        ):
            call = functools.partial(model.infer, body)
        else:
            raise RequestRefused(404, "ENDPOINT_NOT_FOUND", f"this server holds {options.name} {options.version}")
        if self._pending >= options.max_pending:
            raise RequestRefused(503, "TEMPORARILY_UNAVAILABLE", f"{self._pending} requests are waiting already")
        self._pending += 1
        running = asyncio.get_running_loop().run_in_executor(self._pool, call)
        running.add_done_callback(self._finished)
        try:
            # A thread can not be cancelled: the caller stops waiting, the count goes down when it really
            # ends.
            answer = await asyncio.wait_for(asyncio.shield(running), options.timeout_s)
        except asyncio.TimeoutError:  # noqa: UP041  (not TimeoutError before 3.11)
            raise RequestRefused(504, "DEADLINE_EXCEEDED", f"no prediction within {options.timeout_s:g} s") from None
        for score in answer.scores:
            self.metrics.scores.add(score)
        return answer.body

    def _finished(self, future: asyncio.Future[Answer]) -> None:
        self._pending -= 1
        if not future.cancelled():
            future.exception()  # marks it as seen: after a timeout nobody else asks


def _header(scope: Scope, name: bytes) -> bytes:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""
