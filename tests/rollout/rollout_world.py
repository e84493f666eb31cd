"""A small world for rollouts: a clock, traffic whose windows depend only on time and share, a target on disk.

Everything a real one keeps outside of the process is a file here, so that a process can be killed and another go on.
Run as a program (`make fault-canary`) it kills a process at every write of a rollout, and says what came of it.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import tempfile
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from mlcicd.core.files import write_atomic
from mlcicd.rollout import Arm, JudgeSpec, MetricSpec, Window
from mlcicd.rollout.controller import Controller
from mlcicd.rollout.labels import Cohort
from mlcicd.rollout.state import Phase, Plan, RolloutState
from mlcicd.rollout.store import FileCell, Store
from mlcicd.rollout.traffic import Weights

WINDOW_S = 10.0
SHARES = (0.1, 0.5)


def plan(**changes):
    spec = JudgeSpec(
        metrics=(MetricSpec("errors", margin=2.0, floor=0.005),),
        min_windows=2,
        step_windows=2,
        min_requests=100,
        max_duration_s=3600.0,
    )
    values = {"version": "2", "champion": "1", "model_digest": "sha256:aa", "spec": spec, "shares": SHARES}
    return Plan(**{**values, "window_s": WINDOW_S, "max_unattended_s": 600.0, **changes})


def late_plan():
    """The same with a rate whose outcomes are known 40 s after a prediction."""
    late = MetricSpec("missed", "rate", "missed", margin=2.0, label_delay_s=40.0)
    spec = replace(plan().spec, metrics=(*plan().spec.metrics, late), watch_s=60.0, no_data_timeout_s=60.0)
    return {"spec": spec}


@lru_cache(maxsize=4)
def cohorts(worse_from):
    """Outcomes of predictions made in steps of 10 s: one in twenty of the champion's, and of the canary's until some
    time, from which on it is six in twenty. As for requests, they depend on their time alone."""
    found = []
    for t in range(1000, 1400, 10):
        draw = np.random.default_rng([7, t])
        rate = 0.05 if t < worse_from else 0.3
        champion, canary = int(draw.binomial(400, 0.05)), int(draw.binomial(200, rate))
        found.append(Cohort(float(t), 10.0, {"missed": (400, champion)}, {"missed": (200, canary)}))
    return found


@dataclass
class Disk:
    """A JSON document in a file."""

    path: Path
    empty: dict = field(default_factory=dict)

    def read(self):
        return json.loads(self.path.read_text()) if self.path.exists() else dict(self.empty)

    def update(self, **changes):
        write_atomic(self.path, json.dumps({**self.read(), **changes}))


class Clock:
    """The world's time, which goes on only when it is told to."""

    def __init__(self, folder):
        self._disk = Disk(folder / "clock.json", {"now": 1000.0})

    def __call__(self):
        return self._disk.read()["now"]

    def pass_(self, seconds=WINDOW_S):
        self._disk.update(now=self() + seconds)


class FakeTarget:
    """Versions that run, and who has the traffic; each move is more than one write, as in a real one."""

    def __init__(self, folder):
        empty = {"live": "1", "canary": "2", "share": 0.0, "running": ["1", "2"], "previous": None, "moves": []}
        self.disk = Disk(folder / "target.json", empty)
        self.attended = Disk(folder / "attended.json")

    def look(self):
        now = self.disk.read()
        return Weights(now["live"], now["canary"], now["share"])

    def set_share(self, version, share):
        now = self.disk.read()
        assert now["canary"] == version, "no such canary"
        assert version in now["running"]
        self.disk.update(share=share, moves=[*now["moves"], share])

    def attend(self, seconds):
        self.attended.update(seconds=seconds)

    def promote(self, version):
        now = self.disk.read()
        if now["live"] != version:
            assert version in now["running"]
            self.disk.update(live=version, canary=None, share=0.0, previous=now["live"])

    def take_back(self):
        self.disk.update(share=0.0)
        self.disk.update(canary=None)
        now = self.disk.read()
        self.disk.update(running=[v for v in now["running"] if v in (now["live"], now["previous"])])

    def revert(self):
        now = self.disk.read()
        if now["previous"]:
            self.disk.update(live=now["previous"], previous=None, canary=None, share=0.0)

    def wrong(self):
        """Whether some traffic goes where nothing runs."""
        now = self.disk.read()
        routed = [now["live"]] + ([now["canary"]] if now["share"] > 0 else [])
        return [version for version in routed if version not in now["running"]]


class FakeLedger:
    def __init__(self, folder):
        self.disk = Disk(folder / "ledger.json")
        self.refuses = None

    def promoted(self, version):
        if self.refuses:
            raise self.refuses
        self.disk.update(champion=version)

    def withdrawn(self, version, reason):
        self.disk.update(champion="1", withdrawn=version)

    def taken_back(self, version, outcome, reason):
        self.disk.update(back=version, outcome=outcome)


class FakeSource:
    """Windows that can be looked back at: which requests a window has depends on its time and share alone."""

    def __init__(self, share_at, bad_rate, per_window=600):
        self._share_at = share_at
        self._bad_rate = bad_rate
        self._per_window = per_window
        self._origins = []

    def read(self, since, until):
        found = []
        for origin, end in zip(self._origins, [*self._origins[1:], until], strict=True):
            t = origin
            while t + WINDOW_S <= min(end, until):
                share = self._share_at(t)
                if (since is None or t > since) and share == self._share_at(t + WINDOW_S - 0.001):
                    found.append(self._window(t, share))
                t += WINDOW_S
        return found

    def restart(self, now):
        self._origins.append(now)

    def state(self):
        return {"origins": list(self._origins)}

    def restore(self, state):
        self._origins = list(state["origins"])

    def _window(self, t, share):
        draw = np.random.default_rng([int(t), int(share * 1000)])
        canary = int(draw.binomial(self._per_window, share))
        champion = self._per_window - canary
        return Window(
            t=t,
            champion=Arm(champion, int(draw.binomial(champion, 0.005))),
            canary=Arm(canary, int(draw.binomial(canary, self._bad_rate))),
            share=share,
        )


class World:
    """All of it in one folder."""

    def __init__(self, folder, *, bad_rate=0.004, worse_from=None, **changes):
        self.folder = folder
        self.clock = Clock(folder)
        self.target = FakeTarget(folder)
        self.ledger = FakeLedger(folder)
        self.cell = FileCell(folder / "rollout.json")
        self.bad_rate = bad_rate
        self.worse_from = worse_from
        self.changes = changes if worse_from is None else {**late_plan(), **changes}
        self.journal = []
        self.promoted = None

    def controller(self, **changes):
        """What a new process would make."""
        return Controller(
            plan(**{**self.changes, **changes}),
            Store(self.cell, clock=self.clock),
            self.target,
            lambda share_at: FakeSource(share_at, self.bad_rate),
            self.ledger,
            clock=self.clock,
            cohorts=None if self.worse_from is None else lambda: cohorts(self.worse_from),
            journal=self.write_down,
        )

    def write_down(self, _started, windows, matured, promoted):
        self.journal += [*windows, *matured]
        self.promoted = self.promoted if promoted is None else promoted

    def state(self):
        document = Store(self.cell, clock=self.clock).read()
        return None if document is None else RolloutState.from_json(document)

    def run(self, controller=None, *, limit=500):
        """As a watch does: start, then a step a window, to the end."""
        controller = controller or self.controller()
        controller.start()
        for _ in range(limit):
            # First a step at the time it is: one that died may have left it undone.
            outcome = controller.step()
            if outcome.state.phase is Phase.DONE:
                return outcome
            self.clock.pass_()
        raise AssertionError("it never ended")


def result(world):
    """What must not depend on who died where."""
    state = world.state()
    return {
        "outcome": state.outcome,
        "phase": str(state.phase),
        "log_e": [list(point.log_e) for point in state.trace],
        "t": [point.t for point in state.trace],
        "evidence": state.judge["metrics"],
        "late": state.judge["late"],
        "target": {k: v for k, v in world.target.disk.read().items() if k != "moves"},
        "ledger": world.ledger.disk.read(),
    }


# --- the program


class Writes:
    """Counts what this process does to files, and kills it at the one that was asked for, before it is done."""

    def __init__(self, kill_at):
        self.count = 0
        self.kill_at = kill_at

    def __call__(self, event, arguments):
        if event == "open":
            _path, _mode, flags = arguments
            writing = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        else:
            writing = event in ("os.rename", "os.remove", "os.mkdir", "os.chmod")
        if writing:
            self.count += 1
            if self.count == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


def in_child(folder, bad_rate, worse_from, kill_at):
    """Runs a rollout in a process of its own; returns how many writes it did, or None when it was killed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            writes = Writes(kill_at)
            sys.addaudithook(writes)
            World(folder, bad_rate=bad_rate, worse_from=worse_from).run()
            os.write(writing, str(writes.count).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return None
    if status != 0:
        raise SystemExit(f"a child failed with {status}")
    return int(said)


def kill_everywhere(folder, bad_rate, every, worse_from=None):
    if worse_from is not None:
        cohorts(worse_from)  # drawn once, before any child is made
    quiet = folder / "undisturbed"
    quiet.mkdir()
    writes = in_child(quiet, bad_rate, worse_from, 0)
    expected = result(World(quiet))
    different, killed, wrong = [], 0, []
    for at in range(1, writes + 1, every):
        place = folder / f"at-{at}"
        place.mkdir()
        killed += in_child(place, bad_rate, worse_from, at) is None
        world = World(place)
        wrong += [(at, version) for version in world.target.wrong()]
        in_child(place, bad_rate, worse_from, 0)
        if result(world) != expected:
            different.append(at)
    return {
        "writes": writes,
        "killed": killed,
        "different": different,
        "wrong": wrong,
        "outcome": expected["outcome"],
        "windows": len(expected["t"]),
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        late = float(sys.argv[4]) if len(sys.argv) > 4 else None
        print(json.dumps(kill_everywhere(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), late)))
        raise SystemExit
    as_undisturbed = True
    kinds = (
        ("good", 0.004, None),
        ("bad", 0.05, None),
        ("good, with late outcomes,", 0.004, math.inf),
        ("promoted and then bad", 0.004, 1100.0),
    )
    for canary, rate, worse in kinds:
        with tempfile.TemporaryDirectory() as temporary:
            said = kill_everywhere(Path(temporary), rate, 1, worse)
        print(
            f"{canary} canary: killed at each of {said['killed']} writes and taken up again: {said['outcome']} after "
            f"{said['windows']} windows; other decision or e-values: {len(said['different'])}; traffic to a version "
            f"that does not run: {len(said['wrong'])}"
        )
        as_undisturbed = as_undisturbed and not said["different"] and not said["wrong"]
    raise SystemExit(0 if as_undisturbed else 1)
