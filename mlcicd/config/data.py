"""The data sets, what is checked about them, and when their change is reason to act."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mlcicd.config.base import Duration, Section
from mlcicd.config.data_set import DataSet, Spark


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

    train_: DataSet = Field(alias="train", description="Training data: Parquet, CSV or JSON lines; or a table.")
    holdout_: DataSet = Field(
        alias="holdout", description="Data that the model never sees in training; gates are judged on it."
    )
    current_: DataSet = Field(
        DataSet(), alias="current", description="The newest data, with or without labels; `monitor` compares it."
    )
    target: str = Field(description="The column to predict; for multi-label, lists or text with `|` between labels.")
    group: str = Field(
        "",
        description="Column of what rows belong to (patient, user, series; for ranking, the query): "
        "intervals are found over it.",
    )
    weight: str = Field("", description="Column of sample weights.")
    time: str = Field("", description="Forecast: column of each row's time.")
    season: int = Field(1, ge=1, description="Forecast: season length in steps, of the naive forecast in MASE.")
    prepare: str = Field(
        "", description="Command that brings the data (`dvc pull`, `dvc repro prepare`); run where it is needed."
    )
    refresh: str = Field(
        "", description="Command that makes the newest data part of the training data; run by `run --refresh`."
    )
    schema_file: str = Field("", alias="schema", description="Rules for columns (`mlcicd data infer` writes it).")
    engine: Literal["duckdb", "spark"] = Field(
        "duckdb",
        description="Where `validate-data` counts: here, or (Parquet only) on Spark, which sees the paths.",
    )
    spark: Spark = Field(default_factory=Spark, description="The session that `engine: spark` makes.")
    ignore: list[str] = Field(default_factory=list, description="Columns the model is not given (keys, times).")
    checks: DataChecks = Field(default_factory=DataChecks, description="Checks beyond the schema.")

    @property
    def train(self) -> str:
        """Path of the training data, relative to the project; of its snapshot, where it is a table or a remote file."""
        return self.train_.local("train")

    @property
    def holdout(self) -> str:
        """Path of the holdout, as :attr:`train`."""
        return self.holdout_.local("holdout")

    @property
    def current(self) -> str:
        """Path of the newest data, as :attr:`train`; empty when there is none."""
        return self.current_.local("current")

    @property
    def brought(self) -> dict[str, DataSet]:
        """The data sets that are tables or remote files, by the path of their snapshot."""
        named = {"train": self.train_, "holdout": self.holdout_, "current": self.current_}
        return {found.local(kind): found for kind, found in named.items() if found.is_brought}


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
