"""The few things every CI host can do, and which host this is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

Level = Literal["error", "warning", "notice"]
LEVELS: tuple[Level, ...] = ("error", "warning", "notice")


@dataclass(frozen=True)
class Annotation:
    """A message pinned to a place.

    Attributes:
        file: path relative to the repository, with forward slashes; empty when there is no place.
        line: counted from 1.
    """

    level: Level
    title: str
    message: str
    file: str = ""
    line: int | None = None


@dataclass(frozen=True)
class CommentResult:
    """Where the comment is, or why there is none (and then the same text went to the summary)."""

    posted: bool
    url: str = ""
    reason: str = ""


class CIHost(Protocol):
    """A CI host. What the host does not have is left out; a write that fails is a ServiceError."""

    @property
    def name(self) -> str:
        """`github`, `gitlab` or `plain`."""
        ...

    def outputs(self, values: Mapping[str, str]) -> None:
        """Hands named values to later steps and jobs. Names are kebab-case, values any text."""
        ...

    def summary(self, markdown: str) -> None:
        """Adds to the job's summary page, if the host has one."""
        ...

    def summary_room(self) -> int | None:
        """How many bytes the summary still takes; None when there is no limit or no summary."""
        ...

    def annotate(self, level: Level, title: str, message: str, *, file: str = "", line: int | None = None) -> None:
        """Pins one message to a place; for several, :meth:`annotate_all` keeps the host's limit better."""
        ...

    def annotate_all(self, annotations: Iterable[Annotation]) -> None:
        """Pins messages, given worst first; those above the host's limit become one that counts them."""
        ...

    def log(self, lines: Iterable[str]) -> None:
        """Prints lines so that none of them acts as a command of the host."""
        ...

    def mask(self, value: str) -> None:
        """Has the host replace a secret in its logs from now on."""
        ...

    def group(self, title: str) -> AbstractContextManager[None]:
        """Folds what is printed inside the block under a title."""
        ...

    def stop_commands(self) -> AbstractContextManager[None]:
        """Nothing printed inside the block acts as a command: for the output of child processes."""
        ...

    def is_pull_request(self) -> bool: ...

    def comment(self, markdown: str, *, key: str = "report") -> CommentResult:
        """Puts the text on the pull request, in the one comment of that key, which is updated in place.

        When the host refuses (a fork's token may only read) the text goes to the summary and the result says
        why.
        """
        ...


def detect_host(environ: Mapping[str, str]) -> CIHost:
    """The host whose variables are in `environ`; a plain terminal when there are none."""
    if environ.get("GITHUB_ACTIONS") == "true":
        from mlcicd.ci.github import GitHubHost

        return GitHubHost(environ)
    if environ.get("GITLAB_CI") == "true":
        from mlcicd.ci.gitlab import GitLabHost

        return GitLabHost(environ)
    from mlcicd.ci.plain import PlainHost

    return PlainHost()
