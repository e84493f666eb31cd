"""The slices that gates of mlcicd.yaml ask about: what every metric is there, the project's own among them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mlcicd.config import seconds
from mlcicd.data.source import Source
from mlcicd.evaluation.predictions import Predictions, take
from mlcicd.evaluation.slices import SliceResult, by_values, parts_of, with_classes
from mlcicd.stages.evaluate_gates import column_values
from mlcicd.stages.evaluate_metrics import Rows, own_metric
from mlcicd.stages.record import Record

Models = tuple[Predictions, Predictions | None]


def slice_results(record: Record, holdout: Source, y: Any, models: Models, rows: Rows) -> list[SliceResult]:
    """Metrics of every slice that a gate asks about.

    Raises:
        ConfigError, InputError: as `slices.by_values`.
        CommandFailed: a function of the project's own did not finish in time.
    """
    settings = record.project.config.evaluate
    found: list[SliceResult] = []
    for by in dict.fromkeys(gate.by for gate in settings.slices):
        asked = [gate for gate in settings.slices if gate.by == by]
        record.progress.step(f"slices by {by}")
        column = column_values(holdout, by)
        known = by_values(
            record.project.config.model.task,
            list(dict.fromkeys(gate.metric for gate in asked if gate.metric not in settings.metrics)),
            y,
            *models,
            by=by,
            column=column,
            sample_weight=rows.weight,
            structure=rows.structure,
            min_rows=min(gate.min_rows for gate in asked),
            confidence=settings.confidence,
            resamples=settings.resamples,
        )
        for name in dict.fromkeys(gate.metric for gate in asked if gate.metric in settings.metrics):
            fewest = min(gate.min_rows for gate in asked if gate.metric == name)
            known = _with_own(record, holdout, y, models, rows, known, (by, column, name, fewest))
        found += known
    return found


def _with_own(
    record: Record, holdout: Source, y: Any, models: Models, rows: Rows, known: list[SliceResult],
    asked: tuple[str, Any, str, int],
) -> list[SliceResult]:  # fmt: skip
    """The same slices with a function of the project's own, whose time for resampling they share."""
    by, column, name, min_rows = asked
    truth = np.asarray(y)
    candidate, champion = with_classes(record.project.config.model.task, truth, *models)
    parts = dict(parts_of(by, column, truth.shape[0]))
    large = [part for part in known if part.n >= min_rows]
    each = seconds(record.project.config.evaluate.metrics[name].resample_for) / max(1, len(large))
    found = []
    for part in known:
        if part.n < min_rows:
            found.append(part)
            continue
        inside = parts[part.value]
        there = (take(candidate, inside), None if champion is None else take(champion, inside))
        result = own_metric(record, holdout, truth[inside], there, rows.take(inside), name, inside, each)
        found.append(replace(part, results=(*part.results, result)))
    return found
