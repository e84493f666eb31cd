"""How a model is made."""

from __future__ import annotations

import math
import re
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mlcicd.config.base import Duration, Section

# GitHub runs at most so many jobs of one matrix.
MAX_CELLS = 256
_NAME = re.compile(r"[A-Za-z_]\w*")


class Reproducible(Section):
    """What `train --twice` asks of two trainings of the same thing."""

    tolerance: float = Field(0.0, ge=0, description="Largest difference of a predicted number that is none.")
    action: Literal["fail", "warn"] = Field("fail", description="Whether a difference fails the training.")


class Train(Section):
    """How a model is made. `dvc.yaml` may say how; this says what to run and what comes out."""

    run: str = Field("", description="The training command, run by the shell in the project's root.")
    estimator: str = Field(
        "",
        description="Instead of `run`: a scikit-learn estimator by its name, such as "
        "sklearn.ensemble.HistGradientBoostingClassifier; trained on data.train.",
    )
    artifact: str = Field("model", description="The MLflow model directory that the command writes.")
    params: str | dict[str, Any] = Field(
        "", description="Parameter file that the command reads; recorded with the run. With `estimator`, its arguments."
    )
    code: list[str] = Field(
        default_factory=lambda: ["**/*.py"], description="Glob patterns of the code the model depends on."
    )
    lock: list[str] = Field(
        default_factory=lambda: ["requirements*.txt", "uv.lock", "poetry.lock", "conda*.yaml", "pylock*.toml"],
        description="Glob patterns of the files that pin the environment.",
    )
    reuse: bool = Field(True, description="Reuse the last run when code, data, parameters and lock are unchanged.")
    seed: int = Field(0, ge=0, lt=2**32, description="Given to the command as MLCICD_SEED and PYTHONHASHSEED.")
    timeout: Duration = Field("6h", description="The command is stopped after this long.")
    stale_lock: Literal["warn", "fail"] = Field(
        "warn", description="Whether a dvc.lock that is out of date before the training fails it or is reported."
    )
    matrix: dict[str, list[bool | int | float | str]] = Field(
        default_factory=dict,
        description="Values of parameters; each combination is trained. `seed` replaces train.seed.",
    )
    choose_by: str = Field(
        "",
        description="Metric that the runs log from a validation split; the best run of a matrix becomes the model.",
    )
    choose_direction: Literal["auto", "higher", "lower"] = Field(
        "auto", description="Which way choose_by is better; auto knows the metrics that gates know."
    )
    reproducible: Reproducible = Field(default_factory=Reproducible, description="What --twice asks for.")

    @classmethod
    def absent(cls) -> Train:
        """The section of a project that trains nothing here: its models are judged by files of their predictions."""
        return cls.model_construct()

    @property
    def present(self) -> bool:
        return bool(self.run or self.estimator)

    @field_validator("artifact")
    @classmethod
    def _inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or not path.parts or path.parts[0] in (".mlcicd", ".git"):
            raise ValueError("it must be a folder inside of the project, such as `model`")
        return value

    @field_validator("choose_by")
    @classmethod
    def _not_the_holdout(cls, value: str) -> str:
        if "holdout" in value.lower():
            raise ValueError(
                "a model chosen by its figure on the holdout is judged by rows that chose it: log a figure of a "
                "validation split instead"
            )
        return value

    @field_validator("matrix")
    @classmethod
    def _cells(cls, value: dict[str, list[bool | int | float | str]]) -> dict[str, list[bool | int | float | str]]:
        for name, values in value.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a parameter: letters, digits and _ (it becomes a variable)")
            if not values or len({str(item).lower() for item in values}) != len(values):
                raise ValueError(f"{name} must list at least one value, and each once")
            if name == "seed" and not all(type(item) is int and 0 <= item < 2**32 for item in values):
                raise ValueError("seed takes whole numbers from 0 to 4294967295")
        if len({name.upper() for name in value}) != len(value):
            raise ValueError("two names differ in their case alone")
        if math.prod(len(values) for values in value.values()) > MAX_CELLS:
            raise ValueError(f"it has more than {MAX_CELLS} combinations, all that a matrix of GitHub can have")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Train:
        if bool(self.run) == bool(self.estimator):
            raise ValueError(
                "`run` and `estimator` exclude each other: keep one" if self.run else "it needs `run` or `estimator`"
            )
        if self.run and not isinstance(self.params, str):
            raise ValueError("with `run`, `params` is the path of the file that the command reads")
        if self.matrix and not self.choose_by:
            raise ValueError("a matrix needs choose_by, the metric that says which of its runs is the model")
        return self
