"""How a model is made."""

from __future__ import annotations

from pydantic import Field

from mlcicd.config.base import Duration, Section


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
