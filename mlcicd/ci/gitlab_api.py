"""The few requests to GitLab's REST API that the suite makes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import requests

from mlcicd.ci.http import JsonClient, ReplyLost
from mlcicd.core.errors import ConfigError, ServiceError

_PAGE = 100
_PAGES = 50
_TRIES = 3
_TOKEN_VARIABLES = ("MLCICD_INPUT_GITLAB_TOKEN", "MLCICD_GITLAB_TOKEN", "GITLAB_TOKEN")


class GitLabClient:
    """Notes on one project's merge requests.

    Args:
        project: numeric id, or the path `group/name`.
        api_url: such as `https://gitlab.example.org/api/v4`.
        token: a project, group or personal access token with the scope `api`; a job's own token can
            not write notes.
    """

    def __init__(
        self,
        project: str,
        *,
        token: str,
        api_url: str,
        session: requests.Session | None = None,
        sleep: Callable[[float], None] = time.sleep,
        max_wait: float = 120.0,
    ) -> None:
        self._project = f"/projects/{quote(project, safe='')}"
        self._http = JsonClient(
            api_url,
            token=token,
            authorization=("private-token", ""),
            session=session,
            sleep=sleep,
            max_wait=max_wait,
        )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> GitLabClient:
        """A client for the project and server of a job.

        Raises:
            ConfigError: there is no token.
        """
        token = next((environ[name] for name in _TOKEN_VARIABLES if environ.get(name)), "")
        if not token:
            raise ConfigError(
                "there is no token to write to the merge request with",
                remedy="add a masked variable GITLAB_TOKEN with the scope `api`",
            )
        return cls(environ.get("CI_PROJECT_ID", ""), token=token.strip(), api_url=environ.get("CI_API_V4_URL", ""))

    def upsert_note(self, number: int, marker: str, body: str) -> str:
        """Creates the note that begins with `marker`, or puts `body` into our own that is there.

        Returns:
            An empty string: the API names no address for a note.

        Raises:
            ServiceError: GitLab did not answer, refused, or not as documented.
        """
        notes = f"{self._project}/merge_requests/{number}/notes"
        text = f"{marker}\n{body}"
        me = self._own_id()
        for _ in range(_TRIES):
            mine = next((n for n in self._notes(notes) if _is_own(n, marker, me)), None)
            if mine is not None:
                self._http.request("PUT", f"{notes}/{mine['id']}", body={"body": text})
                return ""
            try:
                self._http.request("POST", notes, body={"body": text}, repeatable=False)
            except ReplyLost:
                # It may be there all the same: look again before another try.
                continue
            return ""
        raise ServiceError("GitLab did not say whether the note was made", where=notes, remedy="run it again")

    def _own_id(self) -> int:
        user = self._http.request("GET", "/user")
        if not isinstance(user, dict) or not isinstance(user.get("id"), int):
            raise ServiceError("GitLab answered with something that is not a user")
        return int(user["id"])

    def _notes(self, path: str) -> Iterator[dict[str, Any]]:
        for page in range(1, _PAGES + 1):
            notes = self._http.request(
                "GET", path, params={"per_page": _PAGE, "page": page, "sort": "asc", "order_by": "created_at"}
            )
            if not isinstance(notes, list) or not all(
                isinstance(n, dict) and isinstance(n.get("id"), int) for n in notes
            ):
                raise ServiceError("GitLab answered with something that is not a list of notes", where=path)
            yield from notes
            if len(notes) < _PAGE:
                return
        raise ServiceError(f"the merge request has more than {_PAGES * _PAGE:,} notes", where=path)


def _is_own(note: dict[str, Any], marker: str, me: int) -> bool:
    author = note.get("author")
    return isinstance(author, dict) and author.get("id") == me and str(note.get("body") or "").startswith(marker)
