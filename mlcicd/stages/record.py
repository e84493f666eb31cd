"""What a stage collects while it works, and the one shape that all stages have."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import mlcicd
from mlcicd.config import Project
from mlcicd.core.digests import digest_file
from mlcicd.core.errors import CommandFailed, ExitCode, MlcicdError
from mlcicd.core.files import write_atomic
from mlcicd.core.git import GitState, git_state
from mlcicd.core.progress import SILENT, Progress
from mlcicd.core.verdict import Check, CheckStatus, Evidence, Status, Subject, Verdict, conclude, now

# A stage that runs again makes the verdicts of those behind it stale.
ORDER = ("validate-data", "train", "evaluate", "register", "deploy", "canary")

P = ParamSpec("P")
Body = Callable[Concatenate["Record", P], Status | None]


class Record:
    """Collects what becomes the verdict."""

    def __init__(self, project: Project, stage: str, *, dry_run: bool, progress: Progress) -> None:
        self.project = project
        self.stage = stage
        self.dry_run = dry_run
        self.progress = progress
        self.started = now()
        self.checks: list[Check] = []
        self.subjects: list[Subject] = []
        self.evidence: list[Evidence] = []
        self.outputs: dict[str, str] = {}
        self.details: dict[str, Any] = {}
        self.summary = ""
        self.error_exit_code: int | None = None
        self.git = GitState()

    def subject(self, kind: str, name: str, digest: str, **details: Any) -> None:
        self.subjects.append(Subject(kind=kind, name=name, digest=digest, details=details))

    def attach(self, path: Path, kind: str) -> None:
        """Names a file of the project as evidence."""
        relative = path.relative_to(self.project.root).as_posix()
        self.evidence.append(Evidence(path=relative, digest=digest_file(path), kind=kind))

    def figure(self, *figures: dict[str, Any]) -> None:
        """Adds pictures for the report, as data."""
        self.details.setdefault("figures", []).extend(figures)

    def verdict(self, status: Status, *, error_exit_code: int | None = None) -> Verdict:
        git = self.git
        subjects = [
            Subject(kind="git", name=git.branch or "none", digest=git.commit, details={"dirty": git.dirty}),
            Subject(kind="config", name="mlcicd.yaml", digest=self.project.digest),
            *self.subjects,
        ]
        return Verdict(
            stage=self.stage,
            status=status,
            summary=self.summary or _sentence(status, self.checks),
            dry_run=self.dry_run,
            subjects=subjects,
            checks=self.checks,
            evidence=self.evidence,
            outputs=self.outputs,
            details=self.details,
            started=self.started,
            finished=now(),
            tool=f"mlcicd {mlcicd.__version__}",
            error_exit_code=error_exit_code or self.error_exit_code,
        )


def stage(name: str) -> Callable[[Body[P]], Callable[..., Verdict]]:
    """Makes a stage of a function that fills a :class:`Record`.

    The stage is a function from a project and options to a verdict. It raises nothing a user could cause: an error
    becomes a verdict of status `error` (or `failed`, when it is the user's own code that failed) which carries the
    exit code. The verdict is also written to `.mlcicd/verdicts/<name>.json`. All stages take `dry_run` (report, but
    never block and never change a registry or a target) and `progress`.
    """

    def decorate(body: Body[P]) -> Callable[..., Verdict]:
        @wraps(body)
        def run(project: Project, *args: Any, **kwargs: Any) -> Verdict:
            record = Record(
                project,
                name,
                dry_run=bool(kwargs.pop("dry_run", False)),
                progress=kwargs.pop("progress", None) or SILENT,
            )
            try:
                _own_folder(project)
                _archive_stale(project, name)
                record.git = git_state(project.root)
                status = body(record, *args, **kwargs)
                verdict = record.verdict(status or conclude(record.checks))
            except CommandFailed as error:
                record.details["error"] = error_details(error)
                record.summary = error.one_line()
                verdict = record.verdict(Status.FAILED)
            except MlcicdError as error:
                record.details["error"] = error_details(error)
                record.summary = error.one_line()
                verdict = record.verdict(Status.ERROR, error_exit_code=error.exit_code)
            except KeyboardInterrupt:
                record.summary = "stopped by a signal; run the same command again to go on"
                record.verdict(Status.ERROR, error_exit_code=ExitCode.SERVICE).write(project.verdict_path(name))
                raise
            verdict.write(project.verdict_path(name))
            return verdict

        return run

    return decorate


def error_details(error: MlcicdError) -> dict[str, Any]:
    """An error as a verdict carries it, under `details.error`."""
    return {
        "what": error.what,
        "where": error.where,
        "why": error.why,
        "remedy": error.remedy,
        "log": list(error.log),
        "file": getattr(error, "file", ""),
        "line": getattr(error, "line", None),
    }


def _own_folder(project: Project) -> None:
    """Makes `.mlcicd`, which is never committed. Where that can not be written, nothing else is begun.

    Raises:
        ServiceError: the folder is read-only, or the disk is full.
    """
    write_atomic(project.state / ".gitignore", "*\n")


def _archive_stale(project: Project, name: str) -> None:
    """Moves this stage's last verdict, and those of the stages behind it, out of the way of the new run."""
    behind = ORDER[ORDER.index(name) :] if name in ORDER else (name,)
    for stage_name in behind:
        path = project.verdict_path(stage_name)
        if path.is_file():
            history = project.state / "history"
            history.mkdir(parents=True, exist_ok=True)
            stamp = now().strftime("%Y%m%dT%H%M%S.%f")
            with contextlib.suppress(FileNotFoundError):
                shutil.move(path, history / f"{stamp}-{stage_name}.json")


def _sentence(status: Status, checks: list[Check]) -> str:
    if status is Status.UNGATED:
        return "UNGATED: nothing was required, so nothing was passed"
    bad = [c for c in checks if c.status in (CheckStatus.FAILED, CheckStatus.INCONCLUSIVE)]
    if not bad:
        done = sum(c.status is CheckStatus.PASSED for c in checks)
        return f"{done} check{'s' * (done != 1)} passed"
    worst = next((c for c in bad if c.status is CheckStatus.FAILED and c.severity == "fail"), bad[0])
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    return f"{worst.name}: {worst.reason.splitlines()[0] if worst.reason else worst.status}{more}"
