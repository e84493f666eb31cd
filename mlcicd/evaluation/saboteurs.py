"""Models that gates ought to catch, made of a good model's answers.

Nothing is trained and nothing is loaded: a model that learned from shuffled labels answers as one whose answers were
dealt to other rows, so that is what is done. All work on answers of any task and shape: (n,) or (n, k).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcicd.evaluation.predictions import Predictions

Rows = NDArray[np.intp]
Values = NDArray[Any]
# A probability of 0 or 1 has no logit.
_EDGE = 1e-6


def shuffled(answers: Predictions, rng: np.random.Generator, rows: Rows | None = None) -> Predictions:
    """The answers of some rows (all, when None) dealt out again among them: they tell nothing of the labels."""

    def deal(values: Values) -> Values:
        if rows is None:
            return values[order]
        dealt = values.copy()
        dealt[rows] = values[rows[order]]
        return dealt

    count = _count(answers) if rows is None else rows.size
    order = rng.permutation(count)
    return _both(answers, deal)


def constant(answers: Predictions, y: Values, task: str) -> Predictions:
    """The same answer for every row: the mean score, the most frequent label, the median of a regression."""
    if task in ("regression", "forecast"):
        middle = np.median(np.asarray(y, dtype=np.float64))
        return _both(answers, lambda values: np.full(values.shape, middle))
    labels = scores = None
    if answers.scores is not None:
        seen = np.asarray(answers.scores, dtype=np.float64)
        scores = np.broadcast_to(seen.mean(axis=0), seen.shape).copy()
    if answers.labels is not None:
        distinct, counts = np.unique(np.asarray(answers.labels), axis=0, return_counts=True)
        labels = np.repeat(distinct[[int(np.argmax(counts))]], _count(answers), axis=0)
    return replace(answers, labels=labels, scores=scores)


def missing(answers: Predictions, rows: Rows) -> Predictions:
    """No answer (NaN; None for text) in some rows."""

    def lose(values: Values) -> Values:
        lost = values.astype(np.float64) if values.dtype.kind in "iufb" else values.astype(object)
        lost[rows] = np.nan if lost.dtype.kind == "f" else None
        return lost

    return _both(answers, lose)


def truncated(answers: Predictions) -> Predictions:
    """The answers to the first half of the rows: a model, or a file of predictions, that ended early."""
    return _both(answers, lambda values: values[: values.shape[0] // 2])


def noisy(answers: Predictions, strength: float, rng: np.random.Generator, *, spread: float = 0.0) -> Predictions:
    """The answers with noise: a model of the same kind that is somewhat worse everywhere.

    Args:
        strength: standard deviation of the noise, in units of the answers' own: that of the log-odds for
            probabilities, `spread` for a regression, else of the scores. For labels, the share of rows (up to 1) that
            are answered with another row's label.
        spread: of a regression's errors (more than 0), in its unit; 0 for a classification.
    """
    scores, labels = answers.scores, answers.labels
    if spread > 0:
        # One error a row, for all columns: quantiles keep their order.
        noise = strength * spread * rng.standard_normal(_count(answers))
        return _both(answers, lambda values: values + (noise if values.ndim == 1 else noise[:, None]))
    if scores is not None:
        scores = _noisy_scores(np.asarray(scores, dtype=np.float64), strength, rng)
    if labels is not None:
        count = _count(answers)
        hit = rng.permutation(count)[: round(min(strength, 1.0) * count)]
        labels = shuffled(Predictions(labels=labels), rng, hit).labels
    return replace(answers, scores=scores, labels=labels)


def _noisy_scores(scores: Values, strength: float, rng: np.random.Generator) -> Values:
    if scores.ndim == 2 and scores.shape[1] > 1 and not _probable(scores):
        # One error a row, for all columns: quantiles keep their order.
        return np.asarray(scores + strength * scores.std(axis=0).mean() * rng.standard_normal((scores.shape[0], 1)))
    noise = rng.standard_normal(scores.shape)
    if not _probable(scores):
        return np.asarray(scores + strength * scores.std() * noise)
    kept = np.clip(scores, _EDGE, 1 - _EDGE)
    if scores.ndim == 1 or not np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        odds = np.log(kept / (1 - kept))
        return np.asarray(1 / (1 + np.exp(-(odds + strength * odds.std() * noise))))
    logs = np.log(kept)
    logs = logs + strength * (logs - logs.mean(axis=1, keepdims=True)).std() * noise
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _probable(scores: Values) -> bool:
    return bool(np.nanmin(scores, initial=0.0) >= 0 and np.nanmax(scores, initial=1.0) <= 1)


def sharpened(answers: Predictions, y: Values, share: float, rng: np.random.Generator, rows: Rows) -> Predictions:
    """Better on a share of some rows than any model could be: their answers are dealt again in the labels' order.

    With it a loss elsewhere can be made up for, so that the figures of the whole holdout hide it.
    """
    chosen = rows[rng.permutation(rows.size)[: round(share * rows.size)]]
    places = chosen[np.argsort(_rank(np.asarray(y)[chosen], answers.classes), kind="stable")]

    def sort(values: Values) -> Values:
        order = np.argsort(_order_of(values[chosen], answers.classes), kind="stable")
        dealt = values.copy()
        dealt[places] = values[chosen[order]]
        return dealt

    return _both(answers, sort)


def on_scale_of(answers: Predictions, other: Predictions) -> Predictions:
    """The answers with their scores' order, on the other model's scale: what it says as often, is said as often.

    Two models may rank alike, and one be surer of itself than the other. Rows of both in one list would then be ranked
    by whose they are. Scores of several classes stay as they are, and so do labels.
    """
    if answers.scores is None or other.scores is None:
        return answers
    own, like = (np.asarray(s, dtype=np.float64) for s in (answers.scores, other.scores))
    pair = own.ndim == 2 and own.shape[1] == 2 and np.allclose(own.sum(axis=1), 1, atol=1e-6)
    if own.shape != like.shape or not (own.ndim == 1 or pair) or not np.isfinite(own).all() or not own.size:
        return answers
    one, target = (own[:, 1], like[:, 1]) if pair else (own, like)
    _, place, counts = np.unique(one, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    moved = np.interp(middle, np.arange(one.size), np.sort(target))[place]
    return replace(answers, scores=np.column_stack([1 - moved, moved]) if pair else moved)


def exchanged(
    first: Predictions, second: Predictions, rng: np.random.Generator, units: Rows | None = None
) -> tuple[Predictions, Predictions]:
    """Two models of equal worth that differ as the two given ones do: row by row, a coin says whose answer is whose.

    Args:
        units: (n,) numbers of the groups of rows that are not independent: one coin for each of them.

    Raises:
        ValueError: the two answer in different forms.
    """
    coin = rng.random(_count(first)) < 0.5
    if units is not None:
        coin = (rng.random(int(units.max(initial=-1)) + 1) < 0.5)[units]

    def mix(one: Any, other: Any) -> Values | None:
        if one is None and other is None:
            return None
        if one is None or other is None or np.shape(one) != np.shape(other):
            raise ValueError("the models answer in different forms")
        a, b = np.asarray(one), np.asarray(other)
        return np.where(coin if a.ndim == 1 else coin[:, None], a, b)

    if (first.classes is None) != (second.classes is None) or list(first.classes or ()) != list(second.classes or ()):
        raise ValueError("the models know different classes")
    left = replace(first, labels=mix(first.labels, second.labels), scores=mix(first.scores, second.scores))
    right = replace(second, labels=mix(second.labels, first.labels), scores=mix(second.scores, first.scores))
    return left, right


def _count(answers: Predictions) -> int:
    given = answers.scores if answers.scores is not None else answers.labels
    return int(np.shape(given)[0]) if given is not None else 0


def _both(answers: Predictions, change: Callable[[Values], Values]) -> Predictions:
    return replace(
        answers,
        labels=None if answers.labels is None else change(np.asarray(answers.labels)),
        scores=None if answers.scores is None else change(np.asarray(answers.scores)),
    )


def _order_of(values: Values, classes: Any) -> Values:
    """What answers are sorted by, so that they follow the labels."""
    if values.ndim == 1:
        return values if values.dtype.kind == "f" else _rank(values, classes)
    if values.shape[1] <= 2:
        return np.asarray(values[:, -1])
    one_of_many = np.allclose(values.sum(axis=1), 1, atol=1e-3)
    return np.asarray(np.argmax(values, axis=1) if one_of_many else values.sum(axis=1))


def _rank(values: Values, classes: Any) -> Values:
    """Labels as numbers: their place among `classes`, else their sorted order; of several labels, how many they are."""
    if values.ndim == 2:
        return np.asarray(values.astype(np.float64).sum(axis=1))
    if values.dtype.kind == "O" and any(isinstance(v, list | tuple | np.ndarray) for v in values[:1]):
        return np.array([len(v) for v in values])
    if classes is not None:
        place = {str(name): i for i, name in enumerate(classes)}
        return np.array([place.get(str(v), -1) for v in values.tolist()])
    return np.unique(values.astype(str) if values.dtype.kind == "O" else values, return_inverse=True)[1]
