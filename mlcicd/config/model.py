"""`mlcicd.yaml` as models: what may be written there, its defaults, and what each key means.

The JSON Schema and the documentation are made from these classes; nothing restates them. Each section has a module of
its own in this package.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from mlcicd.config.base import Section
from mlcicd.config.canary import Canary
from mlcicd.config.data import Data, Monitor
from mlcicd.config.delivery import Deploy
from mlcicd.config.evaluation import Evaluate
from mlcicd.config.export import Export
from mlcicd.config.registration import Register
from mlcicd.config.supply_chain import SupplyChain
from mlcicd.config.training import Train

ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class ModelSection(Section):
    """Which model this project makes."""

    name: ModelName = Field(description="The registered model's name.")
    task: Literal["binary", "multiclass", "multilabel", "regression", "quantile", "forecast", "ranking"] = Field(
        description="What kind of prediction it makes."
    )
    labels: list[str] = Field(
        default_factory=list, description="Multi-label: the labels, in the order of the model's columns."
    )
    quantiles: list[float] = Field(
        default_factory=list, description="Quantile, forecast: the level of each of the model's columns, in order."
    )

    @model_validator(mode="after")
    def _levels(self) -> ModelSection:
        if not all(0 < level < 1 for level in self.quantiles) or len(set(self.quantiles)) != len(self.quantiles):
            raise ValueError("quantiles must be distinct levels between 0 and 1")
        if self.task == "quantile" and not self.quantiles:
            raise ValueError("a quantile task needs quantiles: the level of each of the model's columns, in order")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must be distinct")
        return self


class Tracking(Section):
    """Where runs and registered models are kept: any MLflow tracking server, or a SQLite file."""

    uri: str = Field(
        "sqlite:///mlflow.db", description="MLflow tracking URI; a relative SQLite path is in the project."
    )
    experiment: str = Field("", description="Experiment name; the model's name when empty.")
    artifacts: str = Field(
        "", description="Where a new experiment keeps its artifacts; `mlartifacts` beside a SQLite file when empty."
    )


class Config(Section):
    """`mlcicd.yaml`: what to check. What to run is said by `dvc.yaml` or the training command."""

    version: Literal[1] = Field(description="Version of this file's format.")
    model: ModelSection
    python: str = Field("", description="Interpreter of the project's environment, when it is not the one in use.")
    tracking: Tracking = Field(default_factory=Tracking)
    data: Data
    train: Train = Field(
        default_factory=Train.absent,
        description="How a model is made; not needed where only files of predictions are judged.",
    )
    evaluate: Evaluate = Field(default_factory=Evaluate)
    register_: Register = Field(default_factory=Register, alias="register")
    deploy: Deploy = Field(default_factory=Deploy)
    canary: Canary = Field(default_factory=Canary)
    export: Export = Field(default_factory=Export)
    monitor: Monitor = Field(default_factory=Monitor)
    supply_chain: SupplyChain = Field(default_factory=SupplyChain)
    profiles: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Overrides by environment name, chosen with --profile."
    )
