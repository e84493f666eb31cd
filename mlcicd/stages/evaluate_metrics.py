"""The metrics of an evaluation, over rows that have weights and belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlcicd.config import FILE_NAME, seconds
from mlcicd.core.errors import ConfigError
from mlcicd.data.source import Source, open_source
from mlcicd.evaluation.forecasts import naive_errors, scale_of
from mlcicd.evaluation.functions import Place, UserMetric, estimate_function
from mlcicd.evaluation.intervals import MetricResult, estimate
from mlcicd.evaluation.predictions import Predictions, Structure, prepare
from mlcicd.stages.common import data_path
from mlcicd.stages.evaluate_gates import column_values
from mlcicd.stages.record import Record

# Shown beside the gated metrics, so that a reader sees more than what was asked.
ALWAYS = {
    "binary": ("roc_auc", "log_loss"),
    "multiclass": ("accuracy",),
    "multilabel": ("f1_macro", "hamming_loss"),
    "regression": ("mae", "rmse"),
    "quantile": ("pinball", "quantile_crossing"),
    "forecast": ("mae", "rmse"),
    "ranking": ("ndcg", "map"),
}


@dataclass(frozen=True)
class Rows:
    """The holdout's weights, and how its rows hang together."""

    weight: Any
    structure: Structure

    def take(self, rows: Any) -> Rows:
        """Those of some rows: a boolean mask or row numbers."""
        return Rows(None if self.weight is None else np.asarray(self.weight)[rows], self.structure.take(rows))


def rows_of(record: Record, holdout: Source) -> Rows:
    """Reads the columns that `data.weight`, `data.group` and `data.time` name.

    Raises:
        ConfigError: a ranking without `data.group`.
        InputError: there is no such column.
    """
    project = record.project
    data, task = project.config.data, project.config.model.task
    if task == "ranking" and not data.group:
        raise ConfigError(
            "a ranking needs the query of each row",
            file=FILE_NAME,
            line=project.document.line(("model", "task")),
            remedy="name the column of the query in data.group",
        )
    group = column_values(holdout, data.group) if data.group else None
    time = column_values(holdout, data.time) if data.time else None
    scale = _scale(record, holdout, group) if task == "forecast" and data.time else None
    weight = column_values(holdout, data.weight) if data.weight else None
    return Rows(weight, Structure(group, data.group or "group", time, scale))


def _scale(record: Record, holdout: Source, group: Any) -> Any:
    """(n,) errors of the naive forecast within the training data; None where it has not these columns."""
    data = record.project.config.data
    train = open_source(data_path(record, "train"))
    asked = [name for name in (data.target, data.group, data.time) if name]
    if any(name not in train.columns for name in asked):
        return None
    series = column_values(train, data.group) if data.group else None
    when, values = column_values(train, data.time), column_values(train, data.target)
    return scale_of(naive_errors(values, series, when, data.season), group, holdout.rows)


def metric_results(
    record: Record, holdout: Source, y: Any, models: tuple[Predictions, Predictions | None], rows: Rows,
    asked: Sequence[str],
) -> list[MetricResult]:  # fmt: skip
    """The metrics that are asked for and those that are always shown, the project's own among them, in this order."""
    project = record.project
    settings, task = project.config.evaluate, project.config.model.task
    names = [*asked, *(m for m in ALWAYS[task] if m not in asked)]
    known = [name for name in names if name not in settings.metrics]
    found = estimate(
        task,
        known,
        y,
        *models,
        sample_weight=rows.weight,
        confidence=settings.confidence,
        resamples=settings.resamples,
        structure=rows.structure,
    )
    by_name = {result.name: result for result in found}
    own = [name for name in dict.fromkeys([*names, *settings.metrics]) if name in settings.metrics]
    by_name.update({name: own_metric(record, holdout, y, models, rows, name) for name in own})
    return [by_name[name] for name in [*names, *(n for n in own if n not in names)]]


def own_metric(
    record: Record, holdout: Source, y: Any, models: tuple[Predictions, Predictions | None], rows: Rows, name: str,
    part: Any = None, resample_for: float | None = None,
) -> MetricResult:  # fmt: skip
    """A function of the project's own, on the rows that `y`, `models` and `rows` are of.

    Args:
        part: numbers of these rows in the holdout; None for all of it.
        resample_for: seconds for resampling; those of the configuration where None.

    Raises:
        InputError, CommandFailed: as `functions.estimate_function`.
    """
    project = record.project
    settings = project.config.evaluate
    metric = settings.metrics[name]
    record.progress.step(f"calling {metric.function} on resamples")
    problem = prepare(project.config.model.task, y, *models, rows.weight, rows.structure)
    # Rows of weight zero are not there.
    kept = slice(None) if rows.weight is None else np.asarray(rows.weight, dtype=float) > 0
    inside = slice(None) if part is None else part
    return estimate_function(
        UserMetric(
            name,
            metric.function,
            "higher" if metric.greater_is_better else "lower",
            metric.predictions,
            seconds(metric.resample_for) if resample_for is None else resample_for,
        ),
        problem,
        Place(project.python, project.environ, project.root, seconds(settings.timeout), record.progress),
        columns={column: column_values(holdout, column)[inside][kept] for column in metric.columns},
        confidence=settings.confidence,
        resamples=settings.resamples,
    )
