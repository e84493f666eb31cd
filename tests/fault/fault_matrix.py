"""Registers, promotes, rolls back and recovers with a fault at every point, and says which invariant broke.

    python tests/fault/fault_matrix.py              against SQLite, and an MLflow server on PostgreSQL: `make fault`
    python tests/fault/fault_matrix.py --every 7    every seventh point only
    python tests/fault/fault_matrix.py --reduced    the part that `make test` runs

A case is an operation with a kind of fault; an injection is one run of it with the fault at one point, followed by the
same command once more without a fault. The points are found by tracing (fault_trace.py).
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.update(
    OPENBLAS_NUM_THREADS="1",
    OMP_NUM_THREADS="1",
    MLFLOW_LOGGING_LEVEL="CRITICAL",
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
    MLFLOW_HTTP_REQUEST_MAX_RETRIES="1",
    MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR="0",
    MLFLOW_HTTP_REQUEST_BACKOFF_JITTER="0",
    GIT_PYTHON_REFRESH="quiet",
)
sys.path.insert(0, str(Path(__file__).parent))

from fault_proxy import LATE_S, MODES
from fault_server import free_port, mlflow_server, postgres
from fault_trace import Child, Points
from fault_world import LEASE_S, Database, World

Operation = Callable[[World, str, str], dict[str, Any]]
OPERATIONS: dict[str, Operation] = {
    "register": lambda world, name, uri: world.register(name, uri),
    "promote": lambda world, name, uri: world.promote(name, "3", uri),
    "rollback": lambda world, name, uri: world.rollback(name, uri),
}
# Champion, previous, number of versions and challenger when all is done.
FINAL: dict[str, dict[str, Any]] = {
    "register": {"champion": "2", "previous": "1", "versions": 5, "challenger": "5"},
    "promote": {"champion": "3", "previous": "2", "versions": 4, "challenger": "4"},
    "rollback": {"champion": "1", "previous": "2", "versions": 4, "challenger": "4"},
}


class Matrix:
    """Runs cases against one world, and counts."""

    def __init__(self, world: World, store: str, every: int, proxy: str = "") -> None:
        self.world, self.store, self.proxy = world, store, proxy
        # A statement of SQL is a point several times over, a request to a server three times.
        self.every, self.idle_every = every, max(1, every // 6)
        self.injections: Counter[str] = Counter()
        self.recovery_s: list[float] = []
        self._told = 0

    def run(self) -> None:
        for operation in OPERATIONS:
            self.kill(operation)
            self._so_far()
        self.kill_recovery()
        self._so_far()
        for rival in ("promote", "rollback"):
            self.stale_holder(rival)
            self._so_far()
        for operation in OPERATIONS if self.proxy else ():
            self.faulty_network(operation, MODES)
            self._so_far()

    def run_reduced(self) -> None:
        """A part that takes under a minute, for `make test`."""
        if self.proxy:
            self.faulty_network("promote", MODES)
            return
        for operation in OPERATIONS:
            self.kill(operation)
        self.stale_holder("promote")

    def run_network(self) -> None:
        """The faults of the network alone, in each operation."""
        for operation in OPERATIONS:
            self.faulty_network(operation, MODES)
            self._so_far()

    def _so_far(self) -> None:
        done, broken = self.injections.total(), self.world.broken
        for line in broken[self._told :]:
            print(f"BROKEN {line}", file=sys.stderr)
        self._told = len(broken)
        print(f"{self.store}: {done} injections, {len(broken)} broken", file=sys.stderr, flush=True)

    def kill(self, operation: str) -> None:
        """Dies at each point; the same command again ends as it would have."""
        case = f"{self.store}: killed in {operation}"
        for at in self._points(operation):
            name = self._fresh(operation)
            if Child(lambda: self._do(operation, name), Points(at)).end().said is not None:  # noqa: B023
                continue
            self.injections[case] += 1
            where = f"{case} at {at}"
            self.world.safe(name, where, ("2", FINAL[operation]["champion"]))
            self._again(operation, name, where)

    def kill_recovery(self) -> None:
        """Dies in a promotion, and again in the recovery."""
        case = f"{self.store}: killed in recover"
        total = self._count("promote")
        for first in (total * 2 // 5, total * 3 // 5, total * 4 // 5, total - 6):
            for at in range(1, 400, self.every):
                name = self._fresh("promote")
                Child(lambda: self._do("promote", name), Points(first)).end()  # noqa: B023
                if Child(lambda: self.world.recover(name), Points(at)).end().said is not None:  # noqa: B023
                    break
                self.injections[case] += 1
                where = f"{case} at {first}, {at}"
                self.world.safe(name, where, ("2", "3"))
                self._again("promote", name, where)

    def stale_holder(self, rival: str) -> None:
        """Stops at each point for longer than the lease, while another moves the champion; then goes on."""
        case = f"{self.store}: a stale promoter wakes after a rival's {rival}"
        for at in self._points("promote", idle=True):
            name = self._fresh("promote")
            stale = Child(lambda: self._do("promote", name), Points(at, signal.SIGSTOP, idle=True))  # noqa: B023
            if not stale.stopped():
                stale.end()
                continue
            self.injections[case] += 1
            where = f"{case} at {at}"
            second = (lambda: self.world.promote(name, "4")) if rival == "promote" else lambda: self._do(rival, name)  # noqa: B023
            won = Child(second).end().said
            stale.go_on()
            lost = stale.end().said
            assert won is not None
            assert lost is not None
            for said in (won, lost):
                self.world.told(said, where)
            Child(lambda: self.world.recover(name)).end()  # noqa: B023
            seen = self.world.safe(name, where, ("1", "2", "3", "4"))
            self.world.must(not seen.open_intents(), where, "I3: an intent is open")
            if rival == "promote":
                self._one_of_two(name, where, won, lost)
            elif won["ok"]:
                # Whatever was promoted before it, the rollback is the last word: champion and previous are not one.
                self.world.must(seen.champion in ("1", "2", "3"), where, f"I4: the champion is {seen.champion}")
                self.world.must(seen.champion != seen.previous, where, "I2: nothing to go back to")
                self.world.must(not (lost["ok"] and seen.champion == "1"), where, "I4: the promotion was lost")

    def _one_of_two(self, name: str, where: str, won: dict[str, Any], lost: dict[str, Any]) -> None:
        """Both have measured against version 2: one of them, and only one, may be told that it has promoted."""
        seen = self.world.look(name)
        acknowledged = [version for said, version in ((won, "4"), (lost, "3")) if said["ok"]]
        self.world.must(len(acknowledged) <= 1, where, "I4: both were told that they had promoted")
        for version in acknowledged:
            self.world.must(seen.champion == version, where, f"I4: the promotion of {version} was lost")
        self.world.must(seen.champion in ("2", "3", "4"), where, f"I1: the champion is {seen.champion}")
        behind = "1" if seen.champion == "2" else "2"
        self.world.must(seen.previous == behind, where, f"I2: previous is {seen.previous}, not {behind}")

    def faulty_network(self, operation: str, modes: Sequence[str]) -> None:
        """One request meets a fault; what is told is true, and the same command again ends as it would have."""
        requests = self._requests(operation)
        for mode in modes:
            case = f"{self.store}: {mode} in {operation}"
            # Each mode begins elsewhere, so that few injections meet many requests.
            for at in range(1 + MODES.index(mode) * 4 % self.every, requests + 1, self.every):
                name = self._fresh(operation, self.proxy)
                self._fault(mode, at)
                said = Child(lambda: self._do(operation, name, self.proxy)).end().said  # noqa: B023
                self._fault("", 0)
                assert said is not None
                self.injections[case] += 1
                where = f"{case} at {at}"
                self.world.told(said, where)
                self.world.safe(name, where, ("2", FINAL[operation]["champion"]))
                if mode == "late":
                    time.sleep(LATE_S)
                self._again(operation, name, where, self.proxy)

    # --- inside

    def _again(self, operation: str, name: str, where: str, uri: str = "") -> None:
        started = time.monotonic()
        said = Child(lambda: self._do(operation, name, uri)).end().said
        self.recovery_s.append(time.monotonic() - started)
        assert said is not None
        self.world.must(said["ok"], where, f"I3: run again it said {said['what']}")
        self.world.settled(name, where, **FINAL[operation])

    def _do(self, operation: str, name: str, uri: str = "") -> dict[str, Any]:
        return OPERATIONS[operation](self.world, name, uri)

    def _fresh(self, operation: str, uri: str = "") -> str:
        name = self.world.fresh()
        if operation == "register":
            self.world.prepare(name, uri)
        return name

    def _points(self, operation: str, *, idle: bool = False) -> range:
        return range(1, self._count(operation, idle=idle) + 1, self.idle_every if idle else self.every)

    def _count(self, operation: str, *, idle: bool = False) -> int:
        name = self._fresh(operation)
        ended = Child(lambda: self._do(operation, name), Points(idle=idle)).end()
        self.world.must(
            bool(ended.said and ended.said["ok"]), f"{self.store}: {operation}", f"undisturbed: {ended.said}"
        )
        self.world.settled(name, f"{self.store}: {operation} undisturbed", **FINAL[operation])
        return ended.points

    def _requests(self, operation: str) -> int:
        self._fault("", 0)
        name = self._fresh(operation, self.proxy)
        Child(lambda: self._do(operation, name, self.proxy)).end()
        return self._fault("", 0)

    def _fault(self, mode: str, at: int) -> int:
        with urllib.request.urlopen(f"{self.proxy}/__fault__/{mode}/{at}", timeout=30) as answer:
            return int(answer.read())


@contextmanager
def sqlite_world(folder: Path) -> Iterator[World]:
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    yield _ready(World(uri, Database(uri), folder))


@contextmanager
def postgres_world(folder: Path) -> Iterator[tuple[World, str]]:
    """The world, and the URL of a faulty proxy before its server."""
    with postgres() as store, mlflow_server(store, folder) as url:
        port = free_port()
        program = str(Path(__file__).parent / "fault_proxy.py")
        proxy = subprocess.Popen([sys.executable, program, url.rpartition(":")[2], str(port)])
        try:
            yield _ready(World(url, Database(store), folder)), f"http://127.0.0.1:{port}"
        finally:
            proxy.terminate()
            proxy.wait()


def _ready(world: World) -> World:
    # Loaded once here, so that the children need not; this process itself never connects.
    import mlflow
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    import mlcicd.stages.register  # noqa: F401

    made = Child(world.make_template).end().said
    assert made is not None
    world.run_id, world.digest = made["run_id"], made["digest"]
    return world


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="take every N-th point only")
    parser.add_argument("--store", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--reduced", action="store_true", help="the part that `make test` runs")
    parser.add_argument("--network", action="store_true", help="the faults of the network alone, before a server")
    options = parser.parse_args()
    if options.network:
        options.store = "postgres"
    every, store = options.every, options.store
    started = time.monotonic()
    matrices: list[Matrix] = []
    with tempfile.TemporaryDirectory(prefix="mlcicd-fault-") as temporary:
        if store != "postgres":
            (Path(temporary) / "sqlite").mkdir()
            with sqlite_world(Path(temporary) / "sqlite") as world:
                matrices.append(Matrix(world, "SQLite", 97 if options.reduced else every))
                matrices[-1].run_reduced() if options.reduced else matrices[-1].run()
        if store != "sqlite":
            (Path(temporary) / "server").mkdir()
            with postgres_world(Path(temporary) / "server") as (world, proxy):
                matrices.append(Matrix(world, "MLflow server on PostgreSQL", 37 if options.reduced else every, proxy))
                chosen = "run_reduced" if options.reduced else "run_network" if options.network else "run"
                getattr(matrices[-1], chosen)()
    return report(matrices, time.monotonic() - started)


def report(matrices: list[Matrix], took_s: float) -> int:
    broken = [line for matrix in matrices for line in matrix.world.broken]
    injections = sum((matrix.injections for matrix in matrices), Counter[str]())
    for case, count in injections.items():
        print(f"{count:5}  {case}")
    slowest = max(seconds for matrix in matrices for seconds in matrix.recovery_s)
    for line in broken[:50]:
        print(f"BROKEN {line}")
    print(
        f"{len(injections)} cases, {injections.total()} injections, {len(broken)} invariants broken; slowest recovery "
        f"{slowest:.1f} s with a lease of {LEASE_S:g} s; {took_s / 60:.1f} minutes"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
