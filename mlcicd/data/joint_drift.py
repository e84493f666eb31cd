"""Drift that no column shows alone: how well rows of two tables can be told apart, and which correlations changed.

- `auc/1`: area under the ROC curve of gradient-boosted trees that tell coded rows of the current data from those of the
  reference, each row scored by trees that have not seen it (five folds). 0.5: they can not be told apart; 1: always.
- `spearman/1`: change of Spearman's rank correlation of the codes of two columns, over rows that have both.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.data.row_sample import RowSample
from mlcicd.data.separability import category_auc, numeric_auc

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FOLDS = 5
_FEWEST_ROWS = 100
_NAMED = 5
_Z = 1.959963984540054
# Of a rank correlation's standard error to that of Pearson's (Fieller, Hartley and Pearson 1957).
_SPEARMAN = 1.06


@dataclass(frozen=True)
class Separation:
    """How well rows are told apart.

    Attributes:
        auc, interval: `auc/1` with its 95 % interval (DeLong, DeLong and Clarke-Pearson 1988).
        columns: what each column alone reaches, largest first.
    """

    auc: float
    interval: tuple[float, float]
    columns: Mapping[str, float]


def separation(reference: RowSample, current: RowSample) -> Separation:
    """Trains trees to tell rows of two samples with the same codes apart.

    Raises:
        ValueError: the codes differ, or a side has fewer than 100 rows.
    """
    import numpy as np
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold

    if dict(reference.columns) != dict(current.columns):
        raise ValueError("samples with different codes can not be compared")
    if min(len(reference.rows), len(current.rows)) < _FEWEST_ROWS:
        raise ValueError(f"fewer than {_FEWEST_ROWS} rows")
    features = np.concatenate([reference.rows, current.rows]).astype(np.float64)
    label = np.repeat([0, 1], [len(reference.rows), len(current.rows)])
    categories = [code.kind == "category" for code in reference.columns.values()]
    scores = np.zeros(len(label))
    for train, test in StratifiedKFold(_FOLDS, shuffle=True, random_state=0).split(features, label):
        trees = HistGradientBoostingClassifier(
            max_iter=40, max_leaf_nodes=8, early_stopping=False, random_state=0, categorical_features=categories
        ).fit(features[train], label[train])
        scores[test] = trees.decision_function(features[test])
    alone = {}
    for place, (name, code) in enumerate(reference.columns.items()):
        now, before = (Counter(sample.rows[:, place].tolist()) for sample in (current, reference))
        alone[name] = (
            category_auc({str(k): n for k, n in now.items()}, {str(k): n for k, n in before.items()})
            if code.kind == "category"
            else numeric_auc(dict(now), dict(before))
        )
    ranked = dict(sorted(alone.items(), key=lambda item: (-item[1], item[0])))
    return Separation(*_auc(scores[label == 1], scores[label == 0]), ranked)


def _auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
    """The area and its interval, from how many of the other side each score beats."""
    import numpy as np

    def beaten(scores: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
        ordered = np.sort(others)
        below, upto = (np.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
        share: NDArray[np.float64] = (below + upto) / (2 * len(others))
        return share

    wins, losses = beaten(positive, negative), beaten(negative, positive)
    auc = float(wins.mean())
    error = math.sqrt(float(wins.var(ddof=1)) / len(wins) + float(losses.var(ddof=1)) / len(losses))
    return auc, (max(auc - _Z * error, 0.0), min(auc + _Z * error, 1.0))


def separation_check(found: Separation, *, max: float, severity: Severity = Severity.WARN) -> Check:
    """Whether rows are told apart no better than `max`; above it within the interval is inconclusive."""
    strongest = list(found.columns.items())[:_NAMED]
    told = ", ".join(f"{name!r} {auc:.3f}" for name, auc in strongest)
    status, reason = CheckStatus.PASSED, ""
    if found.auc > max:
        status = CheckStatus.FAILED if found.interval[0] > max else CheckStatus.INCONCLUSIVE
        reason = f"rows are told from the reference's with an AUC of {found.auc:.3f}; columns alone reach {told}"
    return Check(
        name="drift of rows",
        status=status,
        severity=severity,
        observed=found.auc,
        interval=found.interval,
        required=f"auc/1 <= {max:g}",
        reason=reason,
        remedy="look at the strongest columns; where none is strong alone, at how they go together" if reason else "",
        details={"columns": [name for name, _ in strongest[:2]], "alone": dict(strongest)} if reason else {},
    )


@dataclass(frozen=True)
class CorrelationChange:
    """One pair of columns: Spearman's correlation then and now, and what chance reaches of the difference."""

    columns: tuple[str, str]
    before: float
    now: float
    noise: float

    @property
    def change(self) -> float:
        return abs(self.now - self.before)


def correlation_changes(reference: RowSample, current: RowSample) -> list[CorrelationChange]:
    """All pairs of numeric columns that vary on both sides, the most changed first.

    `noise` is what the largest difference of all pairs reaches in 95 % of samples of one population (Bonferroni).

    Raises:
        ValueError: the codes differ.
    """
    if dict(reference.columns) != dict(current.columns):
        raise ValueError("samples with different codes can not be compared")
    places = [(n, p) for p, (n, c) in enumerate(reference.columns.items()) if c.kind == "numeric"]
    pairs = [(a, b) for i, a in enumerate(places) for b in places[i + 1 :]]
    z = NormalDist().inv_cdf(1 - 0.025 / (len(pairs) or 1))
    changes = []
    for (first, i), (second, j) in pairs:
        sides = [_spearman(sample.rows[:, i], sample.rows[:, j]) for sample in (reference, current)]
        (before, n), (now, m) = sides
        if before is None or now is None:
            continue
        error = math.sqrt(_SPEARMAN * sum((1 - r * r) ** 2 / (k - 3) for r, k in ((before, n), (now, m))))
        changes.append(CorrelationChange((first, second), before, now, z * error))
    return sorted(changes, key=lambda c: (-c.change, c.columns))


def _spearman(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> tuple[float | None, int]:
    """Pearson's correlation of mid-ranks over rows where both are there, and how many these are."""
    import numpy as np

    there = (a > 0) & (b > 0)
    n = int(there.sum())
    if n < _FEWEST_ROWS:
        return None, n
    ranks = []
    for codes in (a[there], b[there]):
        counts = np.bincount(codes)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[codes])
    if any(np.ptp(r) == 0 for r in ranks):
        return None, n
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1]), n


def correlation_check(changes: list[CorrelationChange], *, max: float, severity: Severity = Severity.WARN) -> Check:
    """Whether no correlation changed by more than `max`, beyond what chance reaches."""
    large = [c for c in changes if c.change > max]
    proven = [c for c in large if c.change - c.noise > 0]
    status = CheckStatus.FAILED if proven else CheckStatus.INCONCLUSIVE if large else CheckStatus.PASSED
    shown = (proven or large)[:_NAMED]
    told = "; ".join(f"{a!r} and {b!r}: {c.before:+.2f}, now {c.now:+.2f}" for c in shown for a, b in [c.columns])
    if not changes:
        status, told = CheckStatus.SKIPPED, "there are no two numeric columns with enough rows"
    return Check(
        name="drift of correlations",
        status=status,
        severity=severity,
        observed=changes[0].change if changes else None,
        required=f"spearman/1 changes by at most {max:g}",
        reason=told,
        remedy="look at how the two are made: a unit, a join or the world has changed" if large else "",
        details={"columns": list(dict.fromkeys(n for c in proven for n in c.columns))} if proven else {},
    )
