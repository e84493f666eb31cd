"""Holm's step-down correction of a family of checks (Holm, Scand. J. Statist. 6, 1979)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlcicd.core.verdict import Check, CheckStatus
from mlcicd.evaluation import sentences
from mlcicd.evaluation.uncertainty import normal_quantile

# More rows than this is no advice.
HOPELESS = 1e9


@dataclass(frozen=True)
class Judged:
    """A check, and its p-value against being on the good side (None: not a matter of chance)."""

    check: Check
    p: float | None = None
    alpha: float = 0.025


def correct(judged: Sequence[Judged]) -> list[Check]:
    """Fails the slices that are on the wrong side after Holm's correction, and no others by chance.

    A slice whose estimate is on the wrong side without being shown to be is inconclusive, whatever it was
    alone.
    """
    tested = sorted((i for i, j in enumerate(judged) if j.p is not None), key=lambda i: judged[i].p or 0.0)
    rejected: set[int] = set()
    for step, index in enumerate(tested):
        if (judged[index].p or 0.0) > judged[index].alpha / (len(tested) - step):
            break
        rejected.add(index)
    return [
        item.check if item.p is None else _corrected(item, item.p, len(tested), proven=index in rejected)
        for index, item in enumerate(judged)
    ]


def _corrected(item: Judged, p: float, family: int, *, proven: bool) -> Check:
    check = item.check
    details = {**check.details, "family": family, "p_wrong_side": p, "correction": "Holm"}
    update: dict[str, Any] = {"details": details}
    if check.status is CheckStatus.FAILED and not proven:
        # On the wrong side, but not shown to be: chance alone does that to one of many slices.
        details["rows_needed"] = rows = _rows_to_prove(check.details["n"], p, item.alpha / family)
        update["status"] = CheckStatus.INCONCLUSIVE
        update["reason"] = (
            f"{check.reason}; among {family} slices chance may explain it (p {sentences.number(p)}, Holm)"
        )
        update["remedy"] = (
            f"look at this slice by hand, or add labelled rows until it has about {rows:,}"
            if rows
            else "look at this slice by hand: its estimate is too close to the threshold for rows to decide"
        )
    return check.model_copy(update=update)


def _rows_to_prove(n: int, p: float, alpha: float) -> int | None:
    """About how many rows bring a p-value down to alpha: its normal quantile grows as sqrt(n)."""
    if not 0 < p < 0.5:
        return None
    rows = math.ceil(n * (normal_quantile(alpha) / normal_quantile(p)) ** 2) + 1
    return rows if rows < HOPELESS else None
