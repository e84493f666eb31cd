"""What a model must be besides good: fair, robust, calibrated, as expected, and compatible."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import Field, model_validator

from mlcicd.config.base import Section

FAIRNESS = (
    "demographic_parity_difference",
    "demographic_parity_ratio",
    "equalized_odds_difference",
    "equalized_odds_ratio",
    "equal_opportunity_difference",
    "equal_opportunity_ratio",
)
"""Fairness metrics by fairlearn's names; any other metric means the gap between its best and its worst group."""

Scalar = bool | int | float | str | None


class Fairness(Section):
    """How far groups may be apart."""

    by: str = Field(description="Column whose values are the groups.")
    metric: str = Field(
        description=f"{', '.join(f'`{name}`' for name in FAIRNESS)}, or any metric: its best group minus its worst."
    )
    max: float | None = Field(None, ge=0, description="Largest acceptable difference.")
    min: float | None = Field(None, gt=0, le=1, description="Smallest acceptable ratio, for a `_ratio`.")
    groups: list[str] = Field(
        default_factory=list, description="Groups that must be there with `min_rows` rows; a missing one fails."
    )
    min_rows: int = Field(100, ge=1, description="Smaller groups are left out, unless `groups` names them.")
    severity: Literal["fail", "warn"] = Field("fail", description="Whether a failure blocks.")

    @model_validator(mode="after")
    def _bounded_the_right_way(self) -> Fairness:
        ratio = self.metric in FAIRNESS and self.metric.endswith("_ratio")
        if ratio and (self.min is None or self.max is not None):
            raise ValueError(f"{self.metric} takes min, and nothing else")
        if not ratio and (self.max is None or self.min is not None):
            raise ValueError(f"the gap of {self.metric} takes max, and nothing else")
        return self


class Calibration(Section):
    """Parts of the Brier score, corrected for the bias that few rows a bin give them (binary tasks)."""

    max_reliability: float | None = Field(None, ge=0, description="Largest squared gap between said and seen rates.")
    min_resolution: float | None = Field(None, ge=0, description="Smallest variance of the rates that it tells apart.")
    severity: Literal["fail", "warn"] = Field("fail", description="Whether a failure blocks.")

    @model_validator(mode="after")
    def _requires_something(self) -> Calibration:
        if self.max_reliability is None and self.min_resolution is None:
            raise ValueError("calibration needs max_reliability or min_resolution")
        return self


class Robustness(Section):
    """How much a metric may lose when the data is a little wrong."""

    metric: str = Field(description="Metric that is judged.")
    max_drop: float = Field(ge=0, description="Largest acceptable loss, in the metric's unit.")
    noise: float | None = Field(
        None, gt=0, le=10, description="Normal noise on numeric columns, in their standard deviations."
    )
    missing: float | None = Field(None, gt=0, le=1, description="Share of values that are taken away.")
    swap: float | None = Field(None, gt=0, le=1, description="Share of categories that are swapped for another row's.")
    columns: list[str] = Field(default_factory=list, description="Only these columns; all that fit when empty.")
    severity: Literal["fail", "warn"] = Field("fail", description="Whether a failure blocks.")

    @model_validator(mode="after")
    def _does_something(self) -> Robustness:
        if self.noise is None and self.missing is None and self.swap is None:
            raise ValueError("robustness needs at least one of noise, missing, swap")
        return self


class Change(Section):
    """What is done to a column."""

    column: str = Field(description="The column that is changed.")
    set: Scalar = Field(None, description="This value in every row.")
    add: float | None = Field(None, description="This much more.")
    multiply: float | None = Field(None, description="This many times as much.")
    swap: bool = Field(False, description="The value of another row.")

    @model_validator(mode="after")
    def _one_thing(self) -> Change:
        named = sum(
            ("set" in self.model_fields_set, self.add is not None, self.multiply is not None, self.swap is True)
        )
        if named != 1:
            raise ValueError("a change is one of set, add, multiply, swap")
        return self


class Answer(Section):
    """What a model must answer to a given row."""

    label: Scalar = Field(None, description="The predicted class.")
    min: float | None = Field(None, description="Smallest score (of the positive class), or value.")
    max: float | None = Field(None, description="Largest score (of the positive class), or value.")

    @model_validator(mode="after")
    def _requires_something(self) -> Answer:
        if self.label is None and self.min is None and self.max is None:
            raise ValueError("an answer needs at least one of label, min, max")
        return self


class Expectation(Section):
    """One expectation: `invariant` or `directional` (with `change`), or `given` (with `answer`)."""

    name: str = Field(min_length=1, max_length=200, description="What is expected, for people.")
    invariant: Change | None = Field(None, description="A change that must not change the answer.")
    directional: Change | None = Field(None, description="A change that may move the answer one way only.")
    given: dict[str, Scalar] | None = Field(
        None, description="A row; columns left out take the holdout's median or most common value."
    )
    answer: Answer | None = Field(None, description="What the model must say to the given row.")
    direction: Literal["not_lower", "not_higher"] | None = Field(
        None, description="Where the score, or value, must not go under a directional change."
    )
    tolerance: float = Field(1e-6, ge=0, description="Changes of the score, or value, up to this size do not count.")
    max_share: float = Field(0.0, ge=0, lt=1, description="Share of rows that may do otherwise.")
    severity: Literal["fail", "warn"] = Field("fail", description="Whether a failure blocks.")

    @model_validator(mode="after")
    def _one_kind(self) -> Expectation:
        kinds = (self.invariant, self.directional, self.given)
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError("an expectation is one of invariant, directional, given")
        if (self.given is None) != (self.answer is None):
            raise ValueError("given and answer belong together")
        if (self.directional is None) != (self.direction is None):
            raise ValueError("directional and direction belong together")
        return self


class Expectations(Section):
    """The file that `evaluate.expectations` names."""

    expectations: list[Expectation] = Field(min_length=1, description="What the model must do.")

    @model_validator(mode="after")
    def _named_once(self) -> Expectations:
        names = [expectation.name for expectation in self.expectations]
        twice = next((name for name in names if names.count(name) > 1), "")
        if twice:
            raise ValueError(f"two expectations have the name {twice!r}")
        return self


class Waiver(Section):
    """A gate that may fail for a while, because somebody has said so."""

    gate: str = Field(min_length=1, description="The check's name, as the report has it.")
    slice: str = Field("", description="The check's slice, such as `carrier=AA`.")
    reason: str = Field(min_length=10, description="Why the model may pass all the same.")
    approver: str = Field(min_length=2, description="Who has decided it.")
    expires: date = Field(description="The last day on which it holds (UTC).")

    @model_validator(mode="before")
    @classmethod
    def _days_only(cls, data: Any) -> Any:
        # Pydantic takes numbers for seconds since 1970, which nobody means here.
        if isinstance(data, dict) and isinstance(data.get("expires"), int | float):
            raise ValueError("expires must be a day, as 2026-12-31")
        return data


class Waivers(Section):
    """The file that `evaluate.waivers` names."""

    waivers: list[Waiver] = Field(default_factory=list, description="Who has waived what, why, and until when.")

    @model_validator(mode="after")
    def _once_each(self) -> Waivers:
        named = [(waiver.gate, waiver.slice) for waiver in self.waivers]
        twice = next((gate for gate in named if named.count(gate) > 1), None)
        if twice:
            raise ValueError(f"{' '.join(filter(None, twice))} is waived twice")
        return self
