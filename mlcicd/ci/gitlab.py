"""GitLab CI: a dotenv report for outputs, sections in the log, a note on the merge request."""

from __future__ import annotations

import re
import secrets
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from mlcicd.ci.gitlab_api import GitLabClient
from mlcicd.ci.host import LEVELS, Annotation, CommentResult, Level
from mlcicd.ci.limits import cut_markdown, encodable, one_line
from mlcicd.ci.plain import annotation_line
from mlcicd.core.errors import DefectError, MlcicdError, ServiceError

_OUTPUT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_NOTE_LIMIT = 900_000  # GitLab refuses a note above 1,000,000 characters
_DOTENV_LIMIT = 5 * 1024  # and a dotenv report above 5 KiB, with which the job fails
_SECTION = re.compile(r"section_(start|end):", re.IGNORECASE)


class GitLabHost:
    """Writes outputs as `MLCICD_<NAME>=value` into the file the job declares as `artifacts:reports:dotenv`.

    The file is `MLCICD_DOTENV`, or `.mlcicd/outputs.env` in the project's directory. A summary page does not
    exist: the summary is kept as `.mlcicd/summary.md`, to be declared as an artifact.

    Args:
        environ: the environment of the job.
        stream: where section marks are printed; standard output when None.
        client: the API client; made from the job's variables when None.
    """

    name = "gitlab"

    def __init__(
        self, environ: Mapping[str, str], *, stream: TextIO | None = None, client: GitLabClient | None = None
    ) -> None:
        self._environ = environ
        self._stream = stream
        self._client = client

    def outputs(self, values: Mapping[str, str]) -> None:
        """Writes one line a value: GitLab knows no others, so a line end becomes the two characters ``\\n``.

        A value that would take the file over GitLab's 5 KiB is left empty, with a warning.

        Raises:
            DefectError: a name is not one that a pipeline can refer to.
            ServiceError: the file can not be written.
        """
        path = Path(self._environ.get("MLCICD_DOTENV") or self._project() / ".mlcicd" / "outputs.env")
        written = path.stat().st_size if path.exists() else 0
        lines = []
        for name, raw in values.items():
            if not _OUTPUT_NAME.fullmatch(name):
                raise DefectError(f"{name!r} is not the name of an output")
            key = f"MLCICD_{name.replace('-', '_').upper()}"
            line = f"{key}={_dotenv_value(raw)}\n"
            if written + len(line.encode()) > _DOTENV_LIMIT:
                self.annotate("warning", "Output left empty", f"{name} is too long for a dotenv report.")
                line = f"{key}=\n"
            written += len(line.encode())
            lines.append(line)
        self._append(path, "".join(lines))

    def summary(self, markdown: str) -> None:
        self._append(self._project() / ".mlcicd" / "summary.md", encodable(markdown.rstrip("\n")) + "\n")

    def summary_room(self) -> int | None:
        return None

    def annotate(self, level: Level, title: str, message: str, *, file: str = "", line: int | None = None) -> None:
        self.annotate_all([Annotation(level, title, message, file, line)])

    def annotate_all(self, annotations: Iterable[Annotation]) -> None:
        self.log(annotation_line(a) for a in sorted(annotations, key=lambda a: LEVELS.index(a.level)))

    def log(self, lines: Iterable[str]) -> None:
        """Prints lines in which no section begins or ends."""
        for line in lines:
            indent = len(line) - len(line.lstrip(" "))
            self._print(" " * indent + _SECTION.sub(r"section \1:", one_line(line)))

    def mask(self, value: str) -> None:
        """Nothing to do: GitLab masks the variables that are marked so, and takes no more from a job."""

    @contextmanager
    def group(self, title: str) -> Iterator[None]:
        name = f"mlcicd_{secrets.token_hex(6)}"
        shown = _SECTION.sub(r"section \1:", one_line(title))
        self._print(f"\x1b[0Ksection_start:{int(time.time())}:{name}[collapsed=true]\r\x1b[0K{shown}")
        try:
            yield
        finally:
            self._print(f"\x1b[0Ksection_end:{int(time.time())}:{name}\r\x1b[0K")

    @contextmanager
    def stop_commands(self) -> Iterator[None]:
        """A log of GitLab's holds no commands, only marks of sections, which fold lines."""
        yield

    def is_pull_request(self) -> bool:
        return self._environ.get("CI_MERGE_REQUEST_IID", "").isdigit()

    def comment(self, markdown: str, *, key: str = "report") -> CommentResult:
        number = self._environ.get("CI_MERGE_REQUEST_IID", "")
        if not number.isdigit():
            return CommentResult(posted=False, reason="this pipeline does not belong to a merge request")
        marker = f"<!-- mlcicd:{re.sub(r'[^a-z0-9-]', '-', key.lower())[:60]} -->"
        try:
            client = self._client or GitLabClient.from_environ(self._environ)
            url = client.upsert_note(int(number), marker, cut_markdown(markdown, _NOTE_LIMIT))
        except MlcicdError as error:
            reason = one_line(f"{error.what}. {error.remedy}".rstrip())
            self.annotate("warning", "No note on the merge request", reason)
            self.summary(markdown)
            return CommentResult(posted=False, reason=reason)
        return CommentResult(posted=True, url=url)

    def _project(self) -> Path:
        return Path(self._environ.get("CI_PROJECT_DIR") or ".")

    def _append(self, path: Path, text: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(text.encode())
        except OSError as error:
            raise ServiceError(f"could not write the job's file ({error.strerror})", where=str(path)) from error

    def _print(self, line: str) -> None:
        stream = self._stream or sys.stdout
        stream.write(f"{encodable(line)}\n")
        stream.flush()


def _dotenv_value(raw: str) -> str:
    """The value on one line; quotes around it would be taken off, so a space goes before them."""
    lines = encodable(raw).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    value = "\\n".join(one_line(line) for line in lines)
    return f"\\{value}" if value[:1] in ("'", '"') else value
