"""How a new version takes over traffic."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from mlcicd.config.base import Duration, Section, seconds

CanaryEvent = Literal["start", "step", "hold", "promote", "rollback", "inconclusive"]


Slice = Annotated[str, StringConstraints(pattern=r"^[^\[\]=\s]+=[^\[\]]+$", max_length=200)]
OnBreach = Literal["rollback", "hold", "inform"]
_HISTOGRAMS = ("latency", "scores")


class CanaryMetric(Section):
    """One thing by which the canary is compared with the champion."""

    name: str = Field(
        min_length=1, description="`errors`, `latency`, `scores`, or the name of a rate that the metric source brings."
    )
    type: Literal["rate", "histogram"] = Field("rate", description="Rate of events, or distribution.")
    direction: Literal["lower", "higher", "same"] | None = Field(
        None, description="Which way is better; `same`: any change is one. `same` for scores, `lower` else."
    )
    tolerance: float | None = Field(
        None, ge=1, description="Factor by which it may be worse than the champion: 1 for rates, 1.25 for histograms."
    )
    margin: float | None = Field(
        None,
        gt=0,
        description="Promotion needs proof that it is worse by less than this factor: 2 for rates, none else. "
        "For scores the largest difference of means.",
    )
    gates: bool | None = Field(
        None, description="Promotion waits for the proof of the margin: yes for rates and where a margin is given."
    )
    floor: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="A rate below this is harmless whatever the champion's is: 0.005 for errors, 0 else.",
    )
    weight: float = Field(1.0, gt=0, description="Share of alpha that this metric gets.")
    on_breach: OnBreach | None = Field(
        None,
        description="What proven harm does: `rollback`, `hold` (a person decides) or `inform`. "
        "`inform` for scores, `rollback` else.",
    )
    slices: tuple[Slice, ...] = Field(
        (),
        description="Parts of the requests, such as `country=DE`, of which the rate is judged as well: the source "
        "brings it as `NAME[country=DE]`. They can stop a canary and are not asked for a proof.",
    )
    slices_weight: float = Field(1.0, gt=0, description="Share of alpha of all slices together.")
    label_delay: Duration = Field(
        "0s",
        description="Time after a prediction until its outcome is known. The rate is then read from `canary.labels`, "
        "by the time of the prediction.",
    )

    @model_validator(mode="after")
    def _known_histogram(self) -> CanaryMetric:
        if self.type == "histogram" and self.name not in _HISTOGRAMS:
            raise ValueError("the only histograms are `latency` and `scores`")
        if self.type == "rate" and self.name in _HISTOGRAMS:
            raise ValueError(f"`{self.name}` is a histogram: write `type: histogram`")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> CanaryMetric:
        rate = self.type == "rate"
        if rate and self.direction == "same":
            raise ValueError("a rate is better `lower` or `higher`")
        if self.margin is not None and self.margin <= 1 and not (self.name == "scores" and self.two_sided):
            raise ValueError("margin is a factor greater than 1")
        if self.gates and not rate and self.margin is None:
            raise ValueError("gates: true needs a margin: what would have to be proven?")
        if self.gates is False and self.margin is not None:
            raise ValueError("gates: false and a margin contradict each other")
        if not rate and (self.slices or self.floor is not None):
            raise ValueError("slices and floor are for rates")
        if len(set(self.slices)) != len(self.slices):
            raise ValueError("a slice is named twice")
        if self.label_delay_s > 0 and (not rate or self.name == "errors"):
            raise ValueError("label_delay is for rates of outcomes; errors and histograms are known at once")
        return self

    @property
    def two_sided(self) -> bool:
        return (self.direction or ("same" if self.name == "scores" else "lower")) == "same"

    @property
    def label_delay_s(self) -> float:
        return seconds(self.label_delay)

    @property
    def rate_names(self) -> tuple[str, ...]:
        """The rates that the source must bring for it, besides errors."""
        own = () if self.type == "histogram" or self.name == "errors" else (self.name,)
        return (*own, *(f"{self.name}[{part}]" for part in self.slices))


class CanaryGuard(Section):
    """An absolute limit on the canary, whatever the champion does."""

    metric: str = Field(min_length=1, description="`errors`, `latency`, `scores`, or the name of a rate.")
    max: float | None = Field(None, description="The rate, or the quantile (ms for latency), is at most this.")
    min: float | None = Field(None, description="The rate is at least this.")
    quantile: float | None = Field(
        None, gt=0, lt=1, description="Of a histogram: which quantile `max` is about, e.g. 0.95."
    )
    weight: float = Field(1.0, gt=0, description="Share of alpha that this guard gets.")
    on_breach: Literal["rollback", "hold"] = Field("rollback", description="What a breach does.")

    @model_validator(mode="after")
    def _one_limit(self) -> CanaryGuard:
        if (self.max is None) == (self.min is None):
            raise ValueError("a guard has either `max` or `min`")
        if self.metric in _HISTOGRAMS:
            if self.quantile is None or self.max is None:
                raise ValueError(f"a guard of {self.metric} needs `quantile` and `max`")
        elif self.quantile is not None:
            raise ValueError(f"{self.metric} is a rate and has no quantiles")
        elif not 0 < (self.limit) < 1:
            raise ValueError("the limit of a rate is between 0 and 1")
        return self

    @property
    def limit(self) -> float:
        return self.max if self.max is not None else self.min if self.min is not None else 0.0

    @property
    def name(self) -> str:
        """As it is shown: `latency p95 <= 300`."""
        what = self.metric if self.quantile is None else f"{self.metric} p{100 * self.quantile:g}"
        return f"{what} {'<=' if self.max is not None else '>='} {self.limit:g}"


class Traffic(Section):
    """Recorded requests that are replayed through the router, for places without traffic of their own."""

    requests: str = Field(description="JSON-lines file of request bodies.")
    rate: float = Field(100.0, gt=0, le=10_000, description="Requests a second.")


class RateQuery(Section):
    """A further rate, as two counters."""

    n: str = Field(description="PromQL template of the trials' counter.")
    x: str = Field(description="PromQL template of the events' counter.")


class PrometheusQueries(Section):
    """PromQL templates that replace those of the preset: counters as they are, with `$selector` in their braces."""

    requests: str = Field("", description="Requests answered.")
    errors: str = Field("", description="Failed requests; must give a series also while there are none.")
    latency: str = Field("", description="Buckets of the latency's histogram, with the label `le`.")
    latency_unit: Literal["ms", "s"] = Field("ms", description="Unit of `le` in the query above.")
    scores: str = Field("", description="Buckets of the predictions' histogram.")
    rates: dict[str, RateQuery] = Field(default_factory=dict, description="Further rates by the metric's name.")


class Prometheus(Section):
    """Where the canary's counters are scraped, and by which names."""

    url: str = Field(description="Address of the server: Prometheus, Thanos, Mimir, VictoriaMetrics or a managed one.")
    preset: Literal["envoy", "istio", "mlcicd"] = Field(
        "envoy", description="Whose metric names: Envoy's, Istio's, or those of mlcicd's own model server."
    )
    selector: str = Field(
        "",
        description="Label matchers that pick one version, with `$version`, e.g. "
        '`envoy_cluster_name="scorer-v$version"`; the preset\'s when empty.',
    )
    token_env: str = Field(
        "", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$", description="Environment variable that holds a bearer token."
    )
    timeout: Duration = Field("10s", description="The longest silence of the server.")
    settle: Duration = Field("15s", description="A window is read this long after its end; at least a scrape interval.")
    fresh: Duration | None = Field(
        None,
        description="A sample older than this at a window's end is missing; 1.5 windows, at least 20s, if not set.",
    )
    queries: PrometheusQueries = Field(default_factory=PrometheusQueries, description="Templates of your own.")


class Webhook(Section):
    """Who is told when a canary starts, moves, holds and ends."""

    url_env: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable that holds the address (it is a secret): Slack, Mattermost, or your own.",
    )
    events: tuple[CanaryEvent, ...] = Field(
        ("start", "hold", "promote", "rollback", "inconclusive"), description="What is told."
    )
    timeout: Duration = Field("5s", description="The longest that telling may take.")


class Shadow(Section):
    """Copies of live requests that the challenger answers before any user sees its answers."""

    duration: Duration = Field("5m", description="How long, before the first step.")
    percent: float = Field(10.0, gt=0, le=100, description="Percent of the requests that are copied.")


class Canary(Section):
    """How a new version takes over traffic."""

    steps: list[float] = Field(default_factory=lambda: [5.0, 25.0, 50.0], description="Percent of traffic, ascending.")
    alpha: float = Field(0.01, gt=0, lt=0.5, description="Largest probability of rolling back a good version.")
    beta: float = Field(0.01, gt=0, lt=0.5, description="Largest probability of promoting beyond the margin.")
    window: Duration = Field("10s", description="Length of one window of counts.")
    min_windows: int = Field(3, ge=1, description="Windows at each step before the next.")
    min_requests: int = Field(200, ge=1, description="Canary requests before it may be promoted.")
    max_duration: Duration = Field("1h", description="The longest that it may stay undecided.")
    on_undecided: Literal["rollback", "hold"] = Field(
        "rollback", description="What becomes of it then: back to the champion, or a person decides."
    )
    no_data_timeout: Duration = Field("10m", description="A canary without traffic for this long is rolled back.")
    max_unattended: Duration = Field(
        "1h", description="The champion gets all traffic back when no step was taken for this long."
    )
    state: Literal["target", "registry"] = Field(
        "target",
        description="Where the next job finds the rollout: beside the target's state, or on the champion's tags.",
    )
    metrics: list[CanaryMetric] = Field(
        default_factory=lambda: [CanaryMetric(name="errors"), CanaryMetric(name="latency", type="histogram")],
        description="What is compared.",
    )
    max_error_rate: float | None = Field(None, gt=0, lt=1, description="Absolute bound on the canary's error rate.")
    guards: list[CanaryGuard] = Field(default_factory=list, description="Absolute limits on the canary.")
    labels: str = Field(
        "",
        description="File of outcomes that come late (JSON lines), for metrics with `label_delay`; with "
        "`source: file` the file of windows if not set.",
    )
    watch: Duration | None = Field(
        None,
        description="Outcomes of predictions made so long after the promotion are judged as well, and take it back; "
        "the longest `label_delay` if not set.",
    )
    traffic: Traffic | None = Field(None, description="Replayed requests, where there is no live traffic.")
    source: Literal["router", "prometheus", "file"] = Field("router", description="Where the counts come from.")
    prometheus: Prometheus | None = Field(None, description="The server, for `source: prometheus`.")
    windows: str = Field("", description="File of windows (JSON lines or CSV), for `source: file`.")
    webhook: Webhook | None = Field(None, description="Notifications.")
    shadow: Shadow | None = Field(None, description="Mirrored traffic before the first step.")

    @field_validator("steps")
    @classmethod
    def _ascending(cls, steps: list[float]) -> list[float]:
        if not steps or any(not 0 < s < 100 for s in steps) or sorted(set(steps)) != steps:
            raise ValueError("steps are percentages between 0 and 100, ascending, e.g. [1, 5, 25, 50]")
        return steps

    @model_validator(mode="after")
    def _source_is_described(self) -> Canary:
        if self.source == "prometheus" and self.prometheus is None:
            raise ValueError("source: prometheus needs a section `prometheus` with its url")
        if self.source == "file" and not self.windows:
            raise ValueError("source: file needs `windows`, the path of the file")
        return self

    @model_validator(mode="after")
    def _labels_come_in_time(self) -> Canary:
        late = [metric for metric in self.metrics if metric.label_delay_s > 0]
        for metric in late:
            if metric.gates is not False and metric.label_delay_s >= seconds(self.max_duration):
                raise ValueError(
                    f"the first outcome of `{metric.name}` matures after {metric.label_delay}, and max_duration is "
                    f"{self.max_duration}: raise it, or write `gates: false`"
                )
        if self.watch is not None and not late:
            raise ValueError("watch is for metrics with a `label_delay`")
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> Canary:
        names = [metric.name for metric in self.metrics] + [guard.name for guard in self.guards]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"metrics or guards are there twice: {', '.join(twice)}")
        late = {name for metric in self.metrics if metric.label_delay_s > 0 for name in metric.rate_names}
        for guard in self.guards:
            if guard.metric in late:
                raise ValueError(f"a guard can not wait for labels: {guard.name}")
        return self

    @property
    def watch_s(self) -> float:
        """Seconds after the promotion of which the predictions are watched."""
        if self.watch is not None:
            return seconds(self.watch)
        return max((metric.label_delay_s for metric in self.metrics), default=0.0)
