"""The ASGI application: routes, limits, and what is sent beside a body."""

from __future__ import annotations

import asyncio
import functools
import hmac
import importlib
import json
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .batching import Batcher
from .errors import RequestRefused, error_body
from .inference_log import Entry, InferenceLog
from .metrics import Metrics
from .model import Model
from .openapi import description
from .options import Options
from .questions import Request

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_JSON = b"application/json"
_TEXT = b"text/plain; version=0.0.4; charset=utf-8"
_BUSY = (503, "TEMPORARILY_UNAVAILABLE")
# What a caller should do about an answer, as headers.
_ADVICE: dict[int, list[Header]] = {
    401: [(b"www-authenticate", b"Bearer")],
    408: [(b"connection", b"close")],
    413: [(b"connection", b"close")],
    503: [(b"retry-after", b"1")],
}

log = logging.getLogger("mlcicd.server")


class Application:
    """Answers requests for one model.

    Args:
        options: the command line.
        token: what callers must send; empty lets everybody in.
    """

    def __init__(self, options: Options, token: str = "") -> None:
        self.options = options
        self.draining = False
        self._token = token.encode()
        self._model: Model | None = None
        self._batcher: Batcher | None = None
        self._openapi = b""
        self._pool = ThreadPoolExecutor(max_workers=options.threads, thread_name_prefix="predict")
        self._version_header = (b"x-mlcicd-version", options.version.encode("latin-1", "replace"))
        self._log = _inference_log(options)
        self._metrics = Metrics(options.name, options.version)
        own = f"/v2/models/{options.name}"
        exact = f"{own}/versions/{options.version}"
        self._ready_routes = {"/ready", "/v2/health/ready", f"{own}/ready", f"{exact}/ready"}
        self._open_routes = {"/ping", "/health", "/v2/health/live", *self._ready_routes}
        self._predict_routes = {"/invocations": "invocations", f"{own}/infer": "v2", f"{exact}/infer": "v2"}
        self._get_routes: dict[str, Callable[[], tuple[bytes, bytes]]] = {
            "/metrics": lambda: (_TEXT, self._metrics_text().encode()),
            "/version": self._mlflow_version,
            "/v2": lambda: (_JSON, json.dumps({"name": "mlcicd", "version": "2", "extensions": []}).encode()),
            "/openapi.json": lambda: (_JSON, self._loaded_openapi()),
            own: self._metadata,
            exact: self._metadata,
        }

    async def load(self) -> None:
        """Loads the model in the pool's own thread: some libraries tie what they load to it."""
        options = self.options
        loading = functools.partial(Model, options.model, options.name, options.version, options.batching)
        started = time.perf_counter()
        model = await asyncio.get_running_loop().run_in_executor(self._pool, loading)
        self._batcher = Batcher(model.answer, self._pool, options.threads, together=model.batched)
        described = description(model, secured=bool(self._token))
        self._openapi = json.dumps(described).encode()
        self._model = model
        # It warns of every column and parameter it does not know, by the name that the request gives them.
        logging.getLogger("mlflow.models.utils").setLevel(logging.ERROR)
        log.info(
            "model %s version %s ready after %.1f s",
            options.name,
            options.version,
            time.perf_counter() - started,
        )

    def close(self) -> None:
        """Writes what the inference log still holds."""
        if self._log is not None:
            self._log.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"unexpected ASGI scope {scope['type']}")
        path, method = scope["path"].rstrip("/") or "/", scope["method"]
        headers = [self._version_header]
        try:
            if path not in self._open_routes:
                self._let_in(scope)
            if path in self._predict_routes:
                request_id = _request_id(scope)
                headers.append((b"x-request-id", request_id))
                status, media, content = await self._answer(path, scope, receive, request_id)
            else:
                status, media, content = self._get(path, method)
        except RequestRefused as refused:
            status, media, content = refused.status, _JSON, error_body(refused, v2=path.startswith("/v2/"))
        headers += [(b"content-type", media), (b"content-length", str(len(content)).encode())]
        if status in _ADVICE:
            headers += _ADVICE[status]
        if status == 503 and self._model is None:
            # The router asks another replica: this one has not looked at the request.
            headers.append((b"x-mlcicd-loading", b"1"))
        if status == 405:
            headers.append((b"allow", b"POST" if path in self._predict_routes else b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else content})

    async def probe(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Health and readiness alone, for the port that asks nobody for a certificate."""
        if (scope["path"].rstrip("/") or "/") in self._open_routes:
            await self(scope, receive, send)
            return
        refused = RequestRefused(404, "ENDPOINT_NOT_FOUND", "this port answers health and readiness only")
        body = error_body(refused, v2=False)
        headers = [(b"content-type", _JSON), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": refused.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _let_in(self, scope: Scope) -> None:
        if not self._token:
            return
        scheme, _, given = _header(scope, b"authorization").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._token):
            raise RequestRefused(401, "UNAUTHENTICATED", "send the token as `Authorization: Bearer TOKEN`")

    # What is read

    def _get(self, path: str, method: str) -> tuple[int, bytes, bytes]:
        """(status, media type, body) of a route that reads."""
        health = self._health(path)
        if health is None and path not in self._get_routes:
            raise RequestRefused(404, "ENDPOINT_NOT_FOUND", f"no such route: this server holds {self.options.name}")
        if method not in ("GET", "HEAD"):
            raise RequestRefused(405, "BAD_REQUEST", "this route takes GET")
        return health if health is not None else (200, *self._get_routes[path]())

    def _health(self, path: str) -> tuple[int, bytes, bytes] | None:
        if path in ("/ping", "/health"):
            # MLflow's server listens only once its model is loaded: 200 here means the same.
            return (200 if self._model is not None else 503), _JSON, b"\n"
        if path in self._ready_routes:
            ready = self._model is not None and not self.draining
            return (200 if ready else 503), _JSON, json.dumps({"ready": ready}).encode()
        return (200, _JSON, b'{"live": true}') if path == "/v2/health/live" else None

    def _loaded(self) -> Model:
        if self._model is None:
            raise RequestRefused(*_BUSY, "the model is still loading")
        return self._model

    def _loaded_openapi(self) -> bytes:
        self._loaded()
        return self._openapi

    def _metadata(self) -> tuple[bytes, bytes]:
        return _JSON, json.dumps(self._loaded().metadata()).encode()

    def _mlflow_version(self) -> tuple[bytes, bytes]:
        self._loaded()
        version: str = importlib.import_module("mlflow.version").VERSION
        return _JSON, version.encode()

    def _metrics_text(self) -> str:
        counts = {"mlcicd_prediction_batches_total": self._batcher.batches if self._batcher else 0}
        if self._log is not None:
            counts["mlcicd_inference_log_written_total"] = self._log.written
            counts["mlcicd_inference_log_dropped_total"] = self._log.dropped
        return self._metrics.text(counts)

    # What is predicted

    async def _answer(self, path: str, scope: Scope, receive: Receive, request_id: bytes) -> tuple[int, bytes, bytes]:
        started, asked = time.perf_counter(), time.time()
        protocol, body = self._predict_routes[path], b""
        content_type = _header(scope, b"content-type").decode("latin-1")
        try:
            if scope["method"] != "POST":
                raise RequestRefused(405, "BAD_REQUEST", "this route takes POST")
            body = await self._read_body(scope, receive)
            started = time.perf_counter()
            status, content = 200, await self._predict(Request(protocol, body, content_type))
        except RequestRefused as refused:
            status, content = refused.status, error_body(refused, v2=protocol == "v2")
        self._metrics.answered(status, time.perf_counter() - started)
        name = request_id.decode()
        if self._log is not None and self._log.wants(name):
            self._log.add(Entry(name, asked, protocol, status, content_type, body, content))
        return status, _JSON, content

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        limit = self.options.max_body_bytes
        too_large = RequestRefused(413, "BAD_REQUEST", f"the body is larger than {limit} bytes")
        declared = _header(scope, b"content-length")
        if declared.isdigit() and int(declared) > limit:
            raise too_large
        reading = asyncio.current_task()
        assert reading is not None
        late: list[bool] = []

        def stop() -> None:
            late.append(True)
            reading.cancel()

        # Cheaper than `wait_for`, which makes a task of its own for every request.
        timer = asyncio.get_running_loop().call_later(self.options.timeout_s, stop)
        body = bytearray()
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RequestRefused(400, "BAD_REQUEST", "the client went away")
                body += message.get("body", b"")
                if len(body) > limit:
                    raise too_large
                if not message.get("more_body"):
                    return bytes(body)
        except asyncio.CancelledError:
            if not late:
                raise
            told = f"the body did not arrive within {self.options.timeout_s:g} s"
            raise RequestRefused(408, "DEADLINE_EXCEEDED", told) from None
        finally:
            timer.cancel()

    async def _predict(self, request: Request) -> bytes:
        self._loaded()
        assert self._batcher is not None
        if self._batcher.pending >= self.options.max_pending:
            raise RequestRefused(*_BUSY, f"{self._batcher.pending} requests are waiting already")
        future = self._batcher.submit(request)
        limit = self.options.timeout_s

        def expire() -> None:
            # A thread can not be cancelled: the caller stops waiting, the count goes down when it really ends.
            if not future.done():
                future.set_exception(RequestRefused(504, "DEADLINE_EXCEEDED", f"no prediction within {limit:g} s"))

        timer = asyncio.get_running_loop().call_later(limit, expire)
        try:
            answer = await future
        finally:
            timer.cancel()
        self._metrics.scored(answer.scores)
        return answer.body


def _inference_log(options: Options) -> InferenceLog | None:
    if options.inference_log is None:
        return None
    return InferenceLog(
        options.inference_log,
        model=options.name,
        version=options.version,
        sample=options.log_sample,
        redact=options.log_redact,
        max_mb=options.log_max_mb,
        keep=options.log_keep,
    )


def _request_id(scope: Scope) -> bytes:
    """The caller's or the router's id if it is one that is safe to send back and to write, else one of ours."""
    given = _header(scope, b"x-request-id")
    return given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex().encode()


def _header(scope: Scope, name: bytes) -> bytes:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""
