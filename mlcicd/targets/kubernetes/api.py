"""The Kubernetes API as far as a target needs it, over `requests`.

Every request may be sent again: objects are applied (server-side), deleted by identity, or written on condition of the
version that was read. So lost answers, 429 and 5xx are waited out, and never for longer than a bound.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from mlcicd.core.errors import ServiceError, redact
from mlcicd.targets.kubernetes.credentials import Access

FIELD_MANAGER = "mlcicd"
Object = dict[str, Any]
_BODY_LIMIT = 32 << 20
_FIRST_BACKOFF_S = 0.25
_LONGEST_WAIT_S = 15.0
_RETRIED = frozenset({429, 500, 502, 503, 504})


class Refused(ServiceError):
    """The API server said no. `status` is HTTP's, `reason` one word of Kubernetes'."""

    def __init__(self, what: str, *, status: int, reason: str, where: str, why: str, remedy: str = "") -> None:
        super().__init__(what, where=where, why=why, remedy=remedy)
        self.status = status
        self.reason = reason


class _Again(Exception):
    """This attempt failed in a way that may pass."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class _Bearer(AuthBase):
    """Without an `auth` of our own, requests would take one from a .netrc instead of ours."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["authorization"] = f"Bearer {self._token}"
        return request


class _NamedServer(HTTPAdapter):
    """Checks the certificate for another name than the URL's (`tls-server-name`)."""

    def __init__(self, name: str) -> None:
        self._name = name
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, server_hostname=self._name, assert_hostname=self._name, **kwargs)


class Api:
    """Requests to one API server.

    Args:
        access: where it is, and who we are.
        timeout_s: for connecting, and for each silence.
        attempts: how often one request is sent at most.
        max_wait_s: how long all waits of one request may be together.
        sleep: how to wait, in seconds.
    """

    def __init__(
        self,
        access: Access,
        *,
        timeout_s: float = 20.0,
        attempts: int = 6,
        max_wait_s: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._access = access
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._max_wait_s = max_wait_s
        self._sleep = sleep
        self._session = requests.Session()
        self._plurals: dict[str, dict[str, str]] = {}
        if access.server_name:
            self._session.mount("https://", _NamedServer(access.server_name))

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Object | None:
        """The object or list at a path; None when there is none."""
        try:
            return self._json("GET", path, params=params)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def apply(self, path: str, body: Object, *, dry_run: bool = False, force: bool = False) -> Object:
        """Server-side apply: what we say of the object is so, what others say of it stays.

        Raises:
            Refused: it is not valid, not allowed, or (409) another manager holds a field, or its resourceVersion is
                not the one that was read.
        """
        params = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        if dry_run:
            params["dryRun"] = "All"
        return self._json("PATCH", path, params=params, body=body, content="application/apply-patch+yaml")

    def create(self, path: str, body: Object) -> Object:
        """A new object in the collection at `path`; 409 when it is there."""
        return self._json("POST", path, params={"fieldManager": FIELD_MANAGER}, body=body)

    def replace(self, path: str, body: Object) -> Object:
        """The whole object, if it is still the one whose resourceVersion `body` has; else 409."""
        return self._json("PUT", path, params={"fieldManager": FIELD_MANAGER}, body=body)

    def delete(self, path: str, found: Object) -> None:
        """Deletes the very object that was seen; 409 when it is another one, or was changed since. It may be gone
        already."""
        metadata = found["metadata"]
        conditions = {key: metadata[key] for key in ("uid", "resourceVersion") if key in metadata}
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": conditions,
        }
        try:
            self._json("DELETE", path, body=body)
        except Refused as refused:
            if refused.status != 404:
                raise

    def text(self, path: str, params: Mapping[str, str]) -> str:
        """A text, such as a log; at most one attempt, and empty when it can not be had."""
        try:
            status, body, _ = self._send("GET", path, params, None, "", renewed=False)
        except (_Again, ServiceError):
            return ""
        return redact(body.decode("utf-8", "replace")) if status == 200 else ""

    def forward(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> requests.Response:
        """One request through the API server to a service behind it, as it is."""
        return self._session.request(
            method,
            self._access.server + path,
            data=body,
            headers=dict(headers),
            auth=_Bearer(self._access.token()),
            verify=self._access.verify,
            cert=self._access.certificate,
            timeout=self._timeout_s,
            allow_redirects=False,
        )

    def path(self, api_version: str, kind: str, namespace: str, name: str = "") -> str:
        """Where objects of a kind are.

        Raises:
            ServiceError: the cluster does not know the kind.
        """
        known = self._known(api_version)
        if kind not in known:
            raise ServiceError(
                f"the cluster does not know {kind} ({api_version})",
                where=self._access.server,
                remedy="install its custom resource definitions: Gateway API's, or KServe's",
            )
        path = f"{_root(api_version)}/namespaces/{quote(namespace, safe='')}/{known[kind]}"
        return f"{path}/{quote(name, safe='')}" if name else path

    def serves(self, api_version: str, kind: str) -> bool:
        """Whether the cluster knows a kind; one that it does not know has no objects."""
        return kind in self._known(api_version)

    def _known(self, api_version: str) -> dict[str, str]:
        """Plural names by kind."""
        known = self._plurals.get(api_version)
        if known is None:
            found = self.get(_root(api_version)) or {}
            known = {r["kind"]: r["name"] for r in found.get("resources", []) if "/" not in r["name"]}
            self._plurals[api_version] = known
        return known

    # --- one request

    def _json(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Object | None = None,
        content: str = "application/json",
    ) -> Object:
        where = f"{method} {self._access.server}{path}"
        waited, why, renewed = 0.0, "", False
        for attempt in range(self._attempts):
            try:
                status, raw, headers = self._send(method, path, params, body, content, renewed=renewed)
                if status == 401 and not renewed:
                    renewed = True
                    continue
                return _checked(status, raw, headers, where)
            except _Again as again:
                why = str(again)
                wait = _FIRST_BACKOFF_S * 2**attempt if again.wait_s is None else again.wait_s
            wait = min(wait, _LONGEST_WAIT_S)
            if waited + wait > self._max_wait_s:
                break
            if attempt + 1 < self._attempts:
                self._sleep(wait)
                waited += wait
        raise ServiceError(
            "the API server gave no answer that could be used",
            where=where,
            why=why,
            remedy="look whether the cluster can be reached from here, then run the same command again",
        )

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: Object | None,
        content: str,
        *,
        renewed: bool,
    ) -> tuple[int, bytes, Mapping[str, str]]:
        headers = {"accept": "application/json, */*", "user-agent": "mlcicd"}
        if body is not None:
            headers["content-type"] = content
        try:
            with self._session.request(
                method,
                self._access.server + path,
                params=dict(params or {}),
                data=None if body is None else json.dumps(body),
                headers=headers,
                auth=_Bearer(self._access.token(renewed=renewed)),
                # Said with each request: a variable of the environment would replace the session's.
                verify=self._access.verify,
                cert=self._access.certificate,
                timeout=self._timeout_s,
                # A token must not follow a redirect, and a login page is no answer.
                allow_redirects=False,
                stream=True,
            ) as response:
                return response.status_code, self._read(response), response.headers
        except requests.exceptions.SSLError as error:
            raise ServiceError(
                "the cluster's certificate can not be verified",
                where=self._access.server,
                why=str(error)[:300],
                remedy="give its certificate authority in the kubeconfig",
            ) from error
        except requests.RequestException as error:
            raise _Again(f"{type(error).__name__}: {error}"[:300]) from error

    def _read(self, response: requests.Response) -> bytes:
        deadline = time.monotonic() + 3 * self._timeout_s
        parts, size = [], 0
        for part in response.iter_content(1 << 16):
            parts.append(part)
            size += len(part)
            if size > _BODY_LIMIT:
                raise ServiceError(f"an answer of the API server is longer than {_BODY_LIMIT >> 20} MiB")
            if time.monotonic() > deadline:
                raise _Again(f"the answer was not whole after {3 * self._timeout_s:g} s")
        return b"".join(parts)


def _root(api_version: str) -> str:
    return f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"


def _checked(status: int, raw: bytes, headers: Mapping[str, str], where: str) -> Object:
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        answer = None
    said = answer.get("message", "") if isinstance(answer, dict) else raw[:200].decode("utf-8", "replace")
    said = str(said).strip().partition("\n")[0][:600]
    if status in _RETRIED:
        after = headers.get("retry-after", "")
        raise _Again(f"HTTP status {status}: {said}", float(after) if re.fullmatch(r"\d{1,6}", after) else None)
    if 200 <= status < 300:
        if isinstance(answer, dict) and "kind" in answer:
            return answer
        # Cut short on its way, or the page of something in between.
        raise _Again(f"HTTP status {status} with something that is no Kubernetes object: {said[:120]}")
    reason = str(answer.get("reason", "")) if isinstance(answer, dict) else ""
    raise Refused(
        f"the API server refuses it (HTTP status {status}{f', {reason}' if reason else ''})",
        status=status,
        reason=reason,
        where=where,
        why=said,
        remedy=_REMEDIES.get(status, ""),
    )


_REMEDIES = {
    401: "renew the credentials of the kubeconfig",
    403: "grant what is missing: docs/kubernetes.md has the Role",
    409: "another manager holds a field, or wrote in between; see force_conflicts in docs/kubernetes.md",
    422: "correct the template or the option that the message names",
}
