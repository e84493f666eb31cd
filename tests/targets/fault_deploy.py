"""Kills what serves and who deploys, under live load on loopback, and counts what that costs.

    python tests/targets/fault_deploy.py             every point of a deployment: `make fault-deploy`
    python tests/targets/fault_deploy.py --every 12  every twelfth: the part that `make test` runs

Three parts: switches and weights under load; kill -9 of servers, router and supervisor, each brought back by the
supervisor; kill -9 of the deploying process at every file it writes, renames or removes, every process it starts or
signals, and between, each followed by the next command. Prints one line a part, and ends with 1 when a bar is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from mlcicd.serving.replay import NO_ANSWER, ReplayResult, replay
from mlcicd.targets import processes
from mlcicd.targets.base import ModelVersion
from mlcicd.targets.local import LocalTarget

BODY = json.dumps({"dataframe_records": [{"x": 1.0}]}).encode()
MAKE_MODELS = Path(__file__).parent.parent / "serving" / "make_models.py"
_EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.posix_spawn", "os.kill", "shutil.rmtree", "shutil.copytree")
_CONNECTIONS = 4
_HEALED_WITHIN_S = 60.0


@dataclass
class Count:
    """What a part has cost. `broken` names what may not be."""

    requests: int = 0
    failed: int = 0
    heal_s: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def take(self, result: ReplayResult) -> None:
        self.requests += result.sent
        self.failed += result.sent - result.ok

    def require(self, holds: bool, what: str) -> None:
        if not holds:
            self.broken.append(what)


class World:
    """One local target with two replicas, version 1 live, and models to deploy beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        (folder / "models").mkdir()
        subprocess.run([sys.executable, str(MAKE_MODELS), str(folder / "models")], check=True, capture_output=True)
        self.target = self.of(supervise=False)
        self.target.deploy(self.version("1"))
        self.target.promote("1")
        self.url = self.target.status().url

    def of(self, *, supervise: bool) -> LocalTarget:
        return LocalTarget("staging", self.state, replicas=2, supervise=supervise)

    def version(self, number: str) -> ModelVersion:
        return ModelVersion("toy", number, self.folder / "models" / f"scripted-{number}", "", sys.executable)

    @contextmanager
    def load(self, rate: float = 100.0) -> Iterator[list[ReplayResult]]:
        """Requests from four connections while the block runs; the result is there when it has ended."""
        stop, results = threading.Event(), []

        def send() -> None:
            asked = {"rate_per_s": rate, "duration_s": 300, "concurrency": _CONNECTIONS, "stop": stop}
            results.append(replay(self.url, [BODY], **asked))

        thread = threading.Thread(target=send)
        thread.start()
        try:
            time.sleep(0.3)
            yield results
        finally:
            stop.set()
            thread.join()

    def healthy(self) -> bool:
        return self.target.status().healthy and replay(self.url, [BODY], rate_per_s=50, count=1).ok == 1

    def until_healthy(self) -> float:
        """Seconds until all runs and answers; infinite when it does not come about."""
        began = time.monotonic()
        while not self.healthy():
            if time.monotonic() - began > _HEALED_WITHIN_S:
                return float("inf")
            time.sleep(0.02)
        return time.monotonic() - began

    def strangers(self) -> set[int]:
        """Processes of this target that it does not want."""
        wanted = {process.pid for process in self.target.status().processes}
        return {process.pid for process in processes.with_argument(self.state / "run")} - wanted


def switches(world: World, changes: int, full: int) -> Count:
    """Weight changes and full switches while requests come: none may be lost."""
    count, target = Count(), world.target
    target.deploy(world.version("2"))
    with world.load(200.0) as results:
        for number in range(changes):
            target.set_share("2", (number % 10) / 10)
        target.set_share("2", 0.0)
        for number in range(full):
            target.promote("2" if number % 2 == 0 else "1")
    count.take(results[0])
    count.require(count.failed == 0, f"{count.failed} requests were lost: {dict(results[0].failures)}")
    count.require(target.status().live == ("1" if full % 2 == 0 else "2"), "another version is live")
    if target.status().live == "2":
        target.promote("1")
    target.abort()
    return count


def rollback_times(world: World, rounds: int) -> Count:
    """How long a rollback to a warm version takes until every answer is the old version's."""
    count, target = Count(), world.target
    target.deploy(world.version("2"))
    for _ in range(rounds):
        target.promote("2")
        began = time.monotonic()
        target.rollback()
        answers = replay(world.url, [BODY], rate_per_s=500, count=20)
        count.heal_s.append(time.monotonic() - began)
        count.take(answers)
        count.require(set(answers.by_version()) == {"1"}, f"answered by {answers.by_version()}")
        target.deploy(world.version("2"))
    target.abort()
    return count


def deaths(world: World, role: str, rounds: int) -> Count:
    """kill -9 of one process while requests come; the supervisor brings it back."""
    count = Count()
    world.of(supervise=True).reconcile()
    marker = world.state / "run" / "supervisor.json"
    for number in range(rounds):
        with world.load() as results:
            if role == "supervisor":
                (victim,) = (p.pid for p, path in processes.with_argument(marker.parent).items() if path == marker)
            else:
                alive = [p.pid for p in world.target.status().processes if p.role == role and p.alive and p.pid]
                if not alive:
                    raise SystemExit(f"no {role} is left to kill:{_line(role, count)}")
                victim = alive[number % len(alive)]
            os.kill(victim, signal.SIGKILL)
            if role == "supervisor":
                # Nobody supervises it: the next command starts another.
                world.of(supervise=True).reconcile()
            healed = world.until_healthy()
        (result,) = results
        count.take(result)
        count.heal_s.append(healed)
        count.require(healed < float("inf"), f"round {number + 1}: not healed")
        count.require(set(result.by_version()) <= {"1", ""}, f"answered by {result.by_version()}")
        refused = sum(n for (status, _), n in result.answers.items() if status not in (200, NO_ANSWER))
        count.require(refused == 0, f"round {number + 1}: {refused} answers were errors")
        # What was in flight on the dead process may be lost; nobody can answer while there is no router.
        bar = {"server": _CONNECTIONS, "router": result.sent, "supervisor": 0}[role]
        lost = result.sent - result.ok
        count.require(lost <= bar, f"round {number + 1}: {lost} lost: {dict(result.failures)}")
    world.target.reconcile()
    return count


def deployers(world: World, every: int) -> Count:
    """kill -9 of the deploying process at each of its points, then the next command."""
    count = Count()
    points = _deploying(world, 0)
    world.target.rollback()
    for at in range(1, points + 1, every):
        with world.load() as results:
            _deploying(world, at)
            desired = json.loads((world.state / "desired.json").read_text())
            began = time.monotonic()
            world.target.reconcile()
            count.heal_s.append(time.monotonic() - began)
        count.take(results[0])
        status, seen = world.target.status(), set(results[0].by_version())
        where = f"point {at} of {points}"
        count.require(results[0].ok == results[0].sent, f"{where}: lost {dict(results[0].failures)}")
        count.require(status.healthy, f"{where}: not healthy")
        count.require(status.live == desired["live"], f"{where}: {status.live} is live, {desired['live']} was wanted")
        if desired["live"] == "1" and not desired["share"]:
            count.require(seen == {"1"}, f"{where}: answered by {seen}")
        after = replay(world.url, [BODY], rate_per_s=500, count=10).by_version()
        if not status.share:
            count.require(after == {status.live: 10}, f"{where}: answered by {after} afterwards")
        count.require(not world.strangers(), f"{where}: processes were left over")
        if status.live == "2":
            world.target.rollback()
        world.target.abort()
        count.require(not world.strangers(), f"{where}: processes were left over after abort")
    return count


def _deploying(world: World, at: int) -> int:
    """A process that deploys, gives a share, and promotes; it kills itself at point `at`. The points it met."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        met, ending = 0, os.getpid()

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal met
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if (writes or event in _EVENTS) and os.getpid() == ending:
                met += 1
                if met == at:
                    os.kill(ending, signal.SIGKILL)

        code = 70
        try:
            sys.addaudithook(hook)
            target = world.of(supervise=False)
            target.deploy(world.version("2"))
            target.set_share("2", 0.2)
            target.promote("2")
            os.write(writing, str(met).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit("the deploying process met a defect (see above)")
    return int(said or 0)


def main() -> int:
    """Runs all parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="of the points of a deployment, every N-th only")
    parser.add_argument("--rounds", type=int, default=10, help="of each kill")
    asked = parser.parse_args()
    few = asked.rounds
    broken = 0
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        parts: list[tuple[str, Callable[[], Count]]] = [
            (f"{5 * few} weight changes, {2 * few} switches", lambda: switches(world, 5 * few, 2 * few)),
            (f"{few} rollbacks to a warm version", lambda: rollback_times(world, few)),
            *((f"kill -9 of a {role}, {few} times", lambda r=role: deaths(world, r, few)) for role in _ROLES),
            ("kill -9 of the deployer", lambda: deployers(world, asked.every)),
        ]
        try:
            for name, part in parts:
                count = part()
                broken += len(count.broken)
                print(_line(name, count), flush=True)
        finally:
            world.target.stop()
        left = processes.with_argument(world.state / "run")
        print(f"left running: {len(left)}; broken: {broken}")
    return 1 if broken or left else 0


_ROLES = ("server", "router", "supervisor")


def _line(name: str, count: Count) -> str:
    times = count.heal_s
    took = f"; {len(times)} times {median(times):.2f} s (longest {max(times):.2f} s)" if times else ""
    said = "".join(f"\n    BROKEN: {what}" for what in count.broken)
    return f"{name}: {count.requests} requests, {count.failed} lost{took}{said}"


if __name__ == "__main__":
    sys.exit(main())
