"""How far the answers of two models are apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Apart:
    """Rows that were compared, rows that differ, and the largest difference (0 for labels that are not numbers)."""

    rows: int
    differing: int
    largest: float

    @property
    def same(self) -> bool:
        return self.differing == 0


def compare_answers(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any], tolerance: float) -> Apart:
    """Compares answers of shape (n,) or (n, k), row by row.

    A row differs when any of its numbers differs by more than `tolerance`, when a label does, or when one of the two
    is NaN and the other is not. Answers of different shapes differ in every row, infinitely.
    """
    rows = max(len(one), len(other))
    if one.shape != other.shape:
        return Apart(rows, rows, float("inf"))
    if not (np.issubdtype(one.dtype, np.number) and np.issubdtype(other.dtype, np.number)):
        unlike = one.astype(str) != other.astype(str)
        return Apart(rows, int(unlike.reshape(rows, -1).any(axis=1).sum()) if rows else 0, 0.0)
    first, second = one.astype(float), other.astype(float)
    with np.errstate(invalid="ignore"):
        difference = np.abs(first - second)
    # Equal infinities are no difference; a NaN against a number is the largest there is.
    difference[(first == second) | (np.isnan(first) & np.isnan(second))] = 0.0
    difference[np.isnan(difference)] = np.inf
    worst = difference.reshape(rows, -1).max(axis=1) if rows else np.zeros(0)
    return Apart(rows, int((worst > tolerance).sum()), float(worst.max(initial=0.0)))
