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
from dataclasses import dataclass
from typing import Any

from mlcicd.core.errors import InputError, MlcicdError, ServiceError
from mlcicd.rollout.decision import Action, Decision
from mlcicd.rollout.judge import Judge
from mlcicd.rollout.sources import Source
from mlcicd.rollout.state import Phase, Plan, RolloutState
from mlcicd.rollout.store import Hold, Store
from mlcicd.rollout.traffic import Ledger, Traffic, Weights
from mlcicd.rollout.windows import Window

# Targets may round a share, for example to whole percents of weight.
_SAME_SHARE = 0.005


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to.

    Args:
        state: as it was written last.
        decision: the judge's, after the last window.
        seen: the windows this call consumed, each with the decision after it.
        notes: what a person should be told, in sentences.
    """

    state: RolloutState
    decision: Decision
    seen: tuple[tuple[Window, Decision], ...] = ()
    notes: tuple[str, ...] = ()


class Controller:
    """One rollout.

    Args:
        plan: what is rolled out and how.
        store: where its state is kept.
        traffic, ledger: what it acts on.
        make_source: makes the source of windows; it is given the intended share by time.
        clock: seconds, as in windows.
        journal: told when the rollout was started, and of each batch of windows before they are written down as
            consumed; after a crash it may be told of a window again.
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
        journal: Callable[[float, Sequence[Window]], None] | None = None,
    ) -> None:
        self.plan = plan
        self._store = store
        self._traffic = traffic
        self._state: RolloutState | None = None
        self._source = make_source(lambda t: math.nan if self._state is None else self._state.share_at(t))
        self._ledger = ledger
        self._clock = clock
        self._journal = journal or (lambda _started, _windows: None)

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
                work.save(phase=phase, outcome=action.value, reason=reason)
            work.resume()
            return work.outcome()

    @contextmanager
    def _held(self) -> Iterator[_Work]:
        with self._store.hold() as hold:
            yield _Work(self, hold)


class _Work:
    """One call's work on the state, under the lease."""

    def __init__(self, controller: Controller, hold: Hold) -> None:
        self._c = controller
        self._plan = controller.plan
        self._hold = hold
        self._notes: list[str] = []
        self._seen: list[tuple[Window, Decision]] = []
        document = hold.document
        found = None if document is None else RolloutState.from_json(document)
        if found is not None and (found.version, found.champion) != (self._plan.version, self._plan.champion):
            # Another canary's: over, or replaced in the target by this one.
            found = None
        self._state = found
        self._judge = judge_of(controller.plan, found)
        controller._state = found
        if found is not None and found.cursor is not None:
            controller._source.restore(found.cursor)

    @property
    def state(self) -> RolloutState:
        if self._state is None:
            raise InputError(
                f"no rollout of version {self._plan.version} over version {self._plan.champion} was started",
                remedy="run `mlcicd canary start`",
            )
        return self._state

    def outcome(self) -> Outcome:
        return Outcome(self.state, self._judge.decision(), tuple(self._seen), tuple(self._notes))

    def note(self, what: str) -> None:
        """Something to tell, and to remember with the next save."""
        self._notes.append(what)
        self._state = self.state.noting(self._c._clock(), what)

    def save(self, **changes: Any) -> None:
        state = self.state.having(judge=self._judge.state(), **changes)
        self._hold.save(state.to_json())
        self._state = self._c._state = state

    def intend(self, share: float, **changes: Any) -> None:
        """Writes down the share that the canary is to get, before anything is moved."""
        self._state = self.state.moving(self._c._clock(), None)
        self.save(intended=share, observed=None, **changes)

    # --- beginning

    def begin(self) -> None:
        """A state to work on: the one there is, or a new one when there is none, or the version waits once more."""
        over = self._state is not None and self._state.phase is Phase.DONE
        if self._state is None or (over and self._c._traffic.look().canary == self._plan.version):
            share = f"{self._plan.shares[0]:.0%} of the traffic"
            self._fresh(f"version {self._plan.version} starts beside version {self._plan.champion} with {share}")
        else:
            self.same_rules()

    def same_rules(self) -> None:
        """Starts the test again when the model or the rules have changed: old evidence says nothing about them."""
        if not self.state.active:
            return
        if self.state.model_digest != self._plan.model_digest:
            self._fresh("the model behind the version has changed: the test starts again from the first step")
        elif self.state.plan_digest != self._plan.digest():
            self._fresh("the canary's configuration has changed: the test starts again from the first step")

    def _fresh(self, because: str) -> None:
        plan = self._plan
        self._judge = Judge(plan.spec)
        self._state = RolloutState(
            plan_digest=plan.digest(),
            version=plan.version,
            champion=plan.champion,
            model_digest=plan.model_digest,
            started=self._c._clock(),
            judge=self._judge.state(),
            intended=plan.shares[0],
            moves=((self._c._clock(), None),),
        )
        self.note(because)
        self.save()

    # --- going on

    def resume(self) -> None:
        """Ends what a dead process began: a conclusion, or the move of a weight."""
        if not self.state.active:
            self._conclude()
            return
        weights = self._c._traffic.look()
        if weights.live == self.state.version:
            self.note(f"version {self.state.version} was made live by another command")
            self.save(phase=Phase.DONE, outcome=Action.PROMOTE.value, reason=self._notes[-1])
        elif weights.canary != self.state.version:
            self.note(f"version {self.state.version} was taken out of the target by another command")
            self.save(phase=Phase.DONE, outcome=Action.ROLLBACK.value, reason=self._notes[-1])
        elif weights.live != self.state.champion:
            self.save(
                phase=Phase.TAKING_BACK,
                outcome=Action.INCONCLUSIVE.value,
                reason=f"version {weights.live} went live in the champion's place: the evidence is about another pair",
            )
            self._conclude()
        else:
            self._keep_weight(weights)

    def _keep_weight(self, weights: Weights) -> None:
        state, now = self.state, self._c._clock()
        self._attend()
        if state.observed is not None and not _same(weights.share, state.intended):
            forgotten = state.attended + self._plan.max_unattended_s
            if weights.share == 0 and now < forgotten:
                self._fresh("another command had taken the canary out of the traffic: the test starts again")
            elif weights.share == 0:
                self.note("nobody had looked in time: the champion had all traffic")
                self._state = self.state.moving(min(now, forgotten), 0.0)
                self.intend(state.intended)
            else:
                self.note(f"the canary had {weights.share:.1%} of the traffic instead of {state.intended:.1%}")
                self.intend(state.intended)
        if self.state.observed is None:
            self.settle()

    def settle(self) -> None:
        """Moves the weight to what is intended, reads it back, and begins to count from there."""
        state, traffic, source = self.state, self._c._traffic, self._c._source
        # Before the weight: a process that dies right after it leaves nobody without a way back.
        self._attend()
        traffic.set_share(state.version, state.intended)
        weights = traffic.look()
        if weights.canary != state.version or not _same(weights.share, state.intended):
            raise ServiceError(
                f"the canary was to get {state.intended:.1%} of the traffic and has {weights.share:.1%}",
                why="The weight was set and read back.",
                remedy="look at the target; `mlcicd canary abort` gives all traffic to the champion",
            )
        # What was counted until now belongs to no share. Whole milliseconds: all that some sources' times have.
        now = math.ceil(self._c._clock() * 1000) / 1000
        self._state = self._c._state = state.moving(now, state.intended)
        source.restart(now)
        self.save(observed=weights.share, cursor=source.state(), attended=now)

    def _attend(self) -> None:
        if self.state.intended > 0:
            self._c._traffic.attend(self._plan.max_unattended_s)

    # --- judging

    def consume(self) -> None:
        """Gives the judge every window since the last, each once. :meth:`act` writes it down, with what follows."""
        state, now, source = self.state, self._c._clock(), self._c._source
        consumed = state.consumed
        for window in source.read(consumed, now):
            consumed = window.t
            if window.share == 0:
                # The rollout was suspended; that nobody used the canary then says nothing about it.
                continue
            decision = self._judge.update(window)
            self._seen.append((window, decision))
            state = state.tracing(window, decision)
            if decision.final:
                break
        if self._seen:
            self._c._journal(state.started, [window for window, _ in self._seen])
        else:
            self._note_silence(now)
        self._state = state.having(consumed=consumed, cursor=source.state(), attended=now)

    def _note_silence(self, now: float) -> None:
        """Tells the judge that no window came, once it had to have come; a suspension is no silence."""
        moved, last = self.state.moves[-1][0], self._judge.last_t
        patience = 3 * self._plan.window_s
        if last is not None and moved > last:
            # The judge would count from its last window, and nobody was meant to use the canary in between.
            patience = max(patience, self._plan.spec.no_data_timeout_s)
        if now - max(moved, last or moved) > patience:
            self._judge.idle(now)

    def act(self) -> None:
        """Does what the judge says. Evidence and decision are one write: else one that dies between them would
        leave a decision that waits for another window."""
        decision, state = self._judge.decision(), self.state
        last = state.step == len(self._plan.shares) - 1
        if decision.final:
            self.save(phase=Phase.TAKING_BACK, outcome=decision.action.value, reason=decision.reason)
            self._conclude()
        elif state.phase is Phase.PAUSED or not self._seen or not decision.step_ready:
            self.save()
        elif last and decision.action is Action.PROMOTE:
            self.save(phase=Phase.PROMOTING, outcome=decision.action.value, reason=decision.reason)
            self._conclude()
        elif not last:
            share = self._plan.shares[state.step + 1]
            self.note(f"version {state.version} gets {share:.0%} of the traffic")
            self.intend(share, step=state.step + 1)
            self.settle()
        else:
            self.save()

    # --- concluding

    def _conclude(self) -> None:
        """Does what the phase says, as often as it takes."""
        if self.state.phase is Phase.PROMOTING:
            self._c._traffic.promote(self.state.version)
            try:
                self._c._ledger.promoted(self.state.version)
            except MlcicdError as error:
                self.save(phase=Phase.REVERTING, outcome=Action.ROLLBACK.value, reason=error.one_line())
                self._revert()
                raise
            self._done(expected=self.state.version)
        elif self.state.phase is Phase.TAKING_BACK:
            self._c._traffic.take_back()
            self._done(expected=None)
        elif self.state.phase is Phase.REVERTING:
            self._revert()

    def _revert(self) -> None:
        self._c._traffic.revert()
        self._done(expected=self.state.champion)

    def _done(self, *, expected: str | None) -> None:
        """Reads back who is live, tells the ledger, and ends the rollout."""
        state, weights = self.state, self._c._traffic.look()
        if (expected is not None and weights.live != expected) or weights.canary == state.version:
            raise ServiceError(
                f"version {expected or state.champion} was to be live, and {weights.live or 'none'} is",
                why="The weights were read back.",
                remedy="run the same command again; `mlcicd status` shows what is live",
            )
        if state.outcome != Action.PROMOTE:
            self._c._ledger.taken_back(state.version, state.outcome, state.reason)
        share = 1.0 if weights.live == state.version else 0.0
        self.save(phase=Phase.DONE, intended=share, observed=share)


def judge_of(plan: Plan, state: RolloutState | None) -> Judge:
    """The judge with the state's evidence; a new one when that was gathered by other rules."""
    if state is None or not Judge.matches(plan.spec, state.judge):
        return Judge(plan.spec)
    return Judge.from_state(plan.spec, state.judge)


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= _SAME_SHARE and (a == 0) == (b == 0)
