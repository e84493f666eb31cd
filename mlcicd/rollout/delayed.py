"""A metric whose labels come late, while it is watched: before the promotion against the champion, after it against
what the champion had been."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlcicd.rollout.decision import MetricEvidence, exp
from mlcicd.rollout.labels import Cohort
from mlcicd.rollout.rates import RateEvidence
from mlcicd.rollout.spec import JudgeSpec, MetricSpec
from mlcicd.rollout.tracks import Track
from mlcicd.rollout.watch import WatchEvidence

# Of a late metric's part of alpha: the comparison of both arms, the reference, and the test after the promotion.
_TWO_ARMS, _REFERENCE, _AFTER = 0.5, 0.25, 0.25


def log_threshold(spec: JudgeSpec, metric: MetricSpec) -> float:
    """Where the comparison of both arms alarms."""
    return spec.log_threshold(metric.weight * _TWO_ARMS)


@dataclass
class Delayed:
    """One metric with a `label_delay_s`.

    Args:
        track: the comparison of both arms, which the judge shows and gates by like any other.
        watch: the test after the promotion.
        threshold: log e-value at which the latter alarms.
        until: end of the last cohort that was counted; what begins before it is not counted (again).
        seconds: how long that cohort lasted.
    """

    track: Track
    watch: WatchEvidence
    threshold: float
    until: float | None = None
    seconds: float = 0.0
    peak: float = 0.0

    @classmethod
    def of(cls, track: Track, spec: JudgeSpec) -> Delayed:
        assert isinstance(track.spec, MetricSpec)
        weight = track.spec.weight
        reference = WatchEvidence(track.spec, spec.log_threshold(weight * _REFERENCE))
        return cls(track, reference, spec.log_threshold(weight * _AFTER))

    @property
    def spec(self) -> MetricSpec:
        assert isinstance(self.track.spec, MetricSpec)
        return self.track.spec

    @property
    def breached(self) -> bool:
        return self.peak >= self.threshold

    def mature(self, cohorts: Sequence[Cohort], now: float, promoted: float | None, watch_s: float) -> list[float]:
        """Counts what has matured by `now`, each cohort once; returns the times of those that were counted.

        Args:
            cohorts: by time; those that were counted before may be among them.
            promoted: when the canary became the champion, or None.
            watch_s: predictions made later than this after the promotion are not watched any more.
        """
        counted = []
        for cohort in cohorts:
            if cohort.end + self.spec.label_delay_s > now:
                break
            if self.until is not None and cohort.t < self.until - 1e-6:
                continue
            if self._count(cohort, promoted, watch_s):
                counted.append(cohort.t)
                self.until, self.seconds = cohort.end, cohort.seconds
        return counted

    def _count(self, cohort: Cohort, promoted: float | None, watch_s: float) -> bool:
        source = self.spec.source
        canary, champion = cohort.canary.get(source), cohort.champion.get(source)
        if canary is None:
            return False
        if promoted is None or cohort.end <= promoted:
            return champion is not None and self._both(champion, canary)
        if cohort.t < promoted or cohort.t >= promoted + watch_s:
            # Made by whoever: the weights were moved in between; or long after the promotion.
            return False
        if self.watch.limit is None:
            # Cohorts come by time: the old champion's are all in.
            assert isinstance(self.track.evidence, RateEvidence)
            x_a, n_a, _, _ = self.track.evidence.counts
            self.watch.begin(x_a, n_a)
        n, x = canary
        self.watch.update(x, n)
        self.peak = max(self.peak, self.watch.log_harm)
        return True

    def _both(self, champion: tuple[int, int], canary: tuple[int, int]) -> bool:
        self.track.take((champion[1], champion[0]), (canary[1], canary[0]))
        return True

    def overdue(self, now: float, started: float) -> float:
        """For how many seconds outcomes have been due without any coming; not positive: none are."""
        since = started if self.until is None else self.until + self.seconds
        return now - since - self.spec.label_delay_s

    def evidence(self) -> MetricEvidence:
        """What the watch after the promotion knows."""
        log_e, (n_champion, n_canary) = self.watch.log_harm, self.watch.trials
        return MetricEvidence(
            name=f"{self.spec.name} after promotion",
            kind="watch",
            log_e=log_e,
            peak_log_e=self.peak,
            e_value=exp(log_e),
            threshold=exp(self.threshold),
            log_e_promote=None,
            threshold_promote=None,
            n_champion=n_champion,
            n_canary=n_canary,
            observed=self.watch.observed(),
            breached=self.breached,
            promotable=None,
            on_breach=self.track.breach,
        )

    def state(self) -> dict[str, Any]:
        return {"until": self.until, "seconds": self.seconds, "peak": self.peak, "watch": self.watch.state()}

    def load(self, state: dict[str, Any]) -> None:
        until = state["until"]
        self.until = None if until is None else float(until)
        self.seconds, self.peak = float(state["seconds"]), float(state["peak"])
        if not (math.isfinite(self.seconds) and math.isfinite(self.peak)):
            raise ValueError("a number in the state is not finite")
        self.watch.load(state["watch"])
