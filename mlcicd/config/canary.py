"""How a new version takes over traffic."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from mlcicd.config.base import Duration, Section

CanaryEvent = Literal["start", "step", "hold", "promote", "rollback", "inconclusive"]


class CanaryMetric(Section):
    """One thing by which the canary is compared with the champion."""

    name: str = Field(description="`errors`, `latency`, or the name of a rate that the metric source brings.")
    type: Literal["rate", "histogram"] = Field("rate", description="Rate of events, or distribution.")
    direction: Literal["lower", "higher"] = Field("lower", description="Which way is better.")
    tolerance: float | None = Field(
        None, ge=1, description="Factor by which it may be worse than the champion: 1 for rates, 1.25 for histograms."
    )
    margin: float | None = Field(
        None,
        gt=1,
        description="Promotion needs proof that it is worse by less than this factor: 2 for rates, none else.",
    )
    floor: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="A rate below this is harmless whatever the champion's is: 0.005 for errors, 0 else.",
    )
    weight: float = Field(1.0, gt=0, description="Share of alpha that this metric gets.")

    @model_validator(mode="after")
    def _known_histogram(self) -> CanaryMetric:
        if self.type == "histogram" and self.name != "latency":
            raise ValueError("the only histogram is `latency`")
        if self.type == "rate" and self.name == "latency":
            raise ValueError("`latency` is a histogram: write `type: histogram`")
        return self


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
    max_duration: Duration = Field("1h", description="A canary undecided for this long is rolled back.")
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
