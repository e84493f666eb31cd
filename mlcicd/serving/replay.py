"""Replays request bodies against a server at a bounded rate: the traffic of a canary where there is none
of users.

It is a load generator, so it refuses to aim at anything but this machine unless it is told otherwise.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import math
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from mlcicd.core.errors import ConfigError, InputError

MAX_RATE_PER_S = 10_000.0
MAX_CONCURRENCY = 256
NO_ANSWER = 0


def read_bodies(path: Path) -> list[bytes]:
    """Request bodies of a JSON-lines file; what only smoke tests read (`name`, `expect`) is left out.

    Raises:
        InputError: the file is missing or empty, or a line is not a JSON object.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the requests can not be read", where=str(path), why=str(error)) from error
    bodies = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            body = json.loads(line)
        except ValueError as error:
            raise InputError("not a JSON line", where=f"{path}:{number}", why=str(error)) from error
        if not isinstance(body, dict):
            raise InputError("a request is a JSON object", where=f"{path}:{number}")
        bodies.append(json.dumps({k: v for k, v in body.items() if k not in ("name", "expect")}).encode())
    if not bodies:
        raise InputError("there are no requests to replay", where=str(path))
    return bodies


@dataclass
class ReplayResult:
    """What came back.

    Attributes:
        answers: requests by (HTTP status, `x-mlcicd-version`); status 0 is a request without an answer,
            version empty.
        latencies_ms: one per answer, in the order of completion, unordered between workers.
        duration_s: from the first request to the last answer.
        failures: requests without an answer, by the kind of error.
    """

    answers: Counter[tuple[int, str]] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    duration_s: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def sent(self) -> int:
        return sum(self.answers.values())

    @property
    def ok(self) -> int:
        """Requests answered with a 2xx status."""
        return sum(count for (status, _), count in self.answers.items() if 200 <= status < 300)

    def by_version(self) -> dict[str, int]:
        """Answers by version, whatever their status."""
        totals: Counter[str] = Counter()
        for (_, version), count in self.answers.items():
            totals[version] += count
        return dict(totals)


def replay(
    url: str,
    bodies: Sequence[bytes],
    *,
    rate_per_s: float,
    duration_s: float | None = None,
    count: int | None = None,
    concurrency: int = 4,
    stop: threading.Event | None = None,
    loopback_only: bool = True,
    path: str = "/invocations",
    timeout_s: float = 30.0,
    token: str = "",
    tls: ssl.SSLContext | None = None,
) -> ReplayResult:
    """Sends the bodies in turn, again from the first after the last, until the time or the count is reached.

    Requests are sent at even distances (an open loop) as long as `concurrency` connections keep up; a
    server that does not lets the rate sink, it never builds up a debt that is sent in a burst.

    Args:
        url: the server's root, `http://host:port`, or `https://host:port`.
        bodies: MLflow request bodies.
        rate_per_s: requests a second, at most 10 000.
        duration_s, count: when to end; at least one of them.
        concurrency: connections, kept alive.
        stop: ends it early when set.
        loopback_only: refuse any host that is not this machine.
        timeout_s: the longest one answer is waited for.
        token: sent with each, if there is one.
        tls: for an https URL: whom to trust, and the caller's own certificate.

    Raises:
        ConfigError: a limit is exceeded, or the host is not this machine.
        InputError: there is nothing to send.
    """
    host, port = _checked_host(url, "https" if tls else "http", loopback_only=loopback_only)
    if not math.isfinite(rate_per_s) or not 0 < rate_per_s <= MAX_RATE_PER_S:
        raise ConfigError(f"the rate must lie between 0 and {MAX_RATE_PER_S:g} requests a second, not {rate_per_s}")
    if not 1 <= concurrency <= MAX_CONCURRENCY:
        raise ConfigError(f"the concurrency must lie between 1 and {MAX_CONCURRENCY}, not {concurrency}")
    if duration_s is None and count is None:
        raise ConfigError("a replay needs an end: a duration or a count")
    if duration_s is not None and not (math.isfinite(duration_s) and duration_s >= 0):
        raise ConfigError(f"the duration must be a number of seconds, not {duration_s}")
    if not bodies:
        raise InputError("there are no requests to replay", where=url)
    schedule = _Schedule(rate_per_s, duration_s, count, stop or threading.Event())
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
    worker = _Worker(host, port, path, list(bodies), timeout_s, schedule, headers, tls)
    results = [ReplayResult() for _ in range(concurrency)]
    threads = [threading.Thread(target=worker.run, args=(result,), daemon=True) for result in results]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = ReplayResult(duration_s=time.monotonic() - started)
    for result in results:
        total.answers.update(result.answers)
        total.failures.update(result.failures)
        total.latencies_ms.extend(result.latencies_ms)
    return total


class _Schedule:
    """Hands out the number of the next request when its time has come."""

    def __init__(self, rate_per_s: float, duration_s: float | None, count: int | None, stop: threading.Event) -> None:
        self._gap = 1.0 / rate_per_s
        self._count = count
        self._stop = stop
        self._lock = threading.Lock()
        self._next = time.monotonic()
        self._end = self._next + duration_s if duration_s is not None else math.inf
        self._sent = 0

    def take(self) -> int | None:
        """The number of the request to send now; None when it is over."""
        with self._lock:
            if self._count is not None and self._sent >= self._count:
                return None
            due = max(self._next, time.monotonic())
            if due >= self._end:
                return None
            number, self._sent, self._next = self._sent, self._sent + 1, due + self._gap
        if self._stop.wait(max(0.0, due - time.monotonic())):
            return None
        return number


@dataclass(frozen=True)
class _Worker:
    host: str
    port: int
    path: str
    bodies: list[bytes]
    timeout_s: float
    schedule: _Schedule
    headers: dict[str, str]
    tls: ssl.SSLContext | None

    def run(self, result: ReplayResult) -> None:
        connection = (
            _TlsConnection(self.host, self.port, timeout=self.timeout_s, context=self.tls)
            if self.tls
            else _Connection(self.host, self.port, timeout=self.timeout_s)
        )
        try:
            while (number := self.schedule.take()) is not None:
                self._send(connection, self.bodies[number % len(self.bodies)], result)
        finally:
            connection.close()

    def _send(self, connection: http.client.HTTPConnection, body: bytes, result: ReplayResult) -> None:
        started = time.perf_counter()
        try:
            connection.request("POST", self.path, body=body, headers=self.headers)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            # Counted, never sent again: the one who measures must not hide what was lost.
            connection.close()
            result.answers[(NO_ANSWER, "")] += 1
            result.failures[type(error).__name__] += 1
            return
        result.latencies_ms.append((time.perf_counter() - started) * 1000.0)
        result.answers[(response.status, response.getheader("x-mlcicd-version") or "")] += 1


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _TlsConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _checked_host(url: str, scheme: str, *, loopback_only: bool) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or (443 if scheme == "https" else 80)
    except ValueError as error:
        raise ConfigError("not a URL", where=url, why=str(error)) from error
    if parts.scheme != scheme or not host:
        raise ConfigError(f"a replay needs an {scheme}:// URL", where=url)
    if loopback_only and not _is_loopback(host):
        raise ConfigError(
            "a replay only aims at this machine",
            where=url,
            why="It sends traffic as fast as it is told, which another host may not expect.",
            remedy="allow remote hosts explicitly if this one is yours",
        )
    return host, port


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
