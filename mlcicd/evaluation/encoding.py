"""Answers of any type brought to one encoding: classes to numbers, values and scores to float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlcicd.core.errors import InputError
from mlcicd.evaluation.problem import Array, Predictions, View

# Up to so many, comparing with each class in turn is faster than a search.
_FEW_CLASSES = 16


def missing_reason(missing: int) -> str:
    return f"{missing} rows of the holdout have no label" if missing else ""


def floats(values: Array) -> tuple[Array, int]:
    """As float64, with the number of values that are not finite."""
    try:
        numbers = values.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise InputError("values of a regression must be numbers", why=str(error)) from error
    return numbers, int(numbers.size - np.isfinite(numbers).sum())


def plain(values: Array) -> tuple[Array, int]:
    """Classes as float64 or text, with the number of missing ones."""
    if values.dtype.kind in "biu":
        return values.astype(np.float64), 0
    if values.dtype.kind == "f":
        return values.astype(np.float64), int(values.size - np.isfinite(values).sum())
    if values.dtype.kind == "U":
        return values, 0
    seen = values.tolist()
    kinds = set(map(type, seen))
    missing = 0
    if not kinds <= {str, bool, int, np.bool_}:
        missing = sum(v is None or bool(v != v) for v in seen)  # noqa: PLR0124 (NaN is not itself)
    if missing:
        return values, missing
    if all(issubclass(k, bool | int | float | np.number | np.bool_) for k in kinds):
        return values.astype(np.float64), 0
    return np.array(seen, dtype=str), 0


def find_classes(task: str, truth: Array, models: list[Predictions]) -> tuple[Array, str]:
    """The classes in the order of the codes: the first model's own, or those found, sorted."""
    named = [m for m in models if m.classes is not None]
    if named:
        first = plain(np.asarray(named[0].classes))[0]
        for other in named[1:]:
            if set(plain(np.asarray(other.classes))[0].tolist()) != set(first.tolist()):
                raise InputError(
                    f"candidate and champion know different classes: {list(named[0].classes or ())} and "
                    f"{list(other.classes or ())}",
                    remedy="compare models of the same classes, or map their answers to the same ones",
                )
        found = first
    else:
        parts = [truth]
        for model in models:
            if model.labels is not None:
                labels, missing = plain(np.asarray(model.labels))
                if not missing and labels.dtype.kind == truth.dtype.kind:
                    parts.append(labels)
        found = _distinct(parts)
        if task == "binary" and found.size == 1 and found.dtype.kind == "f" and found[0] in (0.0, 1.0):
            found = np.array([0.0, 1.0])
    if task == "binary" and found.size != 2:
        return found, f"a binary task needs two classes, and {found.size} found: {listed(found)}"
    if found.size < 2 and not named:
        return found, f"only the class {found[0]!r} is seen; name the model's classes"
    return found, ""


def _distinct(parts: list[Array]) -> Array:
    if all(p.dtype.kind == "f" and bool(((p == 0) | (p == 1)).all()) for p in parts):
        # The usual case, without sorting a million rows.
        return np.array([v for v in (0.0, 1.0) if any(bool((p == v).any()) for p in parts)])
    return np.unique(np.concatenate([_unique(p) for p in parts]))


def _unique(values: Array) -> Array:
    # Hashing text is many times faster than sorting it.
    return np.array(list(set(values.tolist()))) if values.dtype.kind == "U" else np.unique(values)


def listed(values: Array) -> str:
    shown = ", ".join(str(v) for v in values[:5])
    return shown + (", ..." if values.size > 5 else "")


def class_codes(values: Array, classes: Array) -> tuple[Array, Any]:
    """(class numbers, None), or (undefined, the first value that is no class)."""
    if values.dtype.kind != classes.dtype.kind:
        raise InputError(
            f"classes are of different kinds: {listed(values)} and {listed(classes)}",
            why="Text and numbers never compare equal, so every row would count as wrong.",
            remedy="write labels and predictions with the same type",
        )
    if values.dtype.kind == "f" and np.array_equal(classes, [0.0, 1.0]):
        bad = (values != 0) & (values != 1)
        return values == 1, (float(values[bad][0]) if bad.any() else None)
    if classes.size <= _FEW_CLASSES:
        codes = np.full(values.size, -1, dtype=np.intp)
        for number, class_ in enumerate(classes):
            codes[values == class_] = number
        bad = codes < 0
        return codes, (values[bad][0].item() if bad.any() else None)
    order = np.argsort(classes)
    ordered = classes[order]
    place = np.minimum(np.searchsorted(ordered, values), classes.size - 1)
    bad = ordered[place] != values
    return order[place], (values[bad][0].item() if bad.any() else None)


def regression_view(predictions: Predictions) -> View:
    raw = predictions.labels if predictions.labels is not None else predictions.scores
    if raw is None:
        return View(scores_reason="it gave no predictions", labels_reason="it gave no predictions")
    values = np.asarray(raw)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(f"predictions of a regression have shape {values.shape}, and one value a row is needed")
    numbers, missing = floats(values)
    reason = f"{missing} of its {numbers.size} predictions are not finite" if missing else ""
    return View(labels=numbers, scores=numbers, labels_reason=reason, scores_reason=reason)


def class_view(task: str, predictions: Predictions, classes: Array) -> View:
    scores, scores_reason = _scores(task, predictions, classes)
    if predictions.labels is not None:
        labels, labels_reason = _labels(task, predictions, classes)
    elif scores is None or scores_reason:
        labels, labels_reason = None, scores_reason or "it gave neither labels nor scores"
    elif task == "binary":
        labels, labels_reason = scores >= 0.5, ""
    else:
        labels, labels_reason = np.argmax(scores, axis=1), ""
    return View(labels, scores, labels_reason, scores_reason or ("" if scores is not None else "it gave no scores"))


def _labels(task: str, predictions: Predictions, classes: Array) -> tuple[Array | None, str]:
    raw = np.asarray(predictions.labels)
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.ndim != 1:
        raise InputError(f"predicted labels have shape {raw.shape}, and one label a row is needed")
    seen, missing = plain(raw)
    if missing:
        return None, f"{missing} of its {raw.size} labels are missing"
    codes, unknown = class_codes(seen, classes)
    if unknown is not None:
        return None, f"it predicts the class {unknown!r}, which is not one of {listed(classes)}"
    return (codes.astype(bool) if task == "binary" else codes), ""


def _scores(task: str, predictions: Predictions, classes: Array) -> tuple[Array | None, str]:
    if predictions.scores is None:
        return None, ""
    scores, missing = floats(np.asarray(predictions.scores))
    own = classes if predictions.classes is None else plain(np.asarray(predictions.classes))[0]
    if task == "binary":
        if scores.ndim == 2 and scores.shape[1] == 2:
            scores = np.ascontiguousarray(scores[:, int(np.flatnonzero(own == classes[1])[0])])
        elif scores.ndim == 2 and scores.shape[1] == 1:
            scores = scores[:, 0]
        if scores.ndim != 1:
            raise InputError(f"scores of a binary task have shape {scores.shape}: (n,) or (n, 2) is needed")
        if own[1] != classes[1] and np.ndim(predictions.scores) == 1:
            raise InputError(
                "candidate and champion score different positive classes",
                remedy="give both models' classes in the same order, or scores of both classes",
            )
    else:
        if scores.ndim != 2 or scores.shape[1] != classes.size:
            raise InputError(
                f"scores of a task of {classes.size} classes have shape {scores.shape}: one column a class is needed"
            )
        if not np.array_equal(own, classes):
            scores = scores[:, [int(np.flatnonzero(own == c)[0]) for c in classes]]
    return scores, (f"{missing} of its {scores.size} scores are not finite" if missing else "")
