"""How a file of predictions is read."""

from __future__ import annotations

from pydantic import Field

from mlcicd.config.base import Section


class PredictionColumns(Section):
    """Columns of the files that `evaluate --predictions` and `--champion-predictions` name."""

    keys: list[str] = Field(
        default_factory=list,
        description="Columns by which rows are matched with the holdout's; data.checks.leakage.keys when empty and the "
        "file has them, else the order of the rows.",
    )
    prediction: str = Field("prediction", description="Predicted class or value.")
    score: str = Field("score", description="Score of the positive class, higher is more positive.")
    prefix: str = Field(
        "",
        description="What the names of columns begin with that hold one class, label or quantile each: `probability_` "
        "when empty, `quantile_` for quantile and forecast tasks.",
    )
