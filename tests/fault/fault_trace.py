"""Finds the points at which a process can die, by tracing what it does, and ends or stops it at one of them.

A point is each HTTP request before it is sent, after it is sent, and after its answer has come; each SQL statement and
commit, before and after; and each file that is opened for writing, renamed or removed. Only the main thread counts: a
lease is kept alive by a thread whose timing is not ours.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_FILE_EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.chmod")


@dataclass
class Points:
    """Counts points; sends itself `signal` at number `at` (from 1; 0 never).

    `idle` counts only points at which no database transaction is open: there a process may stop for long without
    holding up the others for a reason that is not ours.
    """

    at: int = 0
    signal: int = signal.SIGKILL
    idle: bool = False
    count: int = 0

    def reach(self, *, idle: bool = False) -> None:
        if (self.idle and not idle) or threading.current_thread() is not threading.main_thread():
            return
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), self.signal)

    def install(self) -> None:
        self._trace_http()
        self._trace_sql()
        sys.addaudithook(self._trace_files)

    def _trace_http(self) -> None:
        connection: Any = http.client.HTTPConnection
        endheaders, getresponse = connection.endheaders, connection.getresponse

        def send(*args: Any, **kwargs: Any) -> Any:
            self.reach(idle=True)
            sent = endheaders(*args, **kwargs)
            self.reach(idle=True)
            return sent

        def receive(*args: Any, **kwargs: Any) -> Any:
            answer = getresponse(*args, **kwargs)
            self.reach(idle=True)
            return answer

        connection.endheaders, connection.getresponse = send, receive

    def _trace_sql(self) -> None:
        from sqlalchemy import event
        from sqlalchemy.engine import Engine
        from sqlalchemy.pool import Pool

        for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
            event.listen(Engine, name, lambda *_: self.reach())
        # The connection goes back: whatever was done with it is committed.
        event.listen(Pool, "checkin", lambda *_: self.reach(idle=True))

    def _trace_files(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            flags = arguments[2]
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.reach()
        elif event in _FILE_EVENTS:
            self.reach()


@dataclass(frozen=True)
class Ended:
    """How a child ended. `said` is what its work returned; None when it was killed."""

    said: dict[str, Any] | None
    points: int = 0


class Child:
    """A fork of this process that does one piece of work under a tracer."""

    def __init__(self, work: Callable[[], dict[str, Any]], points: Points | None = None) -> None:
        points = points or Points()
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            code = 70
            try:
                points.install()
                said = work()
                os.write(writing, json.dumps({"said": said, "points": points.count}).encode())
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(writing)
        self._reading = reading

    def stopped(self) -> bool:
        """Waits until it has stopped itself (True), or has ended (False)."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return True
        self._status = status
        return False

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def end(self) -> Ended:
        """Waits for its end."""
        with os.fdopen(self._reading) as file:
            text = file.read()
        status = getattr(self, "_status", None)
        if status is None:
            _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            return Ended(None)
        if status != 0:
            raise SystemExit("a child met a defect (see above)")
        document = json.loads(text)
        return Ended(document["said"], document["points"])
