"""What a model answered on the holdout, checked and brought to one shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcicd.core.errors import ConfigError, InputError

Array = NDArray[Any]

TASKS = ("binary", "multiclass", "regression")

# Up to so many, comparing with each class in turn is faster than a search.
_FEW_CLASSES = 16

NO_ROWS = "the holdout has no rows"


@dataclass(frozen=True)
class Predictions:
    """One model's answers, row by row in the holdout's order.

    Attributes:
        labels: (n,) predicted classes (any dtype), or predicted values for regression; None if the model
            gave none. Classification labels that are missing are derived from the scores: `>= 0.5` for
            binary, the largest column for multi-class.
        scores: (n,) score of the positive class, (n, 2) or (n, k) one column a class, in the order of
            `classes`; None if there are none. For regression, (n,) predicted values are accepted here, too.
        classes: the classes in the order of the score columns; the second of two is the positive one. None:
            the sorted classes found in the holdout and the labels.
    """

    labels: Array | None = None
    scores: Array | None = None
    classes: Sequence[Any] | None = None


@dataclass(frozen=True)
class View:
    """A model's answers in the holdout's encoding; a `..._reason` says why a part can not be used."""

    labels: Array | None = None
    scores: Array | None = None
    labels_reason: str = ""
    scores_reason: str = ""

    def same_scores(self, other: View) -> bool:
        """Whether both models gave the very same scores (values, for regression) on every row."""
        if self.scores is None or other.scores is None:
            return False
        return np.array_equal(self.scores, other.scores)

    def same_labels(self, other: View) -> bool:
        """Whether both models gave the very same labels on every row."""
        if self.labels is None or other.labels is None:
            return False
        return np.array_equal(self.labels, other.labels)


@dataclass(frozen=True)
class Problem:
    """The holdout and one or two models' answers to it, encoded.

    Attributes:
        y: (n,) bool for binary (True is the positive class), class numbers for multi-class, else float64.
        weight: (n,) float64, or None when all rows weigh the same.
        reason: why nothing at all can be computed, or empty.
    """

    task: str
    y: Array
    candidate: View
    champion: View | None
    weight: Array | None
    classes: tuple[Any, ...]
    reason: str = ""

    @property
    def n(self) -> int:
        return int(self.y.shape[0])


def prepare(
    task: str,
    y: Any,
    candidate: Predictions,
    champion: Predictions | None = None,
    sample_weight: Any = None,
) -> Problem:
    """Checks shapes and values, and encodes classes.

    What makes all numbers meaningless (no rows, missing labels in the holdout) becomes the problem's
    `reason`; what spoils one model's labels or scores becomes a reason on its view. Rows of weight zero are
    left out.

    Raises:
        ConfigError: an unknown task.
        InputError: arrays of different lengths, weights that are not finite and >= 0, classes that do not
        match.
    """
    if task not in TASKS:
        raise ConfigError(f"unknown task {task!r}", remedy=f"use one of {', '.join(TASKS)}")
    truth = np.asarray(y)
    if truth.ndim != 1:
        raise InputError(f"the holdout's labels have shape {truth.shape}, and one value a row is needed")
    _check_lengths(truth.shape[0], candidate, "candidate")
    if champion is not None:
        _check_lengths(truth.shape[0], champion, "champion")
    weight = _weights(sample_weight, truth.shape[0])
    if weight is not None and not (weight > 0).all():
        keep = weight > 0
        truth, weight = truth[keep], weight[keep]
        candidate = _take(candidate, keep)
        champion = None if champion is None else _take(champion, keep)
    if weight is not None and weight.size and (weight == weight[0]).all():
        weight = None
    return _encode(task, truth, candidate, champion, weight)


def _encode(
    task: str, truth: Array, candidate: Predictions, champion: Predictions | None, weight: Array | None
) -> Problem:
    models = [candidate] if champion is None else [candidate, champion]
    if truth.shape[0] == 0:
        empty = View()
        return Problem(task, truth, empty, empty if champion else None, weight, (), NO_ROWS)
    if task == "regression":
        values, missing = _floats(truth)
        views = [_regression_view(m) for m in models]
        reason = _missing_reason(missing)
        return Problem(task, values, views[0], views[1] if champion else None, weight, (), reason)
    plain, missing = _plain(truth)
    if missing:
        view = View()
        return Problem(task, truth, view, view if champion else None, weight, (), _missing_reason(missing))
    classes, reason = _classes(task, plain, models)
    if reason:
        return Problem(task, truth, View(), View() if champion else None, weight, (), reason)
    codes, unknown = _codes(plain, classes)
    if unknown is not None:
        raise InputError(
            f"the holdout has the class {unknown!r}, which is not among the model's classes {list(classes)}",
            remedy="evaluate on rows of the classes the model was trained on, or name all classes",
        )
    views = [_class_view(task, m, classes) for m in models]
    encoded = codes.astype(bool) if task == "binary" else codes
    return Problem(task, encoded, views[0], views[1] if champion else None, weight, tuple(classes.tolist()))


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


def _take(predictions: Predictions, keep: Array) -> Predictions:
    return replace(
        predictions,
        labels=None if predictions.labels is None else np.asarray(predictions.labels)[keep],
        scores=None if predictions.scores is None else np.asarray(predictions.scores)[keep],
    )


def take(predictions: Predictions, rows: Array) -> Predictions:
    """The predictions of some rows: a boolean mask or row numbers."""
    return _take(predictions, rows)


def _missing_reason(missing: int) -> str:
    return f"{missing} rows of the holdout have no label" if missing else ""


def _floats(values: Array) -> tuple[Array, int]:
    """As float64, with the number of values that are not finite."""
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("values of a regression must be numbers", why=str(error)) from error
    return numbers, int(numbers.size - np.isfinite(numbers).sum())


def _plain(values: Array) -> tuple[Array, int]:
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


def _classes(task: str, truth: Array, models: list[Predictions]) -> tuple[Array, str]:
    """The classes in the order of the codes: the first model's own, or those found, sorted."""
    named = [m for m in models if m.classes is not None]
    if named:
        first = _plain(np.asarray(named[0].classes))[0]
        for other in named[1:]:
            if set(_plain(np.asarray(other.classes))[0].tolist()) != set(first.tolist()):
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
                labels, missing = _plain(np.asarray(model.labels))
                if not missing and labels.dtype.kind == truth.dtype.kind:
                    parts.append(labels)
        found = _distinct(parts)
        if task == "binary" and found.size == 1 and found.dtype.kind == "f" and found[0] in (0.0, 1.0):
            found = np.array([0.0, 1.0])
    if task == "binary" and found.size != 2:
        return found, f"a binary task needs two classes, and {found.size} found: {_listed(found)}"
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


def _listed(values: Array) -> str:
    shown = ", ".join(str(v) for v in values[:5])
    return shown + (", ..." if values.size > 5 else "")


def _codes(values: Array, classes: Array) -> tuple[Array, Any]:
    """(class numbers, None), or (undefined, the first value that is no class)."""
    if values.dtype.kind != classes.dtype.kind:
        raise InputError(
            f"classes are of different kinds: {_listed(values)} and {_listed(classes)}",
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


def _regression_view(predictions: Predictions) -> View:
    raw = predictions.labels if predictions.labels is not None else predictions.scores
    if raw is None:
        return View(scores_reason="it gave no predictions", labels_reason="it gave no predictions")
    values = np.asarray(raw)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(f"predictions of a regression have shape {values.shape}, and one value a row is needed")
    numbers, missing = _floats(values)
    reason = f"{missing} of its {numbers.size} predictions are not finite" if missing else ""
    return View(labels=numbers, scores=numbers, labels_reason=reason, scores_reason=reason)


def _class_view(task: str, predictions: Predictions, classes: Array) -> View:
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
    plain, missing = _plain(raw)
    if missing:
        return None, f"{missing} of its {raw.size} labels are missing"
    codes, unknown = _codes(plain, classes)
    if unknown is not None:
        return None, f"it predicts the class {unknown!r}, which is not one of {_listed(classes)}"
    return (codes.astype(bool) if task == "binary" else codes), ""


def _scores(task: str, predictions: Predictions, classes: Array) -> tuple[Array | None, str]:
    if predictions.scores is None:
        return None, ""
    scores, missing = _floats(np.asarray(predictions.scores))
    own = classes if predictions.classes is None else _plain(np.asarray(predictions.classes))[0]
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
