"""What is answered instead of a prediction, without the request's own data."""

from __future__ import annotations

import itertools
import json
import logging
import re
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

MAX_MESSAGE = 400
# Taking the request's strings out of a message costs their number times the message's length: both are bounded.
MAX_TEXT = 2000
MAX_STRINGS = 2000
# A longer string is found by its head.
_HEAD = 100
_TOO_MANY = "the reason is left out: the request holds too many strings to keep them out of it"

log = logging.getLogger("mlcicd.server")


class RequestRefused(Exception):
    """An answer other than 200: the status, MLflow's name for the error, and a sentence for the caller."""

    def __init__(self, status: int, error_code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code
        self.message = message


def _strings(payload: Any) -> Iterator[str]:
    """The string values of a body, however deep it is nested."""
    stack = [payload]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, bytes):
            yield from _cells(value)


def _cells(body: bytes) -> Iterator[str]:
    """What CSV holds below its header, but for numbers; a quoted cell in pieces."""
    text = body.decode("utf-8", "replace")
    header = re.match(r"[^\r\n]*", text)
    for cell in re.compile(r'[^,"\r\n]+').finditer(text, header.end() if header else 0):
        try:
            float(cell.group())
        except ValueError:
            yield cell.group()


def _distinct_strings(payload: Any) -> set[str] | None:
    """The strings that a message must not repeat; None if there are more than `MAX_STRINGS`."""
    found: set[str] = set()
    for value in _strings(payload):
        if len(value) > 2:
            found.add(value)
            if len(found) > MAX_STRINGS:
                return None
    return found


def _without(text: str, values: Iterable[str]) -> str:
    """The start of a text with `<value>` for each of the values, as far as it is known what belongs to one."""
    window = text[:MAX_TEXT]
    hidden = bytearray(len(window))
    for value in values:
        start = window.find(value[:_HEAD])
        while start >= 0:
            end = min(start + len(value), len(window))
            hidden[start:end] = bytes([1]) * (end - start)
            start = window.find(value[:_HEAD], end)
    # Of a value across the cut, less than its head may be in the window.
    shown = len(window) if len(window) == len(text) else len(window) - _HEAD
    parts, position = [], 0
    for is_hidden, run in itertools.groupby(hidden[:shown]):
        length = sum(1 for _ in run)
        parts.append("<value>" if is_hidden else window[position : position + length])
        position += length
    return "".join(parts)


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
    values = _distinct_strings(payload)
    if values is None:
        return _TOO_MANY
    # A value may hold an end of line itself.
    return _without(_unquoted(message.strip()), values).partition("\n")[0][:MAX_MESSAGE]


def places_of(error: BaseException) -> str:
    """The innermost lines an exception came from."""
    frames = traceback.extract_tb(error.__traceback__)
    return " <- ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-4:]))


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"its text can not be read ({type(broken).__name__})"


def model_failed(error: BaseException, payload: Any) -> RequestRefused:
    # Where it failed is for the log; the exception's text may quote the request and stays out of it.
    log.error("the model raised %s at %s", type(error).__name__, places_of(error))
    message = without_request_data(_text_of(error), payload)
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
