"""A JSON-over-HTTP client that waits when it is told to, and never longer than it may."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from mlcicd.core.errors import ConfigError, ServiceError

_TIMEOUT = (10.0, 30.0)
_BODY_LIMIT = 16 << 20
_ATTEMPTS = 5
_REDIRECTS = 3
_SECONDARY_LIMIT_WAIT = 60.0  # what GitHub asks for when it names no time
_FIRST_BACKOFF = 1.0


class Refused(ServiceError):
    """The service answered with a status that is not a success.

    Attributes:
        status: the HTTP status.
        message: what the service said, one line.
    """

    def __init__(self, what: str, *, status: int, message: str, where: str, remedy: str = "") -> None:
        super().__init__(what, where=where, why=message, remedy=remedy)
        self.status = status
        self.message = message


class ReplyLost(ServiceError):
    """The request was sent and no answer came: whether it took effect is not known."""


class JsonClient:
    """Sends JSON requests below one base URL.

    Waits as `Retry-After` and `x-ratelimit-reset` say (against the server's clock, ours may be wrong), backs
    off on 5xx and on a broken connection, and gives up when the next wait would go beyond `max_wait`.

    Args:
        base_url: everything is asked below it, and a redirect to another host is refused.
        headers: sent with each request.
        token: put into `authorization`; never into a message.
        authorization: the header that carries the token, and what stands before it there.
        sleep: how to wait, in seconds.
        max_wait: seconds that all waits of one request may take together.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str,
        headers: Mapping[str, str] | None = None,
        authorization: tuple[str, str] = ("authorization", "Bearer "),
        session: requests.Session | None = None,
        sleep: Callable[[float], None] = time.sleep,
        max_wait: float = 120.0,
    ) -> None:
        if not token or not all(33 <= ord(c) <= 126 for c in token):
            raise ConfigError("the access token is empty or holds characters that no token has")
        self._base = base_url.rstrip("/")
        if urlsplit(self._base).scheme not in ("http", "https"):
            raise ConfigError("the address of the API is not an http(s) URL", where=self._base)
        self._token = token
        self._session = session or requests.Session()
        self._headers = {"user-agent": "mlcicd", **(headers or {})}
        self._authorization = authorization
        self._sleep = sleep
        self._max_wait = max_wait

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        repeatable: bool = True,
    ) -> Any:
        """The decoded answer, or None when it has no content.

        Args:
            path: below the base URL, with a leading slash.
            repeatable: whether the request may be sent again when it is not known if it took effect.

        Raises:
            Refused: the service said no.
            ReplyLost: no answer came, and the request is not repeatable.
            ServiceError: no answer came, it was no JSON, or the service asks to wait for too long.
        """
        url = f"{self._base}{path}"
        where = f"{method} {url}"
        waited = 0.0
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                response, content = self._send(method, url, params, body)
            except requests.RequestException as error:
                problem, wait = f"no answer ({type(error).__name__})", _FIRST_BACKOFF * 2 ** (attempt - 1)
                certain = False
            else:
                if response.ok:
                    return self._decode(response, content, where)
                message = self._message(content)
                asked = _asked_to_wait(response, message)
                certain = response.status_code < 500
                if asked is None and certain:
                    raise self._refused(response.status_code, message, where)
                problem = f"{response.status_code} {message}".strip()
                wait = _FIRST_BACKOFF * 2 ** (attempt - 1) if asked is None else asked
            if not certain and not repeatable:
                raise ReplyLost(self._without_token(problem), where=where)
            if attempt == _ATTEMPTS or waited + wait > self._max_wait:
                break
            self._sleep(wait)
            waited += wait
        raise ServiceError(
            self._without_token(f"the service did not take the request: {problem}"),
            where=where,
            why=f"Tried {attempt} times; the next try would be {wait:.0f} s later.",
            remedy="run the same command again later",
        )

    def _send(
        self, method: str, url: str, params: Mapping[str, str | int] | None, body: Mapping[str, Any] | None
    ) -> tuple[requests.Response, bytes]:
        for _ in range(_REDIRECTS + 1):
            with self._session.request(
                method,
                url,
                params=params,
                json=body,
                headers=self._headers,
                # As `auth`, so that a .netrc on the runner does not replace it.
                auth=self._authorize,
                timeout=_TIMEOUT,
                allow_redirects=False,
                stream=True,
            ) as response:
                content = b""
                for chunk in response.iter_content(1 << 16):
                    content += chunk
                    if len(content) > _BODY_LIMIT:
                        raise ServiceError("the answer is larger than any that was asked for", where=url)
            location = response.headers.get("location")
            if not (response.is_redirect and location):
                return response, content
            target = urljoin(url, location)
            if urlsplit(target)[:2] != urlsplit(self._base)[:2]:
                raise ServiceError(
                    "the service redirects to another host; the token is not sent there",
                    where=f"{method} {url}",
                    remedy="set the address of the API to the host that really serves it",
                )
            url, params = target, None
        raise ServiceError("the service redirects without end", where=f"{method} {url}")

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        header, prefix = self._authorization
        request.headers[header] = f"{prefix}{self._token}"
        return request

    def _decode(self, response: requests.Response, content: bytes, where: str) -> Any:
        if response.status_code == 204:
            return None
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ServiceError(
                f"the service answered {response.status_code} with something that is not JSON",
                where=where,
                why="A proxy or a sign-in page may stand in between.",
                remedy="see what this address answers from this machine",
            ) from error

    def _message(self, content: bytes) -> str:
        try:
            data = json.loads(content)
        except (ValueError, RecursionError):
            return ""
        message = data.get("message") if isinstance(data, dict) else None
        text = message if isinstance(message, str) else ""
        return self._without_token(" ".join("".join(c if c.isprintable() else " " for c in text).split())[:300])

    def _refused(self, status: int, message: str, where: str) -> Refused:
        remedy = {
            401: "the token is not valid (any more): give the step a new one",
            404: "see that the repository is right and that the token may see it",
        }.get(status, "")
        return Refused(
            f"the service refused the request ({status})",
            status=status,
            message=message,
            where=where,
            remedy=remedy,
        )

    def _without_token(self, text: str) -> str:
        return text.replace(self._token, "***")


def _asked_to_wait(response: requests.Response, message: str) -> float | None:
    """Seconds that the service wants us to wait, None when its refusal is not about the rate."""
    if response.status_code not in (403, 429, 503):
        return None
    after = response.headers.get("retry-after", "").strip()
    if after:
        return _retry_after(after, response)
    if response.status_code == 503:
        return None
    reset = response.headers.get("x-ratelimit-reset", "").strip()
    if response.headers.get("x-ratelimit-remaining", "").strip() == "0" and reset.isascii() and reset.isdigit():
        return max(0.0, float(reset[:12]) - _server_time(response)) + 1.0
    if response.status_code == 429 or "rate limit" in message.lower():
        return _SECONDARY_LIMIT_WAIT
    return None


def _retry_after(text: str, response: requests.Response) -> float:
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - _server_time(response))
    except (ValueError, TypeError, OverflowError):
        return _SECONDARY_LIMIT_WAIT


def _server_time(response: requests.Response) -> float:
    try:
        return parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    except (ValueError, TypeError, OverflowError):
        return time.time()
