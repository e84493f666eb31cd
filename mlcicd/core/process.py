"""Child processes: the user's own code runs in one of these, never in ours."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from mlcicd.core.errors import CommandFailed, InputError
from mlcicd.core.progress import SILENT, Progress

_TAIL_LINES = 40
# Among them what a job asks its identity with: who has it can sign as the job.
_NOT_THEIRS = (
    "ACTIONS_ID_TOKEN_REQUEST_",
    "MLCICD_INPUT_",
    "MLCICD_PRIVATE",
    "MLCICD_PYTHON_OF_ACTION",
    "SIGSTORE_ID_TOKEN",
    "GITHUB_ENV",
    "GITHUB_OUTPUT",
    "GITHUB_PATH",
    "GITHUB_STATE",
    "GITHUB_STEP_SUMMARY",
)
_GRACE_SECONDS = 5.0
_MAX_LINE = 8192
# What a child prints reaches terminals and logs: no cursor movement, no title changes.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Completed:
    """How a child ended: its exit code, its last lines, and what it used."""

    returncode: int
    tail: tuple[str, ...]
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


def shell_command(line: str) -> list[str]:
    """The argument list that runs a line of shell, stopping at the first failure."""
    bash = shutil.which("bash")
    return [bash, "-eo", "pipefail", "-c", line] if bash else ["sh", "-ec", line]


def user_environment(environ: Mapping[str, str], python: str, extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of the user's code: theirs, with their interpreter first on PATH, and without our own inputs.

    The files by which a step tells the runner its outputs, environment and summary are not handed on either: what the
    code of a pull request writes there would be read as ours.
    """
    result = {key: value for key, value in environ.items() if not key.startswith(_NOT_THEIRS)}
    folder = str(Path(python).parent)
    result["PATH"] = os.pathsep.join([folder, result.get("PATH", os.defpath)])
    result.update(extra)
    return result


def run_child(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout: float,
    what: str,
    progress: Progress = SILENT,
) -> Completed:
    """Runs a command to its end in a process group of its own, its output streamed line by line.

    Ctrl-C and SIGTERM reach the whole group, and so does the end of the timeout: first SIGTERM, after a grace
    period SIGKILL. Standard input is empty.

    Raises:
        InputError: there is no such command.
        CommandFailed: it did not finish within `timeout` seconds.
    """
    started = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    timed_out = False
    with _interruptions() as let_through:
        try:
            child = subprocess.Popen(
                list(command),
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise InputError(f"{what}: can not run {command[0]!r} ({error.strerror})") from error
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        reader = threading.Thread(target=_stream, args=(child, tail, progress), daemon=True)
        try:
            reader.start()
            let_through()
            child.wait(timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
        except BaseException:
            stop_group(child)
            raise
    if timed_out:
        stop_group(child)
    # A grandchild that left the group's leader behind may hold the pipe open; it is not waited for forever.
    reader.join(_GRACE_SECONDS)
    if timed_out:
        raise CommandFailed(
            f"{what}: stopped after {timeout:g} s, its timeout", log=tuple(tail), remedy="raise the timeout"
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Completed(
        returncode=child.returncode,
        tail=tuple(tail),
        wall_seconds=time.monotonic() - started,
        cpu_seconds=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        peak_bytes=after.ru_maxrss * 1024,
    )


def stop_group(child: subprocess.Popen[bytes]) -> None:
    """Ends a child and all that it started: SIGTERM, a grace period, SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_GRACE_SECONDS)
    # The leader may be gone while others of its group still run.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _stream(child: subprocess.Popen[bytes], tail: deque[str], progress: Progress) -> None:
    assert child.stdout is not None
    with child.stdout as pipe:
        while raw := pipe.readline(_MAX_LINE):
            text = raw.decode("utf-8", "replace").rstrip("\n")
            # Progress bars return to the start of the line: keep what they ended with.
            line = _CONTROL.sub("", text.rstrip("\r").rpartition("\r")[2])
            tail.append(line)
            progress.output(line)


@contextlib.contextmanager
def _interruptions() -> Iterator[Callable[[], None]]:
    """SIGTERM is a KeyboardInterrupt, as Ctrl-C is; both wait until the function that this gives was called.

    One in the midst of starting a child would leave a child that nobody knows of.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    waiting: list[int] | None = []
    before: dict[signal.Signals, Any] = {}

    def interrupt(number: int, frame: FrameType | None) -> None:
        if waiting is not None:
            waiting.append(number)
        elif number == signal.SIGINT and callable(before[signal.SIGINT]):
            before[signal.SIGINT](number, frame)
        else:
            raise KeyboardInterrupt

    def let_through() -> None:
        nonlocal waiting
        held, waiting = waiting, None
        if held:
            interrupt(held[0], None)

    # What is ignored stays so.
    for taken in (signal.SIGINT, signal.SIGTERM):
        if taken == signal.SIGTERM or signal.getsignal(taken) is not signal.SIG_IGN:
            before[taken] = signal.signal(taken, interrupt)
    try:
        yield let_through
    finally:
        for taken, handler in before.items():
            # None: one that was not set by Python, and can not be set again.
            signal.signal(taken, signal.SIG_DFL if handler is None else handler)
        if waiting:
            signal.raise_signal(waiting[0])
