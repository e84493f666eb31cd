"""`mlcicd.yaml` as models: what may be written there, its defaults, and what each key means.

The JSON Schema and the configuration's documentation are made from these classes; nothing restates them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Alias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
Duration = Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?\s*(ms|s|m|h|d)$")]

CanaryEvent = Literal["start", "step", "hold", "promote", "rollback", "inconclusive"]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(duration: str) -> float:
    """Seconds in a duration such as `500ms`, `10s`, `5m`, `6h` or `7d`."""
    number = duration.rstrip("msdh ")
    return float(number) * _SECONDS[duration[len(number) :].strip()]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class ModelSection(Section):
    """Which model this project makes."""

    name: ModelName = Field(description="The registered model's name.")
    task: Literal["binary", "multiclass", "regression"] = Field(description="What kind of prediction it makes.")


class Tracking(Section):
    """Where runs and registered models are kept: any MLflow tracking server, or a SQLite file."""

    uri: str = Field(
        "sqlite:///mlflow.db", description="MLflow tracking URI; a relative SQLite path is in the project."
    )
    experiment: str = Field("", description="Experiment name; the model's name when empty.")
    artifacts: str = Field(
        "", description="Where a new experiment keeps its artifacts; `mlartifacts` beside a SQLite file when empty."
    )


class Leakage(Section):
    """Rows of the holdout that the training data has seen, by key, by row and by time."""

    keys: list[str] = Field(default_factory=list, description="Columns that together identify a row.")
    time: str = Field("", description="Column with the event time: the holdout must start after training ends.")


class Drift(Section):
    """Change of the data against the champion's reference profile."""

    reference: Literal["champion", "train"] = Field(
        "champion", description="Compare with the profile stored with the champion, or with the training data."
    )
    metric: Literal["psi", "ks", "js", "wasserstein"] = Field("js", description="The effect size that `max` bounds.")
    max: float = Field(0.1, gt=0, description="Largest effect size that is not a finding.")
    columns: dict[str, float] = Field(default_factory=dict, description="Bounds of single columns, instead of `max`.")
    ignore: list[str] = Field(default_factory=list, description="Columns that are expected to move (keys, time).")
    action: Literal["warn", "fail"] = Field("warn", description="Whether drift fails validation or is reported.")


class DataChecks(Section):
    leakage: Leakage | None = Field(None, description="Checks between training data and holdout.")
    drift: Drift | None = Field(None, description="Checks against the reference profile.")


class Data(Section):
    """The data sets and what is checked about them."""

    train: str = Field(description="Training data: Parquet, CSV or JSON lines.")
    holdout: str = Field(description="Data that the model never sees in training; gates are judged on it.")
    current: str = Field("", description="The newest data, with or without labels; `monitor` compares it.")
    target: str = Field(description="The column to predict.")
    prepare: str = Field(
        "", description="Command that brings the data (`dvc pull`, `dvc repro prepare`); run where it is needed."
    )
    refresh: str = Field(
        "", description="Command that makes the newest data part of the training data; run by `run --refresh`."
    )
    schema_file: str = Field("", alias="schema", description="Rules for columns (`mlcicd data infer` writes it).")
    ignore: list[str] = Field(default_factory=list, description="Columns the model is not given (keys, times).")
    checks: DataChecks = Field(default_factory=DataChecks, description="Checks beyond the schema.")


class Train(Section):
    """How a model is made. `dvc.yaml` may say how; this says what to run and what comes out."""

    run: str = Field(description="The training command, run by the shell in the project's root.")
    artifact: str = Field("model", description="The MLflow model directory that the command writes.")
    params: str = Field("", description="Parameter file that the command reads; recorded with the run.")
    code: list[str] = Field(
        default_factory=lambda: ["**/*.py"], description="Glob patterns of the code the model depends on."
    )
    lock: list[str] = Field(
        default_factory=lambda: ["requirements*.txt", "uv.lock", "poetry.lock", "conda*.yaml", "pylock*.toml"],
        description="Glob patterns of the files that pin the environment.",
    )
    reuse: bool = Field(True, description="Reuse the last run when code, data, parameters and lock are unchanged.")
    seed: int = Field(0, ge=0, description="Given to the command as MLCICD_SEED and PYTHONHASHSEED.")
    timeout: Duration = Field("6h", description="The command is stopped after this long.")


class VsChampion(Section):
    """How the candidate must stand against the champion on the same rows."""

    margin: float = Field(0.0, ge=0, description="The candidate may be worse by less than this (non-inferiority).")
    superiority: bool = Field(False, description="Require the candidate to be better, not only not worse.")


class Gate(Section):
    """What one metric must reach."""

    min: float | None = Field(None, description="Smallest acceptable value.")
    max: float | None = Field(None, description="Largest acceptable value.")
    vs_champion: VsChampion | None = Field(None, description="Paired comparison with the champion.")
    severity: Literal["fail", "warn"] = Field("fail", description="Whether a failure blocks.")

    @model_validator(mode="after")
    def _requires_something(self) -> Gate:
        if self.min is None and self.max is None and self.vs_champion is None:
            raise ValueError("a gate needs at least one of min, max, vs_champion")
        return self


class SliceGate(Section):
    """What a metric must reach in every value of a column."""

    by: str = Field(description="Column whose values are the slices.")
    metric: str = Field(description="Metric that is judged in each slice.")
    min: float | None = Field(None, description="Smallest acceptable value.")
    max: float | None = Field(None, description="Largest acceptable value.")
    min_rows: int = Field(100, ge=1, description="Smaller slices are reported, and not judged.")
    severity: Literal["fail", "warn"] = Field("fail", description="Whether a failure blocks.")

    @model_validator(mode="after")
    def _requires_something(self) -> SliceGate:
        if self.min is None and self.max is None:
            raise ValueError("a slice gate needs min or max")
        return self


class Evaluate(Section):
    """The gates a candidate must pass."""

    champion: str = Field("", description="The model to beat; `models:/<name>@champion` when empty.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence level of every interval.")
    gates: dict[str, Gate] = Field(default_factory=dict, description="Metric name to what it must reach.")
    slices: list[SliceGate] = Field(default_factory=list, description="Gates on parts of the holdout.")
    no_champion: Literal["bootstrap", "fail"] = Field(
        "bootstrap", description="Without a champion: absolute gates alone decide, or the evaluation fails."
    )
    resamples: int = Field(2000, ge=100, le=100_000, description="Bootstrap resamples.")
    timeout: Duration = Field("1h", description="Scoring a data set with one model is stopped after this long.")


class Register(Section):
    """What is written to the model registry."""

    alias: Alias = Field("challenger", description="Alias of the newest accepted version.")
    champion_alias: Alias = Field("champion", description="Alias of the version in production.")
    previous_alias: Alias = Field("previous", description="Alias of the version to go back to.")
    inconclusive: Literal["refuse", "accept"] = Field("refuse", description="What an undecided gate means.")
    ungated: Literal["refuse", "accept"] = Field("refuse", description="What an evaluation without gates means.")


class Environment(Section):
    """One place where the model runs."""

    target: str = Field("local", description="Target plug-in that runs it.")
    strategy: Literal["direct", "canary"] = Field(
        "direct", description="Switch all traffic at once after the smoke test, or hand over to the canary."
    )
    smoke: str = Field("", description="JSON-lines file of golden requests; all must be answered as expected.")
    port: int = Field(0, ge=0, le=65535, description="Port of the endpoint; 0 lets the system choose once.")
    state: str = Field(
        "",
        description="State folder of the local target; one outside of the project ($XDG_STATE_HOME/mlcicd) when empty.",
    )
    ready_timeout: Duration = Field("2m", description="How long a version may take to become ready.")
    options: dict[str, Any] = Field(default_factory=dict, description="The target's own options.")


class Deploy(Section):
    """Where versions go, and who lets them into production."""

    mode: Literal["delivery", "deployment"] = Field(
        "delivery", description="delivery: a person approves production; deployment: nobody has to."
    )
    environments: dict[Alias, Environment] = Field(
        default_factory=lambda: {"production": Environment()}, description="The places, in order of promotion."
    )


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


class Monitor(Section):
    """When a change of the data is reason to act."""

    windows: int = Field(1, ge=1, description="How many of the last checks are looked at.")
    violations: int = Field(1, ge=1, description="How many of them must have drifted.")
    cooldown: Duration = Field("7d", description="No second breach within this time.")
    on_breach: Literal["retrain", "report"] = Field("retrain", description="What a breach asks for.")

    @model_validator(mode="after")
    def _possible(self) -> Monitor:
        if self.violations > self.windows:
            raise ValueError("violations can not exceed windows: the rule could never fire")
        return self


class Config(Section):
    """`mlcicd.yaml`: what to check. What to run is said by `dvc.yaml` or the training command."""

    version: Literal[1] = Field(description="Version of this file's format.")
    model: ModelSection
    python: str = Field("", description="Interpreter of the project's environment, when it is not the one in use.")
    tracking: Tracking = Field(default_factory=Tracking)
    data: Data
    train: Train
    evaluate: Evaluate = Field(default_factory=Evaluate)
    register_: Register = Field(default_factory=Register, alias="register")
    deploy: Deploy = Field(default_factory=Deploy)
    canary: Canary = Field(default_factory=Canary)
    monitor: Monitor = Field(default_factory=Monitor)
    profiles: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Overrides by environment name, chosen with --profile."
    )
