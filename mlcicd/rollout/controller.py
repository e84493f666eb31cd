"""Moves a canary through its traffic steps, one re-entrant step at a time.

Whatever process calls :meth:`Controller.step` next goes on where the last one stopped, wherever that died. What makes
it so: the judge's evidence, the last window consumed and the source's position are one document, written at once; a
weight is written down as intended before it is moved, and as observed after it was read back; and promoting or taking
back is written down as a phase before it is begun, each of its actions being repeatable.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from mlcicd.rollout.decision import Action, Decision
from mlcicd.rollout.labels import Cohort
from mlcicd.rollout.sources import Source
from mlcicd.rollout.state import Phase, Plan, RolloutState
from mlcicd.rollout.store import Store
from mlcicd.rollout.traffic import Ledger, Traffic
from mlcicd.rollout.work import Ground, Journal, Outcome, Work, judge_of

__all__ = ["Controller", "Outcome"]


class Controller:
    """One rollout.

    Args:
        plan: what is rolled out and how.
        store: where its state is kept.
        traffic, ledger: what it acts on.
        make_source: makes the source of windows; it is given the intended share by time.
        clock: seconds, as in windows.
        journal: told when the rollout was started, and of each batch of windows and of late outcomes before they are
            written down as consumed; after a crash it may be told of one again.
        cohorts: what is known of late outcomes at the moment, by time; those that were counted may be among them.
        explain: more about a decision to take the canary back, in a few words, or nothing; must not raise.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        traffic: Traffic,
        make_source: Callable[[Callable[[float], float]], Source],
        ledger: Ledger,
        *,
        clock: Callable[[], float] = time.time,
        journal: Journal | None = None,
        cohorts: Callable[[], Sequence[Cohort]] | None = None,
        explain: Callable[[Decision], str] | None = None,
    ) -> None:
        self.plan = plan
        self._store = store
        self._ground = Ground(
            plan=plan,
            traffic=traffic,
            source=make_source(self._share_at),
            ledger=ledger,
            clock=clock,
            journal=journal or (lambda _started, _windows, _cohorts, _promoted: None),
            cohorts=cohorts or (lambda: ()),
            explain=explain or (lambda _decision: ""),
        )

    def _share_at(self, t: float) -> float:
        state = self._ground.state
        return math.nan if state is None else state.share_at(t)

    # --- what one asks for

    def start(self) -> Outcome:
        """Begins the rollout, or goes on with it: also with one that was paused or suspended."""
        with self._held() as work:
            work.begin()
            if work.state.phase in (Phase.PAUSED, Phase.SUSPENDED):
                work.note(f"going on at step {work.state.step + 1}, with the evidence gathered so far")
                shares = self.plan.shares
                work.intend(shares[work.state.step], phase=Phase.RUNNING)
            work.resume()
            return work.outcome()

    def step(self) -> Outcome:
        """Consumes the windows since the last call, and does what the judge then says.

        Raises:
            InputError: no rollout was started.
        """
        with self._held() as work:
            work.same_rules()
            work.resume()
            if work.state.phase in (Phase.RUNNING, Phase.PAUSED):
                work.consume()
                work.act()
            elif work.state.phase is Phase.WATCHING:
                work.watch()
            return work.outcome()

    def pause(self) -> Outcome:
        """The share stays, and nothing advances; a harmful canary is still taken back by later steps."""
        with self._held() as work:
            work.same_rules()
            work.resume()
            if work.state.phase is Phase.RUNNING:
                work.note("paused by hand")
                work.save(phase=Phase.PAUSED)
            return work.outcome()

    def suspend(self, reason: str) -> Outcome:
        """All traffic with the champion, the canary and its evidence kept for :meth:`start`."""
        with self._held() as work:
            if work.state.phase in (Phase.RUNNING, Phase.PAUSED):
                work.note(f"all traffic back to the champion: {reason}")
                work.intend(0.0, phase=Phase.SUSPENDED)
                work.settle()
            return work.outcome()

    def promote(self, reason: str) -> Outcome:
        """Promotes the canary now, whatever the evidence: a person's decision."""
        return self._decide(Phase.PROMOTING, Action.PROMOTE, reason)

    def abort(self, reason: str, outcome: Action = Action.ROLLBACK) -> Outcome:
        """Takes the canary back now: a person's decision, or that of a test before the first step."""
        return self._decide(Phase.TAKING_BACK, outcome, reason)

    def peek(self, state: RolloutState) -> Outcome:
        """Where a rollout stands, read without the lease; nothing is changed."""
        return Outcome(state, judge_of(self.plan, state).decision())

    def _decide(self, phase: Phase, action: Action, reason: str) -> Outcome:
        with self._held() as work:
            work.begin()
            if work.state.active:
                work.conclude(phase, action, reason)
            elif work.state.phase is Phase.WATCHING:
                work.overrule(phase, action, reason)
            work.resume()
            return work.outcome()

    @contextmanager
    def _held(self) -> Iterator[Work]:
        with self._store.hold() as hold:
            yield Work(self._ground, hold)
