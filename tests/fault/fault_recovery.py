"""How long the next command takes when the holder of the lock was killed with SIGKILL. A program of its own:

    python fault_recovery.py [--rounds N] [--lease SECONDS]

A promoter is stopped right before, or right after, it moves the champion, and killed there; then the same promotion is
run again, with the default lease when no other is given. It prints how many seconds that took. Most of it is the lease:
nothing but its running out says that a holder on another machine is dead.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlcicd.registry import Registry, promote
from mlcicd.registry.journal import entries
from mlcicd.registry.tracking import DEFAULT_LEASE_S

NAME = "m"
PLACES = ("before the switch", "after the switch")


class Stopped(Registry):
    """A registry in which the champion's switch never comes back."""

    place = PLACES[0]

    def set_alias(self, name: str, alias: str, version: str) -> None:
        if alias == "champion" and version == "2":
            if self.place == PLACES[1]:
                super().set_alias(name, alias, version)
            print("here", flush=True)
            time.sleep(3600)
        super().set_alias(name, alias, version)


def move(registry: Registry, version: str) -> None:
    promote(
        registry,
        NAME,
        version,
        champion_alias="champion",
        previous_alias="previous",
        expected_champion=None,
        reason="recovery",
    )


def die(uri: str, place: str, lease_s: float) -> None:
    """A promotion in a process of its own, killed at the place."""
    command = [sys.executable, __file__, "--uri", uri, "--place", place, "--lease", str(lease_s)]
    promoter = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert promoter.stdout is not None
    with promoter.stdout as said:
        for line in said:
            if line == "here\n":
                break
        promoter.kill()
    promoter.wait()


def recovered_in(place: str, lease_s: float) -> tuple[float, float]:
    """Seconds until the next command has promoted, where one was killed, and how many of them its processor worked."""
    with tempfile.TemporaryDirectory(prefix="mlcicd-recovery-") as folder:
        uri = f"sqlite:///{Path(folder) / 'mlflow.db'}"
        registry = Registry(uri, experiment="recovery", lease_s=lease_s)
        run_id = registry.start_run("recovery", {})
        for number in ("1", "2"):
            registry.create_version(NAME, run_id, {"mlcicd.content": number})
        move(registry, "1")
        die(uri, place, lease_s)
        started, worked = time.monotonic(), time.process_time()
        move(registry, "2")
        took, worked = time.monotonic() - started, time.process_time() - worked
        model = registry.model(NAME)
        assert model is not None
        assert dict(model.aliases) == {"champion": "2", "previous": "1"}, model.aliases
        assert all(entry.outcome for entry in entries(model.tags)), "an intent is open"
    return took, worked


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lease", type=float, default=DEFAULT_LEASE_S)
    parser.add_argument("--uri", default="", help="be the promoter that is killed")
    parser.add_argument("--place", default=PLACES[0], choices=PLACES)
    options = parser.parse_args()
    if options.uri:
        stopped = Stopped(options.uri, experiment="recovery", lease_s=options.lease)
        stopped.place = options.place
        move(stopped, "2")
        return 1
    for place in PLACES:
        took = [recovered_in(place, options.lease) for _ in range(options.rounds)]
        shown = ", ".join(f"{seconds:.1f} s ({worked:.1f} s of CPU)" for seconds, worked in took)
        print(f"killed {place}: recovered in {shown}, with a lease of {options.lease:g} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
