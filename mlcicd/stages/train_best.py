"""Which run of a matrix becomes the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from mlcicd.config import FILE_NAME, Project
from mlcicd.core.errors import ConfigError
from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.evaluation.metrics import get_metric
from mlcicd.registry import Registry
from mlcicd.stages.record import Record
from mlcicd.stages.train_data import by_dvc
from mlcicd.stages.train_one import Trained
from mlcicd.training.artifact import put_model

# What a figure of a validation split is called, beside the metric's bare name.
_PREFIXES = ("", "validation_", "val_", "valid_")


def choose_best(record: Record, registry: Registry, trained: Sequence[Trained]) -> Trained | None:
    """The run with the best `train.choose_by`; None when no run has logged a number of that name.

    The figure is what the runs logged of a validation split. It says which cell is best; how good that is, only the
    holdout says, which no run has seen: the best of several is lucky, too.
    """
    project = record.project
    better = direction(project)
    name = project.config.train.choose_by
    figures = {one.cell.key: _figure(registry.run_metrics(one.run_id), name) for one in trained}
    record.details["choice"] = {"by": name, "better": better, "cells": figures}
    usable = [one for one in trained if math.isfinite(figures[one.cell.key])]
    if not usable:
        record.checks.append(_nothing_logged(record, registry, trained))
        return None
    sign = 1 if better == "higher" else -1
    # The first of equals: the order of the configuration.
    best = max(usable, key=lambda one: sign * figures[one.cell.key])
    record.checks.append(
        Check(
            name="choice of the best",
            status=CheckStatus.PASSED,
            observed=figures[best.cell.key],
            required=f"the {'highest' if sign > 0 else 'lowest'} {name} of {len(trained)} runs",
            details={"cell": best.cell.key, "figures": figures},
        )
    )
    record.checks += [_without_figure(project, one) for one in trained if one not in usable]
    target = project.root / project.config.train.artifact
    if record.dry_run or (best.path == target and best is trained[-1]) or by_dvc(project):
        return best
    return _in_place(record, registry, best)


def direction(project: Project) -> Literal["higher", "lower"]:
    """Which way `train.choose_by` is better.

    Raises:
        ConfigError: it is none of the metrics that are known here, and the configuration does not say.
    """
    settings = project.config.train
    if settings.choose_direction != "auto":
        return settings.choose_direction
    for prefix in _PREFIXES:
        if settings.choose_by.startswith(prefix):
            try:
                return get_metric(settings.choose_by.removeprefix(prefix)).direction
            except ConfigError:
                continue
    raise ConfigError(
        f"whether a higher {settings.choose_by!r} is better is not known here",
        file=FILE_NAME,
        line=project.document.line(("train", "choose_by")),
        remedy="say `choose_direction: higher` or `lower`",
    )


def _figure(metrics: Mapping[str, float], name: str) -> float:
    """The figure of that name; `val_`, `valid_` and `validation_` are one word, said in three ways."""
    bare = next((name.removeprefix(prefix) for prefix in _PREFIXES[1:] if name.startswith(prefix)), name)
    names = (name, *(prefix + bare for prefix in _PREFIXES[1:]))
    return next((float(metrics[one]) for one in names if one in metrics), math.nan)


def _in_place(record: Record, registry: Registry, best: Trained) -> Trained:
    """Brings the chosen model, of which the run has a copy, to `train.artifact`."""
    project = record.project
    kept = registry.fetch_model(best.run_id, project.model_cache, digest=best.digest)
    target = project.root / project.config.train.artifact
    put_model(kept, target)
    return Trained(best.cell, best.run_id, best.digest, target, best.completed, best.leftovers)


def _nothing_logged(record: Record, registry: Registry, trained: Sequence[Trained]) -> Check:
    name = record.project.config.train.choose_by
    logged = sorted({metric for one in trained for metric in registry.run_metrics(one.run_id)})
    own = [metric for metric in logged if not metric.startswith("mlcicd.")]
    return Check(
        name="choice of the best",
        status=CheckStatus.FAILED,
        required=name,
        reason=f"no run logged a finite {name}; logged: {', '.join(own[:10]) or 'nothing'}",
        remedy=f'call mlflow.log_metric("{name}", ...) with a figure of a validation split, or correct train.choose_by',
    )


def _without_figure(project: Project, one: Trained) -> Check:
    return Check(
        name=f"choice of the best [{one.cell.key}]",
        status=CheckStatus.FAILED,
        severity=Severity.WARN,
        required=project.config.train.choose_by,
        reason="this run logged no finite number of that name, and could not be chosen",
    )
