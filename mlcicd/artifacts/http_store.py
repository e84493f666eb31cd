"""A store behind plain HTTP: Nexus (raw), Artifactory (generic), WebDAV, whatever takes PUT and gives with GET."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO
from urllib.parse import quote, urljoin, urlsplit

import requests

from mlcicd.artifacts.stores import Sink, Stop
from mlcicd.core.errors import ConfigError, ServiceError, learn_secret, redact

_TIMEOUT = (10.0, 60.0)
_ATTEMPTS = 5
_FIRST_PAUSE_S = 1.0
_CHUNK = 1 << 20
_REDIRECTS = 3
_MOST_S = 120.0


class HttpStore:
    """A folder of an HTTP server.

    Waits as `Retry-After` says, backs off on 429, 5xx and broken connections, and gives up when the next wait would
    go beyond `most_s`. Redirects are followed to the same server alone, and never for a PUT.

    Args:
        url: the folder.
        credentials: `user:password`, or a token; in a header of each request, and in no message.
        sleep: how to wait, in seconds.
        most_s: seconds that all waits of one request may take together.

    Raises:
        ConfigError: the credentials hold what no header does, or would go over plain HTTP to another machine.
    """

    def __init__(
        self,
        url: str,
        credentials: str = "",
        *,
        sleep: Callable[[float], object] = time.sleep,
        most_s: float = _MOST_S,
    ) -> None:
        self._url = url.rstrip("/")
        self.shown = redact(self._url)
        self._sleep = sleep
        self._most_s = most_s
        if credentials and not _is_private(self._url):
            raise ConfigError(
                "credentials are not sent over plain HTTP",
                where=self.shown,
                why="Whoever sits in between would read them, and could then replace models.",
                remedy="let register.artifacts.url begin with https://; plain HTTP is for this machine alone",
            )
        self._header = _authorization(credentials)

    def get(self, path: str, begin: Callable[[], Sink]) -> bool:
        answer = self._tried("GET", path, lambda: self._follow(path, begin))
        if answer.status in (404, 410):
            return False
        if answer.status != 200:
            raise self._refused("GET", path, answer.status)
        return True

    def put(self, path: str, source: Path, *, new: bool) -> None:
        headers = {"content-type": "application/octet-stream"}
        if new:
            # Where the server knows it, an upload that was quicker is not written over.
            headers["if-none-match"] = "*"

        def attempt() -> _Answer:
            with source.open("rb") as file:
                return self._exchange("PUT", self._at(path), body=_Body(file, source.stat().st_size), headers=headers)

        answer = self._tried("PUT", path, attempt)
        if answer.status in (404, 409) and self._make_folders(path):
            answer = self._tried("PUT", path, attempt)
        if answer.status == 412 and new:
            # Somebody's upload, or our own whose answer was lost: what is there is read next.
            return
        if not 200 <= answer.status < 300:
            raise self._refused("PUT", path, answer.status)

    def _make_folders(self, path: str) -> bool:
        """Makes the folders of a path where the server is one of WebDAV, which does not by itself (RFC 4918)."""
        parts = path.split("/")[:-1]
        for depth in range(len(parts) + 1):
            folder = "/".join(parts[:depth])
            url = f"{self._at(folder)}/" if folder else f"{self._url}/"
            made = self._tried("MKCOL", folder, lambda url=url: self._exchange("MKCOL", url))  # type: ignore[misc]
            if made.status not in (201, 405, 301):
                return False
        return True

    def _follow(self, path: str, begin: Callable[[], Sink]) -> _Answer:
        url = self._at(path)
        for _ in range(_REDIRECTS + 1):
            answer = self._exchange("GET", url, begin=begin)
            if not answer.location:
                break
            url = urljoin(url, answer.location)
            if urlsplit(url)[:2] != urlsplit(self._url)[:2]:
                raise ServiceError(
                    "the artifact repository redirects to another server; the credentials are not sent there",
                    where=f"GET {self.shown}/{path}",
                    remedy="set register.artifacts.url to the server that really has the files",
                )
        return answer

    def _at(self, path: str) -> str:
        return self._url + "/" + "/".join(quote(os.fsencode(part), safe="") for part in path.split("/"))

    def _exchange(
        self,
        method: str,
        url: str,
        *,
        body: _Body | None = None,
        headers: dict[str, str] | None = None,
        begin: Callable[[], Sink] | None = None,
    ) -> _Answer:
        """One request and its answer; the content of a 200 goes into a sink."""
        # A session of its own: a connection that a server has closed while it was idle would look like a lost answer.
        with (
            requests.Session() as session,
            session.request(
                method,
                url,
                data=body,
                # As it is: a compressed answer would be other bytes than those that were sent.
                headers={"user-agent": "mlcicd", "accept-encoding": "identity", **(headers or {})},
                # As `auth`, so that a .netrc on the runner does not replace it.
                auth=self._authorize,
                timeout=_TIMEOUT,
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            if begin is not None and response.status_code == 200:
                sink = begin()
                with contextlib.suppress(Stop):
                    for chunk in response.iter_content(_CHUNK):
                        sink(chunk)
            location = response.headers.get("location", "") if response.is_redirect else ""
            after = _retry_after(response) if "retry-after" in response.headers else 0.0
            return _Answer(response.status_code, location, after)

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._header:
            request.headers["authorization"] = self._header
        return request

    def _tried(self, method: str, path: str, attempt: Callable[[], _Answer]) -> _Answer:
        waited = 0.0
        for number in range(1, _ATTEMPTS + 1):
            wait = _FIRST_PAUSE_S * 2 ** (number - 1)
            try:
                answer = attempt()
            except requests.RequestException as error:
                # Its text would show the address of a proxy, with its password.
                problem = f"no answer ({type(error).__name__})"
            else:
                if answer.status != 429 and answer.status < 500:
                    return answer
                problem = f"it answered {answer.status}"
                wait = max(wait, answer.after_s)
            if number == _ATTEMPTS or waited + wait > self._most_s:
                break
            self._sleep(wait)
            waited += wait
        raise ServiceError(
            f"the artifact repository did not do it: {problem}",
            where=f"{method} {self.shown}/{path}",
            why=f"Tried {number} times; the next try would be {wait:.0f} s later.",
            remedy="run the same command again later; what was sent is not sent again",
        ) from None

    def _refused(self, method: str, path: str, status: int) -> ServiceError:
        remedy = {
            401: "give valid credentials in the variable that register.artifacts.credentials_env names",
            403: "the credentials need the permission to read and to write there",
            413: "the server limits the size of a file: raise it there",
            507: "the server is full",
        }.get(status, "see what this address answers from this machine")
        return ServiceError(
            f"the artifact repository refused it ({status})", where=f"{method} {self.shown}/{path}", remedy=remedy
        )


@dataclass(frozen=True)
class _Answer:
    """A status, where a redirect leads to, and how many seconds later the server wants to be asked again."""

    status: int
    location: str
    after_s: float


class _Body:
    """A file as the body of a request: streamed, with its length said first."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._file.read(_CHUNK):
            yield chunk


def _is_private(url: str) -> bool:
    """Whether nobody on the way can read what is sent there."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname == "localhost"


def _authorization(credentials: str) -> str:
    if not credentials:
        return ""
    if not credentials.isprintable() or not credentials.isascii():
        raise ConfigError("the credentials of the artifact repository hold characters that no header has")
    if ":" not in credentials:
        return f"Bearer {credentials}"
    encoded = base64.b64encode(credentials.encode()).decode()
    learn_secret(encoded)
    learn_secret(credentials.partition(":")[2])
    return f"Basic {encoded}"


def _retry_after(response: requests.Response) -> float:
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        # By the server's clock; ours may be wrong.
        now = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return 0.0
