"""The same judge over recorded windows: what it would have decided, and when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlcicd.core.errors import InputError
from mlcicd.rollout.decision import Action, Decision
from mlcicd.rollout.judge import Judge
from mlcicd.rollout.labels import Cohort
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
    spec: JudgeSpec,
    windows: Iterable[Window],
    *,
    stop_at_promote: bool = True,
    last_share: float = 0.0,
    cohorts: Sequence[Cohort] = (),
    window_s: float = 10.0,
    promoted_at: float | None = None,
) -> ReplayResult:
    """Runs the judge over windows until it rolls back, is inconclusive, promotes, or they end.

    Late outcomes are counted when they mature, which may be long after the last window. When they are watched after
    the promotion, the replay goes on until the last of them.

    Args:
        spec: what to judge by.
        windows: in order of time.
        stop_at_promote: stop at the first `promote` that a rollout would act on; if not, go on to the end.
        last_share: share of the last traffic step: a rollout promotes only from there, once the step is done.
        cohorts: the late outcomes.
        window_s: seconds a window lasts.
        promoted_at: when the canary that was recorded became the champion (seconds, in the clock of the windows):
            the outcomes of later predictions are its own alone, whenever this judge would have promoted it. A judge
            that would not have done so by then is asked no further. Without it, that is when this judge promotes.

    Raises:
        InputError: there is no window, or one that can not be judged.
    """
    judge = Judge(spec)
    trace: list[TracePoint] = []
    decision: Decision | None = None
    promoted: tuple[Decision, int] | None = None
    at_window = requests = errors = 0
    last: Window | None = None
    unripe = list(cohorts)
    for now, window in _ticks(windows, cohorts, spec, window_s, promoted_at):
        if promoted is None and promoted_at is not None and now > promoted_at and trace:
            break
        if window is not None and promoted is None:
            judge.update(window)
            last, requests = window, requests + window.canary.requests
            errors += window.canary.errors
        if spec.longest_delay_s > 0:
            judge.mature(unripe, now)
            unripe = [cohort for cohort in unripe if cohort.end + spec.longest_delay_s > now]
        previous, decision = decision, judge.decision()
        if last is None:
            continue
        trace.append(_point(now - window_s, last.share, decision))
        if previous is None or previous.action is not decision.action:
            at_window = len(trace)
        if decision.final:
            break
        # A share is written with a few digits, and may have been a percentage.
        promoting = decision.action is Action.PROMOTE and decision.step_ready and last.share >= last_share - 1e-6
        if promoting and stop_at_promote:
            promoted = decision, len(trace)
            judge.promoted(now if promoted_at is None else promoted_at)
            if judge.watch_ends is None:
                break
    if decision is None or not trace:
        raise InputError(
            "there is no window to judge",
            why="A canary of which nothing was recorded has not shown anything.",
            remedy="record at least one window",
        )
    if promoted is not None and not decision.final:
        decision, at_window = promoted
    return ReplayResult(
        decision=decision,
        at_window=at_window,
        at_t=trace[at_window - 1].t,
        windows=len(trace),
        trace=tuple(trace),
        canary_requests=requests,
        canary_errors=errors,
    )


def _ticks(
    windows: Iterable[Window],
    cohorts: Sequence[Cohort],
    spec: JudgeSpec,
    window_s: float,
    promoted_at: float | None,
) -> Iterator[tuple[float, Window | None]]:
    """When the judge looks: at the end of each window, and after the last one whenever outcomes mature, and when the
    canary was promoted."""
    now = -float("inf")
    for window in windows:
        now = window.t + window_s
        yield now, window
    delays = {metric.label_delay_s for metric in spec.metrics if metric.label_delay_s > 0}
    recorded = set() if promoted_at is None else {promoted_at}
    for later in sorted({cohort.end + delay for cohort in cohorts for delay in delays} | recorded):
        if later > now:
            yield later, None


def _point(t: float, share: float, decision: Decision) -> TracePoint:
    return TracePoint(
        t=t,
        share=share,
        action=decision.action,
        log_e={item.name: item.log_e for item in decision.metrics},
        log_e_promote={item.name: item.log_e_promote for item in decision.metrics if item.log_e_promote is not None},
        observed={item.name: item.observed for item in decision.metrics},
    )
