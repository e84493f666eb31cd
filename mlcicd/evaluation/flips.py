"""Flips: rows on which the candidate and the champion disagree about being right, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlcicd.evaluation import counts
from mlcicd.evaluation.drawn import Draws
from mlcicd.evaluation.predictions import Predictions, prepare
from mlcicd.evaluation.problem import CLASSES
from mlcicd.evaluation.slices import codes_of
from mlcicd.evaluation.uncertainty import Interval


@dataclass(frozen=True)
class Flips:
    """Rows that changed sides (a gate names their share `negative_flip_rate`).

    Attributes:
        slice: empty for the whole holdout, else `column=value`.
        negative: the champion is right, the candidate wrong.
        positive: the other way round.
        rate: negative / n, with its 95 % interval.
    """

    slice: str
    n: int
    negative: int
    positive: int
    rate: float
    interval: Interval


def flips(
    task: str,
    y: Any,
    candidate: Predictions,
    champion: Predictions,
    *,
    by: str = "",
    column: Any = None,
    min_rows: int = 1,
    seed: int = 0,
) -> list[Flips]:
    """Flips of the whole holdout first; then, with a column, of each of its values, the most negative share
    first.

    Returns:
        none where labels are missing (the gate on `negative_flip_rate` says why), or where answers are not classes.

    Raises:
        ConfigError, InputError: as `intervals.estimate`.
    """
    if task not in CLASSES:
        return []
    problem = prepare(task, y, candidate, champion)
    if problem.reason or problem.champion is None:
        return []
    if problem.candidate.labels is None or problem.champion.labels is None:
        return []
    good = problem.champion.labels == problem.y
    now = problem.candidate.labels == problem.y
    if task == "multilabel":
        # A row is right when all of its labels are.
        good, now = good.all(axis=1), now.all(axis=1)
    whole = _flips("", problem.n, int((good & ~now).sum()), int((~good & now).sum()), seed)
    if column is None:
        return [whole]
    names, codes = codes_of(by, column, problem.n)
    rows = np.bincount(codes, minlength=len(names))
    lost = np.bincount(codes[good & ~now], minlength=len(names))
    won = np.bincount(codes[~good & now], minlength=len(names))
    parts = [
        _flips(f"{by}={name}", int(rows[i]), int(lost[i]), int(won[i]), seed)
        for i, name in enumerate(names)
        if rows[i] >= min_rows
    ]
    return [whole, *sorted(parts, key=lambda f: -f.rate)]


def _flips(slice_: str, n: int, negative: int, positive: int, seed: int) -> Flips:
    # The prior's pseudo-rows as in the joint table: two of its eight cells are negative flips.
    share = counts.PRIOR / 4
    draws = np.random.default_rng(seed).beta(negative + share, n - negative + 3 * share, 2000)
    rate = Draws(negative / n, draws)
    return Flips(slice_, n, negative, positive, rate.estimate, rate.interval(0.95))
