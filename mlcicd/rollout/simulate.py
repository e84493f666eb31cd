"""Seeded streams of windows, and how often and how soon the judge decides on them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from mlcicd.core.errors import InputError
from mlcicd.rollout.decision import Action
from mlcicd.rollout.eprocess import Array
from mlcicd.rollout.judge import Judge
from mlcicd.rollout.labels import Cohort
from mlcicd.rollout.spec import JudgeSpec
from mlcicd.rollout.windows import Arm, Histogram, Window

# Bins at the champion's quantiles, finer towards the slow end.
REFERENCE_LEVELS = (*(i / 20 for i in range(1, 20)), 0.975, 0.99, 0.995, 0.999)


_WATCHED_COHORTS = 200


@dataclass(frozen=True, slots=True)
class Stream:
    """Synthetic traffic.

    Args:
        requests_per_minute: of both arms together.
        even: requests come evenly and are split evenly, rather than by a Poisson process split at random.
        window_s: length of a window, seconds.
        steps: the canary's share, step after step.
        champion_error: error rate of the champion at the start.
        champion_error_end: ... at the end of `drift_s`, reached in a straight line; None: it stays.
        drift_s: seconds the drift takes.
        canary_error_ratio: the canary's error rate over the champion's at the same time.
        burst_cv: coefficient of variation of a gamma factor on the error rate, new each minute in each arm.
        actual_share: the share the canary really gets, as a factor of the intended one.
        latency: draw latencies (log-normal, median 55 ms, sigma 0.5).
        latency_factor: the canary's latencies over the champion's.
        tail_factor: ... of those beyond the champion's p95 only.
        scores: draw scores (logistic of a normal with mean -1 and variance 1).
        score_shift: added to the canary's scores before the logistic function.
        rates: further rates by name: (champion's, canary's).
        later_rates: the canary's rates from its promotion on, by name, where they differ from `rates`.
    """

    requests_per_minute: float = 3000.0
    window_s: float = 10.0
    steps: tuple[float, ...] = (0.1,)
    champion_error: float = 0.005
    champion_error_end: float | None = None
    drift_s: float = 3600.0
    canary_error_ratio: float = 1.0
    burst_cv: float = 0.0
    actual_share: float = 1.0
    even: bool = False
    latency: bool = False
    latency_factor: float = 1.0
    tail_factor: float = 1.0
    scores: bool = False
    score_shift: float = 0.0
    rates: dict[str, tuple[float, float]] = field(default_factory=dict)
    later_rates: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.requests_per_minute > 0 and self.window_s > 0 and self.drift_s > 0):
            raise InputError("a simulated stream needs requests, and windows longer than nothing")
        if not self.steps or not all(0 < share * self.actual_share <= 1 for share in self.steps):
            raise InputError("the steps of a simulated stream are shares in (0, 1]")
        worst = max(self.champion_error, self.champion_error_end or 0.0) * max(1.0, self.canary_error_ratio)
        if not (self.champion_error >= 0 and self.canary_error_ratio >= 0 and worst <= 1):
            raise InputError("an error rate of the simulated stream is outside [0, 1]")

    def error_rate(self, t: float) -> float:
        """The champion's error rate at time `t` in seconds from the start."""
        if self.champion_error_end is None:
            return self.champion_error
        part = min(t / self.drift_s, 1.0)
        return self.champion_error + part * (self.champion_error_end - self.champion_error)


class Traffic:
    """Draws a stream's windows, one at a time, at whatever share is asked for."""

    def __init__(self, stream: Stream, seed: int | np.random.SeedSequence) -> None:
        self.stream = stream
        self._rng = np.random.default_rng(seed)
        self._t = 0.0
        self._minute = -1
        self._bursts = (1.0, 1.0)
        self._latency_edges = tuple(math.exp(4 + 0.5 * z) for z in _normal_quantiles())
        self._score_edges = tuple(1 / (1 + math.exp(1 - z)) for z in _normal_quantiles())

    @property
    def t(self) -> float:
        """Seconds from the start."""
        return self._t

    def draw(self, share: float) -> Window:
        """The next window, with the canary meant to get `share`."""
        stream, rng = self.stream, self._rng
        expected = stream.requests_per_minute * stream.window_s / 60
        total = round(expected) if stream.even else int(rng.poisson(expected))
        actual = share * stream.actual_share
        n_b = round(total * actual) if stream.even else int(rng.binomial(total, actual))
        if stream.burst_cv > 0 and int(self._t // 60) != self._minute:
            self._minute = int(self._t // 60)
            shape = 1 / stream.burst_cv**2
            self._bursts = (rng.gamma(shape) / shape, rng.gamma(shape) / shape)
        error = stream.error_rate(self._t)
        champion = self._arm(total - n_b, error * self._bursts[0], canary=False)
        canary = self._arm(n_b, error * stream.canary_error_ratio * self._bursts[1], canary=True)
        window = Window(self._t, champion, canary, share)
        self._t += stream.window_s
        return window

    def outcomes(self, seconds: float) -> Cohort:
        """The outcomes of what the canary answers in the next `seconds`, when it has been promoted."""
        n = int(self._rng.poisson(self.stream.requests_per_minute * seconds / 60))
        rates = {name: self.stream.later_rates.get(name, pair[1]) for name, pair in self.stream.rates.items()}
        found = Cohort(self._t, seconds, canary={name: (n, int(self._rng.binomial(n, p))) for name, p in rates.items()})
        self._t += seconds
        return found

    def _arm(self, n: int, error: float, *, canary: bool) -> Arm:
        stream, rng = self.stream, self._rng
        return Arm(
            requests=n,
            errors=int(rng.binomial(n, min(error, 1.0))),
            latency_ms=_bins(self._latency_edges, self._latencies(n, canary)) if stream.latency else None,
            scores=_bins(self._score_edges, self._scores(n, canary)) if stream.scores else None,
            rates={name: (n, int(rng.binomial(n, p[canary]))) for name, p in stream.rates.items()},
        )

    def _latencies(self, n: int, canary: bool) -> Array:
        values = self._rng.lognormal(4, 0.5, n)
        if not canary:
            return values
        p95 = math.exp(4 + 0.5 * 1.6448536269514722)
        return np.asarray(np.where(values > p95, values * self.stream.tail_factor, values) * self.stream.latency_factor)

    def _scores(self, n: int, canary: bool) -> Array:
        logits = self._rng.normal(-1 + (self.stream.score_shift if canary else 0.0), 1, n)
        return np.asarray(1 / (1 + np.exp(-logits)))


@dataclass(frozen=True, slots=True)
class Run:
    """How one simulated rollout ended; `withdrawn`: it was promoted, and taken back by the watch after it."""

    action: Action
    minutes: float
    canary_requests: int
    canary_errors: int
    held: bool
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class OperatingCharacteristics:
    """How simulated rollouts ended: shares of all runs; medians and means over those that were decided.

    Args:
        undecided: neither promoted nor rolled back nor inconclusive when the time was up.
        held: the judge asked to hold at some time.
        withdrawn: promoted, and taken back by the watch over its outcomes.
        canary_requests, canary_errors, minutes: (median, mean) until rollback or promotion; NaN when there
            was none.
    """

    runs: int
    promoted: float
    rolled_back: float
    inconclusive: float
    undecided: float
    held: float
    withdrawn: float
    canary_requests: tuple[float, float]
    canary_errors: tuple[float, float]
    minutes: tuple[float, float]


def windows(stream: Stream, count: int, seed: int = 0) -> Iterator[Window]:
    """`count` windows of a stream, each step taking an equal part of them."""
    traffic = Traffic(stream, seed)
    for i in range(count):
        yield traffic.draw(stream.steps[i * len(stream.steps) // count])


def simulate_rollout(
    spec: JudgeSpec, stream: Stream, seed: int | np.random.SeedSequence, max_windows: int = 360
) -> Run:
    """One rollout: from step to step as the judge allows, promoted only from the last one. Late outcomes are known
    when they have matured, also those that are watched after the promotion."""
    traffic, judge, step = Traffic(stream, seed), Judge(spec), 0
    unripe: list[Cohort] = []
    requests = errors = 0
    action, held = Action.CONTINUE, False
    for count in range(1, max_windows + 1):
        window = traffic.draw(stream.steps[step])
        requests, errors = requests + window.canary.requests, errors + window.canary.errors
        decision = judge.update(window)
        if spec.longest_delay_s > 0:
            now = window.t + stream.window_s
            cohort = Cohort.of(window, stream.window_s)
            unripe = [c for c in unripe if c.end + spec.longest_delay_s > window.t] + ([cohort] if cohort else [])
            judge.mature(unripe, now)
            decision = judge.decision()
        action, held = decision.action, held or decision.action is Action.HOLD
        last = step == len(stream.steps) - 1
        if decision.final or (action is Action.PROMOTE and last):
            withdrawn = action is Action.PROMOTE and _withdrawn(judge, traffic, unripe)
            return Run(action, count * stream.window_s / 60, requests, errors, held, withdrawn)
        if decision.step_ready and not last:
            step += 1
            judge.next_step(stream.steps[step])
    ended = Action.HOLD if action is Action.HOLD else Action.CONTINUE
    return Run(ended, max_windows * stream.window_s / 60, requests, errors, held)


def _withdrawn(judge: Judge, traffic: Traffic, unripe: list[Cohort]) -> bool:
    """Whether the watch after the promotion takes the version back."""
    spec, began = judge.spec, traffic.t
    judge.promoted(began)
    if judge.watch_ends is None:
        return False
    cohorts = list(unripe)
    # Outcomes of a day in ten seconds each would cost minutes, and say the same.
    every = max(traffic.stream.window_s, spec.watch_s / _WATCHED_COHORTS)
    while traffic.t < began + spec.watch_s:
        cohorts.append(traffic.outcomes(every))
    for now in [cohort.end + spec.longest_delay_s for cohort in cohorts]:
        judge.mature([c for c in cohorts if now - 2 * spec.longest_delay_s - every <= c.end <= now], now)
        if judge.decision().final:
            return True
    return False


def simulate(
    spec: JudgeSpec, stream: Stream, *, runs: int = 200, seed: int = 0, max_windows: int = 360
) -> OperatingCharacteristics:
    """Runs many seeded rollouts; the same arguments give the same answer."""
    if runs < 1 or max_windows < 1:
        raise InputError("a simulation needs at least one run of one window")
    seeds = np.random.SeedSequence(seed).spawn(runs)
    return summarise([simulate_rollout(spec, stream, each, max_windows) for each in seeds])


def summarise(results: list[Run]) -> OperatingCharacteristics:
    """Shares, medians and means over runs."""
    ended = [run for run in results if run.action in (Action.PROMOTE, Action.ROLLBACK)]

    def part(*actions: Action) -> float:
        return sum(run.action in actions for run in results) / len(results)

    def typical(values: list[float]) -> tuple[float, float]:
        return (float(np.median(values)), float(np.mean(values))) if values else (math.nan, math.nan)

    return OperatingCharacteristics(
        runs=len(results),
        promoted=part(Action.PROMOTE),
        rolled_back=part(Action.ROLLBACK),
        inconclusive=part(Action.INCONCLUSIVE),
        undecided=part(Action.CONTINUE, Action.HOLD),
        held=sum(run.held for run in results) / len(results),
        withdrawn=sum(run.withdrawn for run in results) / len(results),
        canary_requests=typical([run.canary_requests for run in ended]),
        canary_errors=typical([run.canary_errors for run in ended]),
        minutes=typical([run.minutes for run in ended]),
    )


def _bins(edges: tuple[float, ...], values: Array) -> Histogram:
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return Histogram(edges, tuple(counts.tolist()))


def _normal_quantiles() -> list[float]:
    from statistics import NormalDist

    return [NormalDist().inv_cdf(level) for level in REFERENCE_LEVELS]
