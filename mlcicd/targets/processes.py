"""Detached processes on one machine: started, recognised again later, and stopped, without ever touching a
stranger.

A process is known by its id *and* its start time, because the kernel gives ids out again.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlcicd.core.errors import ServiceError

_PROC = Path("/proc")
POLL_S = 0.02


@dataclass(frozen=True)
class Process:
    """A process: its id, and when it started in the unit of the system (clock ticks, or a date)."""

    pid: int
    started: str

    def alive(self) -> bool:
        """Whether it runs. A child of ours that has ended is reaped on the way."""
        return bool(self.started) and _start_of(self.pid) == self.started


def identify(pid: int) -> Process | None:
    """The process that has this id now, or None when there is none (or only its zombie)."""
    started = _start_of(pid)
    return Process(pid, started) if started else None


def _start_of(pid: int) -> str:
    _reap(pid)
    if _PROC.joinpath("self/stat").exists():
        try:
            # The command's name stands in parentheses and may hold anything; the fields are counted after it.
            fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return ""
        return "" if fields[0] in ("Z", "X") else fields[19]
    listing = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split(maxsplit=1)
    return "" if len(listing) < 2 or listing[0].startswith("Z") else listing[1].strip()


def _reap(pid: int) -> None:
    """Collects a child of ours that has ended; does nothing for a process that is not our child."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def spawn(argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> Process:
    """Starts a process in a session of its own, so that it outlives us and no terminal signal reaches it.

    Its output is appended to `log`; it inherits no other open file.

    Raises:
        ServiceError: the program can not be started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        pid = os.posix_spawn(argv[0], list(argv), dict(env), file_actions=actions, setsid=True)
    except OSError as error:
        raise ServiceError(
            f"the program can not be started ({error.strerror})",
            where=argv[0],
            remedy="check that it exists and may be executed",
        ) from error
    # If it has ended already there is no start time: such a Process is never alive, and never signalled.
    return Process(pid, _start_of(pid))


def stop(processes: Sequence[Process], *, grace_s: float) -> None:
    """Asks processes to end, and ends those that have not after `grace_s` seconds. All at the same time."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    if not wait_gone(processes, timeout_s=grace_s):
        for process in processes:
            _signal(process, signal.SIGKILL)
        wait_gone(processes, timeout_s=5.0)


def wait_gone(processes: Sequence[Process], *, timeout_s: float) -> bool:
    """Whether all of them are gone within the time."""
    deadline = time.monotonic() + timeout_s
    while any(process.alive() for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def wait_any(processes: Sequence[Process], *, timeout_s: float) -> None:
    """Waits until one of them ends, or the time is over. Where the system does not tell (macOS, some sandboxes), until
    it is over."""
    poll, handles = select.poll(), []
    try:
        for process in processes if hasattr(os, "pidfd_open") else []:
            try:
                handles.append(os.pidfd_open(process.pid))
            except ProcessLookupError:
                return  # it has ended
            except OSError:
                # An old kernel, or a sandbox that forbids it: nobody tells when one ends.
                time.sleep(timeout_s)
                return
            poll.register(handles[-1], select.POLLIN)
        poll.poll(timeout_s * 1000)
    finally:
        for handle in handles:
            os.close(handle)


def ask_for_stacks(process: Process) -> None:
    """Lets one of our model servers print where its threads are to its log."""
    _signal(process, signal.SIGUSR1)
    time.sleep(0.3)


def _signal(process: Process, number: signal.Signals) -> None:
    if not process.alive():
        return
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return


def with_argument(directory: Path) -> dict[Process, Path]:
    """Our own processes that were started with a path inside `directory` as an argument, and that path.

    This finds what a launcher started and was killed before it could write down.
    """
    prefix = f"{directory}{os.sep}"
    found = {}
    for pid, argv in _command_lines():
        path = next((argument for argument in argv[1:] if argument.startswith(prefix)), None)
        process = identify(pid) if path and pid != os.getpid() else None
        if path and process:
            found[process] = Path(path)
    return found


def _command_lines() -> list[tuple[int, list[str]]]:
    if not _PROC.joinpath("self/stat").exists():
        listing = subprocess.run(
            ["ps", "-U", str(os.getuid()), "-o", "pid=,command="], capture_output=True, text=True, check=False
        ).stdout
        lines = (line.split() for line in listing.splitlines())
        return [(int(words[0]), words[1:]) for words in lines if words]
    lines_found = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid == os.getuid():
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                lines_found.append((int(entry.name), [os.fsdecode(argument) for argument in argv]))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended while we looked
    return lines_found


_KEPT = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
)
_KEPT_PREFIXES = ("LC_", "PYTHON", "OMP_", "OPENBLAS_", "MKL_", "CUDA_", "NVIDIA_", "SSL_CERT_")


def plain_environment() -> dict[str, str]:
    """What a long-lived process gets of our environment: where things are, and no token of the CI job that
    started it.

    It also drops the variable by which a GitHub runner finds and ends the processes a job left behind.
    """
    return {key: value for key, value in os.environ.items() if key in _KEPT or key.startswith(_KEPT_PREFIXES)}


def log_tail(log: Path, *, lines: int = 12, since: int = 0) -> str:
    """The last lines of a log from byte `since` on."""
    try:
        with log.open("rb") as file:
            file.seek(since)
            content = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "\n".join(content.splitlines()[-lines:])


if sys.platform == "win32":  # pragma: no cover
    raise ImportError("the local target runs on Linux and macOS")
