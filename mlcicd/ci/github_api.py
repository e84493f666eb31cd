"""The few requests to GitHub's REST API that the suite makes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import requests

from mlcicd.ci.http import JsonClient, Refused, ReplyLost
from mlcicd.core.errors import ConfigError, ServiceError

_API_VERSION = "2022-11-28"
_PAGE = 100
_PAGES = 50
_TRIES = 3
_TOKEN_VARIABLES = ("MLCICD_INPUT_GITHUB_TOKEN", "GITHUB_TOKEN", "GH_TOKEN")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/(?!\.{1,2}$)[A-Za-z0-9_.-]+")


class PermissionDenied(ServiceError):
    """The token may not do this.

    Attributes:
        permission: what it would need, as written under `permissions:` in a workflow.
    """

    def __init__(self, what: str, *, permission: str, where: str, why: str = "") -> None:
        super().__init__(what, where=where, why=why, remedy=f"grant `{permission}` to the job")
        self.permission = permission


class GitHubClient:
    """Comments on one repository's pull requests.

    Args:
        repository: `owner/name`.
        api_url: `https://api.github.com`, or that of an enterprise server.
    """

    def __init__(
        self,
        repository: str,
        *,
        token: str,
        api_url: str = "https://api.github.com",
        session: requests.Session | None = None,
        sleep: Callable[[float], None] = time.sleep,
        max_wait: float = 120.0,
    ) -> None:
        if not _REPOSITORY.fullmatch(repository):
            raise ConfigError(f"{repository!r} is not a repository (owner/name)")
        self._repository = repository
        self._http = JsonClient(
            api_url,
            token=token,
            headers={"accept": "application/vnd.github+json", "x-github-api-version": _API_VERSION},
            session=session,
            sleep=sleep,
            max_wait=max_wait,
        )
        self._login: str | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> GitHubClient:
        """A client for the repository, server and token of a workflow step.

        Raises:
            ConfigError: there is no token.
        """
        token = next((environ[name] for name in _TOKEN_VARIABLES if environ.get(name)), "")
        if not token:
            raise ConfigError(
                "there is no token to write to the pull request with",
                remedy="give the action its `github-token` input, or the step a GITHUB_TOKEN",
            )
        return cls(
            environ.get("GITHUB_REPOSITORY", ""),
            token=token.strip(),
            api_url=environ.get("GITHUB_API_URL") or "https://api.github.com",
        )

    def upsert_comment(self, number: int, marker: str, body: str) -> str:
        """Creates the comment that begins with `marker`, or puts `body` into the one that is there.

        Two runs may do this at once, and an answer may be lost after the comment was made. So after creating
        one, it looks again, keeps the oldest and removes its own; and when no answer came, it looks before it
        tries again.

        Returns:
            The address of the comment.

        Raises:
            PermissionDenied: the token can not write comments.
            ServiceError: GitHub did not answer, or not as documented.
        """
        text = f"{marker}\n{body}"
        lost: ReplyLost | None = None
        for _ in range(_TRIES):
            mine = self._own_comments(number, marker)
            if mine:
                return self._update(mine[0], text)
            try:
                created = self._write("POST", f"/issues/{number}/comments", text)
            except ReplyLost as error:
                lost = error
                continue
            others = [c for c in self._own_comments(number, marker) if _id(c) < _id(created)]
            if not others:
                return _url(created)
            self._request("DELETE", f"/issues/comments/{_id(created)}")
            return self._update(others[0], text)
        raise ServiceError(
            "GitHub did not say whether the comment was made",
            where=lost.where if lost else "",
            remedy="run it again",
        )

    def approvals(self, run: int, environment: str) -> list[str]:
        """Logins of the people who approved a workflow run for an environment, in GitHub's order.

        Raises:
            PermissionDenied: the token lacks `actions: read`.
            ServiceError: anything else went wrong.
        """
        path = f"/repos/{self._repository}/actions/runs/{run}/approvals"
        try:
            answer = self._http.request("GET", path)
        except Refused as error:
            if error.status in (401, 403, 404):
                raise PermissionDenied(
                    "the approvals of this run can not be read",
                    permission="actions: read",
                    where=error.where,
                    why=error.what,
                ) from error
            raise
        found: list[str] = []
        for review in answer if isinstance(answer, list) else []:
            names = {place.get("name") for place in review.get("environments", []) if isinstance(place, dict)}
            if review.get("state") == "approved" and environment in names:
                found.append(str(review.get("user", {}).get("login", "")))
        return [login for login in dict.fromkeys(found) if login]

    def _update(self, comment: dict[str, Any], text: str) -> str:
        return _url(self._write("PATCH", f"/issues/comments/{_id(comment)}", text))

    def _write(self, method: str, path: str, text: str) -> dict[str, Any]:
        answer = self._request(method, path, body={"body": text}, repeatable=method != "POST")
        return _comment(answer)

    def _own_comments(self, number: int, marker: str) -> list[dict[str, Any]]:
        """Comments that begin with the marker and are ours, oldest first.

        Anybody can write our marker; only a comment by a bot or by the token's own user counts.
        """
        found = [c for c in self._comments(number) if str(c.get("body") or "").startswith(marker)]
        return sorted(filter(self._is_own, found), key=_id)

    def _is_own(self, comment: dict[str, Any]) -> bool:
        user = comment.get("user")
        if not isinstance(user, dict):
            return False
        return user.get("type") == "Bot" or (user.get("login") is not None and user.get("login") == self._own_login())

    def _own_login(self) -> str:
        if self._login is None:
            try:
                user = self._http.request("GET", "/user")
            except Refused:
                # The token of a workflow is that of an app: it has no user, and its comments are a bot's.
                self._login = ""
            else:
                self._login = str(user.get("login") or "") if isinstance(user, dict) else ""
        return self._login or "\0"

    def _comments(self, number: int) -> Iterator[dict[str, Any]]:
        for page in range(1, _PAGES + 1):
            path = f"/issues/{number}/comments"
            comments = self._request("GET", path, params={"per_page": _PAGE, "page": page})
            if not isinstance(comments, list):
                raise ServiceError("GitHub answered with something that is not a list of comments", where=path)
            yield from (_comment(c) for c in comments)
            if len(comments) < _PAGE:
                return
        raise ServiceError(f"the pull request has more than {_PAGES * _PAGE:,} comments")

    def _request(self, method: str, path: str, **options: Any) -> Any:
        try:
            return self._http.request(method, f"/repos/{self._repository}{path}", **options)
        except Refused as error:
            if error.status in (403, 404) and _is_permission(error, method):
                raise PermissionDenied(
                    f"GitHub does not let this token write comments ({error.status})",
                    permission="pull-requests: write",
                    where=error.where,
                    why=error.message,
                ) from error
            raise


def _is_permission(error: Refused, method: str) -> bool:
    return "not accessible by" in error.message.lower() or (error.status == 403 and method != "GET")


def _comment(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict) or not isinstance(answer.get("id"), int):
        raise ServiceError("GitHub answered with something that is not a comment")
    return answer


def _id(comment: dict[str, Any]) -> int:
    return int(comment["id"])


def _url(comment: dict[str, Any]) -> str:
    return str(comment.get("html_url") or "")
