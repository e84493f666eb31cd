"""Prometheus' HTTP API as far as windows need it: one range query, answered whole or refused.

Described in Prometheus' documentation under "HTTP API", range queries. Thanos, Mimir, VictoriaMetrics and the clouds'
managed services answer the same way.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

from mlcicd.core.errors import ConfigError, ServiceError

_BODY_LIMIT = 32 << 20
_ATTEMPTS = 4
_FIRST_BACKOFF_S = 0.5
_LONGEST_WAIT_S = 10.0
_RETRIED = frozenset({429, 500, 502, 503, 504})
# What Prometheus remarks on a query (say, that a counter's name is unusual). Any other warning means that a part of
# the data was not there.
_REMARK = re.compile(r"^PromQL (info|warning):", re.IGNORECASE)


@dataclass(frozen=True)
class Series:
    """One time series on the grid of the query: its labels, and values by grid index; an index may be absent."""

    labels: tuple[tuple[str, str], ...]
    values: dict[int, float]

    def label(self, name: str) -> str:
        return dict(self.labels).get(name, "")


class _Again(Exception):
    """This attempt failed in a way that may pass."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class PrometheusApi:
    """Range queries to one server.

    Args:
        url: of the server, with the path below which `/api/v1` is.
        token: sent as a bearer token; empty: none. It is in no message.
        timeout_s: for connecting, and for each silence of the server.
        sleep: how to wait between attempts, in seconds.

    Raises:
        ConfigError: not an http(s) URL, or a token that no header may hold.
    """

    def __init__(
        self, url: str, *, token: str = "", timeout_s: float = 10.0, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._url = url.rstrip("/")
        parts = urlsplit(self._url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("the address of Prometheus is not an http(s) URL", where="canary.prometheus.url")
        if not all(33 <= ord(c) <= 126 for c in token):
            raise ConfigError("the token for Prometheus holds characters that no token has")
        self._headers = {"user-agent": "mlcicd", "accept": "application/json"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._timeout_s = timeout_s
        self._sleep = sleep

    def query_range(self, query: str, start: float, step_s: float, points: int) -> list[Series]:
        """Values at `start + k * step_s`, k in [0, points); NaN and infinite values are absent ones.

        Raises:
            ConfigError: the server does not understand the query.
            ServiceError: no answer after a few attempts, not allowed, or a partial answer.
        """
        parameters = {
            "query": query,
            "start": f"{start:.3f}",
            "end": f"{start + (points - 1) * step_s:.3f}",
            "step": f"{step_s:.3f}",
        }
        wait, failure = _FIRST_BACKOFF_S, ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._sleep(min(wait, _LONGEST_WAIT_S))
            try:
                return _series(self._ask(parameters), start, step_s, points, self._url)
            except _Again as again:
                failure = str(again)
                wait = _FIRST_BACKOFF_S * 2**attempt if again.wait_s is None else again.wait_s
        raise ServiceError(
            f"Prometheus did not answer in {_ATTEMPTS} attempts",
            where=self._url,
            why=failure,
            remedy="look whether it runs and can be reached from here; windows are read later",
        )

    def _ask(self, parameters: dict[str, str]) -> dict[str, Any]:
        try:
            with requests.get(
                f"{self._url}/api/v1/query_range",
                params=parameters,
                headers=self._headers,
                timeout=self._timeout_s,
                # A token must not follow a redirect, and a login page is no answer.
                allow_redirects=False,
                stream=True,
            ) as response:
                status, body = response.status_code, _read(response, self._timeout_s)
        except requests.RequestException as error:
            raise _Again(f"{type(error).__name__}: {error}") from error
        if status in _RETRIED:
            raise _Again(f"HTTP status {status}: {_first_line(body)}", _retry_after(response))
        return self._checked(status, body, parameters["query"])

    def _checked(self, status: int, body: bytes, query: str) -> dict[str, Any]:
        if status in (401, 403):
            raise ServiceError(
                f"Prometheus refuses access (HTTP status {status})",
                where=self._url,
                remedy="set the environment variable named by canary.prometheus.token_env to a token that may read",
            )
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError) as error:
            if 200 <= status < 300:
                # Cut short on its way, or a proxy's page.
                raise _Again(f"an answer that is not JSON: {_first_line(body)}") from error
            answer = None
        if status in (400, 422) and isinstance(answer, dict):
            raise ConfigError(
                f"Prometheus does not take the query: {str(answer.get('error', ''))[:300]}",
                where="canary.prometheus.queries",
                why=f"The query was: {query}",
                remedy="try it in Prometheus' own page, and correct it",
            )
        if status != 200 or not isinstance(answer, dict) or answer.get("status") != "success":
            raise ServiceError(
                f"Prometheus answered with HTTP status {status}",
                where=self._url,
                why=_first_line(body),
                remedy="look whether canary.prometheus.url is the address of the server itself",
            )
        lacking = [text for text in map(str, answer.get("warnings") or []) if not _REMARK.match(text)]
        if lacking:
            raise ServiceError(
                "Prometheus answered with a part of the data",
                where=self._url,
                why=lacking[0][:300],
                remedy="the window is read again later; look after the store that is missing",
            )
        return answer


def _read(response: requests.Response, timeout_s: float) -> bytes:
    """The body, at most `_BODY_LIMIT` bytes, within a few timeouts however slowly it drips."""
    deadline = time.monotonic() + 3 * timeout_s
    parts, size = [], 0
    for part in response.iter_content(1 << 16):
        parts.append(part)
        size += len(part)
        if size > _BODY_LIMIT:
            raise ServiceError(
                f"Prometheus' answer is longer than {_BODY_LIMIT >> 20} MiB",
                remedy="make the queries of canary.prometheus select the two versions only",
            )
        if time.monotonic() > deadline:
            raise _Again(f"the answer was not whole after {3 * timeout_s:g} s")
    return b"".join(parts)


def _series(answer: dict[str, Any], start: float, step_s: float, points: int, where: str) -> list[Series]:
    try:
        data = answer["data"]
        if data["resultType"] != "matrix":
            raise ValueError(f"a {data['resultType']}, not a matrix")
        return [_one(item, start, step_s, points) for item in data["result"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServiceError("Prometheus' answer is not that of a range query", where=where, why=repr(error)) from error


def _one(item: dict[str, Any], start: float, step_s: float, points: int) -> Series:
    values = {}
    for at, text in item["values"]:
        value, index = float(text), round((float(at) - start) / step_s)
        if math.isfinite(value) and 0 <= index < points:
            values[index] = value
    labels = tuple(sorted((str(k), str(v)) for k, v in item["metric"].items()))
    return Series(labels, values)


def _retry_after(response: requests.Response) -> float | None:
    said = response.headers.get("retry-after", "")
    return float(said) if re.fullmatch(r"\d{1,6}", said) else None


def _first_line(body: bytes) -> str:
    return body[:300].decode("utf-8", "replace").strip().partition("\n")[0]
