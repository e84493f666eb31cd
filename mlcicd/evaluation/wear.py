"""What a holdout is still worth after it has judged many candidates.

Every candidate that is judged on the same rows is another chance to pass by luck, and what one learns from each verdict
goes into the next candidate (Dwork et al., "The reusable holdout", Science 349, 2015; Blum & Hardt, "The Ladder", ICML
2015). Bonferroni's inequality bounds the luck: k looks at error alpha / k each err no more often than one at alpha.
A budget of B candidates is the wear that a project accepts; from the k-th candidate on, k > B, each interval errs at
alpha * B / k, so that all k looks together err no more often than the first B would have. The inequality takes the
candidates as given: those made with the holdout's verdicts in mind are only part of what it covers, and only fresh
rows make up for that.
"""

from __future__ import annotations

# Beyond this, quantiles of resamples mean nothing.
_STRICTEST = 1 - 1e-6


def worn_confidence(confidence: float, judged: int, budget: int) -> float:
    """The confidence of intervals on a holdout that has judged this many candidates, the one of now included."""
    if judged <= budget:
        return confidence
    return min(1 - (1 - confidence) * budget / judged, _STRICTEST)
