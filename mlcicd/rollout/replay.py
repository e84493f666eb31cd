"""The same judge over recorded windows: what it would have decided, and when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mlcicd.core.errors import InputError
from mlcicd.rollout.decision import Action, Decision
from mlcicd.rollout.judge import Judge
from mlcicd.rollout.spec import JudgeSpec
from mlcicd.rollout.windows import Window


@dataclass(frozen=True, slots=True)
class TracePoint:
    """Where the evidence stood after one window.

    Args:
        t: of the window, seconds.
        share: the canary's intended share.
        action: what the judge said.
        log_e: natural log of the e-value of harm, by metric.
        log_e_promote: the same for promotion, for the metrics that gate it.
        observed: what was seen so far, by metric and arm.
    """

    t: float
    share: float
    action: Action
    log_e: dict[str, float]
    log_e_promote: dict[str, float]
    observed: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a replay came to.

    Args:
        decision: the last decision, with its evidence.
        at_window: the window (counted from 1) after which that action was first given without a break; for a
            promotion that ended the replay, that window.
        at_t: its time.
        windows: windows consumed.
        trace: one point a window.
        canary_requests, canary_errors: what the canary served until the end.
    """

    decision: Decision
    at_window: int
    at_t: float
    windows: int
    trace: tuple[TracePoint, ...]
    canary_requests: int
    canary_errors: int

    def to_json(self) -> dict[str, Any]:
        return {
            "decision": self.decision.to_json(),
            "at_window": self.at_window,
            "at_t": self.at_t,
            "windows": self.windows,
            "canary_requests": self.canary_requests,
            "canary_errors": self.canary_errors,
            "trace": [
                {
                    "t": point.t,
                    "share": point.share,
                    "action": point.action.value,
                    "log_e": point.log_e,
                    "log_e_promote": point.log_e_promote,
                }
                for point in self.trace
            ],
        }


def replay(
    spec: JudgeSpec, windows: Iterable[Window], *, stop_at_promote: bool = True, last_share: float = 0.0
) -> ReplayResult:
    """Runs the judge over windows until it rolls back, is inconclusive, promotes, or they end.

    Args:
        spec: what to judge by.
        windows: in order of time.
        stop_at_promote: stop at the first `promote` that a rollout would act on; if not, go on to the end.
        last_share: share of the last traffic step: a rollout promotes only from there, once the step is done.

    Raises:
        InputError: there is no window, or one that can not be judged.
    """
    judge = Judge(spec)
    trace: list[TracePoint] = []
    decision: Decision | None = None
    at_window = requests = errors = 0
    promoting = False
    for window in windows:
        previous, decision = decision, judge.update(window)
        requests, errors = requests + window.canary.requests, errors + window.canary.errors
        trace.append(_point(window, decision))
        if previous is None or previous.action is not decision.action:
            at_window = len(trace)
        # A share is written with a few digits, and may have been a percentage.
        promoting = decision.action is Action.PROMOTE and decision.step_ready and window.share >= last_share - 1e-6
        if decision.final or (stop_at_promote and promoting):
            break
    if promoting and stop_at_promote:
        at_window = len(trace)
    if decision is None:
        raise InputError(
            "there is no window to judge",
            why="A canary of which nothing was recorded has not shown anything.",
            remedy="record at least one window",
        )
    return ReplayResult(
        decision=decision,
        at_window=at_window,
        at_t=trace[at_window - 1].t,
        windows=len(trace),
        trace=tuple(trace),
        canary_requests=requests,
        canary_errors=errors,
    )


def _point(window: Window, decision: Decision) -> TracePoint:
    return TracePoint(
        t=window.t,
        share=window.share,
        action=decision.action,
        log_e={item.name: item.log_e for item in decision.metrics},
        log_e_promote={item.name: item.log_e_promote for item in decision.metrics if item.log_e_promote is not None},
        observed={item.name: item.observed for item in decision.metrics},
    )
