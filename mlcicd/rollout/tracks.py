"""One metric or guard while it is watched: which counts of a window are its, and how far its evidence is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from mlcicd.rollout.histograms import HistogramEvidence, QuantileGuard
from mlcicd.rollout.rates import RateEvidence, RateGuard
from mlcicd.rollout.spec import Breach, GuardSpec, JudgeSpec, MetricSpec
from mlcicd.rollout.windows import Arm, Histogram, Window

Evidence: TypeAlias = RateEvidence | HistogramEvidence | RateGuard | QuantileGuard


@dataclass
class Track:
    """One metric or guard while it is watched."""

    spec: MetricSpec | GuardSpec
    evidence: Evidence
    threshold: float
    peak_harm: float = 0.0
    peak_good: float = 0.0
    missing_since: float | None = None
    acknowledged: bool = False

    @property
    def breached(self) -> bool:
        return self.peak_harm >= self.threshold

    @property
    def gates(self) -> bool:
        return isinstance(self.spec, MetricSpec) and self.spec.margin is not None

    @property
    def breach(self) -> Breach:
        return "inform" if self.acknowledged and self.spec.breach == "hold" else self.spec.breach

    def check(self, window: Window) -> None:
        """Whether the window's bins fit this metric, before anything is counted.

        Raises:
            InputError: they do not.
        """
        if isinstance(self.evidence, HistogramEvidence | QuantileGuard):
            for arm in (window.champion, window.canary):
                histogram = _histogram(arm, self.spec.source)
                if histogram is not None:
                    self.evidence.check(histogram.edges)

    def consume(self, window: Window) -> bool:
        """Takes the window's counts for this metric; False when the window has none."""
        evidence, source = self.evidence, self.spec.source
        champion, canary = window.champion, window.canary
        if isinstance(evidence, HistogramEvidence | QuantileGuard):
            mine, theirs = _histogram(canary, source), _histogram(champion, source)
            if mine is None or mine.total == 0:
                return False
            if isinstance(evidence, QuantileGuard):
                evidence.update(mine)
            elif theirs is None or theirs.total == 0:
                return False
            else:
                evidence.update(theirs, mine)
        else:
            ours, base = _rate(canary, source), _rate(champion, source)
            if ours is None or ours[1] == 0:
                return False
            if isinstance(evidence, RateGuard):
                evidence.update(*ours)
            elif base is None or base[1] == 0:
                return False
            else:
                self.take(base, ours)
                return True
        self._note_peaks()
        return True

    def take(self, champion: tuple[int, int], canary: tuple[int, int]) -> None:
        """Takes a rate's (events, trials) of both arms."""
        assert isinstance(self.evidence, RateEvidence)
        self.evidence.update(*champion, *canary)
        self._note_peaks()

    def _note_peaks(self) -> None:
        self.peak_harm = max(self.peak_harm, self.evidence.log_harm)
        self.peak_good = max(self.peak_good, self.evidence.log_good or 0.0)

    def state(self) -> dict[str, Any]:
        return {
            "peak_harm": self.peak_harm,
            "peak_good": self.peak_good,
            "missing_since": self.missing_since,
            "acknowledged": self.acknowledged,
            "evidence": self.evidence.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.peak_harm, self.peak_good = float(state["peak_harm"]), float(state["peak_good"])
        self.missing_since, self.acknowledged = state["missing_since"], state["acknowledged"]
        self.evidence.load(state["evidence"])


def tracks(spec: JudgeSpec) -> dict[str, Track]:
    """Everything the spec watches, by name, with no evidence yet."""
    return {part.name: Track(part, _evidence(part, spec), spec.log_threshold(part.weight)) for part in spec.parts}


def _evidence(part: MetricSpec | GuardSpec, spec: JudgeSpec) -> Evidence:
    if isinstance(part, MetricSpec):
        return RateEvidence(part, temper=spec.temper) if part.type == "rate" else HistogramEvidence(part)
    return RateGuard(part) if part.quantile is None else QuantileGuard(part)


def _histogram(arm: Arm, source: str) -> Histogram | None:
    return arm.latency_ms if source == "latency" else arm.scores


def _rate(arm: Arm, source: str) -> tuple[int, int] | None:
    """(events, trials) of a rate, or None when the window does not have it."""
    if source == "errors":
        return arm.errors, arm.requests
    found = arm.rates.get(source)
    return None if found is None else (found[1], found[0])
