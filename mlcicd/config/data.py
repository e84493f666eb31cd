"""The data sets, what is checked about them, and when their change is reason to act."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mlcicd.config.base import Duration, Section
from mlcicd.config.data_set import Database, DataSet, Spark

Action = Literal["warn", "fail"]


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
    action: Action = Field("warn", description="Whether drift fails validation or is reported.")
    new_categories: float | None = Field(
        None, ge=0, le=1, description="Largest share of rows whose category the reference does not have."
    )
    vanished_categories: float | None = Field(
        None, ge=0, le=1, description="Largest share of the reference's rows whose category is gone."
    )

    multivariate: float | None = Field(
        None,
        ge=0.5,
        le=1,
        description="Largest AUC (`auc/1`) with which trees tell rows from the reference's; 0.5 is not at all.",
    )
    correlations: float | None = Field(
        None, gt=0, le=2, description="Largest change of the rank correlation (`spearman/1`) of two numeric columns."
    )
    slices: list[str] = Field(
        default_factory=list, description="Columns within whose eight largest values each column is compared, too."
    )


class RowCounts(Section):
    """How many rows there are against last time."""

    against: Literal["champion", "last"] = Field(
        "champion",
        description="The champion's training data, or the data sets of the last `validate-data` that passed.",
    )
    min_ratio: float = Field(0.5, ge=0, description="Smallest number of rows, as a multiple of last time's.")
    max_ratio: float = Field(2.0, gt=0, description="Largest number of rows, as a multiple of last time's.")
    action: Action = Field("fail", description="Whether too few or too many rows fail validation or are reported.")

    @model_validator(mode="after")
    def _ordered(self) -> RowCounts:
        if self.min_ratio > self.max_ratio:
            raise ValueError("min_ratio is greater than max_ratio: no table could pass")
        return self


class Constant(Section):
    """Columns of the training data that hold one value, or almost."""

    max_share: float = Field(0.999, gt=0, le=1, description="Largest share of rows that one value may hold.")
    action: Action = Field("warn", description="Whether such a column fails validation or is reported.")


class Population(Section):
    """The population that the training data is meant to stand for."""

    file: str = Field(description="Table of the population: a sample of its rows, or a row a group with `weight`.")
    weight: str = Field("", description="Its column of counts or shares; each row is a group then.")
    columns: list[str] = Field(
        default_factory=list, description="Columns to compare, the target for class balance; all in common when empty."
    )
    max: float = Field(0.1, gt=0, description="Largest distance (`ks/1`; of categories: total variation).")
    action: Action = Field("warn", description="Whether a distance beyond `max` fails validation or is reported.")


class Sources(Section):
    """Where rows come from: hints at poisoned data."""

    column: str = Field(description="Column of who or what a row is from (user, sensor, supplier, file).")
    max_rise: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Largest rise of one source's share against the champion's training data; and of its share of rows "
        "whose label contradicts that of the same features, against its share of all.",
    )
    action: Action = Field("warn", description="Whether such a source fails validation or is reported.")


class Personal(Section):
    """Hints at personal data in the training data, by values and by names of columns."""

    allow: list[str] = Field(default_factory=list, description="Columns that may hold personal data.")
    action: Action = Field("warn", description="Whether such a column fails validation or is reported.")


class Labels(Section):
    """Labels that are probably wrong, by what trees that have not seen them say (out-of-fold confidence)."""

    max_share: float = Field(0.025, ge=0, lt=1, description="Largest share of improbable labels.")
    sample: int = Field(20_000, ge=500, description="Most rows to look at; fewer of more than 200 columns.")
    action: Action = Field("warn", description="Whether more of them fail validation or are reported.")


class Serving(Section):
    """Requests as the service gets them, and the model's signature, held against the data."""

    examples: str = Field(
        "",
        description="MLflow request bodies, one JSON object a line; without, only the signature is looked at.",
    )
    action: Action = Field("warn", description="Whether a difference fails validation or is reported.")


class DataChecks(Section):
    """Checks beyond the schema; each is made when it is named (`constant: {}` takes the defaults)."""

    leakage: Leakage | None = Field(None, description="Checks between training data and holdout.")
    drift: Drift | None = Field(None, description="Checks against the reference profile.")
    rows: RowCounts | None = Field(None, description="Numbers of rows against last time.")
    constant: Constant | None = Field(None, description="Columns that hold one value.")
    population: Population | None = Field(None, description="Class balance and representativeness.")
    sources: Sources | None = Field(None, description="Hints at poisoned data.")
    personal: Personal | None = Field(None, description="Hints at personal data.")
    labels: Labels | None = Field(None, description="Labels that are probably wrong.")
    serving: Serving | None = Field(None, description="Training/serving skew.")


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
    engine: Literal["duckdb", "spark", "database"] = Field(
        "duckdb",
        description="Where `validate-data` counts: here; on Spark, which sees the paths (Parquet only); or in their "
        "`database` (tables only).",
    )
    spark: Spark = Field(default_factory=Spark, description="The session that `engine: spark` makes.")
    database: Database = Field(default_factory=Database, description="How `engine: database` asks.")
    ignore: list[str] = Field(default_factory=list, description="Columns the model is not given (keys, times).")
    checks: DataChecks = Field(default_factory=DataChecks, description="Checks beyond the schema.")

    @model_validator(mode="after")
    def _in_tables(self) -> Data:
        if self.engine == "database" and not (self.train_.table and self.holdout_.table):
            raise ValueError("`engine: database` checks tables where they are: train and holdout must be tables")
        return self

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
