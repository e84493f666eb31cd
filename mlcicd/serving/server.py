"""Serves one MLflow model over HTTP. Run by path, with the interpreter of the model's own environment::

    python .../mlcicd/serving/server.py --model DIR --name NAME --version VERSION --port 8080

It imports nothing of mlcicd, only the standard library and what an environment that can load an MLflow
model has (mlflow, numpy, pandas, uvicorn), and keeps to Python 3.9. Beside MLflow's own routes
(`/invocations`, `/ping`, `/health`, `/version`) it answers the Open Inference Protocol v2 and `/metrics`
in Prometheus' text format.

Answers on errors are ``{"error_code", "message"}``: 400 for input the signature refuses, 413 for a body
above the limit, 500 for an exception or an answer JSON can not carry, 503 before the model is loaded or
above the concurrency limit, 504 after the time limit. No answer holds a traceback or a string of the request.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import functools
import importlib
import io
import json
import logging
import math
import os
import signal
import socket
import sys
import time
import traceback
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

EXIT_LOAD_FAILED = 3
EXIT_ADDRESS_IN_USE = 4

LATENCY_EDGES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SCORE_EDGES = tuple(round(0.05 * i, 2) for i in range(21))
MAX_SCORES_PER_REQUEST = 10_000
MAX_MESSAGE = 400

log = logging.getLogger("mlcicd.server")


class RequestRefused(Exception):
    """An answer other than 200: the status, MLflow's name for the error, and a sentence for the caller."""

    def __init__(self, status: int, error_code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code
        self.message = message


@dataclass(frozen=True)
class Options:
    model: Path
    name: str
    version: str
    host: str
    port: int
    run_file: Path | None
    threads: int
    max_body_bytes: int
    max_pending: int
    timeout_s: float
    drain_s: float


# --- metrics


@dataclass
class Histogram:
    """A Prometheus histogram: counts by upper edge, the last one without an edge."""

    edges: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.edges) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.edges, value)] += 1
        self.total += value

    def lines(self, name: str, labels: str) -> Iterator[str]:
        running = 0
        for edge, count in zip([*map(str, self.edges), "+Inf"], self.counts):  # noqa: B905  (Python 3.9)
            running += count
            yield f'{name}_bucket{{{labels},le="{edge}"}} {running}'
        yield f"{name}_sum{{{labels}}} {self.total:g}"
        yield f"{name}_count{{{labels}}} {running}"


class Metrics:
    """What the event loop counts. Touched by that one thread only, so it needs no lock."""

    def __init__(self, name: str, version: str) -> None:
        self._labels = f'model="{_escape(name)}",version="{_escape(version)}"'
        self.requests: dict[int, int] = {}
        self.latency = Histogram(LATENCY_EDGES_S)
        self.scores = Histogram(SCORE_EDGES)

    def text(self) -> str:
        lines = [
            "# HELP mlcicd_requests_total Prediction requests answered, by HTTP status code.",
            "# TYPE mlcicd_requests_total counter",
            *(
                f'mlcicd_requests_total{{{self._labels},code="{code}"}} {count}'
                for code, count in sorted(self.requests.items())
            ),
            "# HELP mlcicd_request_seconds Time from the whole body read to the answer.",
            "# TYPE mlcicd_request_seconds histogram",
            *self.latency.lines("mlcicd_request_seconds", self._labels),
            "# HELP mlcicd_prediction_score Numbers predicted.",
            "# TYPE mlcicd_prediction_score histogram",
            *self.scores.lines("mlcicd_prediction_score", self._labels),
        ]
        return "\n".join(lines) + "\n"


def _escape(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


# --- what messages say


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _unquoted(text: str) -> str:
    """MLflow prints some of its messages with the quotes of their `repr`."""
    quoted = len(text) > 1 and text[0] == text[-1] == "'"
    return text[1:-1] if quoted else text


def without_request_data(message: str, payload: Any) -> str:
    """The first line of a message, short, without the request's own string values.

    MLflow quotes the whole input before its ``Error:``; what follows is the part that helps the caller.
    """
    for marker in ("Error: ", "\nError: "):
        head, found, tail = message.partition(marker)
        if found and ("data" in head or "input" in head.lower()):
            message = tail
    line = _unquoted(message.strip()).partition("\n")[0]
    for value in sorted(set(_strings(payload)), key=len, reverse=True):
        if len(value) > 2:
            line = line.replace(value, "<value>")
    return line[:MAX_MESSAGE]


# --- the model


@dataclass(frozen=True)
class Answer:
    """A body to send, and the numbers in it for the score histogram."""

    body: bytes
    scores: list[float]


class Model:
    """A loaded MLflow model, and the translation between request bodies and its `predict`."""

    def __init__(self, path: Path, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self._model: Any = importlib.import_module("mlflow.pyfunc").load_model(str(path))
        self._mlflow_error: Any = importlib.import_module("mlflow.exceptions").MlflowException
        metadata = self._model.metadata
        self.schema: Any = metadata.get_input_schema()
        by_hint = getattr(metadata, "_is_signature_from_type_hint", None)
        self._typed_by_hint = bool(by_hint and by_hint())

    # MLflow's /invocations

    def invoke(self, body: bytes, content_type: str) -> Answer:
        """Answers one `/invocations` body; runs in a worker thread.

        Raises:
            RequestRefused: with the status to answer.
        """
        kind = content_type.partition(";")[0].strip().lower() or "application/json"
        payload: Any = None
        if kind == "application/json":
            payload = _json_object(body)
            data = self._parse(payload)
            params = payload.get("params")
        elif kind == "text/csv":
            data, params = self._parse_csv(body), None
        else:
            raise RequestRefused(415, "BAD_REQUEST", "content type must be application/json or text/csv")
        predictions = self._predict(data, params, payload)
        return self._encode(predictions)

    def _parse(self, payload: dict[str, Any]) -> Any:
        formats = {"dataframe_split", "dataframe_records", "instances", "inputs"}
        found = sorted(formats.intersection(payload))
        if len(found) != 1:
            raise RequestRefused(
                400,
                "BAD_REQUEST",
                f"the body must hold exactly one of {', '.join(sorted(formats))}; it holds "
                + (", ".join(found) if found else "none of them"),
            )
        key = found[0]
        if self._typed_by_hint and key == "inputs":
            return payload[key]  # MLflow hands such a model the JSON value as it is
        try:
            if key in ("instances", "inputs"):
                return _codec().parse_tf_serving_input({key: payload[key]}, schema=self.schema)
            orient = key[len("dataframe_") :]
            return _codec().dataframe_from_parsed_json(payload[key], pandas_orient=orient, schema=self.schema)
        except self._mlflow_error as error:
            raise self._refused(error, payload) from error
        except Exception as error:
            # pandas' own complaints about a malformed table: still the caller's input.
            raise RequestRefused(
                400, "BAD_REQUEST", f"{key} can not be read: {without_request_data(str(error), payload)}"
            ) from error

    def _parse_csv(self, body: bytes) -> Any:
        pd: Any = importlib.import_module("pandas")
        dtypes = None
        if self.schema is not None and self.schema.has_input_names() and not self.schema.is_tensor_spec():
            dtypes = dict(zip(self.schema.input_names(), self.schema.pandas_types()))  # noqa: B905
        try:
            return pd.read_csv(io.BytesIO(body), dtype=dtypes)
        except Exception as error:
            raise RequestRefused(400, "BAD_REQUEST", "the body can not be read as CSV of the signature") from error

    def _predict(self, data: Any, params: Any, payload: Any) -> Any:
        try:
            return self._model.predict(data, params=params) if params is not None else self._model.predict(data)
        except self._mlflow_error as error:
            by_signature = error.message.startswith("Failed to enforce") or params is not None
            if error.get_http_status_code() == 400 and by_signature:
                raise self._refused(error, payload) from error
            raise _model_failed(error, payload) from error
        except Exception as error:
            raise _model_failed(error, payload) from error

    @staticmethod
    def _refused(error: Any, payload: Any) -> RequestRefused:
        message = without_request_data(error.message, payload)
        if message.startswith(("Failed to convert", "Failed to parse", "Failed to enforce")):
            message = message.partition(" data")[0] + " the data to the types of the model's signature"
        return RequestRefused(400, str(error.error_code), message)

    def _encode(self, predictions: Any) -> Answer:
        plain = _codec()._get_jsonable_obj(predictions, pandas_orient="records")
        return Answer(_dump({"predictions": plain}), list(_numbers(plain)))

    # Open Inference Protocol v2

    def metadata(self) -> dict[str, Any]:
        inputs = []
        if self.schema is not None:
            for spec in self.schema.inputs:
                shape = list(getattr(spec, "shape", None) or [-1])
                inputs.append({"name": spec.name or "input", "datatype": _v2_type_of(spec), "shape": shape})
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": "mlflow_pyfunc",
            "inputs": inputs,
            "outputs": [],
        }

    def infer(self, body: bytes) -> Answer:
        """Answers one v2 `infer` body: columns by input name, or one two-dimensional input for all columns.

        Raises:
            RequestRefused: with the status to answer.
        """
        payload = _json_object(body)
        arrays = _v2_arrays(payload)
        predictions = self._predict(self._from_arrays(arrays), payload.get("parameters") or None, payload)
        outputs = _v2_outputs(predictions)
        answer: dict[str, Any] = {"model_name": self.name, "model_version": self.version, "outputs": outputs}
        if isinstance(payload.get("id"), str):
            answer["id"] = payload["id"]
        return Answer(_dump(answer), list(_numbers([output["data"] for output in outputs])))

    def _from_arrays(self, arrays: dict[str, Any]) -> Any:
        pd: Any = importlib.import_module("pandas")
        if self.schema is not None and self.schema.is_tensor_spec():
            return arrays if self.schema.has_input_names() else next(iter(arrays.values()))
        first = next(iter(arrays.values()))
        if len(arrays) == 1 and first.ndim == 2 and first.shape[1] > 1:
            names = self.schema.input_names() if self.schema is not None and self.schema.has_input_names() else None
            if names is not None and len(names) != first.shape[1]:
                raise RequestRefused(
                    400,
                    "BAD_REQUEST",
                    f"the input has {first.shape[1]} columns, the signature has {len(names)}",
                )
            return pd.DataFrame(first, columns=names)
        if len({array.shape[0] for array in arrays.values()}) > 1:
            raise RequestRefused(400, "BAD_REQUEST", "the inputs have different numbers of rows")
        return pd.DataFrame({name: array.reshape(array.shape[0]) for name, array in arrays.items()})


def _codec() -> Any:
    """MLflow's own translation between JSON and tables: the same answers as its server, version by
    version."""
    return importlib.import_module("mlflow.utils.proto_json_utils")


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise RequestRefused(400, "BAD_REQUEST", f"the body is not valid JSON{where}") from error
    if not isinstance(payload, dict):
        raise RequestRefused(400, "BAD_REQUEST", "the body must be a JSON object")
    return payload


def _model_failed(error: BaseException, payload: Any) -> RequestRefused:
    frames = traceback.extract_tb(error.__traceback__)
    # Where it failed is for the log; the exception's text may quote the request and stays out of it.
    places = " <- ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-4:]))
    log.error("the model raised %s at %s", type(error).__name__, places)
    message = without_request_data(str(error), payload)
    return RequestRefused(500, "INTERNAL_ERROR", f"the model raised {type(error).__name__}: {message}")


def _dump(answer: dict[str, Any]) -> bytes:
    try:
        return json.dumps(answer, cls=_codec().NumpyEncoder, allow_nan=False).encode()
    except ValueError as error:
        raise RequestRefused(
            500,
            "INTERNAL_ERROR",
            "the model answered NaN or an infinite number, which JSON can not carry",
        ) from error
    except TypeError as error:
        raise RequestRefused(
            500, "INTERNAL_ERROR", f"the model's answer can not be written as JSON: {error}"
        ) from error


def _numbers(value: Any) -> Iterator[float]:
    """The finite numbers in an answer, depth first, at most `MAX_SCORES_PER_REQUEST`."""
    stack = [value]
    seen = 0
    while stack and seen < MAX_SCORES_PER_REQUEST:
        item = stack.pop()
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)
        elif isinstance(item, (int, float)) and not isinstance(item, bool) and math.isfinite(item):
            seen += 1
            yield float(item)


_V2_NUMPY = {
    "BOOL": "bool",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
_NUMPY_V2 = {numpy: v2 for v2, numpy in _V2_NUMPY.items()}


def _v2_type_of(spec: Any) -> str:
    import numpy as np

    kind: Any = getattr(spec, "type", None)
    try:
        return _NUMPY_V2.get(np.dtype(kind.to_numpy() if hasattr(kind, "to_numpy") else kind).name, "BYTES")
    except TypeError:
        return "BYTES"


def _v2_arrays(payload: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    inputs = payload.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise RequestRefused(400, "BAD_REQUEST", "'inputs' must be a list with at least one tensor")
    arrays = {}
    for tensor in inputs:
        if not isinstance(tensor, dict) or not {"name", "shape", "datatype", "data"} <= set(tensor):
            raise RequestRefused(400, "BAD_REQUEST", "each input needs name, shape, datatype and data")
        if tensor["datatype"] not in _V2_NUMPY:
            raise RequestRefused(400, "BAD_REQUEST", f"datatype must be one of {', '.join(_V2_NUMPY)}")
        if not isinstance(tensor["name"], str) or not tensor["shape"]:
            raise RequestRefused(400, "BAD_REQUEST", "an input's name must be a string and its shape not empty")
        try:
            array = np.array(tensor["data"], dtype=_V2_NUMPY[tensor["datatype"]])
            arrays[tensor["name"]] = array.reshape([int(size) for size in tensor["shape"]])
        except (ValueError, TypeError, OverflowError) as error:
            raise RequestRefused(400, "BAD_REQUEST", "an input's data does not fit its shape and datatype") from error
    return arrays


def _v2_outputs(predictions: Any) -> list[dict[str, Any]]:
    import numpy as np

    pd: Any = importlib.import_module("pandas")
    if isinstance(predictions, pd.DataFrame):
        named = {str(column): predictions[column].to_numpy() for column in predictions}
    elif isinstance(predictions, dict):
        named = {str(name): np.asarray(value) for name, value in predictions.items()}
    else:
        named = {"predictions": np.asarray(predictions)}
    return [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": _NUMPY_V2.get(array.dtype.name, "BYTES"),
            "data": array.reshape(-1).tolist(),
        }
        for name, array in named.items()
    ]


# --- the HTTP


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
            status, content = refused.status, _error_body(refused, v2=path.startswith("/v2/"))
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


def _error_body(refused: RequestRefused, *, v2: bool) -> bytes:
    answer = {"error_code": refused.error_code, "message": refused.message}
    if v2:
        answer["error"] = refused.message
    return json.dumps(answer).encode()


# --- the process


def bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's delay off for what is accepted: 40 ms an answer
    # otherwise.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    # From here on connections wait instead of being refused, so that the port can be announced.
    listener.listen(2048)
    return listener


def announce(run_file: Path, port: int) -> None:
    """Says which process listens where; whole or not there."""
    temporary = run_file.with_name(f".{run_file.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"pid": os.getpid(), "port": port}))
    temporary.replace(run_file)


async def serve(options: Options) -> int:
    """Binds, answers liveness while the model loads, serves until SIGTERM or SIGINT, drains. The exit
    status."""
    import uvicorn

    try:
        listener = bind(options.host, options.port)
    except OSError as error:
        log.error("can not listen on %s port %d: %s", options.host, options.port, error.strerror)
        return EXIT_ADDRESS_IN_USE
    application = Application(options)
    config = uvicorn.Config(
        application,
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, math.ceil(options.timeout_s)),
    )
    # What uvicorn imports late, it imports now, not while the model's thread imports, too.
    config.load()
    server = uvicorn.Server(config)
    loop = asyncio.get_running_loop()

    def drain() -> None:
        application.draining = True
        loop.call_later(options.drain_s, functools.partial(setattr, server, "should_exit", True))

    # uvicorn's own handlers would raise the signal again at the end, and turn a clean stop into a failed one.
    server.capture_signals = _no_signals
    for stop in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(stop, drain)

    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    loading = asyncio.ensure_future(application.load())
    if options.run_file is not None:
        announce(options.run_file, listener.getsockname()[1])
    await asyncio.wait({serving, loading}, return_when=asyncio.FIRST_COMPLETED)
    status = 0
    failure = loading.exception() if loading.done() else None
    if failure is not None:
        traceback.print_exception(type(failure), failure, failure.__traceback__)
        log.error("the model failed to load: %s: %s", type(failure).__name__, failure)
        status = EXIT_LOAD_FAILED
        server.should_exit = True
    await serving
    return status


class _no_signals:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def parse_options(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(prog="server.py", description="Serves one MLflow model over HTTP.")
    parser.add_argument("--model", type=Path, required=True, help="the MLflow model directory")
    parser.add_argument("--name", required=True, help="the registered model's name")
    parser.add_argument("--version", required=True, help="the version, sent back as x-mlcicd-version")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--run-file", type=Path, help='where to write {"pid", "port"} once it listens')
    parser.add_argument("--threads", type=int, default=1, help="predictions at a time")
    parser.add_argument("--max-body-bytes", type=int, default=16 << 20)
    parser.add_argument("--max-pending", type=int, default=256, help="requests waiting or running; above it 503")
    parser.add_argument("--timeout-s", type=float, default=30.0, help="for one prediction; after it 504")
    parser.add_argument("--drain-s", type=float, default=0.0, help="seconds between not ready and not listening")
    return Options(**vars(parser.parse_args(arguments)))


def main() -> None:
    here = str(Path(__file__).resolve().parent)
    # Run by path, this file's directory would come first and its neighbours would shadow the user's modules.
    sys.path[:] = [entry for entry in sys.path if str(Path(entry or ".").resolve()) != here]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.environ["_MLFLOW_IS_IN_SERVING_ENVIRONMENT"] = "true"
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    options = parse_options(sys.argv[1:])
    # `kill -USR1` prints where every thread is: what a model that does not get ready waits for.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    status = asyncio.run(serve(options))
    sys.stdout.flush()
    sys.stderr.flush()
    # A model's own threads must not keep a drained server alive.
    os._exit(status)


if __name__ == "__main__":
    main()
