"""Runs one stage for a person or a CI host: progress, verdict, outputs, summary, annotations, exit code."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

from mlcicd import __version__
from mlcicd.ci import Annotation, CIHost, detect_host
from mlcicd.config import FILE_NAME, Project, load_project
from mlcicd.core.errors import ExitCode, MlcicdError, known_secrets, redact
from mlcicd.core.verdict import CheckStatus, Severity, Status, Verdict, now
from mlcicd.report import print_verdict, summary_markdown, terminal_lines
from mlcicd.stages.record import error_details

# Ended by Ctrl-C or SIGTERM: what a shell reports for SIGINT.
INTERRUPTED = 130


@dataclass(frozen=True)
class Invocation:
    """What was asked for, beyond the stage's own options."""

    stage: str
    working_directory: Path
    profile: str = ""
    dry_run: bool = False
    as_json: bool = False
    debug: bool = False


class Lines:
    """Progress as lines: bare on a terminal, dated in CI."""

    def __init__(self, stream: TextIO, *, dated: bool) -> None:
        self._stream = stream
        self._dated = dated
        self._started = time.monotonic()

    def step(self, message: str) -> None:
        self._write("•", message)

    def output(self, line: str) -> None:
        self._write("│", line)

    def _write(self, mark: str, text: str) -> None:
        since = time.monotonic() - self._started
        prefix = f"{now():%H:%M:%S}Z" if self._dated else f"{since:6.1f}s"
        # What is not text to the terminal's encoding must not end the stage.
        line = f"{prefix} {mark} {redact(text)}\n".encode(self._stream.encoding or "utf-8", "replace")
        self._stream.write(line.decode(self._stream.encoding or "utf-8"))
        self._stream.flush()


def conduct(choose: Callable[[], tuple[Callable[..., Verdict], dict[str, Any]]], invocation: Invocation) -> NoReturn:
    """Runs the stage that `choose` gives, shows its verdict, and exits with its code."""
    host = detect_host(os.environ)
    in_ci = host.name != "plain"
    stream = sys.stderr if invocation.as_json and not in_ci else sys.stdout
    project: Project | None = None
    verdict = _interrupted_before(invocation)
    code = INTERRUPTED
    try:
        project = load_project(invocation.working_directory, profile=invocation.profile)
        # Before commands are stopped: this is one. The host then hides them in the output of the user's code as well.
        for secret in known_secrets():
            host.mask(secret)
        with host.stop_commands() if in_ci else contextlib.nullcontext():
            stage, options = choose()
            verdict = stage(project, dry_run=invocation.dry_run, progress=Lines(stream, dated=in_ci), **options)
            code = int(verdict.exit_code)
    except MlcicdError as error:
        verdict, code = _error_verdict(invocation, error), int(error.exit_code)
        if invocation.debug:
            sys.stderr.write(redact(traceback.format_exc()))
    except KeyboardInterrupt:
        stream.write("\nmlcicd: stopped; run the same command again to go on\n")
    except Exception as error:
        verdict, code = _defect(invocation, error), int(ExitCode.DEFECT)
    finally:
        code = _show(host, invocation, project, verdict, code, stream)
    raise SystemExit(code)


def _show(
    host: CIHost, invocation: Invocation, project: Project | None, verdict: Verdict, code: int, stream: TextIO
) -> int:
    """Presents the verdict; what goes wrong with that is told, and never turns a failure into a pass."""
    try:
        _present(host, invocation, project, verdict, code, stream)
    except MlcicdError as error:
        sys.stderr.write(f"mlcicd: {error.one_line()}\n{error.detail()}\n")
        return code or int(error.exit_code)
    except Exception as error:
        sys.stderr.write(f"mlcicd: {_defect(invocation, error).summary}\n")
        return code or int(ExitCode.DEFECT)
    return code


def _present(
    host: CIHost, invocation: Invocation, project: Project | None, verdict: Verdict, code: int, stream: TextIO
) -> None:
    shown = _with_parts(project, verdict)
    for part in shown:
        _print(part, host, stream)
    if invocation.as_json:
        json.dump(verdict.to_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    paths = _write_report(project, invocation.stage)
    if host.name != "plain":
        host.annotate_all(_annotations(shown, invocation.working_directory))
        room = host.summary_room()
        host.summary(summary_markdown(shown, limit_bytes=room if room is not None else 900_000))
    outputs = {"status": str(verdict.status), "exit-code": str(code), **paths, **verdict.outputs}
    host.outputs(outputs)


def _print(verdict: Verdict, host: CIHost, stream: TextIO) -> None:
    """On a terminal wrapped and coloured; elsewhere whole lines, which no CI host takes for commands."""
    if host.name != "plain":
        host.log(terminal_lines(verdict))
    elif stream.isatty():
        from rich.console import Console

        print_verdict(verdict, Console(file=stream))
    else:
        stream.writelines(f"{line}\n" for line in terminal_lines(verdict))


def _with_parts(project: Project | None, verdict: Verdict) -> list[Verdict]:
    """The verdicts of the stages that a pipeline ran, or the verdict itself."""
    names = verdict.details.get("stages", [])
    if project is None or not names:
        return [verdict]
    return [Verdict.read(project.verdict_path(name)) for name in names]


def _write_report(project: Project | None, stage: str) -> dict[str, str]:
    paths = {"verdict-path": "", "report-path": ""}
    if project is None:
        return paths
    from mlcicd.stages.report import write_report

    verdict_path = project.verdict_path(stage)
    if verdict_path.is_file():
        paths["verdict-path"] = verdict_path.relative_to(project.root).as_posix()
    report = write_report(project)
    if report is not None:
        paths["report-path"] = report.relative_to(project.root).as_posix()
    return paths


def _annotations(verdicts: list[Verdict], folder: Path) -> list[Annotation]:
    found = []
    for verdict in verdicts:
        found += _error_annotation(verdict, folder)
        for check in verdict.checks:
            if check.status not in (CheckStatus.FAILED, CheckStatus.INCONCLUSIVE):
                continue
            blocks = check.severity is Severity.FAIL and check.status is CheckStatus.FAILED and not verdict.dry_run
            line = check.details.get("line")
            where = f"{check.name} [{check.slice}]" if check.slice else check.name
            found.append(
                Annotation(
                    "error" if blocks else "warning",
                    f"{verdict.stage}: {where}",
                    "\n".join(part for part in (check.reason, check.remedy) if part),
                    file=(folder / FILE_NAME).as_posix() if line else "",
                    line=line,
                )
            )
    return found


def _error_annotation(verdict: Verdict, folder: Path) -> list[Annotation]:
    error = verdict.details.get("error")
    if not error:
        return []
    message = [f"{error.get('where')}: {error['what']}" if error.get("where") else error["what"]]
    message += [error[key] for key in ("why", "remedy") if error.get(key)]
    file = (folder / error["file"]).as_posix() if error.get("file") else ""
    return [Annotation("error", f"mlcicd {verdict.stage}", "\n".join(message), file=file, line=error.get("line"))]


def _error_verdict(invocation: Invocation, error: MlcicdError) -> Verdict:
    """An error that came before there was a project to record it in."""
    return _bare(invocation, error.one_line(), int(error.exit_code), error_details(error))


def _defect(invocation: Invocation, error: Exception) -> Verdict:
    trace = redact("".join(traceback.format_exception(error)))
    sys.stderr.write(trace)
    said = redact(f"{type(error).__name__}: {error}".splitlines()[0])
    details = {
        "what": f"this is a defect of mlcicd, not of your project: {said}",
        "remedy": f"report it with the traceback above, mlcicd {__version__}, Python {sys.version.split()[0]} and "
        f"the command `mlcicd {invocation.stage}`",
    }
    return _bare(invocation, details["what"], int(ExitCode.DEFECT), details)


def _interrupted_before(invocation: Invocation) -> Verdict:
    return _bare(invocation, "stopped by a signal; run the same command again to go on", int(ExitCode.SERVICE), {})


def _bare(invocation: Invocation, summary: str, code: int, error: dict[str, Any]) -> Verdict:
    return Verdict(
        stage=invocation.stage,
        status=Status.ERROR,
        summary=summary,
        dry_run=invocation.dry_run,
        details={"error": error} if error else {},
        started=now(),
        finished=now(),
        tool=f"mlcicd {__version__}",
        error_exit_code=code,
    )
