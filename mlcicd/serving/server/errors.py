"""What is answered instead of a prediction, without the request's own data."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_MESSAGE = 400

log = logging.getLogger("mlcicd.server")


class RequestRefused(Exception):
    """An answer other than 200: the status, MLflow's name for the error, and a sentence for the caller."""

    def __init__(self, status: int, error_code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code
        self.message = message


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


def places_of(error: BaseException) -> str:
    """The innermost lines an exception came from."""
    frames = traceback.extract_tb(error.__traceback__)
    return " <- ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-4:]))


def model_failed(error: BaseException, payload: Any) -> RequestRefused:
    # Where it failed is for the log; the exception's text may quote the request and stays out of it.
    log.error("the model raised %s at %s", type(error).__name__, places_of(error))
    message = without_request_data(str(error), payload)
    return RequestRefused(500, "INTERNAL_ERROR", f"the model raised {type(error).__name__}: {message}")


def refused_by_mlflow(error: Any, payload: Any) -> RequestRefused:
    """What MLflow says against the request's data, as a 400."""
    message = without_request_data(error.message, payload)
    if message.startswith(("Failed to convert", "Failed to parse", "Failed to enforce")):
        message = message.partition(" data")[0] + " the data to the types of the model's signature"
    return RequestRefused(400, str(error.error_code), message)


def error_body(refused: RequestRefused, *, v2: bool) -> bytes:
    answer = {"error_code": refused.error_code, "message": refused.message}
    if v2:
        answer["error"] = refused.message
    return json.dumps(answer).encode()
