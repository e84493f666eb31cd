"""Where windows come from: one protocol, and a table of the sources by name.

A source is asked for the windows after the last one that was consumed, and answers with those that have closed
since. What it must remember between two processes it gives as JSON, so that a rollout judged by a scheduled job
consumes each window once. A new source is one module and one line in `SOURCES`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mlcicd.core.errors import ConfigError
from mlcicd.rollout.windows import Window


@runtime_checkable
class Source(Protocol):
    """Gives windows. `Window.t` is the window's start, in seconds since 1970."""

    def read(self, since: float | None, until: float) -> list[Window]:
        """The closed windows with `since < t` and an end at or before `until`, oldest first.

        A window in which the share was changed is left out: its counts belong to neither share. A window without
        any request is a window (that is how the judge learns that there is no data); one whose counts could not
        be read is not there.

        Args:
            since: `t` of the last window that was consumed; None: none was. Then the first window begins at
                `restart`, or, if that was never called, now: a source that can look back gives its last closed
                window, one that can not takes its first reading and gives none.
            until: now, in the same clock.

        Raises:
            ServiceError: the counts could not be read.
            InputError: what was read makes no sense.
        """

    def restart(self, now: float) -> None:
        """Tells that the traffic share has just been changed (and `share_at(now)` is the new one): the next window
        begins here, and what was counted before belongs to the share before."""

    def state(self) -> dict[str, Any]:
        """What `restore` needs in another process; JSON, a few kB at most."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where the source that gave this state stopped.

        Raises:
            InputError: it is not such a state.
        """


@dataclass(frozen=True)
class SourceContext:
    """What a source may need to know. Each takes what it uses and refuses to be made without it.

    Args:
        champion, canary: the versions, as the router and the metrics name them.
        window_s: length of a window in seconds.
        share_at: the part of the traffic (0 to 1) the canary was meant to get at a time. A window is left out when
            this differs between its two ends.
        counters: the router's counters by version, for `router` (the `counters` of a deployment target).
        windows: the file, for `file`.
        settings: the source's own configuration as plain data: for `prometheus`, the fields of `canary.prometheus`
            with durations in seconds (`timeout_s`, `settle_s`, `fresh_s`).
        environ: where references to secrets are looked up.
    """

    champion: str
    canary: str
    window_s: float
    share_at: Callable[[float], float]
    counters: Callable[[], Mapping[str, Any]] | None = None
    windows: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def __post_init__(self) -> None:
        if not self.window_s > 0:
            raise ConfigError(f"a window must last longer than {self.window_s} s", where="canary.window")


# Name -> module and function `(SourceContext) -> Source`; imported when asked for.
SOURCES: dict[str, str] = {
    "router": "mlcicd.rollout.sources.router:make",
    "prometheus": "mlcicd.rollout.sources.prometheus:make",
    "file": "mlcicd.rollout.sources.file:make",
}


def make_source(name: str, context: SourceContext) -> Source:
    """The source of that name.

    Raises:
        ConfigError: there is none, or the context lacks what it needs.
    """
    place = SOURCES.get(name)
    if place is None:
        raise ConfigError(
            f"there is no metric source named {name!r}",
            where="canary.source",
            remedy=f"choose one of {', '.join(sorted(SOURCES))}",
        )
    module, function = place.split(":")
    source: Source = getattr(import_module(module), function)(context)
    return source
