"""Gives the champion all traffic back when nobody has looked after a canary for too long.

A small process beside the router, one a local target, for as long as a canary has traffic or copies of it: it needs no
job, no cron and no network. `attend` writes until when somebody is known to look; once that has passed, the canary's
share is set to nothing and its mirror is ended. It ends when it has done so, when no canary has traffic, or when the
target is stopped.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlcicd.core.errors import MlcicdError
from mlcicd.core.files import locked
from mlcicd.targets.beside import Beside
from mlcicd.targets.state import StateFolder

NAME = "watchdog"
_LONGEST_SLEEP_S = 1.0
_RETRY_S = 2.0


class Watchdog:
    """The watchdog of one state folder."""

    def __init__(self, folder: StateFolder) -> None:
        self._beside = Beside(folder, NAME)

    def attend(self, seconds: float, target: Mapping[str, Any]) -> None:
        """Somebody looks, and will again within `seconds`. Called under the folder's lock.

        Args:
            target: the arguments of :class:`~mlcicd.targets.local.LocalTarget`, without the folder.
        """
        self._beside.start({"until": time.time() + seconds, "target": target})

    def retell(self, target: Mapping[str, Any]) -> None:
        """Other arguments of the target, for a watchdog that runs. Called under the folder's lock."""
        left, told = _lease(self._beside.marker)
        if told:
            self._beside.start({"until": time.time() + left, "target": target})

    def stop(self) -> None:
        """Ends it, unless it is the watchdog itself that asks."""
        self._beside.stop()


def main() -> None:
    """Watches until there is nothing left to watch."""
    marker = Path(sys.argv[1])
    folder = StateFolder(marker.parent.parent)
    failed = False
    while True:
        with locked(folder.lock):
            left, options = _lease(marker)
            used = _used(folder, options)
            # Ends under the lock, and with it the lock: whoever attends next finds no watchdog, and starts one.
            if used is None or (left <= 0 and used == 0 and not failed):
                os._exit(0)
        if left > 0:
            failed = False
            time.sleep(min(left, _LONGEST_SLEEP_S))
        else:
            failed = not _take_back(folder, options)
            time.sleep(_RETRY_S if failed else 0)


def _lease(marker: Path) -> tuple[float, dict[str, Any]]:
    """Seconds until the lease ends, and the target's arguments; no arguments when there is no lease any more."""
    try:
        lease = json.loads(marker.read_bytes())
    except FileNotFoundError:
        return 0.0, {}
    return lease["until"] - time.time(), lease["target"]


def _used(folder: StateFolder, options: Mapping[str, Any]) -> float | None:
    """The part of the requests that reaches the canary, copies included, as it is written down; None when there is no
    canary, or no lease."""
    if not options:
        return None
    try:
        desired = folder.read(options["environment"], 0)
    except MlcicdError as error:
        # What can not be read may be a canary with traffic.
        _say(error.one_line())
        return 1.0
    return None if desired.canary is None else max(desired.share, desired.mirror or 0.0)


def _take_back(folder: StateFolder, options: Mapping[str, Any]) -> bool:
    """All traffic to the live version, and no copy of it to another; whether that worked."""
    from mlcicd.targets.local import LocalTarget

    own = dict(options)
    target = LocalTarget(own.pop("environment"), folder.root, **own)
    try:
        canary = target.status().canary
        if canary is not None:
            _say("nobody looked in time: the live version gets all traffic, and nothing is copied")
            target.set_share(canary, 0.0)
            target.set_mirror(canary, 0.0)
    except MlcicdError as error:
        _say(error.one_line())
        return False
    return True


def _say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}", flush=True)
