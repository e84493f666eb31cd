"""What a rollout remembers between two jobs: one JSON document under 50 kB, from which any process can go on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from mlcicd.core.digests import digest_json
from mlcicd.core.errors import InputError
from mlcicd.rollout.decision import Decision
from mlcicd.rollout.spec import JudgeSpec
from mlcicd.rollout.windows import Window

STATE_VERSION = 1
# All are bounded, or a long rollout would outgrow a tag of a registry.
_MAX_POINTS = 96
_MAX_EVENTS = 40
_MAX_MOVES = 60


class Phase(StrEnum):
    """Where a rollout is. What is written down first is done first when a dead process's work is taken up."""

    RUNNING = "running"
    PAUSED = "paused"  # by a person: the share stays, nothing advances
    SUSPENDED = "suspended"  # the watch was ended: all traffic with the champion, the evidence is kept
    PROMOTING = "promoting"
    TAKING_BACK = "taking back"
    REVERTING = "reverting"  # promoted, but the registry refused
    WATCHING = "watching"  # promoted; what became of its predictions is still to come
    WITHDRAWING = "withdrawing"  # promoted, and its outcomes are worse than the champion's were
    DONE = "done"


ACTIVE = (Phase.RUNNING, Phase.PAUSED, Phase.SUSPENDED)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is rolled out over what, and by which rules.

    Args:
        version: the canary. champion: the version it is compared with. model_digest: of the canary's bytes.
        spec: what the judge is asked.
        shares: of the traffic, one a step, ascending, each in (0, 1).
        window_s: seconds a window lasts.
        max_unattended_s: traffic goes back to the champion when no step was taken for so long.
    """

    version: str
    champion: str
    model_digest: str
    spec: JudgeSpec
    shares: tuple[float, ...]
    window_s: float
    max_unattended_s: float

    def digest(self) -> str:
        """Evidence gathered under another digest is no evidence under this one."""
        return digest_json([self.spec.digest(), self.shares, self.window_s])


@dataclass(frozen=True, slots=True)
class TracePoint:
    """Some windows in a row at one share, for the report: their counts summed, the evidence after the last.

    Args:
        t: time of the last of them.
        champion, canary: requests and errors.
        log_e: natural log of each metric's e-value, in the order of the judge's metrics.
    """

    t: float
    share: float
    champion: tuple[int, int]
    canary: tuple[int, int]
    log_e: tuple[float, ...]

    def with_next(self, after: TracePoint) -> TracePoint:
        def added(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
            return a[0] + b[0], a[1] + b[1]

        return replace(after, champion=added(self.champion, after.champion), canary=added(self.canary, after.canary))


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the rollout, in words."""

    t: float
    what: str


@dataclass(frozen=True, slots=True)
class RolloutState:
    """A rollout, as it is written down.

    Args:
        plan_digest: of the rules its evidence was gathered by.
        version, champion, model_digest: as in :class:`Plan`.
        phase: where it is.
        step: index of the traffic step.
        intended: the share it should have; written before the weight is moved.
        observed: the share that was read back after moving it; None until it was.
        moves: when which share was in force; None while the weight was being moved.
        consumed: time of the last window that was counted.
        cursor: where the source goes on.
        attended: when somebody looked last.
        promoted: when the canary became the champion; None until then, or when its outcomes are not watched.
        judge: :meth:`mlcicd.rollout.judge.Judge.state`.
        outcome: the judge's or a person's final action, once there is one. reason: why, in a sentence.
        attempt: which try of the same version it is, where somebody else moves the weights.
        trace: evidence over time, thinned by summing neighbours. events: the last things that happened.
    """

    plan_digest: str
    version: str
    champion: str
    model_digest: str
    started: float
    judge: dict[str, Any]
    phase: Phase = Phase.RUNNING
    step: int = 0
    intended: float = 0.0
    observed: float | None = None
    moves: tuple[tuple[float, float | None], ...] = ()
    consumed: float | None = None
    cursor: dict[str, Any] | None = None
    attended: float = 0.0
    promoted: float | None = None
    outcome: str = ""
    reason: str = ""
    attempt: str = ""
    trace: tuple[TracePoint, ...] = ()
    events: tuple[Event, ...] = field(default=())

    @property
    def active(self) -> bool:
        """The judge still has a say: not concluded, nor being concluded."""
        return self.phase in ACTIVE

    @property
    def served(self) -> tuple[int, int]:
        """(requests, errors) of the canary in the windows that were counted."""
        return sum(p.canary[0] for p in self.trace), sum(p.canary[1] for p in self.trace)

    def having(self, **changes: Any) -> RolloutState:
        return replace(self, **changes)

    def noting(self, t: float, what: str) -> RolloutState:
        """With one more event; the oldest are forgotten."""
        return replace(self, events=(*self.events, Event(t, what))[-_MAX_EVENTS:])

    def moving(self, t: float, share: float | None) -> RolloutState:
        """With one more move of the weight, at a time not before the last. None: it begins to move."""
        t = max(t, self.moves[-1][0]) if self.moves else t
        return replace(self, moves=(*self.moves, (t, share))[-_MAX_MOVES:])

    def share_at(self, t: float) -> float:
        """The share that the canary was meant to get at a time; NaN while the weight was being moved."""
        share: float | None = None
        for moved, to in self.moves:
            if moved > t:
                break
            share = to
        return math.nan if share is None else share

    def tracing(self, window: Window, decision: Decision) -> RolloutState:
        """With one more point of the trace."""
        point = TracePoint(
            t=window.t,
            share=window.share,
            champion=(window.champion.requests, window.champion.errors),
            canary=(window.canary.requests, window.canary.errors),
            log_e=tuple(round(metric.log_e, 4) for metric in decision.metrics),
        )
        return replace(self, trace=_thinned((*self.trace, point)))

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        value["schema_version"] = STATE_VERSION
        value["trace"] = [[p.t, p.share, *p.champion, *p.canary, *p.log_e] for p in self.trace]
        value["events"] = [[event.t, event.what] for event in self.events]
        return value

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RolloutState:
        """Reads a state.

        Raises:
            InputError: it is damaged, or written by another version of this library.
        """
        value = dict(document)
        try:
            if value.pop("schema_version") != STATE_VERSION:
                raise ValueError("written by another version of mlcicd")
            value["phase"] = Phase(value["phase"])
            value["moves"] = tuple((t, share) for t, share in value["moves"])
            value["trace"] = tuple(
                TracePoint(row[0], row[1], (row[2], row[3]), (row[4], row[5]), tuple(row[6:])) for row in value["trace"]
            )
            value["events"] = tuple(Event(t, what) for t, what in value["events"])
            return cls(**value)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(
                "the saved rollout can not be read",
                why=str(error),
                remedy="run `mlcicd canary abort`: it takes the canary out of the traffic and forgets the rollout",
            ) from error


def _thinned(trace: tuple[TracePoint, ...]) -> tuple[TracePoint, ...]:
    """Neighbours at the same share become one when there are too many; no count is lost."""
    if len(trace) <= _MAX_POINTS:
        return trace
    thinned: list[TracePoint] = []
    merged_last = True
    for point in trace:
        if not merged_last and thinned[-1].share == point.share:
            thinned[-1], merged_last = thinned[-1].with_next(point), True
        else:
            thinned.append(point)
            merged_last = False
    return tuple(thinned)
