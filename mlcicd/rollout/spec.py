"""What the judge is asked to watch: metrics, guards, and how often it may be wrong."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

from mlcicd.core.digests import digest_json
from mlcicd.core.errors import ConfigError

MetricType = Literal["rate", "histogram"]
Direction = Literal["lower", "higher", "same"]
Breach = Literal["rollback", "hold", "inform"]


def _finite(value: float) -> bool:
    return math.isfinite(value)


def _require(condition: bool, what: str, where: str) -> None:
    if not condition:
        raise ConfigError(what, where=where)


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One comparison of canary and champion.

    Args:
        name: unique among metrics and guards.
        type: `rate` (events out of trials) or `histogram`.
        source: `errors`, `latency`, `scores`, or the name of an entry of the window's `rates`.
        direction: which way is better: `lower` (errors, latency), `higher` (a conversion rate), or `same`
            (any change is a change: prediction drift). None: `same` for scores, else `lower`.
        tolerance: how much worse than the champion is still accepted, as a factor >= 1: of the rate, or, for
            a histogram, of the measured value (a latency 1.1 times the champion's).
        margin: promotion needs evidence that the canary is less than this much worse: a factor > 1 of the
            rate or of the measured value; for `direction="same"`, the greatest accepted difference of means,
            in the metric's own unit. None: this metric does not gate promotion.
        floor: rates only: an event rate below this is harmless whatever the champion's is, in [0, 1).
        weight: this metric's part of alpha, relative to the others'.
        critical: a breach rolls back. None: yes, except for scores.
        on_breach: what a breach of a metric that is not critical does: `hold` the rollout, or only `inform`.
        levels: histograms only: the champion's quantiles that `margin` is about; each must pass.
        reference: histograms only: counts by bin of the champion before the canary, one per bin (edges + 1).
            It only lends power to the first windows.
        label_delay_s: rates only: seconds after a prediction until its outcome is known. Above 0 the metric is not
            read from windows as they come, but from cohorts (:mod:`mlcicd.rollout.labels`) that have matured.
        required: a canary with requests and without this metric's data is an alarm. If not, it only never passes.
    """

    name: str
    type: MetricType = "rate"
    source: str = "errors"
    direction: Direction | None = None
    tolerance: float = 1.0
    margin: float | None = None
    floor: float = 0.0
    weight: float = 1.0
    critical: bool | None = None
    on_breach: Literal["hold", "inform"] = "hold"
    levels: tuple[float, ...] = (0.5, 0.95)
    reference: tuple[float, ...] | None = None
    label_delay_s: float = 0.0
    required: bool = True

    def __post_init__(self) -> None:
        where = f"canary metric {self.name!r}"
        _require(bool(self.name), "a canary metric needs a name", where)
        _require(self.type in ("rate", "histogram"), f"unknown type {self.type!r}", where)
        _require(
            self.direction in (None, "lower", "higher", "same"),
            f"unknown direction {self.direction!r}",
            where,
        )
        _require(self.on_breach in ("hold", "inform"), f"unknown on_breach {self.on_breach!r}", where)
        if self.type == "histogram":
            _require(self.source in ("latency", "scores"), "a histogram's source is `latency` or `scores`", where)
        else:
            _require(self.source not in ("latency", "scores"), f"{self.source} is a histogram, not a rate", where)
            _require(self.sense != "same", "a rate is better `lower` or `higher`", where)
        _require(_finite(self.tolerance) and self.tolerance >= 1, "tolerance is a factor of at least 1", where)
        if self.margin is not None:
            least = 0.0 if self.sense == "same" else 1.0
            _require(_finite(self.margin) and self.margin > least, f"margin must be greater than {least:g}", where)
        _require(0 <= self.floor < 1, "floor is a rate in [0, 1)", where)
        _require(self.floor == 0 or (self.type == "rate" and self.sense == "lower"), "floor is for rates", where)
        _require(_finite(self.weight) and self.weight > 0, "weight must be positive", where)
        _require(bool(self.levels) and all(0 < q < 1 for q in self.levels), "levels are quantiles in (0, 1)", where)
        _require(
            _finite(self.label_delay_s) and self.label_delay_s >= 0,
            "label_delay_s can not be negative",
            where,
        )
        late = self.label_delay_s > 0
        _require(not late or (self.type == "rate" and self.source != "errors"), "label_delay_s is for outcomes", where)
        if self.reference is not None:
            usable = all(_finite(c) and c >= 0 for c in self.reference) and sum(self.reference) > 0
            _require(usable, "reference must be counts by bin", where)

    @property
    def sense(self) -> Direction:
        """The direction, defaults resolved."""
        return self.direction or ("same" if self.source == "scores" else "lower")

    @property
    def breach(self) -> Breach:
        """What a breach of this metric does, defaults resolved."""
        critical = self.source != "scores" if self.critical is None else self.critical
        return "rollback" if critical else self.on_breach


@dataclass(frozen=True, slots=True)
class GuardSpec:
    """One absolute limit on the canary alone, whatever the champion does.

    Args:
        name: unique among metrics and guards.
        source: `errors`, a name in `rates`, or with `quantile`: `latency` or `scores`.
        limit: the rate, or the value of the quantile (ms for latency), that must hold.
        quantile: None for a rate; else which quantile `limit` is about, in (0, 1).
        direction: `lower`: at most `limit`; `higher`: at least (rates only).
        weight: this guard's part of alpha, relative to the others'.
        critical: a breach rolls back; else it holds.
    """

    name: str
    source: str
    limit: float
    quantile: float | None = None
    direction: Literal["lower", "higher"] = "lower"
    weight: float = 1.0
    critical: bool = True

    def __post_init__(self) -> None:
        where = f"canary guard {self.name!r}"
        _require(bool(self.name), "a canary guard needs a name", where)
        _require(_finite(self.limit), "limit must be a finite number", where)
        _require(_finite(self.weight) and self.weight > 0, "weight must be positive", where)
        _require(self.direction in ("lower", "higher"), f"unknown direction {self.direction!r}", where)
        if self.source in ("latency", "scores"):
            _require(self.quantile is not None and 0 < self.quantile < 1, "needs a quantile in (0, 1)", where)
            _require(self.direction == "lower", "a quantile's guard is an upper limit", where)
        else:
            _require(self.quantile is None, f"{self.source} has no quantiles", where)
            _require(0 < self.limit < 1, "the limit of a rate is between 0 and 1", where)

    @property
    def breach(self) -> Breach:
        return "rollback" if self.critical else "hold"


@dataclass(frozen=True, slots=True)
class JudgeSpec:
    """Everything that determines the judge's decisions, besides the windows.

    Args:
        metrics: comparisons with the champion.
        guards: absolute limits.
        alpha: chance of a false alarm of any kind, over the whole rollout; split by the weights.
        beta: chance of promoting a canary that is worse than some promotion margin.
        sample_ratio: watch that the canary gets the share of traffic it was meant to get; a mismatch holds.
        sample_ratio_weight: its part of alpha.
        min_windows: windows with canary requests before promotion.
        min_requests: canary requests before promotion.
        step_windows: windows with canary requests in a traffic step before it counts as done.
        no_data_hold_s: seconds without canary requests, or without the data of a critical metric, before a
            hold.
        no_data_timeout_s: ... and before a rollback.
        max_duration_s: seconds after which an undecided canary is inconclusive; None: never.
        undecided: what it is when `max_duration_s` is over: `inconclusive`, which ends it, or `hold`, which leaves it
            to a person, or to outcomes that are still to come.
        watch_s: the outcomes of predictions that are made so long after the promotion are judged as well. Only for
            metrics with `label_delay_s`, whose part of alpha is then shared: half for both arms, a quarter for what
            the champion's rate may have been, a quarter for the new champion against that.
        temper: weaken the evidence on rates by the champion's own dispersion beyond chance (bursts): fewer
            false alarms where errors come in bursts private to one arm, somewhat slower detection. Never
            invalid: a factor to a power below 1 fixed beforehand still has expectation at most 1.

    Raises:
        ConfigError: a value is out of range, or names repeat.
    """

    metrics: tuple[MetricSpec, ...] = (MetricSpec("errors", margin=2.0),)
    guards: tuple[GuardSpec, ...] = ()
    alpha: float = 0.01
    beta: float = 0.01
    sample_ratio: bool = True
    sample_ratio_weight: float = 0.25
    min_windows: int = 6
    min_requests: int = 100
    step_windows: int = 6
    no_data_hold_s: float = 60.0
    no_data_timeout_s: float = 600.0
    max_duration_s: float | None = None
    temper: bool = False
    undecided: Literal["inconclusive", "hold"] = "inconclusive"
    watch_s: float = 0.0

    def __post_init__(self) -> None:
        where = "canary"
        _require(bool(self.metrics or self.guards), "nothing to judge: no metric and no guard", where)
        _require(0 < self.alpha < 1, f"alpha must be between 0 and 1, not {self.alpha}", where)
        _require(0 < self.beta < 1, f"beta must be between 0 and 1, not {self.beta}", where)
        weight = self.sample_ratio_weight
        _require(_finite(weight) and weight > 0, "sample_ratio_weight must be positive", where)
        for count in (self.min_windows, self.min_requests, self.step_windows):
            _require(count >= 0, "minimum counts can not be negative", where)
        _require(0 <= self.no_data_hold_s <= self.no_data_timeout_s, "hold comes before timeout", where)
        if self.max_duration_s is not None:
            _require(
                _finite(self.max_duration_s) and self.max_duration_s > 0,
                "max_duration_s must be positive",
                where,
            )
        _require(self.undecided in ("inconclusive", "hold"), f"unknown undecided {self.undecided!r}", where)
        _require(_finite(self.watch_s) and self.watch_s >= 0, "watch_s can not be negative", where)
        late = {metric.source for metric in self.metrics if metric.label_delay_s > 0}
        for guard in self.guards:
            _require(guard.source not in late, f"{guard.source} comes late, and a guard can not wait for it", where)
        names = [part.name for part in self.parts]
        repeated = sorted({name for name in names if names.count(name) > 1})
        _require(not repeated, f"names used twice: {', '.join(repeated)}", where)
        _require("sample_ratio" not in names, "`sample_ratio` is the judge's own name", where)

    def digest(self) -> str:
        """Identifies the spec: evidence gathered under another one is not evidence under this one."""
        return digest_json(asdict(self))

    @property
    def parts(self) -> tuple[MetricSpec | GuardSpec, ...]:
        """Metrics, then guards."""
        return (*self.metrics, *self.guards)

    @property
    def longest_delay_s(self) -> float:
        """Of the metrics' label delays; 0 without any."""
        return max((metric.label_delay_s for metric in self.metrics), default=0.0)

    def log_threshold(self, weight: float) -> float:
        """The log e-value at which something of this weight alarms: log of 1 / (its part of alpha)."""
        total = sum(part.weight for part in self.parts)
        if self.sample_ratio:
            total += self.sample_ratio_weight
        return -math.log(self.alpha * weight / total)

    @property
    def log_promotion_threshold(self) -> float:
        """The log e-value every gating metric must reach: no split, since one that fails stops promotion."""
        return -math.log(self.beta)
