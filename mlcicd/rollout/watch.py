"""Evidence after a promotion: the outcomes of what the new champion answers, against those of the champion before it.

Nobody else answers any more, so there is no second arm. What the old champion's outcomes were is known up to chance: a
confidence sequence gives the worst rate they can not rule out, and the new champion's outcomes are tested against that
rate (times the tolerance). Both can err, each with its own part of alpha, which adds up (union bound).

The comparison is with the past. A change of the world after the promotion looks like the version's fault here, as it
does not while both versions answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlcicd.rollout.eprocess import Array, bernoulli_log_factors, log_mixture
from mlcicd.rollout.rates import HARM_LOG_WEIGHTS, HARM_THETAS, limit_alternatives
from mlcicd.rollout.spec import MetricSpec


def rate_log_e(x: int, n: int, p: float) -> float:
    """log e-value against "the rate is p", for any stopping rule: binomial likelihood, mixed over Jeffreys' prior,
    over that of p (Robbins 1970).

    Args:
        x, n: events and trials, all that were counted so far.
        p: strictly between 0 and 1.
    """
    return _log_beta(x + 0.5, n - x + 0.5) - _log_beta(0.5, 0.5) - x * math.log(p) - (n - x) * math.log1p(-p)


def worst_rate(x: int, n: int, log_threshold: float, *, higher: bool = False) -> float:
    """The largest rate (the smallest, with `higher`) that `x` events in `n` trials have not ruled out.

    The true rate is beyond it, at any time, with probability at most exp(-log_threshold) (Ville 1939).

    Returns:
        A number in [0, 1]; 1 (or 0) without any trial.
    """
    if n == 0:
        return 0.0 if higher else 1.0
    # The e-value falls towards x/n from either side: bisect on the side that is asked for.
    inside, beyond = x / n, 0.0 if higher else 1.0
    for _ in range(60):
        middle = (inside + beyond) / 2
        if 0.0 < middle < 1.0 and rate_log_e(x, n, middle) < log_threshold:
            inside = middle
        else:
            beyond = middle
    return beyond


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


@dataclass
class WatchEvidence:
    """One metric's outcomes after the promotion.

    Args:
        spec: whose direction, tolerance and floor count here as before.
        log_threshold: of the reference's confidence sequence: log of 1 / (its part of alpha).
        limit: the rate tested against; None until :meth:`begin`; NaN where the reference does not give one.
    """

    spec: MetricSpec
    log_threshold: float
    limit: float | None = None
    harm: Array = field(default_factory=lambda: np.zeros(len(HARM_THETAS)))
    reference: list[int] = field(default_factory=lambda: [0, 0])
    counts: list[int] = field(default_factory=lambda: [0, 0])

    def begin(self, x: int, n: int) -> None:
        """Fixes what is compared with: the old champion's events and trials."""
        higher = self.spec.sense == "higher"
        worst = worst_rate(x, n, self.log_threshold, higher=higher)
        limit = worst / self.spec.tolerance if higher else max(worst * self.spec.tolerance, self.spec.floor)
        self.limit = limit if 0.0 < limit < 1.0 else math.nan
        self.reference = [x, n]

    def update(self, x: int, n: int) -> None:
        """Takes one cohort's events and trials of the new champion."""
        if self.limit is None:
            raise ValueError("the reference is not fixed yet")
        if not math.isnan(self.limit):
            thetas = HARM_THETAS if self.spec.sense == "lower" else 1.0 / HARM_THETAS
            alternatives = limit_alternatives(self.limit, thetas)
            self.harm = self.harm + bernoulli_log_factors(x, n, self.limit, alternatives)
        self.counts = [self.counts[0] + x, self.counts[1] + n]

    @property
    def log_harm(self) -> float:
        return float(log_mixture(self.harm, HARM_LOG_WEIGHTS))

    @property
    def trials(self) -> tuple[int, int]:
        return self.reference[1], self.counts[1]

    def observed(self) -> dict[str, float]:
        (x_a, n_a), (x, n) = self.reference, self.counts
        return {
            "champion": x_a / n_a if n_a else math.nan,
            "canary": x / n if n else math.nan,
            "limit": math.nan if self.limit is None else self.limit,
        }

    def state(self) -> dict[str, Any]:
        limit = "NaN" if self.limit is not None and math.isnan(self.limit) else self.limit
        return {"limit": limit, "harm": self.harm.tolist(), "reference": self.reference, "counts": self.counts}

    def load(self, state: dict[str, Any]) -> None:
        self.limit = None if state["limit"] is None else float(state["limit"])
        harm = np.asarray(state["harm"], dtype=np.float64)
        if harm.shape != self.harm.shape or not np.all(np.isfinite(harm)):
            raise ValueError("a number in the state is not finite")
        self.harm = harm
        self.reference = [int(count) for count in state["reference"]]
        self.counts = [int(count) for count in state["counts"]]
