"""Shadow: the challenger answers copies of live requests before any user sees an answer of its.

The same judge compares its errors, latencies and the rest with the champion's on the requests that users sent. It can
only take the canary back: that nothing went wrong in the shadow is no reason to promote.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from mlcicd.config import seconds
from mlcicd.config.canary import Canary
from mlcicd.core.errors import ConfigError
from mlcicd.rollout import Action, Decision, Judge, JudgeSpec, Window
from mlcicd.rollout.sources import Source
from mlcicd.rollout.sources.router import RouterSource
from mlcicd.stages.canary_ground import judge_spec
from mlcicd.targets.base import Attended, Mirroring, Target

# How many windows a mirror stays on that nobody looks after.
_LEASE_WINDOWS = 3
# What the router counts of copies, wherever the canary's own windows come from.
_COUNTED = ("errors", "latency")


@dataclass(frozen=True)
class Shadowed:
    """How the shadow ended.

    Args:
        decision: the judge's, after the last window.
        windows: what was counted, the canary's side being the copies.
        action: `rollback` (harm was found), `inconclusive` (hardly any copy arrived) or `continue` (go on to the
            first step).
        reason: one sentence.
    """

    decision: Decision
    windows: tuple[Window, ...]
    action: Action
    reason: str

    @property
    def requests(self) -> int:
        """Copies that were answered."""
        return sum(window.canary.requests for window in self.windows)

    @property
    def errors(self) -> int:
        return sum(window.canary.errors for window in self.windows)


def shadow(
    target: Target,
    settings: Canary,
    champion: str,
    version: str,
    *,
    say: Callable[[str], None] = lambda _line: None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    lease_s: float = 30.0,
    counted: Callable[[Callable[[float], float]], Source] | None = None,
) -> Shadowed | None:
    """Mirrors traffic to the waiting canary for `canary.shadow.duration`, or until harm is found.

    Call it before the first step, with the canary deployed and without traffic. However it ends, the mirror is off:
    where the process is killed, the target ends it when nobody has looked for `lease_s`, or some windows.

    Args:
        target: where both versions run.
        settings: the section `canary`.
        champion, version: the live version and the canary.
        say: told one line a window.
        clock, sleep: seconds.
        lease_s: how long the mirror outlives this process at least.
        counted: makes the source of the windows, where the target counts no requests itself; it is given the canary's
            part of them by time.

    Returns:
        None when the configuration asks for no shadow.

    Raises:
        ConfigError: this target can not mirror.
        ServiceError: the router does not answer.
    """
    if settings.shadow is None:
        return None
    if not isinstance(target, Mirroring):
        raise ConfigError(
            "this deployment target can not mirror traffic",
            where="canary.shadow",
            remedy="remove canary.shadow, or mirror with the means of the platform",
        )
    fraction = settings.shadow.percent / 100
    window_s, judge = seconds(settings.window), Judge(shadow_spec(judge_spec(settings)))
    # Beside each request of the champion there are so many copies: the canary's part of both together.
    part = fraction / (1 + fraction)
    source: Source
    if getattr(target, "counts_requests", True):
        source = RouterSource(_counters(target, champion), champion, version, window_s, lambda _t: part)
    elif counted is not None:
        source = counted(lambda _t: part)
    else:
        raise ConfigError("nobody counts the copies", where="canary.shadow", remedy="set `canary.source: prometheus`")
    found: list[Window] = []

    def attend() -> None:
        if isinstance(target, Attended):
            target.attend(max(lease_s, _LEASE_WINDOWS * window_s))

    # Before the mirror: a process that dies right after it leaves somebody who ends it.
    attend()
    target.set_mirror(version, fraction)
    try:
        source.restart(clock())
        ends = clock() + seconds(settings.shadow.duration)
        while clock() < ends and not judge.decision().final:
            sleep(window_s)
            attend()
            for window in source.read(judge.last_t, clock()):
                decision = judge.update(window)
                found.append(window)
                say(_line(window, decision))
    finally:
        target.set_mirror(version, 0.0)
    return _ended(judge.decision(), tuple(found), judge.spec)


def shadow_spec(spec: JudgeSpec) -> JudgeSpec:
    """The judge's questions while nobody sees the canary's answers: those that the router's counters can answer, but
    for how the traffic is split and for promotion.

    Raises:
        ConfigError: there is none.
    """
    metrics = tuple(replace(metric, margin=None) for metric in spec.metrics if metric.source in _COUNTED)
    guards = tuple(guard for guard in spec.guards if guard.source in _COUNTED)
    return replace(spec, metrics=metrics, guards=guards, sample_ratio=False, max_duration_s=None)


def _counters(target: Target, champion: str) -> Callable[[], Mapping[str, Any]]:
    def read() -> Mapping[str, Any]:
        live = target.counters()
        return {champion: live[champion], **cast(Mirroring, target).mirror_counters()}

    return read


def _ended(decision: Decision, windows: tuple[Window, ...], spec: JudgeSpec) -> Shadowed:
    requests = sum(window.canary.requests for window in windows)
    if decision.final:
        return Shadowed(decision, windows, Action.ROLLBACK, f"in the shadow: {decision.reason}")
    if decision.action is Action.HOLD or requests < spec.min_requests:
        why = decision.reason if decision.action is Action.HOLD else f"at least {spec.min_requests} are wanted"
        return Shadowed(decision, windows, Action.INCONCLUSIVE, f"{requests} copies were answered in the shadow: {why}")
    return Shadowed(decision, windows, Action.CONTINUE, f"{requests} copies were answered in the shadow without harm")


def _line(window: Window, decision: Decision) -> str:
    worst = max(decision.metrics, key=lambda metric: metric.log_e)
    return (
        f"shadow window {decision.windows}: {window.canary.requests} copies, {window.canary.errors} errors; champion "
        f"{window.champion.requests}, {window.champion.errors}; {worst.name} e-value {worst.e_value:.3g} of "
        f"{worst.threshold:.3g}"
    )
