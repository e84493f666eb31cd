"""What a deployment target is.

A target holds at most one *live* version, one *canary* beside it and one *previous* version kept warm.
Every method writes the desired state first and then moves reality towards it, so each may be repeated, and
any of them ends right after a crash in another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mlcicd.core.errors import ConfigError, ServiceError

ENTRY_POINT_GROUP = "mlcicd.targets"
# Known without their metadata, so that a source checkout works as an installed package does.
_BUILT_IN = {
    "kubernetes": "mlcicd.targets.kubernetes:KubernetesTarget",
    "local": "mlcicd.targets.local:LocalTarget",
}


@dataclass(frozen=True)
class ModelVersion:
    """One version of one registered model, as bytes on disk and the interpreter that can load them.

    Attributes:
        name: the registered model's name.
        version: its version, unique within the name.
        path: the MLflow model directory.
        digest: :func:`mlcicd.core.digests.digest_tree` of `path`; the target refuses other bytes. Empty:
            not compared.
        python: the interpreter of the model's environment.
        peak_memory_mb: the most memory it took when it was evaluated, in megabytes; None: not measured.
    """

    name: str
    version: str
    path: Path
    digest: str
    python: str
    peak_memory_mb: float | None = None


@dataclass(frozen=True)
class Counters:
    """What the router counted for one version since `epoch` began.

    Subtract two of them only if their `epoch` is the same: a restarted router counts from nothing.

    Attributes:
        requests: requests answered, retried attempts not counted twice.
        errors_4xx: those answered with a 4xx status.
        errors_5xx: those answered with a 5xx status, timeouts and dead servers included.
        edges_ms: upper edges of the latency buckets in milliseconds, the last one infinite.
        counts: answers per bucket (not cumulative), as long as `edges_ms`.
        sum_ms: the sum of all latencies.
    """

    requests: int
    errors_4xx: int
    errors_5xx: int
    edges_ms: tuple[float, ...]
    counts: tuple[int, ...]
    sum_ms: float
    epoch: str


@dataclass(frozen=True)
class ProcessStatus:
    """A process the target wants to run: `role` is `server` or `router`; `version` is empty for the
    router."""

    role: str
    version: str
    pid: int | None
    port: int | None
    alive: bool
    ready: bool


@dataclass(frozen=True)
class TargetStatus:
    """What a target was asked for, and what of it runs. `notices`: what the configuration asks for that is not in
    force, and what to do about it."""

    environment: str
    url: str
    live: str | None
    canary: str | None
    previous: str | None
    share: float
    processes: tuple[ProcessStatus, ...] = field(default_factory=tuple)
    notices: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether every wanted process answers. False when nothing is wanted."""
        return bool(self.processes) and all(process.alive and process.ready for process in self.processes)


@runtime_checkable
class Target(Protocol):
    """A place model versions run in. Each method may be called again with the same arguments and changes
    nothing then.

    A class whose servers are ours has the attribute `takes_server_options = True`: it is given the arguments
    `token_env` and `inference_log`. Without it, a configuration that asks for one of them is refused.
    """

    def deploy(self, version: ModelVersion) -> str:
        """Starts a version beside the live one, without traffic, and waits until it is ready.

        Returns:
            The URL of that very version, for smoke tests.

        Raises:
            CommandFailed: the model can not be loaded.
            ServiceError: anything else; a different canary that has traffic.
        """

    def set_share(self, version: str, share: float) -> None:
        """Sends `share` (0 to 1) of the traffic to the canary `version`, the rest to the live one."""

    def promote(self, version: str) -> None:
        """Makes a deployed version live; the old live one becomes previous and stays warm."""

    def rollback(self) -> str:
        """Makes the previous version live again, takes out any canary, and returns the live version."""

    def abort(self) -> None:
        """Takes the canary out of the traffic, then stops it."""

    def reconcile(self) -> None:
        """Moves reality to the desired state: restarts what died, stops what should not run."""

    def status(self) -> TargetStatus:
        """The desired state and what of it runs. Changes nothing."""

    def counters(self) -> Mapping[str, Counters]:
        """Traffic counters by version."""

    def stop(self) -> None:
        """Takes everything down and forgets the versions."""


@runtime_checkable
class Attended(Protocol):
    """A target that brings the traffic back by itself when nobody has looked after a canary for too long."""

    def attend(self, seconds: float) -> None:
        """Somebody is looking. If nobody says so again within `seconds`, the live version gets all traffic, by
        something that runs where the router does and needs no job of anybody's."""


@runtime_checkable
class Mirroring(Protocol):
    """A target whose router can copy requests to the canary, whose answers to them nobody sees."""

    def set_mirror(self, version: str, fraction: float) -> None:
        """Copies `fraction` (0 to 1) of the requests to the canary `version` as well; 0 ends it.

        Raises:
            ConfigError: the fraction is not a number from 0 to 1.
            ServiceError: the version is not deployed as a canary, nothing is live, or the canary has traffic.
        """

    def mirror_counters(self) -> Mapping[str, Counters]:
        """What was counted of the copies, by version; empty where nothing was ever mirrored. They are not in
        :meth:`Target.counters`."""


@runtime_checkable
class Reloading(Protocol):
    """A target that can give servers which run already what the configuration has come to ask of them."""

    def reload(self) -> None:
        """Starts servers of all versions with today's settings, sends the traffic to them, then ends the old ones.

        Raises:
            CommandFailed, ServiceError: they do not start; the old ones go on serving.
        """


@runtime_checkable
class Planning(Protocol):
    """A target that can tell beforehand what a deployment will change."""

    def plan(self, version: ModelVersion) -> list[str]:
        """The changes of :meth:`Target.deploy` as lines of a diff; empty when there are none. Changes nothing, and
        does not need the version's bytes."""


def checked_share(share: float) -> float:
    """The share, if it is a finite number from 0 to 1.

    Raises:
        ConfigError: it is not.
    """
    if not math.isfinite(share) or not 0.0 <= share <= 1.0:
        raise ConfigError(f"a traffic share must lie between 0 and 1, not {share}")
    return float(share)


def way_back(live: str | None, previous: str | None, *, rolled_back: bool, environment: str) -> str:
    """The version that a rollback makes live: the previous one, or the live one where it was done already.

    Args:
        rolled_back: whether the live version is live by a rollback, which a repeated one must not undo.

    Raises:
        ServiceError: there is no previous version.
    """
    if previous is not None:
        return previous
    if rolled_back and live is not None:
        return live
    raise ServiceError(
        "there is no previous version to go back to",
        where=environment,
        remedy="deploy and promote the version you want from the registry",
    )


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def target_names() -> list[str]:
    """The names of the targets that are installed."""
    return sorted({*_BUILT_IN, *_entry_points()})


def load_target(name: str) -> type[Any]:
    """The class of a target.

    Raises:
        ConfigError: there is no target of that name.
        ServiceError: its plug-in can not be imported.
    """
    point = _entry_points().get(name)
    if point is None and name in _BUILT_IN:
        point = EntryPoint(name, _BUILT_IN[name], ENTRY_POINT_GROUP)
    if point is None:
        raise ConfigError(
            f"there is no deployment target named {name!r}",
            why=f"Known targets: {', '.join(target_names())}.",
            remedy="correct the name, or install the package that brings it",
        )
    try:
        loaded: type[Any] = point.load()
    except (ImportError, AttributeError) as error:
        raise ServiceError(
            f"the target {name!r} can not be loaded",
            where=point.value,
            why=str(error),
            remedy="reinstall its package",
        ) from error
    return loaded
