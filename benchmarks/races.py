"""Races of 4 to 8 promoters over one champion, through mlcicd's promotion and through MLflow's alias call alone.

    python benchmarks/races.py                       500 rounds each against SQLite
    python benchmarks/races.py --rounds 50 --server  against an MLflow server on PostgreSQL

A round: a champion of quality 0.5; each promoter has a version of a random quality, measured against that champion, and
promotes its own if it is better than the champion that it sees. All are processes, and start at one signal. A promoter
that is told that the champion has changed measures again, as the message says, and tries again.

The champion at the end is wrong when it is not the best of the versions: somebody's better model was promoted, and a
worse one was put over it. `previous` is wrong when it names the champion, or nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(MLFLOW_LOGGING_LEVEL="CRITICAL", OPENBLAS_NUM_THREADS="1", GIT_PYTHON_REFRESH="quiet")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "fault"))

from fault_server import mlflow_server, postgres

from mlcicd.core.errors import ServiceError
from mlcicd.registry import Registry, promote

ALIASES = {"champion_alias": "champion", "previous_alias": "previous"}
MOST = 8


@dataclass(frozen=True)
class Task:
    """What one promoter of one round has: its version, and how it promotes."""

    name: str
    version: str
    way: str


def quality_of(registry: Registry, name: str, version: str) -> float:
    return float(registry.version(name, version).tags["quality"])


def naively(registry: Registry, name: str, version: str) -> None:
    """What scripts do: look at the champion, compare, and set the alias."""
    champion = registry.version_at(name, "champion")
    assert champion is not None
    if quality_of(registry, name, version) > float(champion.tags["quality"]):
        registry.set_alias(name, "previous", champion.version)
        registry.set_alias(name, "champion", version)


def as_a_transaction(registry: Registry, name: str, version: str) -> None:
    own = quality_of(registry, name, version)
    while True:
        champion = registry.version_at(name, "champion")
        assert champion is not None
        if own <= float(champion.tags["quality"]):
            return
        try:
            promote(registry, name, version, expected_champion=champion.version, reason="better", **ALIASES)
        except ServiceError:
            continue
        return


WAYS = {"alias call": naively, "mlcicd": as_a_transaction}


def promoter(uri: str, tasks: Any, done: Any, start: Any) -> None:
    """One process: takes a task a round, waits for the signal, and promotes."""
    registry = Registry(uri, experiment="races")
    registry.find_models("nothing")
    for task in iter(tasks.get, None):
        start.wait()
        try:
            WAYS[task.way](registry, task.name, task.version)
            done.put("")
        except BaseException as error:
            done.put(repr(error))


class Arena:
    """The promoters, and the rounds that they are put through."""

    def __init__(self, uri: str, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.registry = Registry(uri, experiment="races")
        self.run_id = self.registry.start_run("races", {})
        self.draw = random.Random(seed)
        self.done = context.Queue()
        self.start = context.Event()
        self.tasks = [context.Queue() for _ in range(MOST)]
        self.processes = [
            context.Process(target=promoter, args=(uri, tasks, self.done, self.start), daemon=True)
            for tasks in self.tasks
        ]
        for process in self.processes:
            process.start()

    def round(self, way: str, number: int) -> dict[str, Any]:
        """One race; says whether the champion and `previous` were wrong, and how long it took, in seconds."""
        name = f"{way.replace(' ', '-')}-{number}"
        promoters = self.draw.randint(4, MOST)
        qualities = [0.5, *(round(self.draw.uniform(0.4, 1.0), 6) for _ in range(promoters))]
        for quality in qualities:
            self.registry.create_version(name, self.run_id, {"quality": str(quality)})
        self.registry.set_alias(name, "champion", "1")
        for index in range(promoters):
            self.tasks[index].put(Task(name, str(index + 2), way))
        began = time.monotonic()
        self.start.set()
        errors = [text for text in (self.done.get(timeout=600) for _ in range(promoters)) if text]
        self.start.clear()
        took = time.monotonic() - began
        champion = self.registry.version_at(name, "champion")
        previous = self.registry.version_at(name, "previous")
        assert champion is not None
        best = max(qualities)
        lost = previous is None or previous.version == champion.version
        return {
            "wrong": float(champion.tags["quality"]) != best,
            "lost": lost and best > 0.5,
            "errors": errors,
            "seconds": took,
            "promoters": promoters,
        }

    def end(self) -> None:
        for tasks in self.tasks:
            tasks.put(None)
        for process in self.processes:
            process.join(30)


def tell(seen: dict[str, list[dict[str, Any]]]) -> None:
    for way, rounds in seen.items():
        seconds = sorted(r["seconds"] for r in rounds)
        wrong, lost = sum(r["wrong"] for r in rounds), sum(r["lost"] for r in rounds)
        failed = [error for r in rounds for error in r["errors"]]
        print(
            f"{way:11} wrong champion {wrong:4}   way back lost {lost:4}   promoters that failed {len(failed):3}"
            f"   a round {seconds[len(seconds) // 2]:.2f} s (median), {seconds[-1]:.1f} s (longest)",
            flush=True,
        )
        for error in sorted(set(failed))[:3]:
            print(f"    {error[:200]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--server", action="store_true", help="an MLflow server on PostgreSQL instead of SQLite")
    parser.add_argument("--folder", help="where the registry is kept; a folder in memory takes the disk out of it")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlcicd-races-", dir=options.folder)))
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        if options.server:
            uri = stack.enter_context(mlflow_server(stack.enter_context(postgres()), folder))
        arena = Arena(uri, options.seed)
        # Side by side: a round of each in turn, so that both meet the same load of the machine.
        seen = {way: [] for way in WAYS}
        for number in range(options.rounds):
            for way, rounds in seen.items():
                rounds.append(arena.round(way, number))
            if number % 25 == 24:
                print(f"after {number + 1} rounds", flush=True)
                tell(seen)
        arena.end()
    print(f"{'an MLflow server on PostgreSQL' if options.server else 'SQLite'}, {options.rounds} rounds of 4 to {MOST}")
    tell(seen)
    return 1 if any(r["wrong"] or r["lost"] or r["errors"] for r in seen["mlcicd"]) else 0


if __name__ == "__main__":
    raise SystemExit(main())
