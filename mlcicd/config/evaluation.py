"""The gates that a candidate must pass."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mlcicd.config.base import Duration, Section
from mlcicd.config.expectations import Calibration, Fairness, Robustness
from mlcicd.config.prediction_columns import PredictionColumns


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


class UserMetric(Section):
    """A metric that is a function of the project's own; it runs in the project's interpreter."""

    function: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$",
        description="`module:function`, called with labels and predictions; it returns a number.",
    )
    greater_is_better: bool = Field(description="Which way is better.")
    predictions: Literal["labels", "scores"] = Field(
        "labels", description="What it is given: predicted labels (or values), or scores."
    )
    columns: list[str] = Field(
        default_factory=list, description="Columns of the holdout that it takes as arguments of the same name."
    )
    resample_for: Duration = Field("60s", description="Resampling stops after this long, with the draws it has.")


class Attribution(Section):
    """How it is found out what a difference to the champion comes from: the code, or the data."""

    train: bool = Field(
        False,
        description="Train what no run has yet of the new code on the old data and the old code on the new data, in "
        "checkouts of their commits; without it, such runs are looked up alone.",
    )


class Evaluate(Section):
    """The gates a candidate must pass."""

    champion: str = Field("", description="The model to beat; `models:/<name>@champion` when empty.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence level of every interval.")
    gates: dict[str, Gate] = Field(default_factory=dict, description="Metric name to what it must reach.")
    metrics: dict[str, UserMetric] = Field(
        default_factory=dict, description="Metrics of the project's own, by the name that gates use."
    )
    slices: list[SliceGate] = Field(default_factory=list, description="Gates on parts of the holdout.")
    fairness: list[Fairness] = Field(default_factory=list, description="Gates on the gaps between groups.")
    calibration: Calibration | None = Field(None, description="Gates on the parts of the Brier score.")
    robustness: list[Robustness] = Field(default_factory=list, description="Gates under noise, holes and swaps.")
    attribution: Attribution = Field(
        default_factory=Attribution, description="How a difference is split between code and data."
    )
    expectations: str = Field("", description="File of behavioural expectations (`.yaml` or `.jsonl`).")
    sample_rows: int = Field(
        1000, ge=10, le=20_000, description="Rows of the holdout that robustness and expectations are tried on."
    )
    schema_change: Literal["refuse", "declared"] = Field(
        "refuse", description="Whether inputs and outputs may break with the champion's; `declared` for one release."
    )
    champion_leak: Literal["warn", "fail"] = Field(
        "warn", description="What it means when the champion has learned from rows of this holdout."
    )
    holdout_budget: int = Field(
        100, ge=1, description="Candidates that one holdout may judge; beyond it, intervals widen and it warns."
    )
    waivers: str = Field("", description="File of waivers: gates that may fail for a while (see docs/expectations.md).")
    predictions: PredictionColumns = Field(
        default_factory=PredictionColumns, description="How files of predictions are read (`--predictions`)."
    )
    no_champion: Literal["bootstrap", "fail"] = Field(
        "bootstrap", description="Without a champion: absolute gates alone decide, or the evaluation fails."
    )
    resamples: int = Field(2000, ge=100, le=100_000, description="Bootstrap resamples.")
    timeout: Duration = Field("1h", description="Scoring a data set with one model is stopped after this long.")
