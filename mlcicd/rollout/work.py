"""One call's work on a rollout, under its lease: what was left undone, the windows since, and what follows of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlcicd.core.errors import InputError, MlcicdError, ServiceError
from mlcicd.rollout.decision import Action, Decision
from mlcicd.rollout.judge import Judge
from mlcicd.rollout.labels import Cohort
from mlcicd.rollout.sources import Source
from mlcicd.rollout.state import Phase, Plan, RolloutState
from mlcicd.rollout.store import Hold
from mlcicd.rollout.traffic import Ledger, Traffic, Weights
from mlcicd.rollout.windows import Window

# Targets may round a share, for example to whole percents of weight.
_SAME_SHARE = 0.005


# Told when the rollout was started, of windows, of late outcomes, and of the time of a promotion.
Journal = Callable[[float, Sequence[Window], Sequence[Cohort], float | None], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to.

    Args:
        state: as it was written last.
        decision: the judge's, after the last window.
        seen: the windows this call consumed, each with the decision after it.
        notes: what a person should be told, in sentences.
        matured: the late outcomes this call counted.
    """

    state: RolloutState
    decision: Decision
    seen: tuple[tuple[Window, Decision], ...] = ()
    notes: tuple[str, ...] = ()
    matured: tuple[Cohort, ...] = ()


@dataclass
class Ground:
    """What a rollout stands on; the arguments of :class:`~mlcicd.rollout.controller.Controller`.

    Args:
        state: as it was read or written last; the source asks it which share was in force when.
    """

    plan: Plan
    traffic: Traffic
    source: Source
    ledger: Ledger
    clock: Callable[[], float]
    journal: Journal
    cohorts: Callable[[], Sequence[Cohort]]
    explain: Callable[[Decision], str]
    state: RolloutState | None = None


class Work:
    """One call's work on the state, under the lease."""

    def __init__(self, ground: Ground, hold: Hold) -> None:
        self._g = ground
        self._plan = ground.plan
        self._hold = hold
        self._notes: list[str] = []
        self._seen: list[tuple[Window, Decision]] = []
        self._matured: tuple[Cohort, ...] = ()
        document = hold.document
        found = None if document is None else RolloutState.from_json(document)
        if found is not None and (found.version, found.champion) != (self._plan.version, self._plan.champion):
            # Another canary's: over, or replaced in the target by this one.
            found = None
        self._state = found
        self._judge = judge_of(ground.plan, found)
        ground.state = found
        if found is not None and found.cursor is not None:
            ground.source.restore(found.cursor)

    @property
    def state(self) -> RolloutState:
        if self._state is None:
            raise InputError(
                f"no rollout of version {self._plan.version} over version {self._plan.champion} was started",
                remedy="run `mlcicd canary start`",
            )
        return self._state

    def outcome(self) -> Outcome:
        return Outcome(self.state, self._judge.decision(), tuple(self._seen), tuple(self._notes), self._matured)

    def note(self, what: str) -> None:
        """Something to tell, and to remember with the next save."""
        self._notes.append(what)
        self._state = self.state.noting(self._g.clock(), what)

    def save(self, **changes: Any) -> None:
        state = self.state.having(judge=self._judge.state(), **changes)
        self._hold.save(state.to_json())
        self._state = self._g.state = state

    def intend(self, share: float, **changes: Any) -> None:
        """Writes down the share that the canary is to get, before anything is moved."""
        self._state = self.state.moving(self._g.clock(), None)
        self.save(intended=share, observed=None, **changes)

    # --- beginning

    def begin(self) -> None:
        """A state to work on: the one there is, or a new one when there is none, or the version waits once more."""
        over = self._state is not None and self._state.phase is Phase.DONE
        if self._state is None or (over and self._g.traffic.look().canary == self._plan.version):
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
            started=self._g.clock(),
            judge=self._judge.state(),
            intended=plan.shares[0],
            moves=((self._g.clock(), None),),
        )
        self.note(because)
        self.save()

    # --- going on

    def resume(self) -> None:
        """Ends what a dead process began: a conclusion, or the move of a weight."""
        if not self.state.active:
            self._conclude()
            return
        weights = self._g.traffic.look()
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
        state, now = self.state, self._g.clock()
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
        state, traffic, source = self.state, self._g.traffic, self._g.source
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
        now = math.ceil(self._g.clock() * 1000) / 1000
        self._state = self._g.state = state.moving(now, state.intended)
        source.restart(now)
        self.save(observed=weights.share, cursor=source.state(), attended=now)

    def _attend(self) -> None:
        if self.state.intended > 0:
            self._g.traffic.attend(self._plan.max_unattended_s)

    # --- judging

    def consume(self) -> None:
        """Gives the judge every window since the last, each once. :meth:`act` writes it down, with what follows."""
        state, now, source = self.state, self._g.clock(), self._g.source
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
        self._mature(now)
        if self._seen or self._matured:
            self._g.journal(state.started, [window for window, _ in self._seen], self._matured, None)
        if not self._seen:
            self._note_silence(now)
        self._state = state.having(consumed=consumed, cursor=source.state(), attended=now)

    def _mature(self, now: float) -> None:
        """Gives the judge the late outcomes of predictions that were made at one share."""
        if self._plan.spec.longest_delay_s == 0 or self._judge.decision().final:
            return
        share_at = self.state.share_at
        cohorts = [c for c in self._g.cohorts() if share_at(c.t) == share_at(c.end - 0.001)]
        self._matured = self._judge.mature(cohorts, now)

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
            self.save(phase=Phase.TAKING_BACK, outcome=decision.action.value, reason=self._why(decision))
            self._conclude()
        elif state.phase is Phase.PAUSED or not (self._seen or self._matured) or not decision.step_ready:
            self.save()
        elif last and decision.action is Action.PROMOTE:
            self._state = self.state.moving(self._g.clock(), None)
            self.save(phase=Phase.PROMOTING, outcome=decision.action.value, reason=decision.reason)
            self._conclude()
        elif not last:
            share = self._plan.shares[state.step + 1]
            self.note(f"version {state.version} gets {share:.0%} of the traffic")
            self.intend(share, step=state.step + 1)
            self.settle()
        else:
            self.save()

    def conclude(self, phase: Phase, action: Action, reason: str) -> None:
        """Writes a person's decision down; :meth:`resume` does it."""
        self._state = self.state.moving(self._g.clock(), None)
        self.save(phase=phase, outcome=action.value, reason=reason)

    def overrule(self, phase: Phase, action: Action, reason: str) -> None:
        """A person's word about a promoted version: enough watched, or back with it."""
        if phase is Phase.PROMOTING:
            self.note(f"its outcomes are not watched on: {reason}")
            self.save(phase=Phase.DONE)
        else:
            self.save(phase=Phase.WITHDRAWING, outcome=action.value, reason=reason)

    def _why(self, decision: Decision) -> str:
        more = self._g.explain(decision)
        return f"{decision.reason}; {more}" if more else decision.reason

    def watch(self) -> None:
        """After the promotion: counts what has matured, and takes the version back if its outcomes are worse."""
        now = self._g.clock()
        if not Judge.matches(self._plan.spec, self.state.judge):
            self.note("the canary's configuration has changed: the outcomes of the promoted version are not watched on")
            self._judge = Judge(self._plan.spec)
            return self.save(phase=Phase.DONE)
        self._mature(now)
        if self._matured:
            self._g.journal(self.state.started, [], self._matured, None)
        decision, ends = self._judge.decision(), self._judge.watch_ends
        if decision.final:
            self.save(phase=Phase.WITHDRAWING, outcome=decision.action.value, reason=decision.reason, attended=now)
            return self._conclude()
        if ends is None or now >= ends + self._plan.spec.no_data_timeout_s:
            outcomes = sum(item.n_canary for item in decision.metrics if item.kind == "watch")
            self.note(f"version {self.state.version} stays: {outcomes} outcomes were watched after its promotion")
            return self.save(phase=Phase.DONE, attended=now)
        return self.save(attended=now)

    # --- concluding

    def _conclude(self) -> None:
        """Does what the phase says, as often as it takes."""
        if self.state.phase is Phase.PROMOTING:
            self._g.traffic.promote(self.state.version)
            try:
                self._g.ledger.promoted(self.state.version)
            except MlcicdError as error:
                self.save(phase=Phase.REVERTING, outcome=Action.ROLLBACK.value, reason=error.one_line())
                self._revert()
                raise
            self._promoted()
        elif self.state.phase is Phase.TAKING_BACK:
            self._g.traffic.take_back()
            self._done(expected=None)
        elif self.state.phase in (Phase.REVERTING, Phase.WITHDRAWING):
            self._revert()
        elif self.state.phase is Phase.WATCHING:
            self._still_live()

    def _promoted(self) -> None:
        """Ends the rollout, or begins the watch over outcomes that are still to come."""
        if self._plan.spec.longest_delay_s == 0 or self._judge.decision().final:
            # A person promoted what the judge had given up, or there is nothing to wait for.
            return self._done(expected=self.state.version)
        self._read_back(self.state.version)
        now = math.ceil(self._g.clock() * 1000) / 1000
        self._judge.promoted(now)
        self._g.journal(self.state.started, [], [], now)
        self._state = self.state.moving(now, 1.0)
        self.note(f"version {self.state.version} is promoted; the outcomes of its predictions are watched")
        return self.save(phase=Phase.WATCHING, intended=1.0, observed=1.0, promoted=now)

    def _still_live(self) -> None:
        weights = self._g.traffic.look()
        if weights.live != self.state.version:
            self.note(f"version {self.state.version} was taken out by another command: its outcomes are not watched on")
            self.save(phase=Phase.DONE, outcome=Action.ROLLBACK.value, reason=self._notes[-1])

    def _revert(self) -> None:
        """Takes a promotion back: one whose outcomes turned out worse, or that the ledger refused or did not answer to.
        It may have written some of that one, or all."""
        self._g.traffic.revert()
        self._g.ledger.withdrawn(self.state.version, self.state.reason)
        self._done(expected=self.state.champion)

    def _done(self, *, expected: str | None) -> None:
        """Reads back who is live, tells the ledger, and ends the rollout."""
        weights, state = self._read_back(expected), self.state
        if state.outcome != Action.PROMOTE and state.phase not in (Phase.REVERTING, Phase.WITHDRAWING):
            self._g.ledger.taken_back(state.version, state.outcome, state.reason)
        share = 1.0 if weights.live == state.version else 0.0
        self.save(phase=Phase.DONE, intended=share, observed=share)

    def _read_back(self, expected: str | None) -> Weights:
        state, weights = self.state, self._g.traffic.look()
        if (expected is not None and weights.live != expected) or weights.canary == state.version:
            raise ServiceError(
                f"version {expected or state.champion} was to be live, and {weights.live or 'none'} is",
                why="The weights were read back.",
                remedy="run the same command again; `mlcicd status` shows what is live",
            )
        return weights


def judge_of(plan: Plan, state: RolloutState | None) -> Judge:
    """The judge with the state's evidence; a new one when that was gathered by other rules."""
    if state is None or not Judge.matches(plan.spec, state.judge):
        return Judge(plan.spec)
    return Judge.from_state(plan.spec, state.judge)


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= _SAME_SHARE and (a == 0) == (b == 0)
