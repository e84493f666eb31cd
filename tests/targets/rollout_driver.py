"""A rollout over a real local target, in a process that kills itself before a named write.

    python rollout_driver.py STATE_DIR FILE NUMBER

FILE NUMBER: end with SIGKILL before the NUMBER-th time that a file of that name is replaced; 0: never.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from mlcicd.core.files import write_atomic
from mlcicd.rollout import JudgeSpec, MetricSpec
from mlcicd.rollout.controller import Controller
from mlcicd.rollout.sources.router import RouterSource
from mlcicd.rollout.state import Phase, Plan
from mlcicd.rollout.store import FileCell, Store
from mlcicd.stages.canary_ground import TargetTraffic
from mlcicd.targets.local import LocalTarget

WINDOW_S = 0.4


class Ledger:
    def __init__(self, path):
        self._path = path

    def promoted(self, version):
        write_atomic(self._path, json.dumps({"champion": version}))

    def taken_back(self, version, outcome, reason):
        write_atomic(self._path, json.dumps({"back": version, "reason": reason}))


def controller(folder, max_unattended_s=600.0):
    target = LocalTarget("staging", folder)
    spec = JudgeSpec(
        metrics=(MetricSpec("errors", margin=3.0, floor=0.02),),
        alpha=0.05,
        beta=0.1,
        min_windows=2,
        step_windows=2,
        min_requests=50,
    )
    plan = Plan("2", "1", "", spec, (0.2, 0.5), WINDOW_S, max_unattended_s)
    return Controller(
        plan,
        Store(FileCell(folder / "rollout.json")),
        TargetTraffic(target),
        lambda share_at: RouterSource(target.counters, "1", "2", WINDOW_S, share_at),
        Ledger(folder / "ledger.json"),
    )


def main(folder, name, number):
    seen = 0

    def watch(event, arguments):
        nonlocal seen
        if event == "os.rename" and Path(str(arguments[1])).name == name:
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    rollout = controller(folder)
    rollout.start()
    for _ in range(200):
        state = rollout.step().state
        if state.phase is Phase.DONE:
            print(json.dumps({"outcome": state.outcome, "reason": state.reason, "served": state.served}))
            return
        time.sleep(WINDOW_S)
    raise SystemExit("it never ended")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
