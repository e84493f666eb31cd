"""Smoke requests: golden requests a fresh version must answer before it gets any traffic.

They are lines of `smoke.jsonl`: an MLflow request body, and optionally what to expect of the answer::

    {"dataframe_records": [{"x": 1.0}], "expect": {"shape": [1], "min": 0, "max": 1}}
    {"inputs": {"x": [1.0]}, "expect": {"equals": [0.73], "tolerance": 0.01}}
    {"dataframe_records": [{"wrong": 1.0}], "expect": {"status": 400}}

Without `expect`, any answer 200 whose predictions are not empty and hold no NaN passes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeFloat, ValidationError

from mlcicd.core.errors import InputError
from mlcicd.core.verdict import Check, CheckStatus

MAX_REASON = 300


class Expectation(BaseModel):
    """What an answer must be; every key that is given must hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Annotated[int, Field(ge=100, le=599)] = 200
    shape: tuple[int, ...] | None = None
    min: FiniteFloat | None = None
    max: FiniteFloat | None = None
    equals: Any = None
    tolerance: NonNegativeFloat = 0.0
    max_latency_ms: NonNegativeFloat | None = None


@dataclass(frozen=True)
class SmokeRequest:
    """One golden request: a name for the report, the body to send, what to expect."""

    name: str
    body: dict[str, Any]
    expect: Expectation = Expectation()  # noqa: RUF009  (frozen)


def read_smoke(path: Path) -> list[SmokeRequest]:
    """Reads golden requests, one JSON object a line; empty lines are left out.

    Raises:
        InputError: the file is missing, empty, or a line of it is not a request.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the smoke requests can not be read", where=str(path), why=str(error)) from error
    requests = [_parse(line, f"{path}:{number}", number) for number, line in enumerate(lines, 1) if line.strip()]
    if not requests:
        raise InputError("there are no smoke requests", where=str(path), remedy="add at least one, one JSON a line")
    return requests


def _parse(line: str, where: str, number: int) -> SmokeRequest:
    try:
        body = json.loads(line)
        if not isinstance(body, dict):
            raise ValueError("a request is a JSON object")
        expect = Expectation.model_validate(body.pop("expect", {}))
        name = body.pop("name", f"line {number}")
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["expect", *map(str, first["loc"])])
        raise InputError(f"{key}: {first['msg']}", where=where) from error
    except ValueError as error:
        raise InputError("not a smoke request", where=where, why=str(error)) from error
    return SmokeRequest(str(name), body, expect)


def run_smoke(url: str, requests: Sequence[SmokeRequest], *, timeout_s: float = 30.0, token: str = "") -> list[Check]:
    """Sends each request once to `url`/invocations; one check a request.

    No request at all gives one inconclusive check: nothing was tested.

    Args:
        url: the root of the server of the version under test.
        requests: golden requests.
        timeout_s: the longest one answer is waited for.
        token: sent with each, if there is one.
    """
    from requests import Session

    if not requests:
        return [Check(name="smoke", status=CheckStatus.INCONCLUSIVE, reason="there are no smoke requests")]
    with Session() as session:
        # A proxy of the environment has no business between us and the server under test.
        session.trust_env = False
        if token:
            session.headers["authorization"] = f"Bearer {token}"
        return [_check(session, url, request, timeout_s) for request in requests]


def _check(session: Any, url: str, request: SmokeRequest, timeout_s: float) -> Check:
    from requests import RequestException

    name = f"smoke: {request.name}"
    required = _required(request.expect)
    started = time.perf_counter()
    try:
        response = session.post(f"{url}/invocations", json=request.body, timeout=timeout_s)
    except RequestException as error:
        return Check(name=name, status=CheckStatus.FAILED, required=required, reason=f"no answer: {_short(error)}")
    except ValueError as error:
        return Check(
            name=name,
            status=CheckStatus.FAILED,
            required=required,
            reason=f"the request can not be sent as JSON: {_short(error)}",
        )
    latency_ms = (time.perf_counter() - started) * 1000.0
    problem = next(_problems(request.expect, response.status_code, response.content, latency_ms), "")
    return Check(
        name=name,
        status=CheckStatus.FAILED if problem else CheckStatus.PASSED,
        observed=f"status {response.status_code}",
        required=required,
        reason=problem or "as expected",
        details={"latency_ms": round(latency_ms, 3), "status": response.status_code},
    )


def _required(expect: Expectation) -> str:
    given = expect.model_dump(exclude_unset=True, exclude_none=True)
    words = [f"{key} {value}" for key, value in {"status": expect.status, **given}.items()]
    return _short(", ".join(words))


def _problems(expect: Expectation, status: int, content: bytes, latency_ms: float) -> Iterator[str]:
    """What is wrong with an answer; the first is the one reported."""
    if status != expect.status:
        yield f"answered {status}: {_short(content.decode('utf-8', 'replace'))}"
        return
    if expect.max_latency_ms is not None and latency_ms > expect.max_latency_ms:
        yield f"took {latency_ms:.1f} ms"
    if status != 200:
        return
    try:
        predictions = json.loads(content)["predictions"]
    except (ValueError, KeyError, TypeError):
        yield "the answer is not a JSON object with 'predictions'"
        return
    numbers = list(_numbers(predictions))
    shape = _shape(predictions)
    if 0 in shape:
        yield "the predictions are empty"
    if None in numbers:
        yield "the predictions hold a null"
    if any(number is not None and not math.isfinite(number) for number in numbers):
        yield "the predictions hold NaN or an infinite number"
    if expect.shape is not None and shape != expect.shape:
        yield f"the predictions have shape {list(shape)}"
    finite = [number for number in numbers if number is not None]
    if (expect.min is not None or expect.max is not None) and not finite:
        yield "the predictions hold no number to compare"
    if expect.min is not None and any(number < expect.min for number in finite):
        yield f"the smallest prediction is {min(finite):g}"
    if expect.max is not None and any(number > expect.max for number in finite):
        yield f"the largest prediction is {max(finite):g}"
    if expect.equals is not None and not _equal(predictions, expect.equals, expect.tolerance):
        yield f"answered {_short(json.dumps(predictions))}"


def _numbers(value: Any) -> Iterator[float | None]:
    """All numbers and nulls of an answer."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield value


def _shape(value: Any) -> tuple[int, ...]:
    """The lengths of nested lists, by their first items; a record counts as one axis of its keys."""
    shape: list[int] = []
    while isinstance(value, list | dict):
        shape.append(len(value))
        if not value:
            break
        value = value[0] if isinstance(value, list) else next(iter(value.values()))
    return tuple(shape)


def _equal(seen: Any, wanted: Any, tolerance: float) -> bool:
    """Whether two JSON values are the same, numbers within an absolute tolerance."""
    if isinstance(seen, list) and isinstance(wanted, list):
        return len(seen) == len(wanted) and all(_equal(a, b, tolerance) for a, b in zip(seen, wanted, strict=True))
    if isinstance(seen, dict) and isinstance(wanted, dict):
        return seen.keys() == wanted.keys() and all(_equal(seen[key], wanted[key], tolerance) for key in seen)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (seen, wanted))
    if numbers:
        return math.isfinite(seen) and abs(seen - wanted) <= tolerance
    return type(seen) is type(wanted) and bool(seen == wanted)


def _short(value: object) -> str:
    return " ".join(str(value).split())[:MAX_REASON]
