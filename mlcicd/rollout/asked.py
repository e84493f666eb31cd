"""A rollout whose weights somebody else moves: a controller that asks at each of its steps, and is answered.

The judge, its evidence and the state that is kept are those of a rollout of our own. What differs is who acts: Argo
Rollouts or Flagger gives the canary its share and asks; it is told to wait, to advance, or to take the canary back.
What was counted between its last question at one share and its first at the next belongs to neither, and is left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mlcicd.core.errors import InputError, MlcicdError, ServiceError
from mlcicd.rollout.decision import Action, Decision
from mlcicd.rollout.labels import Cohort
from mlcicd.rollout.sources import Source
from mlcicd.rollout.state import Phase, Plan, RolloutState
from mlcicd.rollout.store import Store
from mlcicd.rollout.traffic import Ledger, Overtaken, Weights
from mlcicd.rollout.work import Ground, Journal, Outcome, Work

# Longer than this without a question (in windows; at least so many seconds), and the weight may have been anything.
_PATIENCE_WINDOWS, _PATIENCE_S = 3, 60.0
_SAME_SHARE = 1e-6


class Answer(StrEnum):
    """What a controller is told."""

    WAIT = "wait"
    ADVANCE = "advance"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer and what it rests on.

    Args:
        answer: what to do.
        reason: why, in one sentence.
        outcome: the rollout after the question.
    """

    answer: Answer
    reason: str
    outcome: Outcome


class Asked:
    """Answers the questions about one version.

    Args:
        plan: what is rolled out and how; its shares say which one is the last.
        store: where the state is kept.
        make_source: makes the source of windows; it is given the reported share by time.
        ledger: told of the end. Its `promoted` is called by :meth:`promoted` alone.
        attempt: another one than before starts the same version's test again.
        clock: seconds, as in windows.
        journal, cohorts: as of :class:`~mlcicd.rollout.controller.Controller`.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        make_source: Callable[[Callable[[float], float]], Source],
        ledger: Ledger,
        *,
        attempt: str = "",
        clock: Callable[[], float] = time.time,
        journal: Journal | None = None,
        cohorts: Callable[[], Sequence[Cohort]] | None = None,
    ) -> None:
        self._plan = plan
        self._store = store
        self._attempt = attempt
        self._ground = Ground(
            plan=plan,
            traffic=_SomebodyElses(),
            source=make_source(self._share_at),
            ledger=ledger,
            clock=clock,
            journal=journal or (lambda _started, _windows, _cohorts, _promoted: None),
            cohorts=cohorts or (lambda: ()),
            explain=lambda _decision: "",
        )

    def _share_at(self, t: float) -> float:
        state = self._ground.state
        return math.nan if state is None else state.share_at(t)

    def ask(self, share: float) -> Answered:
        """Judges what came since the last question.

        Args:
            share: of the traffic that the canary has now, from 0 to 1. With 0 or 1 nothing is judged, since there is
                nothing to compare: before its first share a version may go on unless it has failed already.

        Raises:
            InputError: it is no such share.
            ServiceError: the counts can not be read now, or somebody else works on the rollout.
        """
        if not (math.isfinite(share) and 0.0 <= share <= 1.0):
            raise InputError(f"the canary's share must be between 0 and 1, not {share}")
        with self._store.hold() as hold:
            work = _Work(self._ground, hold)
            work.open(self._attempt)
            if work.state.active and 0.0 < share < 1.0:
                work.look(share)
            work.end()
            return self._answered(work.outcome(), share)

    def fail(self, reason: str) -> Answered:
        """Ends the rollout: the version must not go on, whatever its evidence."""
        with self._store.hold() as hold:
            work = _Work(self._ground, hold)
            work.open(self._attempt)
            if work.state.active:
                work.conclude(Phase.TAKING_BACK, Action.ROLLBACK, reason)
            work.end()
            return self._answered(work.outcome(), self._plan.shares[-1])

    def promoted(self) -> Answered:
        """The controller has given the version all traffic: the ledger is told, if the judge had let it go so far.

        Repeated, it changes nothing. Where the ledger refuses, the rollout is over and has failed: traffic that the
        registry does not know of has to go back. One that does not answer has refused nothing.

        Raises:
            ServiceError: the ledger does not answer; the next question tells it.
        """
        with self._store.hold() as hold:
            work = _Work(self._ground, hold)
            work.open(self._attempt)
            work.end()
            if work.state.active and work.may_advance(self._plan.shares[-1]):
                work.make_champion()
            return self._answered(work.outcome(), 1.0)

    def settled(self, reason: str) -> Answered:
        """The version is what it was to become, whoever made it so: there is nothing to judge any more.

        Raises:
            ServiceError: a promotion was begun here, and the ledger does not answer.
        """
        with self._store.hold() as hold:
            work = _Work(self._ground, hold)
            work.open(self._attempt)
            if work.state.phase is Phase.PROMOTING:
                work.end()
            if (work.state.phase, work.state.outcome) != (Phase.DONE, Action.PROMOTE):
                work.conclude(Phase.DONE, Action.PROMOTE, reason)
            return self._answered(work.outcome(), 1.0)

    def _answered(self, outcome: Outcome, share: float) -> Answered:
        state, decision = outcome.state, outcome.decision
        if state.phase is Phase.DONE and state.outcome == Action.PROMOTE:
            return Answered(Answer.ADVANCE, state.reason, outcome)
        if not state.active:
            return Answered(Answer.FAIL, state.reason, outcome)
        if share == 0.0:
            return Answered(Answer.ADVANCE, "it has no traffic yet", outcome)
        go = share < 1.0 and _may_advance(decision, share, self._plan)
        return Answered(Answer.ADVANCE if go else Answer.WAIT, decision.reason, outcome)


def withdraw(store: Store, version: str, reason: str, tell: Callable[[], None]) -> None:
    """A promoted version was taken back by a person: whoever gives it traffic again is told that it has failed.

    Args:
        store: where its rollout is kept; one of another version is left as it is.
        version: that was taken back.
        reason: of the person; the answer to who asks about it again.
        tell: tells the ledger, while nobody else works on the rollout.

    Raises:
        InputError: the state can not be read.
        ServiceError: somebody else works on the rollout, or the ledger does not answer.
    """
    with store.hold() as hold:
        tell()
        state = None if hold.document is None else RolloutState.from_json(hold.document)
        if state is not None and state.version == version:
            over = state.having(phase=Phase.DONE, outcome=Action.ROLLBACK.value, reason=reason)
            hold.save(over.having(intended=0.0, observed=0.0).to_json())


class _Work(Work):
    """The work of one question."""

    def open(self, attempt: str) -> None:
        """A state to work on: that of this attempt by the rules of now, or a new one."""
        known = self._state
        if known is None or known.attempt != attempt:
            self._fresh(f"version {self._plan.version} is asked about beside version {self._plan.champion}")
            self.save(attempt=attempt)
        elif known.active:
            self.same_rules()
            # The test may have begun anew, of the same attempt.
            self._state = self.state.having(attempt=attempt)

    def look(self, share: float) -> None:
        """Counts what came at this share, or begins to count when it is another than before."""
        state, now = self.state, self._g.clock()
        patience = max(_PATIENCE_WINDOWS * self._plan.window_s, _PATIENCE_S)
        if state.observed is None or abs(state.observed - share) > _SAME_SHARE:
            self._judge.next_step(share)
            self.note(f"version {state.version} has {share:.1%} of the traffic")
            self._count_from(now, share)
        elif now - state.attended > patience:
            self.note(f"nobody had asked for {now - state.attended:.0f} s: what was counted then is left out")
            self._count_from(now, share)
        else:
            self.consume()
            self.save()

    def _count_from(self, now: float, share: float) -> None:
        # Whole milliseconds: all that some sources' times have.
        now, state = math.ceil(now * 1000) / 1000, self.state
        # When the weight was moved nobody knows: no window that was not judged yet is of the share before.
        since = state.moves[-1][0] if state.consumed is None else state.consumed + self._plan.window_s
        self._state = self._g.state = state.moving(min(since, now), None).moving(now, share)
        self._g.source.restart(now)
        step = sum(one < share - _SAME_SHARE for one in self._plan.shares[:-1])
        self.save(step=step, intended=share, observed=share, cursor=self._g.source.state(), attended=now)

    def end(self) -> None:
        """Writes a final decision down, and tells the ledger of it, as often as it takes."""
        decision = self._judge.decision()
        if self.state.active and decision.final:
            self.conclude(Phase.TAKING_BACK, decision.action, decision.reason)
        if self.state.phase is Phase.PROMOTING:
            self.make_champion()
        if self.state.phase is not Phase.TAKING_BACK:
            return
        try:
            self._g.ledger.taken_back(self.state.version, self.state.outcome, self.state.reason)
        except MlcicdError as error:
            # The answer must not wait for the books; the next question writes them.
            self.note(f"the registry could not be told: {error.one_line()}")
        else:
            self.save(phase=Phase.DONE, intended=0.0, observed=0.0)

    def may_advance(self, share: float) -> bool:
        return _may_advance(self._judge.decision(), share, self._plan)

    def make_champion(self) -> None:
        state = self.state
        if state.phase is not Phase.PROMOTING:
            self.conclude(Phase.PROMOTING, Action.PROMOTE, self._judge.decision().reason)
        try:
            self._g.ledger.promoted(state.version)
        except (Overtaken, InputError) as error:
            # Everything else may have been done or be done later: it stays to be told.
            self.conclude(Phase.TAKING_BACK, Action.ROLLBACK, f"the registry refused it: {error.one_line()}")
            return self.end()
        self.note(f"version {state.version} is promoted")
        return self.save(phase=Phase.DONE, intended=1.0, observed=1.0)


class _SomebodyElses:
    """Traffic that is not ours to look at or to move: nothing of a question does."""

    def look(self) -> Weights:
        raise _not_ours()

    def set_share(self, version: str, share: float) -> None:
        raise _not_ours()

    def attend(self, seconds: float) -> None:
        raise _not_ours()

    def promote(self, version: str) -> None:
        raise _not_ours()

    def take_back(self) -> None:
        raise _not_ours()

    def revert(self) -> None:
        raise _not_ours()


def _not_ours() -> MlcicdError:
    return ServiceError("the weights of this rollout are moved by the controller that asks")


def _may_advance(decision: Decision, share: float, plan: Plan) -> bool:
    last = share >= plan.shares[-1] - _SAME_SHARE
    return decision.step_ready and (not last or decision.action is Action.PROMOTE)
