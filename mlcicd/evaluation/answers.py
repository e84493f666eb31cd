"""What an answer array of a model means for the task: values, labels, or scores by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlcicd.evaluation.problem import Array, Predictions


def predictions_of(
    task: str, answer: Array, classes: Any = None, *, labels: Sequence[str] = (), quantiles: Sequence[float] = ()
) -> Predictions:
    """The predictions that a model's answer is.

    Args:
        answer: (n,) or (n, k), as the model gave it.
        classes: the model's own, in the order of its columns, where it says them.
        labels: multi-label: the labels in the order of the columns, as configured.
        quantiles: quantile, forecast: the levels in the order of the columns, as configured.
    """
    if task in ("regression", "ranking"):
        return Predictions(labels=answer)
    if task in ("quantile", "forecast"):
        return Predictions(scores=answer, classes=list(quantiles)) if answer.ndim == 2 else Predictions(labels=answer)
    if task == "multilabel":
        named = list(labels) or _flat(classes, answer)
        return (
            Predictions(labels=answer, classes=named) if _zeros_and_ones(answer) else Predictions(None, answer, named)
        )
    if answer.ndim == 2:
        return Predictions(scores=answer, classes=classes)
    # One column of fractions is a score of the positive class; anything else are labels.
    if np.issubdtype(answer.dtype, np.floating) and not np.all(np.isin(answer, (0.0, 1.0))):
        return Predictions(scores=answer)
    return Predictions(labels=answer)


def _zeros_and_ones(answer: Array) -> bool:
    return answer.dtype.kind == "b" or (answer.dtype.kind in "iuf" and bool(np.isin(answer, (0, 1)).all()))


def _flat(classes: Any, answer: Array) -> list[str] | None:
    """The model's own classes where they are its columns; a list for each column says nothing about them."""
    if not isinstance(classes, list) or any(isinstance(c, list) for c in classes) or len(classes) != answer.shape[-1]:
        return None
    # 0, 1, 2 are what a classifier calls the columns of a matrix whose names it was not told.
    return None if classes == list(range(len(classes))) else list(map(str, classes))
