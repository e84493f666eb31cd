"""JSON in and out, as MLflow reads and writes it."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Iterator
from typing import Any

from .errors import RequestRefused

MAX_SCORES_PER_REQUEST = 10_000


def mlflow_codec() -> Any:
    """MLflow's own translation between JSON and tables: the same answers as its server, version by
    version."""
    return importlib.import_module("mlflow.utils.proto_json_utils")


def json_object(body: bytes) -> dict[str, Any]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise RequestRefused(400, "BAD_REQUEST", f"the body is not valid JSON{where}") from error
    if not isinstance(payload, dict):
        raise RequestRefused(400, "BAD_REQUEST", "the body must be a JSON object")
    return payload


def dump(answer: dict[str, Any]) -> bytes:
    try:
        return json.dumps(answer, cls=mlflow_codec().NumpyEncoder, allow_nan=False).encode()
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


def numbers(value: Any) -> Iterator[float]:
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
