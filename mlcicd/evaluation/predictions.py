"""What a model answered on the holdout, checked and brought to one shape."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.evaluation.clusters import find_units
from mlcicd.evaluation.encoding import class_codes, class_view, find_classes, floats, missing_reason, plain
from mlcicd.evaluation.encoding import regression_view as _point_view
from mlcicd.evaluation.forecasts import quantile_view
from mlcicd.evaluation.multilabel import indicator, multilabel_view
from mlcicd.evaluation.problem import NO_ROWS, TASKS, Array, Predictions, Problem, Structure, View

__all__ = ["NO_ROWS", "TASKS", "Array", "Predictions", "Problem", "Structure", "View", "prepare", "take"]


NO_QUERIES = "a ranking needs the query of each row: name its column in data.group"


def prepare(
    task: str,
    y: Any,
    candidate: Predictions,
    champion: Predictions | None = None,
    sample_weight: Any = None,
    structure: Structure | None = None,
) -> Problem:
    """Checks shapes and values, and encodes classes.

    What makes all numbers meaningless (no rows, missing labels in the holdout) becomes the problem's
    `reason`; what spoils one model's labels or scores becomes a reason on its view. Rows of weight zero are
    left out.

    Args:
        y: (n,) labels or values; for multi-label, (n, k) zeros and ones or (n,) label sets (`multilabel.indicator`).
        structure: groups and times of rows that are not independent.

    Raises:
        ConfigError: an unknown task.
        InputError: arrays of different lengths, weights that are not finite and >= 0, classes that do not
        match, rows without a group.
    """
    if task not in TASKS:
        raise ConfigError(f"unknown task {task!r}", remedy=f"use one of {', '.join(TASKS)}")
    truth = np.asarray(y)
    if truth.ndim != 1 and not (task == "multilabel" and truth.ndim == 2):
        raise InputError(f"the holdout's labels have shape {truth.shape}, and one value a row is needed")
    structure = structure or Structure()
    n = truth.shape[0]
    _check_lengths(n, candidate, "candidate")
    if champion is not None:
        _check_lengths(n, champion, "champion")
    weight = _weights(sample_weight, n)
    if structure.scale is not None and np.shape(structure.scale) != (n,):
        raise InputError(f"the scales have shape {np.shape(structure.scale)}, and the holdout has {n} rows")
    cluster, clusters, words = find_units(task, structure, n)
    if weight is not None and not (weight > 0).all():
        keep = weight > 0
        truth, weight, structure = truth[keep], weight[keep], structure.take(keep)
        candidate = take(candidate, keep)
        champion = None if champion is None else take(champion, keep)
        cluster, clusters, words = find_units(task, structure, truth.shape[0])
    if weight is not None and weight.size and (weight == weight[0]).all():
        weight = None
    problem = _encode(task, truth, candidate, champion, weight)
    if task == "ranking" and cluster is None and not problem.reason:
        problem = replace(problem, reason=NO_QUERIES)
    return replace(problem, cluster=cluster, clusters=clusters, cluster_words=words, scale=_scale(structure))


def _scale(structure: Structure) -> Array | None:
    return None if structure.scale is None else np.asarray(structure.scale, dtype=np.float64)


def _encode(
    task: str, truth: Array, candidate: Predictions, champion: Predictions | None, weight: Array | None
) -> Problem:
    models = [candidate] if champion is None else [candidate, champion]
    if truth.shape[0] == 0:
        empty = View()
        return Problem(task, truth, empty, empty if champion else None, weight, (), NO_ROWS)
    if task == "multilabel":
        return _encode_labels(truth, models, weight)
    if task not in ("binary", "multiclass"):
        return _encode_values(task, truth, models, weight)
    values, missing = plain(truth)
    if missing:
        view = View()
        return Problem(task, truth, view, view if champion else None, weight, (), missing_reason(missing))
    classes, reason = find_classes(task, values, models)
    if reason:
        return Problem(task, truth, View(), View() if champion else None, weight, (), reason)
    codes, unknown = class_codes(values, classes)
    if unknown is not None:
        raise InputError(
            f"the holdout has the class {unknown!r}, which is not among the model's classes {list(classes)}",
            remedy="evaluate on rows of the classes the model was trained on, or name all classes",
        )
    views = [class_view(task, m, classes) for m in models]
    encoded = codes.astype(bool) if task == "binary" else codes
    return Problem(task, encoded, views[0], views[1] if champion else None, weight, tuple(classes.tolist()))


def _encode_values(task: str, truth: Array, models: list[Predictions], weight: Array | None) -> Problem:
    values, missing = floats(truth)
    view_of = quantile_view if task in ("quantile", "forecast") else _point_view
    views = [view_of(m) for m in models]
    reason = missing_reason(missing)
    if task == "ranking" and not reason and (values < 0).any():
        reason = f"{int((values < 0).sum())} rows of the holdout have a negative relevance"
    return Problem(task, values, views[0], views[1] if len(views) == 2 else None, weight, (), reason)


def _encode_labels(truth: Array, models: list[Predictions], weight: Array | None) -> Problem:
    named = next((m.classes for m in models if m.classes is not None), None)
    matrix, names = indicator(truth, named)
    if not names:
        return Problem(
            "multilabel", matrix, View(), View() if len(models) == 2 else None, weight, (), "no row has a label"
        )
    views = [multilabel_view(m, len(names), names) for m in models]
    return Problem("multilabel", matrix, views[0], views[1] if len(views) == 2 else None, weight, tuple(names))


def _check_lengths(n: int, predictions: Predictions, who: str) -> None:
    for name, values in (("labels", predictions.labels), ("scores", predictions.scores)):
        if values is not None and np.shape(values)[:1] != (n,):
            got = np.shape(values)[0] if np.ndim(values) else "a single value instead of"
            raise InputError(
                f"the {who}'s {name} have {got} rows, and the holdout has {n}",
                why="Predictions are compared with the holdout row by row.",
                remedy="score the very same rows, in the same order",
            )


def _weights(sample_weight: Any, n: int) -> Array | None:
    if sample_weight is None:
        return None
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.shape != (n,):
        raise InputError(f"the sample weights have shape {weight.shape}, and the holdout has {n} rows")
    if not np.isfinite(weight).all() or (weight < 0).any():
        raise InputError("sample weights must be finite and not negative")
    return weight


def take(predictions: Predictions, rows: Array) -> Predictions:
    """The predictions of some rows: a boolean mask or row numbers."""
    return replace(
        predictions,
        labels=None if predictions.labels is None else np.asarray(predictions.labels)[rows],
        scores=None if predictions.scores is None else np.asarray(predictions.scores)[rows],
    )
