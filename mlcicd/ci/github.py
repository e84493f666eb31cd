"""GitHub Actions (and the runners that speak its protocol: Gitea, Forgejo, act)."""

from __future__ import annotations

import json
import re
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from mlcicd.ci.github_api import GitHubClient, PermissionDenied
from mlcicd.ci.host import LEVELS, Annotation, CommentResult, Level
from mlcicd.ci.limits import cut_markdown, encodable, one_line
from mlcicd.core.errors import DefectError, MlcicdError, ServiceError

_SUMMARY_LIMIT = 900 * 1024  # the runner drops a step's summary above 1 MiB
_OUTPUT_LIMIT = 100 * 1024  # all outputs of a job together may have 1 MB
_COMMENT_LIMIT = 65_000  # GitHub refuses a comment above 65,536 characters
_ANNOTATIONS_OF_A_LEVEL = 10  # GitHub shows no more for one step
_MESSAGE_LIMIT = 4_000
_OUTPUT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_PULL_REF = re.compile(r"refs/pull/(\d+)/(?:merge|head)")


class GitHubHost:
    """Speaks the workflow commands and files of a GitHub runner.

    Args:
        environ: the environment of the step.
        stream: where workflow commands are printed; standard output when None.
        client: the API client; made from `GITHUB_TOKEN`, `GITHUB_API_URL` and `GITHUB_REPOSITORY` when None.
    """

    name = "github"

    def __init__(
        self, environ: Mapping[str, str], *, stream: TextIO | None = None, client: GitHubClient | None = None
    ) -> None:
        self._environ = environ
        self._stream = stream
        self._client = client
        self._shown: dict[Level, int] = dict.fromkeys(LEVELS, 0)
        self._event_cache: dict[str, Any] | None = None

    def outputs(self, values: Mapping[str, str]) -> None:
        """Writes each value between two lines of a random delimiter, all in one append.

        A value above 100 KiB is left empty with a warning: later steps read it from the verdict.

        Raises:
            DefectError: a name is not one that a workflow can refer to.
            ServiceError: the file can not be written.
        """
        blocks = []
        for name, raw in values.items():
            if not _OUTPUT_NAME.fullmatch(name):
                raise DefectError(f"{name!r} is not the name of an output")
            value = encodable(raw)
            if len(value.encode()) > _OUTPUT_LIMIT:
                self.annotate("warning", "Output left empty", f"{name} is too long for an output; the verdict has it.")
                value = ""
            delimiter = _delimiter(value)
            blocks.append(f"{name}<<{delimiter}\n{value}\n{delimiter}\n")
        self._append("GITHUB_OUTPUT", "".join(blocks))

    def summary(self, markdown: str) -> None:
        """Appends to the step's summary, cut to what is left of 900 KiB."""
        room = self.summary_room()
        if room is not None:
            # Two line ends go around it, see `_append`.
            self._append("GITHUB_STEP_SUMMARY", cut_markdown(markdown.rstrip("\n"), max(0, room - 2)) + "\n")

    def summary_room(self) -> int | None:
        path = self._environ.get("GITHUB_STEP_SUMMARY")
        if not path:
            return None
        try:
            return max(0, _SUMMARY_LIMIT - Path(path).stat().st_size)
        except FileNotFoundError:
            return _SUMMARY_LIMIT
        except OSError as error:
            raise ServiceError(f"can not read the step summary ({error.strerror})", where=path) from error

    def annotate(self, level: Level, title: str, message: str, *, file: str = "", line: int | None = None) -> None:
        self.annotate_all([Annotation(level, title, message, file, line)])

    def annotate_all(self, annotations: Iterable[Annotation]) -> None:
        given = list(annotations)
        for level in LEVELS:
            of_level = [a for a in given if a.level == level]
            room = _ANNOTATIONS_OF_A_LEVEL - self._shown[level]
            if len(of_level) > room > 0:
                of_level, rest = of_level[: room - 1], of_level[room - 1 :]
                of_level.append(_aggregate(level, rest))
                self.log(f"{a.level}: {a.file} {a.title}: {a.message}" for a in rest)
            elif len(of_level) > room:
                self.log(f"{a.level}: {a.file} {a.title}: {a.message}" for a in of_level)
                of_level = []
            for annotation in of_level:
                self._print(_command(annotation))
            self._shown[level] += len(of_level)

    def log(self, lines: Iterable[str]) -> None:
        """Prints lines with `::` and `##[`, the two ways of writing a command, taken apart."""
        for line in lines:
            self._print(_inert(line))

    def mask(self, value: str) -> None:
        """Masks every line of the value: the runner compares line by line."""
        for line in value.splitlines():
            if line.strip():
                self._print(f"::add-mask::{_escape_data(line)}")

    @contextmanager
    def group(self, title: str) -> Iterator[None]:
        self._print(f"::group::{_escape_data(one_line(title))}")
        try:
            yield
        finally:
            self._print("::endgroup::")

    @contextmanager
    def stop_commands(self) -> Iterator[None]:
        token = secrets.token_hex(16)
        self._print(f"::stop-commands::{token}")
        try:
            yield
        finally:
            # The child may have ended in the middle of a line, and a command has to begin one.
            self._print(f"\n::{token}::")

    def is_pull_request(self) -> bool:
        return self.pull_request() is not None

    def pull_request(self) -> int | None:
        """The number of the pull request that started this run, None when none did."""
        number = self._event().get("pull_request", {})
        if isinstance(number, dict) and isinstance(number.get("number"), int):
            return int(number["number"])
        match = _PULL_REF.fullmatch(self._environ.get("GITHUB_REF", ""))
        return int(match.group(1)) if match else None

    def is_fork(self) -> bool:
        """Whether the pull request comes from another repository: its runs get a read-only token."""
        pull = self._event().get("pull_request")
        head = pull.get("head") if isinstance(pull, dict) else None
        repository = head.get("repo") if isinstance(head, dict) else None
        name = repository.get("full_name") if isinstance(repository, dict) else None
        return isinstance(name, str) and name != self._environ.get("GITHUB_REPOSITORY")

    def comment(self, markdown: str, *, key: str = "report") -> CommentResult:
        number = self.pull_request()
        if number is None:
            return CommentResult(posted=False, reason="this run does not belong to a pull request")
        marker = f"<!-- mlcicd:{re.sub(r'[^a-z0-9-]', '-', key.lower())[:60]} -->"
        try:
            client = self._client or GitHubClient.from_environ(self._environ)
            url = client.upsert_comment(number, marker, cut_markdown(markdown, _COMMENT_LIMIT))
        except PermissionDenied as error:
            return self._comment_in_summary(markdown, error, _permission_advice(error.permission, fork=self.is_fork()))
        except MlcicdError as error:
            return self._comment_in_summary(markdown, error, error.remedy)
        return CommentResult(posted=True, url=url)

    def _comment_in_summary(self, markdown: str, error: MlcicdError, advice: str) -> CommentResult:
        reason = one_line(f"{error.what}. {advice}".rstrip())
        self.annotate("warning", "No comment on the pull request", reason)
        self.summary(f"> The comment could not be put on the pull request.\n\n{markdown}")
        return CommentResult(posted=False, reason=reason)

    def _event(self) -> dict[str, Any]:
        if self._event_cache is None:
            self._event_cache = _read_event(self._environ.get("GITHUB_EVENT_PATH", ""))
        return self._event_cache

    def _append(self, variable: str, text: str) -> None:
        path = self._environ.get(variable)
        if not path:
            raise ServiceError(
                f"the runner gave no {variable}",
                why="What this step has to say can not reach the next one.",
                remedy="pass the variable on to the container or shell that this step runs in",
            )
        try:
            with Path(path).open("ab+") as file:
                if file.tell() > 0:
                    file.seek(-1, 2)
                    if file.read(1) != b"\n":
                        text = f"\n{text}"
                file.write(text.encode())
        except OSError as error:
            raise ServiceError(f"could not write the runner's file ({error.strerror})", where=path) from error

    def _print(self, line: str) -> None:
        stream = self._stream or sys.stdout
        stream.write(f"{encodable(line)}\n")
        stream.flush()


def _read_event(path: str) -> dict[str, Any]:
    if not path:
        return {}
    try:
        event = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ServiceError("the runner's event file can not be read", where=path, why=str(error)) from error
    return event if isinstance(event, dict) else {}


def _permission_advice(permission: str, *, fork: bool) -> str:
    advice = f"The token lacks the permission `{permission}`"
    if fork:
        return (
            f"{advice}: a pull request from a fork gets a token that can only read. "
            "The same text is in the summary of this job."
        )
    return f"{advice}; grant it to the job under `permissions:`. The same text is in the summary of this job."


def _delimiter(value: str) -> str:
    while True:
        delimiter = f"mlcicd_{secrets.token_hex(16)}"
        if delimiter not in value:
            return delimiter


def _aggregate(level: Level, rest: list[Annotation]) -> Annotation:
    lines = [f"{a.title}: {a.message}" if a.title else a.message for a in rest]
    return Annotation(level, f"{len(rest)} more of this kind", "\n".join(lines))


def _command(annotation: Annotation) -> str:
    properties = []
    if annotation.file:
        properties.append(f"file={_escape_property(annotation.file.replace(chr(92), '/'))}")
        if annotation.line is not None:
            properties.append(f"line={annotation.line}")
    if annotation.title:
        properties.append(f"title={_escape_property(one_line(annotation.title))}")
    message = annotation.message
    if len(message) > _MESSAGE_LIMIT:
        message = f"{message[:_MESSAGE_LIMIT]}…"
    space = " " if properties else ""
    return f"::{annotation.level}{space}{','.join(properties)}::{_escape_data(message)}"


def _escape_data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape_data(text).replace(":", "%3A").replace(",", "%2C")


def _inert(line: str) -> str:
    """The runner takes a line for a command when it begins with `::` after space, or holds `##[` anywhere."""
    line = one_line_keeping_indent(line).replace("##[", "## [")
    body = line.lstrip()
    return f"{line[: len(line) - len(body)]}: :{body[2:]}" if body.startswith("::") else line


def one_line_keeping_indent(line: str) -> str:
    indent = len(line) - len(line.lstrip(" "))
    return " " * indent + one_line(line)
