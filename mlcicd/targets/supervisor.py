"""Starts again what has died: a local target's model servers and its router.

A small process beside the router, one a local target, for as long as a version is deployed there. It looks at the
processes that are written down, and where one has ended it does what any command would do first: it moves reality to
the desired state. What dies again soon is started after longer and longer waits, each process after its own; the last
one that answers requests is not waited for. Nobody supervises the supervisor: the next command that changes the target
starts it again.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcicd import __version__
from mlcicd.core.errors import MlcicdError
from mlcicd.core.files import locked
from mlcicd.targets import processes
from mlcicd.targets.beside import Beside
from mlcicd.targets.processes import Process
from mlcicd.targets.state import Part, StateFolder

if TYPE_CHECKING:
    from mlcicd.targets.local import LocalTarget

NAME = "supervisor"
_LOOK_S = 0.5
_LONGEST_WAIT_S = 60.0
# Where nothing else answers meanwhile, a wait spares the machine and costs the users.
_LONGEST_OUTAGE_S = 2.0
# What has run for so long did not die soon.
_STEADY_S = 60.0


class Supervisor:
    """The supervisor of one state folder."""

    def __init__(self, folder: StateFolder) -> None:
        self._beside = Beside(folder, NAME)

    def ensure(self, target: Mapping[str, Any]) -> None:
        """Starts it if it does not run, and anew if another release of mlcicd has started it. Called under the
        folder's lock.

        Args:
            target: the arguments of :class:`~mlcicd.targets.local.LocalTarget`, without the folder.
        """
        told = _told(self._beside.marker)
        if told is not None and told.get("release") != __version__:
            self._beside.stop()
        self._beside.start({"release": __version__, "target": target})

    def step_aside(self) -> None:
        """Ends the process, and with it what it was doing, until :meth:`ensure` or :meth:`resume`."""
        processes.stop(self._beside.running(), grace_s=0.5)

    def resume(self) -> None:
        """Starts it again as it was told last, if it was told anything. Called under the folder's lock."""
        told = _told(self._beside.marker)
        if told is not None:
            self._beside.start(told)

    def stop(self) -> None:
        """Ends it for good, unless it is the supervisor itself that asks."""
        self._beside.stop()


class Patience:
    """How long to wait before a process is started again: the double of the last time, while it dies again soon."""

    def __init__(self) -> None:
        self._wait_s = 0.0
        self._last: float | None = None

    def wait_s(self, now: float, longest_s: float = _LONGEST_WAIT_S) -> float:
        """Seconds to wait, `longest_s` at most, after a death that is seen at `now` (a monotonic clock's seconds)."""
        if self._last is None or now - self._last > self._wait_s + _STEADY_S:
            self._wait_s = 0.0
        else:
            self._wait_s = min(max(2 * self._wait_s, 1.0), longest_s)
        self._last = now
        return self._wait_s


class Deaths:
    """Which processes have ended, and when each is to be started again."""

    def __init__(self) -> None:
        self._patience: dict[Part, Patience] = defaultdict(Patience)
        self._due: dict[Part, float] = {}

    def see(self, wanted: Mapping[Part, Process | None], live: str | None, now: float) -> bool:
        """Takes down what has ended and what is back; whether something is due.

        Args:
            wanted: as :meth:`~mlcicd.targets.local.LocalTarget.wanted` gives it.
            live: the version that answers.
            now: seconds of a monotonic clock.
        """
        running = {part.version for part, process in wanted.items() if process}
        self._due = {part: due for part, due in self._due.items() if part in wanted and wanted[part] is None}
        for part in [part for part, process in wanted.items() if process is None and part not in self._due]:
            outage = part.version not in running and part.version in (None, live)
            wait = self._patience[part].wait_s(now, _LONGEST_OUTAGE_S if outage else _LONGEST_WAIT_S)
            _say(f"{part.words} ended; started again" + (f" in {wait:g} s" if wait else ""))
            self._due[part] = now + wait
        return any(due <= now for due in self._due.values())

    def again(self) -> None:
        """All that had ended was started: what is dead now has died anew."""
        self._due.clear()


def main() -> None:
    """Looks until nothing is deployed any more."""
    marker = Path(sys.argv[1])
    folder = StateFolder(marker.parent.parent)
    deaths = Deaths()
    while True:
        options = _options(marker)
        if options is None:
            with locked(folder.lock):
                # Ends under the lock: whoever deploys next finds no supervisor, and starts one.
                if _options(marker) is None:
                    os._exit(0)
            continue
        wanted, live = _wanted(folder, options)
        if None in wanted.values():
            with locked(folder.lock):
                # Not what a command was just about to start.
                wanted, live = _wanted(folder, options)
        if deaths.see(wanted, live, time.monotonic()):
            _heal(folder, options, marker)
            deaths.again()
        processes.wait_any([process for process in wanted.values() if process], timeout_s=_LOOK_S)


def _told(marker: Path) -> dict[str, Any] | None:
    try:
        told: dict[str, Any] = json.loads(marker.read_bytes())
    except FileNotFoundError:
        return None
    return told


def _options(marker: Path) -> dict[str, Any] | None:
    """The target's arguments; None when it is not to be supervised any more."""
    told = _told(marker)
    return None if told is None else dict(told["target"])


def _target(folder: StateFolder, options: Mapping[str, Any]) -> LocalTarget:
    from mlcicd.targets.local import LocalTarget

    own = dict(options)
    return LocalTarget(own.pop("environment"), folder.root, **own)


def _wanted(folder: StateFolder, options: Mapping[str, Any]) -> tuple[dict[Part, Process | None], str | None]:
    """What should run, None for what does not; and the live version."""
    try:
        return _target(folder, options).wanted(), folder.read(options["environment"], 0).live
    except MlcicdError as error:
        _say(error.one_line())
        return {}, None


def _heal(folder: StateFolder, options: Mapping[str, Any], marker: Path) -> None:
    """Nothing, when a command has told other options since these were read."""
    try:
        _target(folder, options).heal(lambda: _options(marker) == options)
    except MlcicdError as error:
        _say(error.one_line())


def _say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}", flush=True)
