"""The router's own counters: one window a reading, since counters can not be asked about the past."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.rollout.sources.base import SourceContext
from mlcicd.rollout.windows import Arm, Histogram, Window


class Counted(Protocol):
    """What a router counted for one version since it began to count (`epoch` names that beginning)."""

    @property
    def requests(self) -> int: ...
    @property
    def errors_5xx(self) -> int: ...
    @property
    def edges_ms(self) -> Sequence[float]: ...
    @property
    def counts(self) -> Sequence[int]: ...
    @property
    def epoch(self) -> str: ...


@dataclass(frozen=True)
class _Reading:
    requests: int
    errors: int
    edges_ms: tuple[float, ...]
    counts: tuple[int, ...]
    epoch: str

    @classmethod
    def of(cls, counted: Counted) -> _Reading:
        return cls(
            int(counted.requests),
            int(counted.errors_5xx),
            tuple(float(edge) for edge in counted.edges_ms),
            tuple(int(count) for count in counted.counts),
            str(counted.epoch),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "errors": self.errors,
            "edges_ms": [edge if math.isfinite(edge) else None for edge in self.edges_ms],
            "counts": list(self.counts),
            "epoch": self.epoch,
        }

    @classmethod
    def from_json(cls, value: Any) -> _Reading:
        try:
            return cls(
                int(value["requests"]),
                int(value["errors"]),
                tuple(math.inf if edge is None else float(edge) for edge in value["edges_ms"]),
                tuple(int(count) for count in value["counts"]),
                str(value["epoch"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError("the router's last reading is damaged", why=repr(error)) from error


class RouterSource:
    """Differences between readings of a router's counters.

    Each reading closes a window that began at the one before: it lasts at least `window_s`, and as long as nobody
    looked. When the router has been restarted meanwhile, what it counted since then is the window.
    """

    def __init__(
        self,
        counters: Callable[[], Mapping[str, Counted]],
        champion: str,
        canary: str,
        window_s: float,
        share_at: Callable[[float], float],
    ) -> None:
        self._counters = counters
        self._versions = (champion, canary)
        self._window_s = window_s
        self._share_at = share_at
        self._t: float | None = None
        self._readings: dict[str, _Reading] = {}

    def read(self, since: float | None, until: float) -> list[Window]:
        """At most one window: from the last reading to now, when that is at least a window's length."""
        # A job that is started on a clock's ticks meets its own jitter: half a percent less is a window too.
        if self._t is not None and until - self._t < 0.995 * self._window_s:
            return []
        start, before = self._t, self._readings
        self._take(until)
        if start is None or (since is not None and start <= since):
            return []
        share = self._share_at(start)
        if share != self._share_at(until):
            return []
        champion, canary = (_arm(before.get(v), self._readings.get(v)) for v in self._versions)
        return [Window(t=start, champion=champion, canary=canary, share=share)]

    def restart(self, now: float) -> None:
        self._take(now)

    def state(self) -> dict[str, Any]:
        return {"t": self._t, "readings": {v: reading.to_json() for v, reading in self._readings.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        if not state:
            return
        t, readings = state.get("t"), state.get("readings")
        if not (t is None or isinstance(t, int | float)) or not isinstance(readings, Mapping):
            raise InputError("the router's last reading is damaged")
        self._t = None if t is None else float(t)
        self._readings = {str(version): _Reading.from_json(value) for version, value in readings.items()}

    def _take(self, now: float) -> None:
        counted = self._counters()
        self._readings = {v: _Reading.of(counted[v]) for v in self._versions if v in counted}
        self._t = now


def _arm(before: _Reading | None, after: _Reading | None) -> Arm:
    if after is None:
        return Arm(0)
    if before is None or before.epoch != after.epoch or before.edges_ms != after.edges_ms:
        before = _Reading(0, 0, after.edges_ms, (0,) * len(after.counts), after.epoch)
    requests = max(0, after.requests - before.requests)
    errors = min(requests, max(0, after.errors - before.errors))
    counts = tuple(max(0, new - old) for old, new in zip(before.counts, after.counts, strict=True))
    edges = tuple(edge for edge in after.edges_ms if math.isfinite(edge))
    return Arm(requests, errors, latency_ms=Histogram(edges, counts))


def make(context: SourceContext) -> RouterSource:
    """The source named `router`.

    Raises:
        ConfigError: the deployment target counts nothing.
    """
    if context.counters is None:
        raise ConfigError(
            "this deployment target has no counters",
            where="canary.source",
            remedy="take the windows from another source, such as prometheus",
        )
    return RouterSource(context.counters, context.champion, context.canary, context.window_s, context.share_at)
