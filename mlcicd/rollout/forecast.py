"""Before a rollout: how many requests and minutes each decision will need at the given traffic.

The expected counts are fed to the very factors the judge uses, so that the answer includes what mixing over
unknown effects costs. It is the time at which the expected log-evidence reaches its threshold: about the
mean; half of all rollouts are decided sooner.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlcicd.core.errors import InputError
from mlcicd.rollout.delayed import log_threshold as delayed_threshold
from mlcicd.rollout.eprocess import Array, bernoulli_log_factors, log_mixture, rate_log_factors
from mlcicd.rollout.histograms import GOOD_LOG_WEIGHTS, HistogramEvidence
from mlcicd.rollout.rates import GOOD_THETAS, HARM_LOG_WEIGHTS, HARM_THETAS, good_alternatives, limit_alternatives
from mlcicd.rollout.spec import JudgeSpec, MetricSpec
from mlcicd.rollout.windows import Histogram

_HORIZON_MINUTES = 60.0 * 24 * 365


@dataclass(frozen=True, slots=True)
class Step:
    """A share of traffic for some minutes; the last step of a plan goes on for as long as it takes."""

    share: float
    minutes: float

    def __post_init__(self) -> None:
        if not (0 < self.share < 1 and self.minutes > 0):
            raise InputError("a step has a share strictly between 0 and 1, for more than 0 minutes")


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one decision will take.

    Args:
        metric: its name.
        question: `harm` (to roll back a canary that is worse by `effect`) or `promote` (an equal one).
        effect: factor on the rate or on the measured values; 1 for `promote`.
        canary_requests: expected; infinite when it can never be decided.
        minutes: expected, from the first request until its outcome is known; infinite likewise.
        decidable: within the spec's `max_duration_s` (or ever, if there is none).
    """

    metric: str
    question: str
    effect: float
    canary_requests: float
    minutes: float
    decidable: bool


def forecast(
    spec: JudgeSpec,
    *,
    requests_per_minute: float,
    steps: Sequence[Step],
    rates: Mapping[str, float],
    histograms: Mapping[str, Histogram] | None = None,
    effects: Sequence[float] = (1.5, 2.0, 5.0),
    histogram_effects: Sequence[float] = (1.1, 1.25, 2.0),
) -> tuple[Forecast, ...]:
    """Expected requests and minutes for each metric with a known champion; metrics without one are left out.

    Args:
        spec: what will be judged by.
        requests_per_minute: of both arms together.
        steps: the traffic plan.
        rates: the champion's rate by source (`errors`, or a name).
        histograms: the champion's latencies or scores by source.
        effects: factors on rates; for `higher` is better the canary's rate is divided by them.
        histogram_effects: factors on measured values.

    Raises:
        InputError: no traffic, no step, or a rate outside (0, 1).
    """
    if not (math.isfinite(requests_per_minute) and requests_per_minute > 0) or not steps:
        raise InputError("a forecast needs traffic and at least one step")
    plan = _Plan(spec, requests_per_minute, tuple(steps))
    found: list[Forecast] = []
    for metric in spec.metrics:
        if metric.type == "rate" and metric.source in rates:
            found += _rate_forecasts(plan, metric, rates[metric.source], effects)
        elif metric.type == "histogram" and metric.source in (histograms or {}):
            found += _histogram_forecasts(plan, metric, (histograms or {})[metric.source], histogram_effects)
    return tuple(found)


@dataclass(frozen=True)
class _Plan:
    spec: JudgeSpec
    requests_per_minute: float
    steps: tuple[Step, ...]

    def decide(
        self, asked: tuple[str, str, float], evidence: Sequence[_Mixture], threshold: float, delay_s: float = 0.0
    ) -> Forecast:
        """When expected evidence reaches its threshold.

        Of two mixtures, harm needs both (worse than the champion, and than the floor), and promotion takes their
        mean, as the judge does. `asked` is the metric, the question and the effect. What is evidence is known
        `delay_s` later, and until then the canary goes on answering.
        """
        minutes = np.concatenate([[0.0], np.geomspace(1 / 60, _HORIZON_MINUTES, 4000)])
        logs = [self._log_evidence(minutes, mixture) for mixture in evidence]
        mean = np.logaddexp.reduce(logs) - math.log(len(logs))
        log_e = np.minimum.reduce(logs) if asked[1] == "harm" else mean
        reached = log_e >= threshold
        if not reached.any():
            return Forecast(*asked, math.inf, math.inf, False)
        at = float(minutes[int(np.argmax(reached))]) + delay_s / 60
        limit = math.inf if self.spec.max_duration_s is None else self.spec.max_duration_s / 60
        return Forecast(*asked, math.ceil(self._canary_requests(at)), at, at <= limit)

    def _log_evidence(self, minutes: Array, mixture: _Mixture) -> Array:
        products = np.zeros((len(minutes), len(mixture.log_weights)))
        for spent, growth in zip(self._spent(minutes), mixture.growth, strict=True):
            products += spent[:, None] * self.requests_per_minute * growth
        return log_mixture(products, mixture.log_weights)

    def _canary_requests(self, minutes: float) -> float:
        spent = self._spent(np.array([minutes]))
        return sum(float(s[0]) * self.requests_per_minute * t.share for s, t in zip(spent, self.steps, strict=True))

    def _spent(self, minutes: Array) -> list[Array]:
        """Minutes spent in each step by then."""
        found, begun = [], 0.0
        for i, step in enumerate(self.steps):
            length = math.inf if i == len(self.steps) - 1 else step.minutes
            found.append(np.clip(minutes - begun, 0.0, length))
            begun += step.minutes
        return found


@dataclass(frozen=True)
class _Mixture:
    """Expected log factors of one request, by step (each (K,)), and the log weights (K,)."""

    growth: Sequence[Array]
    log_weights: Array


def _rate_forecasts(plan: _Plan, metric: MetricSpec, rate: float, effects: Sequence[float]) -> list[Forecast]:
    if not 0 < rate < 1:
        raise InputError(f"the champion's {metric.source} rate must be between 0 and 1, not {rate}")
    found = []
    for effect in effects:
        canary = min(rate * effect, 1.0) if metric.sense == "lower" else rate / effect
        evidence = [_against_champion(plan, metric, rate, canary, metric.tolerance, HARM_THETAS, HARM_LOG_WEIGHTS)]
        if metric.floor > 0:
            evidence.append(_against_floor(plan, metric.floor, canary, HARM_THETAS, HARM_LOG_WEIGHTS))
        late = metric.label_delay_s > 0
        threshold = delayed_threshold(plan.spec, metric) if late else plan.spec.log_threshold(metric.weight)
        found.append(plan.decide((metric.name, "harm", effect), evidence, threshold, metric.label_delay_s))
    if metric.margin is not None:
        evidence = [_against_champion(plan, metric, rate, rate, metric.margin, *good_alternatives(metric.margin))]
        if metric.floor > 0:
            even = np.full(len(GOOD_THETAS), -math.log(len(GOOD_THETAS)))
            evidence.append(_against_floor(plan, metric.floor, rate, GOOD_THETAS, even))
        gate = plan.spec.log_promotion_threshold
        found.append(plan.decide((metric.name, "promote", 1.0), evidence, gate, metric.label_delay_s))
    return found


def _against_champion(
    plan: _Plan, metric: MetricSpec, p_a: float, p_b: float, ratio: float, thetas: Array, log_weights: Array
) -> _Mixture:
    growth = []
    for step in plan.steps:
        arms = [p_a * (1 - step.share), 1 - step.share, p_b * step.share, step.share]
        if metric.sense == "higher":
            arms = arms[2:] + arms[:2]
        growth.append(rate_log_factors(arms[0], arms[1], arms[2], arms[3], ratio, thetas))
    return _Mixture(growth, log_weights)


def _against_floor(plan: _Plan, floor: float, p_b: float, thetas: Array, log_weights: Array) -> _Mixture:
    alternatives = limit_alternatives(floor, thetas)
    growth = [bernoulli_log_factors(p_b * step.share, step.share, floor, alternatives) for step in plan.steps]
    return _Mixture(growth, log_weights)


def _histogram_forecasts(
    plan: _Plan, metric: MetricSpec, champion: Histogram, effects: Sequence[float]
) -> list[Forecast]:
    if champion.total == 0:
        raise InputError(f"the champion's histogram for {metric.name!r} is empty")
    found = []
    threshold = plan.spec.log_threshold(metric.weight)
    for effect in effects:
        factor = 1 / effect if metric.sense == "higher" else effect
        parts = [_histogram_growth(metric, champion, factor, step.share) for step in plan.steps]
        weights = parts[0].harm_terms()[1]
        mixture = _Mixture([part.harm_terms()[0] for part in parts], weights)
        found.append(plan.decide((metric.name, "harm", effect), [mixture], threshold))
    if metric.margin is not None and metric.sense != "same":
        parts = [_histogram_growth(metric, champion, 1.0, step.share) for step in plan.steps]
        gate = plan.spec.log_promotion_threshold
        levels = [
            plan.decide(
                (metric.name, "promote", 1.0), [_Mixture([part.good[i] for part in parts], GOOD_LOG_WEIGHTS)], gate
            )
            for i in range(len(metric.levels))
        ]
        found.append(max(levels, key=lambda level: level.minutes))
    return found


def _histogram_growth(metric: MetricSpec, champion: Histogram, factor: float, share: float) -> HistogramEvidence:
    """The evidence of one request in expectation, with the champion's distribution well known."""
    evidence = HistogramEvidence(metric)
    p = np.array(champion.counts, dtype=np.float64) / champion.total
    evidence.edges, evidence.past_a, evidence.past_b = champion.edges, p * 1e9, np.zeros(len(p))
    evidence.take(p * (1 - share), scaled(champion.edges, p, factor) * share)
    return evidence


def scaled(edges: tuple[float, ...], probabilities: Array, factor: float) -> Array:
    """The bins' probabilities when every value is multiplied by `factor` (even spread within bins)."""
    cumulative = np.concatenate([[0.0], np.cumsum(probabilities)])
    array = np.array(edges)
    # The open bins get ends: half a bin's reach below, and the last edge doubled above.
    low = min(0.0, edges[0]) if edges[0] > 0 else edges[0] - max(abs(edges[0]), 1.0)
    high = edges[-1] + max(abs(edges[-1]), 1.0)
    points = np.concatenate([[low], array, [high]])
    beyond = np.interp(array / factor, points, cumulative)
    return np.diff(np.concatenate([[0.0], beyond, [1.0]]))
