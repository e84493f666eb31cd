"""The judge: takes windows, answers what to do, and shows its evidence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from mlcicd.core.errors import InputError
from mlcicd.rollout.decision import Action, Decision, MetricEvidence, breach_sentence, exp
from mlcicd.rollout.delayed import Delayed
from mlcicd.rollout.delayed import log_threshold as delayed_threshold
from mlcicd.rollout.labels import Cohort
from mlcicd.rollout.sample_ratio import NAME as SAMPLE_RATIO
from mlcicd.rollout.sample_ratio import SampleRatio
from mlcicd.rollout.spec import JudgeSpec, MetricSpec
from mlcicd.rollout.tracks import Track, tracks
from mlcicd.rollout.windows import Window

STATE_VERSION = 1


class Judge:
    """Watches a canary, window by window.

    Whenever it is asked, the chance that it has ever alarmed on a canary as good as tolerated is at most
    `spec.alpha`, and that it has ever called a canary beyond some promotion margin promotable at most
    `spec.beta`. It has no clock and does no I/O: time is the windows' own.
    """

    def __init__(self, spec: JudgeSpec) -> None:
        self.spec = spec
        self._tracks = tracks(spec)
        self._late: dict[str, Delayed] = {}
        for name, track in self._tracks.items():
            if isinstance(track.spec, MetricSpec) and track.spec.label_delay_s > 0:
                track.threshold = delayed_threshold(spec, track.spec)
                self._late[name] = Delayed.of(track, spec)
        self._promoted: float | None = None
        self._t: float | None = None
        self._now: float | None = None
        self._started: float | None = None
        self._idle_since: float | None = None
        self._windows = 0
        self._canary_windows = 0
        self._canary_requests = 0
        self._step_windows = 0
        self._split = SampleRatio()
        self._final: tuple[Action, str] | None = None

    @property
    def last_t(self) -> float | None:
        """Time of the last window consumed; the next one must come after it."""
        return self._t

    def update(self, window: Window) -> Decision:
        """Consumes one window.

        Raises:
            InputError: it does not come after the last one, its bins changed, or a guard asks about a value
                they do not reach. The judge's state is then what it was before.
        """
        if self._t is not None and window.t <= self._t:
            raise InputError(
                f"the window at t={window.t:g} does not come after the last one consumed (t={self._t:g})",
                why="Each window counts once; counted twice, its evidence would be, too.",
                remedy="pass only windows later than `last_t`",
            )
        for track in self._tracks.values():
            track.check(window)
        self._consume(window)
        return self._decide()

    def mature(self, cohorts: Iterable[Cohort], now: float) -> tuple[Cohort, ...]:
        """Counts the late outcomes that have matured by `now`: `label_delay_s` after the end of their cohort.

        Cohorts that were counted before may be given again, and with counts that have changed since: they are not
        counted twice. Those of one metric count in the order of time; one that turns up after a later one was counted
        does not count.

        Returns:
            What was counted by this call: cohorts with the metrics that were.
        """
        if not math.isfinite(now):
            raise InputError(f"a time must be a finite number of seconds, not {now}")
        ordered = sorted(cohorts, key=lambda cohort: cohort.t)
        found: dict[float, set[str]] = {}
        for late in self._late.values():
            for t in late.mature(ordered, now, self._promoted, self.spec.watch_s):
                found.setdefault(t, set()).add(late.spec.source)
        self._now = now if self._now is None else max(now, self._now)
        return tuple(cohort.only(found[cohort.t]) for cohort in ordered if cohort.t in found)

    def promoted(self, t: float) -> None:
        """The canary became the champion at `t`: from here on only late outcomes are judged, of what was predicted
        until then by both, and of what is predicted for `watch_s` after it by the new champion alone."""
        self._promoted = t if self._promoted is None else self._promoted

    @property
    def watch_ends(self) -> float | None:
        """When the last outcome that is watched after the promotion has matured; None before it, or without any."""
        if self._promoted is None or not self._late:
            return None
        return self._promoted + self.spec.watch_s + self.spec.longest_delay_s

    def idle(self, t: float) -> Decision:
        """Tells the judge that by time `t` (seconds, as in windows) there was no further window to consume.

        Windows that turn up later, from before `t`, may still be passed to :meth:`update`.
        """
        if not math.isfinite(t):
            raise InputError(f"a time must be a finite number of seconds, not {t}")
        if self._idle_since is None:
            self._idle_since = t if self._t is None else self._t
        self._started = t if self._started is None else self._started
        self._now = t if self._now is None else max(t, self._now)
        return self._decide()

    def next_step(self, share: float) -> None:
        """The canary's share was changed: the sample-ratio test starts again, everything else goes on.

        Raises:
            InputError: `share` is outside [0, 1].
        """
        if not 0.0 <= share <= 1.0:
            raise InputError(f"the canary's share must be between 0 and 1, not {share}")
        self._step_windows = 0
        self._split.start(share)

    def acknowledge(self, name: str) -> None:
        """A person has looked at a hold on this metric (or `sample_ratio`): it is shown, but holds no longer.

        Raises:
            InputError: there is no such metric.
        """
        if name == SAMPLE_RATIO:
            self._split.acknowledged = True
        elif name in self._tracks:
            self._tracks[name].acknowledged = True
        else:
            raise InputError(f"the judge watches no {name!r}", why=f"It watches {', '.join(self._tracks)}.")

    def decision(self) -> Decision:
        """The decision as it stands, without consuming anything."""
        return self._decide()

    def _consume(self, window: Window) -> None:
        straddles = self._split.share is not None and self._split.share != window.share
        if self._split.share != window.share:
            self.next_step(window.share)
        self._started = window.t if self._started is None else self._started
        self._t = window.t
        self._now = window.t if self._now is None else max(window.t, self._now)
        self._windows += 1
        if window.canary.requests == 0 and window.share > 0:
            self._idle_since = window.t if self._idle_since is None else self._idle_since
        else:
            self._idle_since = None
        if window.canary.requests > 0:
            self._canary_windows += 1
            self._step_windows += 1
            self._canary_requests += window.canary.requests
        for name, track in self._tracks.items():
            if name not in self._late:
                self._note_missing(track, track.consume(window), window)
        # The window in which the share changed may hold requests from before the change.
        if self.spec.sample_ratio and not straddles:
            self._split.update(window.champion.requests, window.canary.requests)

    def _note_missing(self, track: Track, present: bool, window: Window) -> None:
        if present or window.share in (0.0, 1.0):
            track.missing_since = None
        elif track.missing_since is None and window.canary.requests > 0:
            track.missing_since = window.t

    def _decide(self) -> Decision:
        evidence = self._all_evidence()
        action, reason = self._final or self._choose(evidence)
        if action in (Action.ROLLBACK, Action.INCONCLUSIVE):
            self._final = (action, reason)
        calm = action in (Action.CONTINUE, Action.PROMOTE)
        return Decision(
            action=action,
            reason=reason,
            metrics=evidence,
            t=self._t,
            windows=self._windows,
            step_ready=calm and self._step_windows >= self.spec.step_windows,
        )

    def _choose(self, evidence: tuple[MetricEvidence, ...]) -> tuple[Action, str]:
        if self._promoted is not None:
            return self._choose_after(evidence)
        alarm = self._alarm(evidence)
        if alarm is not None:
            return alarm
        waiting = self._waiting(evidence)
        if not waiting:
            return (
                Action.PROMOTE,
                "every metric that gates promotion is within its margin, on enough requests",
            )
        limit = self.spec.max_duration_s
        if limit is not None and self._over():
            action = Action.INCONCLUSIVE if self.spec.undecided == "inconclusive" else Action.HOLD
            return action, f"{limit:g} s are over and it is still undecided: {waiting}"
        return Action.CONTINUE, waiting

    def _alarm(self, evidence: tuple[MetricEvidence, ...]) -> tuple[Action, str] | None:
        """What speaks against going on, the worst first."""
        for wanted, action in (("rollback", Action.ROLLBACK), ("hold", Action.HOLD)):
            lost = self._lost(self.spec.no_data_timeout_s if wanted == "rollback" else self.spec.no_data_hold_s)
            if lost:
                return action, lost
            for item in evidence:
                if item.breached and item.on_breach == wanted:
                    return action, breach_sentence(item)
        unlabelled = self._unlabelled()
        return (Action.HOLD, unlabelled) if unlabelled else None

    def _choose_after(self, evidence: tuple[MetricEvidence, ...]) -> tuple[Action, str]:
        """After the promotion: only what became of predictions counts."""
        for item in evidence:
            if item.breached and item.on_breach == "rollback" and (item.kind == "watch" or item.name in self._late):
                return Action.ROLLBACK, breach_sentence(item)
        return Action.CONTINUE, "promoted; the outcomes of its predictions are watched"

    def _lost(self, seconds: float) -> str:
        """What has been without data for longer than this, as a sentence, or nothing."""
        if self._now is None:
            return ""
        if self._idle_since is not None and self._now - self._idle_since >= seconds:
            return f"no request has reached the canary for {self._now - self._idle_since:g} s"
        for name, track in self._tracks.items():
            required = not isinstance(track.spec, MetricSpec) or track.spec.required
            since = track.missing_since if required and track.spec.breach == "rollback" else None
            if since is not None and self._now - since >= seconds:
                return f"{name}: no data for {self._now - since:g} s although the canary has requests"
        return ""

    def _unlabelled(self) -> str:
        """Which outcomes have been overdue for `no_data_timeout_s`, as a sentence, or nothing. It holds and does not
        roll back: a job that joins labels may be late without the canary's doing."""
        if self._now is None or self._started is None or self._canary_requests == 0:
            return ""
        for name, late in self._late.items():
            overdue = late.overdue(self._now, self._started)
            if overdue >= self.spec.no_data_timeout_s and not self._over():
                return f"{name}: no outcome has come for {overdue:g} s beyond its label delay"
        return ""

    def _over(self) -> bool:
        limit = self.spec.max_duration_s
        if limit is None or self._now is None or self._started is None:
            return False
        return self._now - self._started >= limit

    def _waiting(self, evidence: tuple[MetricEvidence, ...]) -> str:
        """What promotion still lacks, as a sentence; empty when nothing."""
        gates = [item for item in evidence if item.promotable is not None]
        if not gates:
            return "no metric has a promotion margin, so there is nothing that could decide for promotion"
        open_gates = [item.name for item in gates if not item.promotable]
        if open_gates:
            return f"not yet enough evidence that {', '.join(open_gates)} stay within the promotion margin"
        unseen = [
            item.name
            for item in evidence
            if item.kind == "metric" and item.n_canary == 0 and not self._required(item.name)
        ]
        if unseen:
            return f"nothing was counted of {', '.join(unseen)} yet"
        if self._canary_windows < self.spec.min_windows:
            return f"{self._canary_windows} of at least {self.spec.min_windows} windows seen"
        if self._canary_requests < self.spec.min_requests:
            return f"{self._canary_requests} of at least {self.spec.min_requests} canary requests seen"
        return ""

    def _required(self, name: str) -> bool:
        spec = self._tracks[name].spec
        return not isinstance(spec, MetricSpec) or spec.required

    def _all_evidence(self) -> tuple[MetricEvidence, ...]:
        items = [self._metric_evidence(name, track) for name, track in self._tracks.items()]
        if self.spec.sample_ratio:
            items.append(self._split_evidence())
        if self._promoted is not None:
            items += [late.evidence() for late in self._late.values()]
        return tuple(items)

    def _metric_evidence(self, name: str, track: Track) -> MetricEvidence:
        log_e = track.evidence.log_harm
        gate = self.spec.log_promotion_threshold
        n_champion, n_canary = track.evidence.trials
        return MetricEvidence(
            name=name,
            kind="metric" if isinstance(track.spec, MetricSpec) else "guard",
            log_e=log_e,
            peak_log_e=track.peak_harm,
            e_value=exp(log_e),
            threshold=exp(track.threshold),
            log_e_promote=track.evidence.log_good,
            threshold_promote=exp(gate) if track.gates else None,
            n_champion=n_champion,
            n_canary=n_canary,
            observed=track.evidence.observed(),
            breached=track.breached,
            promotable=track.peak_good >= gate if track.gates else None,
            on_breach=track.breach,
        )

    def _split_evidence(self) -> MetricEvidence:
        split, log_e = self._split, self._split.log_e
        threshold = split.log_threshold(self.spec.log_threshold(self.spec.sample_ratio_weight))
        return MetricEvidence(
            name=SAMPLE_RATIO,
            kind="sample_ratio",
            log_e=log_e,
            peak_log_e=split.peak,
            e_value=exp(log_e),
            threshold=exp(threshold),
            log_e_promote=None,
            threshold_promote=None,
            n_champion=split.champion,
            n_canary=split.canary,
            observed=split.observed(),
            breached=split.peak >= threshold,
            promotable=None,
            on_breach="inform" if split.acknowledged else "hold",
        )

    def state(self) -> dict[str, Any]:
        """Everything needed to go on later, as plain JSON; under 50 kB for a dozen metrics on fifty bins."""
        return {
            "version": STATE_VERSION,
            "spec_digest": self.spec.digest(),
            "t": self._t,
            "now": self._now,
            "started": self._started,
            "idle_since": self._idle_since,
            "windows": self._windows,
            "canary_windows": self._canary_windows,
            "canary_requests": self._canary_requests,
            "step_windows": self._step_windows,
            "split": self._split.state(),
            "final": None if self._final is None else [self._final[0].value, self._final[1]],
            "metrics": {name: track.state() for name, track in self._tracks.items()},
            "promoted": self._promoted,
            "late": {name: late.state() for name, late in self._late.items()},
        }

    @staticmethod
    def matches(spec: JudgeSpec, state: Mapping[str, Any]) -> bool:
        """Whether a state was gathered under this very spec; if not, the test has to start again."""
        return state.get("version") == STATE_VERSION and state.get("spec_digest") == spec.digest()

    @classmethod
    def from_state(cls, spec: JudgeSpec, state: Mapping[str, Any]) -> Judge:
        """A judge that goes on, to the last bit, where the one that gave `state` stopped.

        Raises:
            InputError: the state is of another spec (ask :meth:`matches` first) or damaged.
        """
        if not cls.matches(spec, state):
            raise InputError(
                "the saved evidence belongs to another canary specification",
                why="Evidence gathered under other rules has no guarantee under these.",
                remedy="start the canary again",
            )
        judge = cls(spec)
        try:
            judge._restore(state)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                "the saved evidence is damaged", why=str(error), remedy="start the canary again"
            ) from error
        return judge

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._t, self._now = state["t"], state["now"]
        self._started, self._idle_since = state["started"], state["idle_since"]
        self._windows, self._canary_windows = state["windows"], state["canary_windows"]
        self._canary_requests, self._step_windows = state["canary_requests"], state["step_windows"]
        self._split = SampleRatio(**state["split"])
        final = state["final"]
        self._final = None if final is None else (Action(final[0]), final[1])
        for name, track in self._tracks.items():
            track.load(state["metrics"][name])
        self._promoted = state["promoted"]
        for name, late in self._late.items():
            late.load(state["late"][name])
